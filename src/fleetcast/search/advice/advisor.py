"""Tries every technique on a device: bytes from the model's tensors, speed from the serving world, one user at a time.

What is proposed fits: weights that stay, activations, the engine's own and the cache of the longest request together
are within what the engine may use of the device's memory. Weights that do not stay come back over a slower path in
every iteration, after the iteration's own work: nothing is read ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import msgspec
import numpy as np

from fleetcast.base.errors import FleetcastError, Infeasible, SpecError
from fleetcast.cost.engine import Engine, engine
from fleetcast.cost.memory import layout_memory
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.load import ServingScenario
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.scenario.workload.models import Layout, Model, rank_bytes
from fleetcast.scenario.workload.precision import Precision, as_engine
from fleetcast.scenario.workload.requests import Requests
from fleetcast.scenario.workload.serving import Arrivals, Lengths
from fleetcast.search.advice.techniques import FORMATS, SHAPES, TRANSFORMED, Case, Change
from fleetcast.search.tiers.parts import engine_for
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.dtypes import kv_dtype_of
from fleetcast.sim.serving.setting import Setting
from fleetcast.sim.serving.world import simulate

PIECE = 512
"""Prompt tokens of an iteration."""
VAST = 1e16
"""B: a memory in which everything fits, to time what is partly kept elsewhere."""
ONE_USER = Arrivals(kind="closed", concurrency=1, requests=1)
LENGTHS = Lengths(kind="fixed", prompt=1024, output=256)
"""Of a request where the scenario says nothing: two pages in, a long paragraph out."""
SPARE_LAYERS = 2
"""Layers of room that moving weights in needs: one in use, one arriving."""


@dataclass(frozen=True)
class Option:
    """One way to run a model on a device.

    Attributes:
        technique: names of shape and format, e.g. ``distil + quantise-int4``.
        model: that runs.
        dtype: of its weights.
        bytes: of device memory that it takes, all told.
        have: bytes that the engine may use.
        elsewhere: bytes of weights kept elsewhere.
        where: that is.
        ttft: s to the first token of the longest prompt.
        tpot: s per further token.
        quality: what is lost, or "unknown".
        source: of that.
        transform: what ``fleetcast transform`` is told to make such a checkpoint; "" = none is needed, or none can.
    """

    technique: str
    model: str
    dtype: str
    bytes: float
    have: float
    elsewhere: float
    where: str
    ttft: float
    tpot: float
    quality: str
    source: str
    transform: str = ""


@dataclass(frozen=True)
class Refusal:
    """A technique that does not help: why, and where memory binds, what is needed of what there is (B)."""

    technique: str
    why: str
    need: float = 0.0
    have: float = 0.0


@dataclass(frozen=True)
class Advice:
    """What can be done with a model on a device; ``options`` as they change the model least first.

    ``notes`` say what was taken as given because the scenario does not say it.
    """

    model: str
    device: str
    engine: str
    options: tuple[Option, ...]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON."""
        fields = msgspec.to_builtins(self)
        return dict(fields)


def asked_of_one(scenario: ServingScenario) -> tuple[ServingScenario, tuple[str, ...]]:
    """Returns a scenario with the traffic of one user where it has none, and what was assumed, in sentences."""
    workload = scenario.workload
    if workload.trace is not None or (workload.arrivals is not None and workload.lengths is not None):
        return scenario, ()
    notes = []
    if workload.arrivals is None:
        notes.append("workload.arrivals is not given: one user, who sends a request when the last has been answered")
    if workload.lengths is None:
        notes.append(f"workload.lengths is not given: {LENGTHS.prompt:,} prompt and {LENGTHS.output:,} output tokens")
    changed = msgspec.structs.replace(
        workload, arrivals=workload.arrivals or ONE_USER, lengths=workload.lengths or LENGTHS
    )
    return msgspec.structs.replace(scenario, workload=changed), tuple(notes)


def advise(state: Setting, notes: tuple[str, ...] = ()) -> list[Advice]:
    """Returns advice for the scenario's model on one device of each group; ``[plan]`` may name the engine.

    Args:
        state: the scenario, resolved.
        notes: what was assumed, see `asked_of_one`.

    Raises:
        SpecError: an encoder-decoder model, or an unknown engine.
    """
    if state.model.encoder_decoder:
        raise SpecError("workload.model", "is an encoder-decoder model", value=state.model.id, limit="a decoder")
    named = next((p.engine for p in state.scenario.plan.pools if isinstance(p.engine, str)), None)
    found = [_advise(state, group, engine(named or engine_for(group.device))) for group in state.tree.groups]
    return [replace(advice, notes=notes) for advice in found]


def _advise(state: Setting, group: Group, profile: Engine) -> Advice:
    case = Case(state.model, group.device)
    options: list[Option] = []
    refused: list[Refusal] = []
    for shape, make in SHAPES.items():
        changed = make(case)
        if isinstance(changed, str):
            refused.append(Refusal(shape, changed))
            continue
        for found in _formats(state, group, profile, shape, changed):
            if isinstance(found, Refusal):
                refused.append(found)
                continue
            options.append(found)
            if shape != "whole" and not found.elsewhere:
                break  # narrower weights than it takes cost quality for nothing
    return Advice(state.model.id, group.device.id, profile.id, tuple(options), tuple(refused))


def _formats(state: Setting, group: Group, profile: Engine, shape: str, changed: Change) -> Iterator[Option | Refusal]:
    """Yields what each format, wide to narrow, makes of a shape."""
    for name, store in FORMATS.items():
        said = [shape] * (shape != "whole") + [name] * (name != "as published")
        technique = " + ".join(said) or "as published"
        stored = store(Case(changed.model, group.device))
        if isinstance(stored, str):
            if shape == "whole":
                yield Refusal(technique, stored)
            continue
        try:
            option = _option(state, group, profile, technique, changed, stored)
            if changed.spill and not option.elsewhere:
                yield Refusal(technique, "all weights fit into the device's memory: nothing would move")
                return
            yield option
        except Infeasible as error:
            yield Refusal(technique, str(error.constraint), error.need, error.have)
        except FleetcastError as error:
            yield Refusal(technique, str(error))


def _option(state: Setting, group: Group, profile: Engine, technique: str, changed: Change, stored: Change) -> Option:
    """Returns a technique's memory and speed.

    Raises:
        Infeasible: it does not fit; need and have in bytes.
    """
    model = changed.model
    precision = as_engine(stored.dtype, model.precision)
    kv = kv_dtype_of("auto", profile, precision)
    room = layout_memory(model, group.device, Layout(), precision, kv, profile, 1, PIECE)
    cache = ceil(state.longest / profile.block) * profile.block * room.kv_token
    fixed = room.activations + room.reserve + room.windows + cache
    need, moved = fixed + room.weights, 0.0
    if need > room.total and changed.spill:
        layers, largest = _layer_bytes(model, precision)
        rest = need - layers + SPARE_LAYERS * largest
        if rest > room.total:
            raise Infeasible(f"memory beside the layers in {changed.spill}", need=rest, have=room.total, unit="B")
        stays = min(room.total - rest, layers)
        need, moved = rest + stays, layers - stays
    if need > room.total:
        constraint = "memory for weights" if room.weights > room.total else "memory for weights, cache and engine"
        raise Infeasible(constraint, need=need, have=room.total, unit="B")
    prompt, output = int(state.requests.prompt.max()), max(2, int(state.requests.output.mean()))
    ttft, tpot = _speed(state, group, profile, model, stored.dtype, prompt, output)
    if moved:
        ttft += ceil(prompt / PIECE) * moved / changed.rate
        tpot += moved * _touched(model) / changed.rate
    quality = [c.quality for c in (changed, stored) if c.quality != "none"]
    source = [c.source for c in (changed, stored) if c.source]
    made = " + ".join(c.transform for c in (changed, stored) if c.transform)
    if changed.transform is None or state.model.architecture not in TRANSFORMED or state.model.precision.parts:
        made = ""
    return Option(
        technique, model.id or model.architecture, model.dtype if stored.dtype == "auto" else stored.dtype, need,
        room.total, moved, changed.spill if moved else "", ttft, tpot, "; ".join(quality) or "none", "; ".join(source),
        made,
    )  # fmt: skip


def _layer_bytes(model: Model, precision: Precision) -> tuple[float, float]:
    """Returns bytes of all layers and of the largest."""
    each = [sum(rank_bytes(t, Layout(), precision) for t in rows) for rows in model.tensors]
    return sum(each[i] for i in model.pattern), max(each)


def _touched(model: Model) -> float:
    """Returns the share of the layers' weights that one token is multiplied with: not the idle experts."""
    busy = total = 0.0
    for block, rows, count in zip(model.blocks, model.tensors, model.counts, strict=True):
        for t in rows:
            share = block.ffn.top_k / block.ffn.experts if t.part == "experts" else 1.0
            busy, total = busy + count * t.elements * share, total + count * t.elements
    return busy / total


def _speed(
    state: Setting, group: Group, profile: Engine, model: Model, dtype: str, prompt: int, output: int
) -> tuple[float, float]:
    """Returns (TTFT, TPOT) of one user, s, as if all weights were in the device's memory."""
    vast = msgspec.structs.replace(group.device, memory=VAST)
    group = replace(group, device=vast, count=1, node=1)
    one = Requests(np.zeros(1), np.array([prompt]), np.array([output]), timed=False, concurrency=1)
    world = replace(
        state, tree=replace(state.tree, groups=(group,)), model=model, requests=one, _servers={}, _models={},
        _kernels={}, scenario=msgspec.structs.replace(state.scenario, slo=Slo()),
    )  # fmt: skip
    pool = Pool(
        replicas=1, tensor_parallel=1, pipeline_parallel=1, engine=profile.id, dtype=dtype,
        batch={"kind": "chunked", "chunk": PIECE, "max_batch": 1},
    )  # fmt: skip
    metrics = simulate(world, complete(world, Plan(pools=(pool,)))).metrics
    return metrics["ttft"]["mean"], (metrics["e2e"]["mean"] - metrics["ttft"]["mean"]) / (output - 1)
