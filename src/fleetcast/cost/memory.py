"""Where a device's memory goes: weights, activations, what the engine keeps, and the KV cache that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast.base.errors import Infeasible
from fleetcast.cost.engine import Engine
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import BITS, Precision


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device of a replica.

    Attributes:
        total: what the engine may use: memory x fraction.
        weights: of the fullest stage.
        activations: of the largest iteration, logits included.
        reserve: runtime, graphs, communication buffers.
        windows: what layers with a window and recurrent layers need for a full batch.
        kv: left for the cache.
        kv_token: cache per context token on that device.
        blocks: KV blocks of one lane.
        tokens: context tokens that one lane's cache holds.
    """

    total: float
    weights: float
    activations: float
    reserve: float
    windows: float
    kv: float
    kv_token: float
    blocks: int
    tokens: int

    @property
    def fits(self) -> bool:
        """Whether weights fit and at least one block of cache is left."""
        return self.blocks > 0

    def table(self) -> dict[str, float]:
        """Returns the parts for a report, B."""
        return {
            "weights": self.weights, "activations": self.activations, "reserve": self.reserve,
            "windows": self.windows, "kv": max(self.kv, 0.0),
        }  # fmt: skip


def layout_memory(
    model: Model, device: Device, layout: Layout, precision: Precision, kv_dtype: str, engine: Engine,
    max_batch: int, budget: int, *, beside: Sequence[tuple[Model, Layout, Precision]] = (), checked: float = 1.0,
) -> Memory:  # fmt: skip
    """Returns where the memory of a replica's fullest device goes.

    Args:
        model: architecture.
        device: memory.
        layout: how a replica is spread.
        precision: dtypes of the weights as served.
        kv_dtype: dtype of the cache.
        engine: profile: fraction, reserve, block size.
        max_batch: most sequences of a lane; their logits and windows are held at once.
        budget: most tokens of an iteration; engines profile their activations with it, up to the model's context.
        beside: models that draft on the same devices, with weights and a cache of their own.
        checked: tokens a sequence of one iteration, each with logits.
    """
    tp, pp = layout.tensor_parallel, layout.pipeline_parallel
    total = device.memory * engine.memory_fraction
    weights = max(model.stage_bytes(layout, precision))
    weights += sum(max(other.stage_bytes(split, stored)) for other, split, stored in beside)
    tokens = min(budget, model.context or budget)
    widest = max(b.ffn.width * (b.ffn.top_k or 1) + b.ffn.shared_width for b in model.blocks)
    # residual stream, its norm and the widest inner activation of one layer live at once, 16 bits
    activations = tokens * 2.0 * (4.0 * model.hidden + 2.0 * widest / tp)
    activations += min(max_batch * checked, tokens) * model.vocab * (4.0 + 2.0 / tp)
    reserve = engine.reserve + (engine.reserve_ranks if tp * pp * layout.attention_dp > 1 else 0.0)
    share = -(-model.layers // pp) / model.layers
    element = BITS[kv_dtype] / 8
    # every pipeline lane's sequences pass every stage
    states = model.state_bytes(tp) * share * max_batch * pp
    groups = model.kv_groups(element, tp)
    free = total - weights - activations - reserve
    full = sum(g.bytes for g in groups if not g.window) * share
    held = sum(g.bytes * g.window for g in groups if g.window) * share * max_batch * pp
    # Layers with a window keep just that where an engine can, and where a full batch of windows leaves room for the
    # others; else every context token is charged in full, which is never too little.
    if engine.hybrid_kv and full > 0.0 and states + held <= 0.5 * max(free, 0.0):
        windows, kv_token = states + held, full
    else:
        windows, kv_token = states, sum(g.bytes for g in groups) * share
    for other, split, _ in beside:
        kv_token += sum(g.bytes for g in other.kv_groups(element, split.tensor_parallel))
    windows = min(windows, max(free, 0.0) * 0.5)
    kv = free - windows
    blocks = max(0, int(kv / (kv_token * engine.block) / pp)) if kv > 0 else 0
    return Memory(total, weights, activations, reserve, windows, kv, kv_token, blocks, blocks * engine.block)


def misfit(memory: Memory, longest: int, what: str) -> Infeasible | None:
    """Returns why a replica cannot serve requests of up to ``longest`` tokens, or None.

    Args:
        memory: of the fullest device.
        longest: prompt and output tokens of the longest request.
        what: names the layout in the hint.
    """
    if memory.weights + memory.reserve + memory.activations >= memory.total:
        need = memory.weights + memory.reserve + memory.activations
        return Infeasible(
            "memory for weights, activations and engine", need=need, have=memory.total, unit="B",
            hint=f"{what}: raise tensor_parallel or pipeline_parallel, or choose a narrower dtype",
        )  # fmt: skip
    if memory.tokens < longest:
        return Infeasible(
            "KV cache for the longest request", need=float(longest), have=float(memory.tokens), unit="tokens",
            hint=f"{what}: raise tensor_parallel or pipeline_parallel, use kv_dtype = \"fp8\", or cut the trace",
        )  # fmt: skip
    return None
