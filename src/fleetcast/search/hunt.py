"""One search under way: what has been simulated, what that rules out, and what is looked at next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fleetcast.scenario.outcome import Outcome
from fleetcast.search.alike import same
from fleetcast.search.bounds import Floor, horizon_of, seen
from fleetcast.search.candidates import Candidate, bound
from fleetcast.search.pace import Floats
from fleetcast.search.ranking import Axis, values, worst_ratio
from fleetcast.sim.serving.setting import Setting
from fleetcast.sim.serving.world import simulate

PARTS = (1 / 16, 1 / 4)
"""Shares of the trace that a plan is tried on before it is simulated in full."""
SHORTEST = 512
"""Requests that a part must hold to be worth a run of its own."""


@dataclass
class Hunt:
    """One search under way: what has been simulated, and what that rules out.

    Attributes:
        sizes: requests of each part to try first.
        exhaustive: rule nothing out.
        done: simulated candidates with their outcomes.
        killed: candidates ruled out, with the sharpest floor known and how far they were tried.
        copies: candidates that do as another does: (that other, the candidate).
        met: of what meets the SLO, the values on the axes.
        leaders: per layout the best values of the goals.
        ranked: the leaders' values in order.
    """

    state: Setting
    goals: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    top: int | None
    sizes: list[int]
    exhaustive: bool = False
    done: list[tuple[Candidate, Outcome]] = field(default_factory=list)
    killed: list[tuple[Candidate, Floor, int]] = field(default_factory=list)
    copies: list[tuple[Candidate, Candidate]] = field(default_factory=list)
    tried: dict[tuple[int, ...], list[tuple[Candidate, Outcome, int]]] = field(default_factory=dict)
    met: list[tuple[float, ...]] = field(default_factory=list)
    leaders: dict[int, tuple[float, ...]] = field(default_factory=dict)
    ranked: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Resolves the limits once."""
        self.limits = self.state.scenario.slo.limits()
        self.parts: dict[int, Setting] = {}
        self.late: dict[int, bool] = {}

    def run(self, candidates: Sequence[Candidate], progress: Callable[[int, int], None] | None = None) -> None:
        """Settles every candidate, the most promising first, so that what is found rules out what follows."""
        order = [(self._keys(c, c.floor, self.axes), c.index, c) for c in candidates]
        heapq.heapify(order)
        total = len(order)
        while order:
            self.settle(heapq.heappop(order)[2])
            if progress is not None:
                progress(total - len(order), total)

    def settle(self, c: Candidate) -> Outcome | None:
        """Rules a candidate out, finds that it does as another does, or simulates it."""
        if self.exhaustive:
            return self._simulate(c)
        floor = c.floor
        if id(floor) not in self.late:  # plans that differ in max_batch share it
            self.late[id(floor)] = self.misses(floor)
        if self.late[id(floor)] or self.beaten(c, floor):
            self.killed.append((c, floor, 0))
            return None
        twin = next((d for d, outcome in self.done if same(d, c, outcome)), None)
        if twin is not None:
            self.copies.append((twin, c))
            return None
        for level, size in enumerate(self.sizes, 1):
            floor, met = self.look(c, floor, size)
            if self.misses(floor) or self.beaten(c, floor):
                self.killed.append((c, floor, level))
                return None
            if met:  # nothing went wrong so far: a longer part is not likely to end it
                break
        return self._simulate(c)

    def misses(self, floor: Floor) -> bool:
        """Whether a plan that takes at least ``floor`` certainly misses a limit."""
        return any(floor.exceeds(path, limit) for path, limit in self.limits.items())

    def beaten(self, c: Candidate, floor: Floor) -> bool:
        """Whether a plan certainly ranks after ``top`` layouts, and some plan within the SLO beats it everywhere."""
        if self.top is None or len(self.ranked) < self.top:
            return False
        least = self._keys(c, floor, self.goals)
        if not _clearly_after(least, self.ranked[self.top - 1]):
            return False
        axes = np.array(self._keys(c, floor, self.axes))
        ahead = np.array(self.met)
        below = ahead <= axes
        clear = ahead < axes - 1e-9 * np.abs(axes)
        return bool((below.all(axis=1) & clear.any(axis=1)).any())

    def ratio(self, floor: Floor) -> float:
        """Returns a value that the plan's worst value / limit is not below."""
        return max((floor.metric(path) / limit for path, limit in self.limits.items()), default=0.0)

    def look(self, c: Candidate, floor: Floor, size: int) -> tuple[Floor, bool]:
        """Returns the floor after the first ``size`` requests, and whether these alone meet the SLO.

        They are simulated, or known from a plan that does the same.
        """
        family = self.tried.setdefault(c.rows, [])
        part = next((o for d, o, k in family if k == size and same(d, c, o)), None)
        if part is None:
            part = simulate(self._part(size), c.plan)
            family.append((c, part, size))
        api = self._api(c, part)
        raised = seen(floor, part, horizon_of(self.state.requests, part, size, api), api)
        return raised, bool(part.slo["met"])

    def nearest(self, count: int) -> None:
        """Simulates ruled out plans until the ``count`` nearest to the SLO are known.

        The plan whose floor is nearest goes first; when as many plans as wanted are known to be nearer than every
        remaining floor, they are the nearest.
        """
        known = sorted({worst_ratio(outcome.slo) for _, outcome in self.done})
        heap = [(self.ratio(floor), c.index, level, c, floor) for c, floor, level in self.killed]
        heapq.heapify(heap)
        self.killed = []
        while heap and (len(known) < count or heap[0][0] <= known[count - 1]):
            _, index, level, c, floor = heapq.heappop(heap)
            twin = next((d for d, outcome in self.done if same(d, c, outcome)), None)
            if twin is not None:
                self.copies.append((twin, c))
            elif level < len(self.sizes):
                floor, _ = self.look(c, floor, self.sizes[level])
                heapq.heappush(heap, (self.ratio(floor), index, level + 1, c, floor))
            else:
                known = sorted({*known, worst_ratio(self._simulate(c).slo)})
        self.killed = [(c, floor, level) for _, _, level, c, floor in heap]

    def ruled_out(self) -> Iterator[tuple[Candidate, Floor, float]]:
        """Yields what was ruled out: its sharpest floor, and the share of the trace that it was tried on."""
        shares = [0.0, *(size / len(self.state.requests) for size in self.sizes)]
        for c, floor, level in self.killed:
            yield c, floor, shares[level]

    def _simulate(self, c: Candidate) -> Outcome:
        outcome = simulate(self.state, c.plan)
        self.done.append((c, outcome))
        if outcome.slo["met"]:
            self.met.append(values(outcome, self.axes))
            best = values(outcome, self.goals)
            self.leaders[c.layout] = min(best, self.leaders.get(c.layout, best))
            self.ranked = sorted(self.leaders.values())
        return outcome

    def _keys(self, c: Candidate, floor: Floor, axes: Sequence[Axis]) -> tuple[float, ...]:
        return tuple(bound(self.state, c, path, sign, floor) for _, path, sign in axes)

    def _part(self, size: int) -> Setting:
        if size not in self.parts:
            self.parts[size] = replace(self.state, requests=self.state.requests.slice(0, size))
        return self.parts[size]

    def _api(self, c: Candidate, part: Outcome) -> Floats:
        served = part.requests
        assert served is not None
        replicas = [s for s, p in zip(c.servers, c.plan.serving, strict=True) for _ in range(int(p.replicas or 1))]  # type: ignore[arg-type]
        fixed = np.array([s.cost.api for s in replicas])[served.began]
        each = np.array([s.cost.api_token for s in replicas])[served.began]
        return np.asarray(fixed + each * self.state.requests.prompt[: len(fixed)], dtype=np.float64)


def _clearly_after(least: tuple[float, ...], kth: tuple[float, ...]) -> bool:
    """Whether a plan at or above ``least`` certainly ranks after ``kth``: its first goal alone is worse."""
    return least[0] - 1e-9 * abs(least[0]) > kth[0]
