"""CubicML: a predictor chooses what to launch, beside random draws and Optuna's TPE, on four boxes (system 59)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.learned_boxes import Box, measured, serving, tiles, training
from benchmarks.records import Null, Ours, Record, absent, main, skipped, timer
from fleetcast.search.learned import Found, minimise

LAUNCHES = 100
SEEDS = 20
Floats = NDArray[np.float64]
PAPER = "no figure in the abstract; ads models of 73B and language models up to 405B"


def boxes() -> list[Box]:
    """Returns the boxes of this machine: vTrain's table may be absent."""
    found = [training(), measured(), serving(), tiles()]
    return [box for box in found if box is not None]


@cache
def _searched(name: str, seed: int) -> Found:
    box = next(b for b in _BOXES if b.name == name)
    return minimise(box.knobs, box.launch, budget=LAUNCHES, seed=seed)


_BOXES: list[Box] = []


def best_so_far(costs: list[float], best: float) -> Floats:
    """Returns the regret after each launch: the least cost so far over the best there is, less 1."""
    return np.minimum.accumulate(np.asarray(costs)) / best - 1.0


def learned(box: Box, seed: int) -> Floats:
    """Returns the regret after each launch of the learned search."""
    if box not in _BOXES:
        _BOXES.append(box)
    return best_so_far([cost for _, cost in _searched(box.name, seed).history], box.best)


def at_random(box: Box, seed: int) -> Floats:
    """Returns the regret after each launch of settings drawn evenly."""
    rows = box.knobs.draw(np.random.default_rng([seed, 1]), LAUNCHES)
    costs = [box.launch(box.knobs.setting(row)) for row in rows]
    return best_so_far([np.inf if cost is None else cost for cost in costs], box.best)


def tpe(box: Box, seed: int) -> Floats:
    """Returns the regret after each launch of Optuna's TPE with its defaults.

    It proposes allowed settings alone, as the learned search does: a value that does not go with those of the knobs
    before it is moved to the nearest one that does. Words are categories. A failed launch is told as the worst cost so
    far.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    bound = _bound(box)
    costs: list[float] = []

    def objective(trial: Any) -> float:
        left, row = bound, []
        for i, knob in enumerate(box.knobs.knobs):
            open_ = np.unique(left[:, i]) if i < left.shape[1] else np.arange(len(knob.values))
            if knob.ordered:
                wanted = trial.suggest_int(knob.name, 0, len(knob.values) - 1)
            else:
                wanted = trial.suggest_categorical(knob.name, list(range(len(knob.values))))
            at = int(open_[np.argmin(np.abs(open_ - wanted))])
            row.append(at)
            if i < left.shape[1]:
                left = left[left[:, i] == at] if (left[:, i] == at).any() else left
        cost = box.launch(box.knobs.setting(np.asarray(row)))
        costs.append(np.inf if cost is None else cost)
        ran = [np.log(c) for c in costs if np.isfinite(c)]
        return float(np.log(cost)) if cost is not None else (max(ran) if ran else 50.0)

    study.optimize(objective, n_trials=LAUNCHES)
    return best_so_far(costs, box.best)


def _bound(box: Box) -> NDArray[np.int64]:
    """Returns the distinct heads of settings that rules tie together; the knobs after them go with everything."""
    if box.name not in _HEADS:
        rng = np.random.default_rng(2)
        rows = np.unique(np.concatenate([box.knobs.draw(rng, 5_000) for _ in range(8)]), axis=0)
        width = rows.shape[1]
        while width > 0 and box.size > 10_000 and len(np.unique(rows[:, :width], axis=0)) >= len(rows) / 4:
            width -= 1
        _HEADS[box.name] = np.unique(rows[:, :width], axis=0)
    return _HEADS[box.name]


_HEADS: dict[str, NDArray[np.int64]] = {}


def taus(found: Found) -> list[float]:
    """Returns the rank correlation of each round that had a prediction."""
    return [r.tau for r in found.rounds[1:]]


def records(quick: bool) -> list[Record]:
    """Returns CubicML's claims."""
    command = "python -m benchmarks.learned" + (" --quick" if quick else "")
    seeds = range(3 if quick else SEEDS)
    asked = [tiles(), *([b] if (b := measured()) else [])] if quick else boxes()
    found: list[Record] = []
    ends: dict[str, dict[str, Floats]] = {}
    missing = absent("optuna")
    with timer() as spent:
        for box in asked:
            rivals = {"learned": learned, "random": at_random} | ({} if missing else {"TPE": tpe})
            ends[box.name] = {name: np.asarray([run(box, s)[-1] for s in seeds]) for name, run in rivals.items()}
            said = (f"{name} {np.median(e):.4f}, p90 {np.quantile(e, 0.9):.4f}" for name, e in ends[box.name].items())
            print(f"{box.name}: {'; '.join(said)}", flush=True)
    for box in asked:
        found.append(_regret(box, ends[box.name], len(seeds), spent.seconds / len(asked), command))
    found.append(_versus("random draws", "random", ends, len(seeds), command))
    claim = "regret after 100 launches below Optuna's TPE, paired by seed"
    bar = "median not above on any box, and lower over all boxes and seeds at p < 0.05 (Wilcoxon, one-sided)"
    if missing:
        found.append(skipped(system=59, claim=claim, bar=bar, why=f"{missing} is not installed", command=command))
    else:
        found.append(_versus("Optuna's TPE", "TPE", ends, len(seeds), command))
    found.append(_ranks(asked, seeds, command))
    return found


def _regret(box: Box, ends: Mapping[str, Floats], seeds: int, seconds: float, command: str) -> Record:
    own, null = ends["learned"], ends["random"]
    middle, tail = float(np.median(own)), float(np.quantile(own, 0.9))
    rival = (
        f"; Optuna's TPE {np.median(ends['TPE']):.1%}, p90 {np.quantile(ends['TPE'], 0.9):.1%}" if "TPE" in ends else ""
    )
    holds = middle <= 0.02 and tail <= 0.05
    return Record(
        system=59, claim=f"regret after {LAUNCHES} launches: {box.name}",
        ours=Ours(
            value=round(middle, 4), unit="of the best",
            spread=f"p90 {tail:.1%} over {seeds} seeds; random p90 {np.quantile(null, 0.9):.1%}{rival}",
            setting=f"{box.size:,} settings, {box.fails:.0%} of them fail; the best known by asking all of them",
        ),
        null=Null(value=round(float(np.median(null)), 4), what="random draws"),
        bar="median at most 2 %, p90 at most 5 %", holds=holds, reproduced="other setting",
        reason=f"the paper tunes jobs on its own clusters: {PAPER}", seconds=seconds, command=command,
    )  # fmt: skip


def _versus(
    name: str, key: str, ends: Mapping[str, Mapping[str, Floats]], seeds: int, command: str
) -> Record:  # fmt: skip
    own = np.concatenate([e["learned"] for e in ends.values()])
    other = np.concatenate([e[key] for e in ends.values()])
    # Ranks, so that a box with large regrets does not decide alone.
    p = float(wilcoxon(np.log(own + 1e-3), np.log(other + 1e-3), alternative="less").pvalue)
    each = {
        b: float(wilcoxon(e["learned"], e[key], alternative="less", zero_method="zsplit").pvalue)
        for b, e in ends.items()
    }
    below = all(np.median(e["learned"]) <= np.median(e[key]) for e in ends.values())
    claim = "random draws" if key == "random" else "Optuna's TPE"
    return Record(
        system=59, claim=f"regret after {LAUNCHES} launches below {claim}, paired by seed",
        ours=Ours(
            value=f"p = {p:.1g}", spread="; ".join(f"{b}: p = {v:.1g}" for b, v in each.items()),
            setting=f"{len(ends)} boxes x {seeds} seeds; {(own < other).mean():.0%} of pairs lower, "
            f"{(own == other).mean():.0%} equal",
        ),
        null=Null(value=round(float(np.median(other)), 4), what=f"{name}, median regret; learned {np.median(own):.4f}"),
        bar="median not above on any box, and lower over all boxes and seeds at p < 0.05 (Wilcoxon, one-sided)",
        holds=below and p < 0.05, reproduced="other setting",
        reason=f"the paper tunes jobs on its own clusters: {PAPER}", command=command,
    )  # fmt: skip


def _ranks(asked: list[Box], seeds: range, command: str) -> Record:
    """Returns how well predictions rank what was then launched, early and late."""
    early, late, told = [], [], []
    for box in asked:
        table = np.asarray([taus(_searched(box.name, s)) for s in seeds], dtype=np.float64)
        third = table.shape[1] // 3
        early.append(float(np.nanmean(table[:, :third])))
        late.append(float(np.nanmean(table[:, -third:])))
        told.append(f"{box.name}: {early[-1]:.2f} to {late[-1]:.2f}")
    return Record(
        system=59, claim="rank correlation of predicted and then measured costs, first third of the rounds to the last",
        ours=Ours(
            value=f"{np.mean(early):.2f} to {np.mean(late):.2f}", unit="Kendall tau", spread="; ".join(told),
            setting="within rounds of 5 launches, which all promised to be about the best",
        ),
        null=Null(value=0.0, what="no ranking"), bar="higher in the last third than in the first, over all boxes",
        holds=float(np.mean(late)) > float(np.mean(early)), reproduced="other setting",
        reason=f"ranks within a round of near-best settings are harder than over a history; {PAPER}", command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
