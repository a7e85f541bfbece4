"""A trace of invocations as columns: of each function a run of rows in order of arrival, and what it takes to start.

Functions are independent of each other where nothing is short, so a function's rows lie together: a world walks them
once, in one direction, and needs no queue of events across functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.base.errors import SpecError

COMPONENTS = ("pod_allocation", "code", "dependencies", "scheduling")
"""Parts of a cold start, as the published trace has them: finding or making a pod, fetching code, then dependencies,
then networking, routing and scheduling."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Invocations:
    """Columns of n invocations of F functions.

    Attributes:
        names: of the functions.
        first: i8[F + 1], the rows of function f are first[f] to first[f + 1].
        time: f8[n], arrival, s from 0; ascending within a function.
        duration: f8[n], s that the function runs once it has a warm pod.
        memory: f8[F], B of a pod.
        region: i4[F], index into ``regions``.
        regions: their names.
        trigger: i4[F], index into ``triggers``, such as "TIMER-A".
        triggers: their names.
        runtime: i4[F], index into ``runtimes``.
        runtimes: their names.
        asynchronous: bool[F], nobody waits for the answer.
        caller: i4[F], the function whose invocations lead to this one's, -1 = none that is known.
        row: i8[F + 1], the starts of function f are row[f] to row[f + 1], taken in turn.
        starts: f8[R, 4], s by component.
        span: s that the trace covers.
        source: where it is from.
    """

    names: tuple[str, ...]
    first: NDArray[np.int64]
    time: NDArray[np.float64]
    duration: NDArray[np.float64]
    memory: NDArray[np.float64]
    region: NDArray[np.int32]
    regions: tuple[str, ...]
    trigger: NDArray[np.int32]
    triggers: tuple[str, ...]
    runtime: NDArray[np.int32]
    runtimes: tuple[str, ...]
    asynchronous: NDArray[np.bool_]
    caller: NDArray[np.int32]
    row: NDArray[np.int64]
    starts: NDArray[np.float64]
    span: float
    source: str

    def __len__(self) -> int:
        """Number of invocations."""
        return len(self.time)

    @property
    def function(self) -> NDArray[np.int64]:
        """i8[n], the function of each row."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.first))

    @property
    def total(self) -> NDArray[np.float64]:
        """f8[R], s of each start."""
        found: NDArray[np.float64] = self.starts.sum(axis=1)
        return found

    def arrivals(self, function: int) -> NDArray[np.float64]:
        """Returns when a function is invoked, s."""
        return self.time[self.first[function] : self.first[function + 1]]

    def with_starts(self, starts: ArrayLike, row: ArrayLike) -> Invocations:
        """Returns the same invocations with other cold starts."""
        return replace(self, starts=np.asarray(starts, np.float64), row=np.asarray(row, np.int64))


def assemble(
    *, names: Sequence[str], function: ArrayLike, time: ArrayLike, duration: ArrayLike, source: str,
    memory: ArrayLike = 128e6, region: ArrayLike = 0, regions: Sequence[str] = ("",), trigger: ArrayLike = 0,
    triggers: Sequence[str] = (UNKNOWN,), runtime: ArrayLike = 0, runtimes: Sequence[str] = (UNKNOWN,),
    asynchronous: ArrayLike = False, caller: ArrayLike = -1, starts: ArrayLike = (0.0, 0.0, 0.0, 0.0),
    row: ArrayLike | None = None, span: float = 0.0, path: str = "trace",
) -> Invocations:  # fmt: skip
    """Returns a trace of rows in any order; what is a scalar holds of every function.

    Args:
        names: of the F functions.
        function: i8[n], of each row.
        time: f8[n], s.
        duration: f8[n], s.
        source: where it is from.
        memory: B of a pod.
        region: index into ``regions``.
        regions: names.
        trigger: index into ``triggers``.
        triggers: names.
        runtime: index into ``runtimes``.
        runtimes: names.
        asynchronous: nobody waits for the answer.
        caller: the function that leads to this one, or -1.
        starts: f8[R, 4], or one row for all functions.
        row: i8[F + 1]; None = every function takes all of ``starts`` in turn.
        span: s; at least up to the last arrival.
        path: where it stands, for errors.

    Raises:
        SpecError: a time or duration that is negative or not finite, or a pod without memory; names the function.
    """
    count = len(names)

    def each(value: ArrayLike, dtype: Any) -> NDArray[Any]:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), (count,)))

    at, began, lasts = np.asarray(function, np.int64), np.asarray(time, np.float64), np.asarray(duration, np.float64)
    for column, what in ((began, "arrival"), (lasts, "duration")):
        bad = ~np.isfinite(column) | (column < 0)
        if bad.any():
            i = int(np.argmax(bad))
            raise SpecError(
                f"{path}, function {names[at[i]]}, {what}", "is not a time", value=float(column[i]),
                limit="seconds, 0 and above", hint="Correct the row",
            )  # fmt: skip
    room = each(memory, np.float64)
    if count and not (room > 0).all():
        i = int(np.argmax(~(room > 0)))
        raise SpecError(
            f"{path}, function {names[i]}, memory", "is no pod's", value=float(room[i]), limit="above 0 B",
            hint="Correct it, or say workload.memory",
        )  # fmt: skip
    order = np.lexsort((began, at))
    table = np.atleast_2d(np.asarray(starts, np.float64))
    shared = np.broadcast_to(table, (max(1, len(table)), len(COMPONENTS)))
    if row is None:
        # every function walks the same rows: their copies cost more than the walk, so F rows of one table each
        row = np.arange(count + 1, dtype=np.int64) * len(shared)
        shared = np.tile(shared, (max(1, count), 1))
    last = float(began.max()) if len(began) else 0.0
    return Invocations(
        names=tuple(names), first=np.concatenate([[0], np.cumsum(np.bincount(at, minlength=count))]).astype(np.int64),
        time=began[order], duration=lasts[order], memory=room, region=each(region, np.int32), regions=tuple(regions),
        trigger=each(trigger, np.int32), triggers=tuple(triggers), runtime=each(runtime, np.int32),
        runtimes=tuple(runtimes), asynchronous=each(asynchronous, np.bool_), caller=each(caller, np.int32),
        row=np.asarray(row, np.int64), starts=np.ascontiguousarray(shared),
        span=max(span, math.nextafter(last, math.inf)), source=source,
    )  # fmt: skip
