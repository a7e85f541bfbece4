"""Every way to lay the nodes of two clusters out on the stages of a pipeline, against `policy.place.stages.NicAware`.

Any node may go to any stage; a stage with nodes of both clusters talks over the link that they share. Layers are dealt
so that the longest stage is as short as can be.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from fleetcast.cost.collectives import collective_time
from fleetcast.cost.training import network as networks
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.system import System
from fleetcast.policy.place.stages import NicAware, Policy, View
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.fleet.spec import Fleet, FleetGroup
from fleetcast.scenario.fleet.tree import Tree, resolve
from fleetcast.scenario.workload.training import Shape
from fleetcast.sim.training.mixed import Pace, held_by, iterate, pace, shared
from fleetcast.sim.training.orders import one_forward_one_backward
from fleetcast.sim.training.pipeline import Stage, run

CASES = ((2, 2, 1, 2), (2, 2, 8, 4), (4, 4, 8, 4), (6, 2, 8, 4), (8, 8, 8, 4))
"""(nodes of one cluster, of the other, tensor-parallel ranks, stages); at most 16 nodes."""
LAYERS, HIDDEN, SEQUENCE, BATCH = 16, 4096, 2048, 256


def tree_of(*groups: tuple[str, int, str], network: str = "ethernet-25g") -> Tree:
    """Returns a fleet of groups (name, nodes, network between them) of eight A100s a node."""
    return resolve(
        Fleet(
            network=network,
            groups=tuple(
                FleetGroup(name=name, link=link, groups=(FleetGroup(count=count, devices="8x a100-80g-sxm"),))
                for name, count, link in groups
            ),
        )
    )


def kinds_of(tree: Tree) -> list[System]:
    """Returns the systems of stages on the first cluster, on the second, and on both."""
    return [systems.of(tree.groups[0]), systems.of(tree.groups[1]), shared(tree, tree.groups[1])]


def excess(a: int, b: int, tensor: int, pipeline: int, policy: Policy | None = None) -> float | None:
    """Returns by which share the rule's iteration, or another policy's, is longer than the shortest of all.

    None = the stages do not divide over the clusters, so that the rule has no placement.
    """
    tree = tree_of(("ib", a, "infiniband-hdr"), ("roce", b, "roce-100g"))
    net, job = networks.of(Shape(layers=LAYERS, hidden=HIDDEN, heads=32).model(SEQUENCE)), Job(SEQUENCE, BATCH)
    data, each = 8 * (a + b) // tensor // pipeline, (a + b) // pipeline
    one = plans(tensor=tensor, pipeline=pipeline, data=data, micro_batch=1, zero=1, overlap=("data",))
    stages = held_by(tree.groups, one)
    if stages is None:
        return None
    own = [pace(net, job, one, system) for system in kinds_of(tree)]
    size = SEQUENCE * 2.0 * HIDDEN
    near = [float(collective_time("send", size, 2, system.outer)) for system in kinds_of(tree)]
    best = float("inf")
    for taken in itertools.product(range(each + 1), repeat=pipeline):
        if sum(taken) != a:
            continue
        kinds = [0 if n == each else 1 if n == 0 else 2 for n in taken]
        seconds = tuple(own[kind].forward + own[kind].backward for kind in kinds)
        view = View((1,) * pipeline, seconds, LAYERS, (0.0,) * pipeline, tuple(own[k].last for k in kinds))
        layers = NicAware().place(view).layers
        best = min(best, timed(BATCH // data, kinds, layers, own, near, tree.link_between(*tree.groups), size))
    return float(iterate(tree, net, job, one, policy or NicAware(), stages).time / best - 1.0)


def timed(
    micro: int, kinds: Sequence[int], layers: Sequence[int], own: Sequence[Pace], near: Sequence[float], slow: Link,
    size: float,
) -> float:  # fmt: skip
    """Returns an iteration, written out again: stages of kind 0, 1 or 2 (both), the slow link where kinds differ."""
    stages = [
        Stage(own[k].forward * n + own[k].last / 3 * last, own[k].backward * n + own[k].last * 2 / 3 * last)
        for k, n, last in zip(kinds, layers, [0] * (len(kinds) - 1) + [1], strict=True)
    ]
    far = size / slow.bandwidth + slow.latency
    hops = [near[a] if a == b < 2 else far for a, b in itertools.pairwise(kinds)]
    once = max(own[k].once * n for k, n in zip(kinds, layers, strict=True))
    return run(one_forward_one_backward(len(kinds), micro), stages, hops).time + once
