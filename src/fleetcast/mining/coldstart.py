"""Where cold starts come from: which part of a start takes longest in each region, and which starts could be foreseen.

Joosen and others, "Serverless Cold Starts and Where to Find Them", EuroSys 2025, cut a start into allocating a pod,
deploying code, deploying dependencies and scheduling, and find that the part that dominates differs from region to
region; that pods of some runtimes hardly ever repay their start (utility: useful life over the time to start); and that
timers start cold at nearly every tick. Here the same is asked of a log, and each answer says how sure it is: functions
are drawn again with replacement, as starts of one function are alike, and the share of draws that agree is the
probability. A function fires at equal gaps where nine tenths of the gaps of its starts lie within a fiftieth of their
median; gaps are of starts, as that is all that a log of starts has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.base.show import show
from fleetcast.scenario.finding import Finding
from fleetcast.scenario.workload.invocations.coldstarts import ColdStarts
from fleetcast.scenario.workload.invocations.trace import COMPONENTS, UNKNOWN

Array = NDArray[np.float64]
WORDS = {
    "pod_allocation": "allocating the pod", "code": "deploying code", "dependencies": "deploying dependencies",
    "scheduling": "scheduling",
}  # fmt: skip
DRAWS = 400
LEAST_GAPS = 4
SCATTER = 0.02
HOUR = 3600.0


@dataclass(frozen=True)
class Group:
    """Starts that have something in common: a region, a runtime, a trigger, a size of pod.

    Attributes:
        name: what they have in common.
        starts: how many.
        functions: of how many functions.
        mean: s of a start. median, p99: likewise.
        parts: f8[4], s of each component, on average.
        dominant: index of the largest.
        sure: probability that it is the largest, were functions drawn anew.
        utility: of the pods, the median; nan where requests are not known.
        below: share of pods whose utility is below 1; nan likewise.
    """

    name: str
    starts: int
    functions: int
    mean: float
    median: float
    p99: float
    parts: Array
    dominant: int
    sure: float
    utility: float
    below: float

    def table(self) -> dict[str, object]:
        """Returns a row for JSON; what is not known is None."""
        known = self.utility == self.utility
        return {
            "name": self.name, "starts": self.starts, "functions": self.functions, "mean": self.mean,
            "median": self.median, "p99": self.p99,
            "parts": dict(zip(COMPONENTS, self.parts.tolist(), strict=True)),
            "dominant": COMPONENTS[self.dominant], "sure": self.sure,
            "utility": self.utility if known else None, "below_1": self.below if known else None,
        }  # fmt: skip


def grouped(log: ColdStarts, of: NDArray[np.int32], names: Sequence[str], *, seed: int = 0) -> list[Group]:
    """Returns the groups of a log, those with most starts first.

    Args:
        log: the starts.
        of: i[n], the group of each start.
        names: of the groups.
        seed: of the draws.
    """
    found = [_group(log, np.flatnonzero(of == g), name, seed) for g, name in enumerate(names) if (of == g).any()]
    return sorted(found, key=lambda group: -group.starts)


def _group(log: ColdStarts, rows: NDArray[np.int64], name: str, seed: int) -> Group:
    total, parts = log.total[rows], log.parts[rows]
    functions, of = np.unique(log.function[rows], return_inverse=True)
    sums = np.stack([np.bincount(of, parts[:, c], len(functions)) for c in range(len(COMPONENTS))], axis=1)
    means = parts.mean(axis=0)
    dominant = int(np.argmax(means))
    draws = rng(seed, "mining", "coldstart").multinomial(
        len(functions), np.full(len(functions), 1 / len(functions)), DRAWS
    )
    sure = float((np.argmax(draws @ sums, axis=1) == dominant).mean())
    utility = log.useful[rows] / total
    utility = utility[np.isfinite(utility)]
    half, most = np.percentile(total, (50, 99))
    return Group(
        name, len(rows), len(functions), float(total.mean()), float(half), float(most), means, dominant, sure,
        float(np.median(utility)) if len(utility) else float("nan"),
        float((utility < 1.0).mean()) if len(utility) else float("nan"),
    )  # fmt: skip


def regular(log: ColdStarts) -> NDArray[np.bool_]:
    """Returns bool[F], whether a function's starts come at equal gaps."""
    order = np.lexsort((log.time, log.function))
    ends = np.cumsum(np.bincount(log.function, minlength=len(log.functions)))
    found = np.zeros(len(log.functions), bool)
    for f, (begin, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        gaps = np.diff(log.time[order[begin:end]])
        if len(gaps) >= LEAST_GAPS and (usual := float(np.median(gaps))) > 0:
            found[f] = np.quantile(np.abs(gaps - usual), 0.9) <= SCATTER * usual
    return found


def findings(log: ColdStarts, *, sure: float = 0.9, seed: int = 0) -> list[Finding]:
    """Returns what a log says: of each region the part that dominates, starts that could be foreseen, idle pods.

    Args:
        log: the starts.
        sure: least probability of what is reported.
        seed: of the draws.
    """
    found = []
    for group in grouped(log, log.region, log.regions, seed=seed):
        if group.sure >= sure:
            found.append(_dominant(log, group))
    found += _foreseen(log)
    if log.runtimes != (UNKNOWN,) and np.isfinite(log.useful).any():
        for group in grouped(log, log.runtime[log.function], log.runtimes, seed=seed):
            if group.below >= 0.5 and group.starts >= 20:
                found.append(_wasted(group))
    return found


def _dominant(log: ColdStarts, group: Group) -> Finding:
    share = group.parts / max(float(group.parts.sum()), 1e-300)
    order = np.argsort(-share, kind="stable")
    mine = log.region == log.regions.index(group.name)
    hours = np.unique((log.time[mine] // HOUR).astype(np.int64), return_inverse=True)[1]
    sums = np.stack([np.bincount(hours, log.parts[mine, c]) for c in range(len(COMPONENTS))], axis=1)
    agree = int((np.argmax(sums, axis=1) == group.dominant).sum())
    first, second = (WORDS[COMPONENTS[i]] for i in order[:2])
    lines = [
        f"{group.starts:,} starts of {group.functions:,} functions: median {show(group.median, 's')}, mean "
        f"{show(group.mean, 's')}, p99 {show(group.p99, 's')}",
        ", ".join(
            f"{WORDS[COMPONENTS[i]]} {show(float(group.parts[i]), 's')} ({share[i]:.0%})" for i in order
        ),
        f"the largest part in {agree} of {len(sums)} hours; after it comes {second}",
    ]  # fmt: skip
    if group.utility == group.utility:
        lines.append(f"utility of its pods: median {group.utility:.2g}, {group.below:.0%} below 1")
    return Finding(
        "dominant part", f"region {group.name}" if group.name else "all starts",
        f"{first} takes {share[group.dominant]:.0%} of what starts take", group.sure, tuple(lines),
        {"component": COMPONENTS[group.dominant], "share": float(share[group.dominant])} | group.table(),
    )  # fmt: skip


def _foreseen(log: ColdStarts) -> list[Finding]:
    timers = regular(log)
    share = float(timers[log.function].mean())
    if share < 0.05:
        return []
    seconds = float(log.total[timers[log.function]].sum())
    lines = [
        f"{int(timers.sum()):,} of {len(timers):,} functions: nine tenths of the gaps between their starts lie within "
        f"{SCATTER:.0%} of the median",
        f"their starts take {show(seconds, 's')} of {show(float(log.total.sum()), 's')}",
    ]
    if log.triggers != (UNKNOWN,):
        named = np.array(["TIMER" in trigger.upper() for trigger in log.triggers])[log.trigger]
        lines.append(f"{int((timers & named).sum()):,} of them are invoked by a timer, as the table of triggers says")
    return [
        Finding(
            "foreseeable", "functions at equal gaps",
            f"{share:.0%} of starts could be foreseen: warm their pods before the tick", 1.0, tuple(lines),
            {"share": share, "functions": int(timers.sum())},
        )
    ]  # fmt: skip


def _wasted(group: Group) -> Finding:
    return Finding(
        "low utility", f"runtime {group.name}",
        f"{group.below:.0%} of pods are of use for less time than they took to start", 1.0,
        (f"{group.starts:,} starts, median {show(group.median, 's')}; median utility {group.utility:.2g}",),
        group.table(),
    )  # fmt: skip
