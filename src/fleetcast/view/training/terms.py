"""Words for training: what its terms are called, plans and scenarios in one line, how much a plan is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.base.tables import known
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.training_plan import read_training_plan
from fleetcast.scenario.workload.training import Shape
from fleetcast.view import words

if TYPE_CHECKING:
    from fleetcast.scenario.load import TrainingScenario
    from fleetcast.scenario.outcome import Outcome

TIMES = {
    "gemm": "Products", "attention": "Attention", "vector": "Element-wise kernels", "recompute": "Recomputed layers",
    "head": "Embedding, head and loss", "tensor_comm": "Tensor-parallel messages",
    "context_comm": "Context-parallel messages", "expert_comm": "Expert-parallel messages",
    "pipeline_comm": "Messages between stages", "host": "Host", "bubble": "Pipeline bubble",
    "data_comm": "Gradients added up", "weight_gather": "Weights gathered", "optimizer": "Optimizer",
    "offload": "Waiting for the host", "straggler": "Waiting for the slowest",
}  # fmt: skip
"""Terms of an iteration; each is what nothing else of the device hides."""
ROOMS = {
    "weights": "Weights", "gradients": "Gradients", "optimizer": "Optimizer states", "activations": "Activations",
    "buffers": "Buffers", "reserve": "Driver and libraries",
}  # fmt: skip
WIRES = ("tensor_comm", "context_comm", "expert_comm", "pipeline_comm", "data_comm", "weight_gather")
"""Terms that wait for links between devices."""


def model_name(scenario: TrainingScenario) -> str:
    """Returns the model in a few words."""
    model = scenario.workload.model
    if scenario.workload.features is not None:
        return f"a job of {show(scenario.workload.features.flops, 'FLOP')} a step and device"
    if not isinstance(model, Shape):
        return model
    experts = f", {model.experts} experts" if model.experts else ""
    return f"{model.layers} layers of {model.hidden} ({model.heads} heads{experts})"


def question(scenario: TrainingScenario, *, goals: bool = True) -> str:
    """Returns the scenario in a sentence: what is trained, on what, towards what."""
    work = scenario.workload
    groups = " and ".join(f"{g.name or 'group'} ({g.devices or 'groups'})" for g in scenario.fleet.groups)
    length = ""
    if work.tokens is not None:
        length = f", {work.tokens:,} tokens in all"
    elif work.steps is not None:
        length = f", {work.steps:,} iterations"
    batches = f", batches of {work.batch:,} x {work.sequence:,} tokens" if work.features is None else ""
    text = f"{scenario.name}: train {model_name(scenario)} on {scenario.fleet.devices or groups}{batches}{length}"
    wanted = " and ".join(f"least {goal}" for goal, _, _ in scenario.objective.goals(TRAINING, {}))
    return f"{text}; {wanted}." if goals else f"{text}."


def plan_name(table: Mapping[str, Any]) -> str:
    """Returns e.g. ``TP8 PP8 DP16 mb1 selective recompute SP`` for a plan's table."""
    return read_training_plan(dict(table)).label() or str(table.get("placement", "the plan"))


def over(outcome: Outcome) -> str:
    """Returns why a plan does not fit, "" where it fits: what is too small, by how much, and its largest term."""
    found = outcome.provenance.get("over")
    if not found:
        return ""
    more, most = found["need"] - found["have"], ""
    if found["constraint"] == "memory of a device":  # what lies elsewhere is not taken apart
        term = found["term"]
        most = f"; most of it is {ROOMS[term].lower()}, {show(outcome.breakdown['memory'][term], 'B')}"
    return (
        f"{found['constraint']} is {show(found['have'], 'B')} and the plan needs {show(found['need'], 'B')}, "
        f"{show(more, 'B')} more{most}"
    )


def binding(outcome: Outcome) -> list[str]:
    """Returns in sentences what holds an iteration back: its largest term, messages, idle stages, memory."""
    times, total = outcome.breakdown["time"], float(outcome.metrics["iteration_time"])
    if not times or not total:
        return []
    first = max(times, key=lambda name: times[name])
    said = [f"Of an iteration {times[first] / total:.0%} is {term(first).lower()}."]
    waits = {name: times[name] for name in WIRES if times.get(name, 0.0) > 0}
    if waits and sum(waits.values()) >= 0.02 * total:
        most = max(waits, key=lambda name: waits[name])
        said.append(f"Links keep it waiting for {sum(waits.values()) / total:.0%}, most by {term(most).lower()}.")
    if (idle := times.get("bubble", 0.0)) >= 0.02 * total:
        said.append(
            f"Stages idle for {idle / total:.0%}: {outcome.metrics['micro_batches']:,} micro-batches fill "
            f"{outcome.plan['pipeline_parallel']} stages."
        )
    room, capacity = outcome.breakdown.get("memory"), float(outcome.provenance.get("memory", 0.0))
    if room and capacity:
        largest = max(room, key=lambda name: room[name])
        said.append(f"Memory is {sum(room.values()) / capacity:.0%} full, most of it {term(largest, ROOMS).lower()}.")
    return said


def why(best: Outcome, others: Sequence[Outcome]) -> list[str]:
    """Returns in sentences what the next plans take longer for: terms that cost them most, terms that they gain.

    Args:
        best: the first.
        others: the next, in order; three are told of.
    """
    told = []
    mine = best.metrics["breakdown"]
    for other in others[:3]:
        theirs = other.metrics["breakdown"]
        apart = {name: theirs.get(name, 0.0) - mine.get(name, 0.0) for name in {**mine, **theirs}}
        lost = sorted((name for name in apart if apart[name] > 0), key=lambda name: -apart[name])[:2]
        gained = sorted((name for name in apart if apart[name] < 0), key=lambda name: apart[name])[:1]
        total = float(best.metrics["iteration_time"])
        longer = float(other.metrics["iteration_time"]) / total - 1.0
        if not lost or abs(apart[lost[0]]) < 0.001 * total:
            continue
        more = " and ".join(f"{show(apart[name], 's')} more for {term(name).lower()}" for name in lost)
        less = "".join(f", {show(-apart[name], 's')} less for {term(name).lower()}" for name in gained)
        said = f"takes {longer:.1%} longer" if longer > 0.0005 else "takes as long"
        told.append(f"{plan_name(other.plan)} {said}: {more}{less}.")
    return told


def number(value: float, path: str) -> str:
    """Returns a metric of training with its unit."""
    head, _, rest = path.partition(".")
    if path == "fits":
        return "yes" if value else "no"
    if head == "job":
        return (
            words.number(value, rest)
            if rest in ("energy", "cost", "carbon")
            else (days(value) if rest == "time" else f"{value:,.0f}")
        )
    if head in ("mfu", "hfu"):
        return f"{value:.1%}"
    if head in ("params", "tokens", "devices", "micro_batches"):
        return f"{value:,.0f}"
    return words.number(value, head)


def days(seconds: float) -> str:
    """Returns a long time as people say it: hours up to two days, then days."""
    return show(seconds / 86400, "days") if seconds >= 172800 else show(seconds, "s")


def metric(outcome: Outcome, path: str) -> str:
    """Returns a metric with half the width of its interval, "–" where it is not known."""
    value = known(outcome.metrics, path)
    if value is None:
        return words.UNKNOWN
    interval = outcome.intervals.get(path)
    text = number(value, path)
    return f"{text} ±{words.plus_minus(value, interval)}" if interval is not None and value else text


def term(name: str, names: Mapping[str, str] = TIMES) -> str:
    """Returns what a term is called for people."""
    return names.get(name, name.replace("_", " ").capitalize())
