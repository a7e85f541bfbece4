"""Ways to add up what members of a group hold: ring, and stages of any fan-in.

A member is a host, or hosts below one switch that share a sum between them. Merging members leaves each cell with one
member, on the host that had it there. Stages of fan-in f put members into groups of f that exchange parts of their
block: one stage of fan-in N is co-located parameter servers, stages of 2 are recursive halving, what lies between
hierarchical parameter servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleetcast.cost.collectives.steps import Step
from fleetcast.cost.collectives.topology import Ints


@dataclass(frozen=True, eq=False)
class Shares:
    """Who holds which cells of a sum.

    Attributes:
        host: (n,).
        start: (n,) first cell, growing.
        stop: (n,) cell after the last.
    """

    host: Ints
    start: Ints
    stop: Ints

    @property
    def hosts(self) -> int:
        """How many hosts hold any."""
        return len(np.unique(self.host))


def alone(host: int, cells: int) -> Shares:
    """Returns the share of a host that holds all cells, its own data."""
    return Shares(*(np.array([x], dtype=np.int64) for x in (host, 0, cells)))


@dataclass(frozen=True, eq=False)
class Members:
    """Members in a row, their shares cut at the same places.

    Attributes:
        owner: (members, pieces) host that holds each piece in each member.
        low: (members, pieces) first cell that the member still holds.
        high: (members, pieces) cell after the last.
        index: (members,) which of those at the start each one is.
    """

    owner: Ints
    low: Ints
    high: Ints
    index: Ints

    def shares(self) -> Shares:
        """Returns who holds what, empty pieces left out."""
        host, low, high = self.owner.ravel(), self.low.ravel(), self.high.ravel()
        order = np.argsort(low, kind="stable")
        order = order[high[order] > low[order]]
        return Shares(host[order], low[order], high[order])


def meet(members: Sequence[Shares]) -> Members:
    """Returns members with the pieces that all their shares are made of."""
    cuts = np.unique(np.concatenate([np.concatenate([m.start, m.stop]) for m in members]))
    owner = np.stack([m.host[np.searchsorted(m.start, cuts[:-1], side="right") - 1] for m in members])
    whole = np.ones((len(members), 1), dtype=np.int64)
    return Members(owner, cuts[:-1] * whole, cuts[1:] * whole, np.arange(len(members)))


def cut(low: Ints, high: Ints, weight: Ints) -> Ints:
    """Returns (members, pieces, parts + 1) where parts in proportion to ``weight`` (members, parts) begin and end."""
    total = np.concatenate([np.zeros((len(weight), 1), dtype=np.int64), np.cumsum(weight, axis=1)], axis=1)
    length = (high - low)[:, :, None]
    return np.asarray(low[:, :, None] + length * total[:, None, :] // total[:, None, -1:])


def stage(members: Members, fan_in: int, stride: int, weight: Ints | None = None) -> tuple[Step, Members]:
    """Returns the step in which groups of ``fan_in`` members exchange parts of their block, and what each holds then.

    Args:
        members: the number of them is a multiple of ``fan_in * stride``.
        fan_in: members of a group.
        stride: how far apart in the row members of a group are.
        weight: (members, fan_in) parts in proportion to it, equal within a group; None = equal parts.
    """
    count = len(members.index)
    place = np.arange(count)
    digit = (place // stride) % fan_in
    if weight is None:
        weight = np.ones((count, fan_in), dtype=np.int64)
    cuts = cut(members.low, members.high, weight)
    found = []
    for offset in range(1, fan_in):
        other = (digit + offset) % fan_in
        partner = place + (other - digit) * stride
        start, stop = cuts[place, :, other], cuts[place, :, other + 1]
        found.append(_transfers(members.owner, members.owner[partner], start, stop))
    kept = Members(members.owner, cuts[place, :, digit], cuts[place, :, digit + 1], members.index)
    return _step(found), kept


def _transfers(source: Ints, target: Ints, start: Ints, stop: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    some = stop > start
    return source[some], target[some], start[some], stop[some]


def _step(parts: Sequence[tuple[Ints, Ints, Ints, Ints]]) -> Step:
    source, target, start, stop = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return Step(source, target, start, stop)


def by_stages(
    members: Members, fan_ins: Sequence[int], *, near: bool = True, weights: Sequence[int] | None = None
) -> tuple[list[Step], Members]:  # fmt: skip
    """Returns the steps of stages whose fan-ins multiply to the members, and who holds what at the end.

    Args:
        members: in a row.
        fan_ins: of each stage.
        near: whether neighbours in the row meet first, in the stage with the largest parts; otherwise the farthest.
        weights: shares of the members at the end, in proportion; None = equal.
    """
    count, done, steps = len(members.index), 1, []
    weight = None if weights is None else np.asarray(weights, dtype=np.int64)
    place = np.arange(count)
    prefix = np.zeros(count, dtype=np.int64)
    for fan_in in fan_ins:
        stride = done if near else count // (done * fan_in)
        digit = (place // stride) % fan_in
        parts = None
        if weight is not None:
            total = np.bincount(prefix * fan_in + digit, weight, count * fan_in).astype(np.int64)
            parts = total.reshape(count, fan_in)[prefix]
        step, members = stage(members, fan_in, stride, parts)
        steps.append(step)
        # members that hold the same block, numbered densely
        prefix = np.unique(prefix * fan_in + digit, return_inverse=True)[1].astype(np.int64)
        done *= fan_in
    return steps, members


def by_ring(members: Members, weights: Sequence[int] | None = None) -> tuple[list[Step], Members]:
    """Returns the step, of as many turns as there are members less one, in which each passes a part to the next."""
    count, pieces = members.owner.shape
    parts = np.ones(count, dtype=np.int64) if weights is None else np.asarray(weights, dtype=np.int64)
    cuts = cut(members.low, members.high, np.broadcast_to(parts, (count, count)))
    place = np.arange(count)
    part = np.repeat((place - 1) % count, pieces)
    rows = cuts.reshape(count * pieces, count + 1)
    row = np.arange(count * pieces)
    step = Step(
        members.owner.ravel(), np.roll(members.owner, -1, axis=0).ravel(), rows[row, part], rows[row, part + 1],
        count - 1, rows, part,
    )  # fmt: skip
    return [step], Members(members.owner, cuts[place, :, place], cuts[place, :, place + 1], members.index)


def by_halving(members: Members, *, near: bool = True) -> tuple[list[Step], Members]:
    """Returns recursive halving; beyond a power of two, as many members as there are too many first give all they have.

    They are every second one from the start of the row, and give to the neighbour before them (Rabenseifner).
    """
    count = len(members.index)
    kept = 1 << (count.bit_length() - 1)
    spare = count - kept
    stay = np.concatenate([np.arange(0, 2 * spare, 2), np.arange(2 * spare, count)])
    steps = []
    if spare:
        gone = np.arange(1, 2 * spare, 2)
        given = _transfers(members.owner[gone], members.owner[gone - 1], members.low[gone], members.high[gone])
        steps.append(_step([given]))
    first = Members(*(x[stay] for x in (members.owner, members.low, members.high, members.index)))
    more, held = by_stages(first, (2,) * (kept.bit_length() - 1), near=near)
    return steps + more, held
