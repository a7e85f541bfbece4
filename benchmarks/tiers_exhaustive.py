"""An oracle for the tier planner: random worlds, and every cascade in them tried one at a time.

Written from the definitions in docs/tiers.md; it shares with the planner only the names of parts and the stated model
of confidence. Used by `benchmarks.tiers` and by `tests/search/test_tiers.py`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.cost.cascade import Binormal
from fleetcast.scenario.fleet.links import Link
from fleetcast.search.tiers.choice import TIES, Problem, choose
from fleetcast.search.tiers.family import Part, lower, upper, whole
from fleetcast.search.tiers.parts import Use
from fleetcast.search.tiers.queues import QUEUED, choose_queued

Answer = tuple[int, set[tuple[int, Part]], int, float, float, float, float, float]
"""Tier, what lies where, exit it may go on from (0 = none), e2e, ttft (s), J, $, B."""


class Table:
    """A random world: times of parts grow with layers, tiers differ, some do not hold much."""

    def __init__(self, seed: int) -> None:
        r = self.r = random.Random(seed)
        self.tiers = r.choice([1, 2, 2, 3])
        depth = r.randint(3, 6)
        self.exits = tuple(sorted(r.sample(range(2, depth + 2), r.randint(2, min(3, depth)))))
        self.prompt, self.output = r.randint(10, 1000), r.randint(1, 300)
        self.hidden, self.kv = r.choice([1e2, 1e3, 7e3]), r.choice([10.0, 500.0])
        self.speed = [r.uniform(0.2, 3.0) for _ in range(self.tiers)]
        self.power = [r.uniform(1, 300) for _ in range(self.tiers)]
        self.price = [r.choice([0.0, r.uniform(0, 1e-3)]) for _ in range(self.tiers)]
        self.memory = [r.choice([3, 5, 8, 100]) for _ in range(self.tiers)]
        self.wire = [
            Link(
                id="x", name="x", kind="wan", source="test", bandwidth=10 ** r.uniform(4, 8),
                latency=r.uniform(0, 0.05), uplink=r.choice([None, 1e5]),
            )
            for _ in range(self.tiers)
        ]  # fmt: skip
        self.quality = tuple(sorted(round(r.uniform(0.05, 0.95), 3) for _ in self.exits))

    def size(self, part: Part) -> float:
        """Returns how much a part weighs, in layers."""
        return part.stop - part.start + 1.5 * part.answers

    def use(self, tier: int, part: Part) -> Use:
        """Returns what a part takes; raises Infeasible."""
        if self.lacks(tier, frozenset((part,))):
            raise Infeasible("layers", need=1, have=0)
        s = self.size(part) / self.speed[tier]
        prefill, decode = 1e-4 * s * self.prompt, 1e-2 * s * (self.output - 1)
        w, p = self.power[tier], self.price[tier]
        return Use(prefill, decode, w * prefill, w * decode, p * prefill, p * decode)

    def lacks(self, tier: int, parts: Collection[Part]) -> Infeasible | None:
        """Returns why a tier cannot hold the parts, or None."""
        layers = {i for p in parts for i in range(p.start, p.stop)}
        need = len(layers) + 1.5 * len({p.stop for p in parts if p.answers})
        return Infeasible("layers", need=need, have=self.memory[tier]) if need > self.memory[tier] else None

    def links(self, a: int, b: int) -> tuple[Link, ...]:
        """Returns the links between two tiers, which stand in a row."""
        return tuple(self.wire[i] for i in range(min(a, b), max(a, b)))

    def cache(self, tier: int, split: int) -> float:
        """Returns bytes of cache a token has below a split."""
        return self.kv * split


def moved(book: Table, a: int, b: int, size: float, messages: float = 1) -> float:
    """Seconds over the links between two tiers, written out."""
    wires = book.links(a, b)
    if not wires:
        return 0.0
    rate = min((w.uplink or w.bandwidth) if b > a else w.bandwidth for w in wires)
    return size / rate + messages * sum(w.latency for w in wires)


def everything(book: Table, problem: Problem) -> Iterator[tuple[bool, float, dict[str, float]]]:
    """Yields (one answer of one tier, quality, metrics) of every cascade that fits, one at a time."""
    exits, n, p, o = book.exits, book.tiers, book.prompt, book.output
    judge, thresholds, longest = problem.judge, problem.thresholds, min(problem.longest, len(exits))

    def answers(before: Answer | None, exit: int) -> Iterator[Answer]:
        """Every (leg, holds, knows, e2e, ttft, energy, cost, bytes) for an answer at ``exit`` after ``before``."""
        for t in range(n):
            if before is None or t > before[0]:
                try:
                    u = book.use(t, whole(exit))
                except Infeasible:
                    continue
                far = t > 0
                up = moved(book, 0, t, 4 * p * far)
                home = moved(book, t, 0, 4 * far)
                yield (
                    t, {(t, whole(exit))}, exit, up + u.prefill + u.decode + home, up + u.prefill + home,
                    u.prefill_energy + u.decode_energy, u.prefill_cost + u.decode_cost, 4 * (p + o) * far,
                )  # fmt: skip
        if before is None:
            starts = [(low, high, s) for low in range(n) for high in range(low + 1, n) for s in range(1, exit)]
        elif before[2]:
            starts = [(before[0], high, before[2]) for high in range(before[0], n)]
        else:
            starts = []
        for low, high, s in starts:
            for keeps in (True, False):
                if low == high and keeps:
                    continue
                try:
                    under, over = book.use(low, lower(s)), book.use(high, upper(s, exit))
                    all_ = over if keeps else book.use(high, whole(exit))
                except Infeasible:
                    continue
                fresh = before is None
                asks = 4 * p * (low > 0) * fresh
                state = p * (book.hidden + (0 if keeps else book.kv * s)) * (high > low)
                t1 = moved(book, 0, low, asks) + (under.prefill if fresh else 0)
                t1 += moved(book, low, high, state) + over.prefill
                joules = (under.prefill_energy if fresh else 0) + over.prefill_energy
                dollars = (under.prefill_cost if fresh else 0) + over.prefill_cost
                size = asks + state
                if keeps:
                    ttft = t1 + moved(book, high, low, 4) + moved(book, low, 0, 4 * (low > 0))
                    trip = moved(book, low, high, book.hidden) + moved(book, high, low, 4)
                    e2e = ttft + under.decode + over.decode + (o - 1) * trip
                    joules += under.decode_energy + over.decode_energy
                    dollars += under.decode_cost + over.decode_cost
                    size += (o - 1) * book.hidden + 4 * o + 4 * o * (low > 0)
                    holds = {(high, upper(s, exit)), (low, lower(s) if fresh else whole(s))}
                else:
                    ttft = t1 + moved(book, high, 0, 4 * (high > 0))
                    e2e = ttft + all_.decode
                    joules, dollars = joules + all_.decode_energy, dollars + all_.decode_cost
                    size += 4 * o * (high > 0)
                    holds = {(high, whole(exit)), (low, lower(s) if fresh else whole(s))}
                yield high, holds, 0 if keeps else exit, e2e, ttft, joules, dollars, size

    def fits(holds: set[tuple[int, Part]]) -> bool:
        return all(book.lacks(t, {part for at, part in holds if at == t}) is None for t in range(n))

    def grow(
        chain: Sequence[int], legs: list[Answer], holds: set[tuple[int, Part]]
    ) -> Iterator[tuple[bool, float, dict[str, float]]]:
        if len(legs) == len(chain):
            for row in itertools.product(thresholds, repeat=len(chain) - 1):
                quality, reach = judge.cascade([exits.index(e) for e in chain], [row])
                share = reach[0]
                e2e, energy, cost, size = (
                    sum(r * leg[k] for r, leg in zip(share, legs, strict=True)) for k in (3, 5, 6, 7)
                )
                ttft = sum(r * leg[3] for r, leg in zip(share[:-1], legs[:-1], strict=True)) + share[-1] * legs[-1][4]
                plain = len(legs) == 1 and len(legs[0][1]) == 1
                yield plain, quality[0], {"e2e": e2e, "ttft": ttft, "energy": energy, "cost": cost, "bytes": size}
            return
        before = legs[-1] if legs else None
        for leg in answers(before, chain[len(legs)]):
            if fits(holds | leg[1]):
                yield from grow(chain, [*legs, leg], holds | leg[1])

    for length in range(1, longest + 1):
        for chain in itertools.combinations(exits, length):
            yield from grow(chain, [], set())


class Lines:
    """Queries that arrive by the clock at a random world's tiers, each a line served one at a time."""

    def __init__(self, book: Table, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.book, n = book, 60
        slow = [u.prefill + u.decode for t in range(book.tiers) for e in book.exits[:1] for u in _uses(book, t, e)]
        gap = (max(slow) if slow else 1.0) * draw.choice([0.5, 2.0, 10.0])
        self.arrival = np.cumsum(draw.exponential(gap, n))
        self.draw = (draw.permutation(n) + 0.5) / n
        self.size = draw.uniform(0.5, 1.5, n)

    def alone(self, tier: int, exit: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ttft, e2e) of every query where no other is."""
        use, links = self.book.use(tier, whole(exit)), self.there(tier) + self.back(tier)
        return links + self.size * use.prefill, links + self.size * (use.prefill + use.decode)

    def there(self, tier: int) -> float:
        """Returns seconds of the prompt's way."""
        return moved(self.book, 0, tier, 4 * self.book.prompt * (tier > 0))

    def back(self, tier: int) -> float:
        """Returns seconds of an answer's way home."""
        return moved(self.book, tier, 0, 4 * (tier > 0))

    def served(self, tier: int, exit: int, who: np.ndarray, when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ttft, e2e) of some queries: Lindley's recursion in the order in which they reach the tier."""
        first, last = (column[who] for column in self.alone(tier, exit))
        work = last - self.there(tier) - self.back(tier)
        wait, free = np.zeros(len(who)), -np.inf
        for i in np.argsort(when, kind="stable"):
            reaches = when[i] + self.there(tier)
            wait[i] = max(0.0, free - reaches)
            free = reaches + wait[i] + work[i]
        return first + wait, last + wait


def _uses(book: Table, tier: int, exit: int) -> list[Use]:
    try:
        return [book.use(tier, whole(exit))]
    except Infeasible:
        return []


def through(
    lines: Lines, tiers: Sequence[int], depths: Sequence[int], reach: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ttft, e2e) of every query under a cascade, one event after another over all tiers at once."""
    n, last = len(lines.arrival), len(tiers) - 1
    ttft, e2e = np.zeros(n), np.zeros(n)
    free = dict.fromkeys(tiers, -np.inf)
    coming = [(t + lines.there(tiers[0]), i, 0) for i, t in enumerate(lines.arrival.tolist())]
    heapq.heapify(coming)
    while coming:
        reaches, i, k = heapq.heappop(coming)
        use = lines.book.use(tiers[k], whole(depths[k]))
        start = max(reaches, free[tiers[k]])
        shown, free[tiers[k]] = start + lines.size[i] * use.prefill, start + lines.size[i] * (use.prefill + use.decode)
        home = lines.back(tiers[k])
        e2e[i] = free[tiers[k]] + home - lines.arrival[i]
        ttft[i] = shown + home - lines.arrival[i] if k == last else e2e[i]
        if k < last and lines.draw[i] < reach[k + 1]:
            heapq.heappush(coming, (free[tiers[k]] + home + lines.there(tiers[k + 1]), i, k + 1))
    return ttft, e2e


def queued_everything(lines: Lines, problem: Problem) -> Iterator[tuple[tuple[int, ...], float, dict[str, float]]]:
    """Yields (tiers, quality, metrics) of every cascade of answers to text, all thresholds, each run by itself."""
    book = lines.book
    for length in range(1, min(problem.longest, len(book.exits), book.tiers) + 1):
        for chain in itertools.combinations(range(len(book.exits)), length):
            depths = [book.exits[i] for i in chain]
            for tiers in itertools.combinations(range(book.tiers), length):
                uses = [use for t, e in zip(tiers, depths, strict=True) for use in _uses(book, t, e)]
                if len(uses) < length:
                    continue
                for row in itertools.product(problem.thresholds, repeat=length - 1):
                    quality, shares = problem.judge.cascade(chain, [row])
                    reach = shares[0].tolist()
                    ttft, e2e = through(lines, tiers, depths, reach)
                    pairs, sent = list(zip(reach, uses, strict=True)), 4 * (book.prompt + book.output)
                    values = {
                        "energy": sum(r * (u.prefill_energy + u.decode_energy) for r, u in pairs),
                        "cost": sum(r * (u.prefill_cost + u.decode_cost) for r, u in pairs),
                        "bytes": sum(r * sent * (t > 0) for r, t in zip(reach, tiers, strict=True)),
                        "ttft": float(ttft.mean()), "e2e": float(e2e.mean()),
                    }  # fmt: skip
                    for name in QUEUED:
                        metric, _, statistic = name.partition(".")
                        column = ttft if metric == "ttft" else e2e
                        values[name] = values[metric] if statistic == "mean" else float(
                            np.percentile(column, int(statistic[1:]))
                        )  # fmt: skip
                    yield tiers, float(quality[0]), values


Best = dict[tuple[int, ...], tuple[float, ...]]
"""Goals of the best cascade of each way over the tiers."""


def queued_compared(seed: int) -> tuple[Best, Best]:
    """Returns, under load, the planner's best of every way over the tiers, and the best of everything."""
    book, problem = drawn(seed)
    lines, r = Lines(book, seed), random.Random(seed + 2 * 10**6)
    limits = {"error": problem.limits["error"]}
    slow = [float(np.median(lines.alone(t, e)[1])) for t in range(book.tiers) for e in book.exits if _uses(book, t, e)]
    if slow and r.random() < 0.8:
        limits[r.choice(QUEUED)] = r.choice(slow) * r.choice(
            [1.01, 3.0, 30.0]
        )  # not on the edge: rounding decides there
    problem = replace(problem, limits=limits)
    found = {tuple(t for t, _, _ in c.shape): c.key(problem.goals) for c in choose_queued(problem, lines).best}
    best: Best = {}
    for tiers, quality, values in queued_everything(lines, problem):
        if all(values[k] <= v for k, v in limits.items() if k != "error") and 1 - quality <= limits["error"]:
            key = tuple(values[name] for name in (*problem.goals, *TIES))
            best[tiers] = min(best.get(tiers, key), key)
    return found, best


def same_ways(ours: Best, best: Best) -> bool:
    """Whether two bests are equal to rounding, way by way."""
    return set(ours) == set(best) and all(same(ours[way], best[way]) for way in best)


def drawn(seed: int) -> tuple[Table, Problem]:
    """Returns a random world and a question about it."""
    book, r = Table(seed), random.Random(seed + 10**6)
    auroc, thresholds = r.uniform(0.55, 0.95), np.sort([round(r.uniform(0.02, 0.98), 2) for _ in range(4)])
    goals = r.choice([("e2e",), ("energy",), ("bytes",), ("cost",), ("energy", "e2e")])
    longest = r.choice([1, 2, 3])
    limits = {"error": r.choice([1.0, 1 - book.quality[0], 1 - book.quality[-1], 1 - float(np.mean(book.quality))])}
    if r.random() < 0.5:
        limits["e2e"] = 10 ** r.uniform(-1, 2)
    if r.random() < 0.3:
        limits["ttft"] = 10 ** r.uniform(-1, 2)
    return book, Problem(
        book=book, tiers=book.tiers, exits=book.exits, judge=Binormal(book.quality, auroc), goals=goals,
        splits=tuple(range(1, book.exits[-1])) if book.tiers > 1 else (), thresholds=thresholds, limits=limits,
        longest=longest,
    )  # fmt: skip


def compared(seed: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Returns the goals of the planner's best, of the best of everything, and of the best single answer of one tier."""
    book, problem = drawn(seed)
    found = choose(problem).best
    best: dict[bool, tuple[float, ...]] = {}
    for plain, quality, values in everything(book, problem):
        met = 1 - quality <= problem.limits["error"]
        met = met and all(values[k] <= v for k, v in problem.limits.items() if k != "error")
        key = tuple(values[name] for name in (*problem.goals, *TIES))
        for kind in {False, plain} if met else ():
            best[kind] = min(best.get(kind, key), key)
    return (found[0].key(problem.goals) if found else None), best.get(False), best.get(True)


def same(ours: tuple[float, ...] | None, best: tuple[float, ...] | None) -> bool:
    """Whether two bests are equal to rounding."""
    if ours is None or best is None:
        return ours is best
    return bool(np.allclose(ours, best, rtol=1e-9, atol=1e-12))
