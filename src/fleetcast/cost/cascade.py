"""What a cascade of answers is worth: how often each is asked for, and how often the one that is kept is right.

A query goes to the first answer; where that answer's confidence lies below a threshold, it is passed on to the next.
The joint behaviour of confidence and rightness comes from measured answers (`Measured`) or from a stated model
(`Binormal`), whose two assumptions are

- nesting: what a shallow exit answers right, every deeper one does too;
- scores: an exit's score is normal with variance 1, its mean ``d`` higher where the exit is right, and independent
  between exits otherwise. The chance that a right answer outscores a wrong one is ``Phi(d / sqrt 2)`` (Green and
  Swets, 1966), the one parameter. Confidence is the chance of being right given the score, so it is calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Judge(Protocol):
    """Knows how confident and how right the exits are."""

    def cascade(self, chain: Sequence[int], thresholds: ArrayLike) -> tuple[Array, Array]:
        """Returns (quality [m], share of queries that reach each answer [m, k]) of a chain of k exits.

        Args:
            chain: numbers of the exits, in the order they are asked.
            thresholds: float64[m, k - 1]; answer i is passed on where its confidence is below column i.
        """
        ...


@dataclass(frozen=True)
class Certain:
    """Knows no confidences: every query is answered by the one exit that is asked.

    Attributes:
        quality: share of right answers of each exit, shallow to deep.
    """

    quality: tuple[float, ...]

    def cascade(self, chain: Sequence[int], thresholds: ArrayLike) -> tuple[Array, Array]:
        """Returns the quality of a single answer, which every query reaches.

        Raises:
            ValueError: a chain of several, which only a confidence could pass on.
        """
        if len(chain) != 1:
            raise ValueError("without confidences no answer is passed on")
        m = len(np.asarray(thresholds))
        return np.full(m, self.quality[chain[0]]), np.ones((m, 1))


@dataclass(frozen=True)
class Binormal:
    """The stated model.

    Attributes:
        quality: share of right answers of each exit, shallow to deep, not falling.
        auroc: chance that a right answer is more confident than a wrong one, above 0.5 and below 1.
    """

    quality: tuple[float, ...]
    auroc: float

    @property
    def distance(self) -> float:
        """By how many standard deviations right answers outscore wrong ones."""
        from scipy.special import ndtri

        return float(np.sqrt(2.0) * ndtri(self.auroc))

    def passed(self, exit: int, threshold: ArrayLike) -> tuple[Array, Array]:
        """Returns the share of (right, wrong) answers of an exit whose confidence is below ``threshold``."""
        from scipy.special import ndtr

        t, q, d = np.asarray(threshold, dtype=np.float64), self.quality[exit], self.distance
        with np.errstate(divide="ignore"):
            odds = np.log(t) - np.log1p(-t) - (np.log(q) - np.log1p(-q))
        score = odds / d + d / 2.0
        return ndtr(score - d), ndtr(score)

    def cascade(self, chain: Sequence[int], thresholds: ArrayLike) -> tuple[Array, Array]:
        """Returns (quality [m], reach [m, k]); see `Judge.cascade`."""
        table = np.asarray(thresholds, dtype=np.float64)
        table = table.reshape(len(table), len(chain) - 1)
        levels = np.array([0.0, *self.quality, 1.0])
        share = np.diff(levels)  # of queries whose first right exit is j; the last: none
        going = np.broadcast_to(share, (len(table), len(share))).copy()
        reach = np.ones((len(table), len(chain)))
        quality = np.zeros(len(table))
        for k, exit in enumerate(chain):
            reach[:, k] = going.sum(axis=1)
            right = np.arange(len(share)) <= exit
            if k == len(chain) - 1:
                quality += going[:, right].sum(axis=1)
                break
            passed = np.where(right, *(p[:, None] for p in self.passed(exit, table[:, k])))
            quality += (going * (1.0 - passed))[:, right].sum(axis=1)
            going = going * passed
        return np.round(quality, 12), reach  # sums of shares give back the scores they came from


@dataclass(frozen=True, eq=False)
class Measured:
    """Answers of all exits to the same questions.

    Attributes:
        confidence: float64[questions, exits].
        right: bool[questions, exits].
    """

    confidence: Array
    right: NDArray[np.bool_]

    def cascade(self, chain: Sequence[int], thresholds: ArrayLike) -> tuple[Array, Array]:
        """Returns (quality [m], reach [m, k]); see `Judge.cascade`."""
        table = np.asarray(thresholds, dtype=np.float64)
        table = table.reshape(len(table), len(chain) - 1)
        reach, quality = np.ones((len(table), len(chain))), np.zeros(len(table))
        for i, row in enumerate(table):
            going = np.ones(len(self.confidence), dtype=bool)
            for k, exit in enumerate(chain):
                reach[i, k] = going.mean()
                stays = going if k == len(chain) - 1 else going & (self.confidence[:, exit] >= row[k])
                quality[i] += (stays & self.right[:, exit]).mean()
                going = going & ~stays
        return np.round(quality, 12), reach
