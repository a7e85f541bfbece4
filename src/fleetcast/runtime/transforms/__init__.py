"""Transforms: what makes a model smaller, each a class that foretells the bytes and makes the folder.

A transform is named as a policy is: by its kind and settings. Some leave a plain checkpoint that any engine opens
(`DropLayers`, `Narrow`, `Distil`), others a packed one (`Quantise`, `Sparsify`, `LowRank`), which `Unpack` makes plain.
After Xu et al., "On-Device Language Models: A Comprehensive Review", 2024, whose techniques these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fleetcast.runtime.transforms.calibrate import Tokens
from fleetcast.runtime.transforms.checkpoint import Checkpoint
from fleetcast.runtime.transforms.distil import Distil
from fleetcast.runtime.transforms.drop_layers import DropLayers
from fleetcast.runtime.transforms.low_rank import LowRank
from fleetcast.runtime.transforms.narrow import Narrow
from fleetcast.runtime.transforms.quantise import Quantise
from fleetcast.runtime.transforms.sparsify import Sparsify
from fleetcast.runtime.transforms.unpack import Unpack

__all__ = ["Distil", "DropLayers", "LowRank", "Narrow", "Quantise", "Sparsify", "Unpack"]


class Transform(Protocol):
    """One way to make a model smaller."""

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards, from the config before."""
        ...

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the model afterwards; ``tokens`` are text to calibrate on or to learn from."""
        ...
