"""What is wrong or doubtful about a scenario of pods: who cannot lie anywhere even on an empty cluster, and why.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fleetcast.policy.place.pods.check import reason
from fleetcast.scenario.load import PodsScenario
from fleetcast.sim.cluster.pods_outcome import Setting, empty, setting
from fleetcast.view.checking import checked, unknown
from fleetcast.view.checks import Remark

SHOWN = 10
"""Pods that are named one by one."""


def remarks(scenario: PodsScenario) -> list[Remark]:
    """Returns what every check finds, errors first."""
    return checked(lambda: setting(scenario), CHECKS, "workload.pods")


def check_plan(state: Setting) -> Iterator[Remark]:
    """Every policy of the plan is known."""
    yield from unknown(state.scenario.plan.places, state.policy, "plan.place")


def check_pods(state: Setting) -> Iterator[Remark]:
    """Every pod fits some node of the empty cluster; no policy places one that does not."""
    ledger, pods = empty(state)
    bad = [(pod, why) for pod in pods if (why := reason(ledger, pod))]
    for pod, why in bad[:SHOWN]:
        yield Remark("error", f"workload.pods: {pod.name}", f"can lie on no node: {why}", "Ask for less, or add nodes")
    if len(bad) > SHOWN:
        yield Remark("error", "workload.pods", f"{len(bad) - SHOWN:,} more pods can lie on no node", "See above")


def check_volume(state: Setting) -> Iterator[Remark]:
    """Where nobody leaves, all pods together ask for no more than there is."""
    if not (state.scenario.workload.stay or not (state.pods.departure < float("inf")).any()):
        return
    have = {"cpu": state.nodes.cpu.sum(), "memory": state.nodes.memory.sum(), "devices": state.nodes.devices.sum()}
    asked = {"cpu": state.pods.cpu.sum(), "memory": state.pods.memory.sum()}
    asked["devices"] = state.pods.devices.sum() + state.pods.share.sum()
    for name, total in asked.items():
        if total > have[name] * (1 + 1e-9):
            share = f"{float(total) / float(have[name]):.0%}" if have[name] else "and there is none"
            yield Remark("warning", "workload.pods", f"ask for {share} of the {name} of all nodes: some must wait",
                         "Give what matters a higher priority")  # fmt: skip


Check = Callable[[Setting], Iterator[Remark]]
CHECKS: tuple[Check, ...] = (check_plan, check_pods, check_volume)
