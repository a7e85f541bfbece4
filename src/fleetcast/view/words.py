"""Words for people: names of plans and metrics, numbers with units and intervals, and why a plan is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.base.tables import lookup
from fleetcast.scenario.objective import Objective
from fleetcast.scenario.outcome import UNITS
from fleetcast.scenario.plan import read_plan

if TYPE_CHECKING:
    from fleetcast.scenario.load import Scenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

METRIC_NAMES = {
    "ttft": "time to first token", "tpot": "time per output token", "e2e": "whole time of a request",
    "throughput": "output tokens per second", "goodput": "requests within the SLO per second",
    "energy": "energy", "cost": "cost", "carbon": "carbon", "mfu": "compute used", "mbu": "bandwidth used",
    "bytes": "bytes over links", "quality": "right answers", "error": "wrong answers",
}  # fmt: skip
PER_MILLION = "per_million_output_tokens"
GOAL_METRIC = {
    "cost": f"{PER_MILLION}.cost", "energy": f"{PER_MILLION}.energy", "carbon": f"{PER_MILLION}.carbon",
    "latency": "e2e.mean", "throughput": "throughput", "goodput": "goodput", "bytes": "bytes",
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


def question(scenario: Scenario, *, goals: bool = True) -> str:
    """Returns the scenario in one sentence: what is served, on what, under which limits, for which goal."""
    workload, slo = scenario.workload, scenario.slo.limits()
    traffic = workload.trace or "generated traffic"
    if workload.arrivals is not None:
        traffic += f", {workload.arrivals.kind} arrivals"
    if workload.speed_up != 1:
        traffic += f", {workload.speed_up:g} times as fast"
    groups = " and ".join(f"{g.name or 'group'} ({g.devices or 'groups'})" for g in scenario.fleet.groups)
    limits = " and ".join(f"{short(k)} within {number(v, k)}" for k, v in slo.items())
    under = f", {limits}" if limits else ", no limit on latency"
    asked = " and ".join(f"{'least' if sign > 0 else 'most'} {goal}" for goal, _, sign in scenario.objective.goals())
    text = f"{scenario.name}: {workload.model} under {traffic} on {scenario.fleet.devices or groups}{under}"
    return f"{text}; {asked}." if goals else f"{text}."


def short(path: str) -> str:
    """Returns a metric path for a sentence: ``TTFT p99``."""
    head, _, statistic = path.partition(".")
    if head == "error":
        return METRIC_NAMES[head]
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
    if path in ("mfu", "mbu", "quality", "error"):
        return f"{value:.1%}"
    return f"{value:,.0f} {unit}" if unit == "tokens/s" and value >= 100 else show(value, unit, digits)


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


def interval_text(outcome: Outcome, path: str) -> str:
    """Returns the 80 % interval of a metric: ``0.8 s to 1.2 s``, or "" where it has none."""
    interval = outcome.intervals.get(path)
    return "" if interval is None else " to ".join(number(v, path) for v in interval)


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


def failure(ranking: Ranking) -> str:
    """Returns why a search has no best plan: nothing fits, or nothing is fast enough."""
    return "No plan meets the SLO" if ranking.counts["memory_feasible"] else "No plan fits on this fleet"


def binding(outcome: Outcome) -> list[str]:
    """Returns in sentences what holds a plan back: the limit most strained, the largest term of time, memory."""
    sentences = []
    checks = [c for c in outcome.slo.get("checks", ()) if c["limit"] > 0]
    if checks:
        worst = max(checks, key=_strain)
        verb = "Closest to its limit" if worst["met"] else "Furthest beyond its limit"
        times = f"{_strain(worst):.0%}" if _strain(worst) < 2 else f"{_strain(worst):.3g} times"
        sentences.append(f"{verb}: {limit_text(worst)} ({times}).")
    terms = outcome.breakdown.get("time", {})
    busy = {k: v for k, v in terms.items() if v > 0 and k != "idle"}
    if busy:
        name, value = max(busy.items(), key=lambda kv: kv[1])
        text = f"Of busy time {value / sum(busy.values()):.0%} is {TERMS.get(name, name)}"
        shares = [float(r["busy"]) for r in outcome.resources if "busy" in r]
        rest = f"; replicas are busy {sum(shares) / len(shares):.0%} of the time" if shares else ""
        sentences.append(f"{text}{rest}.")
    if outcome.record is not None and len(outcome.record):
        sentences.append(f"The KV cache fills up to {float(outcome.record.level.max()):.0%}.")
    preempted = int(outcome.metrics.get("preemptions", 0))
    if preempted:
        sentences.append(f"{preempted:,} times a request lost its place in the cache to another.")
    return sentences


TERMS = {
    "gemm": "matrix products", "attention": "attention", "elementwise": "element-wise kernels", "experts": "experts",
    "communication": "communication", "head": "output head", "pipeline": "transfers between stages",
    "host": "host work", "swap": "swapping", "idle": "idle", "busy": "clocks up", "compute": "arithmetic",
    "memory": "memory traffic", "link": "links", "facility": "cooling and losses", "weights": "weights",
    "kv": "KV cache", "activations": "activations", "reserve": "engine reserve", "free": "free", "other": "other",
}  # fmt: skip


def need(row: Mapping[str, Any]) -> str:
    """Returns what a rejected family lacked: ``141 GB of 80 GB``, ``3 does not divide 64``."""
    unit, have, wanted = str(row.get("unit", "")), float(row["have"]), float(row["need"])
    if not unit and wanted < have:
        return f"{wanted:g} does not divide {have:g}"
    return f"{show(wanted, unit)} of {show(have, unit)}"


def _strain(check: Mapping[str, Any]) -> float:
    return float(check["value"]) / float(check["limit"])


def _difference(other: float, mine: float) -> str:
    if mine == 0:
        return "another"
    change = other / mine - 1
    if abs(change) < 0.0005:
        return "the same"
    return f"{abs(change):.{0 if abs(change) >= 0.1 else 1}%} {'more' if change > 0 else 'less'}"
