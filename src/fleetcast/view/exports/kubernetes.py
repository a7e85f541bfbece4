"""Plans as Kubernetes manifests: a Deployment per pool, a Service over all of them.

A pool whose replicas span hosts is a LeaderWorkerSet (leaderworkerset.x-k8s.io/v1), which puts LWS_LEADER_ADDRESS and
LWS_WORKER_INDEX into its containers. Manifests are plain dicts; `to_yaml` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from fleetcast.view.exports import Export, Service, arguments, machines, sglang, vllm

_HEAD = "$(LWS_LEADER_ADDRESS)"
_RANK = "$(LWS_WORKER_INDEX)"


def export(services: Sequence[Service]) -> Export:
    """Returns the manifests as a YAML stream.

    Raises:
        Unsupported: devices that no pod can ask for, or that no image of the engine serves.
    """
    objects = manifests(services)
    notes = [f"# {note}" for note in _notes(services)]
    text = "---\n".join(to_yaml(o) for o in objects)
    return Export("\n".join([*notes, text]) if notes else text, objects, "yaml")


def manifests(services: Sequence[Service]) -> list[dict[str, Any]]:
    """Returns the Deployments or LeaderWorkerSets and the Service as plain tables."""
    app = re.sub(r"-\d+$", "", services[0].name) if len(services) > 1 else services[0].name
    return [*(_set(s, app) if s.nodes > 1 else _deployment(s, app) for s in services), _service(app)]


def to_yaml(table: Mapping[str, Any]) -> str:
    """Returns YAML text of plain tables, lists, numbers and text; text that could be read as else is quoted."""
    return "\n".join(_lines(table, "")) + "\n"


def _deployment(service: Service, app: str) -> dict[str, Any]:
    labels = {"app": app, "pool": service.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.name, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": labels},
            "template": _pod(service, labels, _serve(service), listens=True),
        },
    }


def _set(service: Service, app: str) -> dict[str, Any]:
    """A LeaderWorkerSet: of the pods of a replica only the leader listens and carries the Service's label."""
    labels = {"app": app, "pool": service.name}
    leader, worker = _serve_leader(service), _serve_worker(service)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": service.name, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "leaderWorkerTemplate": {
                "size": service.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _pod(service, labels, leader, listens=True),
                "workerTemplate": _pod(service, {"pool": service.name}, worker, listens=False),
            },
        },
    }


def _pod(service: Service, labels: Mapping[str, str], argv: list[str], *, listens: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "containers": [_container(service, argv, listens=listens)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
            {"name": "cache", "emptyDir": {}},
        ],
    }
    if wanted := machines.selector(service):
        spec["nodeSelector"] = wanted
    return {"metadata": {"labels": dict(labels)}, "spec": spec}


def _container(service: Service, argv: list[str], *, listens: bool) -> dict[str, Any]:
    machine = machines.machine(service, _engine(service))
    words = 3 if argv[0] in ("python3", "sh") else 2
    made: dict[str, Any] = {
        "name": "server",
        "image": machine.images[_engine(service)].format(tag=_tag(service)),
        "command": argv[:words],
        **({"args": argv[words:]} if argv[words:] else {}),
        "env": [
            {"name": "HF_HOME", "value": "/cache"},
            {
                "name": "HF_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "huggingface", "key": "token", "optional": True}},
            },
        ],
        "resources": {"limits": {machine.resource: min(service.devices, service.node)}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "cache", "mountPath": "/cache"},
        ],
    }
    if listens:
        probe = {"httpGet": {"path": "/health", "port": "http"}}
        made["ports"] = [{"name": "http", "containerPort": 8000}]
        # Loading weights takes minutes; until then the pod is neither ready nor dead.
        made["startupProbe"] = probe | {"periodSeconds": 10, "failureThreshold": 180}
        made["readinessProbe"] = probe | {"periodSeconds": 5}
        made["livenessProbe"] = probe | {"periodSeconds": 20, "failureThreshold": 3}
    return made


def _engine(service: Service) -> str:
    return "sglang" if service.profile.family == "sglang" else "vllm"


def _serve(service: Service) -> list[str]:
    return sglang.command(service, 8000) if _engine(service) == "sglang" else vllm.command(service, 8000)


def _serve_leader(service: Service) -> list[str]:
    if _engine(service) == "sglang":
        return [*_serve(service), *arguments(sglang.join(service, _RANK, _HEAD))]
    if _by_ray(service):
        start = f'ray start --head --port={vllm.RAY_PORT} && exec "$@"'
        return ["sh", "-c", start, "sh", *_serve(service)]
    return [*_serve(service), *arguments(vllm.join(service, "0", _HEAD, None))]


def _serve_worker(service: Service) -> list[str]:
    if _engine(service) == "sglang":
        return _serve_leader(service)
    if _by_ray(service):
        # A worker that comes before the leader tries again; a restart would recreate the whole group.
        start = f"until ray start --address={_HEAD}:{vllm.RAY_PORT} --block; do sleep 5; done"
        return ["sh", "-c", start]
    words = [*vllm.command(service, None), *arguments(vllm.join(service, _RANK, _HEAD, None))]
    if service.attention_dp == 1:
        return words
    first = f"--data-parallel-start-rank $(({vllm.local(service)} * LWS_WORKER_INDEX))"
    return ["sh", "-c", f'exec "$@" {first}', "sh", *words]


def _by_ray(service: Service) -> bool:
    return service.attention_dp == 1 and not vllm.is_native(service)


def _service(app: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "labels": {"app": app}},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def _tag(service: Service) -> str:
    """The image's tag: the plan's version where it says one to the patch level."""
    match = re.search(r"(\d+\.\d+\.\d+)$", service.engine)
    return f"v{match[1]}" if match else "v0.6.6" if service.profile.until else "latest"


def _notes(services: Sequence[Service]) -> list[str]:
    if len({_engine(s) for s in services}) > 1:
        notes = [note for s in services for note in _of(s).notes([s])]
    else:
        notes = _of(services[0]).notes(services)
    kept = [n for n in dict.fromkeys(notes) if not n.startswith(("Route ", "Run each part"))]
    if any(s.nodes > 1 for s in services):
        kept.append(
            "Needs the LeaderWorkerSet controller (lws.sigs.k8s.io) in the cluster. Pods use the cluster's network: "
            "for the plan's speed between hosts give them its RDMA devices or hostNetwork."
        )
    for service in services:
        for line in machines.settings(service, None):
            kept.append(f"root, on each node of {service.name}: {line}")
        if not machines.selector(service):
            kept.append(
                f"{service.name}: no node label of {service.device} is known; add a nodeSelector where nodes differ."
            )
    if sum(s.replicas for s in services) > 1:
        kept.append(
            f"The Service spreads connections evenly; the plan routes {services[0].route}: "
            "use an inference gateway where that differs."
        )
    return kept


def _of(service: Service) -> ModuleType:
    return sglang if _engine(service) == "sglang" else vllm


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, Mapping | list) and item:
                yield f"{indent}{_scalar(key)}:"
                yield from _lines(item, indent if isinstance(item, list) else indent + "  ")
            else:
                yield f"{indent}{_scalar(key)}: {_scalar(item)}"
    else:
        for item in value:
            if isinstance(item, Mapping | list) and item:
                first, *rest = _lines(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{indent}- {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", value)
        word = value.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
        return value if plain and word else json.dumps(value)
    if isinstance(value, Mapping | list):
        return "{}" if isinstance(value, Mapping) else "[]"
    return json.dumps(value)
