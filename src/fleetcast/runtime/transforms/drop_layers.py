"""Layers removed: those that change the residual stream least."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np

from fleetcast.base.errors import MissingExtra, SpecError, Unsupported
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.transforms.calibrate import Tokens, streams
from fleetcast.runtime.transforms.checkpoint import Checkpoint, model_of, plain_bytes

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)")


class DropLayers:
    """Removes a block of consecutive layers.

    With text, the block between whose two ends the residual stream turns least, by the mean angle over tokens (Gromov
    et al., "The unreasonable ineffectiveness of the deeper layers", ICLR 2025). Without, the last but one and those
    before it, as they advise.

    Args:
        share: of the layers that goes, rounded up.
        choose: "angle" as above, "late" for the block before the last even with text, or "random", the rule to compare
            with.
        seed: of "random".
    """

    kind = "drop_layers"

    def __init__(
        self,
        *,
        share: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.25,
        choose: Literal["angle", "late", "random"] = "angle",
        seed: int = 0,
    ) -> None:
        self.share, self.choose, self.seed = share, choose, seed

    def count(self, config: Mapping[str, Any]) -> int:
        """Returns how many layers go.

        Raises:
            SpecError: none would stay.
        """
        layers = model_of(config).layers
        found = ceil(self.share * layers)
        if found >= layers:
            raise SpecError("drop_layers.share", "leaves no layer", value=self.share, limit=f"{layers} layers")
        return found

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the config afterwards.

        Raises:
            SpecError: no layer would stay.
        """
        layers = model_of(config).layers
        return _without(config, range(layers - self.count(config), layers))

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""
        return plain_bytes(self.config(config))

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the shallower model.

        Raises:
            SpecError: no layer would stay; the model is packed already. Unsupported: layers with different windows.
        """
        source.plain("drop layers")
        if len(set(read_shape(source.config).windows)) > 1:
            raise Unsupported("checkpoint: layers with different windows are not dropped", "Narrow the model instead")
        first = self.first(source, tokens)
        gone = range(first, first + self.count(source.config))
        found = {}
        for name, value in source.tensors.items():
            layer = _LAYER.fullmatch(name)
            if layer is None:
                found[name] = value
            elif (at := int(layer[1])) not in gone:
                found[f"model.layers.{at - len(gone) * (at > first)}.{layer[2]}"] = value
        return Checkpoint(_without(source.config, gone), found, source.companions)

    def first(self, source: Checkpoint, tokens: Tokens | None) -> int:
        """Returns the first layer of the block that goes."""
        count = self.count(source.config)
        layers = model_of(source.config).layers
        if self.choose == "random":
            return int(np.random.default_rng(self.seed).integers(0, layers - count + 1))
        if tokens is None or self.choose == "late":
            return max(0, layers - count - 1)
        x = streams(read_shape(source.config), source.weights(), tokens)
        turns = [
            functional.cosine_similarity(x[i], x[i + count], dim=-1).clamp(-1, 1).arccos().mean()
            for i in range(layers - count + 1)
        ]
        return int(torch.stack(turns).argmin())


def _without(config: Mapping[str, Any], gone: range) -> dict[str, Any]:
    kinds = config.get("layer_types")
    after = {**config, "num_hidden_layers": model_of(config).layers - len(gone)}
    if kinds:
        after["layer_types"] = [kind for i, kind in enumerate(kinds) if i not in gone]
    return after
