"""What a question costs: time that was measured, energy that is estimated from power, memory that was counted.

No counter of energy is read: not every machine has one that a user may read. The estimate is that of a device which
draws from its idle to its highest power as its processors are used, and names its sources.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.profile import assumed_power
from fleetcast.runtime.measure.quality.score import Answered
from fleetcast.scenario.fleet import catalog


@dataclass(frozen=True, slots=True)
class Watts:
    """A device's power (W) when idle and at most, where it is known from, cores to share use over; 0 = not known."""

    idle: float
    most: float
    source: str
    cores: int = 0


def watts_of(device: str, *, remote: bool = False) -> Watts:
    """Returns the power of a device of the catalogue, of a profile, or of this machine's processor ("").

    Raises:
        SpecError: no such device or file.
    """
    machine = this_machine()
    if not device:
        (idle, most), source = assumed_power(machine.cores)
        return Watts(idle, most, source, machine.cores)
    found = catalog.profile(Path(device)) if device.endswith(".toml") else catalog.device(device)
    return Watts(found.power.idle, found.power.max, f"{found.id}: {found.power.source}", 0 if remote else machine.cores)


class Meter:
    """Measures while its block runs.

    Args:
        watts: of the device; None = energy is not estimated.

    Attributes:
        weights: bytes of the model's weights; 0 = not known.
        cache_token: bytes of KV cache of a token.
    """

    def __init__(self, watts: Watts | None = None) -> None:
        self.watts, self.weights, self.cache_token = watts, 0, 0.0
        self._rss = peak_rss()
        self._wall = self._cpu = 0.0

    def __enter__(self) -> Meter:
        """Begins."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def table(self, rows: Sequence[Answered]) -> dict[str, Any]:
        """Returns what asking a question once costs: ``seconds``, ``joules`` by ``method``, bytes."""
        seconds = sum(row.seconds for row in rows) / len(rows)
        draw, method = self._draw()
        tokens = max(row.tokens for row in rows)
        return {
            "seconds": seconds, "joules": None if draw is None else seconds * draw, "watts": draw, "method": method,
            "tokens": sum(row.tokens for row in rows) / len(rows), "weight_bytes": self.weights,
            "cache_bytes_per_token": self.cache_token, "cache_bytes_longest": tokens * self.cache_token,
            "rss_bytes": peak_rss(), "rss_growth_bytes": max(0, peak_rss() - self._rss),
        }  # fmt: skip

    def _draw(self) -> tuple[float | None, str]:
        if self.watts is None:
            return None, "energy is not estimated: the device is not known"
        w = self.watts
        if not w.cores:
            return w.most, f"estimated, at most: seconds x {w.most:.4g} W, the highest power ({w.source})"
        used = min(1.0, self._cpu / (self._wall * w.cores)) if self._wall > 0 else 0.0
        draw = w.idle + (w.most - w.idle) * used
        return draw, (
            f"estimated: seconds x {draw:.4g} W, from {w.idle:.4g} W idle to {w.most:.4g} W at most by {used:.0%} use "
            f"of {w.cores} cores ({w.source})"
        )


def peak_rss() -> int:
    """Returns the most memory that this process has held, B; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
