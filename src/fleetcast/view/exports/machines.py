"""What exports must know of machines: images that run an engine, names in Kubernetes, commands that set clocks.

Images: Docker Hub pages of vllm, lmsysorg, rocm and intel, docs.vllm.ai for Gaudi and TPU. Resources: the vendors'
device plugins. Labels: NVIDIA's GPU feature discovery; GKE for TPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported

if TYPE_CHECKING:
    from fleetcast.view.exports import Service


@dataclass(frozen=True)
class Machine:
    """A make of devices as exporters see it.

    Attributes:
        resource: what a pod asks for, one per device.
        images: engine -> image; ``{tag}`` stands for the version that a plan names.
        visible: variable that shows a process some of a host's devices; empty = not known to suffice.
        note: what to do before the image or the command runs.
    """

    resource: str
    images: Mapping[str, str]
    visible: str = ""
    note: str = ""


MAKES = {
    "nvidia": Machine(
        "nvidia.com/gpu", {"vllm": "vllm/vllm-openai:{tag}", "sglang": "lmsysorg/sglang:latest"},
        "CUDA_VISIBLE_DEVICES",
    ),
    "amd": Machine(
        "amd.com/gpu", {"vllm": "rocm/vllm:latest", "sglang": "lmsysorg/sglang:v0.5.9-rocm700-mi30x"},
        "HIP_VISIBLE_DEVICES",
    ),
    "intel": Machine("gpu.intel.com/xe", {"vllm": "intel/llm-scaler-vllm:latest"}, "ZE_AFFINITY_MASK"),
    "gaudi": Machine(
        "habana.ai/gaudi", {"vllm": "vllm-hpu-env:latest"}, "HABANA_VISIBLE_MODULES",
        "vLLM needs its plugin vllm-gaudi: build the image vllm-hpu-env from that project's Dockerfile.",
    ),
    "tpu": Machine(
        "google.com/tpu", {"vllm": "vllm/vllm-tpu:latest"}, "",
        "vLLM needs its TPU build (pip install vllm-tpu); a replica takes all chips of its host.",
    ),
}  # fmt: skip
"""Machines by make: the vendor, or the family where a vendor has several."""

HOSTS = {"gb200": 4, "gb300": 4, "tpu-v5e": 8, "tpu-v6e": 8}
"""Devices of an operating system where the catalogue's node is a larger domain of fast links."""

PRODUCTS = {
    "v100-pcie-16g": "Tesla-V100-PCIE-16GB",
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
    "gb200": "NVIDIA-GB200",
    "rtx-4090": "NVIDIA-GeForce-RTX-4090",
    "rtx-3090": "NVIDIA-GeForce-RTX-3090",
    "rtx-a6000": "NVIDIA-RTX-A6000",
}
"""Value of the label nvidia.com/gpu.product by catalogue id."""

_SLICES = {"tpu-v5e": "tpu-v5-lite-podslice", "tpu-v6e": "tpu-v6e-slice"}
_TOPOLOGIES = {1: "1x1", 4: "2x2", 8: "2x4"}
_NAMES = {"vllm": "vLLM", "sglang": "SGLang"}
_WHY = {
    "cpu": "a CPU takes cores and memory, not devices, and flags of its own",
    "soc": "its releases hold no kernels for systems on a chip",
    "phone": "phones run neither vLLM nor SGLang",
}


def machine(service: Service, engine: str) -> Machine:
    """Returns what is known of a pool's devices.

    Args:
        service: the pool.
        engine: "vllm" or "sglang".

    Raises:
        Unsupported: the engine does not run on them, with the reason.
    """
    make = "gaudi" if service.device.startswith("gaudi") else "tpu" if service.kind == "tpu" else service.vendor
    found = MAKES.get(make) if service.kind not in _WHY else None
    if found is None:
        why = _WHY.get(service.kind, f"it has no backend for {service.vendor} devices")
        raise Unsupported(f"{_NAMES[engine]} cannot be exported for {service.device}: {why}", "Place the pool on GPUs")
    if engine not in found.images:
        raise Unsupported(
            f"SGLang has no release for {service.device}; vLLM has", 'Plan with engine = "vllm-1" and use --to vllm'
        )
    if make == "tpu" and service.devices not in _TOPOLOGIES:
        raise Unsupported(
            f"{service.devices} chips of {service.device} are no slice of one host",
            "Plan with 1, 4 or 8 devices a replica",
        )
    return found


def selector(service: Service) -> dict[str, str]:
    """Returns the node labels that a pool's pods need; empty where none is known."""
    if service.device in PRODUCTS:
        return {"nvidia.com/gpu.product": PRODUCTS[service.device]}
    if service.device in _SLICES:
        return {
            "cloud.google.com/gke-tpu-accelerator": _SLICES[service.device],
            "cloud.google.com/gke-tpu-topology": _TOPOLOGIES[service.devices],
        }
    return {}


def settings(service: Service, devices: Sequence[int] | None) -> list[str]:
    """Returns the commands, for root, that set the plan's clock and power limit.

    Args:
        service: the pool.
        devices: numbers of the devices on their host; None = all of it.
    """
    clock, power = service.clock, service.power
    found: list[str] = []
    if service.vendor == "nvidia" and service.kind == "gpu":
        tool = "nvidia-smi" + (f" -i {','.join(map(str, devices))}" if devices else "")
        if clock is not None:
            found.append(f"{tool} -lgc {clock / 1e6:.0f},{clock / 1e6:.0f}")
        if power is not None:
            found.append(f"{tool} -pl {power:.0f}")
    elif service.vendor == "amd" and service.kind == "gpu":
        tool = "amd-smi set" + (f" --gpu {' '.join(map(str, devices))}" if devices else "")
        if clock is not None:
            found.append(f"{tool} --perf-determinism {clock / 1e6:.0f}")
        if power is not None:
            found.append(f"{tool} --power-cap {power:.0f}")
    return found


def notes(services: Sequence[Service], engine: str) -> list[str]:
    """Returns what the reader must know of the machines, in sentences."""
    found = [machine(service, engine).note for service in services]
    for service in services:
        wanted = [f"{service.clock / 1e6:.0f} MHz"] if service.clock is not None else []
        wanted += [f"{service.power:.0f} W"] if service.power is not None else []
        if not wanted:
            continue
        if settings(service, None):
            undo = "nvidia-smi -rgc" if service.vendor == "nvidia" else "amd-smi reset --perf-determinism"
            found.append(
                f"{service.name} runs at {' and '.join(wanted)} at most: the lines marked 'root' set it and need root "
                f"on the host; a container cannot. They last until the host restarts"
                + (f" or `{undo}`." if service.clock is not None else ".")
            )
        else:
            found.append(
                f"{service.name} runs at {' and '.join(wanted)} at most: set that on its hosts with the vendor's tool."
            )
    return [note for note in dict.fromkeys(found) if note]
