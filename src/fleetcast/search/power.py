"""How many more servers fit under a breaker's budget, by power policy.

Thresholds are chosen on one stretch of traffic and reported on another: the policy's largest row without a brake, and
among equals the one that slows high priority least. The largest row is found by bisection, which takes for granted
that a row which brakes also brakes with more servers; the row found and the next longer one have both been run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fleetcast.base.errors import Infeasible
from fleetcast.base.spec import build, describe
from fleetcast.policy import power
from fleetcast.scenario.workload.weeks import Weeks
from fleetcast.sim.power.phases import Phases
from fleetcast.sim.power.row import Breaker, Run, simulate, slowdowns

LOWER, UPPER, HYSTERESIS = (0.75, 0.80, 0.85), (0.85, 0.89, 0.93), (0.02, 0.05)
GRID: Mapping[str, Mapping[str, Sequence[float]]] = {
    "uncapped": {},
    "one_threshold": {"threshold": (*LOWER, *UPPER[1:]), "hysteresis": HYSTERESIS},
    "cap_all": {"threshold": (*LOWER, *UPPER[1:]), "hysteresis": HYSTERESIS},
    "polca": {"lower": LOWER, "upper": UPPER, "hysteresis": HYSTERESIS},
}
"""Thresholds that are tried, as shares of the budget; clocks stay the policies' own."""
UNLIMITED = 1e15
"""W: a budget that no row exceeds."""
INF = float("inf")


@dataclass(frozen=True, eq=False)
class Row:
    """A row in question.

    Attributes:
        phases: what a server draws and takes.
        breaker: budget and delays.
        low: share of servers that serve low-priority load.
        servers: in the row today; in units that run by themselves, several of which may make a server.
        most: the longest row tried; traffic must be there for as many.
        per_server: units of a server.
    """

    phases: Phases
    breaker: Breaker
    low: float
    servers: int
    most: int
    per_server: int = 1

    def run(self, policy: Any, weeks: Weeks, servers: int, *, keep: bool = False, stop: bool = False) -> Run:
        """Runs a row of ``servers`` servers."""
        return simulate(
            self.phases, weeks, self.breaker, policy, servers=servers * self.per_server, low=self.low, keep=keep,
            stop_at_brake=stop,
        )  # fmt: skip

    def held(self, policy: Any, weeks: Weeks, servers: int, *, keep: bool = False) -> Run | None:
        """Returns the run of a row of so many servers, or None where the budget is exceeded."""
        try:
            found = self.run(policy, weeks, servers, keep=keep, stop=True)
        except Infeasible:
            return None
        return found if found.brakes == 0 else None

    def free(self, weeks: Weeks) -> Run:
        """Returns the longest row without caps or breaker; a shorter one's requests are its first."""
        return simulate(
            self.phases, weeks, Breaker(budget=UNLIMITED, tick=self.breaker.tick), power.Uncapped(),
            servers=self.most * self.per_server, low=self.low, keep=True,
        )  # fmt: skip

    def slow(self, run: Run, free: Run, weeks: Weeks, servers: int) -> dict[str, dict[str, float]]:
        """Returns what a run of so many servers did to its requests, by priority."""
        return slowdowns(run, free, weeks, servers * self.per_server, self.low)


@dataclass(frozen=True)
class Held:
    """What a policy holds.

    Attributes:
        policy: its table.
        servers: the longest row without a brake; 0 = not even the row of today holds.
        base: servers today.
        limited: whether longer rows were left untried.
        peak: the row's highest tick as a share of the budget; NaN where no row holds.
        mean: its mean power as a share of the budget.
        capped: shares of the time that low and high priority were below the top clock.
        slow: mean and p99 slowdown of its requests by priority ("low", "high").
    """

    policy: dict[str, Any]
    servers: int
    base: int
    limited: bool
    peak: float
    mean: float
    capped: tuple[float, float]
    slow: dict[str, dict[str, float]]

    @property
    def added(self) -> int:
        """Servers more than today; negative = the row of today is too long."""
        return self.servers - self.base

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "policy": self.policy, "servers": self.servers, "added": self.added, "share": self.added / self.base,
            "limited": self.limited, "peak": self.peak, "mean": self.mean,
            "capped": dict(zip(("low", "high"), self.capped, strict=True)), "slowdown": self.slow,
        }  # fmt: skip


def largest(holds: Callable[[int], bool], low: int, most: int, start: int) -> int:
    """Returns the largest number from ``low`` to ``most`` that holds, ``low - 1`` where none does.

    Args:
        holds: true up to some number and false beyond it.
        low: the least tried.
        most: the largest tried.
        start: where to begin.
    """
    good, bad, at, step = low - 1, most + 1, min(max(start, low), most), 1
    while bad - good > 1:
        if holds(at):
            good = at
            at = min(good + step, bad - 1)
        else:
            bad = at
            at = max(bad - step, good + 1)
        step *= 2
        if good >= low and bad <= most:
            at = (good + bad) // 2
    return good


def hold(row: Row, policy: Any, weeks: Weeks, free: Run, start: int) -> Held:
    """Returns the longest row that a policy holds on some traffic, and what it costs the requests.

    Args:
        row: the row in question.
        policy: of `policy.power`.
        weeks: the traffic.
        free: `Row.free` of that traffic.
        start: the length to try first.
    """
    runs: dict[int, Run] = {}

    def holds(servers: int) -> bool:
        found = row.held(policy, weeks, servers, keep=True)
        if found is not None:
            runs.clear()
            runs[servers] = found
        return found is not None

    servers = largest(holds, 1, row.most, start)
    if servers == 0:
        return Held(describe(policy), 0, row.servers, False, float("nan"), float("nan"), (0.0, 0.0), {})
    run = runs[servers]
    return Held(
        describe(policy), servers, row.servers, servers == row.most, run.peak, run.mean, run.capped(),
        row.slow(run, free, weeks, servers),
    )  # fmt: skip


def choose(
    row: Row, kind: str, weeks: Sequence[Weeks], free: Run, fixed: Mapping[str, Any] | None = None,
    progress: Callable[[], None] | None = None,
) -> tuple[Any, int]:  # fmt: skip
    """Returns the policy of a kind with its best thresholds on ``weeks``, and the servers it holds on all of them.

    Best: the longest row; then the least p99 slowdown of high priority, then of low, on the first of ``weeks``.

    Args:
        row: the row in question.
        kind: of `policy.power`.
        weeks: traffic to choose on.
        free: `Row.free` of the first of ``weeks``.
        fixed: settings that are not searched.
        progress: called after each candidate.
    """
    tried = candidates(kind, fixed)
    best, chosen, least = 0, tried[0], (INF, INF)
    for policy in tried:
        if best == 0 or _all_held(row, policy, weeks, best):
            longer = partial(_all_held, row, policy, weeks)
            found = largest(longer, best + 1, row.most, max(row.servers, best + 1))
            pain = _pain(row, policy, weeks[0], free, found) if found else (INF, INF)
            if found > best or pain < least:
                best, chosen, least = found, policy, pain
        if progress is not None:
            progress()
    return chosen, best


def _all_held(row: Row, policy: Any, weeks: Sequence[Weeks], servers: int) -> bool:
    return all(row.held(policy, w, servers) is not None for w in weeks)


def _pain(row: Row, policy: Any, weeks: Weeks, free: Run, servers: int) -> tuple[float, float]:
    slow = row.slow(row.run(policy, weeks, servers, keep=True), free, weeks, servers)
    high, low = (round(slow.get(name, {}).get("p99", 1.0), 4) for name in ("high", "low"))
    return high, low


def candidates(kind: str, fixed: Mapping[str, Any] | None = None) -> list[Any]:
    """Returns the policies of a kind over the grid of thresholds; thresholds out of order are left out."""
    grid = {k: v for k, v in GRID.get(kind, {}).items() if k not in (fixed or {})}
    found = []
    for values in itertools.product(*grid.values()):
        table = dict(zip(grid, values, strict=True))
        if table.get("lower", 0.0) < table.get("upper", 1.0):
            found.append(build(power, {"kind": kind} | dict(fixed or {}) | table, "plan.power"))
    return found
