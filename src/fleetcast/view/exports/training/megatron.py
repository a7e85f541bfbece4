"""Plans as Megatron-LM arguments. Flags: megatron/training/arguments.py and its configs, core 0.9 to 0.16 (2024-2026).

Ranks are laid out as Megatron does: tensor innermost, then context, data, pipeline outermost, which is what the plan's
forecast assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import Export, arguments
from fleetcast.view.exports.training import Run, launch, placed, shell
from fleetcast.view.exports.training.refusals import (
    refuse_offload,
    refuse_pieces,
    refuse_schedule,
    refuse_unlike_layers,
)

_SHARDED = {2: "optim_grads", 3: "optim_grads_params"}


def export(run: Run) -> Export:
    """Returns a shell script: torchrun, pretrain_gpt.py and its arguments.

    Raises:
        Unsupported: a schedule, sharding or offload that Megatron-LM does not have.
    """
    words = launch(run, ["pretrain_gpt.py", *arguments(flags(run)), "$DATA_ARGS"])
    # one connection keeps the order in which tensor parallelism's messages and kernels are launched
    env = ["CUDA_DEVICE_MAX_CONNECTIONS=1"] if run.degree("tensor_parallel") > 1 and run.degree("zero") < 2 else []
    return shell(run, "Megatron-LM for this plan; flags as of Megatron core 0.9 to 0.16", words, notes(run), env)


def flags(run: Run) -> Mapping[str, object]:
    """Returns Megatron-LM's flags by name; None and False are left out.

    Raises:
        Unsupported: a choice of the plan that Megatron-LM does not have.
    """
    refuse_unlike_layers(run, "Megatron-LM")
    refuse_schedule(run, ("1f1b", "interleaved"), "Megatron-LM")
    if not run.stages:
        refuse_pieces(run, "Megatron-LM")
    refuse_offload(run, ("optimizer",), "Megatron-LM")
    zero, stages = run.degree("zero"), run.degree("pipeline_parallel")
    if zero >= 2 and stages > 1:
        raise Unsupported(
            f"Megatron-LM shares out gradients (plan.zero = {zero}) by its FSDP, which is not written here under a "
            "pipeline",
            "Plan with plan.zero = 1, or pipeline_parallel = 1",
        )
    if run.has("offload", "optimizer") and zero == 0:
        raise Unsupported(
            "Megatron-LM moves the optimizer to the host together with sharing it out", "Plan with plan.zero = 1"
        )
    return {**_parallel(run), **_model(run), **_batch(run), **_memory(run), **_overlap(run)}


def _parallel(run: Run) -> dict[str, object]:
    pieces, context, expert = run.degree("interleave"), run.degree("context_parallel"), run.degree("expert_parallel")
    per = run.model.layers // (run.degree("pipeline_parallel") * pieces)
    unlike = len(set(run.stages)) > 1
    return {
        "--tensor-model-parallel-size": run.degree("tensor_parallel"),
        "--pipeline-model-parallel-size": run.degree("pipeline_parallel"),
        "--pipeline-model-parallel-layout": layout(run.stages) if unlike else None,
        "--num-layers-per-virtual-pipeline-stage": per if pieces > 1 else None,
        "--context-parallel-size": context if context > 1 else None,
        "--expert-model-parallel-size": expert if expert > 1 else None,
        "--sequence-parallel": run.plan.sequence_parallel is True,
    }


def layout(stages: Sequence[int]) -> str:
    """Returns stages as Megatron core 0.13 and later read them: E the embedding, t a layer, L the loss."""
    made = [f"t*{count}" for count in stages]
    return "|".join(["E" + made[0], *made[1:-1], made[-1] + "L"])


def _model(run: Run) -> dict[str, object]:
    model, attention, ffn = run.model, run.attention, run.ffn
    learned = any(extra.part == "position" for extra in model.extras)
    grouped = attention.kv_heads != attention.heads
    own_width = attention.head_dim * attention.heads != model.hidden
    experts: dict[str, object] = {}
    if ffn.experts:
        experts = {
            "--num-experts": ffn.experts, "--moe-router-topk": ffn.top_k, "--moe-ffn-hidden-size": ffn.width,
            "--moe-shared-expert-intermediate-size": ffn.shared_width or None, "--moe-grouped-gemm": True,
            "--moe-token-dispatcher-type": "alltoall",
        }  # fmt: skip
    return {
        "--num-layers": model.layers,
        "--hidden-size": model.hidden,
        "--ffn-hidden-size": ffn.width,
        "--num-attention-heads": attention.heads,
        "--group-query-attention": grouped,
        "--num-query-groups": attention.kv_heads if grouped else None,
        "--kv-channels": attention.head_dim if own_width else None,
        "--swiglu": ffn.gated,
        "--normalization": "RMSNorm" if ffn.gated else None,
        "--disable-bias-linear": not ffn.bias,
        "--untie-embeddings-and-output-weights": not model.tied,
        "--position-embedding-type": "learned_absolute" if learned else "rope",
        "--seq-length": run.sequence,
        "--max-position-embeddings": max(run.sequence, model.context),
        **experts,
        "--attention-backend": "flash" if run.plan.fused_attention else "unfused",
    }


def _batch(run: Run) -> dict[str, object]:
    return {
        "--micro-batch-size": run.degree("micro_batch"),
        "--global-batch-size": run.batch,
        "--train-iters": run.steps,
    }


def _memory(run: Run) -> dict[str, object]:
    kind, zero = str(run.plan.recompute), run.degree("zero")
    full = kind == "full"
    return {
        "--recompute-granularity": kind if kind != "none" else None,
        "--recompute-method": "uniform" if full else None,
        "--recompute-num-layers": 1 if full else None,
        "--use-distributed-optimizer": zero >= 1,
        "--use-megatron-fsdp": zero >= 2,
        "--data-parallel-sharding-strategy": _SHARDED.get(zero),
        "--no-gradient-accumulation-fusion": zero >= 2,
        "--ckpt-format": "fsdp_dtensor" if zero >= 2 else None,
        "--optimizer-cpu-offload": run.has("offload", "optimizer"),
        "--use-precision-aware-optimizer": run.has("offload", "optimizer"),
        "--bf16": run.plan.dtype in ("bf16", "fp8"),
        "--fp16": run.plan.dtype == "fp16",
        "--fp8-format": "hybrid" if run.plan.dtype == "fp8" else None,
    }


def _overlap(run: Run) -> dict[str, object]:
    data = run.has("overlap", "data") and run.degree("data_parallel") * run.degree("context_parallel") > 1
    return {
        "--overlap-grad-reduce": data,
        "--overlap-param-gather": data and run.degree("zero") >= 1,
        "--tp-comm-overlap": run.has("overlap", "tensor") and run.degree("tensor_parallel") > 1,
        "--no-overlap-p2p-communication": run.degree("interleave") > 1 and not run.has("overlap", "pipeline"),
        "--overlap-cpu-optimizer-d2h-h2d": run.has("offload", "optimizer") and run.has("overlap", "optimizer"),
    }


def notes(run: Run) -> list[str]:
    """Returns what the arguments cannot say, in sentences."""
    found = [
        "DATA_ARGS are yours: --data-path, --tokenizer-type, --vocab-file, learning rate, checkpoints.",
        f"The vocabulary of the plan is {run.model.vocab:,} rows, padded: see --make-vocab-size-divisible-by.",
    ]
    if run.steps is None:
        found.append("The scenario does not say how long to train: add --train-iters or --train-samples.")
    if run.degree("zero") >= 2:
        found.append("Megatron's FSDP wants CUDA_DEVICE_MAX_CONNECTIONS unset.")
    if run.plan.recompute == "selective":
        found.append("--recompute-granularity selective: attention's scores, the default of --recompute-modules.")
    if run.plan.tensor_messages == "scatter_gather" and run.plan.sequence_parallel is not True:
        found.append("Without --sequence-parallel Megatron adds up by all-reduce; the plan scatters and gathers.")
    found += placed(run)
    if len(set(run.stages)) > 1:
        found.append("--pipeline-model-parallel-layout is known to Megatron core since 0.13.")
    if run.nodes > 1:
        found.append(f"The plan counts on {run.network} between nodes of {run.node} {run.device}.")
    return found
