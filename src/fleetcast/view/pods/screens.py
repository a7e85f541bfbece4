"""The terminal's picture of pods on nodes: one outcome with its tiers and who waits why, ranked place policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.search.ranking import label
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
    parts: list[RenderableType] = [Text(question(scenario, best), style="dim"), Text()]
    parts += [Text.assemble("Best: ", (label(best), "bold")), Text()]
    devices = "devices" in best.metrics["at_end"]
    used = ("Devices", "Fragments") if devices else ("Cpu",)
    heads = ("Policy", "Placed", "By priority", "Moves", "Evictions", *used)
    rows = [_row(outcome, devices) for outcome in ranking.plans]
    parts += [rows_table(heads, rows, right=tuple(range(1, len(heads))), width=width), Text()]
    parts.append(bullets("Why", why(ranking)))
    parts.append(bullets("Space searched", list(ranking.space), dim=True))
    parts.append(bullets("Taken as given", list(dict.fromkeys([*ranking.notes, *best.notes])), dim=True))
    return Group(*parts)


def _row(outcome: Outcome, devices: bool) -> tuple[str, ...]:
    m = outcome.metrics
    by = " ".join(f"{row['placed']:,}" for row in m["by_priority"].values())
    said = [label(outcome), f"{m['placed']:,}", by, f"{m['moves']:,}", f"{m['evicted']:,}"]
    if devices:
        return (*said, f"{m['at_end']['devices']:.1%}", f"{m['fragmentation']:.1f}")
    return (*said, f"{m['at_end']['cpu']:.1%}")


def why(ranking: Ranking) -> list[str]:
    """Returns why the best is: against the default."""
    best = ranking.best
    assert best is not None
    null = next((o for o in ranking.plans if o.plan["place"]["kind"] == "kube_default"), None)
    if null is None or null is best:
        return ["Nothing serves the tiers of priority better than the default."]
    for tier, row in best.metrics["by_priority"].items():
        more = row["placed"] - null.metrics["by_priority"][tier]["placed"]
        if more:
            moved = f"{best.metrics['moves']:,} moves and {best.metrics['evicted']:,} evictions"
            return [f"Of priority {tier} it places {more:,} more pods than the default, with {moved}."]
    return ["It places as many pods of each priority as the default, with fewer evictions, moves or fragments."]
