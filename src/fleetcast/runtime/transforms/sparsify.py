"""Weights that matter least become zeros, wherever they are, and zeros are not stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.transforms.calibrate import Tokens, moments
from fleetcast.runtime.transforms.checkpoint import STORAGE, Checkpoint, packed_bytes
from fleetcast.runtime.transforms.forms import BITMAP, pack_bitmap

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None


class Sparsify:
    """Zeros in every row of the layers' matrices, stored as a bitmap and the values that are left.

    With text, a weight counts |w| times the root mean square of its input (Sun et al., Wanda, 2024); without, |w|.
    Both compare within a row, so that the share and with it the bytes are exact. It saves storage and transfer, not
    time: no engine here multiplies a bitmap.

    Args:
        share: of each row that becomes zero.
        choose: "importance" as above, "magnitude" for |w| even with text, or "random", the rule to compare with.
        seed: of "random".
    """

    kind = "sparsify"

    def __init__(
        self,
        *,
        share: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.5,
        choose: Literal["importance", "magnitude", "random"] = "importance",
        seed: int = 0,
    ) -> None:
        self.share, self.choose, self.seed = share, choose, seed

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""

        def matrix(outputs: int, inputs: int, width: float) -> float:
            return outputs * (inputs / 8 + (inputs - round(self.share * inputs)) * width)

        return packed_bytes(config, matrix)

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the model with its layers' matrices sparse.

        Raises:
            SpecError: the model is packed already.
        """
        source.plain("sparsify")
        seen = {}
        if tokens is not None and self.choose == "importance":
            seen = moments(read_shape(source.config), source.weights(), tokens)
        draw = torch.Generator().manual_seed(self.seed)
        found = {}
        for name, value in source.tensors.items():
            if not name.endswith("_proj.weight"):
                found[name] = value
                continue
            worth = value.float().abs()
            if self.choose == "random":
                worth = torch.rand(value.shape, generator=draw)
            elif name in seen:
                worth = worth * seen[name].diagonal().sqrt()
            zeros = round(self.share * value.shape[1])
            kept = torch.ones(value.shape, dtype=torch.bool)
            kept.scatter_(1, worth.argsort(dim=1, stable=True)[:, :zeros], value=False)
            found |= {f"{name}_{part}": tensor for part, tensor in pack_bitmap(value, kept).items()}
        return Checkpoint({**source.config, STORAGE: {"quant_method": BITMAP}}, found, source.companions)
