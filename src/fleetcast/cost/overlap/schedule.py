"""Nano-batch schedules: operators of several nano-batches side by side on one device, and what that costs them.

Three streams hold one operator each at a time (`operators.STREAMS`). An operator starts when the one before it on its
stream and all it needs have ended. Operators that run together divide the device: the shares R of what runs sum to 1,
products keep R of their speed, decode attention and collectives get P(R) of theirs (`Interference`). Whatever the
shares, no resource is used above its whole: where speeds times demands exceed 1, all who use that resource slow down.

Zhu et al., "NanoFlow: Towards Optimal Large Language Model Serving Throughput", OSDI 2025 (first edition 2024).
Differs: theirs solves two mixed integer programs over profiled kernels; here `search.overlap` searches orders and
shares, and a schedule is run in full, so that a stream's waiting is counted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.base.record import Record
from fleetcast.cost.overlap.operators import COMPUTE, MEMORY, NETWORK, STREAMS, Operator

EDGE = 1e-9
"""Relative rounding that checks allow."""


class ScheduleError(FleetcastError):
    """A schedule or its timeline breaks a rule; the message names the rule and the operators."""


@dataclass(frozen=True)
class Interference:
    """How much of its own speed an operator keeps with a share R of the device.

    Attributes:
        share: R of the points, growing from 0 to 1.
        memory: P of decode attention at each.
        network: P of collectives at each.
        gain: how much of P - R is believed: 1 = the points, 0 = P = R, where running side by side gains nothing.
    """

    share: tuple[float, ...]
    memory: tuple[float, ...]
    network: tuple[float, ...]
    gain: float = 1.0

    def speed(self, stream: int, share: float) -> float:
        """Returns P(R) of an operator on ``stream``; products keep R."""
        if stream == COMPUTE or share >= 1.0:
            return share
        points = self.memory if stream == MEMORY else self.network
        for (low, high), (a, b) in zip(pairwise(self.share), pairwise(points), strict=True):
            if share <= high:
                p = a + (b - a) * ((share - low) / (high - low))
                return share + self.gain * (p - share)
        return share


MEASURED = Interference(
    share=(0.0, 0.1, 0.2, 0.4, 0.8, 0.9, 1.0),
    memory=(0.0, 0.2, 0.3, 0.8, 0.85, 0.95, 1.0),
    network=(0.0, 0.3, 0.5, 0.633, 0.9, 1.0, 1.0),
)
"""Pairs profiled on A100 by Zhu et al. (OSDI 2025, table 3 and figure 6). Of decode attention, 0.8 at R = 0.4 and 0.85
at R = 0.8 were verified in published summaries of the paper; the other points are recalled from its table 3 and not
verified. Network at 0.4 is the line between its neighbours."""


def gain_spread(points: Interference = MEASURED) -> float:
    """Returns the relative standard deviation of the gain of sharing, P - R, from kernel to kernel.

    Of what was profiled there are two kernels at each share, decode attention and a collective. Half the square of the
    difference of two draws is an unbiased estimate of their variance; over their mean, the root mean square over
    the shares at which either gains.
    """
    share, *found = (np.array(column) for column in (points.share, points.memory, points.network))
    a, b = (column - share for column in found)
    here = a + b > 0.0
    relative = np.abs(a - b)[here] / np.sqrt(2.0) / ((a + b)[here] / 2.0)
    return float(np.sqrt(np.mean(relative**2)))


@dataclass(frozen=True)
class Schedule:
    """Operators of all nano-batches and layers, what each needs, the order of each stream, and the shares.

    Attributes:
        operators: each with its nano-batch and layer in ``place``.
        place: (layer, nano-batch) of each.
        after: indices of the operators that must end before it starts.
        order: per stream, indices of its operators in the order they are queued.
        share: R that each takes while others run; of products what the others leave.
    """

    operators: tuple[Operator, ...]
    place: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, ...], ...]
    order: tuple[tuple[int, ...], ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """What happens under a schedule.

    Attributes:
        start: s, per operator.
        end: s, per operator.
        spans: (from, to, operators, shares, speeds) between any two starts or ends.
    """

    start: tuple[float, ...]
    end: tuple[float, ...]
    spans: tuple[tuple[float, float, tuple[int, ...], tuple[float, ...], tuple[float, ...]], ...]

    @property
    def time(self) -> float:
        """Seconds until the last operator has ended."""
        return max(self.end, default=0.0)


def chain(batches: Sequence[Sequence[Operator]], layers: int, skew: int, memory: float, network: float) -> Schedule:
    """Returns the schedule of ``layers`` equal layers with one order and one share per kind.

    Every stream takes operators by ``stage + skew x nano-batch``: with a skew of 0 all nano-batches pass a stage
    before any passes the next; with more, earlier ones run ahead. Stages only grow along a batch, so no order of this
    family can lock up.

    Args:
        batches: operators of one layer per nano-batch.
        layers: chained; the last ends in a barrier.
        skew: stages by which each nano-batch trails the one before.
        memory: share that decode attention takes beside products.
        network: share that collectives take beside others.
    """
    rows = [(layer, b, op) for layer in range(layers) for b, ops in enumerate(batches) for op in ops]
    depth = 1 + max(op.stage for _, _, op in rows)
    last: dict[int, list[int]] = {}  # of each batch, the operators of its latest stage
    latest: dict[int, tuple[int, int]] = {}
    before: dict[int, list[int]] = {}
    after = []
    for i, (layer, b, op) in enumerate(rows):
        if latest.get(b) != (layer, op.stage):
            before[b], last[b], latest[b] = last.get(b, []), [], (layer, op.stage)
        after.append(tuple(before[b]))
        last[b].append(i)
    key = [layer * depth + op.stage + skew * b for layer, b, op in rows]
    order = tuple(
        tuple(sorted((i for i, r in enumerate(rows) if r[2].stream == stream), key=lambda i: (key[i], rows[i][1], i)))
        for stream in range(len(STREAMS))
    )
    shares = {COMPUTE: 1.0, MEMORY: memory, NETWORK: network}
    return Schedule(
        tuple(op for _, _, op in rows), tuple((layer, b) for layer, b, _ in rows), tuple(after), order,
        tuple(shares[op.stream] for _, _, op in rows),
    )  # fmt: skip


def divided(schedule: Schedule, running: Sequence[int]) -> list[float]:
    """Returns the share of each running operator; they sum to 1 at most.

    Alone, an operator has the whole device. Beside a product, decode attention and collectives take their own shares
    and the product the rest; without one, decode attention has what the collective leaves.
    """
    if len(running) == 1:
        return [1.0]
    streams = [schedule.operators[i].stream for i in running]
    filler = streams.index(min(streams))  # compute where it runs, else memory
    shares = [schedule.share[i] for i in running]
    shares[filler] = 1.0 - sum(s for k, s in enumerate(shares) if k != filler)
    if shares[filler] <= 0.0:
        raise ScheduleError(f"the shares of {[schedule.operators[i].name for i in running]} leave nothing for a third")
    return shares


def speeds(
    schedule: Schedule, running: Sequence[int], shares: Sequence[float], interference: Interference
) -> list[float]:
    """Returns how fast each runs, 1 = as alone: P of its share, less where a resource would be used above 1."""
    ops = [schedule.operators[i] for i in running]
    found = [interference.speed(op.stream, r) for op, r in zip(ops, shares, strict=True)]
    if len(found) == 1:
        return found
    slower = [1.0] * len(found)
    for resource in range(3):
        used = sum(p * op.demand[resource] for p, op in zip(found, ops, strict=True))
        if used > 1.0:
            slower = [min(s, 1.0 / used) if op.demand[resource] > 0.0 else s for s, op in zip(slower, ops, strict=True)]
    return [p * s for p, s in zip(found, slower, strict=True)]


def run(schedule: Schedule, interference: Interference = MEASURED) -> Run:
    """Returns when each operator starts and ends.

    Raises:
        ScheduleError: the orders wait for each other, or shares leave a running operator nothing.
    """
    ops, queues = schedule.operators, schedule.order
    n = len(ops)
    start, end, done = [0.0] * n, [0.0] * n, [False] * n
    head = [0] * len(queues)
    left: dict[int, float] = {}  # running operator -> share of its work still to do
    now, finished = 0.0, 0
    spans = []
    while finished < n:
        for stream, queue in enumerate(queues):
            if head[stream] < len(queue):
                i = queue[head[stream]]
                if i not in left and all(done[j] for j in schedule.after[i]):
                    left[i], start[i] = 1.0, now
        if not left:
            stuck = [ops[q[h]].name for q, h in zip(queues, head, strict=True) if h < len(q)]
            raise ScheduleError(f"the streams wait for each other at {stuck}")
        running = sorted(left, key=lambda i: ops[i].stream)
        shares = divided(schedule, running)
        pace = speeds(schedule, running, shares, interference)
        need = [left[i] * ops[i].time / p for i, p in zip(running, pace, strict=True)]
        step = min(need)
        spans.append((now, now + step, tuple(running), tuple(shares), tuple(pace)))
        now += step
        for i, p, seconds in zip(running, pace, need, strict=True):
            if seconds <= step * (1.0 + 1e-12):
                done[i], end[i] = True, now
                head[ops[i].stream] += 1
                finished += 1
                del left[i]
            else:
                left[i] -= step * p / ops[i].time
    return Run(tuple(start), tuple(end), tuple(spans))


def check(schedule: Schedule, result: Run, interference: Interference = MEASURED) -> None:
    """Checks a timeline against every rule, from what it says alone.

    Raises:
        ScheduleError: an operator is missing, starts before what it needs has ended or beside another of its stream,
            gets more speed than its share, uses a resource above its whole, or does not finish its work.
    """
    ops = schedule.operators
    queued = sorted(i for queue in schedule.order for i in queue)
    if queued != list(range(len(ops))):
        raise ScheduleError("not every operator is queued exactly once")
    end = max(result.end, default=0.0)
    edge = EDGE * max(end, 1e-30)
    for i, op in enumerate(ops):
        for j in schedule.after[i]:
            if result.start[i] < result.end[j] - edge:
                raise ScheduleError(f"{_said(schedule, i)} starts before {_said(schedule, j)} has ended")
        if any(op.stream != s for s, queue in enumerate(schedule.order) if i in queue):
            raise ScheduleError(f"{_said(schedule, i)} is queued on a stream that is not its own")
    for queue in schedule.order:
        for i, j in pairwise(queue):
            if result.start[j] < result.end[i] - edge:
                raise ScheduleError(f"{_said(schedule, j)} runs beside {_said(schedule, i)} on one stream")
    work = [0.0] * len(ops)
    for low, high, running, shares, pace in result.spans:
        if sum(shares) > 1.0 + EDGE or min(shares) < 0.0:
            raise ScheduleError(f"shares of {sum(shares):.3g} of the device at {low:.3g} s")
        for i, r, p in zip(running, shares, pace, strict=True):
            if p > interference.speed(ops[i].stream, r) + EDGE:
                raise ScheduleError(f"{_said(schedule, i)} runs at {p:.3g} of its speed with a share of {r:.3g}")
            if low < result.start[i] - edge or high > result.end[i] + edge:
                raise ScheduleError(f"{_said(schedule, i)} works outside its span")
            work[i] += (high - low) * p
        for resource, name in enumerate(STREAMS):
            used = sum(p * ops[i].demand[resource] for i, p in zip(running, pace, strict=True))
            if used > 1.0 + EDGE:
                raise ScheduleError(f"{name} is used {used:.3g} times at {low:.3g} s")
    for i, op in enumerate(ops):
        if abs(work[i] - op.time) > EDGE * max(op.time, end) * len(ops):
            raise ScheduleError(f"{_said(schedule, i)} does {work[i]:.6g} s of its {op.time:.6g} s of work")


def lower_bound(schedule: Schedule) -> float:
    """Returns seconds that no order and no shares can beat.

    No operator is faster than alone, so neither is a chain of them nor a stream, which holds one at a time; and no
    resource does more than all of itself.
    """
    longest = [0.0] * len(schedule.operators)
    for i, op in enumerate(schedule.operators):  # rows stand in an order in which what is needed comes first
        longest[i] = op.time + max((longest[j] for j in schedule.after[i]), default=0.0)
    streams = [sum(schedule.operators[i].time for i in queue) for queue in schedule.order]
    resources = [sum(op.time * op.demand[r] for op in schedule.operators) for r in range(3)]
    return max(max(longest, default=0.0), *streams, *resources)


def with_shares(schedule: Schedule, share: Sequence[float]) -> Schedule:
    """Returns ``schedule`` with other shares."""
    return replace(schedule, share=tuple(share))


def record(schedule: Schedule, result: Run) -> Record:
    """Returns the timeline as an event record, a resource per stream, for `view.timeline` and statistics."""
    rows = sorted(range(len(schedule.operators)), key=lambda i: (result.start[i], schedule.operators[i].stream))
    names = [_said(schedule, i) for i in rows]
    whats = tuple(dict.fromkeys(names))
    number = {name: k for k, name in enumerate(whats)}
    start = np.array([result.start[i] for i in rows])
    return Record(
        time=start, duration=np.array([result.end[i] for i in rows]) - start,
        resource=np.array([schedule.operators[i].stream for i in rows], dtype=np.int32),
        what=np.array([number[name] for name in names], dtype=np.int32),
        count=np.ones(len(rows), dtype=np.int64), items=np.ones(len(rows), dtype=np.int64),
        level=np.zeros(len(rows)), resources=STREAMS, whats=whats,
    )  # fmt: skip


def _said(schedule: Schedule, i: int) -> str:
    layer, batch = schedule.place[i]
    return f"{schedule.operators[i].name}, nano-batch {batch + 1}, layer {layer + 1}"
