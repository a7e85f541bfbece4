"""What is wrong or doubtful about a graph scenario, said before anything is played.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fleetcast.base.show import show
from fleetcast.cost.graphs import bounds
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.scenario.load import GraphScenario
from fleetcast.sim.graph.setting import Setting, setting
from fleetcast.view.checking import checked, unknown, unpriced
from fleetcast.view.checks import Remark

NARROW = 0.5
"""A graph whose mean parallelism is below this share of the workers leaves most of them idle."""
HEAVY = 1.0
"""Moving all data once over the slowest link, against the work: above this, links bind."""


def remarks(scenario: GraphScenario) -> list[Remark]:
    """Returns what every check finds, errors first."""
    return checked(lambda: setting(scenario), CHECKS, "workload.graph")


def check_plan(state: Setting) -> Iterator[Remark]:
    """Every policy of the plan is known, and money can be counted where it is minimised."""
    yield from unknown(state.scenario.plan.orders, state.policy, "plan.order")
    yield from unpriced(state.scenario.objective.goals(GOALS, {}), state.tree.groups)


def check_width(state: Setting) -> Iterator[Remark]:
    """The graph keeps the fleet's workers busy: its work over its longest chain."""
    quickest = bounds.able_seconds(state.graph, state.platform).min(axis=0)
    chain = state.critical_path
    width = float(quickest.sum()) / chain if chain > 0 else float(len(state.graph))
    if width < NARROW * len(state.platform):
        yield Remark(
            "warning", "fleet", f"the graph keeps {width:.1f} of {len(state.platform):,} workers busy on average: its "
            f"longest chain takes {show(chain, 's')} however many there are", "Fewer, quicker devices end it as soon",
        )  # fmt: skip


def check_memory(state: Setting) -> Iterator[Remark]:
    """Every task fits every device that can run it."""
    platform, graph = state.platform, state.graph
    for kind, name in enumerate(platform.kinds):
        least = float(platform.memory[platform.kind == kind].min())
        count = int((np.isfinite(platform.seconds[kind]) & (graph.memory > least)).sum())
        if count:
            yield Remark(
                "warning", "workload.graph", f"{count:,} of {len(graph):,} tasks need more memory than a {name} has, "
                f"{show(least, 'B')}", "They run elsewhere; cut them into smaller tasks to use it",
            )  # fmt: skip


def check_parts(state: Setting) -> Iterator[Remark]:
    """A graph in several pieces, or tasks that stand alone, may be a reader's mistake."""
    graph = state.graph
    degree = np.diff(graph.first) + np.diff(graph.by_child[0])
    alone = int((degree == 0).sum())
    if alone and len(graph) > 1:
        yield Remark(
            "warning", "workload.graph", f"{alone:,} of {len(graph):,} tasks have neither parent nor child, such as "
            f"{graph.names[int(np.argmax(degree == 0))]}", "Are edges missing?",
        )  # fmt: skip


def check_links(state: Setting) -> Iterator[Remark]:
    """Links carry the graph's data in less time than its work takes."""
    platform, graph = state.platform, state.graph
    apart = platform.node[:, None] != platform.node[None, :]
    if not apart.any() or not graph.edges:
        return
    area = bounds.area(graph, platform)
    slowest = float(platform.rate[apart].min())
    takes = float(graph.size.sum()) / slowest / max(1, len(np.unique(platform.node)))
    if area > 0 and takes > HEAVY * area:
        yield Remark(
            "warning", "fleet.network", f"were all data moved, the slowest link, {show(slowest, 'B/s')}, would take "
            f"{show(takes, 's')} a device, and all work {show(area, 's')}: placement matters more than order",
            "Quicker links, larger tasks, or fewer devices",
        )  # fmt: skip


Check = Callable[[Setting], Iterator[Remark]]
CHECKS: tuple[Check, ...] = (check_plan, check_width, check_memory, check_parts, check_links)
