"""Plans as ``vllm serve`` commands. Flags: docs.vllm.ai, engine arguments, versions 0.6 to 0.11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import Export, Service, arguments, hosts_note, refuse_batch, script

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ROUTES = {
    "round_robin": "put a proxy in front that takes the replicas in turn (nginx: upstream, its default)",
    "least_loaded": "put a proxy in front that picks the replica with fewest requests (nginx: least_conn)",
    "random": "put a proxy in front that picks at random (nginx: random)",
    "prefix_hash": "put a proxy in front that hashes the session (nginx: hash $http_x_session consistent)",
}  # fmt: skip


def export(services: Sequence[Service]) -> Export:
    """Returns a script of ``vllm serve`` commands, one per replica.

    Raises:
        Unsupported: a batch policy or expert-parallel degree that vLLM does not have.
    """
    return script(services, "vLLM servers for this plan", command, notes(services))


def command(service: Service, port: int) -> list[str]:
    """Returns the arguments that start one replica on ``port``."""
    return ["vllm", "serve", service.repository, *arguments(flags(service)), "--port", str(port)]


def flags(service: Service) -> Mapping[str, object]:
    """Returns the flags of a pool; None means that the engine's default is the plan's choice.

    Raises:
        Unsupported: vLLM has no such batch policy or expert-parallel degree.
    """
    refuse_batch(service, ("chunked", "prefill_first"), "vLLM")
    ranks = service.tensor * service.attention_dp
    if service.experts and service.expert not in (1, ranks):
        raise Unsupported(
            f"vLLM spreads experts over all {ranks} ranks of a stage or over none, not over {service.expert}",
            f"Plan with plan.expert_parallel = [1, {ranks}]",
        )
    late = is_late(service)
    chunked = service.batch["kind"] == "chunked"
    sequences = int(service.batch["max_batch"]) * (service.pipeline if late else 1)
    switch: dict[str, object] = {"--enable-chunked-prefill": True}
    if not chunked:
        switch = {"--no-enable-chunked-prefill": True} if late else {"--enable-chunked-prefill": "false"}
    ours = service.profile.family == "vllm"
    return {
        "--tensor-parallel-size": service.tensor,
        "--pipeline-parallel-size": service.pipeline if service.pipeline > 1 else None,
        "--data-parallel-size": service.attention_dp if service.attention_dp > 1 else None,
        "--enable-expert-parallel": service.expert > 1,
        "--distributed-executor-backend": "ray" if service.nodes > 1 else None,
        "--dtype": _DTYPES.get(service.dtype),
        "--quantization": "fp8" if quantised(service) and service.dtype.startswith("fp8") else None,
        "--kv-cache-dtype": service.kv_dtype if service.kv_dtype in ("fp8", "int8", "int4") else "auto",
        "--max-model-len": service.context,
        "--max-num-seqs": sequences,
        "--max-num-batched-tokens": service.batch.get("chunk", service.batch.get("max_tokens")),
        **switch,
        "--gpu-memory-utilization": service.profile.memory_fraction if ours else None,
        "--block-size": service.profile.block if ours else None,
        "--scheduling-policy": "priority" if service.order == "shortest_prompt" else None,
        "--preemption-mode": "swap" if service.memory == "swap" and not late else None,
    }


def quantised(service: Service) -> bool:
    """Returns whether the engine quantises while it loads: the plan's dtype is not the checkpoint's."""
    return service.dtype.removesuffix("-weights") != service.stored.removesuffix("-weights")


def is_late(service: Service) -> bool:
    """Returns whether the plan's engine is vLLM 1 (asynchronous, mixes prefill and decode)."""
    return not service.profile.until


def notes(services: Sequence[Service]) -> list[str]:
    """Returns what the commands cannot say, in sentences."""
    found: list[str] = []
    for service in services:
        if service.profile.family != "vllm":
            found.append(
                f'Simulated with the engine profile {service.engine}; set plan.engine = "vllm-1" to forecast vLLM.'
            )
        if service.dtype in ("int8", "int4", "mxfp4", "nvfp4") and quantised(service):
            found.append(f"{service.dtype} needs a checkpoint quantised so: put its name for {service.repository}.")
        if service.dtype == "fp8-weights" and quantised(service):
            found.append("fp8 weights alone: set VLLM_TEST_FORCE_FP8_MARLIN=1 on devices that multiply fp8.")
        if service.nodes > 1:
            found.append(f"A replica spans {service.nodes} nodes: start one Ray cluster over them first.")
        if service.memory == "swap" and is_late(service):
            found.append("The plan swaps pre-empted requests; vLLM 1 recomputes them.")
        if service.order == "shortest_prompt":
            found.append("Shortest prompt first: send each request with priority = its prompt tokens.")
        if service.batch["kind"] == "prefill_first" and is_late(service):
            found.append("vLLM 1 mixes decode into iterations with whole prompts; the plan runs them apart.")
    found += hosts_note(services)
    if sum(s.replicas for s in services) > 1:
        found.append(f"Route {services[0].route}: {_ROUTES.get(services[0].route, 'your own proxy in front')}.")
    return list(dict.fromkeys(found))
