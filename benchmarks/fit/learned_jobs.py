"""Trains DL2 on its authors' measured speeds: what `benchmarks.learned_jobs` judges and `policy/share/dl2.npz`.

python -m benchmarks.fit.learned_jobs [--teacher drf] [--seeds 0 1 2 3 4] [--rounds 600]

About two minutes of one core a seed. A run that is cut off goes on where it stood.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np

from benchmarks.learned_world import WEIGHTS, measured
from fleetcast.base.files import write_atomic
from fleetcast.policy.share.dl2 import SHIPPED
from fleetcast.scenario.workload.server_jobs import synthetic
from fleetcast.sim.cluster.slots import nodes_of


def main() -> int:
    """Trains and writes; says what the last rounds came to."""
    import torch

    from fleetcast.learning.rl.dl2 import Learner, Settings, train

    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", default="drf")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "fleetcast-dl2")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kinds = measured()
    if kinds is None:
        print("the authors' speeds are not here; set FLEETCAST_DATA", file=sys.stderr)
        return 2
    asked.checkpoints.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        learner = Learner(
            lambda n: synthetic(n, kinds=kinds), nodes_of(), asked.teacher, Settings(rounds=asked.rounds), seed
        )  # fmt: skip
        made = train(learner, checkpoint=asked.checkpoints / f"out_{asked.teacher}_{seed}.npz")
        held = BytesIO()
        parts = {f"learnt.{k}": v.astype(np.float16) for k, v in made.weights.items()} if asked.rounds else {}
        parts |= {f"warm.{k}": v.astype(np.float16) for k, v in made.warm.items()}
        curve = np.array(made.curve, np.float32)
        np.savez_compressed(held, curve=curve, seconds=np.array(made.seconds), **parts)
        write_atomic(WEIGHTS / f"{asked.teacher}-{seed}.npz", held.getvalue())
        if asked.teacher == "drf" and seed == 0 and asked.rounds:
            held = BytesIO()
            kept = {k: v.astype(np.float16) for k, v in made.weights.items()}
            np.savez_compressed(held, **kept, models=np.array(kinds.models))
            write_atomic(SHIPPED, held.getvalue())
        print(f"{asked.teacher} {seed}: {made.seconds:.0f} CPU-s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
