"""MegaScale's stragglers: which of 1,024 ranks is slow, from the time that each computes before a collective.

Ranks end their steps together, so that only this time tells them apart. The traces are synthetic and were frozen before
the rule was tuned: 5 % log-normal noise, 1 % of steps twice as long, 5 of 1,024 ranks (0.5 %) 10 % slower. The rule was
tuned on other seeds than those that are counted here.

The limit is the best test's: with equal precision and recall, no rule can name the slow ranks better (Neyman and
Pearson 1933). It knows the noise and has no spikes to bear. Rules beside ours: the ranks that were once slower than
1.25 times the median (where a single step is looked at), and those whose mean is 5 % above it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Set
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, main
from fleetcast.base.record import Record as Log
from fleetcast.base.rng import rng
from fleetcast.mining.stragglers import Array, hangs, judge, limit

RANKS, SLOW, SLOWER, SIGMA, SPIKES = 1024, 5, 0.1, 0.05, 0.01
"""The frozen setting."""
SURE = 0.25
"""Where precision and recall were equal on the seeds that the rule was tuned on; the default of `watch train`."""
HOST = 8
"""Ranks of a host, where hosts are judged."""
Rule = Callable[[Array], Set[int]]


def trace(seed: int, iterations: int, *, slow: int = SLOW, slower: float = SLOWER) -> tuple[Array, set[int]]:
    """Returns synthetic seconds f8[ranks, iterations], and which ranks are slow."""
    draw = rng(seed, "synthetic", "stragglers")
    who = draw.choice(RANKS, slow, replace=False)
    made = np.exp(SIGMA * draw.standard_normal((RANKS, iterations)))
    made *= np.where(draw.random(made.shape) < SPIKES, 2.0, 1.0)
    made[who] *= 1.0 + slower
    return made, set(who.tolist())


def ours(seconds: Array) -> set[int]:
    """Names the ranks that are slow with a probability of 25 %, as `fleetcast watch train` does."""
    return set(np.flatnonzero(judge(seconds).chance >= SURE).tolist())


def once(seconds: Array) -> set[int]:
    """Names the ranks that were once a quarter slower than the median: what a look at single steps finds."""
    return set(np.flatnonzero((seconds / np.median(seconds, axis=0)).max(axis=1) > 1.25).tolist())


def average(seconds: Array) -> set[int]:
    """Names the ranks whose mean is half of the slowness above the median."""
    return set(np.flatnonzero((seconds / np.median(seconds, axis=0)).mean(axis=1) > 1.0 + SLOWER / 2).tolist())


def scores(rule: Rule, iterations: int, seeds: int) -> tuple[float, float]:
    """Returns precision and recall of a rule, all seeds together."""
    right = named = there = 0
    for seed in range(seeds):
        seconds, who = trace(seed, iterations)
        found = rule(seconds)
        right, named, there = right + len(found & who), named + len(found), there + len(who)
    return right / max(1, named), right / there


def ranked(iterations: int, seeds: int, value: Callable[[Array], Array] = lambda s: judge(s).chance) -> float:
    """Returns precision (and recall) where as many ranks are named as are slow, the likeliest."""
    hit = 0
    for seed in range(seeds):
        seconds, who = trace(seed, iterations)
        hit += len(set(np.argsort(-value(seconds), kind="stable")[:SLOW].tolist()) & who)
    return hit / (SLOW * seeds)


def host_scores(iterations: int, seeds: int) -> tuple[float, float]:
    """Returns precision and recall over 1,024 hosts of 8 ranks, 5 of them slow."""
    right = named = 0
    at = np.repeat(np.arange(RANKS), HOST)
    for seed in range(seeds):
        draw = rng(seed, "synthetic", "slow hosts")
        who = set(draw.choice(RANKS, SLOW, replace=False).tolist())
        seconds = np.exp(SIGMA * draw.standard_normal((RANKS * HOST, iterations)))
        seconds *= np.where(draw.random(seconds.shape) < SPIKES, 2.0, 1.0)
        seconds[np.isin(at, list(who))] *= 1.0 + SLOWER
        found = set(np.flatnonzero(judge(seconds, at).chance >= SURE).tolist())
        right, named = right + len(found & who), named + len(found)
    return right / max(1, named), right / (SLOW * seeds)


def hanging(seeds: int) -> tuple[int, int, int]:
    """Returns jobs with one hanging rank, how many of them were blamed on it alone, and on the rank heard last."""
    hit = null = 0
    for seed in range(seeds):
        draw = rng(seed, "synthetic", "hangs")
        ranks, iterations = 256, 4
        stop, inside = int(draw.integers(ranks)), bool(draw.random() < 0.5)
        rows = []
        for rank in range(ranks):
            for i in range(iterations):
                last = i == iterations - 1
                work = 3.0 * float(np.exp(SIGMA * draw.standard_normal()))
                stops = last and rank == stop
                rows.append((10.0 * i, np.inf if stops and inside else work, rank, 0))
                if not stops:
                    rows.append((10.0 * i + work, np.inf if last else 10.0 - work, rank, 1))
        time, duration, resource, what = (np.array(column) for column in zip(*rows, strict=True))
        ones = np.ones(len(rows), dtype=np.int64)
        log = Log(
            time, duration, resource.astype(np.int32), what.astype(np.int32), ones, ones, np.zeros(len(rows)),
            tuple(map(str, range(ranks))), ("forward", "all_reduce"),
        )  # fmt: skip
        hit += [f.who for f in hangs(log)] == [f"rank {stop}"]
        null += int(resource[np.argmax(time)]) == stop
    return seeds, hit, null


def records(quick: bool = False) -> list[Record]:
    """The records of system 39's diagnosis; ``quick`` counts fewer seeds where no bar hangs on them."""
    start, made = cpu_seconds(), []
    seeds, many = 50, 500
    said = "synthetic: 1,024 ranks, 5 of them 10 % slower, 5 % log-normal noise, 1 % of steps twice as long"
    precision, recall = scores(ours, 8, many)
    fewer, best = scores(ours, 8, seeds), limit(RANKS, SLOW, SLOWER, SIGMA, 8)
    single, means = scores(once, 8, seeds), scores(average, 8, seeds)
    made.append(
        Record(
            system=39, claim="slow ranks named after 8 iterations: the lesser of precision and recall",
            paper=Paper(value=None, setting="a heat map of compute times, looked at by people"),
            ours=Ours(
                value=min(precision, recall), unit="",
                spread=f"precision {precision:.3f}, recall {recall:.3f}; the first {seeds} seeds: {fewer[0]:.3f} and "
                f"{fewer[1]:.3f}, where chance alone moves either by 0.012",
                setting=f"{said}; {many} seeds",
            ),
            null=Null(
                value=min(single),
                what=f"once above 1.25 times the median (precision {single[0]:.3f}, recall {single[1]:.3f}); mean "
                f"above 1.05 times: {means[0]:.3f} and {means[1]:.3f}; best test, no spikes: {best:.3f} of both",
            ),
            bar="precision and recall at least 0.95", holds=min(precision, recall) >= 0.95, reproduced="other setting",
            reason="the paper shows a heat map and counts no ranks named wrongly; 0.95 is our own bar, set for 50 "
            f"seeds: on the first 50 the recall is {fewer[1]:.3f}, and ten times as many were then counted",
            seconds=cpu_seconds() - start, command="python -m benchmarks.stragglers",
        )
    )  # fmt: skip
    start = cpu_seconds()
    known = ranked(8, seeds)
    made.append(
        Record(
            system=39, claim="slow ranks among the five likeliest after 8 iterations",
            ours=Ours(value=known, unit="", setting=f"{said}; {seeds} seeds", spread=f"{many}: {ranked(8, many):.3f}"),
            null=Null(
                value=ranked(8, seeds, lambda x: (x / np.median(x, axis=0)).mean(axis=1)), what="the five highest means"
            ),
            bar="at least 0.95", holds=known >= 0.95, reproduced="other setting",
            reason="our own bar; that five of them are slow is known here, as the best test's limit takes it",
            seconds=cpu_seconds() - start, command="python -m benchmarks.stragglers",
        )
    )  # fmt: skip
    for iterations, published in ((1, 0.25), (3, 0.69)):
        start = cpu_seconds()
        best, got = limit(RANKS, SLOW, SLOWER, SIGMA, iterations), ranked(iterations, many)
        means_ = ranked(iterations, many, lambda s: (s / np.median(s, axis=0)).mean(axis=1))
        additive = limit(RANKS, RANKS * 0.005, float(np.expm1(SLOWER)), SIGMA, iterations)
        words = "iteration" if iterations == 1 else "iterations"
        made.append(
            Record(
                system=39, claim=f"slow ranks among the five likeliest after {iterations} {words}",
                paper=Paper(value=published, setting="the best test's share: 10 % at 5 % noise taken as 2 sigma"),
                ours=Ours(
                    value=got, unit="", setting=f"{said}; {many} seeds",
                    spread=f"best test {best:.3f} for log-normal steps without spikes, {additive:.3f} at 2 sigma",
                ),
                null=Null(value=means_, what="the five highest means"),
                bar="no further below the best test's share than 0.05", holds=got >= best - 0.05,
                reproduced="yes" if abs(additive - published) < 0.01 else "no",
                reason="" if abs(additive - published) < 0.01 else "the best test has another share here",
                seconds=cpu_seconds() - start, command="python -m benchmarks.stragglers",
            )
        )  # fmt: skip
    start = cpu_seconds()
    few = 5 if quick else 20
    got3, got1 = host_scores(3, few), host_scores(1, few)
    made.append(
        Record(
            system=39, claim="slow hosts of 8 ranks named after 1 iteration: the lesser of precision and recall",
            ours=Ours(
                value=min(got1), unit="", spread=f"3 iterations: {min(got3):.3f}",
                setting=f"synthetic: 1,024 hosts of 8 ranks, 5 of them slower, noise as for ranks; {few} seeds",
            ),
            null=Null(value=ranked(1, seeds), what="ranks judged one by one, the five likeliest, after 1 iteration"),
            bar="at least 0.9: a host's ranks are slow together", holds=min(got1) >= 0.9,
            reproduced="other setting", reason="the paper counts no hosts named wrongly",
            seconds=cpu_seconds() - start, command="python -m benchmarks.stragglers",
        )
    )  # fmt: skip
    start = cpu_seconds()
    count, hit, null = hanging(20 if quick else 100)
    made.append(
        Record(
            system=39, claim="hanging jobs blamed on the rank that hangs, and on no other",
            paper=Paper(value=None, setting="the rank that logged nothing, found from each rank's last operation"),
            ours=Ours(
                value=hit / count, unit="",
                setting=f"synthetic: {count} jobs of 256 ranks, one of which stops within or after its computation",
            ),
            null=Null(value=null / count, what="the rank that was heard last"),
            bar="all of them", holds=hit == count, reproduced="other setting",
            reason="the paper describes the method and gives no share",
            seconds=cpu_seconds() - start, command="python -m benchmarks.stragglers",
        )
    )  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main(records))
