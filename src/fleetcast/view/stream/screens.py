"""The terminal's picture of a stream: what it draws and keeps, node by node, and ranked plans."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.base.tables import lookup
from fleetcast.scenario.outcome import UNITS
from fleetcast.search.ranking import made
from fleetcast.view.ranked import Shown
from fleetcast.view.tables import bullets, rows_table
from fleetcast.view.training.screens import bars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleetcast.scenario.load import StreamScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

MOST_ROWS = 24


def metric(outcome: Outcome, path: str) -> str:
    """Returns a metric for people."""
    value = float(lookup(outcome.metrics, path))
    if path in ("f1", "precision", "recall", "accuracy"):
        return f"{value:.4f}"
    if path in ("busy", "dropped"):
        return f"{value:.2%}"
    return show(value, UNITS.get(path, ""), 3 if path == "productivity" else 4)


HEADS = {
    "power": "Power", "productivity": "Productivity", "f1": "F1", "precision": "Precision", "recall": "Recall",
    "latency": "Latency", "latency_p99": "Latency, p99", "input_rate": "Samples in", "output_rate": "Samples stored",
    "output_bytes": "Bytes stored", "dropped": "Lost for room", "busy": "Busiest node",
}  # fmt: skip
COLUMNS: Shown = {path: (head, partial(metric, path=path)) for path, head in HEADS.items()}


def question(scenario: StreamScenario, outcome: Outcome | None) -> str:
    """Returns what was asked, in a sentence."""
    return f"{scenario.name}: {scenario.about}."


def outcome_view(scenario: StreamScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, contingency, nodes, where power goes, notes."""
    m = outcome.metrics
    said = [(head, write(outcome)) for path, (head, write) in COLUMNS.items() if path in m]
    half = -(-len(said) // 2)
    head = [(*said[i], *(said[i + half] if i + half < len(said) else ("", ""))) for i in range(half)]
    parts: list[RenderableType] = [
        Text(f"{scenario.name}: {made(outcome.plan)}", style="bold"), Text(),
        rows_table(("", "", "", ""), head, right=(1, 3)), Text(),
    ]  # fmt: skip
    if "tp" in m:
        rows = [
            ("stored", show(m["tp"], "Hz", 4), show(m["fp"], "Hz", 4)),
            ("not stored", show(m["fn"], "Hz", 4), show(m["tn"], "Hz", 4)),
        ]
        parts += [rows_table(("", "Interesting", "Dull"), rows, right=(1, 2)), Text()]
    parts += [rows_table(*_nodes(outcome.resources), width=width, right=tuple(range(1, 7))), Text()]
    if power := outcome.breakdown.get("power"):
        parts += [bars("Where the power goes", power, {n: n for n in power}, sum(power.values()), "W", width), Text()]
    if way := outcome.breakdown.get("time"):
        parts += [bars("On its way, without queues", way, {n: n for n in way}, sum(way.values()), "s", width), Text()]
    if outcome.notes:
        parts.append(bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def _nodes(rows: tuple[Mapping[str, Any], ...]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    shown = rows if len(rows) <= MOST_ROWS else [r for r in rows if r["op_power"] or r["rejected"]["dull"]] or rows[-8:]
    cells: list[tuple[str, ...]] = [
        (
            str(r["name"]), show(r["input_rate"], "Hz", 4), show(r["output_rate"], "Hz", 4), show(r["bytes"], "B"),
            show(r["op_power"], "W"), show(r["link_power"], "W"), f"{r['busy']:.1%}",
        )
        for r in shown
    ]  # fmt: skip
    return ("Node", "In", "On", "Sample", "Operations", "Link", "Busy"), cells


def ranking_view(scenario: StreamScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the best plan, the ranking against the pipeline as it is, the space."""
    best = ranking.best
    assert best is not None
    base = next((o for o in ranking.plans if made(o.plan) in ("as it is", "no filter")), ranking.plans[-1])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("Plan", overflow="fold", min_width=16)
    for head in ("Power", "", "Productivity", "", "F1", "Latency"):
        table.add_column(head, justify="right", no_wrap=True)
    for o in ranking.plans:
        before = base.metrics
        table.add_row(
            made(o.plan), metric(o, "power"), _change(o.metrics["power"], before["power"]), metric(o, "productivity"),
            _change(o.metrics["productivity"], before["productivity"]), metric(o, "f1"), metric(o, "latency"),
        )  # fmt: skip
    goal = ", ".join(f"{'least' if sign > 0 else 'most'} {name}" for name, _, sign in ranking.goals)
    parts: list[RenderableType] = [
        Text.assemble(f"{scenario.name}, {goal}: ", (made(best.plan), "bold")), Text(),
        table, Text(),
        Text(f"Changes are against: {made(base.plan)}", style="dim"), Text(),
        bullets("Space searched", ranking.lines(), dim=True),
    ]  # fmt: skip
    if notes := [*ranking.notes, *best.notes]:
        parts.append(bullets("Taken as given", notes, dim=True))
    return Group(*parts)


def _change(value: float, before: float) -> str:
    if before == 0 or value == before:
        return "" if value == before else "new"
    ratio = value / before
    return f"{ratio - 1:+.1%}" if ratio < 2 else f"{ratio:.3g}x"
