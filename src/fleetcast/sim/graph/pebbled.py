"""Whether a schedule of tasks keeps within the devices' memories: its tasks and messages as moves of a pebble game.

Processors are memories: workers of one node share theirs. Values are what tasks hand on; a task itself takes what it
needs beyond what it reads and writes while it runs. A message is a save, where it is the first of its data, and a load.
Moves stand in the order of the schedule's instants; data leave a memory after their last reader or message there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.cost.pebbling.bounds import Bound
from fleetcast.cost.pebbling.check import Proof, prove
from fleetcast.cost.pebbling.dag import Dag
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Move, game
from fleetcast.sim.graph.setting import DEFAULT, Setting
from fleetcast.sim.graph.world import play

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.cost.graphs.schedule import Schedule
    from fleetcast.scenario.workload.graphs import TaskGraph

MOST = 200_000
"""Tasks and edges up to which a schedule is played and proven: some seconds."""
FINISH, FREE, SEND, START = range(4)
"""What happens first at one instant: data are made, what nobody reads leaves, messages begin, tasks begin."""
When = tuple[float, int, int, int]


def proof(state: Setting) -> Proof | None:
    """Returns what is known of the schedule of a scenario's plan, HEFT's where it names no order.

    Raises:
        FleetcastError: the plan cannot be played.
    """
    if len(state.graph) + state.graph.edges > MOST:
        return None
    named = state.scenario.plan.orders
    schedule = play(state.graph, state.platform, state.policy(named[0] if named else DEFAULT))
    return proven(state.graph, state.platform, schedule, state.lower_bound)


def proven(graph: TaskGraph, platform: Platform, schedule: Schedule, least: float) -> Proof:
    """Returns what is known of a schedule.

    Args:
        graph: the tasks.
        platform: the workers.
        schedule: what runs where and when.
        least: s that no schedule beats: cost and bound are those of the graph's world, in which messages and tasks
            overlap.
    """
    dag, moves, memories = pebbles(graph, platform, schedule)
    first = [int(np.argmax(platform.node == node)) for node in np.unique(platform.node)]
    of = game(
        dag, red=memories, g=0.0, processors=len(memories), timing="asynchronous", unit="s",
        about="tasks and messages", players=[platform.workers[w] for w in first],
    )  # fmt: skip
    found = prove(of, moves, Bound(least, "work and longest way", {"work and longest way": least}))
    cost = schedule.makespan
    gap = cost / least - 1.0 if least > 0 else 0.0 if cost == 0 else float("inf")
    return replace(found, cost=cost, gap=gap)


def pebbles(graph: TaskGraph, platform: Platform, schedule: Schedule) -> tuple[Dag, list[Move], list[float]]:
    """Returns the values, the schedule's moves, and the size of each memory, B."""
    n, data = len(graph), graph.data
    parent, child, datum = (x.tolist() for x in (graph.parent_of_edge, graph.child, graph.datum))
    sizes = np.zeros(data)
    np.maximum.at(sizes, graph.datum, graph.size)
    made = [-1] * data  # by which task
    reads: list[dict[int, None]] = [{} for _ in range(n)]
    writes: list[dict[int, None]] = [{} for _ in range(n)]
    for p, c, d in zip(parent, child, datum, strict=True):
        made[d] = p
        reads[c][d] = None
        writes[p][d] = None
    # Nodes: inputs of tasks, tasks, data, results.
    inputs = {int(i): at for at, i in enumerate(np.flatnonzero(graph.inputs > 0))}
    task, first = len(inputs), len(inputs) + n
    result = first + data
    ends = [i for i in range(n) if not writes[i]]
    parents: list[tuple[int, ...]] = [()] * len(inputs)
    parents += [(*([inputs[i]] if i in inputs else []), *(first + d for d in reads[i])) for i in range(n)]
    parents += [(task + made[d],) for d in range(data)] + [(task + i,) for i in ends]
    need, given = graph.memory.tolist(), graph.inputs.tolist()
    of_data = sizes.tolist()
    own = [
        max(0.0, need[i] - given[i] - sum(of_data[d] for d in reads[i]) - sum(of_data[d] for d in writes[i]))
        for i in range(n)
    ]
    # A task that reads nothing is no input: it waits for the start, which weighs nothing.
    start = result + len(ends)
    parents = [some or (start,) if task <= v < first else some for v, some in enumerate(parents)] + [()]
    size = [given[i] for i in inputs] + own + of_data + [0.0] * (len(ends) + 1)
    names = (
        *(f"input of {graph.names[i]}" for i in inputs), *graph.names,
        *(f"data {d} of {graph.names[made[d]]}" for d in range(data)), *(f"result of {graph.names[i]}" for i in ends),
        "start",
    )  # fmt: skip
    dag = Dag(tuple(parents), (0.0,) * len(parents), tuple(size), names)
    results = {i: result + at for at, i in enumerate(ends)}
    nodes, at_node = np.unique(platform.node, return_inverse=True)
    memories = [float(platform.memory[platform.node == node].max()) for node in nodes]
    total = float(sum(size))
    memories = [min(memory, 2.0 * total + 1.0) for memory in memories]  # some say nothing: as much as there is
    return dag, _moves(graph, schedule, at_node, reads, writes, made, inputs, results, (task, first, start)), memories


def _moves(
    graph: TaskGraph, schedule: Schedule, at_node: NDArray[np.intp], reads: list[dict[int, None]],
    writes: list[dict[int, None]], made: list[int], inputs: dict[int, int], results: dict[int, int],
    at: tuple[int, int, int],
) -> list[Move]:  # fmt: skip
    """Returns the moves by the instants of the schedule."""
    task, first, start = at
    place = at_node[schedule.worker].tolist()
    begin, end = schedule.start.tolist(), schedule.finish.tolist()
    rank = np.empty(len(graph), np.int64)
    rank[graph.order] = np.arange(len(graph))
    turn = rank.tolist()

    def when(t: float, what: int, i: int) -> When:
        # A task of no length begins and ends within the instant, after what ends there and before its children begin.
        return (t, START, turn[i], what + 1) if begin[i] == end[i] else (t, what, turn[i], 0)

    events: list[tuple[When, int, Move]] = []
    last: dict[tuple[int, int], When] = {}
    held: set[tuple[int, int]] = set()

    def put(key: When, move: Move) -> None:
        events.append((key, len(events), move))

    def used(p: int, v: int, key: When) -> None:
        if (p, v) not in last or last[p, v] < key:
            last[p, v] = key

    sent = schedule.messages
    saved: set[int] = set()
    columns = (sent.begin, sent.end, sent.edge, sent.source, sent.target)
    rows = sorted(zip(*(column.tolist() for column in columns), strict=True))
    for t, until, edge, source, target in rows:
        p, q = int(at_node[source]), int(at_node[target])
        if edge >= graph.edges:
            i = edge - graph.edges
            put((t, SEND, 0, 0), (LOAD, q, inputs[i]))
            held.add((q, inputs[i]))
            continue
        d = int(graph.datum[edge])
        key = (t, START, turn[made[d]], 3) if t == end[made[d]] == begin[made[d]] else (t, SEND, 0, 0)
        if d not in saved:
            saved.add(d)
            put(key, (SAVE, p, first + d))
        if (q, first + d) not in held and q != p:
            held.add((q, first + d))
            put(key, (LOAD, q, first + d))
            used(q, first + d, (until, FREE, 0, 0))
        used(p, first + d, (until, FREE, 0, 0))
    for i in range(len(graph)):
        p, go, done = place[i], when(begin[i], START, i), when(end[i], FINISH, i)
        free = when(end[i], FREE, i) if begin[i] < end[i] else (end[i], START, turn[i], 5)
        if i in inputs and (p, inputs[i]) not in held:
            put((begin[i], SEND, 0, 0), (LOAD, p, inputs[i]))
        bare = not reads[i] and i not in inputs
        if bare:
            put((go[0], START, turn[i], 0), (LOAD, p, start))
        put((go[0], START, turn[i], 1), (COMPUTE, p, task + i))
        if bare:
            put((go[0], START, turn[i], 1), (DELETE, p, start))
        done = (end[i], START, turn[i], 2) if begin[i] == end[i] else done
        for d in writes[i]:
            put(done, (COMPUTE, p, first + d))
            used(p, first + d, free)
        if i in results:
            put(done, (COMPUTE, p, results[i]))
            put(done, (SAVE, p, results[i]))
            put(done, (DELETE, p, results[i]))
        put(free, (DELETE, p, task + i))
        for d in reads[i]:
            used(p, first + d, free)
        if i in inputs:
            put(free, (DELETE, p, inputs[i]))
    for (p, v), key in last.items():
        put(key, (DELETE, p, v))
    events.sort()
    return [move for _, _, move in events]
