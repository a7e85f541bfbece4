"""The terminal's picture of pods on nodes: one outcome with its tiers and who waits why, ranked place policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.search.pods import is_null
from fleetcast.search.ranking import label
from fleetcast.view.ranked import Shown, cell, counts, null_of, ranked_view, shares
from fleetcast.view.tables import bullets, pairs, rows_table

if TYPE_CHECKING:
    from fleetcast.scenario.load import PodsScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

SHOWN = 5
"""Waiting pods that are named."""


def outcome_view(scenario: PodsScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, tiers, who waits and why, notes."""
    m = outcome.metrics
    parts: list[RenderableType] = [
        Text(question(scenario, outcome), style="dim"), Text(), Text(f"Place {label(outcome)}", style="bold"), Text(),
        headline(outcome), Text(), tiers(outcome, width), Text(),
    ]  # fmt: skip
    if m["reasons"]:
        said = [f"{name}: {why}" for name, why in list(m["reasons"].items())[:SHOWN]]
        more = m["unplaced"] - len(said)
        parts.append(bullets("Wait at the end", [*said, *([f"and {more:,} more"] if more > 0 else [])]))
    parts.append(bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def question(scenario: PodsScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    m = outcome.metrics
    return f"{scenario.name}: {m['pods']:,} pods on {m['workers']:,} nodes."


def headline(outcome: Outcome) -> Table:
    """Returns the metrics in two columns."""
    m = outcome.metrics
    used, ended = m["utilisation"], m["at_end"]
    cells = [("Placed", f"{m['placed']:,} of {m['pods']:,}"), ("Moves", f"{m['moves']:,}")]
    cells += [("Waiting, mean", show(m["waits"]["mean"], "s")), ("Evictions", f"{m['evicted']:,}")]
    for name, share in ended.items():
        cells += [(f"{name.capitalize()} taken at the end", f"{share:.1%}"), ("Mean over time", f"{used[name]:.1%}")]
    if "devices" in ended:
        cells += [("Devices in fragments", f"{m['fragmentation']:.1f}"), ("Lost with nodes", f"{m['lost']:,}")]
    return pairs(cells)


def tiers(outcome: Outcome, width: int) -> RenderableType:
    """Returns a row for each priority."""
    rows = [
        (tier, f"{row['pods']:,}", f"{row['placed']:,}", f"{row['pods'] - row['placed']:,}")
        for tier, row in outcome.metrics["by_priority"].items()
    ]
    return rows_table(("Priority", "Pods", "Placed", "Waiting"), rows, right=(0, 1, 2, 3), width=width)


def ranking_view(scenario: PodsScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the policies by rank, why the best is, the space, notes."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    return ranked_view(question(scenario, best), ranking, COLUMNS, why(ranking), width)


def _by_priority(outcome: Outcome) -> str:
    return " ".join(f"{row['placed']:,}" for row in outcome.metrics["by_priority"].values())


COLUMNS: Shown = {
    **counts("placed", "Placed"), "by_priority": ("By priority", _by_priority),
    **counts("moves", "Moves"), **counts("evicted", "Evictions"), **shares("at_end.devices", "Devices", 1),
    "fragmentation": ("Fragments", cell("fragmentation", "{:.1f}".format)), **shares("at_end.cpu", "Cpu", 1),
}  # fmt: skip


def why(ranking: Ranking) -> list[str]:
    """Returns why the best is: against the default."""
    best = ranking.best
    assert best is not None
    null = null_of(ranking, is_null)
    if null is None or null is best:
        return ["Nothing serves the tiers of priority better than the default."]
    for tier, row in best.metrics["by_priority"].items():
        more = row["placed"] - null.metrics["by_priority"][tier]["placed"]
        if more:
            moved = f"{best.metrics['moves']:,} moves and {best.metrics['evicted']:,} evictions"
            said = f"{abs(more):,} {'more' if more > 0 else 'fewer'} pods"
            return [f"Of priority {tier} it places {said} than the default, with {moved}."]
    return ["It places as many pods of each priority as the default; evictions, moves or fragments decide."]
