"""An iteration on groups that differ: pipelines cross between them, as `policy.place` says.

Each group costs its own layers (`cost.training`, on its own devices and links); the pipeline runs as events, for stages
differ in length and a message may cross the slow link; copies of a stage add up their gradients on their own network,
all stages at once, so the slowest is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.cost.collectives import collective_time
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.cost.training.system import System
from fleetcast.policy.place import Placement, Policy, View
from fleetcast.scenario.fleet.tree import Group, Tree
from fleetcast.sim.training.orders import one_forward_one_backward
from fleetcast.sim.training.pipeline import Stage, run

_ONCE = ("data_comm", "weight_gather", "optimizer", "offload")
"""Terms of an iteration, not of a micro-batch."""


@dataclass(frozen=True)
class Pace:
    """What a group makes of one layer and of what surrounds them.

    Attributes:
        forward, backward: s of a layer for one micro-batch.
        once: s of an iteration for each layer: gradients, weights, optimizer.
        first, last: s that the first and the last stage add to a micro-batch.
        terms: s of one layer for one micro-batch by term.
    """

    forward: float
    backward: float
    once: float
    first: float
    last: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Mixed:
    """What happened.

    Attributes:
        placement: where the stages lay.
        time: s of the iteration.
        stages: s of each stage for one micro-batch.
        pipeline: s of the pipeline; the rest is adding up and the optimizer.
        terms: exposed seconds of the slowest stage by term; they sum to ``time``.
    """

    placement: Placement
    time: float
    stages: tuple[float, ...]
    pipeline: float
    terms: dict[str, float]


def held_by(groups: Sequence[Group], plans: Plans) -> tuple[int, ...] | None:
    """Returns how many stages each group holds, None where some do not divide or nothing is left over."""
    each = int(plans.tensor[0] * plans.data[0] * plans.context[0])
    counts = tuple(group.count // each for group in groups)
    whole = all(group.count % each == 0 for group in groups)
    return counts if whole and sum(counts) == int(plans.pipeline[0]) and min(counts) > 0 else None


def iterate(tree: Tree, network: Network, job: Job, plans: Plans, policy: Policy, stages: tuple[int, ...]) -> Mixed:
    """Returns an iteration.

    Args:
        tree: the fleet.
        network: the model.
        job: the batch.
        plans: one plan.
        policy: places stages.
        stages: that each group holds, from `held_by`.

    Raises:
        PolicyError: a placement that loses stages or layers.
    """
    own = [pace(network, job, plans, systems.of(group)) for group in tree.groups]
    view = View(
        stages, tuple(p.forward + p.backward for p in own), network.depth, tuple(p.first for p in own),
        tuple(p.last for p in own),
    )  # fmt: skip
    placement = policy.place(view)
    _check(policy, placement, view)
    if not placement.own_links:
        own = [pace(network, job, plans, shared(tree, group)) for group in tree.groups]
    return follow(tree, network, job, plans, placement, own)


def shared(tree: Tree, group: Group) -> System:
    """Returns a group's devices on the network that joins all groups."""
    join = min((link for link in tree.joins.values()), key=lambda link: link.bandwidth)
    return systems.of(replace(group, network=join))


def pace(network: Network, job: Job, plans: Plans, system: System) -> Pace:
    """Returns what one layer takes on a group, from an iteration of a stage of equal layers."""
    one = np.ones(1, dtype=np.int32)
    alone = replace(plans, interleave=one, schedule=one)
    times = {name: float(column[0]) for name, column in step(network, job, alone, system).items()}
    micro, held = float(alone.micro_batches(job.batch)[0]), float(np.ceil(network.depth / alone.pipeline[0]))
    outside = {"bubble", "head", "pipeline_comm", "total", *_ONCE}
    terms = {name: seconds / micro / held for name, seconds in times.items() if name not in outside}
    total = sum(terms.values())
    again = terms["recompute"]
    forward = (total - again) / 3.0
    once = sum(times[name] for name in _ONCE) / held
    return Pace(forward, total - forward, once, 0.0, times["head"] / micro, terms)


def follow(tree: Tree, network: Network, job: Job, plans: Plans, placement: Placement, paces: Sequence[Pace]) -> Mixed:
    """Returns an iteration under a placement."""
    micro = int(plans.micro_batches(job.batch)[0])
    stages = []
    for i, (group, layers) in enumerate(zip(placement.groups, placement.layers, strict=True)):
        p = paces[group]
        extra = p.first * (i == 0) + p.last * (i == len(placement.groups) - 1)
        stages.append(Stage(p.forward * layers + extra / 3.0, p.backward * layers + extra * 2.0 / 3.0))
    hops = [
        hop(tree, network, job, plans, tree.groups[a], tree.groups[b])
        for a, b in zip(placement.groups, placement.groups[1:], strict=False)
    ]  # fmt: skip
    happened = run(one_forward_one_backward(len(stages), micro), stages, hops)
    once = max(paces[g].once * layers for g, layers in zip(placement.groups, placement.layers, strict=True))
    lengths = tuple(stage.forward + stage.backward for stage in stages)
    slow = int(np.argmax(lengths))
    p, layers = paces[placement.groups[slow]], placement.layers[slow]
    terms = {name: seconds * layers * micro for name, seconds in p.terms.items()}
    terms["head"] = p.last * micro * (slow == len(stages) - 1)
    terms["data_comm"] = once
    terms["bubble"] = happened.time - sum(terms.values()) + once
    return Mixed(placement, happened.time + once, lengths, happened.time, terms)


def hop(tree: Tree, network: Network, job: Job, plans: Plans, a: Group, b: Group) -> float:
    """Returns s in which activations of one micro-batch go from a stage on one group to the next on another."""
    size = float(plans.micro_batch[0]) * job.sequence / float(plans.context[0]) * 2.0 * network.hidden
    if plans.sequence_parallel[0] or plans.tensor_messages[0]:
        size /= float(plans.tensor[0])
    if a.name == b.name:
        return float(collective_time("send", size, 2, systems.of(a).outer))
    link = tree.link_between(a, b)
    return size / link.bandwidth + link.latency


def _check(policy: Policy, placement: Placement, view: View) -> None:
    counts = tuple(placement.groups.count(group) for group in range(len(view.stages)))
    if counts != view.stages or sum(placement.layers) != view.layers or min(placement.layers) < 1:
        raise PolicyError(
            f"place '{policy.kind}' put {counts} stages of {placement.layers} layers where {view.stages} stages hold "
            f"{view.layers} layers, each at least one"
        )
