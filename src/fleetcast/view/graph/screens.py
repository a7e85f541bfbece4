"""The terminal's picture of a task graph: one outcome with its workers over time, ranked order policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.search.graphs.ranking import is_null
from fleetcast.search.ranking import label
from fleetcast.view.graph.timeline import IDLE, LANES, lanes, letters, short
from fleetcast.view.ranked import Shown, null_of, ranked_view, shares, shown
from fleetcast.view.tables import bullets, pairs, rows_table
from fleetcast.view.words import UNKNOWN, show_energy

if TYPE_CHECKING:
    from fleetcast.scenario.load import GraphScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


def outcome_view(scenario: GraphScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, workers over time, use of each, notes."""
    parts: list[RenderableType] = [
        Text(question(scenario, outcome), style="dim"), Text(),
        Text(f"Order {label(outcome)}", style="bold"), Text(), headline(outcome), Text(),
    ]  # fmt: skip
    parts += [timeline(outcome, width), Text(), workers(outcome), Text()]
    parts.append(bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def ranking_view(scenario: GraphScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the policies by rank, why the best is, the space, notes."""
    best = ranking.best
    assert best is not None, "a graph that fits has an order"
    bound = f"no order ends before {show(best.metrics['lower_bound'], 's')}, the bound"
    return ranked_view(question(scenario, best), ranking, COLUMNS, why(ranking), width, space=(bound,))


COLUMNS: Shown = {
    **shown("makespan"), **shares("gap", "Above bound", 1), **shown("moved_bytes", "Moved"), **shown("energy"),
    **shares("busy", "Busy"), **shown("carbon"), **shown("cost"),
}  # fmt: skip


def question(scenario: GraphScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    m = outcome.metrics
    goal = ", ".join(name for name, _, _ in scenario.objective.goals(GOALS, {}))
    devices = scenario.fleet.devices or " + ".join(group.devices or group.name for group in scenario.fleet.groups)
    return (
        f"{scenario.name}: {_count(m['tasks'], 'task')} and {_count(m['edges'], 'edge')} on {devices}, "
        f"{_count(m['workers'], 'worker')}; least {goal}."
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def why(ranking: Ranking) -> list[str]:
    """Returns why the best is: how far from the bound, from the null and from the next."""
    best = ranking.best
    assert best is not None
    m, found = best.metrics, []
    gap = float(m["gap"])
    if m["makespan"] == 0:
        return ["No task takes any time and nothing is moved: every order ends at once."]
    if gap <= 1e-9:
        found.append("It is optimal: it ends at the bound.")
    else:
        binds = "the longest chain" if m["critical_path"] >= 0.999 * m["lower_bound"] else "work shared out at will"
        found.append(f"It ends {gap:.1%} above the bound ({binds}): no order gains more than {gap / (1 + gap):.1%}.")
    null = null_of(ranking, is_null)
    if null is not None and null is not best:
        found.append(f"First come, first served takes {null.metrics['makespan'] / m['makespan']:.2f} x as long.")
    if len(ranking.plans) > 1 and ranking.plans[1] is not null:
        ratio = ranking.plans[1].metrics["makespan"] / m["makespan"]
        found.append(f"The next, {label(ranking.plans[1])}, takes {ratio:.3f} x as long.")
    return found


def headline(outcome: Outcome) -> Table:
    """Returns the metrics in two columns."""
    m = outcome.metrics
    cost = float(m["cost"])
    cells = [
        ("Makespan", show(m["makespan"], "s")), ("Energy", show_energy(m["energy"])),
        ("No less than", show(m["lower_bound"], "s")), ("Mean power", show(m["power"], "W")),
        ("Above that", f"{m['gap']:.1%}"), ("Cost", UNKNOWN if cost != cost else show(cost, "$")),
        ("Longest chain", show(m["critical_path"], "s")), ("Carbon", show(m["carbon"], "g")),
        ("Moved", show(m["moved_bytes"], "B")), ("Workers busy", f"{m['busy']:.0%}"),
    ]  # fmt: skip
    return pairs(cells)


def timeline(outcome: Outcome, width: int) -> RenderableType:
    """Returns the workers over time in letters; nothing where no record was kept."""
    if outcome.record is None:
        return Text()
    kernels = list(outcome.breakdown["time"])
    names = [str(row["name"]) for row in outcome.resources]
    shown = sorted(sorted(range(len(names)), key=lambda i: -float(outcome.resources[i]["busy"]))[:LANES])
    room = max(len(names[i]) for i in shown)
    columns = max(10, min(100, width - room - 2))
    drawn = lanes(outcome.record, len(names), kernels, columns)
    key = ", ".join(f"{letter} {short(kernel)}" for kernel, letter in list(letters(kernels).items())[:10])
    head = Text(f"Workers over {show(outcome.metrics['makespan'], 's')}: {key}, {IDLE} idle", style="dim")
    rows = [Text(f"{names[i]:<{room}}  {drawn[i]}", no_wrap=True) for i in shown]
    if len(shown) < len(names):
        left = len(names) - len(shown)
        rows.append(Text(f"and {left:,} workers that do less (trace.json.gz of --out has all)", style="dim"))
    return Group(head, *rows)


def workers(outcome: Outcome) -> RenderableType:
    """Returns the use of each kind of device."""
    devices: dict[str, list[dict[str, float]]] = {}
    for row in outcome.resources:
        devices.setdefault(str(row["device"]), []).append(dict(row))
    rows = []
    for kind, found in devices.items():
        total = {key: sum(float(row[key]) for row in found) for key in ("tasks", "busy", "received")}
        said = f"{len(found):,}", f"{total['tasks']:,.0f}", f"{total['busy'] / len(found):.0%}"
        rows.append((kind, *said, show(total["received"], "B")))
    return rows_table(("Device", "Workers", "Tasks", "Busy", "Received"), rows, right=(1, 2, 3, 4))
