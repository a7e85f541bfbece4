"""Goodput by placement from measured profiles: step times and gradient noise, in folders as Pollux and Sia left them.

A folder holds a folder for each model, with ``placements-<kind>.csv`` and ``scalability-<kind>.csv`` (placement,
local_bsz, step_time,
sync_time: seconds of a step and of what of it is the exchange) and ``validation-<batch>.csv`` (progress, grad_sqr,
grad_var by epoch). They have no licence and do not ship: a scenario names the folder.

The batch is the one of highest goodput. Where devices lie as they did in a measurement, its step times hold,
interpolated over batches; elsewhere those of `goodput.Step`, fitted on all measurements of the model on that kind. A
unit of work is what one step of the reference batch (the smallest validated) does. Epochs are merged into at most
`PHASES` phases.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.jobs import Lying, called
from fleetcast.cost.jobs.goodput import Step, fit, times, worth

PHASES = 10
CANDIDATES = 50  # batches tried between the smallest and the largest, as Pollux does
ALIASES = {"t4": "aws", "v100": "azure", "a100": "dgx-ext", "rtx-2080-ti": "rtx", "quadro-rtx-6000": "quad"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Step times of one model on one kind, a row a (nodes, devices, samples a device), mean of its placements."""

    nodes: NDArray[np.int64]
    devices: NDArray[np.int64]
    batch: Floats
    step: Floats
    sync: Floats


@dataclass(frozen=True)
class Learning:
    """How a model learns.

    Attributes:
        batches: f8[b], validated batch sizes, ascending; the first is the reference.
        shares: f8[p], of the work at which phases begin.
        square: f8[p, b], of the gradient's norm, squared.
        variance: f8[p, b], of the gradient in the reference batch.
        work: units of the whole job.
    """

    batches: Floats
    shares: Floats
    square: Floats
    variance: Floats
    work: float


class Profiles:
    """Goodput by placement.

    Args:
        path: the folder of profiles.
        kinds: names of the fleet's kinds: those of the files, or devices that stand for them (`ALIASES`).
        sizes: devices of a node, by kind.
        fitted: whether the fitted step model answers everywhere, also where a placement was measured.
        slower: factors by model on every time, where runs were slower than profiles.
    """

    def __init__(
        self, path: str | Path, kinds: Sequence[str], sizes: Sequence[int] = (), *, fitted: bool = False,
        slower: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        root = Path(path)
        if not root.is_dir():
            raise SpecError("speeds", "no such folder of profiles", value=str(path), hint="Name the authors' folder")
        self.kinds, self.source, self.fitted = tuple(kinds), str(path), fitted
        self.sizes = tuple(sizes) or (1,) * len(self.kinds)
        files = [ALIASES.get(called(kind, ALIASES) or kind, kind) for kind in self.kinds]
        folders = sorted(f for f in root.iterdir() if f.is_dir())
        found = [f for f in folders if all((f / f"placements-{name}.csv").exists() for name in files)]
        for kind, name in zip(self.kinds, files, strict=True):
            if not any((f / f"placements-{name}.csv").exists() for f in folders):
                known = sorted(
                    {p.stem.removeprefix("placements-") for f in folders for p in f.glob("placements-*.csv")}
                )
                raise SpecError("speeds", "no profiles of this kind of device", value=kind, limit=", ".join(known))
        self.models = tuple(f.name for f in found)
        self._slower = [(slower or {}).get(name, 1.0) for name in self.models]
        self._learning = [_learning(f) for f in found]
        self._measured = [[read(f, name) for name in files] for f in found]
        self._steps: dict[tuple[int, int], Step] = {}
        self._groups: dict[tuple[int, int], dict[tuple[int, int], tuple[Floats, Floats, Floats]]] = {}
        self._rates: dict[tuple[int, Lying, int], float] = {}

    def phases(self, model: int) -> tuple[float, ...]:
        """Returns at which share of the work each phase begins."""
        return tuple(float(s) for s in self._learning[model].shares)

    def whole(self, model: int) -> float:
        """Returns units of work of a whole job."""
        return self._learning[model].work

    def measured(self, model: int, kind: int) -> Measured:
        """Returns the step times behind the rates."""
        return self._measured[model][kind]

    def rate(self, model: int, lying: tuple[Lying, ...], phase: int = 0) -> float:
        """Returns goodput in reference steps a second; 0 on several kinds at once."""
        if len(lying) != 1:
            return 0.0
        key = (model, lying[0], phase)
        known = self._rates.get(key)
        if known is None:
            known = self._rates[key] = self._best(model, lying[0], phase)[0]
        return known

    def batch(self, model: int, lying: Lying, phase: int = 0) -> int:
        """Returns the batch of highest goodput, over all devices."""
        return self._best(model, lying, phase)[1]

    def _best(self, model: int, lying: Lying, phase: int) -> tuple[float, int]:
        learning, measured = self._learning[model], self._measured[model][lying.kind]
        n = lying.devices
        first, last = float(learning.batches[0]), float(learning.batches[-1])
        least = float(measured.batch.min())
        whole = self._groups_of(model, lying.kind).get((lying.nodes, n))
        most = float(measured.batch.max() if whole is None else whole[0][-1])
        low = max(first, least * n)
        if low > last:
            return 0.0, 0
        local = np.geomspace(low, last, CANDIDATES) / n
        passes = np.ceil(local / most - 1e-8)
        if n == 1:  # one batch alone says nothing of the gradient's variance
            passes = np.where(local > first + 1e-8, np.maximum(passes, 2), passes)
        each = np.ceil(local / passes - 1e-8)
        total = np.minimum(each * passes * n, last)
        if whole is None or self.fitted:
            accumulate, step = times(self._step_of(model, lying.kind), n, lying.nodes, each)
        else:
            step = np.interp(each, whole[0], whole[1])
            accumulate = step - np.interp(each, whole[0], whole[2])
        seconds = step + accumulate * (passes - 1)
        square = np.interp(total, learning.batches, learning.square[phase])
        variance = np.interp(total, learning.batches, learning.variance[phase])
        scale = total / first
        good = np.where(each >= least, scale * worth(square, variance, scale) / seconds, 0.0) / self._slower[model]
        at = int(good.argmax())
        return float(good[at]), int(total[at])

    def _step_of(self, model: int, kind: int) -> Step:
        key = (model, kind)
        if key not in self._steps:
            m = self._measured[model][kind]
            self._steps[key] = fit(m.devices, m.nodes, m.batch, m.step - m.sync, m.step)
        return self._steps[key]

    def _groups_of(self, model: int, kind: int) -> dict[tuple[int, int], tuple[Floats, Floats, Floats]]:
        key = (model, kind)
        if key not in self._groups:
            m = self._measured[model][kind]
            groups = {}
            for k, n in sorted({(int(k), int(n)) for k, n in zip(m.nodes, m.devices, strict=True)}):
                rows = np.flatnonzero((m.nodes == k) & (m.devices == n))
                groups[k, n] = (m.batch[rows], m.step[rows], m.sync[rows])
            self._groups[key] = groups
        return self._groups[key]


def read(folder: Path, kind: str) -> Measured:
    """Returns the step times of a model's folder, placements with as many nodes and devices taken together.

    Raises:
        SpecError: a column is missing or a value is no positive number.
    """
    sums: dict[tuple[int, int, float], list[tuple[float, float]]] = {}
    for stem in ("placements", "scalability"):
        path = folder / f"{stem}-{kind}.csv"
        if not path.exists():
            continue
        for nodes, devices, batch, step, sync in _rows(path):
            key = (nodes, devices, batch)
            if stem == "placements" or key not in sums:  # what was measured by placement counts
                sums.setdefault(key, []).append((step, sync))
    keys = sorted(sums)
    means = np.array([np.mean(sums[key], axis=0) for key in keys])
    nodes_, devices_, batches = zip(*keys, strict=True)
    return Measured(np.array(nodes_), np.array(devices_), np.array(batches, float), means[:, 0], means[:, 1])


def _rows(path: Path) -> Iterator[tuple[int, int, float, float, float]]:
    with path.open(encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                batch, step, sync = float(row["local_bsz"]), float(row["step_time"]), float(row["sync_time"])
                if "placement" in row:
                    digits = [int(c) for c in row["placement"]]
                    nodes, devices = len(digits), sum(digits)
                else:
                    nodes, devices = int(row["num_nodes"]), int(row["num_replicas"])
            except (KeyError, TypeError, ValueError) as problem:
                hint = "expects placement (or num_nodes, num_replicas), local_bsz, step_time, sync_time"
                raise SpecError(f"{path.name} line {number}", f"cannot be read: {problem}", hint=hint) from None
            if not (step > 0 and batch > 0 and sync >= 0):
                where = f"{path.name} line {number}"
                raise SpecError(where, "out of range", value=(batch, step, sync), limit="batches and times above 0")
            yield nodes, devices, batch, step, min(sync, 0.999 * step)


def _learning(folder: Path) -> Learning:
    files = sorted(folder.glob("validation-*.csv"), key=lambda p: int(p.stem.split("-")[1]))
    if not files:
        where, hint = f"speeds, {folder.name}", "How the model learns is not known without one"
        raise SpecError(where, "no validation-<batch>.csv", hint=hint)
    tables = [_epochs(path) for path in files]
    epochs = min(len(t) for t in tables)
    stack = np.stack([t[:epochs] for t in tables], axis=1)  # [epoch, batch, (progress, square, variance)]
    ends = stack[:, :, 0].min(axis=1)
    shares = np.concatenate([[0.0], ends[:-1] / ends[-1]])
    weights = np.diff(np.append(shares, 1.0))
    cuts = np.unique(np.linspace(0, epochs, min(PHASES, epochs) + 1).astype(int))
    logs = np.log(np.maximum(stack[:, :, 1:], 1e-300))
    merged = np.stack([
        np.average(logs[a:b], axis=0, weights=weights[a:b]) for a, b in itertools.pairwise(cuts)
    ])  # fmt: skip
    batches = np.array([float(p.stem.split("-")[1]) for p in files])
    return Learning(batches, shares[cuts[:-1]], np.exp(merged[:, :, 0]), np.exp(merged[:, :, 1]), float(ends[-1]))


def _epochs(path: Path) -> Floats:
    with path.open(encoding="utf-8") as lines:
        rows: Iterable[dict[str, str]] = csv.DictReader(lines)
        try:
            return np.array([[float(r[c]) for c in ("progress", "grad_sqr", "grad_var")] for r in rows])
        except (KeyError, TypeError, ValueError) as problem:
            raise SpecError(
                path.name, f"cannot be read: {problem}", hint="expects progress, grad_sqr, grad_var"
            ) from None
