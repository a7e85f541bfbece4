"""Many jobs: when each arrives, what it asks for and how much work it is. Columns of length n, in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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
        user: i4[n], index into ``users``; None = nobody says.
        users: names.
        deadline: f8[n], s by which each should have ended, inf = none; None = no job has one.
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
    user: NDArray[np.int32] | None = None
    users: tuple[str, ...] = ("",)
    deadline: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self.arrival)

    @property
    def work(self) -> float:
        """Device-seconds of all jobs."""
        return float(self.seconds @ self.demand)

    def name(self, job: int) -> str:
        """Returns what a job is called."""
        return self.names[job] if self.names else f"job {job}"

    def rows(self, chosen: Any) -> Jobs:
        """Returns some of the jobs, by a slice, a mask or indices."""
        cut = {name: column[chosen] for name in COLUMNS if (column := getattr(self, name)) is not None}
        names = tuple(np.array(self.names, object)[chosen]) if self.names else ()
        return replace(self, **cut, names=names)


COLUMNS = ("arrival", "demand", "least", "most", "seconds", "model", "priority", "weight", "user", "units", "deadline")


def of(
    arrival: ArrayLike, demand: ArrayLike, seconds: ArrayLike, *, least: ArrayLike | None = None,
    most: ArrayLike | None = None, model: ArrayLike = 0, priority: ArrayLike = 0, weight: ArrayLike = 1.0,
    user: ArrayLike | None = None, units: ArrayLike | None = None, names: Sequence[str] = (),
    models: tuple[str, ...] = ("",), users: tuple[str, ...] = ("",), source: str = "",
    deadline: ArrayLike | None = None,
) -> Jobs:  # fmt: skip
    """Returns jobs sorted by arrival, equal ones as they were written; what is left out is the plainest."""
    when = np.asarray(arrival, np.float64)
    turn = np.argsort(when, kind="stable")

    def ints(column: ArrayLike) -> NDArray[np.int32]:
        return np.broadcast_to(np.asarray(column), len(when)).astype(np.int32)[turn]

    def floats(column: ArrayLike) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(column), len(when)).astype(np.float64)[turn]

    return Jobs(
        arrival=when[turn], demand=ints(demand), least=ints(demand if least is None else least),
        most=ints(demand if most is None else most), seconds=floats(seconds), model=ints(model),
        priority=ints(priority), weight=floats(weight), names=tuple(names[i] for i in turn) if names else (),
        models=models, source=source, units=None if units is None else floats(units),
        user=None if user is None else ints(user), users=users,
        deadline=None if deadline is None else floats(deadline),
    )  # fmt: skip
