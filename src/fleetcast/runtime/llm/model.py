"""The forward pass of a decoder over a paged KV cache, on torch: one for all families.

Pieces of any number of sequences go through every matrix together; only attention knows them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import cuda, likeliest, native
from fleetcast.runtime.llm.attention import (
    Group,
    Paged,
    attend,
    attend_paged,
    groups_of,
    paged,
    place,
    written_slots,
)
from fleetcast.runtime.llm.cache import Cache
from fleetcast.runtime.llm.cuda import graphs
from fleetcast.runtime.llm.ffn import Ffn, Gated, Mixture, Ungated
from fleetcast.runtime.llm.linear import Format, Linear, joined
from fleetcast.runtime.llm.norm import Norm, Rms, read_norm
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.requests import Logits, Piece
from fleetcast.runtime.llm.rope import Rope
from fleetcast.runtime.llm.shape import Shape

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class Weights(Protocol):
    """Where a model's tensors come from."""

    dtype: Any
    device: Any

    def tensor(self, part: str) -> Tensor:
        """Returns a tensor of ``Shape.parts``, in this dtype and on this device; nothing else holds it."""
        ...


@dataclass(frozen=True)
class Layer:
    """One layer. A norm that the family does not have is None; without an ``ffn_norm``, both parts read one norm."""

    attention_norm: Norm
    qkv: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    out: Linear
    after_attention_norm: Norm | None
    ffn_norm: Norm | None
    ffn: Ffn
    after_ffn_norm: Norm | None
    window: int
    rope: Rope


@dataclass(frozen=True)
class Pass:
    """What all layers share of one pass: slots to write, who attends together, cosines and sines by rotation.

    Either ``groups`` says who, for torch, or ``paged``, for our own kernels, or ``rows``, for those on CUDA, with
    groups for long pieces beside them. ``own``: such kernels turn queries and keys and store them.
    """

    written: Tensor
    groups: Sequence[Group]
    paged: Paged | None
    rows: cuda.Rows | None
    own: bool
    turns: dict[Rope, tuple[Tensor, Tensor]]


def _same(x: Tensor) -> Tensor:
    return x


class Transformer:
    """A model and its KV cache.

    Args:
        shape: of the model.
        weights: gives each tensor once, layer by layer, so that none is held twice for longer than a layer takes.
        blocks: of the cache, `BLOCK` tokens each.
        form: that matrices are held in; None = as the weights come. Embeddings, norms and routers are as they come.
        kv_dtype: of torch, that keys and values are held in; None = that of the weights.
        layers: that are here; None = all. The first layer comes with the embedding, the last with the head.
        together: sums over those who hold the other heads and columns of every layer.
    """

    def __init__(
        self, shape: Shape, weights: Weights, blocks: int, form: Format | None = None, kv_dtype: Any = None, *,
        layers: range | None = None, together: Callable[[Tensor], Tensor] = _same,
    ) -> None:  # fmt: skip
        self.shape, self.vocab, self.context = shape, shape.vocab, shape.context
        self.dtype, self.device = weights.dtype, torch.device(weights.device)
        here = layers if layers is not None else range(shape.layers)
        self.first, self.last, self.together = here.start == 0, here.stop == shape.layers, together
        self.embedding = weights.tensor("embedding.weight") if self.first or (self.last and shape.tied) else None
        self.positions = weights.tensor("positions.weight") if self.first and shape.positions else None
        self.layers = [_layer(shape, weights, i, form) for i in here]
        self.norm: Norm | None = None
        self.head: Linear | None = None
        if self.last:
            self.norm = read_norm(shape.norm, shape.epsilon, weights.tensor, "norm")
            head = self.embedding if shape.tied else weights.tensor("head.weight")
            # what chooses the token is not coarser than int8; an embedding that is the head as well is not held twice
            coarse: Format | None = "int8" if form == "int4" else None if form == "bf16" and shape.tied else form
            self.head = joined([head], [weights.tensor("head.bias") if shape.head_bias else None], coarse)
        # rounded as embeddings are, as it was when the models were trained
        self.embedding_scale = torch.tensor(shape.embedding_scale).to(self.dtype).item()
        self.frequencies = {
            rope: torch.tensor(rope.frequencies, dtype=torch.float32, device=self.device)
            for rope in dict.fromkeys(shape.ropes)
            if rope.frequencies
        }
        # our own kernels know RMS norms of queries and keys only
        each = [norm for layer in self.layers for norm in (layer.q_norm, layer.k_norm)]
        self.rms_heads = all(norm is None or isinstance(norm, Rms) for norm in each)
        held = kv_dtype if kv_dtype is not None else self.dtype
        captured = self._capturable()
        # a captured step is padded with sequences that need a block of their own to read and write
        self.slots = blocks * BLOCK
        self.cache = Cache(len(here), self.slots + captured * BLOCK, shape.kv_heads, shape.head_dim, held, self.device)
        self.graphs: graphs.Graphs | None = None
        if captured:
            static = graphs.Static(blocks, min(blocks, blocks_of(shape.context)), self.device)
            self.graphs = graphs.Graphs(self._step, static)

    @property
    def bytes(self) -> tuple[int, int]:
        """Memory of the matrices of all layers and the head, and of the KV cache."""
        each = [m for layer in self.layers for m in (layer.qkv, layer.out, *layer.ffn.matrices)]
        held = self.cache.bytes * self.slots // self.cache.keys.shape[1]  # without the block that pads captured steps
        return sum(m.bytes for m in each) + (self.head.bytes if self.head is not None else 0), held

    def forward(self, pieces: Sequence[Piece]) -> Logits:
        """Returns the logits (tokens that emit, vocabulary) and caches every token's keys and values.

        From a device with memory of its own come the likeliest tokens only, where they are enough.
        """
        want = likeliest.wanted(pieces)
        with torch.inference_mode():
            found = self._forward(pieces)
            if not want.keep and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # nothing is read back, and a pass takes until it is done
            if self.device.type == "cpu" or not want.cut:
                return np.asarray(found.float().cpu().numpy(), dtype=np.float32)
            numbers, ids = (part.cpu() for part in likeliest.reduced(found, want, 0, self.vocab))
        return likeliest.merged([numbers], [ids], want, self.vocab, self.vocab)

    def _forward(self, pieces: Sequence[Piece]) -> Tensor:
        if self.graphs is not None and (size := graphs.fitting(pieces)):
            return self.graphs.replay(pieces, size)
        return self.logits(self.through(self.embedded(pieces), pieces), pieces)

    def _step(self, tokens: Tensor, positions: Tensor, slots: Tensor, rows: cuda.Rows) -> Tensor:
        """Returns the logits of a decode step, from tensors alone."""
        turns = {rope: self._turns(rope, positions, own=True) for rope in self.frequencies}
        return self._scored(self._through(self._embedded(tokens, positions), Pass(slots, [], None, rows, True, turns)))

    def _capturable(self) -> bool:
        """Whether decode steps run as captured graphs.

        It takes our kernels on CUDA, all layers here, and no experts, whose tokens are counted on the host.
        """
        sparse = self.shape.experts is not None and any(self.shape.sparse)
        alone = self.first and self.last and self.together is _same
        return self.device.type == "cuda" and cuda.kernels is not None and self.rms_heads and alone and not sparse

    def embedded(self, pieces: Sequence[Piece]) -> Tensor:
        """Returns (tokens, hidden): what goes into the first layer."""
        tokens = torch.tensor([token for p in pieces for token in p.tokens], device=self.device)
        return self._embedded(tokens, _positions(pieces).to(self.device))

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        assert self.embedding is not None  # the first layer comes with it
        x = self.embedding[tokens]
        if self.embedding_scale != 1.0:
            x = x * self.embedding_scale
        return x if self.positions is None else x + self.positions[positions]

    def through(self, x: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """Returns what comes out of the layers that are here, (tokens, hidden), for ``x`` that goes in."""
        positions, windows = _positions(pieces).to(self.device), set(self.shape.windows)
        written = written_slots(pieces).to(self.device)
        on_host, on_device = native.ready(x) and self.rms_heads, cuda.ready(x) and self.rms_heads
        turns = {rope: self._turns(rope, positions, on_host or on_device) for rope in self.frequencies}
        if on_host:
            shared = Pass(written, [], paged(pieces), None, True, turns)
        elif on_device:
            rows, others = cuda.rows_of(pieces, self.device)
            fused = x.dtype == torch.bfloat16 and not self.shape.attention_cap
            groups = groups_of(pieces, windows, self.device, others, fused=fused)
            shared = Pass(written, groups, None, rows, True, turns)
        else:
            shared = Pass(written, groups_of(pieces, windows, self.device), None, None, False, turns)
        return self._through(x, shared)

    def _through(self, x: Tensor, shared: Pass) -> Tensor:
        for i, layer in enumerate(self.layers):
            h = layer.attention_norm(x)
            if layer.ffn_norm is None:
                x = x + self.together(self._attend(i, layer, h, shared) + layer.ffn(h))
                continue
            x = x + _maybe(layer.after_attention_norm, self.together(self._attend(i, layer, h, shared)))
            x = x + _maybe(layer.after_ffn_norm, self.together(layer.ffn(layer.ffn_norm(x))))
        return x

    def logits(self, x: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """Returns (tokens that emit, vocabulary) for ``x``, what comes out of the last layer."""
        ends = np.cumsum([len(p.tokens) for p in pieces]).tolist()
        last = [i for end, p in zip(ends, pieces, strict=True) for i in range(end - p.emit, end)]
        return self._scored(x[torch.tensor(last, dtype=torch.long, device=self.device)])

    def _scored(self, x: Tensor) -> Tensor:
        assert self.norm is not None and self.head is not None  # the last layer comes with them
        logits = self.head(self.norm(x))
        cap = self.shape.logit_cap
        return torch.tanh(logits / cap) * cap if cap else logits

    def _attend(self, i: int, layer: Layer, h: Tensor, shared: Pass) -> Tensor:
        s = self.shape
        both, norms = layer.qkv(h), (layer.q_norm, layer.k_norm)
        if shared.own:
            rms = [n for n in norms if isinstance(n, Rms)]
            weights = (rms[0].weight, rms[1].weight, rms[0].epsilon) if rms else None
            turns = shared.turns.get(layer.rope)
            if shared.paged is not None:
                q = place(both, self.cache, i, shared.written, turns, weights)
                mixed = attend_paged(q, self.cache, i, shared.paged, layer.window, scale=s.scale, cap=s.attention_cap)
                return layer.out(mixed.flatten(1))
            q = cuda.place(both, self.cache, i, shared.written, turns, weights)
            mixed = attend(
                q, self.cache, i, shared.groups, layer.window, scale=s.scale, cap=s.attention_cap, rows=shared.rows
            )
            return layer.out(mixed.flatten(1))
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        q, k, v = (part.unflatten(1, (-1, s.head_dim)) for part in both.split([queries, keys, keys], dim=1))
        q, k = _maybe(layer.q_norm, q), _maybe(layer.k_norm, k)
        if layer.rope in shared.turns:
            q, k = (_rotate(part, *shared.turns[layer.rope]) for part in (q, k))
        self.cache.write(i, shared.written, k, v)
        mixed = attend(q, self.cache, i, shared.groups, layer.window, scale=s.scale, cap=s.attention_cap)
        return layer.out(mixed.flatten(1))

    def _turns(self, rope: Rope, positions: Tensor, own: bool) -> tuple[Tensor, Tensor]:
        """Returns the cosines and sines of every token: (tokens, 1, elements that turn), for our own kernels half."""
        angles = positions[:, None] * self.frequencies[rope]
        if own:
            return torch.cos(angles) * rope.gain, torch.sin(angles) * rope.gain
        angles = torch.cat([angles, angles], dim=1)[:, None]
        return (torch.cos(angles) * rope.gain).to(self.dtype), (torch.sin(angles) * rope.gain).to(self.dtype)


def _layer(shape: Shape, weights: Weights, number: int, form: Format | None) -> Layer:
    held = {name for name, _ in shape.layer(number)}

    def tensor(name: str) -> Tensor:
        return weights.tensor(f"layers.{number}.{name}")

    def linear(*names: str, form: Format | None = form) -> Linear:
        return joined(
            [tensor(f"{name}.weight") for name in names],
            [tensor(f"{name}.bias") if f"{name}.bias" in held else None for name in names],
            form,
        )

    def norm(name: str) -> Norm | None:
        return read_norm(shape.norm, shape.epsilon, tensor, name) if f"{name}.weight" in held else None

    def dense(prefix: str) -> Ffn:
        if shape.gated:
            return Gated(linear(f"{prefix}gate", f"{prefix}up"), linear(f"{prefix}down"), shape.activation)
        return Ungated(linear(f"{prefix}up"), linear(f"{prefix}down"), shape.activation)

    def ffn() -> Ffn:
        if shape.experts is None or not shape.sparse[number]:
            return dense("")
        experts = [dense(f"experts.{i}.") for i in range(shape.experts.count)]
        router = linear("router", form=None)
        if not shape.experts.shared:
            return Mixture(router, experts, shape.experts, None, None)
        return Mixture(router, experts, shape.experts, dense("shared."), linear("shared_gate", form=None))

    return Layer(
        attention_norm=read_norm(shape.norm, shape.epsilon, tensor, "attention_norm"),
        qkv=linear("q", "k", "v"),
        q_norm=norm("q_norm"),
        k_norm=norm("k_norm"),
        out=linear("o"),
        after_attention_norm=norm("after_attention_norm"),
        ffn_norm=norm("ffn_norm"),
        ffn=ffn(),
        after_ffn_norm=norm("after_ffn_norm"),
        window=shape.windows[number],
        rope=shape.ropes[number],
    )


def _positions(pieces: Sequence[Piece]) -> Tensor:
    """Returns (tokens,) their positions."""
    return torch.from_numpy(np.concatenate([np.arange(p.start, p.start + len(p.tokens)) for p in pieces]))


def _maybe(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns heads turned by their position's angles; element i pairs with i + half of those that turn."""
    turned = cos.shape[-1]
    part = x[..., :turned]
    half = turned // 2
    part = part * cos + torch.cat([-part[..., half:], part[..., :half]], dim=-1) * sin
    return part if turned == x.shape[-1] else torch.cat([part, x[..., turned:]], dim=-1)
