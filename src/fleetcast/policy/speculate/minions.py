"""Minions: several small models vote on what to draft, and the length follows what is accepted.

Wang et al., "Minions: Accelerating Large Language Model Inference with Collective and Adaptive Speculative
Decoding", 2024 (arXiv 2402.15678). Vote: the drafts form a prefix tree, a node weighs as much as the drafters that
pass through it, and the path that takes the heaviest child at each node is checked as one sequence, so the target's
work does not grow with the drafters. Length: longer while everything is accepted, shorter on a rejection, as far as
what a longer draft promises is worth its cost.

The paper's constants are not in any text we could read, so the brake is ours: with the acceptance seen so far, the
length moves one step towards the one with the most expected tokens per work, where a draft costs ``overhead`` of a
call and ``cost`` more for each of its tokens. Without the brake the length wanders for ever and loses 4 to 12 % to the
best fixed one. The paper weighs drafters by past acceptance; here the weights are the caller's, equal in forecasts.
With ``least`` 0 the length may come down to nothing where drafts are not worth their cost, and one token is tried again
every `TRIAL` calls. What an engine saw of other requests counts as `PRIOR` judged tokens at most. Both are ours too;
forecasts ask with neither.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, TypeVar

from msgspec import Meta

from fleetcast.policy.speculate import Draft, View

T = TypeVar("T", bound=Hashable)

TRIAL = 16
"""Calls without a draft after which one token is drafted again."""
PRIOR = 24.0
"""Most judged tokens of other requests that count for one that begins."""


class Minions:
    """Drafts one token more after a full acceptance, one fewer after a rejection, while that brings it to the best."""

    kind = "minions"

    def __init__(
        self,
        *,
        start: Annotated[int, Meta(ge=1, le=16)] = 4,
        most: Annotated[int, Meta(ge=1, le=16)] = 8,
        cost: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.1,
        drafters: Annotated[int, Meta(ge=1, le=16)] = 1,
        least: Annotated[int, Meta(ge=0, le=1)] = 1,
        overhead: Annotated[float, Meta(ge=0.0, le=4.0)] = 0.0,
    ) -> None:
        """Stores first, largest and least length, what a drafted token and any draft cost over a call, drafters."""
        if start > most:
            raise ValueError(f"start {start} is above most {most}")
        self.start, self.most, self.cost, self.drafters, self.least = start, most, cost, drafters, least
        self.overhead = overhead

    def draft(self, view: View) -> Draft:
        """Returns the next length, by what became of the last drafts and of all before."""
        others = min(view.others_tried, PRIOR)
        right = others * view.others_right / view.others_tried if others else 0.0
        rate = (view.right + right + 1) / (view.tried + others + 2)
        best = best_length(rate, self.cost, self.most, self.least, self.overhead)
        if view.length is None:
            return Draft(min(self.start, best) if others else self.start, self.drafters)
        if view.length == 0 and view.idle >= TRIAL:
            return Draft(1, self.drafters)
        if view.accepted >= view.proposed:
            return Draft(view.length + (view.length < best), self.drafters)
        return Draft(view.length - (view.length > best), self.drafters)


def best_length(rate: float, cost: float, most: int, least: int = 1, overhead: float = 0.0) -> int:
    """Returns the length from ``least`` to ``most`` with the most expected tokens per work.

    Tokens grow by less and less and work by the same, so that after a first fall the worth only falls.

    Args:
        rate: chance that a drafted token is accepted where those before it were.
        cost: of a drafted token, drafted and checked, over a call without any.
        most: longest.
        least: shortest, 0 or 1.
        overhead: of a draft of any length, beside its tokens, over a call without any.
    """
    best, found, tokens, power, before = least, 0.0 if least else 1.0, 1.0, 1.0, 0.0
    for length in range(1, most + 1):
        power *= rate
        tokens += power
        worth = tokens / (1.0 + overhead + cost * length)
        if worth > found:
            best, found = length, worth
        if worth < before:
            break
        before = worth
    return best


def vote(paths: Sequence[Sequence[T]], weights: Sequence[float]) -> list[T]:
    """Returns the path of drafted tokens that the drafters vote for.

    At each node the heaviest child wins; of equals the one whose first drafter stands first.

    Args:
        paths: per drafter its tokens.
        weights: of the drafters, above 0.
    """
    found: list[T] = []
    voters = list(range(len(paths)))
    while True:
        voters = [i for i in voters if len(paths[i]) > len(found)]
        if not voters:
            return found
        weight: dict[T, float] = {}
        for i in voters:
            token = paths[i][len(found)]
            weight[token] = weight.get(token, 0.0) + weights[i]
        best = max(weight, key=lambda token: weight[token])
        found.append(best)
        voters = [i for i in voters if paths[i][len(found) - 1] == best]
