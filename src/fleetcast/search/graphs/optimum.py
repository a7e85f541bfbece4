"""The shortest makespan of a small graph, by constraint programming: what every order policy is held to.

One interval a task and worker that can run it, one of them present; one interval for every datum and pair of workers
between which it travels; no two that share a worker or a channel overlap (`cost.graphs.platform` states the rules).
Solved by CP-SAT (Perron and Furnon, OR-Tools), whose proof says how far from the best an answer can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import MissingExtra, SpecError

if TYPE_CHECKING:
    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs import TaskGraph

MOST_TASKS = 40
"""Beyond this many tasks the model is too large to be worth trying."""
_TICKS = 1_000_000
"""Parts into which the longest sensible schedule is cut; the answer is as fine as that."""


@dataclass(frozen=True)
class Optimum:
    """The best schedule found, and what none can beat.

    Attributes:
        makespan: s.
        bound: s; no schedule is shorter. Equal to the makespan within a tick where it is proven.
        proven: whether nothing is better.
        worker: of each task.
        begin: s, of each task.
    """

    makespan: float
    bound: float
    proven: bool
    worker: tuple[int, ...]
    begin: tuple[float, ...]


def optimum(graph: TaskGraph, platform: Platform, *, effort: float = 20.0, seed: int = 0) -> Optimum:
    """Returns the schedule of the least makespan.

    Durations are rounded to a millionth of the time that the quickest single worker takes for the whole graph.

    Args:
        graph: of at most `MOST_TASKS` tasks.
        platform: its workers and links.
        effort: CP-SAT's deterministic time, about seconds of one core.
        seed: of the search.

    Raises:
        MissingExtra: OR-Tools is absent.
        SpecError: too many tasks.
        Infeasible: a task fits no worker.
    """
    if len(graph) > MOST_TASKS:
        raise SpecError(
            "graph", "is too large for an exact schedule", value=f"{len(graph):,} tasks", limit=f"{MOST_TASKS} tasks",
            hint="Ask for the lower bound instead",
        )  # fmt: skip
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise MissingExtra("ortools", "solve") from None
    platform.check(graph)
    model = cp_model.CpModel()
    ticks = _Ticks(graph, platform)
    on, ends, begins = _tasks(model, graph, platform, ticks)
    _messages(model, graph, platform, ticks, on, begins, ends)
    span = model.new_int_var(0, ticks.horizon, "span")
    model.add_max_equality(span, ends)
    model.minimize(span)
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = effort
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise SpecError("effort", "was too little for any schedule", value=effort, hint="Give more")
    placed = tuple(next(w for w, b in row.items() if solver.boolean_value(b)) for row in on)
    return Optimum(
        solver.objective_value * ticks.tick, solver.best_objective_bound * ticks.tick, status == cp_model.OPTIMAL,
        placed, tuple(solver.value(b) * ticks.tick for b in begins),
    )  # fmt: skip


class _Ticks:
    """Seconds as whole numbers."""

    def __init__(self, graph: TaskGraph, platform: Platform) -> None:
        able = np.isfinite(platform.seconds[platform.kind]) & (graph.memory[None, :] <= platform.memory[:, None])
        self.seconds = np.where(able, platform.seconds[platform.kind], np.inf)
        whole = self.seconds.sum(1)
        # One worker for all where there is one, else every task where it is slowest, with its messages.
        apart = ~np.eye(len(platform), dtype=bool)
        slow = float((1.0 / platform.rate[apart]).max()) if apart.any() else 0.0
        late = float(platform.latency.max()) if apart.any() else 0.0
        worst = float(np.where(able, self.seconds, 0.0).max(0).sum())
        worst += late * (graph.edges + len(graph)) + slow * float(graph.size.sum() + graph.inputs.sum())
        usual = float(whole.min()) if np.isfinite(whole).any() else worst
        self.tick = max(usual, 1e-12) / _TICKS
        self.horizon = int(worst / self.tick) + len(graph) + graph.edges + 2

    def of(self, seconds: float) -> int:
        return round(seconds / self.tick)


def _tasks(model: Any, graph: TaskGraph, platform: Platform, ticks: _Ticks) -> tuple[list[dict[int, Any]], Any, Any]:
    """Puts each task on one worker; returns who is where, ends and begins."""
    on: list[dict[int, Any]] = []
    begins, ends = [], []
    lanes: list[list[Any]] = [[] for _ in platform.workers]
    for task in range(len(graph)):
        begin = model.new_int_var(0, ticks.horizon, f"b{task}")
        end = model.new_int_var(0, ticks.horizon, f"e{task}")
        row = {}
        for worker in range(len(platform)):
            if np.isfinite(ticks.seconds[worker, task]):
                row[worker] = model.new_bool_var(f"{task}@{worker}")
                lasts = ticks.of(float(ticks.seconds[worker, task]))
                lanes[worker].append(model.new_optional_interval_var(begin, lasts, end, row[worker], ""))
        model.add_exactly_one(row.values())
        on.append(row)
        begins.append(begin)
        ends.append(end)
    for lane in lanes:
        model.add_no_overlap(lane)
    for task in range(len(graph)):
        for child in graph.children(task).tolist():
            model.add(begins[child] >= ends[task])
    return on, ends, begins


def _messages(
    model: Any, graph: TaskGraph, platform: Platform, ticks: _Ticks, on: list[dict[int, Any]], begins: Any, ends: Any
) -> None:
    """Lets each datum travel once to every worker that reads it and has it not."""
    channels: dict[int, list[Any]] = {}

    def send(a: int, b: int, size: float, made: Any, present: Any) -> Any:
        lasts = ticks.of(float(platform.latency[a, b] + size / platform.rate[a, b]))
        begin = model.new_int_var(0, ticks.horizon, "")
        end = model.new_int_var(0, ticks.horizon, "")
        interval = model.new_optional_interval_var(begin, lasts, end, present, "")
        for channel in set(platform.channels[a, b].tolist()) - {-1}:
            channels.setdefault(channel, []).append(interval)
        if made is not None:
            model.add(begin >= made).only_enforce_if(present)
        return end

    readers: dict[int, list[int]] = {}
    size: dict[int, float] = {}
    for edge in range(graph.edges):
        datum = int(graph.datum[edge])
        readers.setdefault(datum, []).append(int(graph.child[edge]))
        size[datum] = max(size.get(datum, 0.0), float(graph.size[edge]))
    parent = {int(graph.datum[e]): int(graph.parent_of_edge[e]) for e in range(graph.edges)}
    for datum, tasks in readers.items():
        for a, here in on[parent[datum]].items():
            for b in range(len(platform)):
                wanting = [(task, on[task][b]) for task in tasks if b in on[task]]
                if a == b or not wanting:
                    continue
                present = model.new_bool_var("")
                end = send(a, b, size[datum], ends[parent[datum]], present)
                for task, there in wanting:
                    model.add_bool_or([here.negated(), there.negated(), present])
                    model.add(begins[task] >= end).only_enforce_if([here, there])
    home = platform.home
    for task in range(len(graph)):
        if home >= 0 and graph.inputs[task] > 0:
            for b, there in on[task].items():
                if b != home:
                    end = send(home, b, float(graph.inputs[task]), None, there)
                    model.add(begins[task] >= end).only_enforce_if(there)
    for intervals in channels.values():
        model.add_no_overlap(intervals)
