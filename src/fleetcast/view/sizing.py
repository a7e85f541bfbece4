"""The verbs that ask for size: the most load that a fleet holds, the fewest devices, servers under a breaker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError
from fleetcast.view import worlds
from fleetcast.view.verbs import Progress, Source, serving

if TYPE_CHECKING:
    from fleetcast.search.capacity import Load, Need, Users
    from fleetcast.search.held import Sizing
    from fleetcast.search.servers import Room


def max_rate(source: Source, *, seed: int | None = None, tolerance: float = 0.02) -> Load:
    """Returns the largest load that the fleet holds within the SLO: the scenario's arrivals, closer or further apart.

    Args:
        source: a Scenario or what `load` takes.
        seed: instead of the scenario's.
        tolerance: relative width of the bracket at which to stop.

    Raises:
        SpecError: no SLO, or a load without a rate.
    """
    from fleetcast.search import capacity

    scenario = serving(source, "capacity", seed=seed)
    worlds.serving.resolved(scenario)
    return capacity.max_rate(scenario, tolerance=tolerance)


def max_users(source: Source, *, seed: int | None = None, tolerance: float = 0.02) -> Users:
    """Returns the most users of a closed loop that the fleet serves within the SLO.

    Where the workload has exits: the most users, each with a device of the first tier, that the tiers carry.

    Args:
        source: a Scenario or what `load` takes.
        seed: instead of the scenario's.
        tolerance: relative width of the bracket at which to stop.

    Raises:
        SpecError: no SLO, or a load that is no closed loop.
    """
    from fleetcast.search import capacity

    scenario = serving(source, "capacity", seed=seed)
    if scenario.workload.exits is not None:
        from fleetcast.search.tiers import planner

        return planner.max_users(worlds.serving.setting(scenario), tolerance=tolerance)
    worlds.serving.resolved(scenario)
    return capacity.max_users(scenario, tolerance=tolerance)


def devices_needed(
    source: Source, kinds: Iterable[str] = (), *, seed: int | None = None, most: int = 256
) -> list[Need]:
    """Returns, per kind of device, the fewest devices that hold the scenario's load within the SLO, cheapest first.

    Args:
        source: a Scenario or what `load` takes.
        kinds: devices of the catalogue, or profiles (``./profile.toml``); none = those of the scenario's fleet.
        seed: instead of the scenario's.
        most: the largest fleet tried, of each kind.

    Raises:
        SpecError: no SLO, or an unknown device.
    """
    from fleetcast.search import capacity

    scenario, wanted = serving(source, "capacity", seed=seed), tuple(kinds)
    groups = worlds.serving.resolved(scenario).tree.groups
    measured = [g.device.id for g in groups if g.device.fitted is not None]
    if measured and not wanted:
        problem, hint = "must be named beside measured devices", "Name the profile: --kinds ./profile.toml"
        raise SpecError("kinds", problem, value=measured[0], hint=hint)
    return capacity.devices_needed(scenario, wanted or dict.fromkeys(g.device.id for g in groups), most=most)


def servers_under(source: Source, *, seed: int | None = None, progress: Progress | None = None) -> Room:
    """Returns how many servers fit under the fleet's breaker, ``fleet.budget``, by power policy.

    Args:
        source: a Scenario or what `load` takes; ``plan.power`` names policies, left out = all are compared.
        seed: instead of the scenario's.
        progress: called while policies are settled.

    Raises:
        SpecError: no budget, unlike servers, or traffic that shows no busiest hour.
        Infeasible: nothing fits.
    """
    from fleetcast.search import servers

    return servers.servers_under(worlds.serving.resolved(serving(source, "capacity", seed=seed)), progress)


def best_pools(
    source: Source, *, seed: int | None = None, tolerance: float = 0.02, progress: Progress | None = None
) -> Sizing:
    """Returns the pools that hold the most load at equal power and equal cost, beside each kind of device alone.

    Args:
        source: a Scenario or what `load` takes; ``fleet.budget`` and ``fleet.spend`` are what is equal.
        seed: instead of the scenario's.
        tolerance: relative width of the bracket at which to stop.
        progress: called while races are run.

    Raises:
        SpecError: neither limit, no SLO, or a load without a rate.
    """
    from fleetcast.search import pools

    scenario = serving(source, "capacity", seed=seed)
    worlds.serving.resolved(scenario)
    return pools.best_pools(scenario, tolerance=tolerance, progress=progress)
