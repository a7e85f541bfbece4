"""Plans as ``vllm serve`` commands. Flags: docs.vllm.ai, engine arguments, versions 0.6 to 0.14.

Replicas that span hosts: Ray before version 0.12, vLLM's own processes (``--nnodes``, ``--headless``) from then on,
and its data-parallel engines (``--data-parallel-size-local``) where the ranks of attention do not fit one host.
"""

from __future__ import annotations

import json
import re
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

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ROUTES = {
    "round_robin": "put a proxy in front that takes the replicas in turn (nginx: upstream, its default)",
    "least_loaded": "put a proxy in front that picks the replica with fewest requests (nginx: least_conn)",
    "random": "put a proxy in front that picks at random (nginx: random)",
    "prefix_hash": "put a proxy in front that hashes the session (nginx: hash $http_x_session consistent)",
}  # fmt: skip
RAY_PORT = 6379
_RPC_PORT = 13345
_MASTER_PORT = 29501
_NATIVE = (0, 12)
"""First version whose replicas span hosts without Ray."""


def export(services: Sequence[Service]) -> Export:
    """Returns a script of ``vllm serve`` commands, one per replica.

    Raises:
        Unsupported: a batch policy or expert-parallel degree that vLLM does not have.
    """
    return script(
        services, "vLLM servers for this plan; flags as of vLLM 0.6 to 0.14", commands,
        lambda service: machines.machine(service, "vllm").visible, notes(services),
    )  # fmt: skip


def commands(service: Service, port: int, rank: int = 0, head: str = "") -> list[list[str]]:
    """Returns the commands of one node of a replica.

    Args:
        service: the pool.
        port: on which the replica listens.
        rank: of the node in the replica.
        head: host of the first node.
    """
    if service.nodes == 1:
        return [command(service, port)]
    if service.attention_dp == 1 and not is_native(service):
        if rank:
            return [["ray", "start", f"--address={head}:{RAY_PORT}"]]
        ray = ["ray", "start", "--head", f"--port={RAY_PORT}"]
        return [ray, command(service, port)]
    words = command(service, port) if rank == 0 else command(service, None)
    return [[*words, *arguments(join(service, str(rank), head, rank * local(service)))]]


def command(service: Service, port: int | None) -> list[str]:
    """Returns the arguments that start one replica; ``port`` None = it does not listen."""
    start = ["vllm", "serve", service.repository, *arguments(flags(service))]
    return [*start, "--port", str(port)] if port is not None else start


def join(service: Service, rank: str, head: str, first: int | None) -> Mapping[str, object]:
    """Returns the flags that join a node of a replica to the others, without Ray.

    Args:
        service: the pool; it spans several nodes.
        rank: of the node; "0" listens.
        head: host of the first node.
        first: data-parallel rank that the node begins with; None = left to the caller.
    """
    worker: dict[str, object] = {"--headless": rank != "0"}
    if service.attention_dp > 1:
        return worker | {
            "--data-parallel-size-local": local(service), "--data-parallel-start-rank": first or None,
            "--data-parallel-address": head, "--data-parallel-rpc-port": _RPC_PORT,
        }  # fmt: skip
    return worker | {
        "--nnodes": service.nodes, "--node-rank": rank, "--master-addr": head, "--master-port": _MASTER_PORT,
    }  # fmt: skip


def local(service: Service) -> int:
    """Returns how many data-parallel ranks of a replica stand on a node."""
    return service.attention_dp // service.nodes


def flags(service: Service) -> Mapping[str, object]:
    """Returns the flags of a pool; None means that the engine's default is the plan's choice.

    Raises:
        Unsupported: vLLM has no such batch policy or expert-parallel degree.
    """
    refuse_batch(service, ("chunked", "prefill_first"), "vLLM")
    refuse_drafts(service, ("fixed", "ngram"), "vLLM")
    refuse_prefixes(service, ("lru",), "vLLM")
    late, chunked = is_late(service), service.batch["kind"] == "chunked"
    _refuse_ranks(service)
    if service.kv_dtype in ("int8", "int4"):
        raise Unsupported(f"vLLM has no {service.kv_dtype} cache", 'Plan with kv_dtype = "fp8" or "auto"')
    sequences = int(service.batch["max_batch"]) * (service.pipeline if late else 1)
    # Without chunks the engine starts only where an iteration can hold the longest prompt.
    tokens = int(service.batch["chunk"]) if chunked else max(int(service.batch["max_tokens"]), service.context)
    if tokens < sequences:
        raise Unsupported(
            f"vLLM starts only with at least as many tokens as sequences in an iteration, not {tokens} for {sequences}",
            f"Plan with plan.batch.{'chunk' if chunked else 'max_tokens'} at least {sequences}, or a smaller max_batch",
        )
    switch: dict[str, object] = {"--enable-chunked-prefill": True}
    if not chunked:
        switch = {"--no-enable-chunked-prefill": True} if late else {"--enable-chunked-prefill": "false"}
    ours = service.profile.family == "vllm"
    spans = service.nodes > 1 and service.attention_dp == 1
    return {
        "--tensor-parallel-size": service.tensor,
        "--pipeline-parallel-size": service.pipeline if service.pipeline > 1 else None,
        "--data-parallel-size": service.attention_dp if service.attention_dp > 1 else None,
        "--enable-expert-parallel": service.expert > 1,
        "--enable-eplb": service.balanced,
        "--distributed-executor-backend": ("mp" if is_native(service) else "ray") if spans else None,
        "--dtype": _DTYPES.get(service.dtype),
        "--quantization": "fp8" if quantised(service) and service.dtype.startswith("fp8") else None,
        "--kv-cache-dtype": "fp8" if service.kv_dtype == "fp8" else "auto",
        "--max-model-len": service.context,
        "--max-num-seqs": sequences,
        "--max-num-batched-tokens": tokens,
        **switch,
        "--gpu-memory-utilization": service.profile.memory_fraction if ours else None,
        "--block-size": service.profile.block if ours and service.vendor in ("nvidia", "amd") else None,
        "--scheduling-policy": "priority" if service.order == "shortest_prompt" else None,
        "--speculative-config": _drafts(service),
        "--preemption-mode": "swap" if service.memory == "swap" and not late else None,
        **_prefixes(service, late),
    }


def _prefixes(service: Service, late: bool) -> dict[str, object]:
    """The flags of the prefix cache; none where the plan does not say."""
    kind = service.prefixes.get("kind")
    if kind is None or kind == "off":
        return {"--no-enable-prefix-caching": kind == "off" and late}
    size = float(service.prefixes.get("cpu", 0.0)) * service.tensor * service.pipeline  # of all its ranks, GiB
    return {
        "--enable-prefix-caching": True, "--kv-offloading-backend": "native" if size else None,
        "--kv-offloading-size": round(size / 2**30) if size else None,
    }  # fmt: skip


def _drafts(service: Service) -> str | None:
    """The speculative config as JSON, None where nothing is drafted."""
    table = service.speculate
    if not table:
        return None
    if table["kind"] == "ngram":
        return json.dumps({"method": "ngram", "num_speculative_tokens": table["length"], "prompt_lookup_max": 4})
    return json.dumps({"method": "draft_model", "model": table["model"], "num_speculative_tokens": table["length"]})


def _refuse_ranks(service: Service) -> None:
    """Refuses degrees of parallelism that vLLM does not have."""
    ranks = service.tensor * service.attention_dp
    if service.experts and service.expert not in (1, ranks):
        raise Unsupported(
            f"vLLM spreads experts over all {ranks} ranks of a stage or over none, not over {service.expert}",
            f"Plan with plan.expert_parallel = [1, {ranks}]",
        )
    if not is_late(service) and (service.attention_dp > 1 or service.expert > 1):
        raise Unsupported(
            f"{service.engine} has neither data-parallel attention nor expert parallelism",
            'Plan with engine = "vllm-1"',
        )
    if service.nodes > 1 and service.attention_dp % service.nodes and service.attention_dp > 1:
        raise Unsupported(
            f"vLLM places whole ranks of attention on a node, and {service.attention_dp} do not divide over "
            f"{service.nodes}",
            f"Plan with plan.attention_dp a multiple of {service.nodes}, or 1",
        )


def version(service: Service) -> tuple[int, ...] | None:
    """Returns the version that the plan names, or None for the newest."""
    match = re.search(r"-v?(\d+(?:\.\d+)+)$", service.engine)
    if match and service.profile.family == "vllm":
        return tuple(int(part) for part in match[1].split("."))
    return None


def is_native(service: Service) -> bool:
    """Returns whether the engine spans nodes by itself."""
    return is_late(service) and (version(service) or _NATIVE) >= _NATIVE


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
            how = "vLLM's own processes" if is_native(service) or service.attention_dp > 1 else "one Ray cluster each"
            found.append(
                f"A replica spans {service.nodes} hosts by {how}; all of them need the model, and {service.network} "
                f"between them as the plan counts on."
            )
        if service.batch["kind"] == "prefill_first" and int(service.batch["max_tokens"]) < service.context:
            found.append(
                f"--max-num-batched-tokens {service.context}: without chunks vLLM wants room for the longest prompt; "
                f"the plan fills iterations to {service.batch['max_tokens']}."
            )
        if service.memory == "swap" and is_late(service):
            found.append("The plan swaps pre-empted requests; vLLM 1 recomputes them.")
        if service.speculate.get("kind") == "fixed" and is_late(service):
            found.append("vLLM 1 drafts with a model of its own since pull request 24322 (2026); before, not at all.")
        if service.prefixes.get("cpu"):
            found.append("vLLM offloads to host memory since 0.11.1; flags recalled, see 'vllm serve --help'.")
        if service.prefixes.get("ssd"):
            found.append("vLLM's own offloading ends in host memory; for a tier on disk put LMCache under it.")
        if service.order == "shortest_prompt":
            found.append("Shortest prompt first: send each request with priority = its prompt tokens.")
        if service.batch["kind"] == "prefill_first" and is_late(service):
            found.append("vLLM 1 mixes decode into iterations with whole prompts; the plan runs them apart.")
    found += context_notes(services, "--max-model-len")
    found += machines.notes(services, "vllm")
    found += hosts_note(services)
    if sum(s.replicas for s in services) > 1:
        how = _ROUTES.get(services[0].route, "your own proxy in front")
        found.append(f"Route {services[0].route}: {how}. Servers: {' '.join(addresses(services))}")
    return list(dict.fromkeys(found))
