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
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Plan, Pool, clock_of, one
from fleetcast.scenario.workload import catalog
from fleetcast.sim.serving.setting import Server, Setting
from fleetcast.view.exports.machines import HOSTS, settings

TARGETS = ("vllm", "sglang", "kubernetes")
_ROUND_CONTEXT = 256


@dataclass(frozen=True)
class Place:
    """Where a replica stands: its hosts, the first of which listens, and its first device there."""

    hosts: tuple[str, ...]
    first: int


@dataclass(frozen=True)
class Service:
    """A complete pool as an exporter reads it.

    Attributes:
        name: of the service, a DNS label.
        repository: of the checkpoint, or the path of the model's folder.
        device: catalogue id.
        kind: of the device.
        node: devices of a host that the pool uses.
        network: name of the link between hosts.
        clock: to hold the devices at, Hz; None = their own.
        power: limit of a device, W; None = its own.
        places: of the replicas.
        stored: the checkpoint's weight dtype; ``dtype`` is what the engine makes of it.
        context: longest sequence to allow, tokens.
        longest: tokens of the workload's longest request.
        most: the model's own context, tokens; 0 = not known.
        batch, order, memory, route: policy tables.
        speculate: policy table of what is drafted, {} = nothing; its ``model`` is the drafter's repository.
        prefixes: table of the prefix cache, {} = the plan does not say.
        balanced: experts are placed by how often they are chosen.
        profile: the engine's profile.
    """

    name: str
    repository: str
    device: str
    vendor: str
    kind: str
    node: int
    network: str
    clock: float | None
    power: float | None
    places: tuple[Place, ...]
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
    longest: int
    most: int
    batch: Mapping[str, Any]
    order: str
    memory: str
    route: str
    speculate: Mapping[str, Any]
    prefixes: Mapping[str, Any]
    balanced: bool = False

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
            hint=closest(target, TARGETS),
        )  # fmt: skip
    from fleetcast.view.exports import kubernetes, sglang, vllm

    make: dict[str, Callable[[Sequence[Service]], Export]] = {
        "vllm": vllm.export, "sglang": sglang.export, "kubernetes": kubernetes.export,
    }  # fmt: skip
    return make[target](services(state, plan))


def services(state: Setting, plan: Plan) -> tuple[Service, ...]:
    """Returns each pool of a complete plan as exporters read it."""
    found: list[Service] = []
    servers = state.servers(plan)
    if any(server.drafters is not None for server in servers):
        raise Unsupported(
            "no engine that commands are written for takes drafts from other devices: its drafter runs on those of the "
            "model that it drafts for",
            "Plan without a draft pool and pipelined: speculate then shares the devices",
        )
    if any(pool.overlap is not None for pool in plan.pools):
        raise Unsupported(
            "no engine that commands are written for runs nano-batches side by side", 'Plan with plan.overlap = "none"'
        )
    places: dict[int, tuple[Place, ...]] = {}
    for group in dict.fromkeys(server.group.name for server in servers):
        mine = [i for i, server in enumerate(servers) if server.group.name == group]
        home = servers[mine[0]].group
        host = _host(home)
        shapes = [(one(plan.pools[i].replicas), plan.pools[i].devices() // one(plan.pools[i].replicas)) for i in mine]
        places |= zip(mine, place(shapes, host, home.nodes * -(-home.node // host), group), strict=True)
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
                kind=home.device.kind,
                node=_host(home),
                network=home.network.name,
                clock=clock_of(pool) * home.device.clock if clock_of(pool) < 1 else None,
                power=home.limit if home.limit < home.device.power.max else None,
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
                longest=state.longest,
                most=model.context or 0,
                batch=tables[0],
                order=str(tables[1]["kind"]),
                memory=str(tables[2]["kind"]),
                route=route,
                speculate=_drafts(state, pool, server),
                prefixes=pool.prefix_cache if isinstance(pool.prefix_cache, dict) else {},
                balanced=pool.expert_placement == "balanced",
            )
        )
    return tuple(found)


def _drafts(state: Setting, pool: Pool, server: Server) -> Mapping[str, Any]:
    """What a pool drafts, the drafter by its repository; {} where it drafts nothing."""
    if server.speculation is None or not isinstance(pool.speculate, Mapping):
        return {}
    name = server.speculation.drafting.model
    return dict(pool.speculate) | ({"model": repository(name, state.model_named(name).id)} if name else {})


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
    services: Sequence[Service],
    head: str,
    argv: Callable[[Service, int, int, str], list[list[str]]],
    visible: Callable[[Service], str],
    notes: Sequence[str],
) -> Export:
    """Returns a shell script of the commands of every replica, host by host, and the same as data.

    Args:
        services: the pools.
        head: what the script is for.
        argv: commands of a replica's node: (pool, port, rank of the node, head's host) -> arguments of each.
        visible: variable that shows a process some devices of a host, by pool.
        notes: what the reader must know; comments at the top.
    """
    commands: list[dict[str, Any]] = []
    for service, i, port in listeners(services):
        place = service.places[i]
        devices = range(place.first, place.first + min(service.devices, service.node))
        shown = visible(service) if service.nodes == 1 else ""
        for rank, host in enumerate(place.hosts):
            root = settings(service, devices)
            for words in argv(service, port, rank, place.hosts[0]):
                env = {shown: ",".join(map(str, devices))} if shown else {}
                commands.append(
                    {"pool": service.name, "replica": i, "host": host, "env": env, "root": root, "argv": words}
                )
                root = []
    lines = ["#!/bin/sh", f"# {head}", *(f"# {note}" for note in notes)]
    hosts = dict.fromkeys(command["host"] for command in commands)
    for host in hosts:
        if len(hosts) > 1:
            lines += ["", f"# ---- on {host} ----"]
        seen = ""
        for command in (c for c in commands if c["host"] == host):
            named = f"# {command['pool']}, replica {command['replica']}"
            lines += ["", named] if named != seen else []
            seen = named
            lines += [f"# root: {line}" for line in command["root"]]
            served = command["argv"][0] != "ray"
            start = [f"{k}={v}" for k, v in command["env"].items()]
            lines.append(" ".join([*start, _wrapped(command["argv"])]) + (" &" if served else ""))
    lines += ["", "wait"]
    return Export("\n".join(lines) + "\n", {"commands": commands, "notes": list(notes)}, "sh")


def listeners(services: Sequence[Service]) -> list[tuple[Service, int, int]]:
    """Returns (pool, index of the replica, port) of every replica; ports count up from 8000 on each host."""
    ports: dict[str, int] = {}
    found = []
    for service in services:
        for i in range(service.replicas):
            host = service.places[i].hosts[0]
            ports[host] = ports.get(host, 7999) + 1
            found.append((service, i, ports[host]))
    return found


def addresses(services: Sequence[Service]) -> list[str]:
    """Returns host:port of every replica; localhost where all stand on one host."""
    alone = not hosts_note(services)
    return [f"{'localhost' if alone else s.places[i].hosts[0]}:{port}" for s, i, port in listeners(services)]


def place(pools: Sequence[tuple[int, int]], node: int, nodes: int, group: str) -> list[tuple[Place, ...]]:
    """Returns where each replica of each pool of a group stands: within a host, or on whole hosts.

    Args:
        pools: (replicas, devices of a replica) of each pool, in order.
        node: devices of a host.
        nodes: hosts of the group.
        group: its name; hosts are called after it.

    Raises:
        Unsupported: a replica fills no whole hosts, or all need more hosts than there are.
    """
    found: list[tuple[Place, ...]] = []
    at, used = 0, 0
    for replicas, devices in pools:
        if devices > node and devices % node:
            raise Unsupported(
                f"a replica of {devices} devices fills no whole hosts of {node}, and engines want equal hosts",
                f"Choose degrees whose product is at most {node} or a multiple of it",
            )
        places = []
        for _ in range(replicas):
            if used and used + devices > node:
                at, used = at + 1, 0
            hosts = tuple(f"{_label(group)}-{at + i}" for i in range(max(1, devices // node)))
            places.append(Place(hosts, used))
            used += devices
            at, used = at + used // node, used % node
        found.append(tuple(places))
    if at + (used > 0) > nodes:
        raise Unsupported(
            f"whole replicas need {at + (used > 0)} hosts of {node} devices, group {group} has {nodes}",
            "Choose degrees that divide a host",
        )
    return found


def hosts_note(services: Sequence[Service]) -> list[str]:
    """Returns the note that plans over several hosts need."""
    hosts = {host for service in services for place in service.places for host in place.hosts}
    return ["Run each part on its host: NAME-0 is the first host of group NAME."] if len(hosts) > 1 else []


def context_notes(services: Sequence[Service], flag: str) -> list[str]:
    """Returns where the context that ``flag`` allows comes from."""
    found = []
    for service in services:
        cap = f" The model's own context is {service.most:,}." if service.most else ""
        if service.context < service.longest:
            cap = f" It is cut to the model's own context, {service.most:,}."
        found.append(
            f"{flag} {service.context}: the workload's longest request has {service.longest:,} tokens; "
            f"longer ones are refused.{cap}"
        )
    return list(dict.fromkeys(found))


def _host(group: Group) -> int:
    """Devices of one host of a group: its node, where no larger domain of fast links is called so."""
    return min(group.node, HOSTS.get(group.device.id, group.node))


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
