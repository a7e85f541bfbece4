"""One HTML file that says which plan is best and why: no network, no script, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.cost.engine import engine
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.load import ServingScenario
from fleetcast.view import figures, plots, words
from fleetcast.view.accuracy import accuracy_rows, concerning, forecast_errors
from fleetcast.view.missed import too_slow
from fleetcast.view.page import bars, listing, page, section, table, tile, tiles, title
from fleetcast.view.svg import escape
from fleetcast.view.worth import worth_lines

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

SHOWN_PLANS = 40
"""Rows of the table of plans; the whole list is in outcome.json."""

TILES = (
    ("ttft.p99", "First token, p99"), ("tpot.p99", "Per output token, p99"),
    ("throughput", "Throughput"), (words.GOAL_METRIC["cost"], "Cost per M tokens"),
    (words.GOAL_METRIC["energy"], "Energy per M tokens"), (words.GOAL_METRIC["carbon"], "Carbon per M tokens"),
)  # fmt: skip


def plan_report(scenario: ServingScenario, ranking: Ranking, best: Outcome | None) -> str:
    """Returns the page of a search.

    Args:
        scenario: the question.
        ranking: the answer.
        best: the best plan simulated with its event record (or the nearest miss), for the figures over time.
    """
    shown = best or (ranking.misses[0] if ranking.misses else None)
    feasible = ranking.best is not None
    rest = ""
    if shown is not None:
        rest = _rest(shown) if feasible else f"The nearest miss: {words.plan_name(shown.plan)}; {_rest(shown)}"
    parts = [_title(scenario, _verdict(ranking), rest, "", feasible)]
    if shown is not None:
        parts.append(_tiles(shown))
        reasons = words.binding(shown)
        if feasible:
            why = words.why(shown, seen(ranking), scenario.objective)
            reasons = [*why[:1], *worth_lines(ranking), *why[1:]]
        head = "Why this plan" if feasible else "What the nearest miss lacks"
        parts.append(section(head, listing(reasons), card=False))
        parts.append(_frontier(scenario, ranking))
        parts += _outcome_sections(scenario, shown)
    if shown is not None:
        parts.append(_plans(ranking))
    parts += [_too_slow(ranking), _rejected(ranking)]
    return _page(scenario, parts, shown)


def outcome_report(scenario: ServingScenario, outcome: Outcome) -> str:
    """Returns the page of one simulated or measured plan."""
    met = bool(outcome.slo.get("met", True))
    name = words.plan_name(outcome.plan)
    badge = "" if not outcome.slo.get("checks") else "meets the SLO" if met else "misses the SLO"
    parts = [_title(scenario, name, _rest(outcome), badge, met, goals=False), _tiles(outcome)]
    parts.append(section("What binds", listing(words.binding(outcome)), card=False))
    parts += _outcome_sections(scenario, outcome)
    return _page(scenario, parts, outcome)


def seen(ranking: Ranking) -> list[Outcome]:
    """Returns every outcome that a ranking holds, ranked plans first, each once."""
    return list({id(o): o for o in (*ranking.plans, *ranking.frontier, *ranking.misses)}.values())


def _verdict(ranking: Ranking) -> str:
    best = ranking.best
    if best is None:
        return words.failure(ranking)
    return f"Best: {words.plan_name(best.plan)}"


def _rest(outcome: Outcome) -> str:
    """What the short name of a plan leaves out."""
    engines = dict.fromkeys(str(p.get("engine", "")) for p in outcome.plan.get("pools", [outcome.plan]))
    return f"{words.policy_name(outcome.plan)}; {words.precision_name(outcome.plan)}; {' + '.join(engines)}"


def _title(scenario: ServingScenario, headline: str, rest: str, badge: str, good: bool, *, goals: bool = True) -> str:
    return title(headline, rest, badge, good, words.question(scenario, goals=goals))


def _tiles(outcome: Outcome) -> str:
    made = []
    failed = {c["metric"] for c in outcome.slo.get("checks", ()) if not c["met"]}
    limits = {c["metric"]: c["limit"] for c in outcome.slo.get("checks", ())}
    for path, name in TILES:
        value, _, interval = words.metric(outcome, path).partition(" ±")
        notes = [f"±{interval}"] if interval and interval != "0%" else []
        if path in limits:
            notes.append(f"limit {words.number(limits[path], path)}")
        made.append(tile(name, value, ", ".join(notes), bad=path in failed))
    return tiles(made)


def _frontier(scenario: ServingScenario, ranking: Ranking) -> str:
    info = figures.frontier_info(ranking, scenario.slo)
    if info is None or len(info.points) < 2:
        return ""
    lead = f"Each dot is a plan; point at one for its name. {ranking.lines()[-1].capitalize()}."
    if scenario.slo.limits() and ranking.counts["bounded"] and not ranking.misses:
        lead += " A plan that must miss the SLO is not simulated to its end and has no dot."
    return section("The plans", plots.draw_scatter(info), lead)


def _outcome_sections(scenario: ServingScenario, outcome: Outcome) -> list[str]:
    sections = []
    curves = figures.latency_info(outcome, scenario.slo)
    if curves:
        drawn = "".join(f"<div>{plots.draw_curve(c)}</div>" for c in curves)
        traffic = figures.traffic_info(outcome)
        lead = (
            f"Share of {traffic['requests']:,.0f} requests answered within a time; "
            f"{traffic['prompt_tokens']:,.0f} prompt and {traffic['output_tokens']:,.0f} output tokens "
            f"in {show(traffic['seconds'], 's')}."
        )
        sections.append(section("Latency", f'<div class="three">{drawn}</div>', lead))
    timeline = figures.timeline_info(outcome)
    if timeline is not None:
        lead = "Mean over replicas as a line, the least and the most of any replica as a band."
        sections.append(section("Over time", plots.draw_timeline(timeline), lead))
    wholes = [w for w in (figures.breakdown_info(outcome, k) for k in ("time", "energy", "memory")) if w]
    if wholes:
        drawn = bars([(w.name, plots.amount(w.total, w.unit, w.total), plots.draw_whole(w)) for w in wholes])
        sections.append(section("Where it goes", drawn))
    return sections


def _plans(ranking: Ranking) -> str:
    plans = (ranking.plans or ranking.misses)[:SHOWN_PLANS]
    goal = words.GOAL_METRIC
    numbers = {
        "Devices": "devices", "TTFT p50": "ttft.p50", "TTFT p99": "ttft.p99", "TPOT p99": "tpot.p99",
        "Tokens/s": "throughput", "Cost/M": goal["cost"], "Energy/M": goal["energy"], "Carbon/M": goal["carbon"],
    }  # fmt: skip
    names: dict[str, Callable[[Mapping[str, Any]], str]] = {"Plan": words.plan_name, "Batch": words.policy_brief}
    if len({words.precision_name(o.plan) for o in plans}) > 1:
        names["Weights"] = words.precision_name
    rows = []
    for outcome in plans:
        met = outcome.slo.get("met", True)
        cells = [f'<td class="name">{escape(name(outcome.plan))}</td>' for name in names.values()]
        for path in numbers.values():
            value, _, interval = words.metric(outcome, path).partition(" ±")
            value = plots.three_digits(value)
            title = words.interval_text(outcome, path)
            tip = f' title="80 % interval: {escape(title)}"' if interval else ""
            cells.append(f'<td class="n"{tip}>{escape(value.removesuffix(" tokens/s"))}</td>')
        missed = "; ".join(words.limit_text(c) for c in outcome.slo.get("checks", ()) if not c["met"])
        cells.append("<td>met</td>" if met else f'<td class="no" title="{escape(missed)}">missed</td>')
        kind = "best" if outcome is ranking.best else "" if met else "missed"
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    head = "".join(f"<th>{h}</th>" for h in names) + "".join(f"<th class=n>{h}</th>" for h in numbers) + "<th>SLO</th>"
    lead = "Best first; batch is token budget / requests. Point at a latency for its 80 % interval."
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return section("Ranking" if ranking.plans else "Nearest misses", drawn, lead)


def _too_slow(ranking: Ranking) -> str:
    """Per number of devices with which nothing meets the SLO: the layout tried furthest, and its value."""
    found = too_slow(ranking.missed)
    if not found:
        return ""
    lead = "Layouts that fit and miss the SLO, where no layout of as many devices meets it."
    return section("Too slow", table(("With", "Layout", "Its value, of the limit"), found, right=(2,)), lead)


def _rejected(ranking: Ranking) -> str:
    if not ranking.rejected:
        return ""
    rows = [(str(r["family"]), str(r["constraint"]), words.need(r)) for r in ranking.rejected]
    heads = ("Family", "Binding constraint", "Needs, of what there is")
    return section("Rejected before simulation", table(heads, rows, right=(2,)))


def _accuracy(scenario: ServingScenario, outcome: Outcome) -> str:
    pools = outcome.plan.get("pools", [outcome.plan])
    groups = resolve(scenario.fleet, Path(scenario.folder)).groups
    homes = {pool["on"] for pool in pools if pool.get("on")} or {group.name for group in groups}
    records, gap = concerning(
        forecast_errors(),
        list(dict.fromkeys(p.family or p.id for p in (engine(str(pool["engine"])) for pool in pools))),
        list(dict.fromkeys(group.device.id for group in groups if group.name in homes)),
        {limit.partition(".")[0] for limit in scenario.slo.limits()} & {"ttft", "tpot"} or {"ttft", "tpot"},
    )
    rows = accuracy_rows(records)
    if not rows:
        body = "<p>No forecast-error records are packaged with this copy; <code>make evidence</code> makes them.</p>"
        return section("How far to trust this", body)
    heads = ("Forecast against measured servers", "Ours", "Trivial rule", "Bar", "Holds")
    lead = "What forecasts of this kind missed by on measured servers: the packaged records that concern this plan."
    lead = f"{lead} {gap}".strip()
    return section("How far to trust this", table(heads, rows, right=(1,)), lead)


def _page(scenario: ServingScenario, parts: Sequence[str], outcome: Outcome | None) -> str:
    parts = [*parts, *([_accuracy(scenario, outcome)] if outcome is not None else [])]
    return page(scenario, parts, outcome)
