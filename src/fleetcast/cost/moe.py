"""Time of a layer's expert products on one device, the permutation around them included.

    t = launch + softmax_p(compute, memory) + shuffle

Only experts that some token chose are read: of E experts and ``top_k`` choices per token, T tokens
touch ``E (1 - (1 - top_k/E)^(spread*T))`` in expectation (uniform choice for spread = 1; routers
that prefer some experts touch fewer). Rows per expert are padded to the kernel's block. ``shuffle``
is routing, permutation and the weighted sum: a pass over ``tokens * top_k`` rows of the hidden
size, which kernels run for all tokens even when most of their experts live on other ranks.

Where a scenario says how its router spreads tokens (`cost.placement`), rows and touched experts of
the busiest rank come from there. ``spread`` and ``skew``, which were fitted to the skewed router of
the measured tables, are then not used: nothing is counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.roofline import Array, Silicon, format_of, peak, soft_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Fitted coefficients of the expert products of one device and number format.

    Attributes:
        launch: s, all kernels of the layer.
        compute: fraction of the peak FLOP/s reached.
        memory: fraction of the memory bandwidth reached.
        sharp: how well the two roofs overlap (1 adds, 8 is almost the larger).
        block: rows by which each touched expert is padded.
        shuffle: bytes moved per element of tokens x top_k x hidden, at full bandwidth.
        spread: 0..1, how evenly tokens spread over experts (1 = uniform).
        skew: extra rows on the busiest of several expert-parallel ranks, as a fraction.
    """

    launch: float
    compute: float
    memory: float
    sharp: int = 4
    block: float = 0.0
    shuffle: float = 0.0
    spread: float = 1.0
    skew: float = 0.0


def distinct_experts(tokens: ArrayLike, experts: ArrayLike, top_k: ArrayLike, spread: ArrayLike = 1.0) -> Array:
    """Returns how many different experts ``tokens`` touch in expectation (array).

    Args:
        tokens: tokens of the whole expert-parallel group.
        experts: routed experts of the layer.
        top_k: experts per token.
        spread: 1 = uniform choice; below 1 the popular experts repeat.
    """
    t, e, k = (np.asarray(x, dtype=np.float64) for x in (tokens, experts, top_k))
    miss = np.log1p(-np.minimum(k / e, 1.0 - 1e-12))
    seen = e * -np.expm1(miss * (1.0 + np.maximum(t - 1.0, 0.0) * np.asarray(spread)))
    return np.where(t > 0, np.maximum(np.minimum(seen, t * k), np.minimum(k, t * k)), 0.0)


def busiest(mean: ArrayLike, ranks: ArrayLike, most: ArrayLike) -> Array:
    """Returns the count on the busiest of ``ranks`` ranks of given mean, at most ``most``.

    ``ranks * mean`` different experts lie on ``ranks`` ranks of ``most`` each: drawn without
    replacement, so the count of a rank is hypergeometric. Its largest of several is mean plus
    Blom's normal score (1958) times the standard deviation.
    """
    x, n, limit = (np.asarray(v, dtype=np.float64) for v in (mean, ranks, most))
    z = np.reshape([_largest(float(v)) for v in np.ravel(n)], n.shape)
    variance = x * (1.0 - 1.0 / n) * np.maximum(1.0 - x / limit, 0.0)
    return np.asarray(np.minimum(x + z * np.sqrt(variance), limit))


@lru_cache(maxsize=1024)
def _largest(count: float) -> float:
    """Expected largest of ``count`` standard normal numbers."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1.0 else 0.0


def experts_time(
    tokens: ArrayLike,
    hidden: ArrayLike,
    width: ArrayLike,
    experts: ArrayLike,
    top_k: ArrayLike,
    dtype: str,
    chip: Silicon,
    c: Experts,
    *,
    expert_parallel: ArrayLike = 1.0,
    tensor_parallel: ArrayLike = 1.0,
    matrices: float = 3.0,
    busy: tuple[ArrayLike, ArrayLike] | None = None,
) -> Array:
    """Returns seconds of one layer's routed experts on the busiest device of the group.

    Args:
        tokens: tokens of the whole group (array); 0 tokens take no time.
        hidden: model width.
        width: intermediate width of one expert.
        experts: routed experts of the layer.
        top_k: experts per token.
        dtype: number format of the expert weights.
        chip: the device.
        c: its coefficients.
        expert_parallel: ranks over which whole experts are spread.
        tensor_parallel: ranks over which each expert is cut.
        matrices: weight matrices per expert, 3 when gated.
        busy: rows of the busiest rank and experts it touches, from a router's own distribution; the fitted spread and
            skew, which stand for an unknown one, are then not used.
    """
    t, h, k = (np.asarray(x, dtype=np.float64) for x in (tokens, hidden, top_k))
    ranks = np.asarray(expert_parallel, dtype=np.float64)
    form = format_of(dtype)
    shard = np.asarray(width, dtype=np.float64) / np.asarray(tensor_parallel, dtype=np.float64)
    local = np.asarray(experts, dtype=np.float64) / ranks
    if busy is None:
        touched = busiest(distinct_experts(t, experts, k, c.spread) / ranks, ranks, local)
        rows = t * k / ranks * np.where(ranks > 1, 1.0 + c.skew, 1.0)
    else:
        rows, touched = (np.asarray(x, dtype=np.float64) for x in busy)
    rows = rows + c.block * touched
    compute = rows * (2.0 * matrices * h * shard / (peak(chip, dtype) * c.compute))
    weights = touched * (matrices * h * shard * form.weight)
    memory = (weights + rows * (2.0 * h + matrices * shard * 2.0)) / (chip.bandwidth * c.memory)
    shuffle = t * k * h * (c.shuffle / chip.bandwidth)
    return np.where(t > 0, c.launch + soft_max(compute, memory, c.sharp) + shuffle, 0.0)
