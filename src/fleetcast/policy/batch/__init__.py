"""What goes into this iteration, and who is admitted.

A batch policy sees one scheduler's lane at an iteration's start (`View`) and returns a `Batch`: which waiting
requests enter, how many of their tokens are processed now, and whether the running ones decode. The world checks
and applies it. `Rule` is the same decision as six numbers: a policy that can say so with ``rule()`` runs in the
compiled world, any other in the step-by-step one, with equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["Batch", "Chunked", "Item", "Orca", "Policy", "PrefillFirst", "Rule", "Static", "View"]


class Rule(NamedTuple):
    """A batch policy as numbers.

    Attributes:
        max_batch: requests that may run at once.
        budget: tokens of one iteration, prefill and decode together where they mix.
        mixed: prefill and decode share an iteration.
        split: a prompt may be cut to fit the budget.
        refill: requests may enter while others run.
        reserve: memory for the whole output is taken at admission.
    """

    max_batch: int
    budget: int
    mixed: bool
    split: bool
    refill: bool
    reserve: bool


@dataclass(frozen=True)
class Item:
    """A request as the batch policy sees it: tokens still to prefill (0 = decoding) and memory to claim, blocks."""

    id: int
    tokens: int
    blocks: int


@dataclass(frozen=True)
class View:
    """One lane at the start of an iteration.

    Attributes:
        decoding: how many requests are past their prefill.
        partial: requests whose prefill has begun, with the tokens left.
        waiting: requests in the order the order policy wants, already arrived.
        free: free memory blocks, watermark taken off.
        drafted: tokens that were drafted for the decoding requests and are checked with theirs.
    """

    decoding: int
    partial: Sequence[Item]
    waiting: Sequence[Item]
    free: int
    drafted: int = 0


@dataclass(frozen=True)
class Batch:
    """The decision: (request, tokens to prefill now) in order, and whether the running requests decode."""

    prefill: tuple[tuple[int, int], ...]
    decode: bool


class Policy(Protocol):
    """Decides one iteration."""

    kind: str

    def compose(self, view: View) -> Batch:
        """Returns what the next iteration of this lane processes."""
        ...


def fill(rule: Rule, view: View) -> Batch:
    """Returns the iteration that ``rule`` composes: the one greedy walk that all built-in policies share.

    Prompts begun come first, then waiting requests in order; the walk stops at the first that does not fit, so no
    request overtakes another. A prompt above the budget that may not be split runs alone.
    """
    budget = rule.budget - (view.decoding + view.drafted if rule.mixed else 0)
    running, free = view.decoding + len(view.partial), view.free
    chosen: list[tuple[int, int]] = []
    for item in view.partial:
        take = min(item.tokens, budget)
        if take > 0:
            chosen.append((item.id, take))
            budget -= take
    if rule.refill or running == 0:
        for item in view.waiting:
            if budget <= 0 or running >= rule.max_batch or item.blocks > free:
                break
            if item.tokens > budget and not rule.split and chosen:
                break
            take = min(item.tokens, budget) if rule.split else item.tokens
            chosen.append((item.id, take))
            budget -= take
            free -= item.blocks
            running += 1
    return Batch(tuple(chosen), decode=rule.mixed or not chosen)


from fleetcast.policy.batch.chunked import Chunked  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.batch.orca import Orca  # noqa: E402
from fleetcast.policy.batch.prefill_first import PrefillFirst  # noqa: E402
from fleetcast.policy.batch.static import Static  # noqa: E402
