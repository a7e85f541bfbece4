"""Weight tensors of a block, from its shape: the one list that counts, sizes and costs a model.

Parameter counts, bytes per rank and the matrix shapes that `cost` times are all sums over these
rows, so they cannot disagree. Shapes follow the published checkpoints (names shortened); see
`architectures` for who states what.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

from fleetcast.base.spec import Spec


class Tensor(Spec):
    """One weight matrix (or vector: ``inputs = 1``) of a layer.

    Attributes:
        name: short name within the layer, e.g. ``q``, ``down``, ``cross.k``.
        part: ``attention``, ``recurrence``, ``index``, ``ffn``, ``router``, ``shared``,
            ``experts``, ``norm``, ``embedding``, ``position``, ``head``.
        inputs: elements of the input vector.
        outputs: elements of the output vector.
        copies: how many of it there are (experts).
        bias: whether ``outputs`` more elements are added.
        split: the axis that tensor parallelism cuts; "" = every rank holds all of it.
        pieces: indivisible units along that axis, such as heads; 0 = each element is one.
    """

    name: str
    part: str
    inputs: int = 1
    outputs: int = 1
    copies: int = 1
    bias: bool = False
    split: Literal["", "out", "in"] = ""
    pieces: int = 0

    @property
    def matrix(self) -> int:
        """Elements of the matrices, biases left out."""
        return self.copies * self.inputs * self.outputs

    @property
    def biases(self) -> int:
        """Elements of the biases."""
        return self.copies * self.outputs if self.bias else 0

    @property
    def elements(self) -> int:
        """All elements."""
        return self.matrix + self.biases

    def on_rank(self, ways: int, spread: int = 1) -> tuple[float, float]:
        """Returns (matrix, bias) elements that the fullest rank holds.

        Args:
            ways: ranks that share one copy. Fewer pieces than ranks: pieces are replicated.
            spread: groups of ranks over which the copies are dealt (expert parallelism).
        """
        axis = {"out": self.outputs, "in": self.inputs, "": 1}[self.split]
        pieces = self.pieces or axis
        share = ceil(pieces / ways) / pieces if self.split else 1.0
        dealt = ceil(self.copies / spread) / self.copies
        return self.matrix * share * dealt, self.biases * (share if self.split == "out" else 1.0) * dealt


def linear(
    name: str,
    part: str,
    inputs: int,
    outputs: int,
    *,
    split: Literal["", "out", "in"] = "",
    pieces: int = 0,
    bias: bool = False,
    copies: int = 1,
) -> Tensor:
    """Returns a weight matrix."""
    return Tensor(
        name=name,
        part=part,
        inputs=inputs,
        outputs=outputs,
        split=split,
        pieces=pieces,
        bias=bias,
        copies=copies,
    )


def vector(name: str, part: str, size: int, *, split: Literal["", "out"] = "", pieces: int = 0) -> Tensor:
    """Returns a vector of weights."""
    return Tensor(name=name, part=part, outputs=size, split=split, pieces=pieces)


def table(name: str, part: str, rows: int, columns: int, *, split: Literal["", "in"] = "") -> Tensor:
    """Returns a table of which a token reads one row (embeddings, positions)."""
    return Tensor(name=name, part=part, inputs=rows, outputs=columns, split=split)
