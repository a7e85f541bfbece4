"""Each matrix as the product of two thin ones, as near as the text that it sees can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.transforms.calibrate import Tokens, damped, moments
from fleetcast.runtime.transforms.checkpoint import STORAGE, Checkpoint, packed_bytes
from fleetcast.runtime.transforms.forms import FACTORS, pack_factors

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class LowRank:
    """The layers' matrices cut to a rank and stored as two factors.

    With text, the output's mean squared error over it is least: the singular value decomposition of W L, where L L^T is
    the second moment of the inputs (Wang et al., SVD-LLM, 2025). Without, that of W. A matrix whose factors would be no
    smaller stays as it is. The factors are stored; what multiplies with them here multiplies them out first.

    Args:
        keep: share of a matrix's bytes that its factors take.
        choose: "inputs" as above, "weights" for the decomposition of W even with text, or "random": the best matrix
            that reads only a random subspace of its inputs, the rule to compare with.
        seed: of "random".
    """

    kind = "low_rank"

    def __init__(
        self,
        *,
        keep: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5,
        choose: Literal["inputs", "weights", "random"] = "inputs",
        seed: int = 0,
    ) -> None:
        self.keep, self.choose, self.seed = keep, choose, seed

    def rank(self, outputs: int, inputs: int) -> int:
        """Returns the rank that a matrix is cut to; 0 = it stays."""
        found = max(1, int(self.keep * outputs * inputs / (outputs + inputs)))
        return found if found * (outputs + inputs) < outputs * inputs else 0

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""

        def matrix(outputs: int, inputs: int, width: float) -> float:
            rank = self.rank(outputs, inputs)
            return width * (rank * (outputs + inputs) if rank else outputs * inputs)

        return packed_bytes(config, matrix)

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the model with its layers' matrices factored.

        Raises:
            SpecError: the model is packed already.
        """
        source.plain("factor")
        seen = {}
        if tokens is not None and self.choose != "weights":
            seen = moments(read_shape(source.config), source.weights(), tokens)
        draw = torch.Generator().manual_seed(self.seed)
        found = {}
        for name, value in source.tensors.items():
            rank = self.rank(*value.shape) if name.endswith("_proj.weight") else 0
            if not rank:
                found[name] = value
                continue
            left, right = self._factors(value.double(), rank, seen.get(name), draw)
            found |= {f"{name}_{part}": tensor for part, tensor in pack_factors(left, right, value.dtype).items()}
        return Checkpoint({**source.config, STORAGE: {"quant_method": FACTORS}}, found, source.companions)

    def _factors(self, weight: Tensor, rank: int, moment: Tensor | None, draw: Any) -> tuple[Tensor, Tensor]:
        inputs = weight.shape[1]
        second = torch.eye(inputs, dtype=torch.float64) if moment is None else damped(moment)
        if self.choose == "random":
            reads = torch.randn(rank, inputs, generator=draw, dtype=torch.float64)
            # least squares: W x from what is read of x
            return weight @ second @ reads.T @ torch.linalg.inv(reads @ second @ reads.T), reads
        root = torch.linalg.cholesky(second)
        u, s, v = torch.linalg.svd(weight @ root, full_matrices=False)
        half = s[:rank].sqrt()
        right = torch.linalg.solve_triangular(root, v[:rank], upper=False, left=False)
        return u[:, :rank] * half, half[:, None] * right
