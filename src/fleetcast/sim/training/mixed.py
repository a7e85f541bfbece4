"""An iteration on groups that differ: pipelines cross between them, as `policy.place.stages` says.

Groups differ in devices, in links, or in both. Each group costs its own layers (`cost.training`, on its own devices
and links); the pipeline runs as events, for stages differ in length and a message may cross the slow link; copies of a
stage add up their gradients on their own network, all stages at once, so the slowest is waited for. No stage lies on
devices of two kinds: where stages do not divide over the groups, all ranks are taken as the slowest (`setting.as_one`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.cost.collectives import collective_time
from fleetcast.cost.training import system as systems_of
from fleetcast.cost.training import unlike
from fleetcast.cost.training.energy import energy
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import TERMS
from fleetcast.cost.training.system import System
from fleetcast.cost.training.unlike import Array, Counts, Paces, paces
from fleetcast.policy.place.stages import Placement, Policy, View
from fleetcast.scenario.fleet.tree import Group, Tree
from fleetcast.sim.training.orders import one_forward_one_backward
from fleetcast.sim.training.pipeline import Iteration, Stage, run


@dataclass(frozen=True)
class Pace:
    """What a group makes of one layer and of what surrounds them, of one plan; see `cost.training.unlike.Paces`.

    Attributes:
        forward, backward: s of a layer for one micro-batch.
        once: s of an iteration for each layer: gradients, weights, optimizer.
        first, last: s that the first and the last stage add to a micro-batch.
        terms: s of one layer for one micro-batch by term.
        after: ``once`` by term.
    """

    forward: float
    backward: float
    once: float
    first: float
    last: float
    terms: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class Mixed:
    """What happened.

    Attributes:
        placement: where the stages lay.
        time: s of the iteration.
        stages: s of each stage for one micro-batch.
        pipeline: s of the pipeline; the rest is adding up and the optimizer.
        terms: exposed seconds of the slowest stage by term; they sum to ``time``.
        room: B of the fullest stage by term; ``fullest`` is its index.
        joules: of all devices by term, the facility's share aside.
        events: the pipeline's.
    """

    placement: Placement
    time: float
    stages: tuple[float, ...]
    pipeline: float
    terms: dict[str, float]
    room: dict[str, float] = field(default_factory=dict)
    fullest: int = 0
    joules: dict[str, float] = field(default_factory=dict)
    events: Iteration | None = field(default=None, repr=False)


def held_by(groups: Sequence[Group], plans: Plans) -> tuple[int, ...] | None:
    """Returns how many stages each group holds, None where some do not divide or nothing is left over."""
    each = int(plans.tensor[0] * plans.data[0] * plans.context[0])
    counts = tuple(group.count // each for group in groups)
    whole = all(group.count % each == 0 for group in groups)
    return counts if whole and sum(counts) == int(plans.pipeline[0]) and min(counts) > 0 else None


def iterate(
    tree: Tree, network: Network, job: Job, plans: Plans, policy: Policy, stages: tuple[int, ...],
    own: Sequence[System] = (),
) -> Mixed:  # fmt: skip
    """Returns an iteration.

    Args:
        tree: the fleet.
        network: the model.
        job: the batch.
        plans: one plan.
        policy: places stages.
        stages: that each group holds, from `held_by`.
        own: each group's devices on its own network; () = as the catalogue has them.

    Raises:
        PolicyError: a placement that loses stages or layers.
    """
    systems = list(own) or [systems_of.of(group) for group in tree.groups]
    found = [pace(network, job, plans, system) for system in systems]
    rooms = tuple(
        tuple(int(unlike.most_layers(network, job, plans, system, position)[0]) for position in range(sum(stages)))
        for system in systems
    )
    view = View(
        stages, tuple(p.forward + p.backward for p in found), network.depth, tuple(p.first for p in found),
        tuple(p.last for p in found), rooms, tuple(p.once for p in found), int(plans.micro_batches(job.batch)[0]),
    )  # fmt: skip
    placement = policy.place(view)
    _check(policy, placement, view)
    if not placement.own_links:
        systems = [on_join(tree, group, system) for group, system in zip(tree.groups, systems, strict=True)]
        found = [pace(network, job, plans, system) for system in systems]
    happened = follow(tree, network, job, plans, placement, found, systems)
    groups, layers = np.asarray([placement.groups]), np.asarray([placement.layers])
    room, _, stage = unlike.fullest(network, job, plans, groups, layers, systems)
    columns = [paces(network, job, plans, system) for system in systems]
    joules = drawn(
        tree, network, job, plans, groups, layers, columns, systems, np.asarray([happened.time])
    )  # fmt: skip
    return replace(
        happened, room={name: float(column[0]) for name, column in room.items()}, fullest=int(stage[0]),
        joules={name: float(column[0]) for name, column in joules.items()},
    )  # fmt: skip


def shared(tree: Tree, group: Group) -> System:
    """Returns a group's devices on the network that joins all groups."""
    return on_join(tree, group, systems_of.of(group))


def on_join(tree: Tree, group: Group, system: System) -> System:
    """Returns ``system``, of a group's devices, on the network that joins all groups."""
    join = min((link for link in tree.joins.values()), key=lambda link: link.bandwidth)
    return replace(system, outer=systems_of.of(replace(group, network=join)).outer)


def pace(network: Network, job: Job, plans: Plans, system: System) -> Pace:
    """Returns what one layer takes on a group, from an iteration of a stage of equal layers."""
    found = paces(network, job, plans, system)
    once = {name: float(column[0]) for name, column in found.once.items()}
    return Pace(
        float(found.forward[0]), float(found.backward[0]), sum(once.values()), 0.0, float(found.last[0]),
        {name: float(column[0]) for name, column in found.terms.items()}, once,
    )  # fmt: skip


def follow(
    tree: Tree, network: Network, job: Job, plans: Plans, placement: Placement, paces: Sequence[Pace],
    own: Sequence[System] = (),
) -> Mixed:  # fmt: skip
    """Returns an iteration under a placement."""
    micro = int(plans.micro_batches(job.batch)[0])
    systems = own or [systems_of.of(group) for group in tree.groups]
    stages = []
    for i, (group, layers) in enumerate(zip(placement.groups, placement.layers, strict=True)):
        p = paces[group]
        extra = p.first * (i == 0) + p.last * (i == len(placement.groups) - 1)
        stages.append(Stage(p.forward * layers + extra / 3.0, p.backward * layers + extra * 2.0 / 3.0))
    hops = [
        float(hop(tree, network, job, plans, tree.groups[a], tree.groups[b], systems[a])[0])
        for a, b in zip(placement.groups, placement.groups[1:], strict=False)
    ]  # fmt: skip
    happened = run(one_forward_one_backward(len(stages), micro), stages, hops)
    last = max(
        zip(placement.groups, placement.layers, strict=True), key=lambda place: paces[place[0]].once * place[1]
    )  # fmt: skip
    once = paces[last[0]].once * last[1]
    lengths = tuple(stage.forward + stage.backward for stage in stages)
    slow = int(np.argmax(lengths))
    p, layers = paces[placement.groups[slow]], placement.layers[slow]
    terms = {name: seconds * layers * micro for name, seconds in p.terms.items()}
    terms["head"] = p.last * micro * (slow == len(stages) - 1)
    terms["bubble"] = happened.time - sum(terms.values())
    terms |= {name: seconds * last[1] for name, seconds in paces[last[0]].after.items()}
    return Mixed(placement, happened.time + once, lengths, happened.time, terms, events=happened)


def hop(tree: Tree, network: Network, job: Job, plans: Plans, a: Group, b: Group, system: System) -> Array:
    """Returns s in which activations of one micro-batch go from a stage on one group to the next on another.

    Args:
        tree: the fleet.
        network: the model.
        job: the batch.
        plans: columns.
        a: the group that sends.
        b: the group that receives.
        system: of ``a``, on whose network they go where both are one.
    """
    size = plans.micro_batch * (job.sequence / plans.context) * 2.0 * network.hidden
    scattered = (plans.sequence_parallel == 1) | (plans.tensor_messages > 0)
    size = np.where(scattered, size / plans.tensor, size)
    if a.name == b.name:
        return np.asarray(collective_time("send", size, 2, system.outer))
    link = tree.link_between(a, b)
    return np.asarray(size / link.bandwidth + link.latency)


def stage_seconds(found: Sequence[Paces], groups: Counts, layers: Counts) -> tuple[Array, Array]:
    """Returns s of each stage's forward and backward pass of one micro-batch, f8[plans, stages]."""
    rows = np.arange(len(groups))[:, None]
    ahead, back, head = (np.stack([getattr(p, name) for p in found]) for name in ("forward", "backward", "last"))
    forward: Array = ahead[groups, rows] * layers
    backward: Array = back[groups, rows] * layers
    last = head[groups[:, -1], rows[:, 0]]
    forward[:, -1] += last / 3.0
    backward[:, -1] += last * 2.0 / 3.0
    return forward, backward


def afterwards(found: Sequence[Paces], groups: Counts, layers: Counts) -> Array:
    """Returns s after the pipeline: all stages at once add up gradients and move weights; the slowest is waited for."""
    once = np.stack([p.after for p in found])
    return np.asarray((once[groups, np.arange(len(groups))[:, None]] * layers).max(axis=1))


def drawn(
    tree: Tree, network: Network, job: Job, plans: Plans, groups: Counts, layers: Counts, found: Sequence[Paces],
    systems: Sequence[System], time: NDArray[np.float64],
) -> dict[str, Array]:  # fmt: skip
    """Returns joules of all devices by term: each group's own, from its mean stage's work and what it waits."""
    micro = plans.micro_batches(job.batch).astype(np.float64)
    total: dict[str, Array] = {}
    for i, (group, p, system) in enumerate(zip(tree.groups, found, systems, strict=True)):
        mine = groups == i
        stages = np.maximum(mine.sum(axis=1), 1)
        held = (layers * mine).sum(axis=1) / stages
        times = {name: np.zeros(len(plans)) for name in TERMS}
        times |= {name: seconds * held * micro for name, seconds in p.terms.items()}
        times["head"] = np.where(groups[:, -1] == i, p.last * micro / stages, 0.0)
        times |= {name: seconds * held for name, seconds in p.once.items()}
        times["bubble"] = np.maximum(time - sum(times.values(), np.zeros(len(plans))), 0.0)
        times["total"] = time
        part = held * plans.pipeline / network.depth
        spent = energy(
            network, job, plans, system, times, group.device.power.idle, group.limit, part
        )  # fmt: skip
        share = group.count / plans.devices
        for name, joules in spent.items():
            total[name] = total.get(name, np.zeros(len(plans))) + joules * share
    return total


def _check(policy: Policy, placement: Placement, view: View) -> None:
    counts = tuple(placement.groups.count(group) for group in range(len(view.stages)))
    if counts != view.stages or sum(placement.layers) != view.layers or min(placement.layers) < 1:
        raise PolicyError(
            f"place '{policy.kind}' put {counts} stages of {placement.layers} layers where {view.stages} stages hold "
            f"{view.layers} layers, each at least one"
        )
