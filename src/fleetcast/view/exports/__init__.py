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
        places: host and first device of each replica.
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
    places: tuple[tuple[str, int], ...]
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
    servers = [state.server(pool) for pool in plan.pools]
    places: dict[int, tuple[tuple[str, int], ...]] = {}
    for group in dict.fromkeys(server.group.name for server in servers):
        mine = [i for i, server in enumerate(servers) if server.group.name == group]
        node = servers[mine[0]].group
        shapes = [(one(plan.pools[i].replicas), plan.pools[i].devices() // one(plan.pools[i].replicas)) for i in mine]
        places |= zip(mine, place(shapes, node.node, node.nodes, group), strict=True)
    route = plan.route["kind"] if isinstance(plan.route, Mapping) else str(plan.route)
    for i, (pool, server) in enumerate(zip(plan.pools, servers, strict=True)):
        model, home = server.model, server.group
        tables = [t if isinstance(t, Mapping) else {"kind": t} for t in (pool.batch, pool.order, pool.memory)]
        name = _label(model.id or "model") + (f"-{i}" if len(plan.pools) > 1 else "")
        longest = -(-state.longest // _ROUND_CONTEXT) * _ROUND_CONTEXT
        found.append(
            Service(
                name=name,
                repository=repository(pool.model or state.scenario.workload.model, model.id),
                device=home.device.id,
                vendor=home.device.vendor,
                node=home.node,
                places=places[i],
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
    lines = ["#!/bin/sh", f"# {head}", *(f"# {note}" for note in notes)]
    commands, seen = [], ""
    several = len({host for service in services for host, _ in service.places}) > 1
    for service, i, port in listeners(services):
        host, first = service.places[i]
        words = argv(service, port)
        shown = ",".join(str(first + d) for d in range(service.devices))
        variable = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES"}.get(service.vendor)
        env = {variable: shown} if variable and service.nodes == 1 else {}
        commands.append({"pool": service.name, "replica": i, "host": host, "env": env, "argv": words})
        if several and host != seen:
            lines += ["", f"# ---- on {host} ----"]
            seen = host
        lines += ["", f"# {service.name}, replica {i}"]
        lines.append(" ".join([*(f"{k}={v}" for k, v in env.items()), _wrapped(words)]) + " &")
    lines += ["", "wait"]
    return Export("\n".join(lines) + "\n", {"commands": commands, "notes": list(notes)}, "sh")


def listeners(services: Sequence[Service]) -> list[tuple[Service, int, int]]:
    """Returns (pool, index of the replica, port) of every replica; ports count up from 8000 on each host."""
    ports: dict[str, int] = {}
    found = []
    for service in services:
        for i in range(service.replicas):
            host = service.places[i][0]
            ports[host] = ports.get(host, 7999) + 1
            found.append((service, i, ports[host]))
    return found


def place(pools: Sequence[tuple[int, int]], node: int, nodes: int, group: str) -> list[tuple[tuple[str, int], ...]]:
    """Returns where each replica of each pool of a group stands: (host, first device there), none across nodes.

    Args:
        pools: (replicas, devices of a replica) of each pool, in order.
        node: devices of a node.
        nodes: nodes of the group.
        group: its name; hosts are called after it.

    Raises:
        Unsupported: whole replicas need more nodes than there are.
    """
    found: list[tuple[tuple[str, int], ...]] = []
    at, used = 0, 0
    for replicas, devices in pools:
        places = []
        for _ in range(replicas):
            if used and used + devices > node:
                at, used = at + 1, 0
            places.append((f"{group}-{at}", used))
            used += devices
            at, used = at + used // node, used % node if devices < node else 0
        found.append(tuple(places))
    if at + (used > 0) > nodes:
        raise Unsupported(
            f"whole replicas need {at + (used > 0)} nodes of {node} devices, group {group} has {nodes}",
            "Choose degrees that divide a node",
        )
    return found


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


def hosts_note(services: Sequence[Service]) -> list[str]:
    """Returns the note that plans over several hosts need."""
    hosts = {host for service in services for host, _ in service.places}
    return ["Run each part on its host: NAME-0 is the first node of group NAME."] if len(hosts) > 1 else []


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
