"""Models as the serving world sees them: one block costed, not eighty.

A `Model` is a tuple of different blocks and the order in which its layers use them. Everything else
(parameters, bytes per rank, KV per token, matrix shapes) is summed from the tensors of those
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, pairwise

from fleetcast.base.errors import Infeasible
from fleetcast.base.spec import Spec
from fleetcast.scenario.workload.blocks import Attention, Block, Ffn, Recurrence, block_tensors
from fleetcast.scenario.workload.precision import Precision, as_engine
from fleetcast.scenario.workload.tensors import Tensor, linear, table

__all__ = [
    "Attention",
    "Block",
    "Ffn",
    "KvGroup",
    "Layout",
    "Model",
    "Precision",
    "Recurrence",
    "Tensor",
    "rank_bytes",
]


class Layout(Spec):
    """How one replica of a model is spread over devices.

    Each of ``pipeline_parallel`` stages is tensor_parallel x attention_dp ranks, of which
    ``expert_parallel`` hold different experts and the others share an expert's width.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    attention_dp: int = 1
    expert_parallel: int = 1

    @property
    def expert_tensor_parallel(self) -> float:
        """Ranks that share the width of one expert."""
        return self.tensor_parallel * self.attention_dp / self.expert_parallel


class KvGroup(Spec):
    """Decoder layers that cache alike.

    ``layers`` of them, ``bytes`` per token together, ``window`` tokens (0 = all).
    """

    window: int
    layers: int
    bytes: float


class Model(Spec, dict=True):
    """A model: blocks, the order of its layers, the tables around them, its storage.

    Attributes:
        id: catalogue id.
        architecture: Hugging Face name, e.g. ``LlamaForCausalLM``.
        hidden: elements of the residual stream.
        vocab: rows of the embedding.
        blocks: the different layers.
        pattern: index into ``blocks`` of each layer, first to last (encoder layers before decoder
            layers).
        tied: the LM head is the embedding.
        extras: all else: positions, final norms, front ends.
        context: most positions of a sequence.
        encoder_context: most positions of the encoder; 0 = no encoder, or no limit of its own.
        precision: the checkpoint's dtypes.
        mtp_params: parameters of multi-token-prediction layers, not in `params`, loaded only to
            speculate.
        vision_params: parameters of vision towers and projectors, not in `params`: held in memory,
            idle on text.
        source: where the facts come from.
    """

    architecture: str
    hidden: int
    vocab: int
    blocks: tuple[Block, ...]
    pattern: tuple[int, ...]
    precision: Precision
    id: str = ""
    name: str = ""
    tied: bool = False
    extras: tuple[Tensor, ...] = ()
    context: int = 0
    encoder_context: int = 0
    mtp_params: int = 0
    vision_params: int = 0
    source: str = ""

    @property
    def layers(self) -> int:
        """Number of layers, encoder and decoder together."""
        return len(self.pattern)

    @property
    def dtype(self) -> str:
        """The checkpoint's weight dtype.

        Of its experts for gpt-oss, of its linear layers for DeepSeek.
        """
        return self.precision.weights

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Layers of each block."""
        return tuple(self.pattern.count(i) for i in range(len(self.blocks)))

    @property
    def encoder_decoder(self) -> bool:
        """Whether there is an encoder to run first."""
        return any(block.stack == "encoder" for block in self.blocks)

    @cached_property
    def tensors(self) -> tuple[tuple[Tensor, ...], ...]:
        """Tensors of each block, in the order of ``blocks``."""
        return tuple(block_tensors(block, self.hidden) for block in self.blocks)

    @cached_property
    def tables(self) -> tuple[Tensor, ...]:
        """Embedding, LM head (where it is one of its own) and extras."""
        embedding = table("embedding", "embedding", self.vocab, self.hidden, split="in")
        head = linear("head", "head", self.hidden, self.vocab, split="out")
        return (embedding, *(() if self.tied else (head,)), *self.extras)

    @cached_property
    def parts(self) -> dict[str, int]:
        """Parameters by part (attention, experts, norm, ...); they add up to `params`."""
        found: dict[str, int] = {}
        for tensor, count in self._all():
            found[tensor.part] = found.get(tensor.part, 0) + tensor.elements * count
        return found

    def params(self) -> int:
        """Returns the number of parameters of the checkpoint.

        MTP layers and vision towers are counted apart.
        """
        return sum(self.parts.values())

    def active_params(self) -> int:
        """Returns the parameters that one token is multiplied with.

        `params` less idle experts and looked-up tables; the LM head counts even where it is the
        embedding.
        """
        active = 0
        for block, rows, count in zip(self.blocks, self.tensors, self.counts, strict=True):
            for tensor in rows:
                busy = tensor.elements
                if tensor.part == "experts":
                    busy = busy * block.ffn.top_k // block.ffn.experts
                active += busy * count
        looked_up = ("embedding", "position")
        active += sum(tensor.elements for tensor in self.tables if tensor.part not in looked_up)
        return active + (self.vocab * self.hidden if self.tied else 0)

    def embedding_params(self) -> int:
        """Returns the parameters of embedding, positions and LM head."""
        return sum(self.parts.get(part, 0) for part in ("embedding", "position", "head"))

    def _all(self) -> Iterator[tuple[Tensor, int]]:
        for rows, count in zip(self.tensors, self.counts, strict=True):
            for tensor in rows:
                yield tensor, count
        for tensor in self.tables:
            yield tensor, 1

    def kv_groups(self, bytes_per_element: float = 2.0, tensor_parallel: int = 1) -> tuple[KvGroup, ...]:
        """Returns the decoder layers that cache, grouped by window.

        Bytes are per cached token on one rank.
        """
        sums: dict[int, tuple[int, float]] = {}
        for block, count in zip(self.blocks, self.counts, strict=True):
            if block.attention is not None and block.stack == "decoder":
                layers, total = sums.get(block.attention.window, (0, 0.0))
                more = block.attention.kv_bytes(bytes_per_element, tensor_parallel) * count
                sums[block.attention.window] = layers + count, total + more
        return tuple(KvGroup(window=w, layers=n, bytes=b) for w, (n, b) in sorted(sums.items()))

    def kv_bytes_per_token(self, bytes_per_element: float = 2.0, tensor_parallel: int = 1) -> float:
        """Returns KV bytes that one more token takes on one rank, while no window is full."""
        return sum(group.bytes for group in self.kv_groups(bytes_per_element, tensor_parallel))

    def kv_bytes_of(self, tokens: int, bytes_per_element: float = 2.0, tensor_parallel: int = 1) -> float:
        """Returns KV and state bytes of a sequence on one rank.

        A window holds no more tokens than it is wide.
        """
        cached = sum(
            group.bytes * (min(tokens, group.window) if group.window else tokens)
            for group in self.kv_groups(bytes_per_element, tensor_parallel)
        )
        return cached + self.state_bytes(tensor_parallel)

    def full_share(self) -> float:
        """Returns the share of a token's KV bytes that lies in layers without a window.

        1.0 without any cache.
        """
        groups = self.kv_groups()
        total = sum(group.bytes for group in groups)
        return sum(group.bytes for group in groups if not group.window) / total if total else 1.0

    def state_bytes(self, tensor_parallel: int = 1) -> float:
        """Returns bytes of recurrent state per sequence on one rank."""
        return sum(
            block.recurrence.state_bytes(tensor_parallel) * count
            for block, count in zip(self.blocks, self.counts, strict=True)
            if block.recurrence is not None
        )

    def cross_kv_bytes(self, bytes_per_element: float = 2.0, tensor_parallel: int = 1) -> float:
        """Returns cross-attention KV bytes per encoder token on one rank, all layers."""
        return sum(
            block.cross.kv_bytes(bytes_per_element, tensor_parallel) * count
            for block, count in zip(self.blocks, self.counts, strict=True)
            if block.cross is not None
        )

    def weight_bytes(self, layout: Layout | None = None, dtype: str = "auto") -> float:
        """Returns bytes of weights on the fullest rank of the fullest stage.

        Args:
            layout: how a replica is spread; None = one device.
            dtype: as in a plan, see `precision.as_engine`.
        """
        return max(self.stage_bytes(layout or Layout(), as_engine(dtype, self.precision)))

    def stage_bytes(self, layout: Layout, precision: Precision) -> tuple[float, ...]:
        """Returns bytes of weights on the fullest rank of each pipeline stage.

        The first stage holds embedding and front ends, the last one final norm and LM head (a copy
        where tied).
        """
        per_block = [sum(rank_bytes(t, layout, precision) for t in rows) for rows in self.tensors]
        stages = [sum(per_block[i] for i in stage) for stage in self.stages(layout.pipeline_parallel)]
        late = ("head", "norm")
        for tensor in self.tables:
            stages[-1 if tensor.part in late else 0] += rank_bytes(tensor, layout, precision)
        if self.tied and len(stages) > 1:
            head = linear("head", "head", self.hidden, self.vocab, split="out")
            stages[-1] += rank_bytes(head, layout, precision)
        stages[0] += self.vision_params * precision.bytes_per_weight("vision") / layout.tensor_parallel
        return tuple(stages)

    def stages(self, pipeline_parallel: int) -> list[tuple[int, ...]]:
        """Returns the pattern cut into stages.

        What does not divide goes to the last stages but the very last, which has the LM head to do
        as well (vLLM's rule).
        """
        base, more = divmod(self.layers, pipeline_parallel)
        last = pipeline_parallel - 1
        sizes = [base + (last - more <= i < last) for i in range(pipeline_parallel)]
        cuts = accumulate(sizes, initial=0)
        return [self.pattern[start:stop] for start, stop in pairwise(cuts)]

    def misfit(self, layout: Layout, precision: Precision | None = None) -> Infeasible | None:
        """Returns why no engine can spread the model so, or None.

        Heads, experts and widths must divide.

        Args:
            layout: how a replica is spread.
            precision: weights as served; where blocks of them share a scale, ranks must hold whole blocks. None = not
                looked at.
        """
        tp, ep = layout.tensor_parallel, layout.expert_parallel
        if layout.pipeline_parallel > self.layers:
            return Infeasible("pipeline stages", need=layout.pipeline_parallel, have=self.layers, unit="layers")
        if any(block.ffn.experts for block in self.blocks):
            if layout.tensor_parallel * layout.attention_dp % ep:
                return Infeasible(
                    "expert parallelism",
                    need=ep,
                    have=tp * layout.attention_dp,
                    unit="ranks",
                    hint="expert_parallel must divide tensor_parallel x attention_dp",
                )
        elif ep > 1:
            return Infeasible("expert parallelism", need=ep, have=0, unit="experts", hint="The model is dense")
        for what, have, ways in _cuts(self, layout):
            if have % ways and not (what == "kv heads" and ways % have == 0):
                return Infeasible(
                    what,
                    need=ways,
                    have=have,
                    hint=f"{have} {what} cannot be dealt equally to {ways} ranks",
                )
        return _broken_block(self, layout, precision) if precision is not None and any(precision.block) else None


def rank_bytes(tensor: Tensor, layout: Layout, precision: Precision) -> float:
    """Returns the bytes of ``tensor`` that the fullest rank holds.

    Biases and norms are never quantised.
    """
    ways, spread = layout.tensor_parallel, 1
    if tensor.part == "experts":
        ways, spread = max(1, int(layout.expert_tensor_parallel)), layout.expert_parallel
    matrix, bias = tensor.on_rank(ways, spread)
    plain = precision.bytes_per_weight("norm")
    width = plain if tensor.inputs == 1 else precision.bytes_per_weight(tensor.part)
    return matrix * width + bias * plain


def _broken_block(model: Model, layout: Layout, precision: Precision) -> Infeasible | None:
    """Returns the first matrix that a layout cuts inside a block of weights with one scale, or None.

    vLLM and SGLang refuse to load it (``validate_fp8_block_shape``), TensorRT-LLM's kernels have no such shape.
    """
    for t in (t for rows in model.tensors for t in rows):
        expert = t.part == "experts"
        ways = int(layout.expert_tensor_parallel) if expert else layout.tensor_parallel
        # convolutions are no products, and the decay's few rows stay in 16 bits
        if ways == 1 or not t.split or t.inputs == 1 or t.name in ("conv", "decay") or t.part not in precision.parts:
            continue
        whole, block = (t.outputs, precision.block[0]) if t.split == "out" else (t.inputs, precision.block[1])
        pieces = t.pieces or whole
        held = -(-pieces // ways) * (whole // pieces)
        if held % block:
            return Infeasible(
                f"expert width in blocks of {block}" if expert else f"width of '{t.name}' in blocks of {block}",
                need=-(-held // block) * block, have=held,
                hint=f"The checkpoint has one scale per {block} weights, but {whole} over {ways} ranks leave {held}: "
                f"{'raise expert_parallel' if expert else 'lower tensor_parallel'}, or choose another dtype",
            )  # fmt: skip
    return None


def _cuts(model: Model, layout: Layout) -> Iterator[tuple[str, int, int]]:
    """Yields what must divide by what: (name, pieces, ways)."""
    tp = layout.tensor_parallel
    for block in model.blocks:
        for attention in (block.attention, block.cross):
            if attention is not None:
                yield "attention heads", attention.heads, tp
                if attention.kind == "gqa":
                    yield "kv heads", attention.kv_heads, tp
        if block.recurrence is not None:
            yield "linear-attention heads", block.recurrence.key_heads, tp
        if block.ffn.experts:
            yield "experts", block.ffn.experts, layout.expert_parallel
            yield "expert width", block.ffn.width, int(layout.expert_tensor_parallel)
        else:
            yield "feed-forward width", block.ffn.width, tp
