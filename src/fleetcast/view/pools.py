"""The answer to "which pools hold the most load for the same power or money", as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view import words
from fleetcast.view.choices import setup
from fleetcast.view.tables import bullets, rows_table

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.search.held import Equal, Held, Sizing

HEADS = ("Equal", "Pools", "Requests/s", "Of null", "Power", "$/h")


def sizing_view(scenario: ServingScenario, sizing: Sizing, width: int) -> RenderableType:
    """Returns what holds most under each limit, beside what each kind holds alone with its phases together."""
    parts: list[RenderableType] = [Text(words.question(scenario, goals=False), style="dim"), Text()]
    parts += [_verdict(scenario, row) for row in sizing.rows]
    parts += [Text(f"Doubtful: {note}.", style="bold yellow") for note in sizing.notes]
    rows = [cells for row in sizing.rows for cells in _rows(scenario, row)]
    parts += [Text(), rows_table(HEADS, rows, right=(2, 3, 4, 5), width=width)]
    said = "Null: one kind, both phases together, as many replicas as the limits and the fleet allow"
    parts += [Text(said, style="dim"), Text()]
    best = next((row.best for row in reversed(sizing.rows) if row.best is not None), None)
    if best is not None:
        parts += [bullets(f"What binds {words.plan_name(best.outcome.plan)}", words.binding(best.outcome))]
        parts += [Text(setup(scenario, best.outcome.plan), style="dim"), Text()]
    parts.append(bullets("Space searched", [*sizing.space, *(_space(row) for row in sizing.rows)], dim=True))
    if best is not None:
        parts.append(bullets("Taken as given", best.outcome.notes, dim=True))
    return Group(*parts)


def _verdict(scenario: ServingScenario, row: Equal) -> Text:
    head = f"At equal {_limits(scenario, row)}: "
    if row.best is None:
        return Text(f"{head}no pools hold any load that was tried.", style="bold red")
    rate, null = show(row.best.rate, "requests/s"), row.null
    name = words.plan_name(row.best.outcome.plan)
    text = Text.assemble(head, (name, "bold"), f" holds {rate}")
    if null is None:
        return text.append("; no kind alone holds any load that was tried.")
    if null is row.best or null.outcome.plan == row.best.outcome.plan:
        return text.append(": nothing holds more than this one kind with its phases together.")
    return text.append(f", {row.best.factor / null.factor:.2f} times what {words.plan_name(null.outcome.plan)} does.")


def _limits(scenario: ServingScenario, row: Equal) -> str:
    fleet = scenario.fleet
    said = {"power": show(fleet.budget or 0.0, "W"), "cost": show(fleet.spend or 0.0, "$/h")}
    return " and ".join(f"{name} ({said[name]})" for name in row.equal)


def _rows(scenario: ServingScenario, row: Equal) -> list[tuple[str, ...]]:
    found = []
    null = row.null
    if row.best is not None and (null is None or row.best.outcome.plan != null.outcome.plan):
        found.append((" and ".join(row.equal), words.plan_name(row.best.outcome.plan), *_numbers(row.best, null)))
    told = [held.outcome.plan for held in (row.best, null) if held is not None]
    if row.together is not None and row.together.outcome.plan not in told:
        name = words.plan_name(row.together.outcome.plan)
        found.append(("", f"together: {name}", *_numbers(row.together, null)))
    kinds = sorted(row.nulls.items(), key=lambda item: -(item[1].factor if item[1] is not None else 0.0))
    for kind, held in kinds:
        name = f"null: {words.plan_name(held.outcome.plan)}" if held is not None else f"null: {kind} alone"
        numbers = _numbers(held, null) if held is not None else ("none", *[words.UNKNOWN] * 3)
        found.append(("" if found else " and ".join(row.equal), name, *numbers))
    return found


def _numbers(held: Held, null: Held | None) -> tuple[str, ...]:
    share = f"{held.factor / null.factor:.2f} x" if null is not None else words.UNKNOWN
    return f"{held.rate:.3g}", share, show(held.taken.power, "W"), f"{held.taken.price:,.2f}"


def _space(row: Equal) -> str:
    c = row.counts
    return (
        f"equal {' and '.join(row.equal)}: {c['enumerated']:,} sizes of {c['shapes']:,} sets of pools within the "
        f"limits, {c['full']:,} leave no room for more; {c['tried']:,} trials of a size at a load, "
        f"{c['bounded']:,} of them settled by bounds"
    )
