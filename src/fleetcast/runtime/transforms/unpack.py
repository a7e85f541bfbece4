"""A packed checkpoint made plain, so that an engine which does not know the form can run what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.transforms.calibrate import Tokens
from fleetcast.runtime.transforms.checkpoint import STORAGE, Checkpoint, plain_bytes, stored_bytes

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None


class Unpack:
    """Stores every matrix plain again, in the dtype that the config names; what was lost stays lost."""

    kind = "unpack"

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""
        return plain_bytes(config)

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the model with all its matrices plain."""
        kind = str(source.config.get("torch_dtype", source.config.get("dtype", "float32"))).removeprefix("torch.")
        dtype = getattr(torch, kind) if stored_bytes(source.config) else torch.float32
        config = {key: value for key, value in source.config.items() if key != STORAGE}
        return Checkpoint(config, {n: v.to(dtype) for n, v in source.weights().items()}, source.companions)
