"""A step of one device whose model lies with its host: six resources, and the share of activations that is swapped.

Weights come up layer by layer, forward and backward; activations go down and come back, or are computed again;
gradients go down to Adam on the host, whose states lie on disks. "Adding NVMe SSDs to Enable and Accelerate 100B Model
Fine-tuning on a Single GPU" (arXiv 2403.06504) runs Adam beside the pass back, so that a pass takes what its slowest
resource takes; ZeRO-Infinity (Rajbhandari and others, SC 2021) updates after it, reading, computing and writing in
turn, as DeepSpeed does unless ``pipeline_read`` and ``pipeline_write`` are set. With swap share x of a layer:

    forward(x) = sum over layers of max over resources,    backward(x) the same with recomputing (1 - x) and Adam
    T(x) = fill + forward(x) + backward(x) + drain [+ update]

Tensors go by the seconds that recomputing one of their bytes takes, so that T is convex and piecewise linear in x: its
least value lies at a tensor's end, where the host's memory is full, or where two resources cross (`best`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.cost.training.memory import LOGITS, RESERVE, layer_activations
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.offload import ADAM_BYTES
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import parts, settle
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
RESOURCES = ("device", "up", "down", "read", "write", "host")
"""The device's own kernels, its link from and to the host, the disks' reading and writing, Adam on the host."""
STATES = 12.0
"""B of a parameter that Adam reads: master weight and two moments."""
WRITTEN = 14.0
"""B that it writes: the same and the weight in half precision."""
BUFFERS = 3
"""Layers of states in the host's memory at once: one read, one updated, one written."""
RIVAL_HELD = 8.0
"""B of a parameter that ZeRO-Infinity keeps in the host's memory with its optimizer on disks: weights and gradients in
half precision and gradients in fp32. Inferred: 65B does not fit into 512 GB there (a summary of arXiv 2403.06504)."""
RIVAL_BUFFERS = 4 * 1e9 * 4.0
"""B of its buffers for tiles of states: ``buffer_count`` 4, ``sub_group_size`` 1e9, fp32 (DeepSpeed's defaults)."""


@dataclass(frozen=True)
class Piece:
    """Tensors of a layer that are swapped together: B, and s in which they are computed again."""

    name: str
    size: float
    seconds: float


@dataclass(frozen=True)
class Stream:
    """One iteration, layer by layer; all layers alike.

    Attributes:
        layers: how many.
        forward, backward: s of a layer's passes, nothing computed again.
        head: s of embedding, head and loss, both ways.
        params: of a layer; ``table``: of embedding, head and what else lies outside layers.
        kept: B of a layer's input, which is always there.
        pieces: its other activations, dearest byte first.
        whole: B of all activations of a layer at work; ``logits``, ``stream``: of the head, of the residual stream.
        element: B of a weight or gradient.
        overlapped: Adam runs beside the pass back.
        system: the device, its link, its host, its disks.
    """

    layers: int
    forward: float
    backward: float
    head: float
    params: float
    table: float
    kept: float
    pieces: tuple[Piece, ...]
    whole: float
    logits: float
    stream: float
    element: float
    overlapped: bool
    system: System

    @property
    def swappable(self) -> float:
        """B of a layer that may be swapped or computed again."""
        return sum(piece.size for piece in self.pieces)

    def again(self, swap: ArrayLike) -> Array:
        """Returns s in which a layer computes again what is not swapped."""
        sizes = np.cumsum([0.0, *(piece.size for piece in self.pieces)])
        saved = np.cumsum([0.0, *(piece.seconds for piece in self.pieces)])
        return np.asarray(saved[-1] - np.interp(np.asarray(swap) * sizes[-1], sizes, saved))


def stream(network: Network, job: Job, plans: Plans, system: System, *, overlapped: bool) -> Stream:
    """Returns the iteration of a plan of one device, the whole batch in one pass.

    Args:
        network: the model.
        job: the batch.
        plans: a column of one.
        system: the device and its host.
        overlapped: whether Adam runs beside the pass back.
    """
    alone = replace(plans, recompute=np.zeros_like(plans.recompute), offload=np.zeros_like(plans.offload))
    found, practice = parts(network, job, alone, system), system.practice
    times = {name: float(column[0]) for name, column in settle(found, alone, practice).items()}
    depth = network.depth
    ahead = sum(float(column[0]) for column in found.forward.values())
    both = ahead + sum(float(column[0]) for column in found.backward.values())
    layers = times["gemm"] + times["attention"] + times["vector"] + times["host"]
    forward = layers * ahead / both
    kept, pieces, whole = 0.0, [], 0.0
    tokens = float(job.sequence * job.batch)
    full = replace(plans, recompute=np.full_like(plans.recompute, 2))
    for layer in network.layers:
        share = layer.count / depth
        size, most = (float(column[0]) for column in layer_activations(network, layer, job, alone))
        mine = float(layer_activations(network, layer, job, full)[0][0])
        whole, kept = max(whole, most), kept + share * mine
        # A layer's last product ends in the residual stream, which the next layer keeps: nobody computes it again.
        own = [(m.outputs, m.outputs * m.inputs) for m in layer.matrices]
        if layer.experts:
            wide = layer.top_k * layer.expert_ffn
            own.append((wide * (layer.expert_matrices - 1.0), wide * layer.expert_matrices * float(network.hidden)))
        flops = sum(work for _, work in own)
        own = own if layer.experts else own[:-1]
        products = [(f"product {i}", tokens * n * job.kept, work / flops) for i, (n, work) in enumerate(own)]
        heads = tokens * (layer.heads * layer.value_dim * job.kept + 4.0 * layer.heads)
        room = max(size - mine, 0.0)
        scale = min(1.0, room / max(sum(b for _, b, _ in products) + heads, 1.0))
        gemm, attention = (
            _first(found.forward, names) / depth for names in (("gemm",), ("attention", "fused", "flash", "narrow"))
        )
        factor = forward / max(ahead, 1e-30)
        made = [Piece(name, scale * b, gemm * factor * part) for name, b, part in products]
        made.append(Piece("attention", scale * heads, attention * factor))
        rest = room - sum(piece.size for piece in made)
        made.append(Piece("element-wise", rest, _first(found.forward, ("vector",)) / depth * factor))
        pieces += [Piece(p.name, share * p.size, share * p.seconds) for p in made if p.size > 0]
    pieces.sort(key=lambda piece: -piece.seconds / piece.size)
    inner = sum(layer.count * layer.params for layer in network.layers)
    return Stream(
        layers=depth, forward=forward / depth, backward=(layers - forward) / depth, head=times["head"],
        params=inner / depth, table=network.params - inner, kept=kept, pieces=tuple(pieces), whole=whole,
        logits=tokens * network.vocab * LOGITS * job.kept, stream=tokens * 2.0 * job.kept * network.hidden,
        element=job.kept, overlapped=overlapped, system=system,
    )  # fmt: skip


def _first(found: dict[str, Array], names: tuple[str, ...]) -> float:
    return sum(float(found[name][0]) for name in names)


@dataclass(frozen=True)
class Loads:
    """Seconds by resource, arrays over swap shares: a layer forward and backward, and what lies outside layers."""

    forward: dict[str, Array]
    backward: dict[str, Array]
    outside: dict[str, Array]
    update: Array


def loads(s: Stream, swap: ArrayLike) -> Loads:
    """Returns what each resource does for a layer; ``update`` is s of an optimizer that runs after the pass back."""
    x = np.atleast_1d(np.asarray(swap, dtype=np.float64))
    system, zero = s.system, np.zeros(len(x))
    read = 1.0 / system.ssd if system.ssd else 0.0
    write = 1.0 / (system.ssd_write or system.ssd) if system.ssd else 0.0
    link = 1.0 / system.host_link
    moved = s.kept + x * s.swappable
    spilt = moved * spill(s, x)
    weights = s.params * s.element

    def adam(params: float) -> tuple[float, float, float]:
        return params * STATES * read, params * WRITTEN * write, params * ADAM_BYTES / system.host_bandwidth

    beside = adam(s.params) if s.overlapped else (0.0, 0.0, 0.0)
    forward = {"device": zero + s.forward, "up": zero + weights * link, "down": moved * link,
               "read": zero + weights * read, "write": spilt * write, "host": zero}  # fmt: skip
    backward = {
        "device": s.backward + s.again(x), "up": (weights + moved) * link, "down": zero + weights * link,
        "read": (weights + spilt) * read + beside[0], "write": zero + beside[1], "host": zero + beside[2],
    }  # fmt: skip
    size, own = s.table * s.element, adam(s.table) if s.overlapped else (0.0, 0.0, 0.0)
    outside = {"device": s.head, "up": size * link, "down": size * link, "read": size * read + own[0],
               "write": own[1], "host": own[2]}  # fmt: skip
    late = 0.0 if s.overlapped else sum(adam(s.params * s.layers + s.table))
    return Loads(forward, backward, {name: zero + value for name, value in outside.items()}, zero + late)


def spill(s: Stream, swap: ArrayLike) -> Array:
    """Returns the share of swapped activations that the host's memory does not hold: disks do, if Adam runs beside."""
    moved = s.layers * (s.kept + np.asarray(swap, dtype=np.float64) * s.swappable)
    free = max(0.0, s.system.host_memory - _buffers(s))
    over = np.maximum(moved - free, 0.0) / np.maximum(moved, 1.0)
    return np.asarray(over if s.system.ssd and s.overlapped else np.zeros_like(over))


def _buffers(s: Stream) -> float:
    """B of the host's memory before any activation."""
    every = s.params * s.layers + s.table
    if not s.system.ssd:
        return every * (WRITTEN + s.element)
    if s.overlapped:
        return BUFFERS * s.params * (WRITTEN + s.element)  # tables go in tiles of a layer at most
    return every * RIVAL_HELD + RIVAL_BUFFERS


def time(s: Stream, swap: ArrayLike) -> Array:
    """Returns s of an iteration at each swap share."""
    found = loads(s, swap)
    ahead = np.max([s.layers * found.forward[name] for name in RESOURCES], axis=0)
    back = np.max([s.layers * found.backward[name] + found.outside[name] for name in RESOURCES], axis=0)
    fill = found.forward["read"] + found.forward["up"]
    drain = found.backward["down"] + found.backward["host"] + (found.backward["write"] if s.overlapped else 0.0)
    return np.asarray(fill + ahead + back + drain + found.update)


def room(s: Stream, swap: float) -> dict[str, float]:
    """Returns B by term of the device (`cost.training.memory.TERMS`), their ``total``, and of ``host`` and ``ssd``."""
    moved = s.kept + swap * s.swappable
    every = s.params * s.layers + s.table
    weights = s.params * s.element
    spilt = float(spill(s, swap)) * moved * s.layers
    found = {
        "weights": 2.0 * weights, "gradients": weights, "optimizer": 0.0, "activations": moved,
        "buffers": s.stream + max(s.logits + 2.0 * s.table * s.element, s.whole), "reserve": RESERVE,
    }  # fmt: skip
    found["total"] = sum(found.values())
    # What spills leaves the host's memory full, to the byte, whatever rounding says.
    found["host"] = s.system.host_memory if 0 < spilt < moved * s.layers else _buffers(s) + moved * s.layers - spilt
    found["ssd"] = every * WRITTEN + spilt if s.system.ssd else 0.0
    return found


def over(s: Stream, swap: float) -> float:
    """Returns by how many bytes the fullest of device, host and disks is too small; at most 0 = all of it fits."""
    need = room(s, swap)
    slack = ((need["total"], s.system.memory), (need["host"], s.system.host_memory), (need["ssd"], s.system.ssd_memory))
    return max(-math.inf, *(want - have for want, have in slack))


def best(s: Stream) -> float:
    """Returns the swap share of the shortest iteration that fits, the smallest of equal ones; 0 where none fits."""
    at = _candidates(s)
    fitting = [x for x in at if over(s, float(x)) <= 0]
    if not fitting:
        return 0.0
    took = time(s, np.asarray(fitting))
    return float(min(x for x, t in zip(fitting, took, strict=True) if t <= took.min() * (1 + 1e-12)))


def _candidates(s: Stream) -> Array:
    """Returns every share at which the time, or what fits, may bend; growing."""
    whole = s.swappable
    if not whole:
        return np.zeros(1)
    ends = np.cumsum([0.0, *(piece.size for piece in s.pieces)]) / whole
    free = max(0.0, s.system.host_memory - _buffers(s))
    limits = [(free / s.layers - s.kept) / whole]
    bare = room(s, 0.0)
    limits.append((s.system.memory - bare["total"]) / whole)
    if math.isfinite(s.system.ssd_memory):
        disks = s.system.ssd_memory - (s.params * s.layers + s.table) * WRITTEN
        limits.append(((disks + free) / s.layers - s.kept) / whole)
    knots = np.unique(np.clip([*ends, *limits], 0.0, 1.0))
    found = loads(s, knots)
    lines = [[s.layers * found.forward[n] for n in RESOURCES],
             [s.layers * found.backward[n] + found.outside[n] for n in RESOURCES]]  # fmt: skip
    crossings = list(knots)
    for stage in lines:
        for one, other in combinations(stage, 2):
            gap = one - other
            for i in np.flatnonzero(gap[:-1] * gap[1:] < 0):
                crossings.append(knots[i] + (knots[i + 1] - knots[i]) * gap[i] / (gap[i] - gap[i + 1]))
    # Just inside a limit, where rounding would put its own share outside.
    return np.unique(np.clip([*crossings, *(np.asarray(limits) * (1.0 - 1e-12))], 0.0, 1.0))
