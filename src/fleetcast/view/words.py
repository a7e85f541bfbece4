"""Words for people: names of plans and metrics, numbers with units and intervals, and why a plan is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.tables import lookup
from fleetcast.base.units import show
from fleetcast.scenario.objective import Objective
from fleetcast.scenario.outcome import UNITS
from fleetcast.scenario.plan import read_plan

if TYPE_CHECKING:
    from fleetcast.scenario.load import Scenario
    from fleetcast.scenario.outcome import Outcome

METRIC_NAMES = {
    "ttft": "time to first token", "tpot": "time per output token", "e2e": "whole time of a request",
    "throughput": "output tokens per second", "goodput": "requests within the SLO per second",
    "energy": "energy", "cost": "cost", "carbon": "carbon", "mfu": "compute used", "mbu": "bandwidth used",
}  # fmt: skip
PER_MILLION = "per_million_output_tokens"
GOAL_METRIC = {
    "cost": f"{PER_MILLION}.cost", "energy": f"{PER_MILLION}.energy", "carbon": f"{PER_MILLION}.carbon",
    "latency": "e2e.mean", "throughput": "throughput", "goodput": "goodput",
}  # fmt: skip
"""The metric that stands for a goal in tables and figures: for the same traffic, per token orders as the total does."""


def unit_of(path: str) -> str:
    """Returns the unit of a metric path: ``ttft.p99`` is in s."""
    head, _, last = path.partition(".")
    return UNITS.get(last if head == PER_MILLION else head, "")


def plan_name(table: Mapping[str, Any]) -> str:
    """Returns e.g. ``2x TP4`` for a plan's table."""
    return read_plan(dict(table)).label()


def policy_name(table: Mapping[str, Any]) -> str:
    """Returns the batch policy in brief: ``chunked 2048, batch 256``; several pools are joined by ``+``."""
    pools = table.get("pools", [table])
    names = []
    for pool in pools:
        batch = pool.get("batch") or {}
        batch = {"kind": batch} if isinstance(batch, str) else batch
        parts = [str(batch.get("kind", "default"))]
        parts += [str(v) for k, v in batch.items() if k not in ("kind", "max_batch")]
        names.append(" ".join(parts) + (f", batch {batch['max_batch']}" if "max_batch" in batch else ""))
    return " + ".join(dict.fromkeys(names))


def policy_brief(table: Mapping[str, Any]) -> str:
    """Returns the batch policy for a narrow column: ``chunked 2048/256`` is token budget and requests."""
    return policy_name(table).replace(", batch ", "/")


def question(scenario: Scenario) -> str:
    """Returns the scenario in one sentence: what is served, on what, under which limits, for which goal."""
    workload, slo = scenario.workload, scenario.slo.limits()
    traffic = workload.trace or "generated traffic"
    if workload.arrivals is not None:
        traffic += f", {workload.arrivals.kind} arrivals"
    if workload.speed_up != 1:
        traffic += f", {workload.speed_up:g} times as fast"
    fleet = scenario.fleet.devices or ", ".join(g.name or g.devices or "group" for g in scenario.fleet.groups)
    limits = " and ".join(f"{short(k)} within {show(v, 's')}" for k, v in slo.items())
    goals = " and ".join(f"{'least' if sign > 0 else 'most'} {goal}" for goal, _, sign in scenario.objective.goals())
    under = f", {limits}" if limits else ", no limit on latency"
    return f"{scenario.name}: {workload.model} under {traffic} on {fleet}{under}; {goals}."


def short(path: str) -> str:
    """Returns a metric path for a sentence: ``TTFT p99``."""
    head, _, statistic = path.partition(".")
    return f"{head.upper() if head in ('ttft', 'tpot', 'e2e') else head} {statistic}".strip()


def precision_name(table: Mapping[str, Any]) -> str:
    """Returns weights' and cache's dtypes: ``bf16``, or ``fp8, cache fp8`` where they are told apart."""
    names = []
    for pool in table.get("pools", [table]):
        dtype, cache = pool.get("dtype") or "checkpoint", pool.get("kv_dtype") or "auto"
        names.append(dtype if cache in ("auto", dtype) else f"{dtype}, cache {cache}")
    return " + ".join(dict.fromkeys(names))


def number(value: float, path: str, *, digits: int = 3) -> str:
    """Returns a metric's value with its unit, in the size people use."""
    unit = unit_of(path)
    if unit == "J":
        return show_energy(value, digits)
    if unit == "$":
        return show_money(value)
    if unit == "g":
        return f"{show(value / 1000, 'kg', digits)}" if abs(value) >= 1000 else show(value, "g", digits)
    if path in ("mfu", "mbu"):
        return f"{value:.1%}"
    return show(value, unit, digits)


def show_money(dollars: float) -> str:
    """Returns an amount of money: ``$12.30``, with more places below ten cents."""
    return f"${dollars:,.2f}" if abs(dollars) >= 0.1 or dollars == 0 else f"${dollars:.2g}"


def show_energy(joules: float, digits: int = 3) -> str:
    """Returns energy in Wh, kWh or MWh, as bills have it."""
    hours = joules / 3600
    for scale, unit in ((1e6, "MWh"), (1e3, "kWh"), (1.0, "Wh")):
        if abs(hours) >= scale:
            return show(hours / scale, unit, digits)
    return show(joules, "J", digits)


def metric(outcome: Outcome, path: str) -> str:
    """Returns a metric of an outcome, with half the width of its 80 % interval where it has one."""
    try:
        value = lookup(outcome.metrics, path)
    except (KeyError, TypeError):
        return "–"
    if value != value:  # not a number: nothing was measured
        return "–"
    text = number(value, path)
    interval = outcome.intervals.get(path)
    if interval is None or value == 0:
        return text
    return f"{text} ±{plus_minus(value, interval)}"


def plus_minus(value: float, interval: Sequence[float]) -> str:
    """Returns half the width of an interval as a percentage of the value: ``12%``."""
    low, high = interval
    return f"{(high - low) / 2 / abs(value):.0%}"


def limit_text(check: Mapping[str, Any]) -> str:
    """Returns a check of the SLO: ``ttft p99 1.07 s of 2 s``."""
    path = str(check["metric"])
    return f"{short(path)} {number(check['value'], path)} of {number(check['limit'], path)}"


def why(best: Outcome, plans: Sequence[Outcome], objective: Objective) -> list[str]:
    """Returns in sentences why ``best`` is best: what it gains, what binds it, what the nearest others miss.

    Args:
        best: the chosen plan's outcome.
        plans: all simulated outcomes, ranked.
        objective: what was optimised.
    """
    goal, _, sign = objective.goals()[0]
    path = GOAL_METRIC[goal]
    mine = lookup(best.metrics, path)
    sentences = []
    rivals = [o for o in plans if o.slo.get("met", True) and plan_name(o.plan) != plan_name(best.plan)]
    if best.slo.get("met", True) and rivals:
        rival = min(rivals, key=lambda o: sign * lookup(o.metrics, path))
        more = _difference(lookup(rival.metrics, path), mine)
        sentences.append(f"The next layout, {plan_name(rival.plan)}, has {more} {goal}.")
    tempting = [
        o for o in plans
        if not o.slo.get("met", True) and sign * lookup(o.metrics, path) < sign * mine
    ]  # fmt: skip
    if best.slo.get("met", True) and tempting:
        other = min(tempting, key=lambda o: sign * lookup(o.metrics, path))
        missed = max((c for c in other.slo["checks"] if not c["met"]), key=_strain)
        less = _difference(lookup(other.metrics, path), mine)
        sentences.append(
            f"{plan_name(other.plan)} ({policy_name(other.plan)}) has {less} {goal} but misses the SLO: "
            f"{limit_text(missed)}."
        )
    return sentences + binding(best)


def binding(outcome: Outcome) -> list[str]:
    """Returns in sentences what holds a plan back: the limit most strained, the largest term of time, memory."""
    sentences = []
    checks = [c for c in outcome.slo.get("checks", ()) if c["limit"] > 0]
    if checks:
        worst = max(checks, key=_strain)
        verb = "Closest to its limit" if worst["met"] else "Furthest beyond its limit"
        sentences.append(f"{verb}: {limit_text(worst)} ({_strain(worst):.0%}).")
    time = {k: v for k, v in outcome.breakdown.get("time", {}).items() if v > 0}
    busy = {k: v for k, v in time.items() if k != "idle"}
    if busy:
        name, value = max(busy.items(), key=lambda kv: kv[1])
        text = f"Of busy time {value / sum(busy.values()):.0%} is {TERMS.get(name, name)}"
        idle = time.get("idle", 0.0) / sum(time.values())
        sentences.append(f"{text}; replicas are idle {idle:.0%} of the time.")
    peaks = [float(r["kv_peak"]) for r in outcome.resources if r.get("kv_peak") is not None]
    if peaks:
        sentences.append(f"The KV cache fills up to {max(peaks):.0%}.")
    return sentences


TERMS = {
    "gemm": "matrix products of attention and dense layers", "attention": "attention over the context",
    "communication": "communication", "experts": "expert layers", "head": "the output head", "pipeline": "pipeline bubbles",
    "host": "host work", "swap": "swapping", "idle": "idle", "compute": "compute", "memory": "memory traffic",
    "link": "links", "weights": "weights", "kv": "KV cache", "activations": "activations", "reserve": "engine reserve",
    "free": "free", "other": "other",
}  # fmt: skip


def space(counts: Mapping[str, Any]) -> str:
    """Returns the search's space in a line: how many plans there were and where they went."""
    names = {
        "enumerated": "plans in the space", "memory_feasible": "fit in memory", "bounded": "bounded away",
        "deduplicated": "same as another", "simulated": "simulated",
    }  # fmt: skip
    known = [f"{counts[k]:,} {text}" for k, text in names.items() if k in counts]
    return ", ".join(
        known + [f"{v:,} {k.replace('_', ' ')}" for k, v in counts.items() if k not in names and isinstance(v, int)]
    )


def need(row: Mapping[str, Any]) -> str:
    """Returns what a rejected family lacked: ``141 GB of 80 GB``."""
    unit = str(row.get("unit", ""))
    return f"{show(float(row['need']), unit)} of {show(float(row['have']), unit)}"


def _strain(check: Mapping[str, Any]) -> float:
    return float(check["value"]) / float(check["limit"])


def _difference(other: float, mine: float) -> str:
    if mine == 0:
        return "another"
    change = other / mine - 1
    if abs(change) < 0.0005:
        return "the same"
    return f"{abs(change):.{0 if abs(change) >= 0.1 else 1}%} {'more' if change > 0 else 'less'}"
