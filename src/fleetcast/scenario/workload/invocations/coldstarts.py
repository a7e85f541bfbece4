"""Reader of logged cold starts in a published schema.

Joosen and others, "Serverless Cold Starts and Where to Find Them", EuroSys 2025: a row per start with its components,
and beside it a table of runtimes and triggers. A function is what the trace calls funcID: funcName, userID and the
pool's name, joined by "---".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.invocations.tables import numbered, read_table
from fleetcast.scenario.workload.invocations.trace import UNKNOWN

Array = NDArray[np.float64]
COLUMNS = ("podAllocationCost", "deployCodeCost", "deployDependencyCost", "schedulingCost")
"""Of the components, in their order in `trace.COMPONENTS`."""
TOTAL = "totalCost_cold_start"
_POOL = re.compile(r"(pool\d+-\d+-\d+)")


@dataclass(frozen=True)
class ColdStarts:
    """Columns of n logged starts.

    Attributes:
        time: f8[n], s.
        total: f8[n], s that each took, as logged.
        parts: f8[n, 4], s by component.
        pod: names of the pods.
        function: i4[n], index into ``functions``.
        functions: their names.
        region: i4[n], index into ``regions``.
        regions: their names; one without a name where the file has no column.
        pool: i4[n], index into ``pools``.
        pools: CPU and memory limits of pods, such as "pool22-300-128".
        runtime: i4[F], index into ``runtimes``.
        runtimes: their names; "unknown" where nothing says so.
        trigger: i4[F], index into ``triggers``.
        triggers: likewise.
        useful: f8[n], s that each pod lived without its last keep-alive; nan where requests are not known.
    """

    time: Array
    total: Array
    parts: Array
    pod: tuple[str, ...]
    function: NDArray[np.int32]
    functions: tuple[str, ...]
    region: NDArray[np.int32]
    regions: tuple[str, ...]
    pool: NDArray[np.int32]
    pools: tuple[str, ...]
    runtime: NDArray[np.int32]
    runtimes: tuple[str, ...]
    trigger: NDArray[np.int32]
    triggers: tuple[str, ...]
    useful: Array

    def __len__(self) -> int:
        """Number of starts."""
        return len(self.time)


def read_cold_starts(path: Path, *, kinds: Path | None = None, requests: Path | None = None) -> ColdStarts:
    """Returns the starts of a file.

    Args:
        path: .csv or .csv.gz with the published columns; ``region`` where there are several.
        kinds: the table of runtimes and triggers by ``funcID``.
        requests: the table of requests, with ``podID``, ``time_worker`` and ``totalCost_worker``: until when pods were
            of use.

    Raises:
        SpecError: unreadable, a column missing, or a value that cannot be; names row and column.
    """
    table = read_table(path)
    pods = table.texts("podID")
    pools = [found[1] if (found := _POOL.search(pod)) else UNKNOWN for pod in pods]
    users = table.texts("userID") if table.has("userID") else [""] * len(pods)
    names = ["---".join(key) for key in zip(table.texts("funcName"), users, pools, strict=True)]
    functions, function = numbered(names)
    regions, region = numbered(table.texts("region") if table.has("region") else [""] * len(pods))
    pool_names, pool = numbered(pools)
    parts = np.array([table.numbers(column) for column in COLUMNS]).T
    total = np.array(table.numbers(TOTAL)) if table.has(TOTAL) else parts.sum(axis=1)
    if not (total > 0).all():
        raise SpecError(
            f"{table.name}, row {int(np.argmax(~(total > 0))) + 1}, {TOTAL}", "is no start's", value=0,
            limit="above 0 s", hint="Leave the row out",
        )  # fmt: skip
    runtimes, runtime, triggers, trigger = _kinds(functions, kinds)
    time = np.array(table.numbers("time"))
    return ColdStarts(
        time=time, total=total, parts=parts, pod=tuple(pods), function=np.array(function, np.int32),
        functions=functions, region=np.array(region, np.int32), regions=regions, pool=np.array(pool, np.int32),
        pools=pool_names, runtime=runtime, runtimes=runtimes, trigger=trigger, triggers=triggers,
        useful=_useful(pods, time + total, requests),
    )  # fmt: skip


def _kinds(
    functions: tuple[str, ...], path: Path | None
) -> tuple[tuple[str, ...], NDArray[np.int32], tuple[str, ...], NDArray[np.int32]]:  # fmt: skip
    if path is None:
        nothing = np.zeros(len(functions), np.int32)
        return (UNKNOWN,), nothing, (UNKNOWN,), nothing
    table = read_table(path)
    ids = table.texts("funcID")
    said = {name: dict(zip(ids, table.texts(name), strict=True)) for name in ("runtime", "triggerType-invocationType")}
    (runtimes, runtime), (triggers, trigger) = (
        numbered([column.get(function) or UNKNOWN for function in functions]) for column in said.values()
    )
    return runtimes, np.array(runtime, np.int32), triggers, np.array(trigger, np.int32)


def _useful(pods: list[str], ready: Array, path: Path | None) -> Array:
    """f8[n], s from a pod's being ready until the end of its last request."""
    if path is None:
        return np.full(len(pods), np.nan)
    table = read_table(path)
    last: dict[str, float] = {}
    begins, lasts = table.numbers("time_worker"), table.numbers("totalCost_worker")
    for pod, begin, takes in zip(table.texts("podID"), begins, lasts, strict=True):
        last[pod] = max(last.get(pod, 0.0), begin + takes)
    ends = np.array([last.get(pod, np.nan) for pod in pods])
    useful: Array = np.maximum(ends - ready, 0.0)
    return useful
