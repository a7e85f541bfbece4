"""From logits to a token: greedy, temperature, top-k, top-p, with the log probability of what was chosen.

Nucleus sampling (top-p): Holtzman, Buys, Du, Forbes, Choi, "The Curious Case of Neural Text Degeneration", ICLR 2020.
Temperature comes first, then top-k, then top-p over what is left. A token costs one uniform number, so a request draws
the same tokens whatever runs beside it, and when it is evicted and computed again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng

MOST_LOGPROBS = 100
"""Most alternatives reported beside a token."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a request's tokens are chosen.

    Attributes:
        temperature: logits are divided by it; 0 = greedy.
        top_k: only the k likeliest tokens; 0 = all.
        top_p: only the likeliest tokens that reach this probability together, at least one; 1 = all.
        stop: token ids that end the request; the one that does is its last token.
        seed: of this request's own stream; None = the engine's, by request.
        logprobs: how many of the likeliest tokens to report with each token.

    Raises:
        SpecError: a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[int, ...] = ()
    seed: int | None = None
    logprobs: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            _refuse("temperature", self.temperature, "a number from 0 (greedy) to 100")
        if not _whole(self.top_k) or self.top_k < 0:
            _refuse("top_k", self.top_k, "a whole number from 0 (all)")
        if not 0.0 < self.top_p <= 1.0:
            _refuse("top_p", self.top_p, "a number above 0 and up to 1 (all)")
        if not all(_whole(token) and token >= 0 for token in self.stop):
            _refuse("stop", self.stop, "token ids, whole numbers from 0")
        if self.seed is not None and (not _whole(self.seed) or self.seed < 0):
            _refuse("seed", self.seed, "a whole number from 0, or none")
        if not _whole(self.logprobs) or not 0 <= self.logprobs <= MOST_LOGPROBS:
            _refuse("logprobs", self.logprobs, f"a whole number from 0 to {MOST_LOGPROBS}")

    @property
    def keep(self) -> int:
        """How many of the likeliest tokens decide what is chosen and reported; 0 = all."""
        if self.temperature == 0.0:
            return max(1, self.logprobs)
        return max(self.top_k, self.logprobs) if self.top_k else 0


@dataclass(frozen=True)
class Candidates:
    """What is left of a row of logits where only the likeliest tokens are at hand.

    Attributes:
        ids: (k,) of the tokens, likeliest first; of equals the smaller id first.
        logits: (k,) theirs.
        total: logarithm of the sum of the exponentials of all logits of the row.
    """

    ids: NDArray[np.int64]
    logits: NDArray[np.float64]
    total: float


@dataclass(frozen=True)
class Choice:
    """A chosen token.

    Attributes:
        token: its id.
        logprob: log probability under the model, before temperature, top-k and top-p.
        top: (id, log probability) of the likeliest tokens, as many as asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """One request's choices, one after another.

    Args:
        sampling: how.
        seed: of the engine.
        request: the request's number, which names its stream where it has no seed of its own.
    """

    def __init__(self, sampling: Sampling, seed: int, request: int) -> None:
        self.sampling = sampling
        own = sampling.seed
        self._stream = rng(seed, "sampling", str(request)) if own is None else rng(own, "sampling")

    def choose(self, logits: NDArray[np.float32] | Candidates) -> Choice:
        """Returns the next token.

        Args:
            logits: (vocabulary,) of the model, or as many candidates as `Sampling.keep` says.

        Raises:
            ValueError: a logit is not a number, or all are minus infinity.
        """
        if isinstance(logits, Candidates):
            return self._among(logits)
        s = self.sampling
        row = logits.astype(np.float64)
        peak = row.max()
        if not np.isfinite(peak):
            raise ValueError("the model's logits are not finite")
        logprobs = row - peak - np.log(np.exp(row - peak).sum())
        token = int(row.argmax()) if s.temperature == 0.0 else self._draw(row - peak)
        top: tuple[tuple[int, float], ...] = ()
        if s.logprobs:
            likeliest = np.argsort(-row, kind="stable")[: s.logprobs]
            top = tuple((int(i), float(logprobs[i])) for i in likeliest)
        return Choice(token, float(logprobs[token]), top)

    def _among(self, found: Candidates) -> Choice:
        if not np.isfinite(found.total):
            raise ValueError("the model's logits are not finite")
        logprobs = found.logits - found.total
        place = 0 if self.sampling.temperature == 0.0 else self._draw(found.logits - found.logits[0])
        count = min(self.sampling.logprobs, len(found.ids))
        top = tuple((int(i), float(x)) for i, x in zip(found.ids[:count], logprobs[:count], strict=True))
        return Choice(int(found.ids[place]), float(logprobs[place]), top)

    def _draw(self, row: NDArray[np.float64]) -> int:
        tokens, weights = kept(row, self.sampling)
        reached = np.cumsum(weights)
        place = int(np.searchsorted(reached, self._stream.random() * reached[-1], side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def kept(row: NDArray[np.float64], s: Sampling) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the ids that may be drawn, likeliest first, and their probabilities, which sum to 1.

    Args:
        row: (vocabulary,) logits, the largest of them 0.
        s: with a temperature above 0. Ties go to the smaller id.
    """
    order = np.argsort(-row, kind="stable")
    if s.top_k:
        order = order[: s.top_k]
    weights = np.exp(row[order] / s.temperature)
    weights /= weights.sum()
    if s.top_p < 1.0:
        count = int(np.searchsorted(np.cumsum(weights), s.top_p, side="left")) + 1
        order, weights = order[:count], weights[:count]
        weights /= weights.sum()
    return order, weights


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(name: str, value: object, limit: str) -> None:
    raise SpecError(f"sampling.{name}", "cannot be", value=value, limit=limit)
