"""The terminal's picture of many jobs: one outcome with the fleet over time, ranked policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.scenario.fleet.failures import duration
from fleetcast.search.jobs import is_null
from fleetcast.search.ranking import label
from fleetcast.view.jobs.figures import fleet_info
from fleetcast.view.ranked import Shown, counts, lasts, ranked_view, shares, shown, why
from fleetcast.view.tables import bullets, pairs, rows_table
from fleetcast.view.words import UNKNOWN, show_energy

if TYPE_CHECKING:
    from fleetcast.scenario.load import JobsScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

FIRST = "first come, first served"
BARS = " ▁▂▃▄▅▆▇█"


def outcome_view(scenario: JobsScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, the fleet over time, use of each kind of device, notes."""
    parts: list[RenderableType] = [
        Text(question(scenario, outcome), style="dim"), Text(), Text(label(outcome), style="bold"), Text(),
        headline(outcome), Text(), timeline(outcome, width), Text(), devices(outcome, width), Text(),
        bullets("Taken as given", outcome.notes, dim=True),
    ]  # fmt: skip
    return Group(*parts)


def question(scenario: JobsScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    m = outcome.metrics
    return (
        f"{scenario.name}: {m['jobs']:,} jobs on {m['devices']:,} devices; they bring {m['load']:.0%} of what the "
        "fleet can do while they arrive."
    )


def headline(outcome: Outcome) -> Table:
    """Returns the metrics in two columns."""
    m = outcome.metrics
    cost = float(m["cost"])
    cells = [
        ("Completion, mean", duration(m["jct"]["mean"])), ("Wait, mean", duration(m["waits"]["mean"])),
        ("Completion, p50", duration(m["jct"]["p50"])), ("Wait, p99", duration(m["waits"]["p99"])),
        ("Completion, p99", duration(m["jct"]["p99"])), ("Utilisation", f"{m['utilisation']:.1%}"),
        ("Makespan", duration(m["makespan"])), ("Finished", f"{m['finished']:,} of {m['jobs']:,}"),
        ("Pre-empted", f"{m['preempted']:,}"), ("Moved", f"{m['moves']:,}"),
        ("Failures", f"{m['failures']:,}"), ("Device-hours lost", f"{m['lost'] / 3600.0:,.1f}"),
        ("Energy", show_energy(m["energy"])), ("Carbon", show(m["carbon"], "g")),
        ("Cost", UNKNOWN if cost != cost else show(cost, "$")), ("Mean power", show(m["power"], "W")),
    ]  # fmt: skip
    if "brakes" in m:
        cells += [
            ("Peak power", show(m["peak"], "W") + (f" ({m['peak_share']:.0%} of it)" if "peak_share" in m else "")),
            ("Brakes", f"{m['brakes']:,}"), ("Slowed", f"{m['capped']['low']:.1%} of the time"),
            ("Had to leave", f"{m['evicted']:,}"),
        ]  # fmt: skip
    if "late" in m:
        cells += [("Late", f"{m['late']:,}"), ("Carbon of work", show(m["work_carbon"], "g"))]
    return pairs(cells)


def timeline(outcome: Outcome, width: int) -> RenderableType:
    """Returns the share of devices at work over time; nothing where no record was kept."""
    if outcome.record is None or not len(outcome.record):
        return Text()
    info = fleet_info(outcome, "", max(10, min(100, width - 4)))
    levels = (info.busy / info.devices * (len(BARS) - 1)).round().astype(int)
    head = Text(f"Devices at work over {duration(float(info.hours[-1]) * 3600.0)}, all of them at the top", style="dim")
    return Group(head, Text("".join(BARS[min(max(v, 0), len(BARS) - 1)] for v in levels.tolist()), no_wrap=True))


def devices(outcome: Outcome, width: int) -> RenderableType:
    """Returns a row for each kind of device."""
    rows = [
        (str(r["name"]), f"{r['devices']:,}", f"{r['nodes']:,}", f"{r['busy']:.1%}", f"{r['spans']:,}")
        for r in outcome.resources
    ]  # fmt: skip
    return rows_table(("Device", "Devices", "Nodes", "At work", "Spans"), rows, right=(1, 2, 3, 4), width=width)


def ranking_view(scenario: JobsScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the policies by rank, why the best is, the space, notes."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    return ranked_view(question(scenario, best), ranking, COLUMNS, why(ranking, is_null, FIRST), width)


COLUMNS: Shown = {
    **lasts("jct.mean", "Completion"), **lasts("jct.p50", "p50"), **lasts("jct.p99", "p99"),
    **lasts("waits.mean", "Wait"), **shares("utilisation", "Used"), **lasts("makespan", "Makespan"),
    **shown("energy"), **counts("preempted", "Pre-empted"), **shown("work_carbon", "Carbon of work"),
    **counts("late", "Late"), **shown("cost"), **shown("carbon"),
}  # fmt: skip
