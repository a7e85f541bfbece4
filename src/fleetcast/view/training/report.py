"""One HTML file of a search of training plans: which is best and why, what it takes, what memory buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.view import plots, words
from fleetcast.view.accuracy import accuracy_rows, forecast_errors
from fleetcast.view.page import bars, listing, page, section, table, tile, tiles, title
from fleetcast.view.svg import escape
from fleetcast.view.training import figures, terms

if TYPE_CHECKING:
    from fleetcast.base.record import Record
    from fleetcast.scenario.load import TrainingScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

SHOWN = 40
"""Rows of the table of plans; the whole list is in outcome.json."""
TILES = (
    ("iteration_time", "Iteration"), ("mfu", "MFU"), ("throughput", "Throughput"), ("memory", "Memory"),
    ("cost", "Cost of an iteration"), ("energy", "Energy of an iteration"),
)  # fmt: skip
COLUMNS = (
    ("Iteration", "iteration_time"), ("MFU", "mfu"), ("Memory", "memory"), ("Tokens/s", "throughput"),
    ("Cost", "cost"), ("Energy", "energy"), ("Carbon", "carbon"),
)  # fmt: skip


def plan_report(
    scenario: TrainingScenario, ranking: Ranking, frontier: Sequence[Outcome] = (), log: Record | None = None
) -> str:
    """Returns the page of a search.

    Args:
        scenario: the question.
        ranking: the answer.
        frontier: the best plans within less memory, from `search.training.frontier`; () = not looked for.
        log: of the best plan's pipeline; None = there is none to show.
    """
    best = ranking.best
    shown = best or (ranking.misses[0] if ranking.misses else None)
    head = f"Best: {terms.plan_name(best.plan)}" if best is not None else "No plan fits"
    rest = "" if best is not None or shown is None else f"The nearest: {terms.plan_name(shown.plan)}"
    parts = [title(head, rest, "", best is not None, terms.question(scenario))]
    if shown is not None:
        parts.append(_tiles(shown))
        parts.append(section("Why this plan" if best is not None else "What the nearest lacks",
                             listing(_reasons(ranking, shown)), card=False))  # fmt: skip
        parts += [_frontier(ranking, frontier), _wholes(shown), _pipeline(shown, log), _plans(ranking)]
    parts += [_rejected(ranking), _space(ranking), _trust(shown)]
    return page(scenario, parts, shown)


def _reasons(ranking: Ranking, shown: Outcome) -> list[str]:
    lacks = [f"It does not fit: {problem}."] if (problem := terms.over(shown)) else []
    others = terms.why(shown, ranking.plans[1:]) if ranking.best is not None else []
    return [*lacks, *terms.binding(shown), *others]


def _tiles(outcome: Outcome) -> str:
    made = []
    for path, name in TILES:
        value, _, interval = terms.metric(outcome, path).partition(" ±")
        note = f"±{interval}" if interval and interval != "0%" else ""
        if path == "memory" and (full := float(outcome.provenance.get("memory", 0.0))):
            note = f"of {show(full, 'B')}"
        made.append(tile(name, value, note, bad=path == "memory" and not outcome.metrics.get("fits", True)))
    return tiles(made)


def _frontier(ranking: Ranking, frontier: Sequence[Outcome]) -> str:
    info = figures.frontier_info(ranking, frontier) if all("memory" in o.metrics for o in ranking.plans) else None
    if info is None or len(info.points) < 2:
        return ""
    lead = (
        "Each dot is a plan; point at one for its name. The line joins the best plans within shares of a device's "
        "memory, the whole space searched for each; the dashed line is all of it."
    )
    return section("Time against memory", plots.draw_scatter(info), lead)


def _wholes(outcome: Outcome) -> str:
    found = figures.wholes(outcome)
    if not found:
        return ""
    drawn = [(w.name, plots.amount(w.total, w.unit, w.total), plots.draw_whole(w)) for w in found]
    lead = "Each second of an iteration is told once, under the term that nothing else of the device hides."
    return section("Where it goes", bars(drawn), lead)


def _pipeline(outcome: Outcome, log: Record | None) -> str:
    info = figures.pipeline_info(log)
    if info is None:
        return ""
    lead = f"{outcome.metrics['micro_batches']:,} micro-batches over {len(info.lanes)} stages; grey is the bubble."
    if info.left_out:
        lead += f" The first {len(info.spans):,} of {len(info.spans) + info.left_out:,} passes; --out writes a trace."
    return section("The pipeline", figures.draw_pipeline(info), lead)


def _plans(ranking: Ranking) -> str:
    plans = (ranking.plans or ranking.misses)[:SHOWN]
    rows = []
    for outcome in plans:
        cells = [f'<td class="name">{escape(terms.plan_name(outcome.plan))}</td>']
        for _, path in COLUMNS:
            value, _, interval = terms.metric(outcome, path).partition(" ±")
            tip = f' title="80 % interval: ±{escape(interval)}"' if interval else ""
            cells.append(f'<td class="n"{tip}>{escape(plots.three_digits(value).removesuffix(" tokens/s"))}</td>')
        kind = "best" if outcome is ranking.best else "" if outcome.metrics.get("fits", True) else "missed"
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    head = "<th>Plan</th>" + "".join(f"<th class=n>{name}</th>" for name, _ in COLUMNS)
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    lead = "The best plan of each way to spread the model, best first. Point at a number for its interval."
    return section("Ranking" if ranking.plans else "Nearest", drawn, lead)


def _rejected(ranking: Ranking) -> str:
    if not ranking.rejected:
        return ""
    rows = [(str(r["family"]), str(r["constraint"]), words.need(r)) for r in ranking.rejected]
    heads = ("Tensor and pipeline parallelism", "Binding constraint", "The leanest plan needs, of what there is")
    lead = "Of these no plan fits, whatever is recomputed, shared out or moved away."
    return section("Rejected", table(heads, rows, right=(2,)), lead)


def _space(ranking: Ranking) -> str:
    return section("The space", listing(ranking.lines()), "Every plan was asked; none was sampled.", card=False)


def _trust(outcome: Outcome | None) -> str:
    records = [r for r in forecast_errors() if _about_training(r)]
    rows = accuracy_rows(records)
    if outcome is None or not rows:
        return ""
    heads = ("Forecast against published iterations", "Ours", "Trivial rule", "Bar", "Holds")
    source = str(outcome.provenance.get("practice", ""))
    lead = f"What forecasts of this kind missed by. This plan's factors: {source}." if source else ""
    return section("How far to trust this", table(heads, rows, right=(1,)), lead)


def _about_training(record: Mapping[str, Any]) -> bool:
    return "accuracy_training" in str(record.get("command", ""))
