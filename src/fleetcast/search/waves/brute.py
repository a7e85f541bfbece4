"""The best schedule of a tiny graph by trying all of them: every order of starts, every number of devices.

Any schedule can be pushed left until each operator starts as soon as its input and its devices allow, no earlier than
the one that started before it; so the best of those is the best of all. Moving data costs nothing here.
"""

from __future__ import annotations

from math import inf

from fleetcast.search.waves.graph import Graph


def brute(graph: Graph, devices: int) -> float:
    """Returns the least seconds in which any schedule ends; operators of a MetaOp may each take other devices.

    Args:
        graph: at most about six operators in all.
        devices: that they share.
    """
    after: list[tuple[int, ...]] = []
    choices: list[list[tuple[int, float]]] = []
    last: list[int] = []
    for op in graph:
        before = tuple(last[j] for j in op.after)
        for _ in range(op.count):
            after.append(before)
            choices.append([(n, t) for n, t in zip(op.curve.counts, op.curve.seconds, strict=True) if n <= devices])
            before = (len(after) - 1,)
        last.append(len(after) - 1)
    count = len(after)
    quick = [min(t for _, t in some) for some in choices]
    work = [min(n * t for n, t in some) for some in choices]
    behind = _behind(after, quick)
    best = inf

    def extend(done: dict[int, float], free: tuple[float, ...], now: float, left: float) -> None:
        nonlocal best
        if len(done) == count:
            best = min(best, max(done.values()))
            return
        for i in range(count):
            if i in done or any(j not in done for j in after[i]):
                continue
            ready = max((done[j] for j in after[i]), default=0.0)
            for n, seconds in choices[i]:
                start = max(ready, free[n - 1], now)
                end = start + seconds
                if end + behind[i] >= best * (1 - 1e-12):
                    continue
                rest = sorted([max(f, start) for f in free[n:]] + [end] * n)
                if (sum(rest) + left - work[i]) / devices >= best * (1 - 1e-12):
                    continue
                extend(done | {i: end}, tuple(rest), start, left - work[i])

    extend({}, (0.0,) * devices, 0.0, sum(work))
    return best


def _behind(after: list[tuple[int, ...]], seconds: list[float]) -> list[float]:
    found = [0.0] * len(after)
    for i in reversed(range(len(after))):
        for j in after[i]:
            found[j] = max(found[j], found[i] + seconds[i])
    return found
