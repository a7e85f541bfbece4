"""A rank's part of a pass, the same in rank 0 and in the processes beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.likeliest import Wanted, reduced, wanted
from fleetcast.runtime.llm.model import Transformer
from fleetcast.runtime.llm.ranks.shard import Shard, narrowed, stage, vocabulary
from fleetcast.runtime.llm.ranks.wire import Wire
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.llm.weights import dtype_of, fake_weights, format_of, kv_dtype_of, read_weights

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class Part:
    """A rank's weights and cache.

    Args:
        said: ``config`` (a path or the table), ``folder`` of the weights or None for random ones, ``seed``, ``dtype``,
            ``kv_dtype``, ``blocks``, ``pipeline`` (whether ranks are stages).
        wire: to the others; weights and cache lie on its device.
    """

    def __init__(self, said: Mapping[str, Any], wire: Wire) -> None:
        self.wire, self.pipeline = wire, bool(said["pipeline"])
        self.shape = shape = read_shape(said["config"])
        dtype, folder = said["dtype"], said["folder"]
        whole = (
            fake_weights(shape, dtype, said["seed"], wire.device)
            if folder is None
            else read_weights(folder, shape, dtype, wire.device)
        )
        form, held = format_of(dtype, shape), kv_dtype_of(said["kv_dtype"], dtype_of(dtype, shape))
        self.mine = vocabulary(shape, 0 if self.pipeline else wire.rank, 1 if self.pipeline else wire.ranks)
        self.width = len(vocabulary(shape, 0, 1 if self.pipeline else wire.ranks))
        if self.pipeline:
            layers = stage(shape, wire.rank, wire.ranks)
            self.model = Transformer(shape, whole, said["blocks"], form, held, layers=layers)
        else:
            shard = Shard(whole, shape, wire.rank, wire.ranks)
            small = narrowed(shape, wire.ranks)
            self.model = Transformer(small, shard, said["blocks"], form, held, together=wire.together)

    def run(self, pieces: Sequence[Piece]) -> tuple[Wanted, list[Tensor], list[Tensor]]:
        """Takes part in a pass; returns at rank 0 what is wanted, and on the CPU what every rank sent: numbers, ids."""
        want = wanted(pieces)
        with torch.inference_mode():
            numbers, ids = self._stage(pieces, want) if self.pipeline else self._share(pieces, want)
            return want, [x.cpu() for x in numbers], [x.cpu() for x in ids]

    def _share(self, pieces: Sequence[Piece], want: Wanted) -> tuple[list[Tensor], list[Tensor]]:
        m = self.model
        logits = m.logits(m.through(m.embedded(pieces), pieces), pieces)
        numbers, ids = reduced(logits, want, self.mine.start, self.width)
        return self.wire.gather(numbers), self.wire.gather(ids)

    def _stage(self, pieces: Sequence[Piece], want: Wanted) -> tuple[list[Tensor], list[Tensor]]:
        m, wire = self.model, self.wire
        if wire.rank == 0:
            wire.send(m.through(m.embedded(pieces), pieces), 1)
            numbers, ids = reduced(torch.empty(len(want.keep), self.width, device=m.device), want, 0, self.width)
            last = wire.ranks - 1
            return (
                [wire.receive(numbers, last)] if numbers.numel() else [numbers],
                [wire.receive(ids, last)] if ids.numel() else [ids],
            )
        tokens = sum(len(p.tokens) for p in pieces)
        x = wire.receive(torch.empty(tokens, self.shape.hidden, dtype=m.dtype, device=m.device), wire.rank - 1)
        x = m.through(x, pieces)
        if wire.rank < wire.ranks - 1:
            wire.send(x, wire.rank + 1)
            return [], []
        for sent in reduced(m.logits(x, pieces), want, 0, self.width):
            if sent.numel():
                wire.send(sent, 0)
        return [], []
