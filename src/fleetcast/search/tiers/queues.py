"""Cascades under requests that arrive by the clock: each tier serves what reaches it, and percentiles follow.

A query's path is drawn: it reaches answer k where its number, uniform in (0, 1), is below the share that does. Every
tier runs in the serving world on the requests that reach it, at the times at which they do: when the answer before is
back and judged. So a tier that many devices share has the queue of all they pass on. The users are the devices of the
first tier; each query is one user's, drawn at random.

Answers to text alone are simulated: a tier then runs one part, each tier stands once in a cascade, and tiers can be run
one after the other. Hidden states or a cache would keep a request on two tiers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.base.show import show
from fleetcast.scenario.fleet.links import transfer_time
from fleetcast.scenario.plan import Plan
from fleetcast.scenario.plan import replace as with_fields
from fleetcast.scenario.workload.requests import Requests
from fleetcast.search.tiers.choice import Cascade, Found, Problem, enough, evaluate
from fleetcast.search.tiers.family import whole
from fleetcast.search.tiers.legs import TEXT, Leg, from_text
from fleetcast.search.tiers.parts import Costs
from fleetcast.sim.serving.setting import Setting
from fleetcast.sim.serving.world import serve

Floats = NDArray[np.float64]
Times = tuple[Floats, Floats]
"""Seconds from when a query is sent off to first and last token of an answer, back at the user; links included."""
STATISTICS = {"mean": None, "p50": 50, "p90": 90, "p99": 99}
QUEUED = tuple(f"{metric}.{statistic}" for metric in ("ttft", "e2e") for statistic in STATISTICS)
"""Limits that are held under load."""
MOST = 2**14
"""Users that are tried at most."""
SPAN = 20.0
"""Times the longest limit that requests must last where users are counted: too many must have the time to queue up."""


class Place(Protocol):
    """Where queries are answered: `Queues`, or a table of a test."""

    @property
    def arrival(self) -> Floats:
        """When each query arises, s, not decreasing."""
        ...

    @property
    def draw(self) -> Floats:
        """Each query's number, uniform in (0, 1): how far it goes."""
        ...

    def alone(self, tier: int, exit: int) -> Times:
        """Returns what each query takes where it is the only one."""
        ...

    def served(self, tier: int, exit: int, who: NDArray[np.int64], when: Floats) -> Times:
        """Returns what the queries ``who`` take where they are sent off at ``when``."""
        ...


@dataclass
class Queues:
    """The tiers of a scenario under its arrivals.

    Attributes:
        costs: of its parts.
        users: devices of the first tier in use; more users than the scenario's send as many times as much.
        least: s that the requests shall last; where they do not, they start over.
    """

    costs: Costs
    users: int
    least: float = 0.0
    _worlds: dict[tuple[int, int], tuple[Setting, Plan]] = field(default_factory=dict, repr=False)
    _alone: dict[tuple[int, int], Times] = field(default_factory=dict, repr=False)

    @cached_property
    def requests(self) -> Requests:
        """The scenario's, drawn together where there are more users than it has."""
        q = self.costs.state.requests.speed_up(self.users / self.costs.tiers[0].copies)
        if not 0 < q.duration < self.least:
            return q
        length = q.duration + 1.0 / q.rate
        rounds = np.arange(np.ceil(self.least / length)).repeat(len(q))
        rows = np.resize(np.arange(len(q)), len(rounds))
        return Requests(q.arrival[rows] + length * rounds, q.prompt[rows], q.output[rows])

    @property
    def arrival(self) -> Floats:
        """See `Place`."""
        return self.requests.arrival

    @cached_property
    def draw(self) -> Floats:
        """See `Place`; the numbers are spread evenly: of n queries, p n to one are below p."""
        n = len(self.arrival)
        return np.asarray((rng(self.costs.state.scenario.seed, "confidence").permutation(n) + 0.5) / n)

    def copies(self, tier: int) -> int:
        """Returns how many replicas a tier has."""
        return self.users if tier == 0 else self.costs.tiers[tier].copies

    def notes(self) -> list[str]:
        """Returns what queues take as given, in sentences."""
        tiers, q = self.costs.tiers, self.requests
        upper = ", ".join(f"{t.copies} x {t.name}" for t in tiers[1:])
        return [
            f"queues: {len(q):,} requests in {show(q.duration, 's')}, {q.rate:.3g} /s in all, each of one of "
            f"{self.users} x {tiers[0].name}, drawn at random"
            + (f"; shared by all: {upper}, least loaded first" if upper else ""),
            "under arrivals by the clock answers are sent as text alone",
            "energy, cost and carbon are those of busy devices, at the load that they answer at once; radio energy is "
            "not counted",
        ]

    def alone(self, tier: int, exit: int) -> Times:
        """See `Place`: a closed loop of one."""
        if (tier, exit) not in self._alone:
            q = self.requests
            one = Requests(np.zeros(len(q)), q.prompt, q.output, timed=False, concurrency=1)
            state, plan = self._world(tier, exit)
            only = replace_pool(plan, replicas=1)
            self._alone[tier, exit] = self._over_links(tier, q.prompt, *_run(replace(state, requests=one), only))
        return self._alone[tier, exit]

    def served(self, tier: int, exit: int, who: NDArray[np.int64], when: Floats) -> Times:
        """See `Place`: the serving world on the requests that reach the tier."""
        q = self.requests
        prompt, output = q.prompt[who], q.output[who]
        reaches = when + self._sent(tier, prompt)
        order = np.argsort(reaches, kind="stable")
        those = Requests(reaches[order], prompt[order], output[order])
        state, plan = self._world(tier, exit)
        ttft, e2e = np.empty(len(who)), np.empty(len(who))
        ttft[order], e2e[order] = _run(replace(state, requests=those), plan)
        return self._over_links(tier, prompt, ttft, e2e)

    def _sent(self, tier: int, prompt: NDArray[np.int64]) -> Floats:
        there = self.costs.links(0, tier)
        rest = transfer_time(there, 0.0, up=True)
        each = transfer_time(there, TEXT, up=True) - rest
        return np.asarray(rest + each * prompt)

    def _over_links(self, tier: int, prompt: NDArray[np.int64], ttft: Floats, e2e: Floats) -> Times:
        back = self.costs.links(tier, 0)
        links = self._sent(tier, prompt) + transfer_time(back, TEXT * bool(back))
        return ttft + links, e2e + links

    def _world(self, tier: int, exit: int) -> tuple[Setting, Plan]:
        """The tier's world and plan, looked up once; requests are put in as they come."""
        if (tier, exit) not in self._worlds:
            state, plan = self.costs.served(tier, whole(exit))
            route = {"kind": "random" if tier == 0 else "least_loaded"}
            self._worlds[tier, exit] = state, replace_pool(plan, replicas=self.copies(tier), route=route)
        return self._worlds[tier, exit]


def replace_pool(plan: Plan, *, replicas: int, route: Mapping[str, str] | None = None) -> Plan:
    """Returns a plan of one pool with other replicas, and another route if given."""
    pools = (with_fields(plan.pools[0], replicas=replicas),)
    return Plan(pools=pools, route=plan.route if route is None else dict(route))


def _run(state: Setting, plan: Plan) -> Times:
    served, _, _ = serve(state, plan)
    return served.ttft, served.e2e


def times(place: Place, legs: Sequence[Leg], reach: Sequence[float], *, alone: bool = False) -> Times:
    """Returns TTFT and E2E of each query under a cascade, s.

    Args:
        place: where its tiers answer.
        legs: its answers, all to text.
        reach: share of queries that reach each.
        alone: as if each query were the only one. No query is faster under load, so these bound every statistic.
    """
    who = np.arange(len(place.arrival))
    ttft, e2e = np.zeros(len(who)), np.zeros(len(who))
    for k, leg in enumerate(legs):
        who = who[place.draw[who] < reach[k]]
        if not len(who):
            break
        if alone:
            first, last = (column[who] for column in place.alone(leg.tier, leg.exit))
        else:
            first, last = place.served(leg.tier, leg.exit, who, place.arrival[who] + e2e[who])
        shown = first if k == len(legs) - 1 else last  # what may be passed on is shown once it is judged
        ttft[who] = e2e[who] + shown
        e2e[who] += last
    return ttft, e2e


def statistics(ttft: Floats, e2e: Floats) -> dict[str, float]:
    """Returns the values of `QUEUED`, s."""
    found = {}
    for metric, column in (("ttft", ttft), ("e2e", e2e)):
        for statistic, percent in STATISTICS.items():
            value = column.mean() if percent is None else np.percentile(column, percent)
            found[f"{metric}.{statistic}"] = float(value)
    return found


def queued(place: Place, cascade: Cascade, *, alone: bool = False) -> Cascade:
    """Returns a cascade with the times it takes under load, or alone, in place of its means."""
    found = statistics(*times(place, cascade.legs, cascade.reach, alone=alone))
    return replace(cascade, values={**cascade.values, **found, "ttft": found["ttft.mean"], "e2e": found["e2e.mean"]})


def choose_queued(problem: Problem, place: Place, *, limits: Mapping[str, float] | None = None) -> Found:
    """Returns the best cascade of every way over the tiers that meets the limits under load, best first.

    What is asked for without queues bounds what is under them, so cascades are simulated in the order of that bound and
    only until no other can be better. Of thresholds that let more queries through to every answer than others of enough
    quality, none is tried: in a line in order of arrival, fewer requests wait no longer.

    Args:
        problem: what is asked.
        place: where.
        limits: instead of the problem's.
    """
    within = problem.limits if limits is None else limits
    counts = dict.fromkeys(("enumerated", "memory_feasible", "bounded", "simulated"), 0)
    shapes: dict[tuple[int, ...], list[Cascade]] = {}
    for length in range(1, min(problem.longest, len(problem.exits), problem.tiers) + 1):
        for chain in combinations(range(len(problem.exits)), length):
            table, quality, reach, rows = enough(problem, chain, within)
            for tiers in combinations(range(problem.tiers), length):
                counts["enumerated"] += len(table)
                legs = [from_text(problem.book, t, problem.exits[i]) for t, i in zip(tiers, chain, strict=True)]
                fit = [leg for leg in legs if leg is not None]
                if len(fit) < length:
                    continue
                counts["memory_feasible"] += len(table)
                shapes.setdefault(tiers, []).extend(
                    evaluate(fit, table[i], float(quality[i]), reach[i].tolist()) for i in rows
                )
    best = []
    for several in shapes.values():
        least = [c for c in (queued(place, c, alone=True) for c in several) if meets(c, within)]
        kept: Cascade | None = None
        for c in sorted(least, key=lambda c: c.key(problem.goals)):
            if kept is not None and kept.key(problem.goals) <= c.key(problem.goals):
                break
            counts["simulated"] += 1
            found = queued(place, c)
            if meets(found, within) and (kept is None or found.key(problem.goals) < kept.key(problem.goals)):
                kept = found
        best += [kept] if kept is not None else []
    counts["bounded"] = counts["memory_feasible"] - counts["simulated"]
    counts["queued"] = counts["simulated"]
    return Found(sorted(best, key=lambda c: c.key(problem.goals)), counts)


def meets(cascade: Cascade, limits: Mapping[str, float]) -> bool:
    """Whether a cascade's values are within limits."""
    return all(cascade.values[name] <= limit for name, limit in limits.items())


def users_held(
    costs: Costs, cascade: Cascade, limits: Mapping[str, float], *, tolerance: float = 0.02, most: int = MOST
) -> tuple[int, dict[int, Cascade]]:
    """Returns the most users that a cascade carries, 0 = not even one, and the cascade under each number tried.

    Each user has a device and as many queries as one of the scenario's. Users are doubled or halved until some are held
    and some are not, then bisected; the requests are the same, closer together or further apart, and start over until
    they last `SPAN` times the longest limit.

    Args:
        costs: of the scenario.
        cascade: its answers, all to text.
        limits: upper limits by name, of `QUEUED`.
        tolerance: relative width of the bracket at which to stop.
        most: users that are tried.
    """
    tried: dict[int, Cascade] = {}
    least = SPAN * max((limit for name, limit in limits.items() if name in QUEUED), default=0.0)

    def met(users: int) -> bool:
        if users not in tried:
            tried[users] = queued(Queues(costs, users, least), cascade)
        return meets(tried[users], limits)

    low, high = 0, min(costs.tiers[0].copies, most)
    while high <= most and met(high):
        low, high = high, 2 * high
    while low == 0 and high > 1:
        half = high // 2
        low, high = (half, high) if met(half) else (0, half)
    while low and high - low > max(1.0, tolerance * low) and high <= most:
        middle = (low + high) // 2
        low, high = (middle, high) if met(middle) else (low, middle)
    return low, tried
