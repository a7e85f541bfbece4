"""What `fleetcast plan` and `fleetcast simulate` print and write of several tasks trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.show import show
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.load import MultitaskScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

SHOWN = 12
"""Waves that the terminal shows; JSON holds all."""


def plan(scenario: MultitaskScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints waves beside what is done without them.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported(
            "--report: of several tasks there is no page yet", "Leave it out, and keep tables with --json"
        )
    ranking = verbs.plan(scenario, top=top or None)
    written = []
    if common.out is not None:
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))
    terminal.show(common, ranking.table(), lambda _: ranking_view(scenario, ranking), written)
    return 0


def simulate(scenario: MultitaskScenario, common: Common) -> int:
    """Prints an iteration in waves."""
    outcome = verbs.simulate(scenario)
    written = []
    if common.out is not None:
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(outcome.table())))

    def view(width: int) -> RenderableType:
        from rich.console import Group

        from fleetcast.view.tables import bullets

        given = bullets("Taken as given", outcome.notes, dim=True)
        return Group(*_head(scenario), _ways([outcome]), "", waves_view(outcome), "", given)

    terminal.show(common, outcome.table(), view, written)
    return 0


def ranking_view(scenario: MultitaskScenario, ranking: Ranking) -> RenderableType:
    """Returns every way with its time, the waves of the best, bounds, notes."""
    from rich.console import Group

    from fleetcast.view.tables import bullets

    best = next((o for o in ranking.plans if o.plan["way"] == "waves"), ranking.plans[0])
    return Group(
        *_head(scenario), _ways(ranking.plans), "", waves_view(best), "",
        bullets("Space searched", ranking.space, dim=True),
        bullets("Taken as given", [*ranking.notes, *best.notes], dim=True),
    )  # fmt: skip


def _head(scenario: MultitaskScenario) -> list[Any]:
    from rich.text import Text

    return [Text(question(scenario), style="dim"), Text()]


def question(scenario: MultitaskScenario) -> str:
    """Returns what was asked, in a sentence."""
    work = scenario.workload
    groups = " and ".join(f"{g.name or 'group'} ({g.devices or 'groups'})" for g in scenario.fleet.groups)
    return (
        f"{scenario.name}: train {len(work.tasks)} tasks through {len(work.modules)} modules on "
        f"{scenario.fleet.devices or groups}."
    )


def _ways(outcomes: Sequence[Outcome]) -> RenderableType:
    from fleetcast.view.tables import rows_table

    first = float(outcomes[0].metrics["iteration_time"])
    rows = []
    for outcome in outcomes:
        m = outcome.metrics
        rows.append((
            str(outcome.plan["way"]), show(float(m["iteration_time"]), "s"), f"{m['iteration_time'] / first:.2f}x",
            show(float(outcome.breakdown["time"]["data_comm"]), "s"), f"{m['busy']:.0%}",
            show(float(m["memory"]), "B") + ("" if m["fits"] else " (too much)"),
            f"${m['cost']:.3g}" if "cost" in m else "-",
        ))  # fmt: skip
    heads = ("Way", "Iteration", "", "of it adding up", "Busy", "Memory", "Cost")
    return rows_table(heads, rows, right=(1, 2, 3, 4, 5, 6))


def waves_view(outcome: Outcome) -> RenderableType:
    """Returns a line per share of the first waves: when, what, which of its operators, where."""
    from rich.console import Group
    from rich.text import Text

    from fleetcast.view.tables import rows_table

    slots: list[Mapping[str, Any]] = list(outcome.plan["waves"])
    numbers = sorted({slot["wave"] for slot in slots})
    shown = numbers[:SHOWN]
    rows = [
        (
            str(slot["wave"] + 1), show(slot["start"], "s") if slot["start"] else "0 s", show(slot["end"], "s"),
            slot["op"], f"{slot['first'] + 1} to {slot['first'] + slot['count']} of {slot['of']}",
            f"{len(slot['devices'])}: {spans(slot['devices'])}",
        )
        for slot in slots if slot["wave"] in shown
    ]  # fmt: skip
    parts: list[Any] = [rows_table(("Wave", "From", "To", "Task/pass", "Layers", "Devices"), rows, right=(0, 1, 2))]
    if len(numbers) > SHOWN:
        parts.append(Text(f"{len(numbers) - SHOWN} more waves: fleetcast plan FILE --json", style="dim"))
    return Group(*parts)


def spans(numbers: Sequence[int]) -> str:
    """Returns growing numbers as spans.

    Examples:
        >>> spans([0, 1, 2, 5, 7, 8])
        '0-2, 5, 7-8'
    """
    found: list[list[int]] = []
    for n in numbers:
        if found and n == found[-1][-1] + 1:
            found[-1][1:] = [n]
        else:
            found.append([n])
    return ", ".join("-".join(map(str, pair)) for pair in found)
