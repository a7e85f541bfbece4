"""From log probabilities to a score, and how far it is from what guessing gives.

A question's score is the mean over its orders of the credit for the option with the highest log probability; where k
options tie, each has the credit 1/k. So a scorer that says the same for every letter scores a quarter, too.

The null: if picks knew nothing of which option is right, the right one would be any of the four. Given how often each
option was picked, a question's score is then one of its four shares, with mean 1/4; questions are independent, so their
sum has a known mean and variance, and the p-value follows without any assumption on the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.runtime.measure.quality.items import LETTERS, Item
from fleetcast.runtime.measure.quality.orders import Ask

CHANCE = 1.0 / len(LETTERS)
DRAWS = 2000
"""Bootstrap samples of an interval."""
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer says of an ask: a log probability per continuation (all -inf = no answer), s, tokens read."""

    logprobs: tuple[float, ...]
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a question over its orders.

    Attributes:
        item: the question.
        picks: share of the orders in which each option was picked, in the item's order; they sum to 1 less what was
            not answered.
        letters: the same by letter.
        every: the option picked alone in every order; -1 = there is none.
        seconds: mean of an order.
        tokens: most that an order reads.
        unanswered: share of the orders.
    """

    item: Item
    picks: tuple[float, ...]
    letters: tuple[float, ...]
    every: int
    seconds: float
    tokens: int
    unanswered: float

    @property
    def score(self) -> float:
        """The share of the orders in which the right option was picked; NaN without a key."""
        return self.picks[self.item.answer] if self.item.answer >= 0 else math.nan

    @property
    def letter(self) -> str:
        """The letter, as the item lists its options, of the option picked most often; "" = not answered."""
        return LETTERS[max(range(len(LETTERS)), key=lambda i: self.picks[i])] if any(self.picks) else ""


def answered(items: Sequence[Item], asks: Sequence[Ask], scored: Iterable[Scored]) -> list[Answered]:
    """Returns what became of each question, in the order of the items."""
    kept: dict[int, list[tuple[Ask, Scored]]] = {}
    for ask, said in zip(asks, scored, strict=True):
        kept.setdefault(ask.item, []).append((ask, said))
    found = []
    for i, item in enumerate(items):
        rows = kept[i]
        picks, letters = [0.0] * len(LETTERS), [0.0] * len(LETTERS)
        alone = []
        for ask, said in rows:
            chosen = picked(said.logprobs)
            for place in chosen:
                picks[ask.order[place]] += 1.0 / len(chosen)
                letters[place] += 1.0 / len(chosen)
            alone.append(ask.order[chosen[0]] if len(chosen) == 1 else -1)
        n = len(rows)
        found.append(
            Answered(
                item, tuple(x / n for x in picks), tuple(x / n for x in letters),
                alone[0] if len(set(alone)) == 1 else -1, sum(s.seconds for _, s in rows) / n,
                max(s.tokens for _, s in rows), sum(not picked(s.logprobs) for _, s in rows) / n,
            )
        )  # fmt: skip
    return found


def picked(logprobs: Sequence[float]) -> list[int]:
    """Returns the places of the highest log probability; none where all are minus infinity or one is no number."""
    top = max(logprobs)
    if not math.isfinite(top) or any(math.isnan(x) for x in logprobs):
        return []
    return [i for i, x in enumerate(logprobs) if x == top]


def accuracy(rows: Sequence[Answered], seed: int = 0) -> dict[str, Any]:
    """Returns the score of a set with a key, how sure it is, and whether it is better than chance.

    ``interval`` is a 95 % bootstrap over questions; ``p`` is one-sided against the null above; ``consistent`` is the
    share of questions right in every order, with Wilson's 95 % interval.
    """
    scores = np.sort([row.score for row in rows])  # sorted, so that the order of questions changes no last bit
    right = sum(row.every == row.item.answer for row in rows)
    draw = rng(seed, "quality", "bootstrap").integers(0, len(scores), (DRAWS, len(scores)))
    low, high = np.quantile(scores[draw].mean(axis=1), (0.025, 0.975))
    return {
        "accuracy": float(scores.mean()), "interval": [float(low), float(high)], "chance": CHANCE,
        "p": above_chance(np.array([row.picks for row in rows]), np.array([row.score for row in rows])),
        "consistent": right / len(rows), "consistent_interval": list(wilson(right, len(rows))),
    }  # fmt: skip


def above_chance(picks: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Returns the chance that a total at least as high comes up where the right option is any of the four.

    Args:
        picks: f8[questions, 4] share of each option.
        scores: f8[questions], of the right one.

    By the normal law that sums of independent questions follow; 1 where no question can tell (all picks even).
    """
    picks = np.sort(picks, axis=1)  # so that a file's order of options changes no last bit
    mean, variance = picks.mean(axis=1), picks.var(axis=1)
    spread = math.sqrt(math.fsum(variance))
    if spread < 1e-12:
        return 1.0
    return 0.5 * math.erfc(math.fsum(scores - mean) / spread / math.sqrt(2.0))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share (1927)."""
    if count == 0:
        return 0.0, 1.0
    share, z = hits / count, Z95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def positions(rows: Sequence[Answered]) -> dict[str, Any]:
    """Returns how often each letter was picked beside the even share, and how often the order changed the answer."""
    shares = [math.fsum(row.letters[i] for row in rows) / len(rows) for i in range(len(LETTERS))]
    even = sum(shares) / len(shares)
    return {
        "letters": dict(zip(LETTERS, shares, strict=True)),
        "bias": max(abs(share - even) for share in shares),
        "same_in_every_order": sum(row.every >= 0 for row in rows) / len(rows),
        "unanswered": math.fsum(row.unanswered for row in rows) / len(rows),
    }


def by_field(rows: Sequence[Answered]) -> list[Mapping[str, Any]]:
    """Returns questions and score of each field, by name; without a key the score is None."""
    fields: dict[str, list[Answered]] = {}
    for row in rows:
        fields.setdefault(row.item.field, []).append(row)
    table: list[Mapping[str, Any]] = []
    for field, found in sorted(fields.items()):
        keyed = all(r.item.answer >= 0 for r in found)
        share = math.fsum(r.score for r in found) / len(found) if keyed else None
        table.append({"field": field, "items": len(found), "accuracy": share})
    return table
