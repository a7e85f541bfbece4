"""The layers' matrices as integers, a scale for each group of inputs: rounding, with the range chosen by its error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.transforms.calibrate import Tokens
from fleetcast.runtime.transforms.checkpoint import STORAGE, Checkpoint, is_matrix, model_of, packed_bytes, rows
from fleetcast.runtime.transforms.forms import INTEGERS, pack_integers

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
SHARES = 20
"""Ranges tried for each group: from the largest weight down to half of it."""


class Quantise:
    """Symmetric integers of 8 or 4 bits with fp16 scales, stored as compressed-tensors' ``pack-quantized``.

    Each scale is the one of 20 that leaves the least squared error, from covering the largest weight to half of it
    (the clipping search of Lin et al., AWQ, 2024, without its rescaling of channels). Embedding and LM head stay.

    Args:
        bits: of a weight.
        group: inputs that share a scale; 0 = all of a row, -1 = the largest power of two up to 128 that divides
            every matrix's inputs.
        choose: "error" as above; "largest" covers the largest weight: plain rounding, the rule to compare with.
    """

    kind = "quantise"

    def __init__(
        self,
        *,
        bits: Literal[4, 8] = 4,
        group: Annotated[int, msgspec.Meta(ge=-1, le=1 << 16)] = -1,
        choose: Literal["error", "largest"] = "error",
    ) -> None:
        self.bits, self.group, self.choose = bits, group, choose

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""
        group = self._group(config)

        def matrix(outputs: int, inputs: int, width: float) -> float:
            return outputs * (inputs * self.bits / 8 + 2.0 * (inputs // group if group else 1)) + 16

        return packed_bytes(config, matrix)

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the model with its layers' matrices packed.

        Raises:
            SpecError: the group does not divide a matrix's inputs; the model is packed already.
        """
        group = self._group(source.plain("quantise").config)
        found: dict[str, Tensor] = {}
        for name, value in source.tensors.items():
            if not name.endswith("_proj.weight"):
                found[name] = value
                continue
            parts = pack_integers(value, self._scale(value.float(), group or value.shape[1]), self.bits)
            found |= {f"{name}_{part}": tensor for part, tensor in parts.items()}
        weights = {
            "num_bits": self.bits, "type": "int", "symmetric": True, "dynamic": False,
            "strategy": "group" if group else "channel", "group_size": group or None,
        }  # fmt: skip
        scheme = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        storage = {
            "quant_method": INTEGERS, "format": "pack-quantized", "quantization_status": "compressed",
            "ignore": ["lm_head"], "config_groups": {"group_0": scheme},
        }  # fmt: skip
        return Checkpoint({**source.config, STORAGE: storage}, found, source.companions)

    def _group(self, config: Mapping[str, Any]) -> int:
        inputs = {row.inputs for row, _ in rows(model_of(config)) if is_matrix(row)}
        group = self.group
        if group == -1:
            group = next((g for g in (128, 64, 32, 16, 8) if all(n % g == 0 for n in inputs)), 8)
        wrong = [n for n in sorted(inputs) if n % (group or 8) or n % 8]
        if wrong:
            limit = f"a divisor of the matrices' inputs, {', '.join(map(str, sorted(inputs)))}, which 8 must divide"
            raise SpecError("quantise.group", "cannot be", value=group, limit=limit)
        return group

    def _scale(self, weight: Tensor, group: int) -> Tensor:
        """Returns the scales (outputs, groups) of a matrix, fp16."""
        top = (1 << (self.bits - 1)) - 1
        pieces = weight.reshape(len(weight), -1, group)
        widest = (pieces.abs().amax(-1) / top).clamp(min=1e-7)
        best, least = widest.half(), torch.full_like(widest, torch.inf)
        for i in range(SHARES if self.choose == "error" else 1):
            scale = (widest * (1 - i / (2 * SHARES))).half().clamp(min=6e-8)
            steps = (pieces / scale.float()[..., None]).round().clamp(-top - 1, top)
            error = (steps * scale.float()[..., None] - pieces).square().sum(-1)
            best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
        return best
