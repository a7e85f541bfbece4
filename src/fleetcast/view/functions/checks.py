"""What is wrong or doubtful about a scenario of functions, said before anything is played.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fleetcast.base.show import show
from fleetcast.scenario.kinds.functions import GOALS
from fleetcast.scenario.load import FunctionsScenario
from fleetcast.sim.functions.setting import Setting, setting
from fleetcast.view.checking import checked, unknown, unpriced
from fleetcast.view.checks import Remark

FULL = 0.95
"""Mean fill by running pods alone above which nodes hardly ever keep a pod warm."""


def remarks(scenario: FunctionsScenario) -> list[Remark]:
    """Returns what every check finds, errors first."""
    return checked(lambda: setting(scenario), CHECKS, "workload.invocations")


def check_plan(state: Setting) -> Iterator[Remark]:
    """Every policy of the plan is known, and money can be counted where it is minimised."""
    plan = state.scenario.plan
    yield from unknown(plan.scales, state.scale, "plan.scale")
    yield from unknown(plan.routes, state.route, "plan.route")
    yield from unpriced(state.scenario.objective.goals(GOALS, {}), (site.group for site in state.sites))


def check_room(state: Setting) -> Iterator[Remark]:
    """Where nodes can fill up, running pods leave room for warm ones."""
    if not state.scenario.plan.routes:
        return
    trace = state.trace
    ran = np.add.reduceat(np.append(trace.duration, 0.0), trace.first[:-1]) * (np.diff(trace.first) > 0)
    for r, site in enumerate(state.sites):
        held = float((ran * trace.memory)[trace.region == r].sum()) / trace.span
        room = site.group.count * site.group.device.memory
        if held > FULL * room:
            yield Remark(
                "warning", f"fleet: {site.group.name}",
                f"running pods of region {site.name} hold {show(held, 'B')} on average, and its nodes have "
                f"{show(room, 'B')}: requests queue", "Add nodes, or route across regions",
            )  # fmt: skip


def check_regions(state: Setting) -> Iterator[Remark]:
    """Every region is invoked."""
    used = np.bincount(state.trace.region, np.diff(state.trace.first), len(state.sites))
    for site, count in zip(state.sites, used.tolist(), strict=True):
        if not count:
            yield Remark(
                "warning", f"workload.regions: {site.name}", "is never invoked by the trace", "Leave it out, unless "
                "a route sends requests to it",
            )  # fmt: skip


Check = Callable[[Setting], Iterator[Remark]]
CHECKS: tuple[Check, ...] = (check_plan, check_room, check_regions)
