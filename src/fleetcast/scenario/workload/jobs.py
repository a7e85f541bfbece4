"""Many jobs: when each arrives, what it asks for and how much work it is. Columns of length n, in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Jobs:
    """A trace of jobs.

    Attributes:
        arrival: f8[n], s, ascending.
        demand: i4[n], devices that each asks for.
        least: i4[n], the fewest that it runs on.
        most: i4[n], the most that it can use.
        seconds: f8[n], s of its work on ``demand`` devices of the kind that the trace was measured on.
        model: i4[n], index into ``models``; what it runs, where speeds by placement are known.
        priority: i4[n].
        weight: f8[n], of its fair share.
        names: of the jobs; () = their numbers.
        models: names.
        source: where the trace is from.
        units: f8[n], of its work in the units of a table of speeds (steps, say) where the trace counts so; None = by
            ``seconds``.
    """

    arrival: NDArray[np.float64]
    demand: NDArray[np.int32]
    least: NDArray[np.int32]
    most: NDArray[np.int32]
    seconds: NDArray[np.float64]
    model: NDArray[np.int32]
    priority: NDArray[np.int32]
    weight: NDArray[np.float64]
    names: tuple[str, ...] = ()
    models: tuple[str, ...] = ("",)
    source: str = ""
    units: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self.arrival)

    @property
    def work(self) -> float:
        """Device-seconds of all jobs."""
        return float(self.seconds @ self.demand)
