"""Refits a forecast's few constants on iterations that an engine ran: kernels' factors and the host's seconds.

An iteration takes what its kernels take, each by a factor that is 1 where the profile was right, and the host's time:

    seconds = sum_k factor_k * kernel_k + step + seq * sequences + token * tokens

Every constant is 0 or more and has a physical name. Relative errors count, every run counts the same however many
iterations it has, and factors are held to 1 (`PRIOR`) as far as the runs say little about them. Outliers count less
(Huber, "Robust estimation of a location parameter", 1964), since an operating system interrupts. Intervals and held-out
errors come from fits without one setting each (Efron, "The jackknife", 1982), or of a single one without a piece of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from fleetcast.base.errors import SpecError

Array = NDArray[np.float64]

HOST = ("step", "seq", "token")
"""Constants of the host, s, as `cost.engine.Host` names them."""
LIMITS: Mapping[str, float] = {"step": 0.05, "seq": 0.01, "token": 1e-3}
"""Largest they can be, s."""
FACTORS = (0.1, 10.0)
"""Least and largest factor of a kernel."""
PRIOR, NOISE, WORTH = 0.5, 0.05, 40
"""Standard deviation of a factor before anything is measured, of an iteration's relative error after the fit, and how
many independent iterations a run counts as."""
TUNING, ROUNDS = 2.0, 12
"""Residuals above so many standard deviations count less; rounds of reweighting."""
PIECES = 8
"""Parts that a single run is cut into for its intervals."""
Z80 = 1.2815515655446004


@dataclass(frozen=True)
class Ran:
    """The iterations of one run; columns of length n.

    Attributes:
        name: for tables.
        kernels: s that the profile forecasts, by kernel, see `cost.iteration.by_format`.
        sequences: of each iteration.
        tokens: of each iteration.
        seconds: measured.
        group: runs of one setting; they are left out together.
    """

    name: str
    kernels: Mapping[str, Array]
    sequences: Array
    tokens: Array
    seconds: Array
    group: str = ""

    def forecast(self, constants: Mapping[str, float]) -> Array:
        """Returns s of each iteration under some constants; factors left out are 1."""
        found = sum(constants.get(name, 1.0) * seconds for name, seconds in self.kernels.items())
        found = found + constants["step"] + constants["seq"] * self.sequences + constants["token"] * self.tokens
        return np.asarray(found, dtype=np.float64)

    def part(self, rows: Any) -> Ran:
        """Returns the iterations at ``rows``."""
        kernels = {name: seconds[rows] for name, seconds in self.kernels.items()}
        return Ran(self.name, kernels, self.sequences[rows], self.tokens[rows], self.seconds[rows], str(rows[:1]))


@dataclass(frozen=True)
class Calibration:
    """Constants that fit some runs.

    Attributes:
        constants: factors by kernel, then `HOST` in s.
        intervals: 80 % interval of each.
        errors: by run (forecast of all its iterations / measured - 1): before, after, and held out, that is by the fit
            without its setting; NaN where there is no other.
    """

    constants: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    errors: Mapping[str, tuple[float, float, float]]


def calibrate(runs: Sequence[Ran], host: Mapping[str, float]) -> Calibration:
    """Returns the constants that fit the runs, how sure they are, and how far each run is off without its own help.

    Args:
        runs: at least one, each with at least one iteration.
        host: constants of the host that the forecast had before, s.

    Raises:
        SpecError: no iterations.
    """
    if not runs or any(not len(run.seconds) for run in runs):
        raise SpecError("runs", "hold no iterations", limit="at least one run with at least one")
    best = fit(runs, host)
    units: dict[str, list[Ran]] = {}
    for i, run in enumerate(runs):
        units.setdefault(run.group or str(i), []).append(run)
    settings = len(units)
    if settings == 1:
        units = {str(i): part for i, part in enumerate(_pieces(runs))}
    without = {
        left: fit([run for name, part in units.items() if name != left for run in part], host) for left in units
    } if len(units) > 1 else {}  # fmt: skip
    before = {name: 1.0 for name in best} | {name: host.get(name, 0.0) for name in HOST}
    errors = {}
    for i, run in enumerate(runs):
        held = _error(run, without[run.group or str(i)]) if settings > 1 else float("nan")
        errors[run.name] = (_error(run, before), _error(run, best), held)
    return Calibration(best, _intervals(best, list(without.values())), errors)


def fit(runs: Sequence[Ran], host: Mapping[str, float]) -> dict[str, float]:
    """Returns the constants that fit the runs best: non-negative least squares, reweighted.

    Args:
        runs: with iterations.
        host: where the host's constants start; they are not held there.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.kernels))
    columns = [*names, *HOST]
    rows, weights = [], []
    for run in runs:
        n = len(run.seconds)
        terms = [run.kernels.get(name, np.zeros(n)) for name in names]
        stack = np.stack([*terms, np.ones(n), run.sequences, run.tokens], axis=1, dtype=np.float64)
        rows.append(stack / run.seconds[:, None])
        weights.append(np.full(n, np.sqrt(min(WORTH, n) / n) / NOISE))
    a, w = np.concatenate(rows), np.concatenate(weights)
    low = np.array([FACTORS[0]] * len(names) + [0.0] * len(HOST))
    high = np.array([FACTORS[1]] * len(names) + [LIMITS[name] for name in HOST])
    scale = np.array([1.0] * len(names) + [max(host.get(name, 0.0), LIMITS[name] / 100) for name in HOST])
    prior = np.eye(len(columns))[: len(names)] / PRIOR
    found, huber = np.ones(len(columns)), np.ones(len(w))
    for _ in range(ROUNDS):
        full = np.concatenate([a * scale * (w * huber)[:, None], prior])
        goal = np.concatenate([w * huber, np.full(len(names), 1.0 / PRIOR)])
        found = lsq_linear(full, goal, (low / scale, high / scale), method="bvls").x * scale
        residual = a @ found - 1.0
        spread = max(1.4826 * float(np.median(np.abs(residual - np.median(residual)))), 1e-6)
        huber = np.sqrt(np.minimum(1.0, TUNING * spread / np.maximum(np.abs(residual), 1e-12)))
    return dict(zip(columns, found.tolist(), strict=True))


def slowed(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], factors: Mapping[str, float]) -> dict[str, Any]:
    """Returns kernel coefficients of a device whose kernels take ``factors`` times as long.

    Args:
        tables: by family and number format, as `cost.roofline` has them.
        factors: by kernel, see `cost.iteration.by_format`; a format without a row of its own gets one made from the row
            that answers for it.
    """
    from fleetcast.cost.roofline import format_of

    found: dict[str, Any] = {family: {name: dict(row) for name, row in rows.items()} for family, rows in tables.items()}
    for kernel, factor in factors.items():
        part, _, form = kernel.partition(".")
        for family in _FAMILIES.get(part, ()):
            rows = tables.get(family, {})
            if not form:
                found[family] = {name: _longer(row, factor) for name, row in rows.items()} if rows else {}
                continue
            answers = next((name for name in (*format_of(form).tables, "any") if name in rows), None)
            if answers is not None:
                found[family][form if answers != "any" else "any"] = _longer(rows[answers], factor)
    return {family: rows for family, rows in found.items() if rows}


_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "products": ("gemm",), "elementwise": ("stream", "sample"), "decode": ("decode",), "prefill": ("prefill",),
}  # fmt: skip
_TIMES = ("launch", "depth", "base", "head", "each", "passes", "kept", "quant", "token")
_SPEEDS = ("compute", "memory", "narrow")


def _longer(row: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Returns coefficients of a kernel that takes ``factor`` times as long."""
    made = dict(row)
    for name in _TIMES:
        if name in made:
            value = made[name]
            made[name] = [x * factor for x in value] if isinstance(value, list | tuple) else value * factor
    for name in _SPEEDS:
        if name in made:
            made[name] /= factor
    return made


def _pieces(runs: Sequence[Ran]) -> list[list[Ran]]:
    """Returns the iterations of each run cut into consecutive pieces, by piece."""
    count = min(PIECES, *(len(run.seconds) for run in runs))
    return [
        [run.part(rows) for run, rows in zip(runs, cut, strict=True)]
        for cut in zip(*(np.array_split(np.arange(len(run.seconds)), count) for run in runs), strict=True)
    ]


def _error(run: Ran, constants: Mapping[str, float]) -> float:
    return float(run.forecast(constants).sum() / run.seconds.sum() - 1.0)


def _intervals(best: Mapping[str, float], without: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Returns jackknife intervals; where a constant is not in every fit, from those that have it."""
    found = {}
    for name, value in best.items():
        left = np.array([w[name] for w in without if name in w])
        n = len(left)
        spread = Z80 * float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())) if n > 1 else float("inf")
        found[name] = (max(0.0, value - spread), value + spread)
    return found
