"""What speculation yields: tokens per call of the target model, how that spreads, and what a draft costs.

Drafted token j of a call is accepted with probability ``a_j`` if those before it were; the first that is not is
replaced by the target's own, and after a full acceptance the target adds one. So a call yields 1 to k + 1 tokens,
``1 + a_1 + a_1 a_2 + ...`` in expectation, ``(1 - a^(k+1)) / (1 - a)`` where all a_j are one a (Leviathan et al.,
ICML 2023, eq. 1). Acceptance is taken as independent from call to call; it is not quite (it varies with the text), and
then the spread between requests is larger than said here while the mean stays.

A policy that adapts its length is a Markov chain over lengths; `chain` solves it, asking the policy itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb, log
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EXACT = 256
"""Up to so many tokens the distribution of calls is exact, beyond it is continued from there by its two moments."""


def rates_of(acceptance: float | Sequence[float], length: int) -> Floats:
    """Returns the acceptance of positions 1 to ``length``; a profile's last rate holds for all that follow it."""
    given = np.atleast_1d(np.asarray(acceptance, dtype=np.float64))
    return np.asarray(given[np.minimum(np.arange(length), len(given) - 1)])


def yields(rates: ArrayLike) -> Floats:
    """Returns the probabilities that a call yields 1, 2, ... k + 1 tokens, given the k positions' rates."""
    a = np.asarray(rates, dtype=np.float64)
    reached = np.concatenate([[1.0], np.cumprod(a)])
    return np.asarray(reached * (1.0 - np.concatenate([a, [0.0]])))


def tokens_per_call(rates: ArrayLike) -> float:
    """Returns the expected tokens of a call."""
    return float(1.0 + np.cumprod(np.asarray(rates, dtype=np.float64)).sum())


def constant_tokens(acceptance: float, length: int) -> float:
    """Returns the expected tokens of a call where every position has one rate: the closed form."""
    return length + 1.0 if acceptance == 1.0 else (1.0 - acceptance ** (length + 1)) / (1.0 - acceptance)


def voted(rates: ArrayLike, drafters: int, correlation: float = 0.0, agreement: float = 0.0) -> Floats:
    """Returns the acceptance per position of the path that ``drafters`` alike drafters vote for.

    Model. At a position, with probability ``correlation`` all drafters that are still on the accepted path say the
    same: the target's token at rate a_j, one wrong token otherwise. Else each says the target's token at rate a_j on
    its own; those that are wrong all say the same wrong token with probability ``agreement``, else all different
    ones. The heaviest token wins, ties go to the drafter that stands first, i.e. to each of the tied alike. A drafter
    that left the path votes no more, so the vote wears off with depth.

    Args:
        rates: of one drafter, per position.
        drafters: how many vote, equal weights.
        correlation: 0 = independent, 1 = copies of one drafter.
        agreement: how often independent errors coincide.
    """
    a = np.asarray(rates, dtype=np.float64)
    on = np.zeros(drafters + 1)  # how many drafters are on the accepted path, given that it is accepted so far
    on[drafters] = 1.0
    found = np.empty_like(a)
    for j, rate in enumerate(a):
        after = np.zeros_like(on)
        for n in range(1, drafters + 1):
            if on[n] == 0.0:
                continue
            after[n] += on[n] * correlation * rate
            for right in range(1, n + 1):
                chance = comb(n, right) * rate**right * (1.0 - rate) ** (n - right)
                win = agreement * _wins(right, [n - right]) + (1.0 - agreement) * _wins(right, [1] * (n - right))
                after[right] += on[n] * (1.0 - correlation) * chance * win
        found[j] = after.sum()
        on = after / found[j] if found[j] > 0 else on
    return found


def _wins(right: int, wrong: list[int]) -> float:
    """How often ``right`` votes win against groups of wrong ones, ties broken evenly."""
    most = max((w for w in wrong if w), default=0)
    return 1.0 if right > most else 1.0 / (1 + wrong.count(right)) if right == most else 0.0


@dataclass(frozen=True, eq=False)
class Process:
    """What calls of the target yield under a policy, in the long run and up to any number of tokens.

    Attributes:
        lengths: drafted tokens of each state of the chain.
        share: long-run share of calls in each.
        start: state of the first call.
        moves: per state and accepted tokens, the state that follows.
        pmf: per state, probabilities of 1, 2, ... tokens.
        drafters: drafters that each draft takes.
        found: share of calls for which there is a draft at all.
        drawn: what a caller has drawn from it, by the caller's key.
    """

    lengths: tuple[int, ...]
    share: Floats
    start: int
    moves: tuple[tuple[int, ...], ...]
    pmf: tuple[Floats, ...]
    drafters: int = 1
    found: float = 1.0
    drawn: dict[Any, tuple[Any, NDArray[np.int64]]] = field(default_factory=dict, repr=False)

    @cached_property
    def tokens(self) -> float:
        """Mean tokens of a call."""
        return float(sum(s * p @ np.arange(1, len(p) + 1) for s, p in zip(self.share, self.pmf, strict=True)))

    @cached_property
    def length(self) -> float:
        """Mean tokens drafted for a call."""
        return float(self.found * (self.share @ np.array(self.lengths)))

    @cached_property
    def variance(self) -> float:
        """Long-run variance of the tokens of a call, what one call tells of the next included."""
        count = len(self.lengths)
        step, reward = np.zeros((count, count)), np.zeros(count)
        for i, (p, moves) in enumerate(zip(self.pmf, self.moves, strict=True)):
            reward[i] = p @ np.arange(1, len(p) + 1)
            np.add.at(step[i], list(moves), p)
        # Poisson's equation: what the state a call ends in promises beyond the mean
        ahead = np.linalg.solve(np.eye(count) - step + self.share, reward - self.tokens)
        total = 0.0
        for i, (p, moves) in enumerate(zip(self.pmf, self.moves, strict=True)):
            gain = np.arange(1, len(p) + 1) - self.tokens + ahead[list(moves)] - ahead[i]
            total += self.share[i] * float(p @ gain**2)
        return total

    def reaches(self, drafted: int) -> float:
        """Returns the share of calls that draft at least so many tokens."""
        return float(self.found * self.share[np.array(self.lengths) >= drafted].sum())

    @cached_property
    def beyond(self) -> Floats:
        """P(more than t calls for m tokens), by t and m from 0 to `EXACT`."""
        most = EXACT + 1
        table = np.zeros((most, most))
        at = np.zeros((len(self.lengths), most))  # by state and tokens so far; what has enough is dropped
        at[self.start, 0] = 1.0
        for t in range(most):
            table[t, 1:] = np.cumsum(at.sum(axis=0))[:-1]
            after = np.zeros_like(at)
            for i, (p, moves) in enumerate(zip(self.pmf, self.moves, strict=True)):
                for j, (chance, to) in enumerate(zip(p, moves, strict=True)):
                    if chance > 0.0:
                        after[to, j + 1 :] += chance * at[i, : most - j - 1]
            at = after
        return table

    def calls(self, tokens: ArrayLike, draw: ArrayLike) -> NDArray[np.int64]:
        """Returns the calls that make at least ``tokens`` tokens, at the quantiles ``draw``.

        Exact up to `EXACT` tokens; beyond, mean and variance grow by 1 / mu and sigma^2 / mu^3 per token (renewal
        theory) from where the exact part ends, normal.

        Args:
            tokens: whole numbers, array.
            draw: from 0 to 1, below it; the same array shape.
        """
        m, u = np.asarray(tokens, dtype=np.int64), np.asarray(draw, dtype=np.float64)
        found = np.zeros(len(m), dtype=np.int64)
        short = np.flatnonzero(m <= EXACT)
        for value in np.unique(m[short]):
            here = short[m[short] == value]
            found[here] = np.searchsorted(-self.beyond[:, value], -u[here], side="left")
        far = np.flatnonzero(m > EXACT)
        if len(far):
            mean, variance = self.moments(m[far])
            least = -(-m[far] // max(len(p) for p in self.pmf))
            normal = np.rint(mean + np.sqrt(variance) * np.interp(u[far], *_normal()))
            found[far] = np.clip(normal, least, m[far])
        return found

    def moments(self, tokens: ArrayLike) -> tuple[Floats, Floats]:
        """Returns mean and variance of the calls that make ``tokens`` tokens (above `EXACT`, array)."""
        m = np.asarray(tokens, dtype=np.float64)
        last = (
            np.arange(EXACT - max(len(p) for p in self.pmf), EXACT) + 1
        )  # where yields are fixed, calls come in steps
        left = self.beyond[:, last]
        mean = left.sum(axis=0)
        variance = (2.0 * np.arange(len(left)) + 1.0) @ left - mean**2
        slope, spread = 1.0 / self.tokens, self.variance / self.tokens**3
        rest, wide = (mean - slope * last).mean(), (variance - spread * last).mean()
        return np.asarray(slope * m + rest), np.maximum(spread * m + wide, 0.0)


def doubt(process: Process, rates: Callable[[float, int], Floats], spread: float) -> float:
    """Returns the standard deviation of log(time per token) that an uncertain acceptance leaves: the delta method.

    Time per token goes with calls per token, so it is ``spread`` x the slope of log(tokens per call). Lengths are held:
    a policy that has chosen the best loses nothing to first order when the acceptance is slightly another (the
    envelope theorem), and one that has not would choose otherwise only to do better.

    Args:
        process: of the policy.
        rates: (shift, length) -> acceptance per position where each rate is so much higher, within 0 to 1.
        spread: standard deviation of the acceptance, shared by all positions and requests.
    """
    step = 1e-4

    def tokens(shift: float) -> float:
        made = (np.cumprod(rates(shift, length)).sum() if length else 0.0 for length in process.lengths)
        return 1.0 + process.found * float(sum(s * m for s, m in zip(process.share, made, strict=True)))

    # the steeper side, since a rate of 0 or 1 has only one
    return spread * max(abs(log(tokens(shift) / tokens(0.0))) for shift in (step, -step)) / step


def chain(
    first: int, follow: Callable[[int, int, int], int], rates: Callable[[int], Floats], *, drafters: int = 1,
    found: float = 1.0,
) -> Process:  # fmt: skip
    """Returns the process of a policy that decides by its last length and what was accepted.

    Args:
        first: length of the first draft.
        follow: (length, proposed, accepted) -> next length.
        rates: length -> acceptance per position.
        drafters: that each draft takes.
        found: share of calls for which a lookup offers a draft; without one a call yields one token.
    """
    lengths, moves, pmf = [first], [], []
    for length in lengths:  # grows as it goes
        p = yields(rates(length))
        nexts = [follow(length, length, j) for j in range(length + 1)]
        if found < 1.0:
            p = found * p + (1.0 - found) * (np.arange(len(p)) == 0)
        lengths += [n for n in dict.fromkeys(nexts) if n not in lengths]
        moves.append(tuple(lengths.index(n) for n in nexts))
        pmf.append(p)
    step = np.zeros((len(lengths), len(lengths)))
    for i, (p, to) in enumerate(zip(pmf, moves, strict=True)):
        np.add.at(step[i], list(to), p)
    # half the time standing still: no period, and the same long-run shares
    share = np.linalg.matrix_power(0.5 * (step + np.eye(len(lengths))), 1 << 20)[0]
    return Process(tuple(lengths), np.asarray(share / share.sum()), 0, tuple(moves), tuple(pmf), drafters, found)


def _normal() -> tuple[Floats, Floats]:
    at = (np.arange(4096) + 0.5) / 4096
    return at, np.array([NormalDist().inv_cdf(float(u)) for u in at])


def speedup(tokens: float, length: float, draft: float, verify: float = 1.0) -> float:
    """Returns how much faster tokens come than one a call (Leviathan et al., theorem 3.8).

    Args:
        tokens: per call.
        length: drafted tokens of a call.
        draft: time of one draft pass over the target's for one token.
        verify: time of a call that checks the draft over that for one token.
    """
    return tokens / (length * draft + verify)
