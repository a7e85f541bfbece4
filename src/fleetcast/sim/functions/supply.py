"""Nodes without a grid: what their panels give, what their batteries hold, what they draw.

A node draws its idle power, and the rest in proportion to the memory of pods that run on it. Its battery holds the
difference between sun and draw, from empty to full; while it holds no more than its reserve a node starts nothing, what
runs goes on, and once nothing runs the node is off and draws nothing until the sun has filled the battery again.
Between two events draws are constant; the sun is taken at its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.scenario.fleet.signals import Signal


@dataclass(frozen=True)
class Sun:
    """What the nodes of a region live on.

    Attributes:
        irradiance: W/m2.
        panel: W at 1,000 W/m2, of each node.
        battery: J of each node, full at first.
        reserve: share of it below which nothing is started.
        idle: W that a node draws without work; ``busy``: with all its memory at work.
        busy: see ``idle``.
    """

    irradiance: Signal
    panel: float
    battery: float
    reserve: float
    idle: float
    busy: float


class Supply:
    """The batteries of a fleet's nodes.

    Args:
        suns: of each node, what it lives on; None = a grid.
        size: f8[N], memory of each node.

    Attributes:
        energy: f8[N], J left above the reserve; inf on a grid.
    """

    def __init__(self, suns: Sequence[Sun | None], size: NDArray[np.float64]) -> None:
        self.suns = suns
        self.isolated = np.array([sun is not None for sun in suns], bool)
        full = [sun.battery if sun else np.inf for sun in suns]
        self.full, self.level = np.array(full), np.array(full)
        self.kept = np.array([sun.battery * sun.reserve if sun else 0.0 for sun in suns])
        self.idle = np.array([sun.idle if sun else 0.0 for sun in suns])
        self.rest = np.array([(sun.busy - sun.idle) if sun else 0.0 for sun in suns])
        self.panel = np.array([sun.panel if sun else 0.0 for sun in suns])
        self.running = np.zeros(len(suns))
        self.size = size
        self.now = 0.0
        self._signals = {id(sun.irradiance): sun.irradiance for sun in suns if sun}
        lives = [id(sun.irradiance) if sun else 0 for sun in suns]
        self._of = {key: np.array([it == key for it in lives]) for key in self._signals}

    @property
    def any(self) -> bool:
        """Whether a node lives on the sun."""
        return bool(self.isolated.any())

    @property
    def energy(self) -> NDArray[np.float64]:
        """f8[N], J left above the reserve; inf on a grid."""
        left: NDArray[np.float64] = np.where(self.isolated, np.maximum(self.level - self.kept, 0.0), np.inf)
        return left

    def steps(self, span: float) -> list[float]:
        """Returns the times at which the sun changes, s: when nodes may come back."""
        found: set[float] = set()
        for signal in self._signals.values():
            turns = int(span // signal.span) + 1 if np.isfinite(signal.span) else 1
            found.update(t + k * signal.span if k else t for k in range(turns) for t in signal.times)
        return sorted(t for t in found if 0 < t <= span)

    def back(self) -> float:
        """Returns s until the first node that is dark has energy again, the sun staying as it is; inf = it has not."""
        given = np.zeros(len(self.suns))
        for key, signal in self._signals.items():
            given[self._of[key]] = signal.at(self.now) / 1000.0
        gains = given * self.panel - self._draw()
        dark = self.isolated & (self.level <= self.kept) & (gains > 0)
        return float(((self.kept - self.level)[dark] / gains[dark]).min(initial=np.inf))

    def advance(self, now: float) -> None:
        """Lets time pass."""
        spent = now - self.now
        if spent <= 0 or not self.any:
            return
        given = np.zeros(len(self.suns))
        for key, signal in self._signals.items():
            mine = self._of[key]
            given[mine] = signal.mean(self.now, now) / 1000.0 * self.panel[mine]
        level = np.clip(self.level + (given - self._draw()) * spent, 0.0, self.full)
        self.level = np.where(self.isolated, level, self.level)
        self.now = now

    def _draw(self) -> NDArray[np.float64]:
        """f8[N], W of each node now; a dark one on which nothing runs is off."""
        off = (self.level <= self.kept) & (self.running <= 0)
        drawn: NDArray[np.float64] = self.idle + self.rest * np.minimum(self.running / self.size, 1.0)
        return np.where(off, 0.0, drawn)

    def runs(self, node: int, memory: float) -> None:
        """Says that pods of that much memory begin (or, negative, end) to work on a node."""
        self.running[node] += memory
