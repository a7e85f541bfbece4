"""The terminal's picture of many jobs: one outcome with the fleet over time, ranked policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.base.tables import lookup
from fleetcast.scenario.fleet.failures import duration
from fleetcast.scenario.outcome import UNITS
from fleetcast.search.ranking import label
from fleetcast.view.jobs.figures import fleet_info
from fleetcast.view.tables import bullets, pairs, rows_table
from fleetcast.view.words import UNKNOWN, show_energy

if TYPE_CHECKING:
    from fleetcast.scenario.load import JobsScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

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
    parts: list[RenderableType] = [Text(question(scenario, best), style="dim"), Text()]
    parts += [Text.assemble("Best: ", (label(best), "bold")), Text()]
    heads = ("Policy", "Completion", "p50", "p99", "Wait", "Makespan", "Used", "Pre-empted", "Energy")
    rows = [_row(outcome) for outcome in ranking.plans]
    parts += [rows_table(heads, rows, right=(1, 2, 3, 4, 5, 6, 7, 8), width=width), Text()]
    parts.append(bullets("Why", why(ranking)))
    parts.append(bullets("Space searched", list(ranking.space), dim=True))
    parts.append(bullets("Taken as given", [*ranking.notes, *best.notes], dim=True))
    return Group(*parts)


def _row(outcome: Outcome) -> tuple[str, ...]:
    m = outcome.metrics
    return (
        label(outcome), duration(m["jct"]["mean"]), duration(m["jct"]["p50"]), duration(m["jct"]["p99"]),
        duration(m["waits"]["mean"]), duration(m["makespan"]), f"{m['utilisation']:.0%}", f"{m['preempted']:,}",
        show_energy(m["energy"]),
    )  # fmt: skip


def why(ranking: Ranking) -> list[str]:
    """Returns why the best is: against the null and the next."""
    best, found = ranking.best, []
    assert best is not None
    goal, path, sign = ranking.goals[0]
    value = float(lookup(best.metrics, path))
    null = next((o for o in ranking.plans if o.plan["share"] == {"kind": "fifo", "backfill": False}), None)
    word = goal.replace("_", " ")
    if null is not None and null is not best and float(lookup(null.metrics, path)) > 0:
        ratio = value / float(lookup(null.metrics, path))
        found.append(
            f"{ratio:.3g} x the {word} of first come, first served ({'less' if sign > 0 else 'more'} is better)."
        )
    if null is best:
        found.append("Nothing beats first come, first served here: the queue is short, or all jobs are alike.")
    if len(ranking.plans) > 1:
        other = ranking.plans[1]
        said = show(float(lookup(other.metrics, path)), UNITS.get(path.partition(".")[0], ""))
        found.append(f"The next, {label(other)}, comes to {said}.")
    return found
