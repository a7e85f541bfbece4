"""Refits a forecast's few constants on iterations that an engine ran: kernels' factors and the host's seconds.

An iteration is a forward pass and what the host does around it, and both are measured. The pass takes what its kernels
take, each by a factor that is 1 where the profile was right; around it are sampling and the host's own time:

    pass = sum_k factor_k * kernel_k
    rest = factor_s * sampling + step + seq * sequences + token * tokens

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

SAMPLING = "sampling"
"""The kernel that is not a part of the forward pass."""
HOST = ("step", "seq", "token")
"""Constants of the host, s, as `cost.engine.Host` names them."""
LIMITS: Mapping[str, float] = {"step": 0.05, "seq": 0.01, "token": 1e-3}
"""Largest they can be, s."""
FACTORS = (0.1, 10.0)
"""Least and largest factor of a kernel."""
PRIOR, NOISE, WORTH = 0.25, 0.05, 4
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
        kernels: s that the profile forecasts, by kernel, see `cost.iteration.by_constant`.
        sequences: of each iteration.
        tokens: of each iteration.
        seconds: measured.
        model: of that in the forward pass.
        group: runs of one setting; they are left out together.
    """

    name: str
    kernels: Mapping[str, Array]
    sequences: Array
    tokens: Array
    seconds: Array
    model: Array
    group: str = ""

    def forecast(self, constants: Mapping[str, float]) -> Array:
        """Returns s of each iteration under some constants; factors left out are 1."""
        found = sum(constants.get(name, 1.0) * seconds for name, seconds in self.kernels.items())
        found = found + constants["step"] + constants["seq"] * self.sequences + constants["token"] * self.tokens
        return np.asarray(found, dtype=np.float64)

    def part(self, rows: Any) -> Ran:
        """Returns the iterations at ``rows``."""
        kernels = {name: seconds[rows] for name, seconds in self.kernels.items()}
        return Ran(self.name, kernels, self.sequences[rows], self.tokens[rows], self.seconds[rows], self.model[rows])


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
    best, spread = _fit(runs)
    units: dict[str, list[Ran]] = {}
    for i, run in enumerate(runs):
        units.setdefault(run.group or str(i), []).append(run)
    settings = len(units)
    if settings == 1:
        units = {str(i): part for i, part in enumerate(_pieces(runs))}
    without = {
        left: fit([run for name, part in units.items() if name != left for run in part]) for left in units
    } if len(units) > 1 else {}  # fmt: skip
    before = {name: 1.0 for name in best} | {name: host.get(name, 0.0) for name in HOST}
    errors = {}
    for i, run in enumerate(runs):
        held = _error(run, without[run.group or str(i)]) if settings > 1 else float("nan")
        errors[run.name] = (_error(run, before), _error(run, best), held)
    return Calibration(best, _intervals(best, spread, list(without.values())), errors)


def fit(runs: Sequence[Ran]) -> dict[str, float]:
    """Returns the constants that fit the runs best: non-negative least squares, reweighted."""
    return _fit(runs)[0]


def _fit(runs: Sequence[Ran]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the constants that fit best, and the standard deviation of each that noise and prior leave."""
    names = list(dict.fromkeys(name for run in runs for name in run.kernels))
    columns = [*names, *HOST]
    rows, goals, weights, around_it = [], [], [], []
    for run in runs:
        n = len(run.seconds)
        zero = np.zeros(n)
        inside = [run.kernels.get(name, zero) if name != SAMPLING else zero for name in names]
        around = [run.kernels.get(name, zero) if name == SAMPLING else zero for name in names]
        host = [np.ones(n), run.sequences, run.tokens]
        parts = (([*inside, zero, zero, zero], run.model), ([*around, *host], run.seconds - run.model))
        for i, (terms, seconds) in enumerate(parts):
            rows.append(np.stack(terms, axis=1) / run.seconds[:, None])
            goals.append(seconds / run.seconds)
            weights.append(np.full(n, np.sqrt(min(WORTH, n) / n) / NOISE))
            around_it.append(np.full(n, bool(i)))
    a, y, w, rest = (np.concatenate(x) for x in (rows, goals, weights, around_it))
    low = np.array([FACTORS[0]] * len(names) + [0.0] * len(HOST))
    high = np.array([FACTORS[1]] * len(names) + [LIMITS[name] for name in HOST])
    scale = np.array([1.0] * len(names) + [LIMITS[name] / 100 for name in HOST])
    prior = np.eye(len(columns))[: len(names)] / PRIOR
    found, huber, full = np.ones(len(columns)), np.ones(len(w)), prior
    for _ in range(ROUNDS):
        full = np.concatenate([a * scale * (w * huber)[:, None], prior])
        goal = np.concatenate([w * huber * y, np.full(len(names), 1.0 / PRIOR)])
        found = lsq_linear(full, goal, (low / scale, high / scale), method="bvls").x * scale
        residual = a @ found - y
        spread = np.where(rest, *(_spread(residual[kind]) for kind in (rest, ~rest)))
        huber = np.sqrt(np.minimum(1.0, TUNING * spread / np.maximum(np.abs(residual), 1e-12)))
    left = np.sqrt(np.diag(np.linalg.pinv(full.T @ full))) * scale
    return dict(zip(columns, found.tolist(), strict=True)), dict(zip(columns, left.tolist(), strict=True))


def slowed(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], factors: Mapping[str, float]) -> dict[str, Any]:
    """Returns kernel coefficients of a device whose kernels take ``factors`` times as long.

    Args:
        tables: by family and number format, as `cost.roofline` has them.
        factors: by kernel, see `cost.iteration.by_constant`; a format without products of its own gets some, made from
            those that answer for it.
    """
    from fleetcast.cost.roofline import format_of

    found: dict[str, Any] = {family: {name: dict(row) for name, row in rows.items()} for family, rows in tables.items()}
    for kernel, families in _FAMILIES.items():
        for family in families:
            for name in found.get(family, {}) if kernel in factors else ():
                found[family][name] = _longer(found[family][name], factors[kernel], factors[kernel])
    gemm = tables.get("gemm", {})
    for form in dict.fromkeys(kernel.partition(".")[2] for kernel in factors if "." in kernel):
        answers = next((name for name in (*format_of(form).tables, "any") if name in gemm), None)
        if answers is not None:
            both = [factors.get(f"{part}.{form}", 1.0) for part in ("memory", "compute")]
            found["gemm"][answers if answers == "any" else form] = _longer(gemm[answers], *both)
    return found


_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "elementwise": ("stream",), "sampling": ("sample",), "decode": ("decode",), "prefill": ("prefill",),
}  # fmt: skip
_TIMES = ("launch", "depth", "base", "head", "each", "quant", "token")
_SHARES: Mapping[str, int] = {"memory": 0, "compute": 1, "narrow": 1}


def _longer(row: Mapping[str, Any], memory: float, compute: float) -> dict[str, Any]:
    """Returns coefficients of a kernel whose reading takes ``memory`` times as long, and its arithmetic ``compute``."""
    made = dict(row)
    for name in _TIMES:
        if name in made:
            made[name] *= memory
    for name, which in _SHARES.items():
        if name in made and "passes" not in made:
            made[name] /= (memory, compute)[which]
    for name in ("passes", "kept"):  # of one row first, which is reading
        if made.get(name):
            first = made[name][0]
            made[name] = [first * memory + (x - first) * compute for x in made[name]]
    return made


def _spread(residual: Array) -> float:
    """Returns a standard deviation that outliers do not move."""
    return max(1.4826 * float(np.median(np.abs(residual - np.median(residual)))), 1e-6)


def _pieces(runs: Sequence[Ran]) -> list[list[Ran]]:
    """Returns the iterations of each run cut into consecutive pieces, by piece."""
    count = min(PIECES, *(len(run.seconds) for run in runs))
    return [
        [run.part(rows) for run, rows in zip(runs, cut, strict=True)]
        for cut in zip(*(np.array_split(np.arange(len(run.seconds)), count) for run in runs), strict=True)
    ]


def _error(run: Ran, constants: Mapping[str, float]) -> float:
    return float(run.forecast(constants).sum() / run.seconds.sum() - 1.0)


def _intervals(
    best: Mapping[str, float], spread: Mapping[str, float], without: Sequence[Mapping[str, float]]
) -> dict[str, tuple[float, float]]:
    """Returns intervals from what noise and prior leave and from the jackknife; of fits that have the constant."""
    found = {}
    for name, value in best.items():
        left = np.array([w[name] for w in without if name in w])
        n = len(left)
        jackknife = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())) if n > 1 else float("inf")
        half = Z80 * float(np.hypot(jackknife, spread[name]))
        found[name] = (max(0.0, value - half), value + half)
    return found
