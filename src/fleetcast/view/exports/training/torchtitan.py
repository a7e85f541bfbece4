"""Plans as a torchtitan file. Keys: torchtitan/config/job_config.py, versions 0.1 and 0.2 (2025), which read TOML.

Later versions hold the same fields in Python (`ParallelismConfig`, `TrainingConfig`); the names are equal.
"""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import Unsupported
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.training_plan import words
from fleetcast.view.exports import Export
from fleetcast.view.exports.training import Run
from fleetcast.view.exports.training.refusals import refuse_pieces, refuse_schedule, refuse_unlike_stages

_SCHEDULES = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "Interleaved1F1B"}
_FLAVOURS = {
    "llama-3.1-8b": ("llama3", "8B"), "llama-3-8b": ("llama3", "8B"), "llama-3.1-70b": ("llama3", "70B"),
    "llama-3-70b": ("llama3", "70B"), "llama-3.1-405b": ("llama3", "405B"), "qwen3-8b": ("qwen3", "8B"),
    "qwen3-14b": ("qwen3", "14B"), "qwen3-32b": ("qwen3", "32B"), "deepseek-v3": ("deepseek_v3", "671B"),
    "deepseek-v2-lite": ("deepseek_v3", "16B"),
}  # fmt: skip
"""Models that torchtitan names: catalogue id -> (name, flavor)."""


def export(run: Run) -> Export:
    """Returns the TOML file that ``--job.config_file`` names.

    Raises:
        Unsupported: a model or a choice that torchtitan does not have.
    """
    table, told = config(run), notes(run)
    text = "".join(f"# {line}\n" for line in ("torchtitan for this plan; keys as of versions 0.1 and 0.2", *told))
    return Export(f"{text}\n{dump_toml(table)}", {"config": table, "notes": told}, "toml")


def config(run: Run) -> dict[str, Any]:
    """Returns the file as a table.

    Raises:
        Unsupported: a model, schedule, sharding or offload that torchtitan does not have.
    """
    name, flavour = _model(run)
    refuse_schedule(run, tuple(_SCHEDULES), "torchtitan")
    refuse_unlike_stages(run, "torchtitan")
    refuse_pieces(run, "torchtitan")
    zero, data = run.degree("zero"), run.degree("data_parallel")
    moved = sorted(words(run.plan.offload))
    if moved and (moved != ["optimizer", "weights"] or zero < 3):
        raise Unsupported(
            f"torchtitan offloads weights, gradients and optimizer together, under FSDP; not {' and '.join(moved)}"
            f" with plan.zero = {zero}",
            'Plan with plan.offload = ["weights", "optimizer"] and plan.zero = 3, or without offload',
        )
    if zero == 1 and data * run.degree("context_parallel") > 1:
        raise Unsupported(
            "torchtitan shares out gradients together with the optimizer's states: it has no ZeRO-1",
            "Plan with plan.zero = 2 or 3, or 0 for copies that share nothing",
        )
    if run.plan.dtype not in ("bf16", "fp32", "fp8"):
        raise Unsupported(f"torchtitan trains in bf16 or fp32, not {run.plan.dtype}", 'Plan with plan.dtype = "bf16"')
    parallel: dict[str, Any] = {
        "data_parallel_replicate_degree": data if zero == 0 else 1,
        "data_parallel_shard_degree": 1 if zero == 0 else data,
        "fsdp_reshard_after_forward": {2: "never", 3: "always"}.get(zero, "default"),
        "tensor_parallel_degree": run.degree("tensor_parallel"),
        "enable_async_tensor_parallel": run.has("overlap", "tensor") and run.degree("tensor_parallel") > 1,
        "pipeline_parallel_degree": run.degree("pipeline_parallel"),
        "context_parallel_degree": run.degree("context_parallel"),
        "expert_parallel_degree": run.degree("expert_parallel"),
    }
    staged = run.degree("pipeline_parallel") > 1
    if staged:
        per = run.model.layers // (run.degree("pipeline_parallel") * run.degree("interleave"))
        parallel |= {
            "pipeline_parallel_schedule": _SCHEDULES[str(run.plan.schedule)],
            "pipeline_parallel_microbatch_size": run.degree("micro_batch"),
            "pipeline_parallel_layers_per_stage": per,
            "pipeline_parallel_first_stage_less_layers": 0, "pipeline_parallel_last_stage_less_layers": 0,
        }  # fmt: skip
    table: dict[str, Any] = {
        "job": {"description": run.name},
        "model": {"name": name, "flavor": flavour}
        | ({"converters": ["quantize.linear.float8"]} if run.plan.dtype == "fp8" else {}),
        "training": {
            # a pipeline cuts the local batch into micro-batches; without one the trainer accumulates gradients
            "local_batch_size": run.batch // data if staged else run.degree("micro_batch"),
            "global_batch_size": run.batch, "seq_len": run.sequence,
            **({"steps": run.steps} if run.steps is not None else {}),
            "mixed_precision_param": "float32" if run.plan.dtype == "fp32" else "bfloat16",
            "mixed_precision_reduce": "float32", "enable_cpu_offload": bool(moved),
        },
        "parallelism": parallel,
        "activation_checkpoint": {"mode": str(run.plan.recompute)},
    }  # fmt: skip
    return table


def _model(run: Run) -> tuple[str, str]:
    if run.model.id in _FLAVOURS:
        return _FLAVOURS[run.model.id]
    if run.model.architecture == "LlamaForCausalLM" and not run.ffn.experts:
        return "llama3", "custom"
    raise Unsupported(
        f"torchtitan has no model of the class of {run.model.id or 'this shape'} ({run.model.architecture})",
        f"Train one of {', '.join(_FLAVOURS)}, a shape with gated = true, or export to megatron",
    )


def notes(run: Run) -> list[str]:
    """Returns what the file cannot say, in sentences."""
    found = []
    if _model(run)[1] == "custom":
        a = run.attention
        found.append(
            f'Register the flavor "custom": dim={run.model.hidden}, n_layers={run.model.layers}, n_heads={a.heads}, '
            f"n_kv_heads={a.kv_heads}, vocab_size={run.model.vocab}, feed-forward width {run.ffn.width}."
        )
    if run.plan.recompute == "selective":
        found.append("mode selective: torchtitan recomputes every other product too, not attention alone.")
    if run.degree("tensor_parallel") > 1 and run.plan.sequence_parallel is not True:
        found.append(
            "torchtitan splits norms along the sequence too; versions from 2026 know enable_sequence_parallel."
        )
    if run.steps is None:
        found.append("The scenario does not say how long to train: set training.steps.")
    found.append(f"Start it on {run.nodes} nodes of {run.node} with NGPU={run.node} ./run_train.sh.")
    return found
