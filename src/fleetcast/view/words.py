"""Words for people: names of plans and metrics, numbers with units and intervals, and why a plan is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.base.tables import known, lookup
from fleetcast.scenario.objective import Objective
from fleetcast.scenario.outcome import UNITS
from fleetcast.scenario.plan import read_plan

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

METRIC_NAMES = {
    "ttft": "time to first token", "tpot": "time per output token", "e2e": "whole time of a request",
    "throughput": "output tokens per second", "goodput": "requests within the SLO per second",
    "energy": "energy", "cost": "cost", "carbon": "carbon", "mfu": "compute used", "mbu": "bandwidth used",
    "cached": "prompt tokens from the cache",
    "bytes": "bytes over links", "quality": "right answers", "error": "wrong answers",
}  # fmt: skip
PER_MILLION = "per_million_output_tokens"
GOAL_METRIC = {
    "cost": f"{PER_MILLION}.cost", "energy": f"{PER_MILLION}.energy", "carbon": f"{PER_MILLION}.carbon",
    "latency": "e2e.mean", "throughput": "throughput", "goodput": "goodput", "bytes": "bytes", "quality": "quality",
}  # fmt: skip
"""The metric that stands for a goal in tables and figures: for the same traffic, per token orders as the total does."""


UNKNOWN = "–"
"""Stands for what is not known."""
TIE = 0.01
"""Plans closer than this in what is optimised are called the same: no reason to choose one over the other."""


def unit_of(path: str) -> str:
    """Returns the unit of a metric path: ``ttft.p99`` is in s."""
    head, _, last = path.partition(".")
    return UNITS.get(last if head == PER_MILLION else head, "")


def plan_name(table: Mapping[str, Any]) -> str:
    """Returns e.g. ``2x TP4`` for a plan's table."""
    return read_plan(dict(table)).label()


def pools_of(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the tables of a plan's pools."""
    return table.get("pools") or [table]


def layout_of(table: Mapping[str, Any]) -> str:
    """Returns what plans have in common that differ in their batch policies alone."""
    pools = [{k: v for k, v in pool.items() if k not in ("batch", "route", "cascade")} for pool in pools_of(table)]
    return repr([pools, table.get("cascade"), table.get("route")])


def policy_name(table: Mapping[str, Any]) -> str:
    """Returns the batch policy in brief: ``chunked 2048, batch 256``; several pools are joined by ``+``."""
    names = []
    for pool in pools_of(table):
        if pool.get("role") == "draft":
            continue
        batch = pool.get("batch") or {}
        batch = {"kind": batch} if isinstance(batch, str) else batch
        parts = [str(batch.get("kind", "default"))]
        parts += [str(v) for k, v in batch.items() if k not in ("kind", "max_batch")]
        names.append(" ".join(parts) + (f", batch {batch['max_batch']}" if "max_batch" in batch else ""))
    return " + ".join(dict.fromkeys(names))


def policy_brief(table: Mapping[str, Any]) -> str:
    """Returns the batch policy for a narrow column: ``chunked 2048/256`` is token budget and requests."""
    return policy_name(table).replace(", batch ", "/")


def question(scenario: ServingScenario, *, goals: bool = True, fleet: bool = True) -> str:
    """Returns the scenario in one sentence: what is served, on what, under which limits, for which goal.

    Args:
        scenario: the question.
        goals: say what is optimised.
        fleet: say on what.
    """
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
    most = [show(v, unit) for v, unit in ((scenario.fleet.budget, "W"), (scenario.fleet.spend, "$/h")) if v is not None]
    on = f" on {scenario.fleet.devices or groups}" if fleet else ""
    on += f", up to {' and '.join(most)}" if most else ""
    text = f"{scenario.name}: {workload.model} under {traffic}{on}{under}"
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
    for pool in pools_of(table):
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
    if path in ("mfu", "hfu", "mbu", "quality", "error", "cached"):
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
    """Returns a metric of an outcome, with half the width of its 80 % interval where that is not next to nothing."""
    value = known(outcome.metrics, path)
    if value is None:
        return UNKNOWN
    text = number(value, path)
    interval = outcome.intervals.get(path)
    half = plus_minus(value, interval) if interval is not None and value else "0%"
    return text if half == "0%" else f"{text} ±{half}"


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
    bound = "at least " if check.get("at_least") else ""
    return f"{short(path)} {bound}{number(check['value'], path)} of {number(check['limit'], path)}"


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
    rivals: dict[str, Outcome] = {}
    for o in sorted(plans, key=lambda o: sign * lookup(o.metrics, path)):
        if o.slo.get("met", True) and layout_of(o.plan) != layout_of(best.plan):
            rivals.setdefault(layout_of(o.plan), o)
    if best.slo.get("met", True) and rivals:
        sentences += _rivals(best, list(rivals.values()), goal)
    tempting = [
        o for o in plans
        if not o.slo.get("met", True) and sign * lookup(o.metrics, path) < sign * mine
    ]  # fmt: skip
    if best.slo.get("met", True) and tempting:
        other = min(tempting, key=lambda o: sign * lookup(o.metrics, path))
        missed = worst(other)
        less = difference(lookup(other.metrics, path), mine)
        sentences.append(
            f"{plan_name(other.plan)} ({policy_name(other.plan)}) has {less} {goal} but misses the SLO: "
            f"{limit_text(missed)}."
        )
    return sentences + binding(best)


def _rivals(best: Outcome, rivals: Sequence[Outcome], goal: str) -> list[str]:
    """What the next layouts have more of, and where the forecast does not tell the best from another."""
    path = GOAL_METRIC[goal]
    mine = lookup(best.metrics, path)
    near = [o for o in rivals if apart(lookup(o.metrics, path), mine) <= TIE]
    if near:
        most = max(apart(lookup(o.metrics, path), mine) for o in near)
        who = "1 other layout has" if len(near) == 1 else f"{len(near)} other layouts have"
        within = f" within {percent(most)}" if most else ""
        sentences = [f"{who} the same {goal}{within}: choose among them by what else counts."]
    else:
        more = difference(lookup(rivals[0].metrics, path), mine)
        sentences = [f"The next layout, {_unlike(rivals[0], best)}, has {more} {goal}."]
    unlike = [o for o in rivals if _ground(o) != _ground(best) and o not in near and _overlap(best, o, path)]
    if unlike:
        who = _unlike(unlike[0], best) + (f" and {len(unlike) - 1} more" if len(unlike) > 1 else "")
        sentences.append(
            f"On other devices or another engine, {who}: within the 80 % interval of its {goal}, so not told apart."
        )
    return sentences


def _unlike(other: Outcome, best: Outcome) -> str:
    """The name of a plan, with what differs where the best has the same name."""
    name = plan_name(other.plan)
    if name != plan_name(best.plan):
        return name
    pairs = zip(pools_of(other.plan), pools_of(best.plan), strict=True)
    differ = [v for a, b in pairs for k, v in a.items() if k not in ("batch", "route") and v != b.get(k)]
    said = dict.fromkeys(str(v["kind"]) if isinstance(v, Mapping) else str(v) for v in differ)
    return f"{name} with {', '.join(said)}"


def _ground(outcome: Outcome) -> set[str]:
    """Devices and engines: forecasts on the same share most of their error, so their order is surer than each."""
    devices = {str(row.get("device")) for row in outcome.resources}
    return devices | {str(pool.get("engine")) for pool in pools_of(outcome.plan)}


def _overlap(a: Outcome, b: Outcome, path: str) -> bool:
    """Whether each one's value lies within the other's interval."""
    pairs = ((a.intervals.get(path), b), (b.intervals.get(path), a))
    return all(i is not None and i[0] <= lookup(o.metrics, path) <= i[1] for i, o in pairs)


def trade(ranking: Ranking) -> str:
    """Returns in a sentence what the frontier trades, or "" where there is nothing to trade."""
    if not ranking.frontier or len(ranking.axes) < 2 or ranking.counts["memory_feasible"] < 2:
        return ""
    goals = [goal for goal, _, _ in ranking.axes]
    if len(ranking.frontier) == 1:
        return f"No other plan is better in {' or '.join(goals[1:])} either: the frontier is this one plan."

    def at(o: Outcome) -> str:
        return ", ".join(_amount(o, GOAL_METRIC.get(goal, path)) for goal, path, _ in ranking.axes)

    first, last = ranking.frontier[0], ranking.frontier[-1]
    gap = max(apart(lookup(last.metrics, path), lookup(first.metrics, path)) for _, path, _ in ranking.axes)
    if gap <= TIE:
        return (
            f"Frontier: {len(ranking.frontier)} plans, at most {percent(gap)} apart in {goals[0]} and in "
            f"{' and '.join(goals[1:])}: there is nothing to trade."
        )
    return (
        f"Frontier: {len(ranking.frontier)} plans trade {goals[0]} for {' and '.join(goals[1:])}, "
        f"from {plan_name(first.plan)} ({at(first)}) to {plan_name(last.plan)} ({at(last)})."
    )


def _amount(outcome: Outcome, path: str) -> str:
    """A metric with its name where the unit does not say it: ``$5.62/M tokens``, ``E2E mean 4.39 s``."""
    value = metric(outcome, path).partition(" ±")[0]
    if path.startswith(PER_MILLION):
        return f"{value}/M tokens"
    return f"{short(path)} {value}" if path.partition(".")[0] in ("ttft", "tpot", "e2e") else value


def failure(ranking: Ranking) -> str:
    """Returns why a search has no best plan: nothing fits, or nothing is fast enough."""
    counts = ranking.counts
    if counts["memory_feasible"] > counts.get("over_budget", 0):
        return "No plan meets the SLO"
    return "No plan stays within the budget" if counts["memory_feasible"] else "No plan fits on this fleet"


def worst(outcome: Outcome) -> Mapping[str, Any]:
    """Returns the check of the SLO with the largest share of its limit."""
    checks: Sequence[Mapping[str, Any]] = outcome.slo["checks"]
    return max(checks, key=strain)


def binding(outcome: Outcome) -> list[str]:
    """Returns in sentences what holds a plan back: the limit most strained, the largest term of time, memory."""
    sentences = []
    if outcome.slo.get("checks"):
        check = worst(outcome)
        verb = "Closest to its limit" if check["met"] else "Furthest beyond its limit"
        times = f"{strain(check):.0%}" if strain(check) < 2 else f"{strain(check):.3g} times"
        sentences.append(f"{verb}: {limit_text(check)} ({times}).")
    if limits := outcome.provenance.get("limits"):
        parts = [f"{show(x['value'], x['unit'])} of {show(x['limit'], x['unit'])} ({strain(x):.0%})" for x in limits]
        sentences.append(f"Takes {' and '.join(parts)}.")
    terms = outcome.breakdown.get("time", {})
    busy = {k: v for k, v in terms.items() if v > 0 and k != "idle"}
    if busy:
        name, value = max(busy.items(), key=lambda kv: kv[1])
        text = f"Of busy time {value / sum(busy.values()):.0%} is {TERMS.get(name, name)}"
        shares = [float(r["busy"]) for r in outcome.resources if "busy" in r]
        rest = f"; a replica has a request running {sum(shares) / len(shares):.0%} of the time" if shares else ""
        sentences.append(f"{text}{rest}.")
    sentences += _from_cache(outcome)
    if outcome.record is not None and len(outcome.record):
        sentences.append(f"The KV cache fills up to {float(outcome.record.level.max()):.0%}.")
    preempted = int(outcome.metrics.get("preemptions", 0))
    if preempted:
        sentences.append(f"{preempted:,} times a request lost its place in the cache to another.")
    return sentences


def _from_cache(outcome: Outcome) -> list[str]:
    """Returns how much of the prompts was found in prefix caches, and in which tier where there are several."""
    prompts = outcome.breakdown.get("prompts")
    if not prompts:
        return []
    total = sum(prompts.values())
    tiers = [f"{PLACES[k]} {v / total:.0%}" for k, v in prompts.items() if k in PLACES and v > 0]
    where = f": {', '.join(tiers)}" if len(tiers) > 1 else ""
    return [f"Of prompt tokens {outcome.metrics['cached']:.0%} were found in the prefix cache{where}."]


PLACES = {"device": "on the devices", "cpu": "in host memory", "ssd": "on disk"}
TERMS = {
    "gemm": "matrix products", "attention": "attention", "elementwise": "element-wise kernels", "experts": "experts",
    "communication": "communication", "head": "output head", "pipeline": "transfers between stages",
    "host": "host work", "swap": "swapping", "draft": "drafting", "idle": "idle", "busy": "clocks up",
    "compute": "arithmetic", "memory": "memory traffic", "link": "links", "facility": "cooling and losses",
    "weights": "weights", "kv": "KV cache", "activations": "activations", "reserve": "engine reserve", "free": "free",
    "other": "other",
}  # fmt: skip


def need(row: Mapping[str, Any]) -> str:
    """Returns what a rejected family lacked: ``141 GB of 80 GB``, ``3 does not divide 64``."""
    unit, have, wanted = str(row.get("unit", "")), float(row["have"]), float(row["need"])
    if not unit and wanted < have:
        return f"{wanted:g} does not divide {have:g}"
    said = show(wanted, unit if unit in ("B", "W", "$/h") else "", 4 if unit == "W" else 3).removesuffix(" $/h")
    return f"{said} of {show(have, unit)}"


def strain(check: Mapping[str, Any]) -> float:
    """Returns a value over its limit."""
    return float(check["value"]) / float(check["limit"])


def apart(other: float, mine: float) -> float:
    """Returns the relative distance of a value from ``mine``."""
    return 0.0 if other == mine else abs(other / mine - 1) if mine else float("inf")


def percent(share: float) -> str:
    """Returns a share of 1 that is not exceeded: ``0.2%``; what is smaller than ``0.1%`` counts as that."""
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{max(share, 0.001):.1%}"


def difference(other: float, mine: float) -> str:
    """Returns how much more or less a value is than ``mine``: ``12% more``."""
    if mine == 0:
        return "another"
    change = other / mine - 1
    if abs(change) < 0.0005:
        return "the same"
    return f"{abs(change):.{0 if abs(change) >= 0.1 else 1}%} {'more' if change > 0 else 'less'}"
