"""The same model under several backends: do they agree, and how long does a pass take in each?

Each backend runs in a process of its own (`worker`) on the same random weights (`shapes`). Readings are taken in turn,
one of each backend a round, so that a disturbance spoils one reading of many cells and not many of one. Latencies of
any become a device profile (`fitted`) that scenarios name.

After the benchmark of MLX-Transformers (Ajayi and Odunayo, "Benchmarking On-Device Machine Learning on Apple Silicon
with MLX", 2025): BERT, RoBERTa and XLM-R, by sequence length and batch, in several frameworks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.host import cores, waiting
from fleetcast.runtime.measure.backends.shapes import Shape, write
from fleetcast.runtime.measure.backends.worker import BACKENDS

AGREE: Final = 1e-4
"""Largest difference of an output element at which backends count as equal, in fp32."""
CHECK: Final = (2, 17)
"""Batch and sequence of the outputs that are compared."""
_WORKER: Final = ("-m", "fleetcast.runtime.measure.backends.worker")
_LIBRARIES: Final = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One backend's passes over one grid point.

    Attributes:
        shape: name of the model.
        backend: name.
        sequence: tokens of each sequence.
        batch: sequences.
        seconds: wall clock of each pass.
        cpu: s of processor time, of the pass that took least.
    """

    shape: str
    backend: str
    sequence: int
    batch: int
    seconds: tuple[float, ...]
    cpu: float

    @property
    def median(self) -> float:
        """Median seconds of a pass."""
        return float(np.median(self.seconds))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the median, or all readings where they are too few for one."""
        return median_interval(self.seconds)

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        low, high = self.interval
        return asdict(self) | {"median": self.median, "low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a run of the benchmark found.

    Attributes:
        shapes: the models.
        cells: by shape, point and backend.
        differences: shape -> backend -> largest difference of an output element from the first backend's.
        skipped: backend, or "shape under backend" -> why it was not run.
        threads: of each backend.
        load: processes per core that wanted to run, before and after.
    """

    shapes: tuple[Shape, ...]
    cells: tuple[Cell, ...]
    differences: Mapping[str, Mapping[str, float]]
    skipped: Mapping[str, str]
    threads: int
    load: tuple[float, float]

    @property
    def agreed(self) -> bool:
        """Whether all outputs are equal to within `AGREE`."""
        return all(d <= AGREE for of in self.differences.values() for d in of.values())

    @property
    def backends(self) -> list[str]:
        """Names of those that ran."""
        return list(dict.fromkeys(cell.backend for cell in self.cells))

    def table(self) -> dict[str, Any]:
        """Returns all of it for JSON."""
        return {
            "shapes": [asdict(s) for s in self.shapes], "threads": self.threads, "load": list(self.load),
            "agreed": self.agreed, "differences": {k: dict(v) for k, v in self.differences.items()},
            "skipped": dict(self.skipped), "cells": [cell.table() for cell in self.cells],
        }  # fmt: skip


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the order statistics that hold the median in at least 95 % of samples; of five or fewer, the extremes.

    The number of readings below the median is binomial with one half, whatever their distribution.
    """
    from scipy.stats import binom

    ordered, count = sorted(values), len(values)
    skip = max(int(binom.ppf(0.025, count, 0.5)) - 1, 0)
    return ordered[skip], ordered[count - 1 - skip]


def absent(backend: str) -> str:
    """Returns the package that a backend lacks, or ""."""
    return next((name for name in BACKENDS[backend][1] if importlib.util.find_spec(name) is None), "")


def compare(
    shapes: Sequence[Shape], backends: Sequence[str] = (), *, sequences: Sequence[int] = (16, 64, 256),
    batches: Sequence[int] = (1, 4), runs: int = 9, threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:  # fmt: skip
    """Runs the same weights under every backend that is installed, and times it over the grid.

    Args:
        shapes: the models.
        backends: names; () = all. The outputs of the first are what the others' are compared with.
        sequences: tokens of each sequence.
        batches: sequences of a pass.
        runs: timed passes of each cell, after one that is not timed.
        threads: of each backend; 0 = as many as cores.
        progress: called with (readings done, readings).

    Raises:
        SpecError: an unknown backend, or a sequence longer than a shape's positions.
        Unsupported: none of the backends is installed.
    """
    names = _checked(shapes, backends, sequences, batches, runs)
    skipped = {name: f"{absent(name)} is not installed" for name in names if absent(name)}
    names = [name for name in names if name not in skipped]
    if not names:
        raise Unsupported(f"none of {', '.join(skipped)} is installed", "Run: pip install 'fleetcast[backends]'")
    threads = threads or cores()
    before, points = waiting(), [(s, b) for s in sequences for b in batches]
    cells: list[Cell] = []
    differences: dict[str, dict[str, float]] = {}
    total, done = len(shapes) * len(points) * runs * len(names), 0
    for shape in shapes:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write(folder, shape)
            workers: dict[str, _Worker] = {}
            try:
                for name in names:
                    workers[name] = _Worker(name, shape, folder, threads)
                live, differences[shape.name] = _check(workers, shape, folder, skipped)
                for sequence, batch in points:
                    found: dict[str, list[tuple[float, float]]] = {name: [] for name in live}
                    for turn in range(runs + 1):
                        for name in live:
                            reading = workers[name].time(sequence, batch, turn)
                            if turn:
                                found[name].append(reading)
                                done += 1
                        if progress is not None:
                            progress(min(done, total), total)
                    for name, readings in found.items():
                        seconds, cpu = zip(*readings, strict=True)
                        cells.append(Cell(
                            shape=shape.name, backend=name, sequence=sequence, batch=batch, seconds=seconds,
                            cpu=min(cpu),
                        ))  # fmt: skip
            finally:
                for worker in workers.values():
                    worker.close()
    if progress is not None:
        progress(total, total)
    return Comparison(
        shapes=tuple(shapes), cells=tuple(cells), differences=differences, skipped=skipped, threads=threads,
        load=(before, waiting()),
    )  # fmt: skip


def _checked(
    shapes: Sequence[Shape], backends: Sequence[str], sequences: Sequence[int], batches: Sequence[int], runs: int
) -> list[str]:
    for name in backends:
        if name not in BACKENDS:
            limit = f"one of {', '.join(BACKENDS)}"
            raise SpecError("backends", "is not known", value=name, limit=limit, hint=closest(name, BACKENDS))
    longest = min((s.positions for s in shapes), default=0)
    for field, values, most in (("sequences", sequences, longest), ("batches", batches, 1024), ("runs", [runs], 1000)):
        for value in values:
            if not 1 <= value <= most:
                raise SpecError(field, "is out of range", value=value, limit=f"1 to {most}")
    return list(dict.fromkeys(backends or BACKENDS))


def _check(
    workers: Mapping[str, _Worker], shape: Shape, folder: Path, skipped: dict[str, str]
) -> tuple[list[str], dict[str, float]]:
    """Returns the backends that run the shape, and how far each one's output is from the first one's."""
    outputs = {}
    for name, worker in workers.items():
        try:
            outputs[name] = worker.output(folder / f"{name}.npy")
        except Unsupported as error:
            skipped[f"{shape.name} under {name}"] = str(error)
    if not outputs:
        return [], {}
    first = next(iter(outputs.values()))
    return list(outputs), {name: float(np.abs(out - first).max()) for name, out in outputs.items()}


class _Worker:
    """A backend's process."""

    def __init__(self, backend: str, shape: Shape, folder: Path, threads: int) -> None:
        self.backend, self.shape = backend, shape
        environment = os.environ | {f"{name}_THREADS": str(threads) for name in _LIBRARIES}
        self._process = subprocess.Popen(
            [sys.executable, *_WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        self._say({"do": "load", "backend": backend, "shape": asdict(shape), "folder": str(folder), "threads": threads})
        self._loaded = False

    def output(self, path: Path) -> Any:
        """Returns the output for the tokens that are compared."""
        self._wait()
        self._ask({"do": "check", "out": str(path), **self._tokens(CHECK, 0)})
        return np.load(path, allow_pickle=False)

    def time(self, sequence: int, batch: int, seed: int) -> tuple[float, float]:
        """Returns the seconds of a pass over tokens of that seed, by the clock and of the processor."""
        said = self._ask({"do": "time", **self._tokens((batch, sequence), seed)})
        return said["seconds"], said["cpu"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _tokens(self, size: tuple[int, int], seed: int) -> dict[str, Any]:
        return {"size": list(size), "seed": seed, "vocab": self.shape.vocab}

    def _wait(self) -> None:
        if not self._loaded:
            self._hear()
            self._loaded = True

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self._say(message)
        return self._hear()

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # backends print what they like
                said: dict[str, Any] = json.loads(line)
                if "error" in said:
                    raise Unsupported(said["error"])
                return said
        raise self._ended()

    def _ended(self) -> Unsupported:
        return Unsupported(f"{self.backend} ended with status {self._process.wait()} on {self.shape.name}")
