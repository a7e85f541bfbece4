"""The plan of a multi-task scenario as a ranking: waves first, then what is done without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fleetcast.base.errors import Infeasible, Unsupported
from fleetcast.base.show import show
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.plans import RECOMPUTE
from fleetcast.cost.training.system import System
from fleetcast.scenario.fleet.tree import Group, resolve
from fleetcast.scenario.load import MultitaskScenario
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking
from fleetcast.search.waves import baselines
from fleetcast.search.waves.build import Built, build, memory, sync, wires_of
from fleetcast.search.waves.check import problems
from fleetcast.search.waves.place import Timetable
from fleetcast.search.waves.planner import best
from fleetcast.sim.training.setting import as_one

RULES = {
    "one module at a time on all devices": baselines.sequential,
    "one task at a time, its modules side by side": baselines.decoupled,
    "devices dealt to tasks": baselines.by_task,
}
"""What is done without waves."""


@dataclass(frozen=True)
class Question:
    """A multi-task scenario, resolved."""

    scenario: MultitaskScenario
    group: Group
    system: System
    notes: tuple[str, ...]


def resolved(scenario: MultitaskScenario) -> Question:
    """Returns the scenario with its devices looked up.

    Raises:
        SpecError: anything in the fleet that cannot be.
        Unsupported: devices of several kinds.
    """
    tree = resolve(scenario.fleet, Path(scenario.folder))
    group, notes = as_one(tree)
    return Question(scenario, group, systems.of(group, ssd=tree.ssd), notes)


def search(scenario: MultitaskScenario, *, top: int | None = 6) -> Ranking:
    """Returns the ranked ways to run an iteration of all tasks.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Unsupported: devices of several kinds.
        Infeasible: the fullest device cannot hold its modules, though it recomputes all layers.
    """
    asked = resolved(scenario)
    count, wires = asked.group.count, wires_of(asked.system)
    dtype = scenario.plan.dtype if isinstance(scenario.plan.dtype, str) else _dtype(asked.group)
    if dtype not in asked.group.device.peak:
        raise Unsupported(
            f"plan.dtype = '{dtype}': {asked.group.device.id} does not multiply in it",
            f"It has {', '.join(asked.group.device.peak)}",
        )
    kept = scenario.plan.recompute
    for code in (
        [RECOMPUTE.index(kept)] if isinstance(kept, str) else [RECOMPUTE.index("none"), RECOMPUTE.index("full")]
    ):
        built = build(scenario.workload, count, asked.system, dtype=dtype, recompute=code)
        found = best(built.graph, count, wires, partial(sync, built, asked.system))
        need, fullest = memory(built, found.table)
        if need <= asked.system.memory:
            break
    else:
        raise Infeasible(
            f"memory of device {fullest}, which holds {_held(built, found.table, fullest)}", need=need,
            have=asked.system.memory, unit="B",
            hint="Take more devices or larger ones, a smaller batch, or fewer modules",
        )  # fmt: skip
    wrong = problems(built.graph, found.table, count, wires)
    assert not wrong, wrong
    tables: dict[str, Timetable] = {"waves": found.table}
    tables |= {name: rule(built.graph, count, wires) for name, rule in RULES.items()}
    made = {name: _outcome(asked, built, name, table, RECOMPUTE[code]) for name, table in tables.items()}
    bound = {"levels": found.level_bound, "any": found.bound}
    made["waves"] = replace(made["waves"], metrics={**made["waves"].metrics, "bound": bound})
    ranked = sorted(made.values(), key=lambda o: (float(o.metrics["iteration_time"]), o.plan["way"] != "waves"))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(found.ways) + len(RULES))
    lines = (
        f"{built.operators} operators in {len(built.graph)} chains of like ones (MetaOps); ways of dealing devices: "
        + ", ".join(f"{name} {show(seconds, 's')}" for name, seconds in found.ways.items()),
        f"no schedule that ends a level before the next beats {show(found.level_bound, 's')}, no schedule at all "
        f"{show(found.bound, 's')}; waves take {show(found.table.seconds, 's')}",
    )
    goals = scenario.objective.goals(TRAINING, {})
    return Ranking(tuple(ranked[:top]), tuple(ranked[:1]), (), (), counts, goals, goals, space=lines, notes=asked.notes)


def _dtype(group: Group) -> str:
    return next(name for name in ("bf16", "fp16", "fp32") if name in group.device.peak)


def _held(built: Built, table: Timetable, device: int) -> str:
    names = sorted({built.graph[s.op].weights for s in table.slots if device in s.devices})
    return ", ".join(f"{name} ({built.params[name] / 1e6:,.0f}M)" for name in names)


def _outcome(asked: Question, built: Built, name: str, table: Timetable, recompute: str) -> Outcome:
    adding = sync(built, asked.system, table)
    need, _ = memory(built, table)
    seconds = table.seconds + adding
    metrics: dict[str, Any] = {
        "iteration_time": seconds, "devices": asked.group.count, "memory": need,
        "fits": need <= asked.system.memory, "params": sum(built.params.values()),
        "busy": sum((s.end - s.start) * len(s.devices) for s in table.slots) / (table.seconds * asked.group.count),
        "bytes": table.moved,
    }  # fmt: skip
    if asked.group.prices is not None:
        metrics["cost"] = seconds / 3600.0 * asked.group.prices.mean(0.0, 3600.0) * asked.group.count
    plan: Mapping[str, Any] = {"way": name, "recompute": recompute, "waves": rows(built, table)}
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={}, plan=plan,
        breakdown={"time": {"waves": table.seconds, "data_comm": adding}},
        notes=(
            f"training practice: {asked.system.practice.source}",
            "copies add up gradients after the last wave, nothing of it hidden; optimizer's states shared out (ZeRO 1)",
            f"recompute {recompute}; each module is spread by samples alone (data parallel)",
        ),
    )  # fmt: skip


def rows(built: Built, table: Timetable) -> list[dict[str, Any]]:
    """Returns a timetable's slots for JSON: wave, MetaOp, which of its operators, devices, s."""
    return [
        {
            "wave": slot.wave, "op": built.graph[slot.op].name, "task": built.graph[slot.op].task,
            "first": slot.first, "count": slot.count, "of": built.graph[slot.op].count, "devices": list(slot.devices),
            "start": slot.start, "end": slot.end,
        }
        for slot in table.slots
    ]  # fmt: skip
