"""Tables and sentences for the terminal. What stands in a cell is decided in `words`; here it is laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view import figures, words
from fleetcast.view.choices import setup
from fleetcast.view.missed import too_slow
from fleetcast.view.plans import GAP, bare, layouts, plans_table, spaced
from fleetcast.view.worth import worth_lines

if TYPE_CHECKING:
    from pathlib import Path

    from fleetcast.cost.pebbling.check import Proof
    from fleetcast.runtime.measure import Profile
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.capacity import Load, Need, Users
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

SHOWN = 12
"""Rejected families that are listed; --json and the report hold them all."""
POINTS = 12
"""Plans of a frontier that are listed, evenly spaced."""


def ranking_view(scenario: ServingScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the verdict, the ranking, why, what was rejected, the space."""
    best = ranking.best
    shown = best or (ranking.misses[0] if ranking.misses else None)
    parts: list[RenderableType] = [Text(words.question(scenario), style="dim"), Text()]
    if best is None:
        parts.append(Text(words.failure(ranking) + (". Nearest misses:" if shown else "."), style="bold red"))
        if shown is not None:
            parts += [Text(setup(scenario, shown.plan), style="dim"), Text()]
            parts += [plans_table(ranking.misses, ranking.goals, width), Text()]
            parts.append(bullets("What binds", words.binding(shown)))
        else:
            parts.append(Text())
    else:
        parts += _ranked(scenario, ranking, best, width)
    parts += _missed_table(ranking.missed)
    if ranking.rejected:
        parts += [rejected_table(ranking.rejected), Text()]
    parts.append(bullets("Space searched", ranking.lines(), dim=True))
    parts.append(bullets("Taken as given", [*ranking.notes, *(shown.notes if shown is not None else ())], dim=True))
    return Group(*parts)


def _ranked(scenario: ServingScenario, ranking: Ranking, best: Outcome, width: int) -> list[RenderableType]:
    """The best plan, the frontier where several goals ask for one, the layouts in order, and why."""
    goals = [goal for goal, _, _ in ranking.goals]
    several = len(goals) > 1
    parts: list[RenderableType] = [
        Text.assemble(
            f"Best{f' by {goals[0]}' if several else ''}: ", (words.plan_name(best.plan), "bold"),
            f", {words.policy_name(best.plan)}",
        ),
        Text(setup(scenario, best.plan), style="dim"), Text(),
    ]  # fmt: skip
    if several:
        points = spaced(ranking.frontier, POINTS)
        left = len(ranking.frontier) - len(points)
        head = f"Frontier of {', '.join(goals[:-1])} and {goals[-1]}: no plan beats one of these in every goal"
        parts += [Text(head), Text(), plans_table(points, ranking.goals, width, best=best)]
        parts += [Text(f"{left} more plans lie between these (--json)", "dim")] if left else []
        parts += [Text(), Text(f"By {goals[0]} first"), Text()]
    folded = layouts(ranking)
    more = {id(layout.best): layout.more for layout in folded}
    some = any(more.values())
    rivals = ranking.axes[len(goals) :]
    table = plans_table(
        [f.best for f in folded], ranking.goals, width, rivals=rivals, best=best, more=more if some else None
    )
    parts.append(table)
    if some:
        worse = words.percent(max(layout.worse for layout in folded))
        said = f"More: further batch policies of a layout, within {worse} of its {goals[0]} (--json)"
        parts.append(Text(said, style="dim"))
    parts.append(Text())
    why = words.why(best, [*ranking.plans, *ranking.misses], scenario.objective)
    trade = words.trade(ranking)
    told = [*why[:1], *([trade] if trade and not several else []), *worth_lines(ranking), *why[1:]]
    parts.append(bullets("Why", told))
    return parts


def outcome_view(scenario: ServingScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: latencies, the rest of the metrics, where time and energy went, notes."""
    head = Text.assemble((words.plan_name(outcome.plan), "bold"), f", {words.policy_name(outcome.plan)}")
    parts: list[RenderableType] = [
        Text(words.question(scenario, goals=False), style="dim"),
        Text(),
        head,
        Text(setup(scenario, outcome.plan), style="dim"),
        Text(),
        latency_table(outcome),
        Text(),
    ]
    parts += [_metrics(outcome, width), Text()]
    for kind in ("time", "energy", "memory"):
        whole = figures.breakdown_info(outcome, kind)
        if whole is not None:
            shares = ", ".join(f"{words.TERMS.get(p.name, p.name)} {p.share:.0%}" for p in whole.parts)
            parts.append(Text.assemble((f"{whole.name}: ", "dim"), shares))
    parts.append(Text())
    parts.append(bullets("What binds", words.binding(outcome)))
    if outcome.notes:
        parts.append(bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def latency_table(outcome: Outcome) -> Table:
    """Returns TTFT, TPOT and E2E: mean, percentiles, the interval of the last where it has one, the limits."""
    latency = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim"
    )
    sure = [words.interval_text(outcome, f"{key}.p99") for key in ("ttft", "tpot", "e2e")]
    intervals = ("p99, 80 % interval",) if any(sure) else ()
    for name in ("", "mean", "p50", "p90", "p99", *intervals, "limit"):
        latency.add_column(name, justify="right" if name else "left", no_wrap=True)
    limits = {c["metric"]: c for c in outcome.slo.get("checks", ())}
    for key, interval in zip(("ttft", "tpot", "e2e"), sure, strict=True):
        cells = [bare(f"{key}.{s}")(outcome) for s in ("mean", "p50", "p90", "p99")]
        shown = (interval,) if intervals else ()
        latency.add_row(key.upper(), *cells, *shown, _limits_cell(key, limits))
    return latency


def held_view(scenario: ServingScenario, held: Load | Users, width: int) -> RenderableType:
    """Returns the largest load that is held, by which plan, what binds it, and the loads that were tried."""
    from fleetcast.search.capacity import Load

    question = Text(words.question(scenario, goals=False), style="dim")
    table, head = _of_rate(held) if isinstance(held, Load) else _of_users(scenario, held)
    outcome = held.outcome
    if outcome is None:
        return Group(question, Text(), Text("No load that was tried meets the SLO.", style="bold red"), Text(), table)
    if outcome.plan.get("cascade"):
        from fleetcast.view.tiers import cascades_table

        by = Text.assemble("by ", (words.plan_name(outcome.plan), "bold"))
        binds = bullets("What binds", words.binding(outcome))
        return Group(question, Text(), head, by, Text(), cascades_table([outcome], outcome), Text(), binds, table)
    parts: list[RenderableType] = [
        question, Text(), head,
        Text.assemble("by ", (words.plan_name(outcome.plan), "bold"), f", {words.policy_name(outcome.plan)}"),
        Text(setup(scenario, outcome.plan), style="dim"), Text(), plans_table([outcome], (), width), Text(),
        bullets("What binds", words.binding(outcome)),
    ]  # fmt: skip
    return Group(*parts, table)


def _of_rate(load: Load) -> tuple[Table, Text]:
    rows = [(f"{factor:.3g} times", "met" if met else "missed") for factor, met in sorted(load.tried)]
    text = f", {load.factor:.3g} times the scenario's load"
    return rows_table(("Load", "SLO"), rows, right=(0,)), Text.assemble(
        "Holds ", (show(load.rate, "requests/s"), "bold"), text
    )


def _of_users(scenario: ServingScenario, held: Users) -> tuple[Table, Text]:
    rows = [(f"{users:,}", "met" if met else "missed") for users, met in sorted(held.tried)]
    own = scenario.workload.arrivals.concurrency if scenario.workload.arrivals is not None else None
    text = f" at once; the scenario has {own:,}" if own else " at once"
    if scenario.workload.exits is not None:
        text = ", each with a device and the queries of one in the scenario"
        text += "; more were not tried" if held.users and held.missed is None else ""
    elif held.missed is None:
        text += "; more were not tried: there are no more requests"
    count = "1 user" if held.users == 1 else f"{held.users:,} users"
    return rows_table(("Users", "SLO"), rows, right=(0,)), Text.assemble("Serves ", (count, "bold"), text)


def needs_view(scenario: ServingScenario, needs: Sequence[Need], width: int) -> RenderableType:
    """Returns how many devices of each kind the load needs, cheapest first."""
    rows = []
    for need in needs:
        if need.outcome is not None:
            cost = words.metric(need.outcome, words.GOAL_METRIC["cost"]).partition(" ±")[0]
            plan = f"{words.plan_name(need.outcome.plan)}, {words.policy_brief(need.outcome.plan)}"
            rows.append((need.kind, str(need.devices), cost, plan))
        else:
            rows.append((need.kind, f"> {need.most}", words.UNKNOWN, need.constraint or _nearest(need)))
    parts: list[RenderableType] = [Text(words.question(scenario, goals=False, fleet=False), style="dim"), Text()]
    parts.append(rows_table(("Device", "Needed", "$/M tok", "Plan"), rows, right=(1, 2), width=width))
    pool = scenario.plan.serving[0]
    if all(isinstance(n, int) for n in (pool.replicas, pool.tensor_parallel, pool.pipeline_parallel)):
        parts.append(Text("[plan] fixes the layout: leave replicas open to have other sizes tried", style="dim"))
    return Group(*parts)


def _nearest(need: Need) -> str:
    if need.nearest is not None:
        return f"nearest is {words.plan_name(need.nearest.plan)}: {words.limit_text(words.worst(need.nearest))}"
    if need.missed is not None:
        return f"nearest is {need.missed['layout']}: {words.limit_text(need.missed)}"
    return "no plan meets the SLO"


def remarks_view(remarks: Sequence[Remark], proof: Proof | None = None) -> RenderableType:
    """Returns what `check` found, one block a remark, and the proof of what a plan moves."""
    blocks: list[RenderableType] = [] if remarks else [Text("ok: nothing to remark", style="green")]
    for remark in remarks:
        style = "bold red" if remark.level == "error" else "bold yellow"
        where = "" if remark.text.startswith(remark.path) else f"{remark.path}: "
        text = Text.assemble((f"{remark.level}: ", style), where, remark.text)
        blocks.append(Group(text, Text(f"  {remark.next}", style="dim")) if remark.next else text)
    if proof is not None:
        head, *rest = proof.lines()
        blocks += [Text(), Text("Proof", style="bold"), *([Text(f"  {proof.about}", style="dim")] * bool(proof.about))]
        blocks.append(Text(f"  {head}", style="" if proof.legal else "bold red"))
        blocks += [Text(f"  {line}") for line in rest]
    return Group(*blocks)


def profile_view(profile: Profile, kept: Path | None) -> RenderableType:
    """Returns a measured device: its figures with 80 % intervals, what a unit of work costs a core, what to do next."""
    machine, core, sure = profile.machine, profile.core, profile.intervals
    peaks = [(f"{name} products", f"peak.{name}", rate, "FLOP/s") for name, rate in profile.device["peak"].items()]
    figures = [(what, show(value, unit), _between(sure[key], unit)) for what, key, value, unit in (
        *peaks, ("memory, read and written", "bandwidth", profile.device["bandwidth"], "B/s"),
    )]  # fmt: skip
    scaling = profile.readings.scaling
    cores = f"{machine.cores} cores do the work of {scaling['product']:.2f} (products), {scaling['copy']:.2f} (memory)"
    costs = [(name, show(cost, "s"), _between(core.intervals[name], "s")) for name, cost in core.costs.items()]
    blocks: list[RenderableType] = [
        Text(f"{machine.id}: {machine.name}", style="bold"), Text(cores), Text(),
        rows_table(("All cores", "", "80 %"), figures, right=(1, 2)), Text(),
        rows_table(("One core, seconds of one", "", "80 %"), costs, right=(1, 2)), Text(),
    ]  # fmt: skip
    if profile.busy:
        load = f"load {profile.readings.load:.1f} per core"
        blocks.append(Text(f"other work ran ({load}): what all cores do is understated", style="bold yellow"))
    if profile.doubted:
        blocks.append(Text(f"probably disturbed, measure again: {', '.join(profile.doubted)}", style="bold yellow"))
    blocks.append(Text(profile.device["power"]["source"].replace("not measured", "power is not measured"), style="dim"))
    if kept is None:
        blocks.append(Text('keep it with --out profile.toml, then write devices = "1x ./profile.toml"', style="dim"))
    return Group(*blocks)


def pairs(cells: Sequence[tuple[str, str]], across: int = 2) -> Table:
    """Returns names and what they are, ``across`` of them to a row."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, GAP, 0, 0))
    for i in range(0, len(cells), across):
        row = cells[i : i + across]
        table.add_row(*(Text(c, style="dim" if j % 2 == 0 else "") for pair in row for j, c in enumerate(pair)))
    return table


def _between(ends: tuple[float, float], unit: str) -> str:
    return f"{show(ends[0], unit)} to {show(ends[1], unit)}"


def rows_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int = 0, drop: int = 0
) -> Table:
    """Returns a plain table; its first column is never broken.

    Args:
        heads: of the columns.
        rows: their cells.
        right: columns that are flush right.
        width: columns of the terminal; the last ``drop`` columns are left out where they do not fit it.
        drop: how many.
    """
    wide = [max(map(cell_len, cells)) + GAP for cells in zip(heads, *rows, strict=True)]
    kept = len(heads)
    while width and kept > len(heads) - drop and sum(wide[:kept]) > width:
        kept -= 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim")
    for i, head in enumerate(heads[:kept]):
        table.add_column(head, justify="right" if i in right else "left", overflow="fold", no_wrap=i == 0 and width > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:kept]))
    return table


def _metrics(outcome: Outcome, width: int) -> Table:
    """The metrics beside latency, in as many pairs of columns as fit."""
    goal = words.GOAL_METRIC
    rows = [
        ("throughput", "Throughput"), ("goodput", "Goodput"), ("cost", "Cost"), (goal["cost"], "Cost per M tokens"),
        ("energy", "Energy"), (goal["energy"], "Energy per M tokens"), ("carbon", "Carbon"),
        (goal["carbon"], "Carbon per M tokens"), ("power", "Mean power"), ("makespan", "Time span"),
        ("mfu", "Compute used"), ("mbu", "Bandwidth used"), ("preemptions", "Pre-emptions"), ("devices", "Devices"),
    ]  # fmt: skip
    first = (("quality", "Right answers"), ("bytes", "Sent"))
    rows = [*(row for row in first if row[0] in outcome.metrics), *rows]
    cells = [(name, words.metric(outcome, path)) for path, name in rows]
    return pairs(cells, 2 if width < 110 else 3)


def _limits_cell(key: str, limits: Mapping[str, Mapping[str, Any]]) -> Text:
    text = Text()
    for metric, check in limits.items():
        if metric.startswith(f"{key}."):
            statistic = metric.partition(".")[2]
            text.append(
                f"{statistic} {words.number(check['limit'], metric)} ", style="green" if check["met"] else "red"
            )
            text.append("met" if check["met"] else "missed", style="green" if check["met"] else "red")
    return text


def _missed_table(missed: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    rows = too_slow(missed)
    if not rows:
        return []
    table = rows_table(("Too slow", "Layout", "Its value, of the limit"), rows, right=(2,))
    table.caption_justify = "left"
    others = sum(not row["every_layout"] for row in missed)
    if others:
        some = "another layout" if others == 1 else f"{others} layouts"
        table.caption = f"and {some} where others on as many devices meet the SLO (--json)"
    return [table, Text()]


def rejected_table(rejected: Sequence[Mapping[str, Any]]) -> Table:
    """Returns what cannot run, with the constraint that binds."""
    rows = [(str(r["family"]), str(r["constraint"]), words.need(r)) for r in rejected[:SHOWN]]
    table = rows_table(("Rejected", "Binding constraint", "Needs, of what there is"), rows, right=(2,))
    table.caption_justify = "left"
    if len(rejected) > SHOWN:
        table.caption = f"and {len(rejected) - SHOWN} more (--json)"
    return table


def bullets(title: str, sentences: Sequence[str], *, dim: bool = False) -> RenderableType:
    """Returns sentences under a title, or nothing where there are none."""
    if not sentences:
        return Text()
    lines = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        lines.add_row("  •", Text(sentence), style="dim" if dim else "")
    return Group(Text(title, style="dim"), lines, Text())
