"""Any PyTorch script under torchrun: one line per node, the plan's degrees in its environment.

Flags: docs.pytorch.org, torchrun (elastic launch), as of PyTorch 2.x.
"""

from __future__ import annotations

from fleetcast.view.exports import Export
from fleetcast.view.exports.training import Run, launch, placed, shell

VARIABLES = {
    "TP": "tensor_parallel", "PP": "pipeline_parallel", "DP": "data_parallel", "CP": "context_parallel",
    "EP": "expert_parallel", "MICRO_BATCH": "micro_batch", "INTERLEAVE": "interleave", "ZERO": "zero",
}  # fmt: skip
"""What a script finds in its environment."""


def export(run: Run) -> Export:
    """Returns a script with one torchrun line; the training script is the reader's own."""
    env = [f"{name}={run.degree(key)}" for name, key in VARIABLES.items()]
    env += [f"GLOBAL_BATCH={run.batch}", f"SEQUENCE={run.sequence}", f"RECOMPUTE={run.plan.recompute}"]
    if run.stages:
        env.append(f"LAYERS={','.join(map(str, run.stages))}")
    notes = [
        "train.py stands for your script: it makes its device mesh from TP, PP, DP, CP and EP.",
        "Ranks next to each other belong to one tensor-parallel group: the innermost axis of the mesh is tensor.",
    ]
    notes += placed(run)
    return shell(run, "torchrun for this plan; flags as of PyTorch 2.x", launch(run, ["train.py"]), notes, env)
