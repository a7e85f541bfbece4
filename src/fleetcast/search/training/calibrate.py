"""What practice adds to kernels, fitted on measured iterations, and how far such a fit is off where it has not looked.

Three ways to hold rows out: half of them at random, each size of model, each number of devices. The last two say what
the fit is worth where nobody has measured. Beside each stands its null: one constant FLOP/s per device, the median of
the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng as stream
from fleetcast.cost.training.energy import flops
from fleetcast.cost.training.fit import fit, join, take
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import Parts, parts, settle
from fleetcast.cost.training.system import Practice
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import Setting

Array = NDArray[np.float64]
HALVES = 5
"""Random halves whose errors are averaged."""
GROUPS = 8
"""Values of a column that are left out one by one; more are put together, as many in each."""
LEAST = 4
"""Rows that a fit wants, and rows that are worth holding out."""


@dataclass(frozen=True)
class Measured:
    """One measured iteration: the scenario it was of, resolved, its plan, its seconds."""

    state: Setting
    plan: TrainingPlan
    seconds: float


@dataclass(frozen=True)
class Split:
    """Errors of rows that a fit has not seen.

    Attributes:
        name: "random halves", "model size" or "devices".
        rows: how many were held out, over all its parts.
        mean, median, worst: of |predicted / measured - 1|.
        null: the mean of one constant FLOP/s per device.
    """

    name: str
    rows: int
    mean: float
    median: float
    worst: float
    null: float

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "split": self.name, "rows": self.rows, "mean": self.mean, "median": self.median, "worst": self.worst,
            "null": self.null,
        }  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """What a calibration found.

    Attributes:
        before: the practice that it started from.
        practice: the new one; its spread is that of rows held out at random, where there were enough.
        intervals: of each factor, low and high at 90 %.
        first: mean error of ``before`` on all rows.
        seen: mean error of ``practice`` on the rows it was fitted on.
        splits: errors of rows held out.
        rows: how many iterations.
    """

    before: Practice
    practice: Practice
    intervals: dict[str, tuple[float, float]]
    first: float
    seen: float
    splits: tuple[Split, ...]
    rows: int


def calibrate(runs: Sequence[Measured], *, seed: int = 0, source: str = "") -> Fitted:
    """Returns the practice that explains measured iterations.

    Args:
        runs: at least 4, of one kind of device.
        seed: of the random halves.
        source: said in the practice.

    Raises:
        ValueError: too few rows.
    """
    if len(runs) < LEAST:
        raise ValueError(f"a fit wants at least {LEAST} measured iterations, not {len(runs)}")
    made = [_costed(run) for run in runs]
    p, q = join([(a, b) for a, b, _, _ in made])
    seconds = np.array([run.seconds for run in runs])
    work, sizes = np.array([w for _, _, w, _ in made]), np.array([s for _, _, _, s in made])
    before = runs[0].state.system.practice
    best = fit(p, q, seconds, before, alike=True)
    splits = []
    left: list[Array] = []
    for name, parts_ in (
        ("random halves", list(_halves(len(runs), seed))), ("model size", _apart(sizes)),
        ("devices", _apart(q.devices.astype(np.float64))),
    ):  # fmt: skip
        if not parts_:
            continue
        errors, plain = [], []
        for held in parts_:
            seen = ~held
            practice = fit(*take(p, q, np.flatnonzero(seen)), seconds[seen], before, alike=True).practice
            errors.append(_error(p, q, practice, seconds)[held])
            plain.append(((work / np.median(work[seen] / seconds[seen])) / seconds - 1.0)[held])
        all_ = np.abs(np.concatenate(errors))
        null = float(np.abs(np.concatenate(plain)).mean())
        splits.append(
            Split(name, len(all_), float(all_.mean()), float(np.median(all_)), float(all_.max()), null)
        )  # fmt: skip
        left += errors if name == "random halves" else []
    spread = best.practice.spread
    if left:
        spread = max(spread, float(np.sqrt(np.mean(np.log1p(np.concatenate(left)) ** 2))))
    practice = replace(best.practice, spread=spread, source=source or f"{len(runs)} measured iterations")
    return Fitted(
        before, practice, best.interval, float(np.abs(_error(p, q, before, seconds)).mean()),
        float(np.abs(best.residual).mean()), tuple(splits), len(runs),
    )  # fmt: skip


def _costed(run: Measured) -> tuple[Parts, Plans, float, float]:
    """Parts and plan of a run as columns of one, FLOP per device of an iteration, parameters."""
    state = run.state
    plan = complete(state, run.plan).plan
    rows, job = columns(plan), state.job(str(plan.dtype))
    counted = flops(state.network, job, rows)
    work = float(counted["model"][0] + counted["again"][0]) * job.batch * job.sequence / state.group.count
    return parts(state.network, job, rows, state.system), rows, work, float(state.network.params)


def _error(p: Parts, q: Plans, practice: Practice, seconds: Array) -> Array:
    return np.asarray(settle(p, q, practice)["total"] / seconds - 1.0)


def _halves(count: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Yields which rows are held out: a random half, and then the other."""
    if count < 2 * LEAST:
        return
    rng = stream(seed, "calibrate")
    for _ in range(HALVES):
        held = np.zeros(count, dtype=np.bool_)
        held[rng.permutation(count)[: count // 2]] = True
        yield held


def _apart(values: Array) -> list[NDArray[np.bool_]]:
    """Returns which rows are held out: those of one value, in turn; () where there are too few values or rows."""
    known = np.unique(values)
    if len(known) < 2 or len(values) < 2 * LEAST:
        return []
    groups = [known] if len(known) == 1 else np.array_split(known, min(GROUPS, len(known)))
    found = [np.isin(values, group) for group in groups]
    return [held for held in found if (~held).sum() >= LEAST]
