"""Scalability curves: seconds of an operator on n devices, piecewise ``alpha + beta / n`` between measured counts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf


@dataclass(frozen=True)
class Curve:
    """Seconds of one operator on growing numbers of devices.

    Attributes:
        counts: devices, growing.
        seconds: of the operator on them, falling: a count that is no faster than a smaller one is no choice.
    """

    counts: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses a curve that does not fall.

        Raises:
            ValueError: no point, counts that do not grow from 1 up, or seconds that do not fall to above 0.
        """
        pairs = list(zip(self.counts, self.seconds, strict=True))
        if not pairs or pairs[0][0] < 1 or self.seconds[-1] <= 0:
            raise ValueError("a curve needs counts from 1 and seconds above 0")
        if any(b[0] <= a[0] or b[1] >= a[1] for a, b in pairwise(pairs)):
            raise ValueError("counts must grow and seconds fall: use curve()")

    @cached_property
    def pieces(self) -> tuple[tuple[float, float], ...]:
        """(alpha, beta) between each count and the next."""
        made = []
        for (m, s), (n, t) in pairwise(self._points):
            beta = (s - t) / (1.0 / m - 1.0 / n)
            made.append((s - beta / m, beta))
        return tuple(made)

    @property
    def _points(self) -> list[tuple[int, float]]:
        return list(zip(self.counts, self.seconds, strict=True))

    def time(self, n: float) -> float:
        """Returns seconds on ``n`` devices, a fraction too: below the first count they are shared in turns."""
        if n <= self.counts[0]:
            return self.seconds[0] * self.counts[0] / n if n > 0 else inf
        at = bisect_right(self.counts, n) - 1
        if at == len(self.counts) - 1:
            return self.seconds[-1]
        alpha, beta = self.pieces[at]
        return alpha + beta / n

    def need(self, seconds: float) -> float:
        """Returns the fewest devices, a fraction too, on which it takes at most ``seconds``; inf where none do."""
        if seconds >= self.seconds[0]:
            return self.counts[0] * self.seconds[0] / seconds
        if seconds < self.seconds[-1]:
            return inf
        at = bisect_left([-s for s in self.seconds], -seconds) - 1
        alpha, beta = self.pieces[at]
        return beta / (seconds - alpha)

    def allowed(self, most: int) -> int:
        """Returns the largest count up to ``most``; 0 where none is."""
        at = bisect_right(self.counts, most)
        return self.counts[at - 1] if at else 0

    def following(self, n: int) -> int | None:
        """Returns the next larger count, or None."""
        at = bisect_right(self.counts, n)
        return self.counts[at] if at < len(self.counts) else None

    def on(self, n: int) -> float:
        """Returns seconds on a count of the curve, or on the largest one below it.

        Raises:
            ValueError: fewer devices than the first count.
        """
        at = bisect_right(self.counts, n)
        if not at:
            raise ValueError(f"{n} devices are fewer than {self.counts[0]}")
        return self.seconds[at - 1]


def curve(counts: Sequence[int], seconds: Sequence[float]) -> Curve:
    """Returns the curve of measured points: those that are faster than every smaller count."""
    kept: list[tuple[int, float]] = []
    for n, t in sorted(zip(counts, seconds, strict=True)):
        if not kept or t < kept[-1][1] * (1 - 1e-9):
            kept.append((n, t))
    return Curve(tuple(n for n, _ in kept), tuple(t for _, t in kept))
