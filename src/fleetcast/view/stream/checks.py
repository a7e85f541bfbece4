"""What is wrong or doubtful about a stream, said before it is simulated."""

from __future__ import annotations

from collections.abc import Iterator

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.show import show
from fleetcast.scenario.load import StreamScenario
from fleetcast.scenario.workload.streams import SENSORS
from fleetcast.search.streams import search
from fleetcast.sim.stream.world import Setting, setting
from fleetcast.view.checks import Remark


def remarks(scenario: StreamScenario) -> list[Remark]:
    """Returns what every check finds, errors first."""
    try:
        if isinstance(scenario.plan.filter, tuple) and len(scenario.plan.filter) > 1:
            search(scenario, top=1)
            return []
        state = setting(scenario)
        state.flow()
    except (SpecError, MissingExtra) as error:
        return [Remark("error", getattr(error, "path", "workload"), str(error))]
    return [*_over(state), *_busy(state), *_drawn(state), *_unused(state)]


def _over(state: Setting) -> Iterator[Remark]:
    """More power than the budget."""
    budget, power = state.scenario.fleet.budget, state.power(state.flow())
    if budget is not None and power > budget:
        yield Remark(
            "warning", "fleet.budget", f"is exceeded: {show(power, 'W')} of {show(budget, 'W')}",
            "Filter earlier, or ask plan which upgrades bring it down",
        )  # fmt: skip


def _busy(state: Setting) -> Iterator[Remark]:
    """A node or link that gets more than it can do."""
    for node, at in zip(state.system.nodes, state.flow().nodes, strict=True):
        for what, busy in ((node.name, at.busy), (f"{node.name}.link", at.out * at.sending)):
            if busy > 1:
                yield Remark(
                    "warning", f"workload.nodes: {what}", f"gets {busy:.3g} times what it can do",
                    "Filter earlier, add lanes, or give it a buffer that drops",
                )  # fmt: skip


def _drawn(state: Setting) -> Iterator[Remark]:
    """A node that chooses at random."""
    for node in state.system.nodes:
        if node.ratio > 1 and node.classifier is None:
            yield Remark(
                "warning", f"workload.nodes: {node.name}.classifier",
                f"is left out, so that one sample in {node.ratio:g} goes on at random", "Give it a classifier",
            )  # fmt: skip


def _unused(state: Setting) -> Iterator[Remark]:
    """A classifier that nothing names, or that has nothing to choose."""
    workload = state.scenario.workload
    named = {node.classifier for node in workload.nodes if isinstance(node.classifier, str)}
    if workload.filter is not None and isinstance(workload.filter.classifier, str):
        named.add(workload.filter.classifier)
    if not workload.system:
        for name in workload.classifiers:
            if name not in named:
                yield Remark("warning", f"workload.classifiers.{name}", "is not used", "Leave it out, or name it")
    for node in state.system.nodes:
        if node.classifier is not None and node.ratio == 1 and state.plan.filter not in (node.name, SENSORS):
            yield Remark(
                "warning", f"workload.nodes: {node.name}.ratio", "is 1, so that its classifier passes everything",
                "Give a ratio above 1",
            )  # fmt: skip
