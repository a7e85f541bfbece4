"""Training plans as columns: one row is one plan, and every cost is computed for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.scenario.training_plan import OFFLOADED, OVERLAPS, RECOMPUTE, SCHEDULES, TENSOR_MESSAGES

__all__ = ["OFFLOADED", "OVERLAPS", "RECOMPUTE", "SCHEDULES", "TENSOR_MESSAGES", "Plans", "code", "plans"]

Integers = NDArray[np.int32]

_DEFAULTS = {"schedule": 1, "fused": 1, "zero": 0, "recompute": 0, "sequence_parallel": 0, "offload": 0, "overlap": 0,
             "tensor_messages": 0}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plans:
    """Columns of equal length, int32.

    Attributes:
        tensor, pipeline, data, context: degrees; their product is the number of devices.
        expert: ranks that hold different experts, out of data x context x tensor / ``expert_tensor``.
        expert_tensor: ranks that share one expert's width; as ``tensor`` where nothing is said (Megatron's default).
        micro_batch: sequences of one forward pass on one copy of the model.
        interleave: parts of the model that a stage holds, in turns.
        schedule: index into ``SCHEDULES``.
        recompute: index into ``RECOMPUTE``.
        sequence_parallel: 1 = norms and dropout are split along the sequence by the tensor-parallel ranks.
        zero: 0 nothing is shared out by copies, 1 the optimizer's states, 2 gradients too, 3 weights too.
        offload: bits, in the order of ``OFFLOADED``.
        tensor_messages: index into ``TENSOR_MESSAGES``; sequence parallelism always scatters and gathers.
        overlap: bits, in the order of ``OVERLAPS``.
        fused: 1 = attention keeps no scores in memory (FlashAttention).
    """

    tensor: Integers
    pipeline: Integers
    data: Integers
    context: Integers
    expert: Integers
    expert_tensor: Integers
    micro_batch: Integers
    interleave: Integers
    schedule: Integers
    recompute: Integers
    sequence_parallel: Integers
    zero: Integers
    offload: Integers
    tensor_messages: Integers
    overlap: Integers
    fused: Integers

    def __len__(self) -> int:
        """Returns how many plans."""
        return len(self.tensor)

    @property
    def devices(self) -> Integers:
        """Devices that each plan takes."""
        return self.tensor * self.pipeline * self.data * self.context

    def take(self, index: ArrayLike) -> Plans:
        """Returns the rows at ``index``: numbers, a mask or a slice."""
        at: Any = index if isinstance(index, slice) else np.asarray(index)
        return Plans(**{f.name: getattr(self, f.name)[at] for f in fields(self)})

    def micro_batches(self, batch: int) -> Integers:
        """Returns the micro-batches that each copy of the model works through in an iteration."""
        share = self.data * self.micro_batch
        return np.asarray(-(-batch // share), dtype=np.int32)

    @property
    def eager(self) -> NDArray[np.bool_]:
        """Which plans run PyTorch's kernels: its FSDP alone. Tensor and pipeline parallelism bring Megatron-LM's."""
        return np.asarray((self.zero >= 2) & (self.tensor == 1) & (self.pipeline == 1))

    def overlaps(self, name: str) -> NDArray[np.bool_]:
        """Returns which plans hide ``name``, one of ``OVERLAPS``."""
        return np.asarray((self.overlap >> OVERLAPS.index(name)) & 1 == 1)

    def offloads(self, name: str) -> NDArray[np.bool_]:
        """Returns which plans keep ``name``, one of ``OFFLOADED``, off the device."""
        return np.asarray((self.offload >> OFFLOADED.index(name)) & 1 == 1)


def plans(**columns: Any) -> Plans:
    """Returns plans from columns, scalars or words; what is left out is 1, or the plainest choice.

    ``schedule``, ``recompute`` and ``tensor_messages`` may be words, ``overlap`` and ``offload`` sequences of words.

    Raises:
        TypeError: a column that no plan has.
        ValueError: columns of different lengths, or an unknown word.
    """
    names = [f.name for f in fields(Plans)]
    unknown = set(columns) - set(names)
    if unknown:
        raise TypeError(f"plans have no {', '.join(sorted(unknown))}; they have {', '.join(names)}")
    words = {"schedule": SCHEDULES, "recompute": RECOMPUTE, "tensor_messages": TENSOR_MESSAGES}
    bits = {"overlap": OVERLAPS, "offload": OFFLOADED}
    given: dict[str, Any] = {}
    for name in names:
        value = columns.get(name)
        if value is None:
            value = columns.get("tensor", 1) if name == "expert_tensor" else _DEFAULTS.get(name, 1)
        elif name in words and isinstance(value, str):
            value = words[name].index(value)
        elif name in bits and not isinstance(value, (int, np.ndarray, np.integer)):
            value = code(value, bits[name])
        given[name] = np.asarray(value, dtype=np.int32)
    length = max((v.size for v in given.values() if v.ndim), default=1)
    return Plans(**{name: np.ascontiguousarray(np.broadcast_to(v, (length,))) for name, v in given.items()})


def code(names: Sequence[str], known: Sequence[str]) -> int:
    """Returns the bits of ``names``, each of them one of ``known``."""
    return sum(1 << known.index(name) for name in set(names))
