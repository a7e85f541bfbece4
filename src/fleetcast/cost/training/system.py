"""The hardware and software that a training step runs on: one device's kernels, its links, its host."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.attention import Prefill
from fleetcast.cost.collectives import Fabric, fabric_for
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.roofline import Array, Coefficients, Silicon, Stream, coefficients_for
from fleetcast.scenario.fleet.tree import Group

SWITCHED = {"efficiency": 0.69, "shared": 0.32}
"""What NCCL's rings reach over PCIe on servers people train on: 35 GB/s on four and 28 on eight cards of 63 GB/s (read:
NVIDIA/nccl, issue 1639, two sockets). The one server measured for serving, whose eight cards share 2 GB/s, is apart."""
_RINGS = ("all_reduce", "all_gather", "reduce_scatter")
_FILE = Path(__file__).parent.parent / "coefficients" / "training.toml"


@dataclass(frozen=True, kw_only=True)
class Practice:
    """What training adds to kernels: factors on their times, and what nobody can read off a data sheet.

    A factor of 1 says that the kernel's own measured curve holds in training too.

    Attributes:
        gemm, attention, vector, head, tensor, pipeline, data, optimizer: factors on seconds of products, attention,
            element-wise kernels, the head, messages of tensor, pipeline and data parallelism, and the optimizer.
        fused: in place of ``attention`` where PyTorch's FSDP keeps no scores, and ``flash`` where Megatron-LM's layers
            keep none; ``narrow`` in place of both where heads are 64 wide or less.
        eight: what products of 8 bits take of that besides ``gemm``: they heat a device less and are slowed down less.
        eager: in place of ``vector`` where PyTorch shards gradients (ZeRO 2 and 3) and runs its own kernels one by one,
            which Megatron-LM has fused.
        gap: s of the device between two kernels.
        sharp: how well host and device overlap: 1 adds them, 8 is almost the longer; a power of two.
        kernel: s of the host for each kernel that it launches.
        pace: s of the host for each collective that it starts.
        iteration: s before the first kernel of an iteration: its samples, the host's bookkeeping.
        slow: share of machines that are stragglers, and ``slower`` by how much their steps are longer: all wait for the
            slowest. 0.5 % and 10 % as MegaScale found on its fleet (Jiang and others, NSDI 2024).
        spread: standard deviation of log(iteration time) that forecasts leave.
        source: what they were fitted on.
    """

    gemm: float = 1.0
    attention: float = 1.0
    fused: float = 1.0
    flash: float = 1.0
    eight: float = 1.0
    narrow: float = 1.0
    vector: float = 1.0
    eager: float = 1.0
    tensor: float = 1.0
    pipeline: float = 1.0
    data: float = 1.0
    optimizer: float = 1.0
    head: float = 1.0
    gap: float = 2e-6
    sharp: int = 4
    kernel: float = 8e-6
    pace: float = 20e-6
    iteration: float = 5e-3
    slow: float = 0.005
    slower: float = 0.1
    spread: float = 0.15
    source: str = "assumed"

    def slowest(self, machines: ArrayLike) -> Array:
        """Returns by which share a job on so many machines is longer on average, some of them being stragglers."""
        count = np.ceil(np.asarray(machines, dtype=np.float64))
        return np.asarray(self.slower * (1.0 - (1.0 - self.slow) ** count))


@dataclass(frozen=True, kw_only=True)
class System:
    """One group of equal devices as training sees it.

    Attributes:
        chip: peaks, bandwidth, units of a device.
        memory: B of a device.
        fitted: measured curves of its kernels.
        inner: what joins the devices of a node.
        outer: what joins nodes.
        node: devices of a node.
        host_link: B/s between a device and its host, one direction.
        host_memory: B of the host's memory for each device.
        host_bandwidth: B/s of that memory, a device's share.
        ssd: B/s that the disks read, a device's share; 0 = none.
        ssd_write: B/s that they write; 0 = as they read.
        ssd_memory: B that they hold.
        practice: what training adds.
        pair: what joins the two dies of a module, where that is faster than ``inner``.
    """

    chip: Silicon
    memory: float
    fitted: Coefficients = field(repr=False)
    inner: Fabric
    outer: Fabric
    node: int
    host_link: float
    host_memory: float = 128e9
    host_bandwidth: float = 40e9
    ssd: float = 0.0
    ssd_write: float = 0.0
    ssd_memory: float = math.inf
    practice: Practice = Practice()
    pair: Fabric | None = None

    def gemm(self, dtype: str) -> Gemm:
        """Returns the coefficients of products in ``dtype``."""
        return self.fitted.get("gemm", dtype, Gemm)

    @property
    def stream(self) -> Stream:
        """Coefficients of element-wise kernels."""
        return self.fitted.get("stream", "any", Stream)

    @property
    def prefill(self) -> Prefill:
        """Coefficients of attention that keeps no scores."""
        return self.fitted.get("prefill", "bf16", Prefill)


def of(group: Group, *, ssd: float | None = None, practice: Practice | None = None) -> System:
    """Returns the training system of a group of the fleet.

    Args:
        group: equal devices on equal links.
        ssd: B/s that a device's share of the local disks reads; None = no disks.
        practice: what training adds; None = what is known of the device, or of its relatives.
    """
    device, inner, outer = group.device, group.link, group.network
    own = inner.fitted
    table = {f: getattr(own, f) for f in own.__struct_fields__} if own is not None else None
    from fleetcast.scenario.fleet import catalog  # ids of links live in the catalogue

    host = catalog.link(device.host_link)
    near = fabric_for(device.id, inner.kind, inner.bandwidth, inner.latency, inner.peers, table)
    if near.kind == "pcie" and near.kind_of == "link kind":
        rings = {name: replace(near.affine[name], **SWITCHED) for name in _RINGS}
        near = replace(near, affine={**near.affine, **rings})
    return System(
        chip=device, memory=float(device.memory), fitted=coefficients_for(device),
        inner=near, pair=replace(near, bandwidth=inner.pair, peers=0) if inner.pair else None,
        outer=fabric_for(device.id, outer.kind, outer.bandwidth, outer.latency, outer.peers),
        node=min(group.node, group.count), host_link=host.bandwidth, ssd=ssd or 0.0,
        practice=practice_of(device.id, device.architecture) if practice is None else practice,
    )  # fmt: skip


def practice_of(device: str, architecture: str) -> Practice:
    """Returns what is known of training on a device: its own, its architecture's, or the generic row."""
    rows = _rows()
    for name in (device, architecture, "generic"):
        if name in rows:
            return _practice({**rows["generic"], **rows[name]})
    return Practice()


def _practice(row: Mapping[str, Any]) -> Practice:
    return Practice(**{f.name: row[f.name] for f in fields(Practice) if f.name in row})


@lru_cache(maxsize=1)
def _rows() -> Mapping[str, Mapping[str, Any]]:
    with _FILE.open("rb") as file:
        return tomllib.load(file)
