"""Plans as what an operator pastes: commands of serving engines, manifests of Kubernetes.

`services` reads everything an exporter needs off a complete plan; each target is one file with one function
``export(services) -> Export``. What a target cannot say stands in its notes; what it would get wrong is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.cost.engine import Engine
from fleetcast.scenario.plan import Plan, one
from fleetcast.scenario.workload import catalog
from fleetcast.sim.serving.setting import Setting

TARGETS = ("vllm", "sglang", "kubernetes")
_ROUND_CONTEXT = 256


@dataclass(frozen=True)
class Service:
    """A complete pool as an exporter reads it.

    Attributes:
        name: of the service, a DNS label.
        repository: of the checkpoint, or the path of the model's folder.
        device: catalogue id.
        node: devices of a node that the pool uses.
        first: index of the pool's first device within the fleet's group.
        stored: the checkpoint's weight dtype; ``dtype`` is what the engine makes of it.
        context: longest sequence to allow, tokens.
        batch, order, memory, route: policy tables.
        profile: the engine's profile.
    """

    name: str
    repository: str
    device: str
    vendor: str
    node: int
    first: int
    replicas: int
    tensor: int
    pipeline: int
    expert: int
    attention_dp: int
    experts: bool
    engine: str
    profile: Engine
    stored: str
    dtype: str
    kv_dtype: str
    context: int
    batch: Mapping[str, Any]
    order: str
    memory: str
    route: str

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.pipeline * self.attention_dp

    @property
    def nodes(self) -> int:
        """Nodes that one replica spans."""
        return -(-self.devices // self.node)


@dataclass(frozen=True)
class Export:
    """What to paste. ``text`` is the whole file, ``data`` the same for machines, ``suffix`` of a file that holds it."""

    text: str
    data: Any
    suffix: str


def export(state: Setting, plan: Plan, target: str) -> Export:
    """Returns a complete plan for ``target``.

    Raises:
        SpecError: unknown target.
        Unsupported: the target has no way to run this plan.
    """
    if target not in TARGETS:
        raise SpecError(
            "--to", "is unknown", value=target, limit=f"one of {', '.join(TARGETS)}",
            hint=closest(target, TARGETS).capitalize(),
        )  # fmt: skip
    from fleetcast.view.exports import kubernetes, sglang, vllm

    make: dict[str, Callable[[Sequence[Service]], Export]] = {
        "vllm": vllm.export, "sglang": sglang.export, "kubernetes": kubernetes.export,
    }  # fmt: skip
    return make[target](services(state, plan))


def services(state: Setting, plan: Plan) -> tuple[Service, ...]:
    """Returns each pool of a complete plan as exporters read it."""
    found: list[Service] = []
    used: dict[str, int] = {}
    route = plan.route["kind"] if isinstance(plan.route, Mapping) else str(plan.route)
    for i, pool in enumerate(plan.pools):
        server = state.server(pool)
        model, group = server.model, server.group
        tables = [t if isinstance(t, Mapping) else {"kind": t} for t in (pool.batch, pool.order, pool.memory)]
        name = _label(model.id or "model") + (f"-{i}" if len(plan.pools) > 1 else "")
        longest = -(-state.longest // _ROUND_CONTEXT) * _ROUND_CONTEXT
        found.append(
            Service(
                name=name,
                repository=repository(pool.model or state.scenario.workload.model, model.id),
                device=group.device.id,
                vendor=group.device.vendor,
                node=group.node,
                first=used.get(group.name, 0),
                replicas=one(pool.replicas),
                tensor=one(pool.tensor_parallel),
                pipeline=one(pool.pipeline_parallel),
                expert=one(pool.expert_parallel),
                attention_dp=one(pool.attention_dp),
                experts="experts" in model.parts,
                engine=str(pool.engine),
                profile=server.engine,
                stored=model.dtype,
                dtype=str(pool.dtype),
                kv_dtype=str(pool.kv_dtype),
                context=min(longest, model.context) if model.context else longest,
                batch=tables[0],
                order=str(tables[1]["kind"]),
                memory=str(tables[2]["kind"]),
                route=route,
            )
        )
        used[group.name] = used.get(group.name, 0) + pool.devices()
    return tuple(found)


def repository(asked: str, id: str) -> str:
    """Returns the checkpoint's repository: what the scenario names where it names one, else the catalogue's."""
    if "/" in asked and catalog.simplified(asked) in catalog.aliases():
        return asked
    for entry in catalog.entries().values():
        named = {entry.id: entry.aliases} | {variant.id: variant.aliases for variant in entry.variants}
        if id in named:
            return next((a for a in named[id] if "/" in a), id)
    return asked.removesuffix("/config.json")


def arguments(flags: Mapping[str, object]) -> list[str]:
    """Returns flags as arguments: True stands for a bare flag; None and False are left out."""
    found: list[str] = []
    for flag, value in flags.items():
        if value is True:
            found.append(flag)
        elif value is not None and value is not False:
            found += [flag, str(value)]
    return found


def script(
    services: Sequence[Service], head: str, argv: Callable[[Service, int], list[str]], notes: Sequence[str]
) -> Export:
    """Returns a shell script of one command per replica, and the same as data.

    Args:
        services: the pools.
        head: what the script is for.
        argv: arguments of a replica that listens on a port.
        notes: what the reader must know; comments at the top.
    """
    lines = ["#!/bin/sh", f"# {head}", *(f"# {note}" for note in notes), ""]
    commands = []
    port = 8000
    for service in services:
        for i in range(service.replicas):
            words = argv(service, port)
            first = (service.first + i * service.devices) % service.node
            shown = ",".join(str(first + d) for d in range(min(service.devices, service.node)))
            variable = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES"}.get(service.vendor)
            env = {variable: shown} if variable and service.nodes == 1 else {}
            number = (service.first + i * service.devices) // service.node
            commands.append({"replica": i, "pool": service.name, "node": number, "env": env, "argv": words})
            lines.append(f"# {service.name}, replica {i}, node {number}")
            lines.append(" ".join([*(f"{k}={v}" for k, v in env.items()), _wrapped(words)]) + " &")
            port += 1
    lines.append("wait")
    return Export("\n".join(lines) + "\n", {"commands": commands, "notes": list(notes)}, "sh")


def refuse_batch(service: Service, known: Sequence[str], engine: str) -> None:
    """Refuses a batch policy that ``engine`` does not have.

    Raises:
        Unsupported: always names the policies it has.
    """
    kind = str(service.batch["kind"])
    if kind not in known:
        raise Unsupported(
            f"{engine} cannot batch as '{kind}' does", f"Plan with plan.batch.kind one of {', '.join(known)}"
        )


def _wrapped(words: Sequence[str]) -> str:
    """A command over several lines: an option and its value to a line."""
    lines: list[str] = []
    for word in words:
        quoted = shlex.quote(word)
        if word.startswith("--") or not lines:
            lines.append(quoted)
        else:
            lines[-1] += f" {quoted}"
    return " \\\n    ".join(lines)


def _label(name: str) -> str:
    """A DNS label made of a name."""
    kept = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return kept[:50].strip("-") or "model"
