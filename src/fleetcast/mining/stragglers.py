"""Which ranks of a training job are slow, and which one stopped: from the spans that each rank logs.

Ranks end their steps together, since all wait for the slowest in a collective; only the time that a rank computes
before it tells them apart (Jiang and others, "MegaScale", NSDI 2024, which draws these times as a heat map and looks).
Here each rank is judged by a likelihood ratio. With x the logarithm of its time over the median rank's, sigma the noise
and ``spike`` the chance that something else held a step up,

    log p(x | slower by a) = log((1 - spike) N(x - log(1 + a); sigma) + spike / width)

is added up over iterations: for one ``a`` the most powerful test there is (Neyman and Pearson 1933), and a spike, which
the second term explains, counts for next to nothing. Weighed by how often machines are slow this gives the probability
that a rank is. How slow is not known: most are taken to be slow by ``slower``, some by anything above, for which the
median of their steps stands. Noise is estimated robustly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.record import Record
from fleetcast.scenario.finding import Finding

Array = NDArray[np.float64]

COLLECTIVES = (
    "all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "barrier", "send", "recv", "collective",
)  # fmt: skip
"""Kinds of span in which a rank waits for others."""
FIRST = 0.9
"""Chance that a slow unit is slow by about ``slower``; else it is by anything above."""
REACH = 2.0
"""Range of logarithms over which that may be."""
LEAST_SIGMA = 1e-3


@dataclass(frozen=True)
class Verdict:
    """What is thought of each unit (a rank or a host).

    Attributes:
        chance: f8[n], probability that it is slow.
        slower: f8[n], by which share its steps are longer, as it seems.
        sigma: of the noise of a rank's step, logarithmic.
        iterations: that were looked at.
    """

    chance: Array
    slower: Array
    sigma: float
    iterations: int


def judge(
    seconds: Array, units: Sequence[int] | NDArray[np.int64] | None = None, *, alike: NDArray[np.int64] | None = None,
    slower: float = 0.1, share: float = 0.005, spike: float = 0.01,
) -> Verdict:  # fmt: skip
    """Returns which units are slow.

    Args:
        seconds: f8[ranks, iterations], computation before the collective that all meet in.
        units: of each rank the unit that is judged, e.g. its host: all its ranks are then slow or none; None = itself.
        alike: of each rank a number that ranks with equal work share (pipeline stages); None = all have equal work.
        slower: the least that is worth finding.
        share: of units that are slow, before anything is seen.
        spike: share of steps that something else holds up.

    Raises:
        SpecError: fewer than three ranks, or times that are not positive.
    """
    if seconds.ndim != 2 or seconds.shape[0] < 3 or seconds.shape[1] < 1:
        limit = "three ranks and an iteration at least"
        raise SpecError("record", "is too small to compare ranks", value=list(seconds.shape), limit=limit)
    if not (np.isfinite(seconds).all() and (seconds > 0).all()):
        raise SpecError("record", "has steps without a length", limit="seconds above 0", hint="Drop unfinished steps")
    x = _residuals(seconds, alike)
    sigma = max(LEAST_SIGMA, float(np.median(np.abs(x))) * 1.4826)
    at = np.arange(len(x)) if units is None else np.asarray(units)
    count = int(at.max()) + 1
    width = max(float(x.max() - x.min()), 12.0 * sigma)
    least = float(np.log1p(slower))
    # What it seems to be: the median is what spikes move least.
    sizes = np.bincount(at, minlength=count) * x.shape[1]
    if units is None:
        seems = np.median(x, axis=1)
    else:
        parts = np.split(x[np.argsort(at, kind="stable")].ravel(), np.cumsum(sizes)[:-1])
        seems = np.array([np.median(part) if part.size else 0.0 for part in parts])
    healthy = _likelihood(x, 0.0, sigma, spike, width)

    def gain(shift: Array | float) -> Array:
        per_rank = (_likelihood(x, shift, sigma, spike, width) - healthy).sum(axis=1)
        return np.asarray(np.bincount(at, weights=per_rank, minlength=count), dtype=np.float64)

    # A slowness that is fitted explains more than it should: Laplace's method spreads it over its range.
    spread = np.minimum(1.0, sigma * np.sqrt(2.0 * np.pi / np.maximum(1, sizes)) / REACH)
    fitted = gain(np.maximum(seems, least)[at][:, None]) + np.log((1.0 - FIRST) * spread)
    odds = np.logaddexp(gain(least) + np.log(FIRST), fitted) + np.log(share / (1.0 - share))
    chance = 1.0 / (1.0 + np.exp(-np.clip(odds, -700, 700)))
    return Verdict(chance, np.expm1(seems), sigma, seconds.shape[1])


def _residuals(seconds: Array, alike: NDArray[np.int64] | None) -> Array:
    logs = np.log(seconds)
    if alike is None:
        return np.asarray(logs - np.median(logs, axis=0))
    for kind in np.unique(alike):
        rows = alike == kind
        logs[rows] -= np.median(logs[rows], axis=0)
    return np.asarray(logs)


def _likelihood(x: Array, shift: Array | float, sigma: float, spike: float, width: float) -> Array:
    normal = np.exp(-0.5 * ((x - shift) / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))
    return np.asarray(np.log((1.0 - spike) * normal + spike / width))


def limit(ranks: int, slow: float, slower: float, sigma: float, iterations: int) -> float:
    """Returns the precision and recall of the best test where both are equal: nobody can do better on both.

    Args:
        ranks: in all.
        slow: of them that are slow.
        slower: by which share.
        sigma: of the logarithm of a step, normal and independent.
        iterations: seen.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    d = np.log1p(slower) / sigma * np.sqrt(iterations)
    # Named wrongly as many as missed: precision and recall are then one number.
    at = brentq(lambda t: (ranks - slow) * ndtr(-t) - slow * ndtr(t - d), -10.0, d + 20.0)
    return float(ndtr(d - at))


def stragglers(
    seconds: Array, names: Sequence[str], hosts: Sequence[str] | None = None, *, alike: NDArray[np.int64] | None = None,
    slower: float = 0.1, share: float = 0.005, spike: float = 0.01, sure: float = 0.25,
) -> list[Finding]:  # fmt: skip
    """Returns the slow hosts, and the slow ranks of other hosts, the surest first.

    Args:
        seconds: f8[ranks, iterations], computation before the collective.
        names: of the ranks.
        hosts: of each rank the host; None = ranks alone are judged.
        alike: see `judge`.
        slower: see `judge`.
        share: see `judge`.
        spike: see `judge`.
        sure: the least probability that is reported. Overlooking a slow machine slows all, naming one wrongly costs a
            look at it: hence below one half.
    """
    found: list[tuple[float, float, Finding]] = []
    blamed: set[str] = set()
    asked = partial(judge, seconds, alike=alike, slower=slower, share=share, spike=spike)
    if hosts is not None and len(set(hosts)) < len(names):
        known = {host: i for i, host in enumerate(dict.fromkeys(hosts))}
        at = np.array([known[host] for host in hosts])
        verdict = asked(at)
        for host, i in known.items():
            if verdict.chance[i] >= sure:
                blamed.add(host)
                count = int((at == i).sum())
                found.append(_slow(f"host {host}", verdict, i, f"all its {count} ranks" if count > 1 else "its rank"))
    verdict = asked()
    for i, name in enumerate(names):
        host = hosts[i] if hosts is not None else ""
        if verdict.chance[i] >= sure and host not in blamed:
            found.append(_slow(f"rank {name}" + (f" of host {host}" if host else ""), verdict, i, "the rank alone"))
    return [finding for _, _, finding in sorted(found, key=lambda row: (-row[0], -row[1]))]


def _slow(who: str, verdict: Verdict, i: int, which: str) -> tuple[float, float, Finding]:
    chance, slower = float(verdict.chance[i]), float(verdict.slower[i])
    evidence = (
        f"{which}: median step {slower:+.1%} against the median rank, over {verdict.iterations} iterations",
        f"noise of a rank's step {verdict.sigma:.1%}",
    )
    values = {"slower": slower, "sigma": verdict.sigma, "iterations": verdict.iterations}
    finding = Finding(
        "straggler", who, f"computes {slower:.0%} longer; all others wait for it", chance, evidence, values
    )
    return chance, slower, finding


def compute(record: Record) -> tuple[Array, list[int]]:
    """Returns what each rank computes before each collective, from its spans in order.

    Args:
        record: a rank is a resource; spans of ``COLLECTIVES`` end an iteration's computation.

    Returns:
        seconds f8[ranks, iterations], cut to the iterations that all of the ranks finished, and which resources these
        ranks are. A rank that finished none of its steps is left out.
    """
    waits = np.array([what in COLLECTIVES for what in record.whats], dtype=bool)
    rows: list[list[float]] = []
    who: list[int] = []
    for rank in range(len(record.resources)):
        at = np.flatnonzero(record.resource == rank)
        at = at[np.argsort(record.time[at], kind="stable")]
        steps, busy = [], 0.0
        for i in at:
            if not np.isfinite(record.duration[i]):
                if waits[record.what[i]] and busy > 0:
                    steps.append(busy)
                break
            if not waits[record.what[i]]:
                busy += float(record.duration[i])
            elif busy > 0:
                steps.append(busy)
                busy = 0.0
        if not waits[record.what[at]].any() if len(at) else False:
            steps = [float(s) for s in record.duration[at] if np.isfinite(s)]  # one span a step, no collectives logged
        if steps:
            rows.append(steps)
            who.append(rank)
    whole = min((len(steps) for steps in rows), default=0)
    return np.array([steps[:whole] for steps in rows], dtype=np.float64).reshape(len(rows), whole), who


def hangs(record: Record, hosts: Sequence[str] | None = None) -> list[Finding]:
    """Returns the ranks that stopped while the others wait for them.

    A span without an end (its duration infinite or not a number) is what a rank is in. If some rank waits in a
    collective so, then those that hold it up are the ones that began fewest spans and wait in none: they logged nothing
    more, or never came out of what they began. Where every rank waits, no rank is to blame but what joins them.

    Args:
        record: a rank is a resource.
        hosts: of each rank the host.
    """
    open_ = ~np.isfinite(record.duration)
    waits = np.array([what in COLLECTIVES for what in record.whats], dtype=bool)
    waiting = np.zeros(len(record.resources), dtype=bool)
    if len(record):
        stuck = open_ & waits[record.what]
        waiting[record.resource[stuck]] = True
    if not waiting.any():
        return []
    count = len(record.resources)
    begun = np.bincount(record.resource, minlength=count)
    most = int(begun[waiting].max())
    behind = ~waiting & (begun < most)
    held = sum(waiting)
    if not behind.any():
        text = "every rank waits in a collective: what joins them, not a rank, is to blame"
        return [Finding("hang", "the network", text, 0.5, (f"{held} ranks wait",), {"waiting": int(held)})]
    found = []
    # Of those that do not wait, the ones furthest behind: others may be held up by them.
    for rank in np.flatnonzero(behind & (begun == begun[behind].min())).tolist():
        rows = np.flatnonzero(record.resource == rank)
        last = rows[np.argmax(record.time[rows])] if len(rows) else None
        said = "logged nothing at all" if last is None else (
            f"began {record.whats[record.what[last]]} and never ended it" if open_[last]
            else f"ended {record.whats[record.what[last]]} and logged nothing after"
        )  # fmt: skip
        since = float(record.time.max())
        quiet = since - (
            0.0 if last is None else float(record.time[last] + (0 if open_[last] else record.duration[last]))
        )
        who = f"rank {record.resources[rank]}" + (f" of host {hosts[rank]}" if hosts is not None else "")
        evidence = (
            f"it began {int(begun[rank])} spans, those that wait began {most}",
            f"quiet for {quiet:.3g} s when the last rank was heard", f"{held} of {count} ranks wait in a collective",
        )  # fmt: skip
        values = {"begun": int(begun[rank]), "most": most, "quiet": quiet, "waiting": int(held)}
        found.append(Finding("hang", who, said, 1.0, evidence, values))
    return found
