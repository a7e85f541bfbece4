"""Synthetic pods on equal nodes, as packing papers draw them: frozen, labelled, drawn from a seed.

Two kinds: pods that all differ (cpu and memory uniform on 100 to 1000, apart), which leave a greedy rule gaps that
others could fill; and replicas of a few deployments, where most greedy rules do about as well as can be done.
"""

from __future__ import annotations

import math

import numpy as np

from fleetcast.scenario.workload.pods.columns import Nodes, Pods


def distinct(nodes: int, per_node: int, usage: float, tiers: int, seed: int) -> tuple[Nodes, Pods]:
    """Returns pods of which cpu (thousandths of a core) and memory (MB) are uniform on 100 to 1000, tiers uniform."""
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 1001, (nodes * per_node, 2))
    return _assembled(nodes, size, rng.integers(0, tiers, len(size)), usage, None)


def deployments(
    nodes: int, per_node: int, usage: float, tiers: int, seed: int, *, kinds: int = 8
) -> tuple[Nodes, Pods]:  # fmt: skip
    """Returns replicas of deployments: each draws its size as above and a tier, each pod its deployment, uniformly."""
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 1001, (kinds, 2))
    which = rng.integers(0, kinds, nodes * per_node)
    return _assembled(nodes, size[which], rng.integers(0, tiers, kinds)[which], usage, which)


def sampled(nodes: Nodes, pods: Pods, count: int, usage: float, tiers: int, seed: int) -> tuple[Nodes, Pods]:
    """Returns nodes and pods drawn from real ones; tiers are drawn, uniformly, as no trace has them.

    Args:
        nodes: to draw from; those with devices, without repetition.
        pods: to draw from, with repetition.
        count: nodes.
        usage: devices that pods ask for as a share of those that the nodes have.
        tiers: priorities, 0 to this less one.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    with_devices = np.flatnonzero(nodes.devices > 0)
    chosen = np.sort(rng.choice(with_devices, size=count, replace=False))
    order = rng.integers(0, len(pods), 100 * count)
    asked = np.cumsum((pods.devices + pods.share)[order])
    order = order[: int(np.searchsorted(asked, usage * nodes.devices[chosen].sum())) + 1]
    m = len(order)
    return (
        Nodes(
            tuple(nodes.names[i] for i in chosen), nodes.cpu[chosen], nodes.memory[chosen], nodes.devices[chosen],
            tuple(nodes.models[i] for i in chosen), source=f"{nodes.source}, drawn",
        ),
        Pods(
            tuple(f"{pods.names[i]}.{k}" for k, i in enumerate(order.tolist())), pods.cpu[order], pods.memory[order],
            pods.devices[order], pods.share[order], rng.integers(0, tiers, m).astype(np.int32),
            np.arange(m, dtype=np.float64), np.full(m, np.inf),
            models=tuple(pods.models[i] for i in order.tolist()) if pods.models else (), source=f"{pods.source}, drawn",
        ),
    )  # fmt: skip


def _assembled(
    nodes: int, size: np.ndarray, tier: np.ndarray, usage: float, which: np.ndarray | None
) -> tuple[Nodes, Pods]:  # fmt: skip
    """Nodes are equal, and as large as the usage says, rounded up."""
    have = [math.ceil(total / usage / nodes) for total in size.sum(axis=0).tolist()]
    m = len(size)
    labels: tuple[dict[str, str], ...] = ()
    if which is None:
        names = tuple(f"pod-{i}" for i in range(m))
    else:
        apps = which.tolist()
        names = tuple(f"app{a}-{i}" for i, a in enumerate(apps))
        labels = tuple({"app": f"app{a}"} for a in apps)
    return (
        Nodes(
            tuple(f"node-{i}" for i in range(nodes)), np.full(nodes, have[0] / 1000), np.full(nodes, have[1] * 1e6),
            np.zeros(nodes, np.int32), ("",) * nodes, source="synthetic",
        ),
        Pods(
            names, size[:, 0] / 1000, size[:, 1] * 1e6, np.zeros(m, np.int32), np.zeros(m), tier.astype(np.int32),
            np.arange(m, dtype=np.float64), np.full(m, np.inf), labels=labels, source="synthetic",
        ),
    )  # fmt: skip
