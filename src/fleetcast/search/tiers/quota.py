"""What answers asked one after the other take under a CPU quota: slices of periods, caches cold after each.

Pure functions of seconds. Nothing is fitted: how much a pause costs is read off a curve that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, inf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEAST = 0.02
"""Of CPU time, what does work however cold caches are: without it a slice might never end."""


@dataclass(frozen=True)
class Pauses:
    """What a pause costs: of the first ``slices`` s of CPU after it, ``lost`` s do no work, caches being cold.

    Both grow; in between they are interpolated from (0, 0) on, and beyond the last slice nothing more is lost.
    """

    slices: tuple[float, ...] = ()
    lost: tuple[float, ...] = ()

    def done(self, ran: float) -> float:
        """Returns the s of work that ``ran`` s of CPU after a pause do."""
        at, work = self._table()
        return float(np.interp(ran, at, work)) + max(0.0, ran - float(at[-1]))

    def needed(self, done: float) -> float:
        """Returns the s of CPU after a pause that do ``done`` s of work."""
        at, work = self._table()
        return float(np.interp(done, work, at)) + max(0.0, done - float(work[-1]))

    def _table(self) -> tuple[Array, Array]:
        at = np.array([0.0, *self.slices])
        steps = np.maximum(np.diff(at - np.array([0.0, *self.lost])), _LEAST * np.diff(at))
        return at, np.array([0.0, *np.cumsum(np.minimum(steps, np.diff(at)))])


def lost_of(work: float, held: float, share: float, period: float) -> float:
    """Returns s lost per pause, where ``work`` s of CPU became ``held`` s under a quota that was always used up."""
    return max(0.0, 1.0 - work / held) * share * period


def answered(works: Iterable[float], gap: float, share: float, pauses: Pauses, period: float) -> Array:
    """Returns s from the arrival of each request to its answer, each asked ``gap`` s after the answer before it.

    A quota of ``share * period`` s may be used in each period; what is left at its end is lost, and who has used it up
    is paused until then. A period that ends meanwhile costs nothing.

    Args:
        works: s of CPU of each, without pauses.
        gap: s between an answer and the next request, in which nothing runs.
        share: of a core; 1 or more = no quota.
        pauses: what each costs.
        period: s.
    """
    works = [max(0.0, work) for work in works]
    if share >= 1:
        return np.array(works)
    most, clock, number, used, ran = share * period, 0.0, 0, 0.0, inf
    found = []
    for left in works:
        begin = clock
        while True:
            now = floor(clock / period + 1e-9)
            if now > number:
                number, used = now, 0.0
            if most - used <= 1e-12 * period and left > 0:
                number, used, ran = number + 1, 0.0, 0.0
                clock = number * period
            room = min(most - used, (number + 1) * period - clock)
            before = 0.0 if ran == inf else pauses.done(ran)
            need = left if ran == inf else pauses.needed(before + left) - ran
            if need <= room:
                clock, used, ran = clock + need, used + need, ran + need
                break
            clock, used, ran = clock + room, used + room, ran + room
            left -= room if ran == inf else pauses.done(ran) - before
        found.append(clock - begin)
        clock += gap
    return np.array(found)
