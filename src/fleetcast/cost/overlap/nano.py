"""What nano-batches make of an iteration's tables, and the throughput that no engine can exceed.

The serving world charges an iteration ``dense(tokens) + attention(sequences, context)``. With nano-batches

- ``dense`` is the time of the schedule with no attention in it,
- decode attention is charged what it adds to that time (its *exposed* part): an affine function of context that lies
  on or above the schedule's at no, half and full context of the cache, so that event jumping stays exact,
- an iteration of fewer than ``least`` tokens runs, and costs, as without nano-batches.

Prefill attention and the LM head are charged in full, as without. Exposure is the larger of that in the smallest
iteration that is cut and holds the decoding sequences, and in one of 2,048 tokens.

The optimum is Zhu et al.'s (OSDI 2025): products at the rate the device reaches and nothing else,
``FLOP/s / (2 x active parameters)`` tokens per second and device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, SpecError, closest
from fleetcast.base.spec import Spec, convert
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.layers import Rank, kernel_format
from fleetcast.cost.overlap.operators import Batch, layer_operators
from fleetcast.cost.overlap.schedule import MEASURED, Interference, chain, gain_spread, run
from fleetcast.scenario.plan import OVERLAPS

Array = NDArray[np.float64]

NOTE = (
    "nano-batches: NanoFlow's engine runs them, the plan's does not; how operators slow each other was profiled on A100"
)
DOUBT = (
    "intervals: what sharing a device gains differs by {spread:.0%} from kernel to kernel, taken as its standard "
    "deviation: {doubt:.1%} of a full iteration's time"
)
LAYERS = 4
"""Layers chained before a barrier: a schedule that is repeated, so a time that can be kept."""
FULL = 2048.0
"""Tokens of a full iteration in Zhu et al."""
MOST_SHARE = 0.9
"""Most of a device that decode attention and collectives take beside a product."""


class Nano(Spec):
    """How an iteration is cut into nano-batches and what shares they run with.

    Attributes:
        splits: share of the iteration's tokens and sequences in each nano-batch, 2 to 4 of them.
        skew: stages of a layer by which each nano-batch trails the one before.
        memory_share: of the device, for decode attention beside products.
        network_share: of the device, for collectives beside others.
        least: tokens of an iteration from which on it is cut.
        gain: how much of the measured gain of sharing is believed, 0 (none) to 1.
    """

    splits: tuple[float, ...] = (0.5, 0.5)
    skew: int = 1
    memory_share: float = 0.4
    network_share: float = 0.2
    least: int = 512
    gain: float = 1.0

    def interference(self) -> Interference:
        """Returns the exchange of shares for speed that it believes in."""
        return Interference(MEASURED.share, MEASURED.memory, MEASURED.network, self.gain)


def nano_of(value: Any, path: str = "plan.overlap") -> Nano | None:
    """Returns the nano-batches that a plan's ``overlap`` asks for, None for "none" and where it is left out.

    Args:
        value: None, a kind, or a table ``{kind = "nano", splits = [...]}``.
        path: for errors.

    Raises:
        SpecError: unknown kind or parameter, splits that are no division, shares that leave products nothing, or more
            nano-batches than tokens.
    """
    table = {"kind": value} if isinstance(value, str) else {"kind": "none"} if value is None else dict(value)
    kind = table.pop("kind", None)
    if kind is None:
        raise SpecError(f"{path}.kind", "is missing", value=value, limit=f"one of {', '.join(OVERLAPS)}")
    if kind not in OVERLAPS:
        raise SpecError(
            f"{path}.kind" if isinstance(value, Mapping) else path, "is unknown", value=kind,
            limit=f"one of {', '.join(OVERLAPS)}", hint=closest(str(kind), OVERLAPS),
        )  # fmt: skip
    if kind == "none":
        if table:
            raise SpecError(path, "has parameters without nano-batches", value=table, hint="Write kind = 'nano'")
        return None
    nano = convert(table, Nano, path)
    _check(nano, path)
    return nano


def table_of(nano: Nano) -> dict[str, Any]:
    """Returns the complete table that `nano_of` reads back."""
    values = {name: getattr(nano, name) for name in nano.__struct_fields__}
    return {"kind": "nano"} | values | {"splits": list(nano.splits)}


def _check(nano: Nano, path: str) -> None:
    if not 2 <= len(nano.splits) <= 4:
        raise SpecError(f"{path}.splits", "is out of range", value=list(nano.splits), limit="2 to 4 nano-batches")
    if not all(s > 0.0 for s in nano.splits):
        raise SpecError(
            f"{path}.splits", "leaves a nano-batch without tokens", value=list(nano.splits), limit="shares above 0",
            hint="Leave the entry out",
        )  # fmt: skip
    if abs(sum(nano.splits) - 1.0) > 1e-6:
        raise SpecError(f"{path}.splits", "does not sum to 1", value=list(nano.splits), limit="shares of the tokens")
    if nano.least * min(nano.splits) < 1.0:
        raise SpecError(
            f"{path}.least", "cuts an iteration into more nano-batches than it has tokens for", value=nano.least,
            limit=f"at least {int(np.ceil(1.0 / min(nano.splits)))} tokens", hint="Raise it, or cut into fewer",
        )  # fmt: skip
    if nano.skew < 0 or nano.skew > 16:
        raise SpecError(f"{path}.skew", "is out of range", value=nano.skew, limit="0 to 16 stages")
    for name in ("memory_share", "network_share"):
        if not 0.0 < getattr(nano, name) <= MOST_SHARE:
            raise SpecError(f"{path}.{name}", "is out of range", value=getattr(nano, name), limit="above 0 to 0.9")
    if nano.memory_share + nano.network_share > MOST_SHARE + 1e-9:
        raise SpecError(
            path, "leaves products too little of the device", value=nano.memory_share + nano.network_share,
            limit="memory_share + network_share at most 0.9", hint="Lower one of them",
        )  # fmt: skip
    if not 0.0 <= nano.gain <= 1.0:
        raise SpecError(f"{path}.gain", "is out of range", value=nano.gain, limit="0 to 1")


def layers_time(rank: Rank, nano: Nano, batches: Sequence[Batch], scale: float = 1.0) -> Array:
    """Returns seconds of all layers for each of ``batches``, cut and scheduled as ``nano`` says."""
    times = np.zeros(len(batches))
    interference, many = nano.interference(), len(nano.splits)
    for index, count in enumerate(rank.model.counts):
        if rank.model.blocks[index].stack == "encoder":
            continue
        parts = layer_operators(rank, index, [b.part(s) for b in batches for s in nano.splits], scale)
        layers = min(LAYERS, count)
        for i in range(len(batches)):
            schedule = chain(
                parts[i * many : (i + 1) * many], layers, nano.skew, nano.memory_share, nano.network_share
            )  # fmt: skip
            times[i] += count / layers * run(schedule, interference).time
    return times


def refuse(rank: Rank, limit: float, board: float) -> None:
    """Refuses what the model of overlap does not hold for.

    Args:
        rank: the device.
        limit: W that the fleet allows it.
        board: W that it may draw.

    Raises:
        Infeasible: attention-DP ranks, or a limit below the board's.
    """
    if rank.layout.attention_dp > 1:
        raise Infeasible(
            "attention-DP ranks under nano-batches", need=rank.layout.attention_dp, have=1,
            hint="Overlap of ranks that wait for each other is not modelled: leave overlap or attention_dp out",
        )  # fmt: skip
    if limit < board:
        raise Infeasible(
            "power of a device with nano-batches", need=board, have=limit, unit="W",
            hint="What overlapped kernels draw under a power limit is not modelled: leave overlap or the limit out",
        )  # fmt: skip


def overlapped(
    rank: Rank, nano: Nano, grid: Array, tables: Mapping[str, Array], attention: Mapping[str, Any], most: int,
    capacity: float, scale: float,
) -> dict[str, Array]:  # fmt: skip
    """Returns the tables of an iteration that nano-batches change or add: ``dense``, ``cut_floor``, ...

    Args:
        rank: the device.
        nano: how iterations are cut.
        grid: tokens of the tables, growing.
        tables: ``dense`` and ``experts`` without nano-batches, s over ``grid``.
        attention: sums of `attention_terms`.
        most: sequences of the new tables.
        capacity: tokens that the cache holds.
        scale: time of the engine's products and element-wise kernels, relative to those measured.
    """
    layers = tables["dense"] + tables["experts"] - np.where(grid > 0, rank.reduce(grid), 0.0)  # the embedding's
    dense = tables["dense"] - saved(rank, nano, grid, layers, scale)
    found = {"dense": np.where(nano.least <= grid, np.maximum(dense, 0.0), tables["dense"])}
    return found | {f"cut_{k}": v for k, v in exposed(rank, nano, attention, most, capacity, scale).items()}


def doubt(rank: Rank, nano: Nano, most: int, capacity: float, scale: float) -> float:
    """Returns the standard deviation of log(time) of a full iteration that the gain of sharing leaves.

    By the delta method, as the secant to a gain that is lower by its own spread (`schedule.gain_spread`). Taken at
    2,048 tokens, the larger of that with decode attention on half the cache and without; what an iteration holds beside
    its layers is not doubted with them, so this is rather too much.

    Args:
        rank: the device.
        nano: how iterations are cut.
        most: sequences of a batch.
        capacity: tokens that the cache holds.
        scale: of the engine's kernels.
    """
    tokens = max(FULL, float(nano.least))
    batches = [Batch(tokens), Batch(tokens, min(float(most), tokens / 2.0), capacity / 2.0)]
    less = replace(nano, gain=nano.gain * max(0.0, 1.0 - gain_spread()))
    now, then = (layers_time(rank, n, batches, scale) for n in (nano, less))
    return float(np.abs(np.log(then / now)).max())


def saved(rank: Rank, nano: Nano, grid: Array, layers: Array, scale: float) -> Array:
    """Returns seconds that an iteration without attention saves over ``grid``; below ``least`` exactly 0.

    Args:
        rank: the device.
        nano: how iterations are cut.
        grid: tokens of the tables, growing.
        layers: s of all layers without nano-batches over ``grid``, attention left out.
        scale: of the engine's kernels.
    """
    knots = _knots(nano.least, grid[-1])
    before = np.interp(knots, grid, layers)
    share = layers_time(rank, nano, [Batch(float(t)) for t in knots], scale) / before
    return np.where(grid >= nano.least, layers * (1.0 - np.interp(grid, knots, share)), 0.0)


def exposed(
    rank: Rank, nano: Nano, attention: Mapping[str, Any], max_batch: int, capacity: float, scale: float
) -> dict[str, Array]:
    """Returns ``floor``, ``base`` and ``slope`` of decode attention over sequences, in iterations that are cut.

    Args:
        rank: the device.
        nano: how iterations are cut.
        attention: sums of `attention_terms`.
        max_batch: most sequences.
        capacity: tokens that the cache holds.
        scale: of the engine's kernels.
    """
    n = np.arange(max_batch + 1, dtype=np.float64)
    knots = _knots(1, max_batch, steps=8)
    found = np.array([_affine(rank, nano, attention, float(k), capacity, scale) for k in knots])
    base, slope = (np.where(n > 0, np.interp(n, knots, found[:, k]), 0.0) for k in range(2))
    return {"floor": base, "base": base, "slope": slope}


def _affine(
    rank: Rank, nano: Nano, attention: Mapping[str, Any], n: float, capacity: float, scale: float
) -> tuple[float, float]:
    """Returns (base, slope): s that decode attention of ``n`` sequences adds at most, affine in what they reach."""
    cap = min(capacity, n * rank.model.context) if rank.model.context else capacity
    contexts = np.array([0.0, cap / 2.0, cap])
    sizes = sorted({max(n, float(nano.least)), max(n, float(nano.least), FULL)})
    plain = layers_time(rank, nano, [Batch(t) for t in sizes], scale)
    both = layers_time(rank, nano, [Batch(t, n, float(x)) for t in sizes for x in contexts], scale)
    added = (both.reshape(len(sizes), 3) - plain[:, None]).max(axis=0)
    whole = attention["slope_full"] + attention["slope_window"]
    full = attention["slope_full"] / whole if whole > 0 else 1.0
    reach = full * contexts + (1.0 - full) * np.minimum(contexts, n * attention["window"])
    slope = max(0.0, float((added[2] - added[0]) / reach[2])) if reach[2] > 0 else 0.0
    return float((added - slope * reach).max()), slope


def _knots(low: float, high: float, steps: int = 12) -> Array:
    """Returns whole numbers from ``low`` to ``high`` at about equal ratios."""
    return np.unique(np.round(np.geomspace(low, max(low, high), steps)))


def optimal(rank: Rank) -> float:
    """Returns tokens per second and device of products at the rate the device reaches, and nothing else."""
    c = rank.fitted.get("gemm", kernel_format(rank.precision, "ffn"), Gemm)
    return rank.peak() * c.compute / (2.0 * rank.model.active_params())
