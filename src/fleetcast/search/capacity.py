"""Sizing: how many devices a load needs, and how much load (requests a second, or users) a fleet holds.

Both ask the search for any plan that meets the SLO, at one size after another. Loads are compared on common random
numbers: the same requests, their arrivals drawn together or apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.spec import parse_devices
from fleetcast.scenario.load import ServingScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.scenario.workload.requests import Requests
from fleetcast.search.candidates import fit_all
from fleetcast.search.hunt import PARTS, SHORTEST, Hunt
from fleetcast.search.parallelism import MISSES, search
from fleetcast.search.ranking import Axis, worst_ratio
from fleetcast.search.space import spaces
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

DEVICES: Axis = ("devices", "devices", 1)
FASTEST: Axis = ("latency", "e2e.mean", 1)
EXTREME = 2.0**16
"""Loads are tried from this part of the scenario's to this multiple of it."""


@dataclass(frozen=True)
class Need:
    """How many devices of one kind a load needs.

    Attributes:
        kind: device id.
        devices: the least number with a plan that meets the SLO; None = none up to ``most``.
        most: the largest number tried.
        outcome: that plan's.
        nearest: the nearest miss at ``most``, where no number meets the SLO.
        constraint: why nothing fits at all, if so.
        missed: of all layouts that fit but miss the SLO the one least far from it, a row of `missed.missed`, if so.
    """

    kind: str
    devices: int | None
    most: int
    outcome: Outcome | None
    nearest: Outcome | None = None
    constraint: str = ""
    missed: Mapping[str, Any] | None = None

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        cost = self.outcome.metrics["cost"] if self.outcome is not None else None
        return {
            "kind": self.kind, "devices": self.devices, "most": self.most, "cost": cost,
            "plan": self.outcome.plan if self.outcome is not None else None,
            "nearest": worst_ratio(self.nearest.slo) if self.nearest is not None else None,
            "constraint": self.constraint, "missed": self.missed,
        }  # fmt: skip


@dataclass(frozen=True)
class Load:
    """The largest load that meets the SLO, within a tolerance.

    Attributes:
        factor: times the scenario's own load; 0 = no load that was tried meets the SLO.
        rate: requests per second, mean from first to last arrival.
        outcome: of the plan that holds it.
        missed: the least load that was tried and missed, as a factor; None = none was.
        tolerance: ``missed / factor - 1`` is at most this.
        tried: (factor, met) in order. A load between two that are met may still miss: nothing makes queues monotone.
    """

    factor: float
    rate: float
    outcome: Outcome | None
    missed: float | None
    tolerance: float
    tried: tuple[tuple[float, bool], ...]

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "factor": self.factor, "rate": self.rate, "missed": self.missed, "tolerance": self.tolerance,
            "plan": self.outcome.plan if self.outcome is not None else None, "tried": [list(t) for t in self.tried],
        }  # fmt: skip


@dataclass(frozen=True)
class Users:
    """The most users of a closed loop that are served within the SLO, within a tolerance.

    Attributes:
        users: how many; 0 = not even one.
        outcome: of the plan that serves them.
        missed: the least number that was tried and missed; None = as many users as there are requests are served.
        tolerance: ``missed / users - 1`` is at most this, where they are further apart than one user.
        tried: (users, met) in order.
    """

    users: int
    outcome: Outcome | None
    missed: int | None
    tolerance: float
    tried: tuple[tuple[int, bool], ...]

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "users": self.users, "missed": self.missed, "tolerance": self.tolerance,
            "plan": self.outcome.plan if self.outcome is not None else None, "tried": [list(t) for t in self.tried],
        }  # fmt: skip


def devices_needed(scenario: ServingScenario, kinds: Iterable[str], *, most: int = 256) -> list[Need]:
    """Returns, per kind of device, the least number that serves the load within the SLO; cheapest first.

    Fleets of 1, 2, 4, ... devices of the kind are searched, each plan of up to all of them, fewest devices first; what
    a smaller fleet has already ruled out is left out.

    Args:
        scenario: its fleet's prices, grid and links count where they apply, its devices do not.
        kinds: device names of the catalogue.
        most: the largest fleet tried, of each kind.

    Raises:
        SpecError: an unknown device, or no SLO: without limits one device that fits is always enough.
    """
    if most < 1:
        raise SpecError("most", "is out of range", value=most, limit="a whole number from 1")
    if not scenario.slo.limits():
        raise SpecError("slo", "is empty", hint="Set e.g. slo.ttft_p99: without limits any fleet that fits will do")
    found = [_need(scenario, kind, most) for kind in kinds]
    return sorted(found, key=lambda n: (n.devices is None, _price(n), n.devices or 0, n.kind))


def _price(need: Need) -> float:
    cost = need.outcome.metrics["cost"] if need.outcome is not None else float("inf")
    return float("inf") if cost != cost else float(cost)


def _need(scenario: ServingScenario, kind: str, most: int) -> Need:
    below, size = 0, 1
    constraint, nearest = "", None
    slow: list[Mapping[str, Any]] = []
    while below < most:
        state = setting(_with_fleet(scenario, f"{size}x {kind}"))
        known = state.tree.groups[0].device.id
        ranking = search(
            state, top=1, goals=(DEVICES,), above=below, misses=MISSES if size >= most else 0
        )  # fmt: skip
        if ranking.best is not None:
            return Need(known, int(ranking.best.metrics["devices"]), size, ranking.best)
        fits = ranking.counts["memory_feasible"] > ranking.counts["over_budget"]
        constraint = "" if fits or slow else _why(ranking.rejected)
        nearest = ranking.misses[0] if ranking.misses else nearest
        slow += ranking.missed
        below, size = size, min(size * 2, most)
    least = min(slow, key=lambda row: row["value"] / row["limit"], default=None)
    return Need(known, None, most, None, nearest, constraint, least)


def _why(rejected: Iterable[Any]) -> str:
    rows = [r for r in rejected if r["unit"] in ("B", "tokens", "W", "$/h")]
    return f"{rows[-1]['family']}: {rows[-1]['constraint']}" if rows else ""


def _with_fleet(scenario: ServingScenario, devices: str) -> ServingScenario:
    ((_, wanted),) = parse_devices(devices, "kinds", Path(scenario.folder))
    fleet = scenario.fleet
    price = {n: value for n, value in fleet.price.items() if _names(n, wanted)}
    plan = scenario.plan
    kept = (plan.serving[0], plan.draft)
    pools = tuple(msgspec.structs.replace(pool, on=None) for pool in plan.pools if pool in kept)
    return msgspec.structs.replace(
        scenario, fleet=msgspec.structs.replace(fleet, devices=devices, groups=(), link="", network="", price=price),
        plan=Plan(pools=pools, route=plan.route),
    )  # fmt: skip


def _names(name: str, device: Device) -> bool:
    """Returns whether a price's ``name`` means ``device``; names of measured devices are not in the catalogue."""
    try:
        return name == device.id or catalog.device(name).id == device.id
    except SpecError:
        return False


def max_rate(scenario: ServingScenario, *, tolerance: float = 0.02) -> Load:
    """Returns the largest load under which some plan of the scenario meets the SLO.

    The scenario's arrivals are drawn together by a factor (the same requests in the same order); the factor is doubled
    or halved until one load is met and one missed, then bisected. A complete ``[plan]`` is taken as it is.

    Args:
        scenario: fleet, traffic, SLO, and whatever of the plan is decided.
        tolerance: relative width of the bracket at which to stop.

    Raises:
        SpecError: no SLO, or a closed loop, whose rate follows from the answers.
    """
    state = limited_and_timed(scenario)
    trial = _Trial(state, state.requests.speed_up)
    low, high = bisect_rate(tolerance)(trial)
    factor = low or 0.0
    return Load(factor, state.requests.rate * factor, trial.outcomes.get(factor), high, tolerance, tuple(trial.tried))


def bisect_rate(tolerance: float) -> Callable[[Callable[[float], bool]], tuple[float | None, float | None]]:
    """Returns the bisection of a load's factor, which begins at 1: by whether one is met, what `_bracket` says."""

    def between(low: float, high: float) -> float | None:
        return (low * high) ** 0.5 if high / low - 1 > tolerance else None

    def run(met: Callable[[float], bool]) -> tuple[float | None, float | None]:
        return _bracket(met, 1.0, lambda f, by: min(max(f * by, 1 / EXTREME), EXTREME), between)

    return run


def limited_and_timed(scenario: ServingScenario) -> Setting:
    """Returns the scenario resolved, for questions about its rate.

    Raises:
        SpecError: no SLO, or a closed loop, whose rate follows from the answers.
    """
    state = _limited(scenario)
    if state.requests.concurrency or state.requests.duration <= 0:
        raise SpecError(
            "workload.arrivals", "has no rate to vary", limit="a trace with times, or poisson, uniform, gamma",
            hint="A closed loop's rate follows from the answers: ask for its users (max_users)",
        )  # fmt: skip
    return state


def max_users(scenario: ServingScenario, *, tolerance: float = 0.02) -> Users:
    """Returns the most users of a closed loop that some plan of the scenario serves within the SLO.

    The same requests are sent by more users or by fewer, beginning with the scenario's; a complete ``[plan]`` is taken
    as it is. More users than requests are not tried: they would have nothing to send.

    Args:
        scenario: fleet, traffic, SLO, and whatever of the plan is decided.
        tolerance: relative width of the bracket at which to stop; one user is close enough.

    Raises:
        SpecError: no SLO, or a load that is no closed loop.
    """
    state = _limited(scenario)
    if not state.requests.concurrency:
        raise SpecError(
            "workload.arrivals", "has no users to vary", limit='a closed loop, kind = "closed"',
            hint="Requests arrive by the clock: ask for their rate (max_rate)",
        )  # fmt: skip
    most = len(state.requests)
    trial = _Trial(state, lambda users: replace(state.requests, concurrency=int(users)))

    def between(low: float, high: float) -> float | None:
        return (low + high) // 2 if high - low > max(1, tolerance * low) else None

    start = min(state.requests.concurrency, most)
    low, high = _bracket(trial, start, lambda users, by: min(max(int(users * by), 1), most), between)
    users, missed = int(low or 0), None if high is None else int(high)
    tried = tuple((int(n), met) for n, met in trial.tried)
    return Users(users, trial.outcomes.get(users), missed, tolerance, tried)


def _limited(scenario: ServingScenario) -> Setting:
    if not scenario.slo.limits():
        raise SpecError("slo", "is empty", hint="Set e.g. slo.ttft_p99: any load is held when nothing limits it")
    return setting(scenario)


def _bracket(
    met: Callable[[float], bool], start: float, scaled: Callable[[float, float], float],
    between: Callable[[float, float], float | None],
) -> tuple[float | None, float | None]:  # fmt: skip
    """Returns the largest load that was met and the least above it that was missed; None = there was none.

    Args:
        met: whether a load is met.
        start: the first load to try.
        scaled: a load times a factor, kept within what can be tried.
        between: a load between two, or None where these are close enough.
    """
    low, high = (start, None) if met(start) else (None, start)
    while high is None and low is not None and (up := scaled(low, 2.0)) > low:
        low, high = (up, None) if met(up) else (low, up)
    while low is None and high is not None and (down := scaled(high, 0.5)) < high:
        low, high = (down, high) if met(down) else (None, down)
    while low is not None and high is not None and (middle := between(low, high)) is not None:
        low, high = (middle, high) if met(middle) else (low, middle)
    return low, high


class _Trial:
    """Whether a load is met, by the plan that met the last one, else by any."""

    def __init__(self, state: Setting, at: Callable[[float], Requests]) -> None:
        self.state, self.at = state, at
        self.tried: list[tuple[float, bool]] = []
        self.outcomes: dict[float, Outcome] = {}
        self.last: Plan | None = None

    def __call__(self, load: float) -> bool:
        state = replace(self.state, requests=self.at(load))
        outcome = simulate(state, self.last) if self.last is not None else None
        if outcome is None or not outcome.slo["met"]:
            outcome = any_plan(state)
        if outcome is not None:
            self.outcomes[load] = outcome
            self.last = read_plan(dict(outcome.plan))
        self.tried.append((load, outcome is not None))
        return outcome is not None


def any_plan(state: Setting) -> Outcome | None:
    """Returns the outcome of a plan that meets the SLO, the first that is found, or None where no plan does.

    Plans with the least unloaded latency are tried first.
    """
    try:
        fixed = complete(state, state.scenario.plan)
    except SpecError:
        pass
    except Infeasible:
        return None
    else:
        outcome = simulate(state, fixed)
        return outcome if outcome.slo["met"] else None
    sizes = [k for part in PARTS if (k := int(len(state.requests) * part)) >= SHORTEST]
    hunt = Hunt(state, (FASTEST,), (FASTEST,), 1, sizes)
    candidates = fit_all(state, spaces(state)).candidates
    for c in sorted(candidates, key=lambda c: (-c.devices, c.floor.metric("e2e.mean"), c.index)):
        found = hunt.settle(c)
        if found is not None and found.slo["met"]:
            return found
    return None
