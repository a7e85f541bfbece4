"""The terminal's picture of functions: one outcome with its regions and parts of starts, ranked scale policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.mining.coldstart import WORDS
from fleetcast.search.functions.ranking import is_null
from fleetcast.search.ranking import label
from fleetcast.view import ranked
from fleetcast.view.ranked import Shown, cell, counts, ranked_view, shown
from fleetcast.view.tables import bullets, pairs, rows_table
from fleetcast.view.training.screens import bars
from fleetcast.view.words import UNKNOWN, show_energy

if TYPE_CHECKING:
    from fleetcast.scenario.load import FunctionsScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

LIVES = {"starting": "starting", "running": "running", "idle": "warm, idle"}


def outcome_view(scenario: FunctionsScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, regions, where starts and pods spend their time, notes."""
    cold, lives = outcome.breakdown["cold"], outcome.breakdown["pods"]
    parts: list[RenderableType] = [
        Text(question(scenario, outcome), style="dim"), Text(), Text(f"Scale {label(outcome)}", style="bold"), Text(),
        headline(outcome), Text(), regions(outcome, width), Text(),
        bars("What starts take", cold, WORDS, sum(cold.values()), "s", width), Text(),
        bars("What pods do", lives, LIVES, sum(lives.values()), "s", width), Text(),
        bullets("Taken as given", outcome.notes, dim=True),
    ]  # fmt: skip
    return Group(*parts)


def question(scenario: FunctionsScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    m = outcome.metrics
    return (
        f"{scenario.name}: {m['requests']:,} invocations of {m['functions']:,} functions in "
        f"{len(outcome.resources)} regions, {m['devices']:,} nodes."
    )


def headline(outcome: Outcome) -> Table:
    """Returns the metrics in two columns."""
    m, cold = outcome.metrics, outcome.metrics["cold_starts"]
    cost = float(m["cost"])
    cells = [
        ("Cold starts", f"{cold['count']:,} ({cold['share']:.2%})"), ("Pod-seconds", f"{m['pod_seconds']:,.0f}"),
        ("Latency, mean", show(m["latency"]["mean"], "s")), ("Pods, at most at once", f"{m['peak_pods']:,}"),
        ("Latency, p99", show(m["latency"]["p99"], "s")), ("Utility of a pod, median", f"{m['utility']['p50']:.2f}"),
        ("Latency, p50", show(m["latency"]["p50"], "s")), ("Pods of utility below 1", f"{m['utility']['below_1']:.0%}"),
        ("Energy", show_energy(m["energy"])), ("Carbon", show(m["carbon"], "g")),
        ("Cost", UNKNOWN if cost != cost else show(cost, "$")), ("Delayed", f"{m['delayed']:,}"),
    ]  # fmt: skip
    if "queued" in m:
        cells += [("Queued for memory", f"{m['queued']:,}"), ("Warm pods ended for others", f"{m['ended']:,}")]
    return pairs(cells)


def regions(outcome: Outcome, width: int) -> RenderableType:
    """Returns a row for each region."""
    rows = [
        (
            str(r["name"]), f"{r['requests']:,}", f"{r['cold_starts']:,}", f"{r['pod_seconds']:,.0f}",
            show_energy(r["energy"]), show(r["carbon"], "g"),
            f"{WORDS[r['dominant']]} {r['parts'][r['dominant']] / max(sum(r['parts'].values()), 1e-12):.0%}"
            if r["dominant"] else "",
        )
        for r in outcome.resources
    ]  # fmt: skip
    heads = ("Region", "Requests", "Cold starts", "Pod-seconds", "Energy", "Carbon", "Most of a start")
    return rows_table(heads, rows, right=(1, 2, 3, 4, 5), width=width)


def ranking_view(scenario: FunctionsScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the policies by rank, why the best is, the space, notes."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    return ranked_view(question(scenario, best), ranking, COLUMNS, why(ranking), width)


COLUMNS: Shown = {
    **counts("cold_starts.count", "Cold starts"),
    "pod_seconds": ("Pod-seconds", cell("pod_seconds", "{:,.0f}".format)), **shown("latency.mean", "Latency"),
    **shown("latency.p99", "p99"), **shown("carbon"), **shown("energy"), **shown("cost"),
}  # fmt: skip


def why(ranking: Ranking) -> list[str]:
    """Returns why the best is: against the null and the next, and what it takes for that."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    found = ranked.why(ranking, is_null, "a keep-alive of 60 s")
    null = ranked.null_of(ranking, is_null)
    if null is not None and null is not best:
        seconds = float(best.metrics["pod_seconds"]) / float(null.metrics["pod_seconds"])
        found.append(f"It holds pods for {seconds:.2f} x the pod-seconds of a keep-alive of 60 s.")
    return found
