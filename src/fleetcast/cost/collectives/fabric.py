"""Time of collective operations: measured curves, or latency + volume over bandwidth.

A ``Fabric`` is what joins the devices of one group: its link, the curves measured on it (size ->
time per operation and number of ranks) and the coefficients of ``launch + hop*(ranks-1) +
volume/(efficiency*bandwidth)`` for what was not measured (Hockney's model). Where no link of the kind
was measured either, latencies are counted by algorithm (Thakur, Rabenseifner, Gropp, IJHPCA 2005).
Sizes are bytes of the full buffer on one rank: what is reduced, what every rank ends up with
(all_gather) or starts from (reduce_scatter, all_to_all), or what is sent. Groups over several nodes
run in two levels, inside the node and between nodes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.roofline import Array

_FOLDER = Path(__file__).parent.parent / "coefficients"
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured times over sizes, both growing; log-log linear between knots.

    Attributes:
        size: bytes.
        time: s.
    """

    size: Array
    time: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Coefficients of one operation on one kind of link.

    Attributes:
        launch: s.
        hop: s per rank beyond the first.
        efficiency: fraction of the link's bandwidth that a pair reaches.
        shared: power by which that falls with the ranks: 0 where each has a path of its own, 1 where all share one bus.
    """

    launch: float
    hop: float
    efficiency: float
    shared: float = 0.0

    def reached(self, ranks: ArrayLike) -> Array:
        """Returns the fraction of the link's bandwidth that each of ``ranks`` (array) reaches."""
        pairs = np.maximum(np.asarray(ranks, dtype=np.float64) / 2.0, 1.0)
        return np.asarray(self.efficiency * pairs**-self.shared)


@dataclass(frozen=True, slots=True)
class Fabric:
    """A group's link with everything known about collectives on it.

    Attributes:
        kind: "nvlink", "pcie", "ethernet", ...
        bandwidth: B/s per device, one direction.
        latency: s, one way, of each round; 0 where the fitted ``hop`` contains it.
        affine: operation -> coefficients.
        curves: operation -> ranks -> curve, measured at ``reference`` B/s.
        reference: bandwidth of the measured link.
        peers: devices that the links of one are divided among, each pair having its own; 0 = a switch, which gives
            any one peer all of it.
        rounds: how messages travel on an assumed fabric: "direct" to every rank at once, "tree" (doubling the
            distance each round) or "torus" (from neighbour to neighbour in two dimensions); "" where latencies were
            fitted.
        kind_of: where it comes from: "measured", "link kind" or "assumed".
        spread: standard deviation of log(time) to expect.
        source: tables.
    """

    kind: str
    bandwidth: float
    latency: float
    affine: Mapping[str, Affine]
    curves: Mapping[str, Mapping[int, Curve]] = field(default_factory=dict, repr=False)
    reference: float = 0.0
    peers: int = 0
    rounds: str = ""
    kind_of: str = "link kind"
    spread: float = 0.3
    source: str = ""


def volume(operation: str, ranks: ArrayLike) -> Array:
    """Returns the share of the buffer each device sends: 2(n-1)/n, (n-1)/n, or 1 for send."""
    n = np.asarray(ranks, dtype=np.float64)
    part = (n - 1.0) / n
    if operation == "send":
        return np.where(n > 1, 1.0, 0.0)
    return np.asarray(2.0 * part if operation == "all_reduce" else part)


def collective_time(operation: str, size: ArrayLike, ranks: int, fabric: Fabric) -> Array:
    """Returns seconds of one operation inside one group.

    Args:
        operation: one of ``OPERATIONS``.
        size: bytes of the full buffer per rank, array; 0 takes no time.
        ranks: devices that take part; 1 takes no time.
        fabric: what joins them.
    """
    length = np.asarray(size, dtype=np.float64)
    if ranks <= 1:
        return np.zeros_like(length)
    measured = fabric.curves.get(operation, {}).get(ranks)
    if measured is not None:
        time = _read(length, measured, fabric.reference / fabric.bandwidth)
    elif fabric.rounds:
        time = _assumed(operation, length, ranks, fabric)
    else:
        c = fabric.affine[operation]
        fixed = c.launch + c.hop * (ranks - 1)
        time = fixed + length * (float(volume(operation, ranks)) / (float(c.reached(ranks)) * fabric.bandwidth))
    return np.where(length > 0, time, 0.0)


def _assumed(operation: str, length: Array, ranks: int, fabric: Fabric) -> Array:
    """Returns the time on a fabric of a kind nobody measured: the better of few rounds and few bytes.

    All_reduce is a reduce_scatter and an all_gather (Rabenseifner), or moves the whole buffer in one phase: to all at
    once, or doubling the distance. All_to_all sends to each rank by itself, or collects on the way (Bruck).
    """
    c, wait = fabric.affine[operation], fabric.latency
    others = 1 if operation == "send" else ranks - 1
    links = min(1.0, others / fabric.peers) if fabric.peers else 1.0
    whole = length / (c.efficiency * fabric.bandwidth * links)  # s for the buffer over the links in use
    lean = float(volume(operation, ranks)) * whole
    doublings = (ranks - 1).bit_length()
    rounds = {"direct": 1, "tree": doublings, "torus": ceil(2.0 * (ranks**0.5 - 1.0))}[fabric.rounds]
    if operation == "send":
        time = wait + lean
    elif operation == "all_reduce":
        time = 2 * rounds * wait + lean
        if fabric.rounds == "direct":
            time = np.minimum(time, wait + others * whole)
        elif fabric.rounds == "tree":
            time = np.minimum(time, doublings * (wait + whole))
    elif operation == "all_to_all" and fabric.rounds == "tree":
        time = np.minimum(others * wait + lean, doublings * (wait + whole / 2.0))
    else:
        time = rounds * wait + lean
    return np.asarray(c.launch + time)


def nested_time(operation: str, size: ArrayLike, ranks: int, per_node: int, inner: Fabric, outer: Fabric) -> Array:
    """Returns seconds of an operation over several nodes of ``per_node`` ranks each, in two levels.

    All_reduce scatters inside the node, reduces the shards between nodes and gathers again;
    all_gather gathers shards between nodes first; all_to_all uses both links at once.
    """
    length = np.asarray(size, dtype=np.float64)
    nodes = -(-ranks // per_node)
    if nodes <= 1:
        return collective_time(operation, length, ranks, inner)
    if operation == "send" or per_node == 1:
        return collective_time(operation, length, 2 if operation == "send" else nodes, outer)
    if operation == "all_to_all":
        near = collective_time(operation, length * (per_node / ranks), per_node, inner)
        far = collective_time(operation, length, nodes, outer)
        return np.asarray(np.maximum(near, far))
    shard = collective_time(operation, length / per_node, nodes, outer)
    if operation == "all_reduce":
        return np.asarray(
            collective_time("reduce_scatter", length, per_node, inner)
            + shard
            + collective_time("all_gather", length, per_node, inner)
        )
    return np.asarray(shard + collective_time(operation, length, per_node, inner))


def fabric_for(
    device: str, kind: str, bandwidth: float, latency: float = 0.0, peers: int = 0, own: Mapping[str, Any] | None = None
) -> Fabric:
    """Returns the fabric that joins devices of one type over one kind of link.

    Args:
        device: catalogue id, whose own measured curves are used when they were taken over the same
            kind of link.
        kind: link kind, e.g. "nvlink".
        bandwidth: B/s per device, one direction; curves measured at another bandwidth are scaled.
        latency: s, one way.
        peers: devices that the links of one are divided among, 0 behind a switch.
        own: what was measured on the link itself, in place of the device's: a table as the coefficients' files have it.
    """
    wires = _wires()
    known = wires["kinds"].get(kind, wires["kinds"]["other"])
    affine = {op: Affine(**row) for op, row in known["affine"].items()}
    own = _load(device) if own is None else own
    if own is None or own["kind"] != kind:
        # Fitted hops contain the latency of the links they were measured on; assumed ones do not.
        assumed = known["origin"] == "assumed"
        rounds = ("direct" if peers else known["rounds"]) if assumed else ""
        return Fabric(
            kind, bandwidth, latency if assumed else 0.0, affine, peers=peers if assumed else 0, rounds=rounds,
            kind_of=known["origin"], spread=known["spread"], source=known["source"],
        )  # fmt: skip
    size = np.array(own["size"], dtype=np.float64)
    curves = {
        op: {int(n): Curve(size[: len(t)], np.array(t, dtype=np.float64) * 1e-6) for n, t in rows.items()}
        for op, rows in own["curves"].items()
    }
    affine |= {op: Affine(**row) for op, row in own["affine"].items()}
    return Fabric(
        kind, bandwidth, 0.0, affine, curves, own["bandwidth"],
        kind_of="measured", spread=own["spread"], source=own["source"],
    )  # fmt: skip


def _read(size: Array, curve: Curve, slower: float) -> Array:
    """Curve at ``size``; what lies above its floor is ``slower`` times slower."""
    x, y = np.log(curve.size), np.log(curve.time)
    inside = np.exp(np.interp(np.log(np.maximum(size, curve.size[0])), x, y))
    beyond = np.maximum(size / curve.size[-1], 1.0)
    floor = curve.time[0]
    return np.asarray(floor + (inside * beyond - floor) * slower)


@lru_cache(maxsize=1)
def _wires() -> dict[str, Any]:
    content = _load("wires")
    assert content is not None
    return content


@lru_cache(maxsize=64)
def _load(name: str) -> dict[str, Any] | None:
    path = _FOLDER / f"{name}.links.toml"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return tomllib.load(file)
