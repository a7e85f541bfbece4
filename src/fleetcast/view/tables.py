"""Tables and sentences for the terminal. What stands in a cell is decided in `words`; here it is laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view import figures, words

if TYPE_CHECKING:
    from fleetcast.scenario.load import Scenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.advice.advisor import Advice
    from fleetcast.search.capacity import Load, Need
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

SHOWN = 12
"""Rejected families that are listed; --json and the report hold them all."""
_GAP = 2


@dataclass(frozen=True)
class Column:
    """A column: heading, what stands in it, and which goes first where the terminal is narrow (0 stays always)."""

    head: str
    cell: Callable[[Any], str]
    drop: int = 0
    right: bool = True
    plain: bool = True


def fitted(columns: Sequence[Column], rows: Sequence[Any], width: int) -> list[tuple[Column, list[str]]]:
    """Returns the columns with their cells that fit into ``width``, those with the highest ``drop`` left out first."""
    filled = [(column, [column.cell(row) for row in rows]) for column in columns]

    def wide() -> int:
        return sum(max(map(cell_len, [c.head, *cells])) + _GAP for c, cells in filled)

    while wide() > width and any(c.drop for c, _ in filled):
        filled.remove(max(filled, key=lambda pair: pair[0].drop))
    return filled


def _with_interval(path: str) -> Callable[[Outcome], str]:
    return lambda outcome: words.metric(outcome, path)


def _bare(path: str) -> Callable[[Outcome], str]:
    return lambda outcome: words.metric(outcome, path).partition(" ±")[0]


def _plan_columns(width: int) -> list[Column]:
    value = _with_interval if width >= 110 else _bare
    goal = words.GOAL_METRIC
    return [
        Column("Plan", lambda o: words.plan_name(o.plan), right=False),
        Column("Batch", lambda o: words.policy_brief(o.plan), right=False),
        Column("Weights", lambda o: words.precision_name(o.plan), drop=9, right=False),
        Column("GPUs", lambda o: str(o.metrics.get("devices", "–")), drop=6),
        Column("TTFT p50", _bare("ttft.p50"), drop=8),
        Column("TTFT p99", value("ttft.p99")),
        Column("TPOT p99", value("tpot.p99")),
        Column("Tokens/s", lambda o: f"{o.metrics['throughput']:,.0f}", drop=3),
        Column("$/M tok", _bare(goal["cost"])),
        Column("Energy/M", _bare(goal["energy"]), drop=4),
        Column("CO2e/M", _bare(goal["carbon"]), drop=5),
        Column("SLO", slo_word, right=False),
    ]


def _tier_columns() -> list[Column]:
    """Columns of cascades over tiers, all of them means per answer."""
    return [
        Column("Answers", lambda o: words.plan_name(o.plan), right=False, plain=False),
        Column("Right", _bare("quality")),
        Column("TTFT", _bare("ttft.mean")),
        Column("E2E", _bare("e2e.mean")),
        Column("Energy", _bare("energy")),
        Column("Sent", _bare("bytes")),
        Column("$ per 1,000", lambda o: words.show_money(1000 * o.metrics["cost"])),
        Column("SLO", slo_word, right=False),
    ]


def slo_word(outcome: Outcome) -> str:
    """Returns "met", "missed", or "–" where nothing is limited."""
    if not outcome.slo.get("checks"):
        return "–"
    return "met" if outcome.slo["met"] else "missed"


def plans_table(plans: Sequence[Outcome], best: Outcome | None, width: int) -> Table:
    """Returns the ranking as a table that fits ``width``, the best plan in bold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="dim")
    tiers = any(o.plan.get("cascade") for o in plans)
    filled = [(c, [c.cell(o) for o in plans]) for c in _tier_columns()] if tiers else []
    filled = filled or fitted(_plan_columns(width), plans, width)
    for column, _ in filled:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=column.plain)
    for i, outcome in enumerate(plans):
        cells = [Text(cells[i]) for _, cells in filled]
        cells[-1].stylize({"met": "green", "missed": "red"}.get(cells[-1].plain, ""))
        chosen = best is not None and outcome.plan == best.plan
        table.add_row(*cells, style="bold" if chosen else "" if outcome.slo.get("met", True) else "dim")
    return table


def ranking_view(scenario: Scenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the verdict, the ranking, why, what was rejected, the space."""
    best = ranking.best
    plans = ranking.plans
    if best is None:
        plans = ranking.misses
        head = Text(words.failure(ranking) + (". Nearest misses:" if plans else "."), style="bold red")
        why = words.binding(plans[0]) if plans else []
    else:
        rest = "" if best.plan.get("cascade") else f", {words.policy_name(best.plan)}"
        head = Text.assemble("Best: ", (words.plan_name(best.plan), "bold"), rest)
        why = words.why(best, [*ranking.plans, *ranking.misses], scenario.objective)
    parts: list[RenderableType] = [Text(words.question(scenario), style="dim"), Text(), head]
    if plans:
        parts += [Text(), plans_table(plans, best, width), Text()]
    parts.append(_bullets("Why" if best is not None else "What binds", why))
    if ranking.rejected:
        parts += [_rejected_table(ranking.rejected), Text()]
    parts.append(_bullets("Space searched", ranking.lines(), dim=True))
    shown = best or (plans[0] if plans else None)
    if shown is not None and shown.notes:
        parts.append(_bullets("Taken as given", shown.notes, dim=True))
    return Group(*parts)


def outcome_view(scenario: Scenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: latencies, the rest of the metrics, where time and energy went, notes."""
    head = Text.assemble(
        (words.plan_name(outcome.plan), "bold"),
        f", {words.policy_name(outcome.plan)}, {words.precision_name(outcome.plan)}",
    )
    latency = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="dim"
    )
    for name in ("", "mean", "p50", "p90", "p99", "p99, 80 % interval", "limit"):
        latency.add_column(name, justify="right" if name else "left", no_wrap=True)
    limits = {c["metric"]: c for c in outcome.slo.get("checks", ())}
    for key in ("ttft", "tpot", "e2e"):
        cells = [_bare(f"{key}.{s}")(outcome) for s in ("mean", "p50", "p90", "p99")]
        latency.add_row(key.upper(), *cells, words.interval_text(outcome, f"{key}.p99"), _limits_cell(key, limits))
    parts: list[RenderableType] = [
        Text(words.question(scenario, goals=False), style="dim"),
        Text(),
        head,
        Text(),
        latency,
        Text(),
    ]
    parts += [_pairs(outcome, width), Text()]
    for kind in ("time", "energy", "memory"):
        whole = figures.breakdown_info(outcome, kind)
        if whole is not None:
            shares = ", ".join(f"{words.TERMS.get(p.name, p.name)} {p.share:.0%}" for p in whole.parts)
            parts.append(Text.assemble((f"{whole.name}: ", "dim"), shares))
    parts.append(Text())
    parts.append(_bullets("What binds", words.binding(outcome)))
    if outcome.notes:
        parts.append(_bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def load_view(scenario: Scenario, load: Load, width: int) -> RenderableType:
    """Returns the largest load that is held, by which plan, what binds it, and the loads that were tried."""
    question = Text(words.question(scenario, goals=False), style="dim")
    tried = [(f"{factor:.3g} times", "met" if met else "missed") for factor, met in sorted(load.tried)]
    table = rows_table(("Load", "SLO"), tried, right=(0,))
    if load.outcome is None:
        return Group(question, Text(), Text("No load that was tried meets the SLO.", style="bold red"), Text(), table)
    rate = show(load.rate, "requests/s")
    head = Text.assemble("Holds ", (rate, "bold"), f", {load.factor:.3g} times the scenario's load")
    parts: list[RenderableType] = [question, Text(), head, Text()]
    parts += [
        plans_table([load.outcome], load.outcome, width),
        Text(),
        _bullets("What binds", words.binding(load.outcome)),
    ]
    return Group(*parts, table)


def needs_view(scenario: Scenario, needs: Sequence[Need], width: int) -> RenderableType:
    """Returns how many devices of each kind the load needs, cheapest first."""
    rows = []
    for need in needs:
        if need.outcome is not None:
            cost = words.metric(need.outcome, words.GOAL_METRIC["cost"]).partition(" ±")[0]
            plan = f"{words.plan_name(need.outcome.plan)}, {words.policy_brief(need.outcome.plan)}"
            rows.append((need.kind, str(need.devices), cost, plan))
        else:
            why = need.constraint or "the nearest plan misses the SLO"
            rows.append((need.kind, f"> {need.most}", "–", why))
    table = rows_table(("Device", "Needed", "$/M tok", "Plan"), rows, right=(1, 2), width=width)
    return Group(Text(words.question(scenario, goals=False), style="dim"), Text(), table)


def remarks_view(remarks: Sequence[Remark]) -> RenderableType:
    """Returns what `check` found, one block a remark."""
    if not remarks:
        return Text("ok: nothing to remark", style="green")
    blocks = []
    for remark in remarks:
        style = "bold red" if remark.level == "error" else "bold yellow"
        where = "" if remark.text.startswith(remark.path) else f"{remark.path}: "
        text = Text.assemble((f"{remark.level}: ", style), where, remark.text)
        blocks.append(Group(text, Text(f"  {remark.next}", style="dim")) if remark.next else text)
    return Group(*blocks)


def advice_view(found: Sequence[Advice], width: int) -> RenderableType:
    """Returns how a model runs on each device: what fits, how fast, at what cost in quality; and what does not fit."""
    parts: list[RenderableType] = []
    for advice in found:
        verb = "runs" if advice.options else "does not run"
        parts.append(Text.assemble((f"{advice.model} {verb} on {advice.device}", "bold"), f", {advice.engine}"))
        rows = [
            (
                o.technique, o.model, show(o.bytes, "B"), f"{show(o.elsewhere, 'B')} in {o.where}" if o.where else "",
                show(o.ttft, "s"), show(o.tpot, "s"), o.quality,
            )
            for o in advice.options
        ]  # fmt: skip
        if rows:
            have = show(advice.options[0].have, "B")
            heads = ("Technique", "Model", f"Of {have}", "Elsewhere", "TTFT", "A token", "Quality lost")
            parts += [Text(), rows_table(heads, rows, right=(2, 4, 5), width=width)]
        sentences = [
            f"{r.technique}: {r.why}" + (f", {show(r.need, 'B')} of {show(r.have, 'B')}" if r.have else "")
            for r in advice.refused
        ]
        sources = dict.fromkeys(o.source for o in advice.options if o.source)
        parts += [Text(), _bullets("Not possible, or of no use", sentences, dim=True)]
        parts.append(_bullets("Sources", list(sources), dim=True))
    return Group(*parts)


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
    wide = [max(map(cell_len, cells)) + _GAP for cells in zip(heads, *rows, strict=True)]
    kept = len(heads)
    while width and kept > len(heads) - drop and sum(wide[:kept]) > width:
        kept -= 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="dim")
    for i, head in enumerate(heads[:kept]):
        table.add_column(head, justify="right" if i in right else "left", overflow="fold", no_wrap=i == 0 and width > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:kept]))
    return table


def _pairs(outcome: Outcome, width: int) -> Table:
    """The metrics beside latency, in as many pairs of columns as fit."""
    goal = words.GOAL_METRIC
    rows = [
        ("throughput", "Throughput"), ("goodput", "Goodput"), ("cost", "Cost"), (goal["cost"], "Cost per M tokens"),
        ("energy", "Energy"), (goal["energy"], "Energy per M tokens"), ("carbon", "Carbon"),
        (goal["carbon"], "Carbon per M tokens"), ("power", "Mean power"), ("makespan", "Time span"),
        ("mfu", "Compute used"), ("mbu", "Bandwidth used"), ("preemptions", "Pre-emptions"), ("devices", "Devices"),
    ]  # fmt: skip
    if "quality" in outcome.metrics:
        rows = [("quality", "Right answers"), ("bytes", "Sent"), *rows]
    cells = [(name, words.metric(outcome, path)) for path, name in rows]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, _GAP, 0, 0))
    pairs = 2 if width < 110 else 3
    for i in range(0, len(cells), pairs):
        row = cells[i : i + pairs]
        table.add_row(*(Text(c, style="dim" if j % 2 == 0 else "") for pair in row for j, c in enumerate(pair)))
    return table


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


def _rejected_table(rejected: Sequence[Mapping[str, Any]]) -> Table:
    rows = [(str(r["family"]), str(r["constraint"]), words.need(r)) for r in rejected[:SHOWN]]
    table = rows_table(("Rejected", "Binding constraint", "Needs, of what there is"), rows, right=(2,))
    if len(rejected) > SHOWN:
        table.caption = f"and {len(rejected) - SHOWN} more (--json)"
    return table


def _bullets(title: str, sentences: Sequence[str], *, dim: bool = False) -> RenderableType:
    if not sentences:
        return Text()
    lines = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        lines.add_row("  •", Text(sentence), style="dim" if dim else "")
    return Group(Text(title, style="dim"), lines, Text())
