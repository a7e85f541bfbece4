"""DL2's own world for the benchmarks: its measured speeds, its eight lists of jobs, what its simulator made of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import data_path
from fleetcast.policy.share.dl2 import NAMES
from fleetcast.scenario.workload.server_jobs import Kinds, ServerJobs, dl2

WEIGHTS = Path(__file__).parent / "learned_weights"
"""Weights that `benchmarks.fit.learned_jobs` made, a file a teacher and seed: warm-up and end, and the curve."""
POLICIES = {"FIFO": "fifo", "SRTF": "srtf", "DRF": "drf", "Optimus": "optimus"}


def reference() -> Path | None:
    """Returns the folder of what DL2's simulator made."""
    return data_path("scheduling", "reference", "dl2")


def rows(name: str) -> list[dict[str, str]]:
    """Returns the rows of a file of it."""
    folder = reference()
    assert folder is not None
    with (folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def measured() -> Kinds | None:
    """Returns the eight models with the authors' speeds, interpolated as their simulator does; None = not here."""
    if reference() is None:
        return None
    kinds = dl2()
    speed = np.zeros_like(kinds.speed)
    for row in rows("speed_grid.csv"):
        at = kinds.models.index(row["model"]), int(row["num_ps"]), int(row["num_workers"])
        speed[at] = float(row["steps_per_s_rbf"])
    return replace(kinds, speed=speed, source="DL2's measured speeds")


@cache
def lists() -> tuple[ServerJobs, ...]:
    """Returns DL2's eight lists."""
    kinds = measured()
    assert kinds is not None
    found = []
    for trace in range(8):
        mine = [row for row in rows("jobs.csv") if int(row["trace"]) == trace]
        epochs = np.array([float(row["num_epochs"]) for row in mine])
        found.append(
            ServerJobs(
                kinds, np.array([int(row["arrival_slot"]) for row in mine], np.int32),
                np.array([int(row["job_type"]) - 1 for row in mine], np.int32), epochs, epochs,
                source=f"DL2's list {trace}",
            )
        )  # fmt: skip
    return tuple(found)


def network(teacher: str, seed: int, part: str) -> dict[str, Any] | None:
    """Returns weights of a training, "warm" or "learnt"; None = there are none."""
    path = WEIGHTS / f"{teacher}-{seed}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        if f"{part}.in" not in file.files:
            return None
        return {name: file[f"{part}.{name}"].astype(np.float32) for name in NAMES}


def training(teacher: str, seed: int) -> tuple[Any, float]:
    """Returns the curve of a training (slots, by round, exploring included) and its CPU seconds."""
    with np.load(WEIGHTS / f"{teacher}-{seed}.npz", allow_pickle=False) as file:
        return file["curve"], float(file["seconds"])
