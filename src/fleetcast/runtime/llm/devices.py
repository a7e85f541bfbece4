"""Which of torch's devices hold a model, one for each rank, and how much of their memory is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetcast.base import host
from fleetcast.base.errors import MissingExtra, SpecError

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("torch", "torch") from None

Device = Any


def devices_of(name: str, ranks: int = 1) -> tuple[Device, ...]:
    """Returns torch's device of each rank: CUDA devices of their own, or the CPU for all.

    Args:
        name: "cpu", "cuda", or "auto": CUDA where there are enough devices.
        ranks: processes that hold a part of the model each; several on CUDA talk by NCCL.

    Raises:
        SpecError: another name, or fewer CUDA devices than ranks, or no NCCL for several.
    """
    lacks = _lacks(ranks)
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and lacks):
        limit = f"one of auto, cpu: {lacks}" if lacks else "one of auto, cpu, cuda"
        raise SpecError("device", "cannot be run on", value=name, limit=limit)
    if name == "cpu" or lacks:
        return (torch.device("cpu"),) * ranks
    return tuple(torch.device("cuda", rank) for rank in range(ranks))


def _lacks(ranks: int) -> str:
    """Returns what is missing for every rank to have a CUDA device of its own; "" = nothing."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if (count := torch.cuda.device_count()) < ranks:
        return f"{ranks} ranks want a CUDA device each, and torch finds {count}"
    return "" if ranks == 1 or dist.is_nccl_available() else "torch has no NCCL, by which ranks on CUDA talk"


def name_of(device: Device) -> str:
    """Returns what the maker calls a CUDA device; "cpu" for the processor."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def free_memory(devices: Sequence[Device]) -> float:
    """Returns bytes that ranks on ``devices`` can take together, each as much as the others.

    Ranks on the processor share its memory. On CUDA each has its own device's, so the fullest one bounds all.
    """
    if devices[0].type == "cuda":
        return len(devices) * min(float(torch.cuda.mem_get_info(device)[0]) for device in devices)
    return host.free_memory()
