"""What the cost of training needs to know of a model: its products, parameters and activations, layer by layer.

Everything is read off the same tensors that count and serve a model (`scenario.workload.tensors`), so a model's
parameters are the same number wherever they are printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fleetcast.scenario.workload.blocks import Block
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.tensors import Tensor

_LOOKED_UP = ("embedding", "position")


@dataclass(frozen=True)
class Job:
    """What one iteration trains on.

    Attributes:
        sequence: tokens of a sequence.
        batch: sequences of an iteration, all devices together.
        dtype: of the matrices that are multiplied.
        optimizer: B of the optimizer's states for each parameter: 12 for Adam with master weights and two moments.
        gradient: B of an accumulated gradient.
        message: B of a gradient where copies add theirs up; 0 = 2 in fp16, as Megatron does, else 4.
        element: B of an activation that is kept; 0 = as wide as it is computed.
    """

    sequence: int
    batch: int
    dtype: str = "bf16"
    optimizer: float = 12.0
    gradient: float = 4.0
    message: float = 0.0
    element: float = 0.0

    @property
    def sent(self) -> float:
        """B of a gradient where copies add theirs up."""
        return self.message or (2.0 if self.dtype == "fp16" else 4.0)

    @property
    def wide(self) -> float:
        """B of a weight that is multiplied and of an activation: 8-bit products read and write 16 bits."""
        return 4.0 if self.dtype == "fp32" else 2.0

    @property
    def kept(self) -> float:
        """B of an activation that is kept."""
        return self.element or self.wide

    @property
    def plain(self) -> str:
        """Format of attention's and the head's products, which engines leave in 16 bits beside 8-bit layers."""
        return "bf16" if self.dtype == "fp8" else self.dtype


@dataclass(frozen=True)
class Matrix:
    """A product of a token's ``inputs`` elements to ``outputs`` elements.

    ``split``: the axis that tensor parallelism cuts, "" = none. Matrices that read one input are one product.
    """

    outputs: float
    inputs: float
    split: str


@dataclass(frozen=True)
class Layer:
    """One kind of layer, ``count`` of them.

    Attributes:
        matrices: dense products, those of one input fused.
        heads, kv_heads, head_dim, value_dim: of its attention; 0 heads = none.
        window: tokens that a query sees; 0 = all before it.
        ffn: inner elements of the dense or shared feed-forward part.
        gated: with three projections, not two.
        experts, top_k, expert_ffn: routed experts, how many a token visits, inner elements of one.
        split_params: parameters that tensor parallelism cuts, experts aside.
        whole_params: parameters that every tensor-parallel rank holds.
        expert_params: parameters of all experts together.
        dropout: whether masks of dropout are kept, as GPT's layers do.
        parallel: attention and feed-forward part read one input and are added up together (GPT-J).
    """

    count: float
    matrices: tuple[Matrix, ...]
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int
    ffn: int
    gated: bool
    experts: int
    top_k: int
    expert_ffn: int
    split_params: int
    whole_params: int
    expert_params: int
    dropout: bool
    parallel: bool = False

    @property
    def params(self) -> int:
        """Parameters of one such layer."""
        return self.split_params + self.whole_params + self.expert_params

    @property
    def expert_matrices(self) -> int:
        """Projections of one expert."""
        return 3 if self.gated else 2


@dataclass(frozen=True)
class Network:
    """A model as the cost of training sees it.

    Attributes:
        hidden: elements of the residual stream.
        vocab: rows of the embedding.
        layers: kinds of layers and how many of each.
        tied: the head is the embedding; with several stages the last one holds a copy.
        table_params: parameters of the embedding alone.
        first_params: other parameters of the first stage: positions, front ends.
        last_params: other parameters of the last stage: the final norm.
        name: for messages.
    """

    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool
    table_params: int
    first_params: int
    last_params: int
    name: str = ""

    @property
    def depth(self) -> int:
        """Number of layers."""
        return round(sum(layer.count for layer in self.layers))

    @cached_property
    def params(self) -> int:
        """All parameters; a tied head counts once."""
        tables = self.table_params * (1 if self.tied else 2) + self.first_params + self.last_params
        return round(sum(layer.count * layer.params for layer in self.layers)) + tables

    @cached_property
    def active_params(self) -> float:
        """Parameters that a token is multiplied with: idle experts and looked-up tables left out, the head counted."""
        total = float(self.table_params + self.last_params)
        for layer in self.layers:
            busy = layer.expert_params * layer.top_k / layer.experts if layer.experts else 0.0
            total += layer.count * (layer.split_params + layer.whole_params + busy)
        return total

    @property
    def experts(self) -> int:
        """Routed experts of its widest layer; 0 = dense."""
        return max(layer.experts for layer in self.layers)

    def flops(self, sequence: int, *, causal: bool = False) -> float:
        """Returns the FLOP that training on one token takes, forward and backward, nothing recomputed.

        As Narayanan and others count (SC 2021): 6 per weight that is multiplied, and 12 per pair of tokens and element
        of a layer's heads, all pairs counted unless ``causal``. Norms and biases are left out.
        """
        total = 6.0 * self.hidden * self.vocab
        for layer in self.layers:
            dense = sum(m.outputs * m.inputs for m in layer.matrices)
            experts = layer.expert_matrices * self.hidden * layer.expert_ffn * layer.top_k if layer.experts else 0.0
            seen = min(sequence, layer.window) if layer.window else sequence
            scores = layer.heads * (layer.head_dim + layer.value_dim) * seen * (0.5 if causal else 1.0)
            total += layer.count * 6.0 * (dense + experts + scores)
        return total


def of(model: Model) -> Network:
    """Returns what training needs to know of ``model``."""
    layers = tuple(
        _layer(block, rows, count) for block, rows, count in zip(model.blocks, model.tensors, model.counts, strict=True)
    )
    parts = {t.part: 0 for t in model.extras}
    for t in model.extras:
        parts[t.part] += t.elements
    late = parts.pop("norm", 0)
    return Network(
        hidden=model.hidden, vocab=model.vocab, layers=layers, tied=model.tied,
        table_params=model.vocab * model.hidden, first_params=sum(parts.values()) + model.vision_params,
        last_params=late, name=model.id,
    )  # fmt: skip


def _layer(block: Block, rows: tuple[Tensor, ...], count: int) -> Layer:
    fused: dict[tuple[str, int], tuple[int, int, str]] = {}
    split = whole = expert = 0
    for t in rows:
        if t.part == "experts":
            expert += t.elements
            continue
        if t.split:
            split += t.matrix + (t.biases if t.split == "out" else 0)
            whole += t.biases if t.split == "in" else 0
        else:
            whole += t.elements
        if t.inputs == 1 or t.name == "conv":
            continue
        stem = t.name.rpartition(".")[0] or t.part
        key = (f"{stem}.{t.split}", t.inputs) if t.split != "in" else (t.name, t.inputs)
        known = fused.get(key, (0, t.inputs, t.split))
        fused[key] = (known[0] + t.outputs, t.inputs, t.split)
    a, ffn = block.attention, block.ffn
    return Layer(
        count=count, matrices=tuple(Matrix(float(n), float(k), s) for n, k, s in fused.values()),
        heads=a.heads if a else 0, kv_heads=a.kv_heads if a and a.kind == "gqa" else (a.heads if a else 0),
        head_dim=a.head_dim if a else 0, value_dim=a.value_dim if a else 0, window=a.window if a else 0,
        ffn=ffn.shared_width if ffn.experts else ffn.width, gated=ffn.gated, experts=ffn.experts,
        top_k=ffn.top_k if ffn.experts else 0, expert_ffn=ffn.width if ffn.experts else 0,
        split_params=split, whole_params=whole, expert_params=expert, dropout=not ffn.gated,
    )  # fmt: skip
