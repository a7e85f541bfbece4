"""What is wrong or doubtful about a scenario of many jobs, said before anything is played.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fleetcast.base.show import show
from fleetcast.scenario.kinds.jobs import GOALS, RAISED
from fleetcast.scenario.load import JobsScenario
from fleetcast.sim.cluster import neighbours
from fleetcast.sim.cluster.fast import rates
from fleetcast.sim.cluster.setting import Setting, setting
from fleetcast.view.checking import checked, unknown, unpriced
from fleetcast.view.checks import Remark


def remarks(scenario: JobsScenario) -> list[Remark]:
    """Returns what every check finds, errors first."""
    return checked(lambda: setting(scenario), CHECKS, "workload.trace")


def check_plan(state: Setting) -> Iterator[Remark]:
    """Every policy of the plan is known, and money can be counted where it is minimised."""
    plan = state.scenario.plan
    yield from unknown(plan.shares, state.share, "plan.share")
    yield from unknown(plan.places, state.place, "plan.place")
    yield from unknown(plan.powers, neighbours.power, "plan.power")
    yield from unpriced(state.scenario.objective.goals(GOALS, RAISED), state.tree.groups)


def check_load(state: Setting) -> Iterator[Remark]:
    """The fleet can do what arrives while it arrives."""
    jobs = state.jobs
    work = float((jobs.demand / rates(jobs, state.nodes, state.pace).max(axis=1)).sum())
    rush = float(jobs.arrival[-1] - jobs.arrival[0])
    if rush > 0 and work > state.nodes.total * rush:
        yield Remark(
            "warning", "fleet", f"jobs bring {work / rush:,.0f} devices' work at any time while they arrive, and the "
            f"fleet has {state.nodes.total:,}: the queue grows for {show(rush / 3600.0)} h and then drains",
            "Add devices, or expect waits to be as long as the trace",
        )  # fmt: skip


def check_rounds(state: Setting) -> Iterator[Remark]:
    """Rounds are shorter than jobs."""
    every = state.rules.round
    takes = 1.0 / rates(state.jobs, state.nodes, state.pace).max(axis=1)
    short = float((takes < every).mean())
    if every and short > 0.5:
        yield Remark(
            "warning", "plan.round", f"{short:.0%} of the jobs take less than a round of {show(every, 's')}: devices "
            "that they leave stand idle until the next", "Shorten the round, or leave it out",
        )  # fmt: skip


Check = Callable[[Setting], Iterator[Remark]]
CHECKS: tuple[Check, ...] = (check_plan, check_load, check_rounds)
