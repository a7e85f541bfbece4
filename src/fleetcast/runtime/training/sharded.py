"""States shared out by level, carried out: the arrays of every rank in one process, each message narrowed and counted.

`cost.training.sharding` says what such a plan takes; here it trains. A rank holds its share of the weights (bf16), of
the gradients that it adds up (fp32) and of Adam's states (fp32), and learns of the rest by messages alone. Collectives
go in two levels, as the cost has them: gathers between nodes first, then within one; sums the other way round.

A narrow message is quantised block by block, an fp32 scale to each: an integer is off by half a step of its block at
most. All ranks use what was sent, the sender's own share included, so that copies stay equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training.sharding import BITS, BLOCK, Sharding, near_ranks

Vector = NDArray[np.float32]
_LEVELS = {"int4": 7, "int8": 127}
"""Largest integer of a symmetric format."""


def quantised(values: Vector, kind: str, block: int = BLOCK) -> Vector:
    """Returns what a receiver reads of values that were sent in a format; f4[n] of any n.

    Args:
        values: finite.
        kind: "fp32", "bf16", "fp16", "int8" or "int4".
        block: elements that share a scale.

    Raises:
        ValueError: another format.
    """
    plain = np.ascontiguousarray(values, dtype=np.float32)
    if kind == "fp32":
        return plain
    if kind == "fp16":
        return plain.astype(np.float16).astype(np.float32)
    if kind == "bf16":
        bits = plain.view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)
    if kind not in _LEVELS:
        raise ValueError(f"{kind} is not carried out: one of fp32, bf16, fp16, {', '.join(_LEVELS)}")
    rows = np.pad(plain, (0, -len(plain) % block)).reshape(-1, block)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(_LEVELS[kind])
    steps = np.rint(rows / np.where(scale > 0, scale, np.float32(1)))
    return np.asarray((steps * scale).reshape(-1)[: len(plain)], dtype=np.float32)


class Sharded:
    """Ranks that train one vector of parameters with Adam, their states shared out by level.

    Attributes:
        far: B that each rank has sent to other nodes; f8[ranks].
        near: B that each has sent within its node.
    """

    def __init__(
        self, params: Vector, shards: Sharding, ranks: int, node: int, *, rate: float = 1e-3, block: int = BLOCK
    ) -> None:
        """Shares out the states of ``params``.

        Args:
            params: f4[n]; n is a multiple of ``ranks`` times ``ranks``, so that every message has whole elements.
            shards: how many of the nearest ranks share what.
            ranks: all of them; each trains on a part of the batch.
            node: ranks of one node.
            rate: Adam's.
            block: elements that share a scale in a message.

        Raises:
            ValueError: shares that do not divide, or a vector that does not.
        """
        w, g, o = shards.weights, shards.gradients, shards.optimizer
        if g % w or o % g or ranks % o or (shards.second and ranks % shards.second) or len(params) % ranks**2:
            raise ValueError("each share divides the next, all divide the ranks, and their square the parameters")
        self.shards, self.ranks, self.node, self.rate, self.block = shards, ranks, node, rate, block
        self.size, self.steps = len(params), 0
        self.far, self.near = np.zeros(ranks), np.zeros(ranks)
        self.order = np.concatenate([self._gradient_part(j) for j in range(g)])
        self.weights = [quantised(params, "bf16", block)[self._weight_part(r)] for r in range(ranks)]
        self.master = [params[self._optimizer_part(r)].astype(np.float32) for r in range(ranks)]
        self.first = [np.zeros_like(part) for part in self.master]
        self.square = [np.zeros_like(part) for part in self.master]
        self.added = [np.zeros(self.size // g, dtype=np.float32) for _ in range(ranks)]
        self.second: list[Vector] = []

    def _weight_part(self, rank: int) -> slice:
        each = self.size // self.shards.weights
        return slice(rank % self.shards.weights * each, (rank % self.shards.weights + 1) * each)

    def _gradient_part(self, place: int) -> NDArray[np.int64]:
        """The gradients of a place of its group: within the weights of that place, so that both meet again."""
        w, g = self.shards.weights, self.shards.gradients
        start = place % w * (self.size // w) + place // w * (self.size // g)
        return np.arange(start, start + self.size // g)

    def _optimizer_part(self, rank: int) -> NDArray[np.int64]:
        g, o = self.shards.gradients, self.shards.optimizer
        part = self._gradient_part(rank % g)
        each = self.size // o
        return part[rank % o // g * each : (rank % o // g + 1) * each]

    def gathered(self) -> list[Vector]:
        """Returns every rank's whole weights for a pass forward, of its group's shares."""
        w = self.shards.weights
        found = self._by_group(
            self.weights, w, 1, lambda ids, parts: self._gather(ids, parts, self.shards.weight_format)
        )
        if self.shards.second:
            each = self.size // self.shards.second
            places = [rank % self.shards.second for rank in range(self.ranks)]
            self.second = [
                quantised(whole[p * each : (p + 1) * each], "bf16", self.block)
                for p, whole in zip(places, found, strict=True)
            ]
        return found

    def gathered_again(self) -> list[Vector]:
        """Returns the same for the pass back: of the second copy where there is one."""
        if not self.shards.second:
            return self.gathered()
        return self._by_group(self.second, self.shards.second, 1, lambda ids, parts: self._gather(ids, parts, "bf16"))

    def add(self, gradients: Sequence[Vector]) -> None:
        """Adds up a micro-batch's gradients, one vector of each rank, within groups."""
        kind = self.shards.gradient_format
        placed = [np.asarray(one, dtype=np.float32)[self.order] for one in gradients]
        sums = self._by_group(placed, self.shards.gradients, 1, lambda ids, parts: self._scatter(ids, parts, kind))
        for kept, one in zip(self.added, sums, strict=True):
            kept += one

    def step(self, count: float = 1.0) -> None:
        """Adds gradients up over all groups, moves by Adam, and hands on the new weights.

        Args:
            count: that the sum is divided by: ranks times micro-batches, for a mean.
        """
        w, g, o = self.shards.weights, self.shards.gradients, self.shards.optimizer
        kind = self.shards.gradient_format
        sums = self._by_group(self.added, o // g, g, lambda ids, parts: self._scatter(ids, parts, kind))
        if self.ranks > o:
            parts = self._by_group(sums, self.ranks // o, o, lambda ids, parts: self._scatter(ids, parts, kind))
            sums = self._by_group(parts, self.ranks // o, o, lambda ids, parts: self._gather(ids, parts, kind))
        self.steps += 1
        for rank, total in enumerate(sums):
            slope = total / np.float32(count)
            first, square = self.first[rank], self.square[rank]
            first += np.float32(0.1) * (slope - first)
            square += np.float32(0.001) * (slope * slope - square)
            ahead, wide = first / (1 - 0.9**self.steps), square / (1 - 0.999**self.steps)
            self.master[rank] -= (self.rate * ahead / (np.sqrt(wide) + 1e-8)).astype(np.float32)
        fresh = [quantised(part, "bf16", self.block) for part in self.master]
        self.weights = self._by_group(fresh, o // w, w, self._renew)
        for kept in self.added:
            kept[:] = 0

    def held(self) -> dict[str, float]:
        """Returns B of the fullest rank by state, as `cost.training.sharding.states` forecasts them."""
        second = max((2.0 * len(part) for part in self.second), default=0.0)
        return {
            "weights": max(2.0 * len(part) for part in self.weights) + second,
            "gradients": max(4.0 * len(part) for part in self.added),
            "optimizer": max(12.0 * len(part) for part in self.master),
        }

    def _by_group(
        self, parts: Sequence[Vector], count: int, stride: int,
        collective: Callable[[list[int], list[Vector]], list[Vector]],
    ) -> list[Vector]:  # fmt: skip
        """Runs a collective in each group of ``count`` ranks that are ``stride`` apart."""
        found: list[Vector] = list(parts)
        if count == 1:
            return found
        for start in range(0, self.ranks, count * stride):
            for offset in range(stride):
                ids = [start + offset + stride * k for k in range(count)]
                for rank, made in zip(ids, collective(ids, [parts[rank] for rank in ids]), strict=True):
                    found[rank] = made
        return found

    def _renew(self, ids: list[int], parts: list[Vector]) -> list[Vector]:
        """Gathers the new weights of one place, which ranks hold in the order of their gradients."""
        order = np.argsort(np.concatenate([self._optimizer_part(rank) for rank in ids]))
        return [whole[order] for whole in self._gather(ids, parts, "bf16")]

    def _bytes(self, count: int, kind: str) -> float:
        return count * BITS[kind] / 8 + (count / self.block * 4 if BITS[kind] < 16 else 0.0)

    def _gather(self, ids: list[int], parts: list[Vector], kind: str) -> list[Vector]:
        """All-gather: shares go to the ranks of their place in other nodes, then with theirs around each node."""
        near = near_ranks(len(ids), ids[1] - ids[0], self.node)
        nodes, size = len(ids) // near, self._bytes(len(parts[0]), kind)
        self.far[ids] += (nodes - 1) * size
        self.near[ids] += (near - 1) * nodes * size
        whole = np.concatenate([quantised(part, kind, self.block) for part in parts])
        return [whole for _ in ids]

    def _scatter(self, ids: list[int], parts: list[Vector], kind: str) -> list[Vector]:
        """Reduce-scatter: sums within each node first, then over the ranks of one place in all nodes."""
        count, near = len(ids), near_ranks(len(ids), ids[1] - ids[0], self.node)
        each = len(parts[0]) // count
        nodes, size = count // near, self._bytes(each, kind)
        self.near[ids] += (near - 1) * nodes * size
        self.far[ids] += (nodes - 1) * size
        found = []
        for i in range(count):
            share = slice(i * each, (i + 1) * each)
            meets = range(i % near, count, near)  # the ranks of this place, one in each node
            here = [
                self._sum([parts[k][share] for k in range(j // near * near, j // near * near + near)], j % near, kind)
                for j in meets
            ]
            found.append(self._sum(here, i // near, kind))
        return found

    def _sum(self, parts: Sequence[Vector], own: int, kind: str) -> Vector:
        """Adds up what others sent and what is this rank's own, which it does not narrow."""
        total = parts[own].astype(np.float32)
        for i, part in enumerate(parts):
            if i != own:
                total += quantised(part, kind, self.block)
        return total
