"""Plans as Kubernetes manifests: a Deployment per pool, a Service over all of them.

Manifests are plain dicts; `to_yaml` writes them. Labels of NVIDIA nodes are those of its GPU feature discovery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import Export, Service, sglang, vllm

RESOURCES = {
    "nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/xe", "google": "google.com/tpu",
}  # fmt: skip
_GAUDI = "habana.ai/gaudi"
PRODUCTS = {
    "v100-sxm2-32g": "Tesla-V100-SXM2-32GB",
    "a100-40g-sxm": "NVIDIA-A100-SXM4-40GB",
    "a100-80g-sxm": "NVIDIA-A100-SXM4-80GB",
    "a100-40g-pcie": "NVIDIA-A100-PCIE-40GB",
    "a100-80g-pcie": "NVIDIA-A100-80GB-PCIe",
    "a40": "NVIDIA-A40",
    "a30": "NVIDIA-A30",
    "l4": "NVIDIA-L4",
    "l40s": "NVIDIA-L40S",
    "h100-sxm": "NVIDIA-H100-80GB-HBM3",
    "h100-pcie": "NVIDIA-H100-PCIe",
    "h200-sxm": "NVIDIA-H200",
    "b200-sxm": "NVIDIA-B200",
    "rtx-4090": "NVIDIA-GeForce-RTX-4090",
    "rtx-3090": "NVIDIA-GeForce-RTX-3090",
}
"""Value of the label nvidia.com/gpu.product by catalogue id."""


def export(services: Sequence[Service]) -> Export:
    """Returns the manifests as a YAML stream.

    Raises:
        Unsupported: a replica spans several nodes, or devices that no pod can ask for.
    """
    objects = manifests(services)
    notes = [f"# {note}" for note in _notes(services)]
    text = "---\n".join(to_yaml(o) for o in objects)
    return Export("\n".join([*notes, text]) if notes else text, objects, "yaml")


def manifests(services: Sequence[Service]) -> list[dict[str, Any]]:
    """Returns the Deployments and the Service as plain tables."""
    app = re.sub(r"-\d+$", "", services[0].name) if len(services) > 1 else services[0].name
    return [*(_deployment(s, app) for s in services), _service(app)]


def to_yaml(table: Mapping[str, Any]) -> str:
    """Returns YAML text of plain tables, lists, numbers and text; text that could be read as else is quoted."""
    return "\n".join(_lines(table, "")) + "\n"


def _deployment(service: Service, app: str) -> dict[str, Any]:
    if service.nodes > 1:
        raise Unsupported(
            f"A replica needs {service.devices} devices on {service.nodes} nodes, and a pod lives on one",
            f"Plan with tensor_parallel x pipeline_parallel x attention_dp of at most {service.node}, "
            "or write a LeaderWorkerSet",
        )
    labels = {"app": app, "pool": service.name}
    resource = _resource(service)
    pod: dict[str, Any] = {
        "containers": [_container(service, resource)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
            {"name": "cache", "emptyDir": {}},
        ],
    }
    if service.device in PRODUCTS:
        pod["nodeSelector"] = {"nvidia.com/gpu.product": PRODUCTS[service.device]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.name, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _container(service: Service, resource: str) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": "http"}}
    if service.profile.family == "sglang":
        image, command = "lmsysorg/sglang:latest", sglang.command(service, 8000)
    else:
        image, command = f"vllm/vllm-openai:{_tag(service)}", vllm.command(service, 8000)
    return {
        "name": "server",
        "image": image,
        "command": command[:3] if command[0] == "python" else command[:2],
        "args": command[3:] if command[0] == "python" else command[2:],
        "env": [
            {"name": "HF_HOME", "value": "/cache"},
            {
                "name": "HF_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "huggingface", "key": "token", "optional": True}},
            },
        ],
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {resource: service.devices}},
        # Loading weights takes minutes; until then the pod is neither ready nor dead.
        "startupProbe": probe | {"periodSeconds": 10, "failureThreshold": 180},
        "readinessProbe": probe | {"periodSeconds": 5},
        "livenessProbe": probe | {"periodSeconds": 20, "failureThreshold": 3},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "cache", "mountPath": "/cache"},
        ],
    }


def _service(app: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "labels": {"app": app}},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def _resource(service: Service) -> str:
    if service.device.startswith("gaudi"):
        return _GAUDI
    found = RESOURCES.get(service.vendor)
    if found is None:
        raise Unsupported(
            f"No Kubernetes device plugin is known for {service.device}", "Use --to vllm or --to sglang on its host"
        )
    return found


def _tag(service: Service) -> str:
    """The image's tag: the plan's version where it says one to the patch level."""
    match = re.search(r"(\d+\.\d+\.\d+)$", service.engine)
    return f"v{match[1]}" if match else "v0.6.6" if service.profile.until else "latest"


def _notes(services: Sequence[Service]) -> list[str]:
    notes = sglang.notes(services) if services[0].profile.family == "sglang" else vllm.notes(services)
    kept = [n for n in notes if not n.startswith(("Route ", "Run each part"))]
    if sum(s.replicas for s in services) > 1:
        kept.append(
            f"The Service spreads connections evenly; the plan routes {services[0].route}: "
            "use an inference gateway where that differs."
        )
    return kept


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
