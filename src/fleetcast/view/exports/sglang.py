"""Plans as SGLang launch commands. Flags: docs.sglang.io, server arguments, version 0.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import (
    Export,
    Service,
    addresses,
    arguments,
    context_notes,
    hosts_note,
    machines,
    script,
)  # fmt: skip
from fleetcast.view.exports.refusals import refuse_batch, refuse_drafts, refuse_prefixes
from fleetcast.view.exports.vllm import quantised

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ROUTES = {
    "round_robin": "round_robin", "least_loaded": "power_of_two", "random": "random", "prefix_hash": "cache_aware",
}  # fmt: skip
_INIT_PORT = 20000


def export(services: Sequence[Service]) -> Export:
    """Returns a script of ``sglang.launch_server`` commands, one per replica.

    Raises:
        Unsupported: a batch policy that SGLang does not have.
    """
    return script(
        services, "SGLang servers for this plan; flags as of SGLang 0.5", commands,
        lambda service: machines.machine(service, "sglang").visible, notes(services),
    )  # fmt: skip


def commands(service: Service, port: int, rank: int = 0, head: str = "") -> list[list[str]]:
    """Returns the command of one node of a replica: ``rank`` of the node, ``head`` host of the first."""
    return [[*command(service, port), *arguments(join(service, str(rank), head))]]


def command(service: Service, port: int) -> list[str]:
    """Returns the arguments that start one replica on ``port``."""
    start = ["python3", "-m", "sglang.launch_server", "--model-path", service.repository]
    return [*start, *arguments(flags(service)), "--host", "0.0.0.0", "--port", str(port)]


def join(service: Service, rank: str, head: str) -> Mapping[str, object]:
    """Returns the flags that join a node of a replica to the others; none where it has one node."""
    if service.nodes == 1:
        return {}
    return {"--nnodes": service.nodes, "--node-rank": rank, "--dist-init-addr": f"{head}:{_INIT_PORT}"}


def flags(service: Service) -> Mapping[str, object]:
    """Returns the flags of a pool.

    SGLang counts tensor parallelism over all ranks of a stage, and its limits over all of a replica's schedulers.

    Raises:
        Unsupported: SGLang has no such batch policy.
    """
    refuse_batch(service, ("chunked", "prefill_first"), "SGLang")
    refuse_drafts(service, (), "SGLang")
    refuse_prefixes(service, ("lru", "lfu", "fifo"), "SGLang")
    if service.kv_dtype in ("int8", "int4"):
        raise Unsupported(f"SGLang has no {service.kv_dtype} cache", 'Plan with kv_dtype = "fp8" or "auto"')
    schedulers = service.attention_dp * service.pipeline
    chunked = service.batch["kind"] == "chunked"
    ours = service.profile.family == "sglang"
    return {
        "--tp-size": service.tensor * service.attention_dp,
        "--pp-size": service.pipeline if service.pipeline > 1 else None,
        "--dp-size": service.attention_dp if service.attention_dp > 1 else None,
        "--enable-dp-attention": service.attention_dp > 1,
        "--ep-size": service.expert if service.expert > 1 else None,
        "--enable-eplb": service.balanced,
        "--dtype": _DTYPES.get(service.dtype),
        "--quantization": "fp8" if quantised(service) and service.dtype.startswith("fp8") else None,
        "--kv-cache-dtype": "fp8_e4m3" if service.kv_dtype == "fp8" else "auto",
        "--context-length": service.context,
        "--max-running-requests": int(service.batch["max_batch"]) * schedulers,
        "--chunked-prefill-size": int(service.batch["chunk"]) * service.attention_dp if chunked else -1,
        "--enable-mixed-chunk": chunked,
        "--max-prefill-tokens": None if chunked else service.batch.get("max_tokens"),
        "--mem-fraction-static": service.profile.memory_fraction if ours else None,
        "--page-size": service.profile.block if ours else None,
        **_prefixes(service),
    }


def _prefixes(service: Service) -> dict[str, object]:
    """The flags of the prefix cache; none where the plan does not say."""
    kind, size = service.prefixes.get("kind"), float(service.prefixes.get("cpu", 0.0))
    return {
        "--disable-radix-cache": kind == "off",
        "--radix-eviction-policy": kind if kind not in (None, "off", "lru") else None,
        "--enable-hierarchical-cache": bool(size or service.prefixes.get("ssd")),
        "--hicache-size": round(size / 1e9) if size else None,  # GB of each rank
        "--hicache-storage-backend": "file" if service.prefixes.get("ssd") else None,
    }


def notes(services: Sequence[Service]) -> list[str]:
    """Returns what the commands cannot say, in sentences."""
    found: list[str] = []
    for service in services:
        if service.profile.family != "sglang":
            found.append(
                f'Simulated with the engine profile {service.engine}; set plan.engine = "sglang" to forecast SGLang.'
            )
        if service.dtype in ("int8", "int4", "mxfp4", "nvfp4") and quantised(service):
            found.append(f"{service.dtype} needs a checkpoint quantised so: put its name for {service.repository}.")
        if service.dtype == "fp8-weights" and quantised(service):
            found.append("fp8 weights alone: set SGLANG_FORCE_FP8_MARLIN=1 on devices that multiply fp8.")
        if service.nodes > 1:
            found.append(
                f"A replica spans {service.nodes} hosts; all of them need the model, and {service.network} between "
                f"them as the plan counts on."
            )
        if service.memory == "swap":
            found.append("The plan swaps pre-empted requests; SGLang recomputes them.")
        if service.prefixes.get("ssd"):
            found.append(
                "Disk tier: SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR names its folder; nothing bounds its size."
            )
        if service.order != "fifo":
            found.append(f"Order {service.order}: SGLang admits first come, first served.")
    found += context_notes(services, "--context-length")
    found += machines.notes(services, "sglang")
    found += hosts_note(services)
    if sum(s.replicas for s in services) > 1:
        urls = " ".join(f"http://{address}" for address in addresses(services))
        policy = _ROUTES.get(services[0].route, "round_robin")
        found.append(
            f"Route {services[0].route}: python3 -m sglang_router.launch_router --policy {policy} --worker-urls {urls}"
        )
    return list(dict.fromkeys(found))
