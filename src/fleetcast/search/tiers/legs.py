"""One answer of a cascade, costed: what the tiers compute and what crosses the links, until the answer is back.

The answer returns to the first tier, where queries arise and where its confidence is judged. What may be sent:

    text    the prompt; everything is computed anew
    hidden  hidden states of prompt and output at a split: tokens x width x 2 B up, a round trip for every token; the
            tier before computes the layers below
    cache   hidden states and KV cache of the prompt, once; from then on the upper tier is alone

A tier that has answered at an exit has computed the layers below it, so a deeper answer may start from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.fleet.links import Link, transfer_time
from fleetcast.search.tiers.family import Part, lower, upper, whole
from fleetcast.search.tiers.parts import Use

METRICS = ("e2e", "ttft", "energy", "cost", "bytes")
"""Columns of a leg: s, s, J, $, B."""
TEXT = 4.0
"""Bytes that a token takes as text, about."""


class Book(Protocol):
    """What legs are costed from: `parts.Costs`, or a table of a test."""

    @property
    def prompt(self) -> float:
        """Mean prompt tokens."""
        ...

    @property
    def output(self) -> float:
        """Mean output tokens."""
        ...

    @property
    def hidden(self) -> float:
        """Bytes of one token's hidden state."""
        ...

    def use(self, tier: int, part: Part) -> Use:
        """Returns what a part takes; raises Infeasible."""
        ...

    def lacks(self, tier: int, parts: frozenset[Part]) -> Infeasible | None:
        """Returns why a tier cannot hold the parts, or None."""
        ...

    def links(self, a: int, b: int) -> Sequence[Link]:
        """Returns the links between two tiers."""
        ...

    def cache(self, tier: int, split: int) -> float:
        """Returns bytes of KV cache a token has below a split."""
        ...


@dataclass(frozen=True)
class Leg:
    """One answer.

    Attributes:
        tier: that answers.
        exit: trunk layers after which it answers.
        handoff: what it was sent.
        split: layers computed on tier ``after`` before; 0 with "text".
        after: that tier.
        takes: float64[5], one per `METRICS`.
        holds: parts that must lie in memory, by tier.
        complete: the tier knows all layers of this answer's prompt, so that another may go on from it.
    """

    tier: int
    exit: int
    handoff: str
    split: int
    after: int
    takes: NDArray[np.float64]
    holds: Mapping[int, frozenset[Part]]
    complete: bool

    @property
    def shape(self) -> tuple[int, str, int]:
        """The leg without depth and split."""
        return self.tier, self.handoff, self.after


def first_legs(book: Book, tiers: int, exit: int, splits: Sequence[int]) -> Iterator[Leg]:
    """Yields every way to answer a query at an exit first, those that do not fit left out.

    Args:
        book: costs.
        tiers: how many there are.
        exit: trunk layers.
        splits: layers at which the trunk may be cut.
    """
    for t in range(tiers):
        if (leg := from_text(book, t, exit)) is not None:
            yield leg
    for low in range(tiers):
        for high in range(low + 1, tiers):
            for split in splits:
                for handoff in ("hidden", "cache"):
                    if split < exit and (leg := from_split(book, low, high, split, exit, handoff)) is not None:
                        yield leg


def next_legs(book: Book, tiers: int, before: Leg, exit: int) -> Iterator[Leg]:
    """Yields every way to answer deeper after ``before`` was not confident: anew further up, or going on from it."""
    for t in range(before.tier + 1, tiers):
        if (leg := from_text(book, t, exit)) is not None:
            yield leg
    if not before.complete:
        return
    for t in range(before.tier, tiers):
        for handoff in ("hidden", "cache") if t > before.tier else ("cache",):
            leg = from_split(book, before.tier, t, before.exit, exit, handoff, begun=True)
            if leg is not None:
                yield leg


def from_text(book: Book, tier: int, exit: int) -> Leg | None:
    """Returns the answer of one tier to the prompt sent as text, or None where it does not fit."""
    try:
        use = book.use(tier, whole(exit))
    except Infeasible:
        return None
    there, back = book.links(0, tier), book.links(tier, 0)
    up, down = TEXT * book.prompt * bool(there), TEXT * book.output * bool(back)
    sent = transfer_time(there, up, up=True)
    takes = [
        sent + use.prefill + use.decode + transfer_time(back, TEXT * bool(back)),
        sent + use.prefill + transfer_time(back, TEXT * bool(back)),
        use.prefill_energy + use.decode_energy, use.prefill_cost + use.decode_cost, up + down,
    ]  # fmt: skip
    return Leg(tier, exit, "text", 0, tier, np.array(takes), {tier: frozenset((whole(exit),))}, True)


def from_split(
    book: Book, low: int, high: int, split: int, exit: int, handoff: str, *, begun: bool = False
) -> Leg | None:
    """Returns the answer of tier ``high`` to what tier ``low`` computed below a split, or None where it does not fit.

    Args:
        book: costs.
        low: tier of the layers below the split.
        high: tier of the layers above it; with ``begun`` it may be the same.
        split: layers.
        exit: trunk layers after which it answers.
        handoff: "hidden" or "cache".
        begun: ``low`` has answered at ``split`` already: its prefill is done, and so is sending it the prompt.
    """
    alone = handoff == "cache"
    try:
        below, above = book.use(low, lower(split)), book.use(high, upper(split, exit))
        rest = book.use(high, whole(exit)) if alone else above
    except Infeasible:
        return None
    arrive, ask, back = book.links(0, low), book.links(low, high), book.links(high, low)
    home = book.links(high if alone else low, 0)
    p, o = book.prompt, book.output
    prompt = 0.0 if begun else TEXT * p * bool(arrive)
    state = (p * (book.hidden + (book.cache(low, split) if alone else 0.0))) * bool(ask)
    sent = transfer_time(arrive, prompt, up=True)
    first = sent + transfer_time(ask, state, up=True) + above.prefill + (0.0 if begun else below.prefill)
    reply = transfer_time(home, TEXT * bool(home))
    if alone:
        ttft, e2e = first + reply, first + rest.decode + reply
        up, down = state, 0.0
    else:
        token = transfer_time(ask, book.hidden, up=True) + transfer_time(back, TEXT)
        ttft = first + transfer_time(back, TEXT) + reply
        e2e = ttft + below.decode + above.decode + (o - 1.0) * token
        up, down = state + (o - 1.0) * book.hidden, TEXT * o
    energy, cost = above.prefill_energy + rest.decode_energy, above.prefill_cost + rest.decode_cost
    if not begun:
        energy, cost = energy + below.prefill_energy, cost + below.prefill_cost
    if not alone:
        energy, cost = energy + below.decode_energy, cost + below.decode_cost
    size = prompt + up + down + TEXT * o * bool(home)
    holds = {
        high: frozenset((whole(exit) if alone else upper(split, exit),)),
        low: frozenset((whole(split) if begun else lower(split),)),
    }
    if low == high:
        holds = {high: frozenset((whole(exit), whole(split)))}
    return Leg(high, exit, handoff, split, low, np.array([e2e, ttft, energy, cost, size]), holds, alone)
