"""Runs flows over shared links: whenever one starts or ends, all rates are shared out anew; between, nothing changes.

Flows come in groups; a group starts when the groups it waits for are done and its latency has passed. What is left of a
flow falls linearly between events, so finish times are exact. Flows with the same links, size and group are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.steps import Block, Step, load
from fleetcast.cost.collectives.topology import Topology
from fleetcast.sim.network.flows import Floats, Ints, max_min


@dataclass(frozen=True, eq=False)
class Group:
    """Flows that start at once.

    Attributes:
        size: (n,) bytes.
        flow: (m,) with ``link``: which flow crosses which link.
        link: (m,).
        after: groups that must be done before.
        wait: s between that and the start.
        rest: s between the end of the last flow and when the group counts as done.
    """

    size: Floats
    flow: Ints
    link: Ints
    after: tuple[int, ...] = ()
    wait: float = 0.0
    rest: float = 0.0


@dataclass(frozen=True, eq=False)
class Run:
    """What happened.

    Attributes:
        start: (groups,) s when each group's flows started.
        done: (groups,) s when each was done.
        carried: (links,) bytes over each link.
        events: how often rates were shared out.
    """

    start: Floats
    done: Floats
    carried: Floats
    events: int

    @property
    def time(self) -> float:
        """S until all is done."""
        return float(self.done.max(initial=0.0))


def simulate(groups: Sequence[Group], capacity: Floats) -> Run:
    """Returns when groups of flows are done.

    Args:
        groups: each after those it waits for.
        capacity: (links,) B/s.

    Raises:
        SpecError: a link without capacity, a negative size, or a group that waits for itself or a later one.
    """
    if not np.all(capacity > 0):
        raise SpecError("capacity", "cannot be", value=float(np.min(capacity)), limit="B/s above 0 on each link")
    for i, group in enumerate(groups):
        if any(not 0 <= j < i for j in group.after):
            raise SpecError(f"groups[{i}].after", "names no earlier group", value=group.after, limit=f"0 to {i - 1}")
        if not np.all(group.size >= 0):
            raise SpecError(f"groups[{i}].size", "cannot be", value=float(group.size.min()), limit="bytes, at least 0")
    lean = [_gathered(group) for group in groups]
    count = len(groups)
    start, done = np.full(count, np.inf), np.full(count, np.inf)
    waiting = {i: set(group.after) for i, group in enumerate(groups)}
    pending = {i: group.wait for i, group in enumerate(groups) if not group.after}  # group -> when it starts
    ending: dict[int, float] = {}  # group -> when it is done
    carried = np.zeros(len(capacity))
    active: dict[int, Floats] = {}  # group -> what is left of its flows
    now, events = 0.0, 0
    while pending or ending or active:
        rates = _rates(lean, active, capacity)
        events += 1
        finish = min((_soonest(active[i], rates[i]) for i in active), default=np.inf)
        ahead = min(min(pending.values(), default=np.inf), min(ending.values(), default=np.inf)) - now
        step = max(min(finish, ahead), 0.0)
        for i in active:
            most = np.where(rates[i] < np.inf, rates[i], 0.0) * step
            # what ends now ends to the last byte, whatever rounding left; without links, at once
            ends = (active[i] <= most * (1.0 + 1e-12)) | (rates[i] == np.inf)
            moved = np.where(ends, active[i], most)
            active[i] = active[i] - moved
            flow, link, weight = lean[i].flow, lean[i].link, lean[i].weight
            carried += np.bincount(link, (moved * weight)[flow], len(capacity))
        now = now + step
        for i in [i for i, left in active.items() if not np.any(left > 0)]:
            del active[i]
            ending[i] = now + groups[i].rest
        for i in [i for i, when in pending.items() if when <= now]:
            start[i] = pending.pop(i)
            active[i] = lean[i].size.copy()
        for i in [i for i, when in ending.items() if when <= now]:
            done[i] = ending.pop(i)
            for j in [j for j, missing in waiting.items() if i in missing]:
                waiting[j].discard(i)
                if not waiting[j]:
                    pending[j] = float(done[i]) + groups[j].wait
    return Run(start, done, carried, events)


@dataclass(frozen=True, eq=False)
class _Lean:
    """A group whose equal flows are one."""

    size: Floats
    weight: Floats
    flow: Ints
    link: Ints


def _gathered(group: Group) -> _Lean:
    order = np.lexsort((group.link, group.flow))
    flow, link = group.flow[order], group.link[order]
    ends = np.searchsorted(flow, np.arange(len(group.size) + 1))
    links = link.tolist()
    ways = [(size, *links[a:b]) for size, (a, b) in zip(group.size.tolist(), pairwise(ends.tolist()), strict=True)]
    kinds: dict[tuple[float, ...], int] = {}
    for way in ways:
        kinds[way] = kinds.get(way, 0) + 1
    size = np.array([way[0] for way in kinds], dtype=np.float64)
    index = np.repeat(np.arange(len(kinds)), [len(way) - 1 for way in kinds])
    crossed = np.array([int(x) for way in kinds for x in way[1:]], dtype=np.int64)
    return _Lean(size, np.array(list(kinds.values()), dtype=np.float64), index, crossed)


def _rates(lean: Sequence[_Lean], active: Mapping[int, Floats], capacity: Floats) -> dict[int, Floats]:
    """Returns the rate of each flow of the groups at work."""
    flows, links, weights, offset = [], [], [], 0
    for i, left in active.items():
        some = left > 0
        at_work = some[lean[i].flow]
        flows.append(lean[i].flow[at_work] + offset)
        links.append(lean[i].link[at_work])
        weights.append(lean[i].weight)
        offset += len(left)
    if not flows:
        return {}
    rate = max_min(np.concatenate(flows), np.concatenate(links), offset, capacity, np.concatenate(weights))
    found, offset = {}, 0
    for i, left in active.items():
        found[i] = rate[offset : offset + len(left)]
        offset += len(left)
    return found


def _soonest(left: Floats, rate: Floats) -> float:
    some = left > 0
    return float((left[some] / rate[some]).min()) if some.any() else 0.0


def groups_of(block: Block, topology: Topology, cell: float, p: Parameters) -> list[Group]:
    """Returns the groups of an all-reduce: each turn waits for the one before, blocks for those inside them.

    Args:
        block: its reduce-scatter.
        topology: over what.
        cell: bytes of a cell.
        p: GenModel's: alpha passes before the flows of a round, adding and memory after them.
    """
    found: list[Group] = []

    def add(step: Step, after: tuple[int, ...]) -> tuple[int, ...]:
        for turn in step.each():
            which, links = topology.crossed(turn.source, turn.target)
            asked = load(turn, topology)
            size = np.asarray((turn.stop - turn.start) * cell, dtype=np.float64)
            busy = cell * float((asked.added * p.gamma + asked.moved * p.delta).max())
            found.append(Group(size, which, links, after, p.alpha + asked.wait, busy))
            after = (len(found) - 1,)
        return after

    def there(inside: Block) -> tuple[int, ...]:
        after = tuple(i for b in inside.before for i in there(b))
        for step in inside.steps:
            after = add(step, after)
        return after

    def back(inside: Block, after: tuple[int, ...]) -> None:
        for step in reversed(inside.steps):
            after = add(step.backwards(), after)
        for b in inside.before:
            back(b, after)

    back(block, there(block))
    return found


def all_reduce(block: Block, topology: Topology, cell: float, p: Parameters) -> Run:
    """Returns how an all-reduce runs over shared links.

    Args:
        block: its reduce-scatter.
        topology: over what.
        cell: bytes of a cell.
        p: GenModel's; incast is left out, since sharing is what flows know of it.
    """
    capacity = 1.0 / (p.beta * np.concatenate([topology.slow, topology.slow]))
    return simulate(groups_of(block, topology, cell, p), capacity)
