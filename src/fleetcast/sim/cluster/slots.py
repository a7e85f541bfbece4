"""The world of jobs with parameter servers in time slots: runs of `kernels.slots`, by list policies or networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.kernels import slots as kernel
from fleetcast.kernels.slots import Slots
from fleetcast.scenario.workload.server_jobs import ServerJobs

RULES = {"fifo": kernel.FIFO, "srtf": kernel.SRTF, "drf": kernel.DRF, "optimus": kernel.OPTIMUS}
"""List policies that the loop plays itself, by kind."""
HORIZON = 4096
"""Errors drawn; they are read in turn."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What goes otherwise than estimated; shares, each drawn evenly between minus and plus that much unless said.

    Attributes:
        speed: of what a job trains in a slot, and of every speed that Optimus weighs (DL2's ``TRAIN_SPEED_ERROR``, in
            its experiments 0.05 to 0.3).
        epochs: of how many epochs a job really takes (``JOB_EPOCH_EST_ERROR``, 0.05 to 0.25).
        looks: of the speeds by which Optimus weighs a worker more, minus or plus that much besides (``EST_ERROR``,
            0.05).
    """

    speed: float = 0.0
    epochs: float = 0.0
    looks: float = 0.0


NONE = Errors()


def nodes_of(count: int = 96, cpu: int = 8, gpu: int = 8) -> Any:
    """Returns i4[count, 2], DL2's cluster unless said: slots of cpu and gpu of each node."""
    return np.tile(np.array([[cpu, gpu]], np.int32), (count, 1))


def begin(
    jobs: ServerJobs, nodes: Any, *, errors: Errors = NONE, seed: int = 0, window: int = 20, discount: float = 0.0
) -> Slots:  # fmt: skip
    """Returns a run of a list of jobs, at its first slot.

    Args:
        jobs: the list.
        nodes: i4[N, 2].
        errors: what goes otherwise; equal seeds, equal errors, whoever deals.
        seed: of the errors.
        window: jobs that a network sees.
        discount: see `kernels.slots.Slots`.
    """
    draw = rng(seed, "sim", "slots")
    if errors.epochs:
        jobs = jobs.estimated(errors.epochs, draw)
    wide = HORIZON if errors.speed or errors.looks else 1
    noise = errors.speed * draw.uniform(-1.0, 1.0, wide)
    looks = np.zeros(1)
    if wide > 1:
        besides = errors.looks * draw.choice((-1.0, 1.0), (wide, 3)) * np.array([1.0, 1.0, 0.0])
        looks = (1.0 + errors.speed * draw.uniform(-1.0, 1.0, (wide, 3))) * (1.0 + besides) - 1.0
    kinds = jobs.kinds
    whole = np.concatenate([jobs.arrival[:, None], jobs.kind[:, None], kinds.takes[jobs.kind]], 1)
    parts = np.stack([jobs.epochs, jobs.real, kinds.batches[jobs.kind]], 1)
    return Slots(whole, parts, nodes, kinds.speed, kinds.most, jobs.seconds, noise, looks, window, discount)


def completion(run: Slots, jobs: ServerJobs) -> Any:
    """Returns f8[n], slots from each job's arrival to its end, the share of the last slot that it ran counted."""
    return run.columns()[1] - jobs.arrival


def play(run: Slots, rule: str, limit: int = 100_000) -> int:
    """Plays a run by a list policy to its end; returns the slots that it took (``limit`` at most)."""
    code, count = RULES[rule], 0
    while not run.over() and count < limit:
        run.begin()
        run.deal(code)
        run.finish()
        count += 1
    return count


def play_scored(runs: Sequence[Slots], scores: Callable[[Any, Any], Any], limit: int = 2_000_000) -> int:
    """Plays runs side by side, each by the greatest score; returns how many times each was asked at most.

    Args:
        runs: begun alike (window and kinds).
        scores: f4[B, 6 J] and u1[B, 3 J + 1] to f4[B, 3 J + 1].
        limit: of asking.
    """
    state, mask, rewards, came = columns(runs)
    count = 0
    while (came != kernel.OVER).any() and count < limit:
        chosen = scores(state, mask).argmax(1).astype(np.int32)
        kernel.advance(list(runs), chosen, state, mask, rewards, came)
        count += 1
    return count


def columns(runs: Sequence[Slots]) -> tuple[Any, Any, Any, Any]:
    """Opens runs; returns what networks see of them, what is legal, rewards and what came of actions, to be written."""
    window = runs[0].window_size()
    state = np.zeros((len(runs), 6 * window), np.float32)
    mask = np.zeros((len(runs), 3 * window + 1), np.uint8)
    for i, run in enumerate(runs):
        run.open()
        run.observe(state[i], mask[i])
    return state, mask, np.zeros(len(runs)), np.zeros(len(runs), np.int32)
