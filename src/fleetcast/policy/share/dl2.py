"""DL2: a network deals workers and parameter servers out, a unit at a time, until it says that the slot is dealt.

"DL2: A Deep Learning-driven Scheduler for Deep Learning Clusters" (Peng et al., arXiv 1909.06040, 2019). Of the first J
jobs to arrive the network sees six numbers each: kind, slots since arrival, work left, dominant share, workers, servers.
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
