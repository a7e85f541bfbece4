"""A step of a job that is known by what it does, not by its layers: `cost.breakdown` on a fleet.

One worker runs on each device. Left out, the placement is the quickest that the fleet has: one device, all-reduce over
NVLink within a server, or all-reduce over the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.cost.breakdown import PLACEMENTS, REACHED, Job, Rates, breakdown, step_time
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.training_plan import TrainingPlan, words
from fleetcast.sim.training.setting import as_one

_UNSAID = ("pue ", "grid ")
"""Notes on energy, which is not forecast."""
SPREAD = 0.25
"""Share by which a step may differ: the paper takes 70 % of every data sheet, and jobs differ; assumed."""


@dataclass(frozen=True)
class Counted:
    """A scenario with features, resolved."""

    scenario: TrainingScenario
    tree: Tree
    group: Group
    notes: tuple[str, ...]

    @property
    def rates(self) -> Rates:
        """What a worker's device and links give it."""
        group = self.group
        peak = group.device.peak
        best = max(peak.get(name, 0.0) for name in (str(self.scenario.plan.dtype or "fp32"), "fp32"))
        fast = group.link.kind in ("nvlink", "infinity-fabric")
        return Rates(
            flops=best, memory=group.device.bandwidth, host_link=catalog.link(group.device.host_link).bandwidth,
            network=group.network.bandwidth, nvlink=group.link.bandwidth if fast else 0.0,
        )  # fmt: skip


def counted(scenario: TrainingScenario, tree: Tree | None = None) -> Counted:
    """Returns the scenario with its fleet looked up.

    Args:
        scenario: as it was read.
        tree: another fleet than the scenario's; None = its own.

    Raises:
        SpecError: a key of the plan that speaks of layers.
    """
    for name in scenario.plan.__struct_fields__:
        if name not in ("placement", "dtype") and getattr(scenario.plan, name) is not None:
            raise SpecError(
                f"plan.{name}", "speaks of a model's layers, and workload.features has none",
                value=getattr(scenario.plan, name), limit="placement, dtype", hint="Leave it out, or name a model",
            )  # fmt: skip
    tree = resolve(scenario.fleet, Path(scenario.folder)) if tree is None else tree
    group, notes = as_one(tree)
    return Counted(scenario, tree, group, notes)


def placements(state: Counted) -> tuple[str, ...]:
    """Returns the placements that the fleet has, the plan's alone where it says so.

    Raises:
        SpecError: a placement that the fleet cannot hold.
    """
    count, node = state.group.count, state.group.node
    possible = ["one"] if count == 1 else ["parameter-server", "all-reduce-cluster"]
    if 1 < count <= node:
        possible = ["server", "all-reduce-local", "parameter-server"]
    asked = words(state.scenario.plan.placement)
    for name in asked:
        if name not in possible:
            raise SpecError(
                "plan.placement", f"does not hold {count} devices in servers of {node}", value=name,
                limit=f"one of {', '.join(possible)}", hint="Change fleet.devices, or leave it out",
            )  # fmt: skip
    return asked or tuple(possible)


def simulate(scenario: TrainingScenario) -> Outcome:
    """Returns what a step takes, under the placement that is quickest of those that the plan leaves."""
    state = counted(scenario)
    return min((outcome(state, name) for name in placements(state)), key=lambda o: float(o.metrics["iteration_time"]))


def outcome(state: Counted, placement: str) -> Outcome:
    """Returns what a step takes under one placement."""
    features = state.scenario.workload.features
    assert features is not None
    job = Job(features.flops, features.traffic, features.weights, features.input)
    sharing = 1 if placement in ("one", "parameter-server") else min(state.group.count, state.group.node)
    terms = breakdown(job, state.rates, PLACEMENTS.index(placement), sharing)
    total, least = float(step_time(terms)), float(step_time(terms, overlap=True))
    seconds = {name: float(term) for name, term in terms.items()}
    price = state.group.price
    metrics = {
        "iteration_time": total, "steps": state.group.count / total, "devices": state.group.count, "fits": True,
        "mfu": features.flops / (float(state.rates.flops) * total),
        "cost": float("nan") if price is None else price * state.group.count * total / 3600.0, "breakdown": seconds,
    }  # fmt: skip
    plan: TrainingPlan = msgspec.structs.replace(state.scenario.plan, placement=placement)
    notes = (
        *(note for note in state.tree.echo() if not note.startswith(_UNSAID)), *state.notes,
        f"nothing overlaps, and each resource gives {REACHED:.0%} of its data sheet; if all of a step overlapped, it "
        f"would take {show(least, 's')}",
        "neither memory nor energy is forecast: counts say nothing of them",
    )  # fmt: skip
    return Outcome(
        source="simulated", metrics=metrics, slo={"met": True, "checks": []}, plan=plan.table(),
        intervals={"iteration_time": (min(least, total / (1 + SPREAD)), total * (1 + SPREAD))},
        breakdown={"time": seconds}, notes=notes, provenance={"seed": state.scenario.seed},
    )  # fmt: skip
