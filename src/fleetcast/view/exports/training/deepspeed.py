"""Plans as a DeepSpeed config. Keys: deepspeed.ai/docs/config-json, versions 0.14 to 0.18.

A DeepSpeed config says how states are shared out and what is offloaded. Stages of a pipeline, recompute and experts are
made in the training script; those stand in the notes.
"""

from __future__ import annotations

import json
from typing import Any

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import Export
from fleetcast.view.exports.training import Run
from fleetcast.view.exports.training.refusals import refuse_offload, refuse_schedule, refuse_unlike_stages


def export(run: Run) -> Export:
    """Returns the JSON that ``deepspeed --deepspeed_config`` reads; its notes are in ``data``.

    Raises:
        Unsupported: what DeepSpeed does not combine.
    """
    table = config(run)
    return Export(json.dumps(table, indent=2) + "\n", {"config": table, "notes": notes(run)}, "json")


def config(run: Run) -> dict[str, Any]:
    """Returns the config as a table.

    Raises:
        Unsupported: a pipeline with shared gradients, a schedule, or a way to split that DeepSpeed does not have.
    """
    zero, stages, tensor = run.degree("zero"), run.degree("pipeline_parallel"), run.degree("tensor_parallel")
    refuse_schedule(run, ("1f1b",), "DeepSpeed")
    refuse_unlike_stages(run, "DeepSpeed")
    refuse_offload(run, ("weights", "activations", "optimizer"), "DeepSpeed")
    _refuse(run, zero, stages, tensor)
    table: dict[str, Any] = {
        "train_batch_size": run.batch,
        "train_micro_batch_size_per_gpu": run.degree("micro_batch"),
        "gradient_accumulation_steps": run.accumulation,
        "gradient_clipping": 1.0,
        "steps_per_print": 10,
    }
    table["bf16" if run.plan.dtype == "bf16" else "fp16"] = {"enabled": run.plan.dtype in ("bf16", "fp16")}
    if zero:
        table["zero_optimization"] = _zero(run, zero)
    if tensor > 1:
        table["tensor_parallel"] = {"autotp_size": tensor}
    if run.has("offload", "activations"):
        table["activation_checkpointing"] = {"partition_activations": False, "cpu_checkpointing": True}
    return table


def _zero(run: Run, zero: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "stage": zero, "overlap_comm": run.has("overlap", "data"), "contiguous_gradients": True, "reduce_scatter": True,
    }  # fmt: skip
    if run.has("offload", "optimizer"):
        found["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if run.has("offload", "weights"):
        found["offload_param"] = {"device": "cpu", "pin_memory": True}
    return found


def _refuse(run: Run, zero: int, stages: int, tensor: int) -> None:
    if stages > 1 and zero >= 2:
        raise Unsupported(
            f"DeepSpeed's pipeline does not take ZeRO-{zero}: it adds up gradients in place over micro-batches",
            "Plan with plan.zero = 1, or pipeline_parallel = 1",
        )
    if tensor > 1 and zero == 3:
        raise Unsupported(
            "DeepSpeed's tensor parallelism (AutoTP) goes up to ZeRO-2",
            "Plan with plan.zero = 2, or tensor_parallel = 1",
        )
    if tensor > 1 and run.plan.sequence_parallel is True:
        raise Unsupported(
            "DeepSpeed's tensor parallelism keeps norms whole on each rank: there is no sequence parallelism beside it",
            "Plan with plan.sequence_parallel = false, or export to megatron",
        )
    if run.degree("context_parallel") > 1:
        raise Unsupported(
            "DeepSpeed splits sequences by heads (Ulysses), not in pieces that go round",
            "Plan with plan.context_parallel = 1, or export to megatron",
        )
    if run.plan.dtype not in ("bf16", "fp16", "fp32"):
        raise Unsupported(f"a DeepSpeed config has no {run.plan.dtype}", 'Plan with plan.dtype = "bf16"')
    if run.has("offload", "optimizer") and not zero:
        raise Unsupported("DeepSpeed offloads the optimizer from ZeRO-1 on", "Plan with plan.zero = 1")
    if run.has("offload", "weights") and zero < 3:
        raise Unsupported("DeepSpeed offloads weights with ZeRO-3 alone", "Plan with plan.zero = 3")
    if run.has("offload", "activations") and run.plan.recompute != "full":
        raise Unsupported(
            "DeepSpeed offloads the inputs of recomputed layers alone", 'Plan with plan.recompute = "full"'
        )


def notes(run: Run) -> list[str]:
    """Returns what the config cannot say, in sentences."""
    found = []
    if run.degree("pipeline_parallel") > 1:
        found.append(f"In the script: PipelineModule(layers, num_stages={run.degree('pipeline_parallel')}).")
    if run.plan.recompute != "none":
        found.append(f"In the script: checkpoint each layer ({run.plan.recompute} recompute).")
    if run.degree("expert_parallel") > 1:
        found.append(f"In the script: MoE(..., ep_size={run.degree('expert_parallel')}).")
    if run.degree("tensor_parallel") > 1:
        found.append("tensor_parallel.autotp_size trains since DeepSpeed 0.16.4.")
    start = "deepspeed --hostfile hosts train.py --deepspeed_config FILE"
    found.append(f"Start it on {run.nodes} nodes of {run.node}: {start}")
    return found
