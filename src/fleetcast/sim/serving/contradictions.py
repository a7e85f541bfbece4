"""What a scenario cannot ask for all at once: refused where fleet, workload and plan are first seen together."""

from __future__ import annotations

from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.tree import Tree
from fleetcast.scenario.load import ServingScenario
from fleetcast.scenario.plan import as_tuple
from fleetcast.scenario.workload.exits import exits_of
from fleetcast.scenario.workload.models import Model


def check_failures(scenario: ServingScenario, tree: Tree, closed: bool) -> None:
    """Refuses replicas that fail where the world does not say what becomes of their requests."""
    group = next((g for g in tree.groups if g.outages is not None), None)
    if group is None or group.outages is None:
        return
    if name := group.outages.of_training:
        raise SpecError(
            f"fleet.failures.{name}", "is read of training alone", value=getattr(group.outages, name),
            limit="a server's repair holds all of it", hint="Leave it out",
        )  # fmt: skip
    for path, value, problem in (
        ("workload.arrivals.concurrency", True if closed else None, "is a closed loop"),
        ("workload.exits", "exits" if scenario.workload.exits is not None else None, "has answers of tiers"),
        ("plan.phases", scenario.plan.phases, "may split prefill from decode"),
        ("plan.pools.role", next((p.role for p in scenario.plan.pools if p.role != "all"), None), "is split"),
    ):
        if value is not None:
            raise SpecError(
                path, f"{problem}, and group '{group.name}' fails", value=value,
                limit="with failures: requests that arrive by the clock, replicas that prefill and decode",
                hint="Leave it out, or leave out fleet.failures",
            )  # fmt: skip


def check_placement(scenario: ServingScenario) -> None:
    """Refuses a placement by popularity where nothing says which experts are popular."""
    for pool in scenario.plan.pools:
        if "balanced" in as_tuple(pool.expert_placement) and (
            scenario.workload.expert_load is None or pool.model not in (None, scenario.workload.model)
        ):
            raise SpecError(
                "plan.expert_placement", "needs to know how often each expert is chosen", value=pool.expert_placement,
                limit="workload.expert_load, for the workload's own model",
                hint='Add workload.expert_load, e.g. a file of counts or { zipf = 0.8 }, or place "contiguous"',
            )  # fmt: skip


def check_exits(scenario: ServingScenario, model: Model) -> None:
    """Refuses exits that the model cannot have, and what only exits give a meaning where there are none."""
    if scenario.workload.exits is not None:
        exits_of(scenario.workload.exits, model)
        if scenario.workload.quality is not None:
            raise SpecError(
                "workload.quality", "stands beside exits, which have their own", value=scenario.workload.quality,
                hint="Leave one of them out",
            )  # fmt: skip
        return
    goals = [goal for goal, _, _ in scenario.objective.goals()]
    if scenario.workload.quality is None and (scenario.slo.quality is not None or "quality" in goals):
        limited = scenario.slo.quality is not None
        raise SpecError(
            "slo.quality" if limited else "objective.maximize", "needs to know how good answers are",
            value=scenario.slo.quality if limited else "quality",
            hint="Add workload.quality, e.g. a file of fleetcast measure quality, or workload.exits",
        )  # fmt: skip
    for path, value in (
        ("objective.minimize", "bytes" if "bytes" in goals else None),
        ("workload.confidence", scenario.workload.confidence),
        ("plan.cascade", [stage.label() for stage in scenario.plan.cascade] or None),
    ):
        if value is not None:
            raise SpecError(
                path, "is about a familial model, and the workload has no exits", value=value,
                hint='Add workload.exits, e.g. "ai-flow-ruyi-7b", or leave it out',
            )  # fmt: skip
