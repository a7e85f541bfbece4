"""One iteration of a complete plan as an Outcome: time by term, memory by term, FLOP, energy, money, carbon.

A plan that does not fit has an Outcome too: what it would take, by which term of memory it is too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import msgspec
import numpy as np

from fleetcast.base.spec import build
from fleetcast.cost.intervals import POWER, Z80
from fleetcast.cost.training.energy import Array
from fleetcast.cost.training.energy import energy as energy_of
from fleetcast.cost.training.energy import flops as flops_of
from fleetcast.cost.training.memory import TERMS as MEMORY
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import TERMS, step
from fleetcast.cost.training.system import System
from fleetcast.policy.place import stages as place
from fleetcast.scenario.fleet.signals import intensity
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import one
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training import levels, streamed
from fleetcast.sim.training.apart import islands
from fleetcast.sim.training.completing import alone, columns, complete
from fleetcast.sim.training.mixed import Mixed, held_by, iterate
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.weeks import weeks

JOULES_PER_KWH = 3.6e6


def simulate(state: Setting, plan: TrainingPlan | None = None) -> Outcome:
    """Returns what an iteration of a plan takes.

    Args:
        state: the scenario, resolved.
        plan: what is left out of it is completed; None = the scenario's.

    Raises:
        SpecError: a degree that does not divide, or a choice that is a list.
        Unsupported: a number format that the devices do not have.
    """
    asked = state.scenario.plan if plan is None else plan
    if (count := alone(asked, "islands")) is not None and count > 1:
        return islands(state, msgspec.structs.replace(asked, islands=count), simulate)
    done = complete(state, asked)
    made, rows = done.plan, columns(done.plan)
    job, system = state.job(str(made.dtype)), state.system
    taken = step(state.network, job, rows, state.system)
    mixed = across(state, made, rows, job)
    if mixed is not None:
        taken = {name: np.asarray([mixed.terms.get(name, 0.0)]) for name in TERMS} | {"total": np.asarray([mixed.time])}
    room = {name: float(column[0]) for name, column in memory(state.network, job, rows, state.system).items()}
    if mixed is not None:
        room, system = mixed.room, state.systems[mixed.placement.groups[mixed.fullest]]
    if made.shards is not None:
        taken, room, shards = levels.shared(state, made.shards, rows, job, room)
        made = msgspec.structs.replace(made, shards=shards)
    again = None
    if made.swap is not None:
        taken, room, made, again = streamed.streamed(state, made, rows, job, taken)
    times = {name: float(column[0]) for name, column in taken.items()}
    total = times.pop("total")
    flops = {name: float(column[0]) for name, column in flops_of(state.network, job, rows).items()}
    if again is not None:
        flops["again"] *= again
    tokens = state.workload.batch * state.workload.sequence
    peak = state.peak(str(made.dtype))
    joules = _joules(state, job, rows, taken) if mixed is None else _with_facility(state, mixed.joules)
    if again is not None:  # so much of a full recompute
        spared = _joules(state, job, columns(msgspec.structs.replace(made, recompute="none")), taken)
        joules = {name: again * value + (1.0 - again) * spared[name] for name, value in joules.items()}
    energy = sum(joules.values())
    prices = state.group.prices
    dollars = None if prices is None else prices.mean(0.0, max(total, 1e-9)) * state.group.count * total / 3600.0
    grams = energy / JOULES_PER_KWH * intensity(state.grid, 0.0, max(total, 1e-9))
    over = shortage(system, room)
    metrics: dict[str, Any] = {
        "iteration_time": total, "throughput": tokens / total, "mfu": flops["model"] * tokens / (peak * total),
        "hfu": (flops["model"] + flops["again"]) * tokens / (peak * total), "memory": room["total"],
        "fits": over is None, "flops": flops["model"] * tokens, "tokens": tokens,
        "devices": state.group.count, "energy": energy, "power": energy / total,
        "cost": dollars if dollars is not None else float("nan"), "carbon": grams,
        "micro_batches": int(rows.micro_batches(state.workload.batch)[0]), "params": state.network.params,
        "breakdown": {name: times[name] for name in TERMS},
    }  # fmt: skip
    for name in ("host", "ssd"):
        if room[name]:
            metrics[f"{name}_memory"] = room[name]
    later: list[str] = []
    iterations = state.workload.iterations()
    if iterations is not None:
        metrics["job"] = {
            "iterations": iterations, "tokens": iterations * tokens, "time": iterations * total,
            "energy": iterations * energy, "cost": iterations * metrics["cost"], "carbon": iterations * grams,
        }  # fmt: skip
        if over is None:
            told, weeks_notes = weeks(state, made, total, times["straggler"], iterations)
            metrics |= told
            later = [*weeks_notes]
    notes = [*state.tree.echo(), *(state.notes if mixed is None else ()), *done.notes, *_said(state, made, mixed)]
    if mixed is not None:
        notes.append(_placed(state, mixed))
    notes += later
    if dollars is None:
        notes.append(f"{state.unpriced} has no rental price: cost is unknown; set fleet.price")
    return Outcome(
        source="simulated", metrics=metrics, intervals=_intervals(state, metrics),
        slo={"met": over is None, "checks": []}, plan=made.table(),
        breakdown={
            "time": {name: times[name] for name in TERMS if times[name]}, "energy": joules,
            "memory": {name: room[name] for name in MEMORY if room[name]},
        },
        notes=tuple(notes),
        provenance={
            "seed": state.scenario.seed, "practice": _practices(state, mixed), "memory": system.memory,
            "over": over or {},
        },
    )  # fmt: skip


def shortage(system: System, room: Mapping[str, float]) -> dict[str, Any] | None:
    """Returns where a plan does not fit and by how much, None where it fits.

    ``{"constraint", "need", "have", "term", "unit"}``: the largest term of what is too small.
    """
    largest = max(MEMORY, key=lambda name: room[name])
    for constraint, need, have in (
        ("memory of a device", room["total"], system.memory),
        ("host memory per device", room["host"], system.host_memory),
        ("disk space per device", room["ssd"], system.ssd_memory),
    ):
        if need > have:
            return {"constraint": constraint, "need": need, "have": have, "term": largest, "unit": "B"}
    return None


def _joules(state: Setting, job: Job, rows: Plans, taken: Mapping[str, Array]) -> dict[str, float]:
    """Returns joules of all devices in one iteration by term, the facility's share included."""
    group = state.group
    found = energy_of(state.network, job, rows, state.system, taken, group.device.power.idle, group.limit)
    return _with_facility(state, {name: float(column[0]) for name, column in found.items()})


def _with_facility(state: Setting, terms: dict[str, float]) -> dict[str, float]:
    facility = (state.tree.pue - 1.0) * sum(terms.values())
    return terms | ({"facility": facility} if facility else {})


def across(state: Setting, plan: TrainingPlan, rows: Plans, job: Job) -> Mixed | None:
    """Returns an iteration whose pipeline crosses between groups, None where each stage lies on all of them."""
    stages = held_by(state.tree.groups, rows) if len(state.tree.groups) > 1 else None
    if stages is None or plan.islands is not None:
        return None
    policy = build(place, plan.place or "nic_aware", "plan.place")
    return iterate(state.tree, state.network, job, rows, policy, stages, state.systems)


def _practices(state: Setting, mixed: Mixed | None) -> str:
    """Returns what the factors were fitted on, of every kind of device that stages lie on."""
    used = (state.system,) if mixed is None else state.systems
    return "; ".join(dict.fromkeys(one.practice.source for one in used))


def _placed(state: Setting, mixed: Mixed) -> str:
    """Returns in a sentence where the stages lie."""
    names = [group.name for group in state.tree.groups]
    parts = []
    for i, name in enumerate(names):
        layers = [n for g, n in zip(mixed.placement.groups, mixed.placement.layers, strict=True) if g == i]
        stages = "a stage" if len(layers) == 1 else f"{len(layers)} stages"
        parts.append(f"{name} holds {stages} of {'+'.join(map(str, layers))} layers")
    links = "each group's own network" if mixed.placement.own_links else "the network that joins the groups"
    return f"{'; '.join(parts)}; gradients are added up over {links}; the pipeline runs as 1F1B, whole stages in turn"


def _intervals(state: Setting, metrics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Returns 80 % intervals: time's from what the fit left, energy's from that and the power model's own."""
    widest = max(one.practice.spread for one in (state.system, *(state.systems if state.unlike else ())))
    spread = (widest**2 + (_talk(metrics) * _guessed(state)) ** 2) ** 0.5
    wide = exp(Z80 * spread)
    more = exp(((Z80 * spread) ** 2 + POWER**2) ** 0.5)
    found = {
        "iteration_time": wide, "throughput": wide, "mfu": wide, "hfu": wide, "cost": wide, "energy": more,
        "carbon": more, "job.time": wide, "job.cost": wide, "job.energy": more, "job.carbon": more,
    }  # fmt: skip
    kept = {}
    for path, factor in found.items():
        head, _, rest = path.partition(".")
        value = metrics.get(head) if not rest else metrics.get(head, {}).get(rest)
        if value is not None and value == value:
            kept[path] = (value / factor, value * factor)
    return kept


def _talk(metrics: Mapping[str, Any]) -> float:
    """Returns the share of an iteration that waits for messages within a node or beyond."""
    terms: Mapping[str, float] = metrics["breakdown"]
    names = ("tensor_comm", "context_comm", "expert_comm", "data_comm", "weight_gather")
    return sum(terms[name] for name in names) / max(float(metrics["iteration_time"]), 1e-12)


def _guessed(state: Setting) -> float:
    """Returns the standard deviation of log(time) of messages within a node whose link nobody measured; else 0."""
    inner = state.system.inner
    return 0.0 if inner.kind_of == "measured" or state.group.count == 1 else inner.spread


def _said(state: Setting, plan: TrainingPlan, mixed: Mixed | None) -> list[str]:
    """Returns what the reader should know of this plan."""
    told = [f"training practice: {_practices(state, mixed)}"]
    inner = state.system.inner
    if inner.kind_of == "link kind" and _guessed(state) > 0.5:
        told.append(
            f"messages over {inner.kind} within a node are a guess, and servers differ several times over: eight cards "
            "behind switches reach half their lanes, through one path of a host a tenth; name a link that was "
            "measured, fleet.link, or set fleet.links.intra"
        )
    depth, stages = state.network.depth, one(plan.pipeline_parallel)
    if depth % stages and mixed is None:
        told.append(f"{depth} layers over {stages} stages: the fullest stage has {-(-depth // stages)}, others fewer")
    context = state.model.context
    if context and state.workload.sequence > context:
        told.append(f"sequences of {state.workload.sequence:,} tokens are longer than {state.model.id} has positions")
    return told
