"""Which part of a model a rank holds.

Tensor parallel: Shoeybi et al., "Megatron-LM", 2019. Queries, keys, values, gates and ups are cut by their outputs
(whole heads, whole columns), what follows them by its inputs, so each rank adds a part of every output and two sums
a layer bring them together, one where attention and feed-forward stand side by side. Embeddings, norms and routers are
whole everywhere; the head is cut by its vocabulary. Pipelined: layers are cut into as many runs as there are ranks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.families.decoder import Shape
from fleetcast.runtime.llm.model import Weights

Tensor = Any
OUTPUTS: Final = ("q", "k", "v", "gate", "up")
INPUTS: Final = ("o", "down")


def check(shape: Shape, tensor: int, pipeline: int) -> None:
    """Raises where a model cannot be cut so.

    Raises:
        SpecError: heads, columns or layers do not come out even; names which, and how many ranks there can be.
    """
    if tensor > 1 and pipeline > 1:
        raise SpecError(
            "pipeline_parallel", "cannot be beside tensor_parallel", value=pipeline, limit="1, or tensor_parallel = 1",
            hint="The engine cuts a model one way or the other",
        )  # fmt: skip
    if not 1 <= pipeline <= shape.layers:
        raise SpecError("pipeline_parallel", "cannot be", value=pipeline, limit=f"1 to {shape.layers}, the layers")
    counts = {"query heads": shape.heads, "key heads": shape.kv_heads, "vocabulary": shape.vocab}
    if shape.experts is None or not all(shape.sparse):
        counts["feed-forward columns"] = shape.width
    if shape.experts is not None:
        counts["columns of an expert"] = shape.experts.width
        if shape.experts.shared:
            counts["columns of the shared expert"] = shape.experts.shared
    for what, count in counts.items():
        if tensor < 1 or (what == "vocabulary" and tensor > count) or (what != "vocabulary" and count % tensor):
            fits = [n for n in range(1, 65) if all(c % n == 0 for w, c in counts.items() if w != "vocabulary")]
            limit = f"one of {', '.join(map(str, fits))}: {count} {what} are shared out evenly"
            raise SpecError("tensor_parallel", "cannot be", value=tensor, limit=limit)


def narrowed(shape: Shape, ranks: int) -> Shape:
    """Returns what one of ``ranks`` computes; its head is its own even where the whole one is the embedding."""
    return replace(shape, heads=shape.heads // ranks, kv_heads=shape.kv_heads // ranks, tied=False)


def vocabulary(shape: Shape, rank: int, ranks: int) -> range:
    """Returns the tokens whose logits a rank computes; the last ranks may have fewer."""
    each = -(-shape.vocab // ranks)
    return range(min(rank * each, shape.vocab), min((rank + 1) * each, shape.vocab))


def stage(shape: Shape, rank: int, ranks: int) -> range:
    """Returns the layers of a rank; the first ranks have one more where they do not come out even."""
    each, more = divmod(shape.layers, ranks)
    begin = rank * each + min(rank, more)
    return range(begin, begin + each + (rank < more))


class Shard:
    """A rank's part of every tensor, cut as it is read, so that no more than one is whole at a time.

    Args:
        whole: the tensors.
        shape: of the whole model.
        rank: whose part.
        ranks: how many there are.
    """

    def __init__(self, whole: Weights, shape: Shape, rank: int, ranks: int) -> None:
        self.whole, self.shape, self.rank, self.ranks = whole, shape, rank, ranks
        self.dtype, self.device = whole.dtype, whole.device

    def tensor(self, part: str) -> Tensor:
        """Returns a tensor of the narrowed shape."""
        stem, _, kind = part.rpartition(".")
        name = stem.rpartition(".")[2]
        if name == "head":
            mine = vocabulary(self.shape, self.rank, self.ranks)
            found = self.whole.tensor("embedding.weight" if self.shape.tied and kind == "weight" else part)
            return found[mine.start : mine.stop].clone()
        found = self.whole.tensor(part)
        if name in OUTPUTS:
            return found[self._mine(found.shape[0])].clone()
        if name in INPUTS and kind == "weight":
            return found[:, self._mine(found.shape[1])].contiguous()
        if name in INPUTS and self.rank:
            return found.zero_()  # a bias is added once
        return found

    def _mine(self, count: int) -> slice:
        each = count // self.ranks
        return slice(self.rank * each, (self.rank + 1) * each)
