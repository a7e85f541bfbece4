"""Scores of a classifier, and the threshold that lets a given share of samples pass.

A threshold ``t`` rejects what scores at most ``t``. Of ``n`` dull and ``p`` interesting samples a share ``r`` is to be
rejected: ``(n F0(t) + p F1(t)) / (n + p) = r``, where F0 and F1 are the distributions of both kinds of score. Where the
scores have steps, samples at the threshold are let through at random, just as many as the share asks for; so the ratio
is met exactly, and of two classifiers the one that separates better never keeps fewer interesting samples.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.files import read_text
from fleetcast.scenario.workload.scores import Classifier, TurnOn

Floats = NDArray[np.float64]
BINS, SPAN = 1 << 14, 1 << 12
"""Cells of a sum of efficiencies, and how many of them are one unit."""
POINTS = 4000
"""Energies at which a curve is read."""


class Scores(Protocol):
    """Both distributions of a classifier's score."""

    def rejected(self, share: float, dull: float, interesting: float) -> tuple[float, float]:
        """Returns the shares of dull and of interesting samples that are rejected where ``share`` of all are."""


@dataclass(frozen=True)
class Gaussian:
    """Dull samples score N(0, 1), interesting ones N(``mean``, ``deviation``^2)."""

    mean: float
    deviation: float

    def rejected(self, share: float, dull: float, interesting: float) -> tuple[float, float]:
        """See `Scores`; solved by bracketing, to the last digit that matters."""
        from scipy.optimize import brentq
        from scipy.special import ndtr

        def gap(t: float) -> float:
            return float((dull * ndtr(t) + interesting * ndtr((t - self.mean) / self.deviation)) / total - share)

        total = dull + interesting
        low = min(-40.0, self.mean - 40.0 * self.deviation)
        high = max(40.0, self.mean + 40.0 * self.deviation)
        t = brentq(gap, low, high, xtol=1e-13, rtol=8.9e-16, maxiter=500)
        return float(ndtr(t)), float(ndtr((t - self.mean) / self.deviation))


@dataclass(frozen=True)
class Steps:
    """Scores that take finitely many values.

    Attributes:
        values: f8[k], ascending.
        dull: f8[k], share of dull samples at most there; the last is 1.
        interesting: the same of interesting ones.
    """

    values: Floats
    dull: Floats
    interesting: Floats

    def rejected(self, share: float, dull: float, interesting: float) -> tuple[float, float]:
        """See `Scores`."""
        both = (dull * self.dull + interesting * self.interesting) / (dull + interesting)
        i = min(int(np.searchsorted(both, share)), len(both) - 1)
        before = (0.0, 0.0, 0.0) if i == 0 else (both[i - 1], self.dull[i - 1], self.interesting[i - 1])
        step = float(both[i] - before[0])
        part = min(1.0, max(0.0, (share - float(before[0])) / step)) if step > 0 else 1.0
        lost, missed = (
            float(b + part * (a[i] - b)) for a, b in ((self.dull, before[1]), (self.interesting, before[2]))
        )
        return lost, missed


class Random:
    """No score at all: what passes is drawn, the null beside every classifier."""

    def rejected(self, share: float, dull: float, interesting: float) -> tuple[float, float]:
        """See `Scores`."""
        return share, share


def steps(
    dull: Floats, interesting: Floats, dull_weights: Floats | None = None, weights: Floats | None = None
) -> Steps:
    """Returns the distributions of scores that were seen.

    Args:
        dull: f8[n], scores of dull samples.
        interesting: f8[m], scores of interesting ones.
        dull_weights: how often each; None = once.
        weights: the same of the interesting ones.
    """
    values = np.unique(np.concatenate((dull, interesting)))

    def shares(scores: Floats, often: Floats | None) -> Floats:
        order = np.argsort(scores, kind="stable")
        mass = np.ones(len(scores)) if often is None else often[order]
        total = np.concatenate(([0.0], np.cumsum(mass)))
        found: Floats = total[np.searchsorted(scores[order], values, side="right")] / total[-1]
        return found

    return Steps(values, shares(dull, dull_weights), shares(interesting, weights))


def scores(classifier: Classifier | None, folder: Path, path: str = "classifier") -> Scores:
    """Returns the distributions of a classifier's scores; None = it draws.

    Args:
        classifier: as it was read and checked.
        folder: where its files lie.
        path: where it stands, for errors.

    Raises:
        SpecError: a file that cannot be read.
    """
    if classifier is None:
        return Random()
    if classifier.kind == "gaussian":
        assert classifier.skill is not None
        return Gaussian(classifier.skill + classifier.boost, math.sqrt(classifier.variance))
    stamp = tuple(
        (Path(folder) / f).stat().st_mtime_ns if (Path(folder) / f).exists() else 0 for f in _files(classifier)
    )
    return _read(classifier, Path(folder), path, stamp)


def _files(classifier: Classifier) -> list[str]:
    return [classifier.file] if classifier.kind == "scores" else [p.file for p in classifier.paths]


@lru_cache(maxsize=64)
def _read(classifier: Classifier, folder: Path, path: str, stamp: tuple[int, ...]) -> Steps:
    if classifier.kind == "scores":
        dull, interesting = _labelled(folder / classifier.file)
        return steps(dull, interesting + classifier.boost)
    return _summed(classifier, folder, path) if classifier.together else _single(classifier, folder, path)


def _columns(file: Path, names: tuple[str, str]) -> Floats:
    """Returns f8[n, 2] of a CSV with a header.

    Raises:
        SpecError: fewer columns, no rows, or a cell that is no finite number.
    """
    found: list[tuple[float, float]] = []
    for number, row in enumerate(csv.reader(io.StringIO(read_text(file))), start=1):
        if number == 1 or not any(cell.strip() for cell in row):
            continue
        try:
            pair = float(row[0]), float(row[1])
        except (ValueError, IndexError):
            pair = math.nan, math.nan
        if not all(map(math.isfinite, pair)):
            raise SpecError(f"{file.name} line {number}", "is not a pair of numbers", value=",".join(row)[:60],
                            limit=f"{names[0]}, {names[1]}")  # fmt: skip
        found.append(pair)
    if not found:
        raise SpecError(str(file), "has no rows", limit=f"a header, then {names[0]}, {names[1]}")
    return np.asarray(found)


def _labelled(file: Path) -> tuple[Floats, Floats]:
    table = _columns(file, ("score", "label"))
    known = np.isin(table[:, 1], (0.0, 1.0))
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise SpecError(
            f"{file.name} line {row + 2}", "has an unknown label", value=float(table[row, 1]), limit="0 or 1"
        )
    dull, interesting = table[table[:, 1] == 0, 0], table[table[:, 1] == 1, 0]
    if not len(dull) or not len(interesting):
        raise SpecError(str(file), "has one kind of sample only", limit="rows with label 0 and rows with label 1")
    return dull, interesting


@dataclass(frozen=True)
class Curve:
    """A trigger's efficiency over energy, and how energies are spread.

    Attributes:
        energy: f8[k], ascending.
        efficiency: f8[k], at least 0; beyond the last energy it is 1, before the first 0.
        mean: of the exponential spread of energies.
        below: share of objects whose energy lies below the threshold.
    """

    energy: Floats
    efficiency: Floats
    mean: float
    below: float

    def at(self, part: Floats) -> Floats:
        """Returns the efficiency of objects by their quantile among all energies, 0 to 1."""
        found: Floats = np.interp(-self.mean * np.log1p(-part), self.energy, self.efficiency, left=0.0, right=1.0)
        return found


def curve(said: TurnOn, folder: Path, path: str) -> Curve:
    """Returns a path's curve, its threshold and its spread of energies found where they are not said.

    Raises:
        SpecError: the file is no curve, or nothing gives the share that fires.
    """
    table = _columns(folder / said.file, ("energy", "efficiency"))
    table = table[np.argsort(table[:, 0], kind="stable")]
    energy, keep = np.unique(table[:, 0], return_index=True)
    efficiency = np.maximum(table[keep, 1], 0.0)
    if len(energy) < 2 or energy[0] < 0:
        raise SpecError(f"{path}.file", "is not a curve", value=said.file, limit="two energies or more, from 0")
    threshold = said.threshold
    if threshold is None:
        above = np.flatnonzero(efficiency >= 0.5)
        if not len(above) or above[0] == 0:
            raise SpecError(f"{path}.threshold", "is missing, and the curve does not pass one half", value=said.file,
                            hint="Give the threshold")  # fmt: skip
        i = int(above[0])
        threshold = float(np.interp(0.5, efficiency[i - 1 : i + 1], energy[i - 1 : i + 1]))
    mean = said.mean if said.mean is not None else spread(energy, efficiency, said.fires or 0.0, f"{path}.fires")
    return Curve(energy, efficiency, mean, -math.expm1(-threshold / mean))


def spread(energy: Floats, efficiency: Floats, fires: float, path: str) -> float:
    """Returns the mean energy with which a share ``fires`` of all objects is found.

    The share is a sum over the straight pieces of the curve, each in closed form, and rises with the mean.

    Raises:
        SpecError: no mean gives it.
    """
    from scipy.optimize import brentq

    slope = np.diff(efficiency) / np.diff(energy)

    def share(mean: float) -> float:
        fall = np.exp(-energy / mean)
        # of y0 + s (x - x0) under exp(-x / m) / m from x0 to x1: y0 e0 - y1 e1 + s m (e0 - e1)
        pieces = efficiency[:-1] * fall[:-1] - efficiency[1:] * fall[1:] + slope * mean * (fall[:-1] - fall[1:])
        return float(pieces.sum() + fall[-1])

    low, high = energy[1] / 1e4, energy[-1] * 1e4
    if not share(low) < fires < share(high):
        raise SpecError(path, "is a share that no spread of energies gives", value=fires,
                        limit=f"{share(low):.3g} to {share(high):.3g}", hint="Give mean instead")  # fmt: skip
    return float(brentq(lambda mean: share(mean) - fires, low, high, xtol=1e-12, rtol=1e-12))


def _parts(found: Curve, tail: str) -> tuple[Floats, Floats]:
    """Returns quantiles of energies below the threshold and of those above."""
    middle = (np.arange(POINTS) + 0.5) / POINTS
    upper = found.below if tail == "mirror" else 1.0 - found.below
    return middle * found.below, 1.0 - (1.0 - middle) * upper


def _single(classifier: Classifier, folder: Path, path: str) -> Steps:
    """A sample has one object, on one of the paths."""
    low, high, often = [], [], []
    for i, said in enumerate(classifier.paths):
        found = curve(said, folder, f"{path}.paths[{i}]")
        below, above = _parts(found, classifier.tail)
        low.append(found.at(below))
        high.append(found.at(above) + classifier.boost)
        often.append(np.full(POINTS, said.weight))
    weights = np.concatenate(often)
    return steps(np.concatenate(low), np.concatenate(high), weights, weights)


def _summed(classifier: Classifier, folder: Path, path: str) -> Steps:
    """A sample has an object on every path, and its score is the sum of what they give: distributions are folded."""

    def spectrum(values: Floats) -> NDArray[np.complex128]:
        # each value is shared out to the two cells beside it, which keeps its mean
        place = np.minimum(np.maximum(values, 0.0) * SPAN, BINS - 2.0)
        cell = place.astype(np.int64)
        part = place - cell
        mass = np.bincount(cell, 1 - part, BINS) + np.bincount(cell + 1, part, BINS)
        found: NDArray[np.complex128] = np.fft.rfft(mass / len(values), 2 * BINS * max(1, len(classifier.paths) // 4))
        return found

    below, above = {}, {}
    for i, said in enumerate(classifier.paths):
        found = curve(said, folder, f"{path}.paths[{i}]")
        low, high = _parts(found, classifier.tail)
        below[said.name], above[said.name] = spectrum(found.at(low)), spectrum(found.at(high))

    def product(fired: tuple[str, ...]) -> NDArray[np.complex128]:
        out = np.ones_like(next(iter(below.values())))
        for name in below:
            out = out * (above if name in fired else below)[name]
        return out

    null = product(())
    total = sum(f.share for f in classifier.together)
    mixed = np.zeros_like(null)
    for firing in classifier.together:
        mixed += firing.share / total * product(firing.paths)
    masses = [np.maximum(np.fft.irfft(s), 0.0) for s in (null, mixed)]
    values = np.arange(len(masses[0])) / SPAN
    return steps(values, values + classifier.boost, masses[0], masses[1])
