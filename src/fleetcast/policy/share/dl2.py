"""DL2: a network deals workers and parameter servers out, a unit at a time, until it says that the slot is dealt.

"DL2: A Deep Learning-driven Scheduler for Deep Learning Clusters" (Peng et al., arXiv 1909.06040, 2019). Of the first
J jobs to arrive the network sees six numbers: kind, slots since arrival, work left, dominant share, workers, servers.
It answers with 3 J + 1 scores: a worker, a server or one of each for a job, or the end of the slot; what is illegal is
masked. Every job first has one of each, so that none starves; the first unit without room ends the slot.

How this differs: numbers are scaled before the first layer; of the probabilities the greatest is taken, where the
authors draw. What normalises a layer's batch in training is one scale and one shift here. This file is the forward
pass; training is in `learning.rl.dl2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.policy.share.board import Board, Job

FEATURES = 6
"""Of a job, as the network sees it."""
NAMES = ("in", "in_bias", "scale1", "shift1", "hidden", "hidden_bias", "scale2", "shift2", "out", "out_bias")
SHIPPED = Path(__file__).with_name("dl2.npz")


def scaled(state: Any) -> Any:
    """Returns f4[..., 6 J] of the same numbers around 1.

    Args:
        state: f4[..., 6 J], by job: kind from 1 (0 = no job), slots since arrival, work left, dominant share, workers,
            servers.
    """
    jobs = state.reshape(*state.shape[:-1], -1, FEATURES)
    out = np.empty(jobs.shape, np.float32)
    out[..., 0] = np.log1p(jobs[..., 1]) / 3.0
    out[..., 1] = jobs[..., 2]
    out[..., 2] = jobs[..., 3] * 10.0
    out[..., 3:5] = jobs[..., 4:6] / 8.0
    out[..., 5] = jobs[..., 0] / 8.0
    return out.reshape(state.shape)


def forward(p: Mapping[str, Any], x: Any, relu: Any) -> Any:
    """Returns scores [B, 3 J + 1] of scaled states [B, 6 J], by NumPy or by torch: the same lines."""
    x = relu(x @ p["in"] + p["in_bias"]) * p["scale1"] + p["shift1"]
    x = relu(x @ p["hidden"] + p["hidden_bias"]) * p["scale2"] + p["shift2"]
    return x @ p["out"] + p["out_bias"]


def rectified(x: Any) -> Any:
    """Returns the positive part of an array."""
    return np.maximum(x, 0.0)


def scores(p: Mapping[str, Any], state: Any, mask: Any) -> Any:
    """Returns f4[B, 3 J + 1], what is illegal far below all else.

    Args:
        p: weights by `NAMES`.
        state: f4[B, 6 J], see `scaled`.
        mask: u1[B, 3 J + 1], 1 = legal.
    """
    return np.where(mask > 0, forward(p, scaled(state), rectified), np.float32(-1e9))


def read_weights(path: Path) -> dict[str, Any]:
    """Returns the weights of a file, and under "models" the kinds of job that they know, checked.

    Raises:
        SpecError: no such file, or not such weights.
    """
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise SpecError(
            "plan.share.weights", f"cannot be read: {error}", value=str(path), hint="fleetcast learn writes such a file"
        ) from None
    for name in (*NAMES, "models"):
        if name not in found:
            raise SpecError(
                "plan.share.weights", f"has no '{name}'", value=str(path), limit="weights of DL2",
                hint="fleetcast learn writes such a file",
            )  # fmt: skip
    jobs, wide = found["in"].shape[0] // FEATURES, found["in"].shape[1]
    shapes = {
        "in": (FEATURES * jobs, wide), "in_bias": (wide,), "scale1": (wide,), "shift1": (wide,), "hidden": (wide, wide),
        "hidden_bias": (wide,), "scale2": (wide,), "shift2": (wide,), "out": (wide, 3 * jobs + 1),
        "out_bias": (3 * jobs + 1,),
    }  # fmt: skip
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise SpecError(
                "plan.share.weights", f"'{name}' is of {found[name].shape}", value=str(path), limit=str(shape),
                hint="Train them anew",
            )  # fmt: skip
    return {name: found[name].astype(np.float32) for name in NAMES} | {
        "models": tuple(str(name) for name in found["models"])
    }


class Dl2:
    """Deals slots out by a trained network.

    Args:
        weights: an .npz file that ``fleetcast learn`` wrote; "" = the one that is shipped, for DL2's eight models.
        guard: a policy that knows speeds ("drf", "optimus", "srtf" or "fifo"): a slot is dealt by it instead where what
            jobs would earn by it, were they to keep that, is more; "" = none.
    """

    kind = "dl2"
    servers = True
    """It says of each unit whether it is a worker or a server."""

    def __init__(self, *, weights: str = "", guard: str = "") -> None:
        self.weights, self.guard = weights, guard
        self._read: dict[str, Any] | None = None

    @property
    def network(self) -> dict[str, Any]:
        """What the file holds, read once.

        Raises:
            SpecError: no such file, or not such weights.
        """
        if self._read is None:
            self._read = read_weights(Path(self.weights) if self.weights else SHIPPED)
        return self._read

    @property
    def window(self) -> int:
        """Jobs that the network sees."""
        return int(self.network["in"].shape[0]) // FEATURES

    def scores(self, state: Any, mask: Any) -> Any:
        """Returns f4[B, 3 J + 1], see `scores`; the runs' kinds are numbered as in the file."""
        return scores(self.network, state, mask)

    def share(self, board: Board) -> None:
        """Gives each job one of each, then units by the network until it says that the slot is dealt.

        Raises:
            SpecError: a job's model is not one that the weights know, or jobs have no servers.
        """
        dominant = getattr(board, "dominant", None)
        if dominant is None:
            raise SpecError(
                "plan.share.kind", "deals out workers and parameter servers, and these jobs have none", value=self.kind,
                limit="jobs with workload.servers", hint="Name another share policy",
            )  # fmt: skip
        models = self.network["models"]
        for job in board.jobs:
            if job.model not in models:
                raise SpecError(
                    "plan.share.weights", f"do not know '{job.model}', which {job.name} runs",
                    value=self.weights or "shipped", limit=", ".join(models),
                    hint="fleetcast learn trains on a trace of your own",
                )  # fmt: skip
            board.grant(job, 1, servers=1)
        while True:
            seats = [job for job in board.jobs if _workers(job) < job.most or job.servers < job.most][: self.window]
            state = np.zeros((self.window, FEATURES), np.float32)
            mask = np.zeros(3 * self.window + 1, np.uint8)
            mask[-1] = 1
            for seat, job in enumerate(seats):
                stay = round((board.now - job.arrival) / board.round)
                state[seat] = (
                    models.index(job.model) + 1, stay, job.remaining, dominant(job), _workers(job), job.servers
                )  # fmt: skip
                more = _workers(job) < job.most, job.servers < job.most
                mask[3 * seat : 3 * seat + 3] = (*more, all(more))
            action = int(self.scores(state.reshape(1, -1), mask[None])[0].argmax())
            if action == 3 * self.window:
                return
            job, unit = seats[action // 3], action % 3
            if not board.grant(job, int(unit != 1), servers=int(unit != 0)):
                return


def _workers(job: Job) -> int:
    return sum(job.granted.values())
