"""Minimise a black box in rounds: propose, launch, learn.

After CubicML (Wang and others, arXiv 2409.04585): a predictor is trained on every launch so far, a searcher asks it
about very many settings, the few that promise most are launched, and so on. Settings that fail are learned on their
own: their chance to run weighs the promise. Two differences: the predictor is an ensemble of Gaussian processes, not of
networks, and promise is expected improvement, not the prediction alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from scipy.stats import kendalltau

from fleetcast.base.errors import SpecError
from fleetcast.base.files import append_line, whole_lines
from fleetcast.search.learned.knobs import Knobs, Rows, Value
from fleetcast.search.learned.predictor import Ensemble, Floats, Member, ensemble, fit

Evaluate = Callable[[Mapping[str, Value]], float | None]
"""Launches a setting: what it costs, less is better, above 0; None, nan or inf = it failed."""
FIRST = 20
"""Launches before anything is learned, at most a fifth of the budget."""
POOL = 3000
"""Settings that the searcher looks at in each of its turns."""
TURNS = 4
"""Turns of the searcher: each looks near what promised most in the one before."""
PARENTS = 12
"""Settings whose neighbours are looked at."""
KEPT = 300
"""Settings that go from one turn to the next."""
EAGER = (1.0, 2.0)
"""How many times doubt counts in the launches of a round, in turn."""
LEAST = 4
"""Launches that must have run before anything is predicted."""


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        launched: settings.
        failed: of them, how many failed.
        best: the least cost so far; inf = nothing ran yet.
        tau: Kendall's rank correlation of predicted and then measured costs of this round; nan = too few ran.
    """

    launched: int
    failed: int
    best: float
    tau: float


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        setting: the best one; None = nothing ran.
        cost: of it; inf = nothing ran.
        history: every launch in order: setting, cost (inf = failed).
        rounds: what each round brought.
    """

    setting: dict[str, Value] | None
    cost: float
    history: tuple[tuple[dict[str, Value], float], ...]
    rounds: tuple[Round, ...]


def minimise(
    knobs: Knobs, evaluate: Evaluate, *, budget: int = 100, batch: int = 5, seed: int = 0,
    history: Path | None = None, progress: Callable[[int, int], None] | None = None,
) -> Found:  # fmt: skip
    """Returns the best setting found.

    Args:
        knobs: what may be set.
        evaluate: launches a setting.
        budget: launches in all, those of the history counted.
        batch: launches of a round, which may run side by side: they are chosen before any of them is known.
        seed: of every random choice.
        history: a file that keeps every launch as a line of JSON; a search that was cut off goes on from it.
        progress: called with (launches done, budget).

    Raises:
        SpecError: no budget, or a history of other knobs.
    """
    if budget < 1 or batch < 1:
        raise SpecError("evaluations", "is out of range", value=min(budget, batch), limit="a whole number from 1")
    log = _Log(knobs, history)
    rounds: list[Round] = []
    turn = 0
    while turn < budget:
        count = min(max(1, min(FIRST, budget // 5)) if not turn else batch, budget - turn)
        # What a round proposes depends on the seed, its number and what was known before it: nothing else is carried
        # over, so a search that was cut off goes on as if it had not been.
        expected = None
        if turn + count > len(log.rows):
            rng = np.random.default_rng([seed, turn])
            rows, predicted = propose(knobs, log.rows[:turn], np.asarray(log.costs[:turn]), count, rng)
            if not len(rows):
                break  # every allowed setting was tried
            begun = {tuple(row) for row in log.rows[turn:]}
            expected = predicted if not begun else None
            for row in [row for row in rows if tuple(row) not in begun][: count - len(begun)]:
                log.launch(row, evaluate)
                if progress is not None:
                    progress(len(log.rows), budget)
        done = min(turn + count, len(log.rows))
        rounds.append(_round(np.asarray(log.costs[turn:done]), expected, min(log.costs[:done])))
        turn = done
    told = tuple((knobs.setting(row), cost) for row, cost in zip(log.rows[:budget], log.costs, strict=False))
    best = min(told, key=lambda pair: pair[1], default=({}, math.inf))
    return Found(best[0] if math.isfinite(best[1]) else None, best[1], told, tuple(rounds))


def propose(
    knobs: Knobs, rows: Sequence[Rows], costs: Floats, count: int, rng: np.random.Generator
) -> tuple[Rows, Floats | None]:
    """Returns (up to ``count`` settings not tried yet, what each is predicted to cost; None = nothing is known yet).

    Args:
        knobs: what may be set.
        rows: what was tried.
        costs: of each, inf = failed.
        count: how many are wanted.
        rng: for every random choice.
    """
    tried = {tuple(row) for row in rows}
    ran = np.isfinite(costs)
    if ran.sum() < LEAST:
        return _unseen(knobs.draw(rng, max(POOL // 4, 4 * count)), tried, count), None
    known = np.asarray(rows)
    x, y, scale = knobs.seen(known), np.log(costs[ran]), _Scale.of(np.log(costs[ran]))
    model = ensemble(x[ran], scale.seen(y), knobs.groups, rng)
    chance = None if ran.all() else fit(x, np.where(ran, 1.0, -1.0), knobs.groups, None, 30)
    best = float(scale.seen(y).min())
    promising = known[ran][np.argsort(y, kind="stable")[:PARENTS]]
    pool = np.concatenate([knobs.draw(rng, POOL), knobs.near(rng, promising, POOL)])
    score = np.empty(0)
    for turn in range(TURNS):
        pool = _distinct(pool, tried)
        if not len(pool):
            return pool, None
        score = _promise(knobs.seen(pool), model, chance, best)
        if turn < TURNS - 1:
            order = np.argsort(-score, kind="stable")
            pool = np.concatenate([pool[order[:KEPT]], knobs.near(rng, pool[order[:PARENTS]], POOL)])
    order = np.argsort(-score, kind="stable")[:KEPT]
    return _batch(knobs, pool[order], model, chance, best, count, scale)


def _batch(
    knobs: Knobs, pool: Rows, model: Ensemble, chance: Member | None, best: float, count: int, scale: _Scale
) -> tuple[Rows, Floats]:
    """Returns a round: one after the other, each time as if the prediction of those before had come true."""
    seen = knobs.seen(pool)
    expected = np.exp(scale.told(model.predict(seen)[0]))
    open_ = np.ones(len(pool), dtype=np.bool_)
    picked: list[int] = []
    for turn in range(min(count, len(pool))):
        # Every other launch goes where doubt is large rather than where the mean is best.
        score = np.where(open_, _promise(seen, model, chance, best, EAGER[turn % len(EAGER)]), -np.inf)
        at = int(np.argmax(score))
        picked.append(at)
        open_[at] = False
        mean, _ = model.predict(seen[at : at + 1])
        best = min(best, float(mean[0]))
        model = Ensemble(tuple(
            fit(np.vstack([m.x, seen[at]]), np.append(m.y, mean), m.groups, m.theta, 0) for m in model.members
        ))  # fmt: skip
    return pool[picked], expected[picked]


def _promise(x: Floats, model: Ensemble, chance: Member | None, best: float, eager: float = 1.0) -> Floats:
    """Returns expected improvement on ``best``, weighed by the chance to run; doubt counts ``eager`` times."""
    mean, doubt = model.predict(x)
    doubt = eager * doubt
    z = (best - mean) / doubt
    gain = doubt * (z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))
    if chance is not None:
        said, unsure = chance.predict(x)
        gain = gain * ndtr(said / np.sqrt(0.1 + unsure**2))
    return np.asarray(gain, dtype=np.float64)


@dataclass(frozen=True)
class _Scale:
    """Logarithms of costs made about 1 wide; what is far worse than most is told apart less."""

    centre: float
    width: float

    @classmethod
    def of(cls, y: Floats) -> _Scale:
        low, middle = np.quantile(y, [0.0, 0.5])
        return cls(float(middle), max(float(middle - low), 1e-6))

    def seen(self, y: Floats) -> Floats:
        z = (y - self.centre) / self.width
        return np.where(z > 0, np.log1p(np.maximum(z, 0.0)), z)

    def told(self, z: Floats) -> Floats:
        return np.where(z > 0, np.expm1(np.clip(z, 0.0, 50.0)), z) * self.width + self.centre


def _unseen(rows: Rows, tried: set[tuple[int, ...]], count: int) -> Rows:
    return _distinct(rows, tried)[:count]


def _distinct(rows: Rows, tried: set[tuple[int, ...]]) -> Rows:
    """Returns rows once each, in order, without those tried."""
    _, first = np.unique(rows, axis=0, return_index=True)
    kept = [i for i in np.sort(first) if tuple(rows[i]) not in tried]
    return rows[kept]


def _round(costs: Floats, expected: Floats | None, best: float) -> Round:
    ran = np.isfinite(costs)
    tau = math.nan
    if expected is not None and ran.sum() >= 3 and len(np.unique(costs[ran])) > 1:
        tau = float(kendalltau(expected[ran], costs[ran]).statistic)
    return Round(len(costs), int((~ran).sum()), best, tau)


class _Log:
    """Launches so far, and the file that keeps them."""

    def __init__(self, knobs: Knobs, file: Path | None) -> None:
        self.knobs, self.file = knobs, file
        self.rows: list[Rows] = []
        self.costs: list[float] = []
        if file is not None and file.exists():
            for number, line in enumerate(whole_lines(file), 1):
                try:
                    told = json.loads(line)
                    self.rows.append(knobs.row(told["setting"]))
                    self.costs.append(math.inf if told["cost"] is None else float(told["cost"]))
                except (ValueError, KeyError, TypeError, SpecError) as error:
                    raise SpecError(
                        str(file), f"is not a history of these knobs, line {number}: {error}",
                        limit="one launch a line",
                        hint="Name another file, or delete it to start anew",
                    ) from None  # fmt: skip

    def launch(self, row: Rows, evaluate: Evaluate) -> None:
        """Launches a setting and keeps what it costs."""
        told = evaluate(self.knobs.setting(row))
        cost = math.inf if told is None or not math.isfinite(told) else float(told)
        if cost <= 0:
            raise SpecError("cost", "is not above 0", value=cost, limit="above 0: shares of it are what is learned")
        self.rows.append(row)
        self.costs.append(cost)
        if self.file is not None:
            told_cost = cost if math.isfinite(cost) else None
            append_line(self.file, json.dumps({"setting": self.knobs.setting(row), "cost": told_cost}))
