"""Whether a training plan's off-loading and recomputing is legal within a device's memory: its passes as a pebble game.

The game is one device's: of the first stage all layers whose activations lie on it at once, forward and back. What
stays on the device anyway (states, the framework's reserve) is taken off its memory. Messages between devices are left
out.
"""

from __future__ import annotations

from math import ceil

import msgspec
import numpy as np

from fleetcast.cost.pebbling.check import Proof, prove
from fleetcast.cost.training import streams
from fleetcast.cost.training.memory import LOGITS, RESERVE, layer_activations, memory
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.pebbles import Part, Passes, Way, pebbles
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.schedule import in_flight
from fleetcast.cost.training.step import parts, settle
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import Setting


def proof(state: Setting, plan: TrainingPlan | None = None) -> Proof | None:
    """Returns what is known of a plan's moves, None where it neither off-loads activations or weights nor recomputes.

    Args:
        state: the scenario, resolved.
        plan: what is left out of it is completed; None = the scenario's.

    Raises:
        SpecError: a degree that does not divide, or a choice that is a list.
    """
    made = complete(state, state.scenario.plan if plan is None else plan).plan
    found = passes(state, made)
    return None if found is None else prove(*pebbles(found))


def passes(state: Setting, made: TrainingPlan) -> Passes | None:
    """Returns the passes of a complete plan, None where there is nothing to prove."""
    if made.islands not in (None, 1) or made.shards is not None:
        return None
    rows, job = columns(made), state.job(str(made.dtype))
    if made.swap is not None:
        return _streamed(state, made, rows, job)
    away = [name for name in ("weights", "activations") if rows.offloads(name).any()]
    if made.recompute == "none" and not away:
        return None
    network, held = state.network, ceil(state.network.depth / int(rows.pipeline[0]))
    sizes = {
        name: _mean(state, job, columns(msgspec.structs.replace(made, recompute=name)))
        for name in ("none", "selective", "full")
    }
    boundary = sizes["full"]
    full = columns(msgspec.structs.replace(made, recompute="full"))
    anew = columns(msgspec.structs.replace(made, recompute="selective"))
    seconds = {"full": _again(state, job, full), "selective": _again(state, job, anew)}
    forward, backward, head = _times(state, job, columns(msgspec.structs.replace(made, recompute="none")))
    left: Way = "away" if "activations" in away else "kept"
    spared = sizes["none"] - sizes["selective"]
    cheap = min(seconds["selective"], seconds["full"]) if spared else 0.0
    ways: dict[str, tuple[Way, Way]] = {
        "none": (left, left), "selective": (left, "again"), "full": ("again", "again"),
    }  # fmt: skip
    most, scores = ways[str(made.recompute)]
    pieces = [Part("activations", sizes["selective"] - boundary, seconds["full"] - cheap, most)]
    if spared:
        pieces.append(Part("scores", spared, cheap, scores))
    terms = {name: float(column[0]) for name, column in memory(network, job, rows, state.system).items()}
    stays = RESERVE + terms["gradients"] + terms["optimizer"]
    weights = 0.0
    if "weights" in away:
        weights = terms["weights"] / 2.0  # of the two layers that lie there
    else:
        stays += terms["weights"]
    flying = float(in_flight(rows.schedule, rows.pipeline, rows.interleave, rows.micro_batches(job.batch))[0])
    alone = int(rows.pipeline[0]) == 1
    tokens = float(rows.micro_batch[0]) * job.sequence / float(rows.context[0])
    return Passes(
        layers=ceil(held * flying), boundary=boundary, boundary_way=left, parts=tuple(pieces),
        output=max(0.0, forward - seconds["full"]), backward=backward, head=head if alone else 0.0,
        logits=tokens * network.vocab * LOGITS * job.kept / float(rows.tensor[0]) if alone else 0.0,
        weights=weights, gradients=0.0, red=max(0.0, state.system.memory - stays), link=state.system.host_link,
    )  # fmt: skip


def _mean(state: Setting, job: Job, rows: Plans) -> float:
    """Returns B that the mean layer keeps of one micro-batch."""
    net = state.network
    return sum(float(layer_activations(net, x, job, rows)[0][0]) * x.count / net.depth for x in net.layers)


def _again(state: Setting, job: Job, rows: Plans) -> float:
    """Returns s in which one layer computes again what a plan recomputes, of one micro-batch."""
    found = settle(parts(state.network, job, rows, state.system), rows, state.system.practice)
    held = np.ceil(state.network.depth / rows.pipeline)
    return float((found["recompute"] / rows.micro_batches(job.batch) / held)[0])


def _times(state: Setting, job: Job, rows: Plans) -> tuple[float, float, float]:
    """Returns s of a layer's pass forward, of its pass back, and of the head, of one micro-batch."""
    raw = parts(state.network, job, rows, state.system)
    found = settle(raw, rows, state.system.practice)
    micro, held = float(rows.micro_batches(job.batch)[0]), float(np.ceil(state.network.depth / rows.pipeline)[0])
    layers = sum(float(found[name][0]) for name in ("gemm", "attention", "vector", "host")) / micro / held
    ahead = sum(float(column[0]) for column in raw.forward.values())
    both = ahead + sum(float(column[0]) for column in raw.backward.values())
    return layers * ahead / both, layers * (1.0 - ahead / both), float(found["head"][0]) / micro


def _streamed(state: Setting, made: TrainingPlan, rows: Plans, job: Job) -> Passes:
    """Returns the passes of a plan that streams: weights come and gradients go, a share of activations is swapped."""
    flow = streams.stream(state.network, job, rows, state.system, overlapped="optimizer" in (made.overlap or ()))
    swap = streams.best(flow) if made.swap == "auto" else float(made.swap or 0.0)
    room, pieces = swap * flow.swappable, []
    for i, piece in enumerate(flow.pieces):
        share = min(1.0, max(0.0, room / piece.size))
        room -= piece.size
        ways: tuple[tuple[float, Way], ...] = ((share, "away"), (1.0 - share, "again"))
        for part, way in ways:
            if part > 0:
                pieces.append(Part(f"{piece.name} ({i + 1}, {way})", part * piece.size, part * piece.seconds, way))
    computed = sum(piece.seconds for piece in flow.pieces)
    tables = 2.0 * flow.table * flow.element
    return Passes(
        layers=flow.layers, boundary=flow.kept, boundary_way="away", parts=tuple(pieces),
        output=max(0.0, flow.forward - computed), backward=flow.backward, head=flow.head, logits=flow.logits + tables,
        weights=flow.params * flow.element, gradients=flow.params * flow.element,
        red=max(0.0, state.system.memory - RESERVE), link=state.system.host_link,
    )  # fmt: skip
