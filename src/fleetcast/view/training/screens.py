"""The terminal's picture of training: one iteration, ranked plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.scenario.load import MultitaskScenario
from fleetcast.view.plans import GAP, Column, fitted
from fleetcast.view.ranked import Shown, cell
from fleetcast.view.tables import bullets, pairs, rejected_table, rows_table
from fleetcast.view.training import terms, waves
from fleetcast.view.words import UNKNOWN

if TYPE_CHECKING:
    from fleetcast.scenario.load import TrainingScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

BAR = 32
"""Columns of the longest bar."""
_BLOCKS = " ▏▎▍▌▋▊▉█"
_LEAST = 0.002
"""Terms below this share of the whole are one line together."""


def iteration_view(scenario: TrainingScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome: headline, where each second goes, memory by term against capacity, the job, notes."""
    metrics = outcome.metrics
    parts: list[RenderableType] = [
        Text(terms.question(scenario, goals=False), style="dim"), Text(),
        Text(terms.plan_name(outcome.plan), style="bold"), Text(),
    ]  # fmt: skip
    if problem := terms.over(outcome):
        parts += [Text.assemble(("Does not fit: ", "bold red"), problem), Text()]
    parts += [_headline(outcome), Text()]
    total = float(metrics["iteration_time"])
    parts += [bars("Where an iteration goes", outcome.breakdown["time"], terms.TIMES, total, "s", width), Text()]
    if room := outcome.breakdown.get("memory"):
        capacity = float(outcome.provenance.get("memory", 0.0)) or sum(room.values())
        head = f"Memory of the fullest device, {show(sum(room.values()), 'B')} of {show(capacity, 'B')}"
        parts += [bars(head, room, terms.ROOMS, capacity, "B", width), Text()]
    if "job" in metrics:
        parts += [_job(outcome), Text()]
    if "effective" in metrics:
        parts += [_weeks(outcome, width), Text()]
    parts.append(bullets("What binds", terms.binding(outcome)))
    if outcome.notes:
        parts.append(bullets("Taken as given", outcome.notes, dim=True))
    return Group(*parts)


def bars(
    head: str, values: Mapping[str, float], names: Mapping[str, str], whole: float, unit: str, width: int
) -> RenderableType:
    """Returns terms as a table of bars: name, value, share of ``whole``, a bar of that length."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    room = max(8, min(BAR, width - 56))
    small = {name: value for name, value in values.items() if value < _LEAST * whole}
    rows = [(terms.term(n, names), v) for n, v in values.items() if n not in small]
    if small:
        one = next(iter(small))
        rows.append((terms.term(one, names) if len(small) == 1 else f"{len(small)} smaller terms", sum(small.values())))
    longest = max((value for _, value in rows), default=0.0) or 1.0
    for name, value in rows:
        share = value / whole if whole else 0.0
        table.add_row(name, Text(show(value, unit), justify="right"), f"{share:>5.1%}", bar(value / longest, room))
    return Group(Text(head, style="dim"), table)


def bar(share: float, room: int) -> str:
    """Returns a bar of ``share`` of ``room`` columns, in eighths of one."""
    eighths = round(max(0.0, min(1.0, share)) * room * 8)
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


def _headline(outcome: Outcome) -> Table:
    rows = (
        ("iteration_time", "Iteration"), ("mfu", "MFU"), ("throughput", "Throughput"), ("steps", "All devices"),
        ("hfu", "HFU"),
        ("cost", "  its cost"), ("memory", "Memory"), ("energy", "  its energy"), ("fits", "  fits"),
        ("carbon", "  its carbon"), ("power", "Mean power"), ("host_memory", "Host memory"), ("ssd_memory", "On disk"),
    )  # fmt: skip
    cells = [(name, said) for path, name in rows if (said := terms.metric(outcome, path)) != UNKNOWN]
    if "memory" not in outcome.metrics:  # of a job that is counted, nobody knows whether it fits
        cells = [(name, said) for name, said in cells if name.strip() != "fits"]
    return pairs(cells)


def _job(outcome: Outcome) -> RenderableType:
    rows = [
        (head, terms.metric(outcome, f"job.{key}"))
        for key, head in (
            ("iterations", "Iterations"), ("tokens", "Tokens"), ("time", "Time"), ("cost", "Cost"),
            ("energy", "Energy"), ("carbon", "Carbon"),
        )
    ]  # fmt: skip
    return Group(Text("The whole job, if nothing fails", style="dim"), rows_table(("", ""), rows, right=(1,)))


SPENT = {
    "useful": "Training", "straggling": "Waiting for slow machines", "checkpoint": "Checkpoints", "lost": "Made again",
    "detect": "Until a failure is known", "waiting": "Waiting for a machine", "restart": "Restarting and reading",
}  # fmt: skip
"""Where the time of a job with failures goes, see `sim.training.run.TERMS`."""


def _weeks(outcome: Outcome, width: int) -> RenderableType:
    """Returns where the time of the whole job goes when machines fail."""
    metrics = outcome.metrics
    head = (
        f"The whole job with its {metrics['failures']} failures: {show(metrics['total_time'] / 86400, 'days')}, "
        f"{metrics['effective']:.1%} of it training"
    )
    return bars(head, metrics["spent"], SPENT, metrics["total_time"], "s", width)


def ranking_view(scenario: TrainingScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns what a search found: the best plan, the ranking, where its seconds go, the space."""
    best = ranking.best
    parts: list[RenderableType] = [Text(terms.question(scenario), style="dim"), Text()]
    if best is None:
        parts += [Text("No plan fits.", style="bold red"), Text()]
        for near in ranking.misses[:1]:
            parts += [Text.assemble(f"Nearest: {terms.plan_name(near.plan)}. ", terms.over(near)), Text()]
    else:
        parts += [Text.assemble("Best: ", (terms.plan_name(best.plan), "bold")), Text()]
        parts += [plans_table(ranking.plans, width, best), Text()]
        parts.append(bullets("Why", terms.why(best, ranking.plans[1:])))
        total = float(best.metrics["iteration_time"])
        parts += [bars("Where its iteration goes", best.breakdown["time"], terms.TIMES, total, "s", width), Text()]
        parts.append(bullets("What binds", terms.binding(best)))
    if ranking.rejected:
        parts += [rejected_table(ranking.rejected), Text()]
    counts = ranking.counts
    every = (
        f"{counts['enumerated']:,} plans divide, {counts['memory_feasible']:,} fit in memory; all of those were timed"
    )
    space = [*ranking.space, every] if scenario.workload.features is None else list(ranking.space)
    parts.append(bullets("Space searched", space, dim=True))
    shown = best or next(iter(ranking.misses), None)
    parts.append(bullets("Taken as given", [*ranking.notes, *(shown.notes if shown is not None else ())], dim=True))
    return Group(*parts)


def plans_table(plans: Sequence[Outcome], width: int, best: Outcome | None = None) -> Table:
    """Returns a row per plan: time, share of the peak, memory, money."""

    def cell(path: str, *, sure: bool = False) -> Column:
        heads = {"iteration_time": "Iteration", "mfu": "MFU", "memory": "Memory", "cost": "Cost", "energy": "Energy",
                 "throughput": "Tokens/s", "steps": "Steps/s", "carbon": "CO2e"}  # fmt: skip
        order = {
            "iteration_time": 0,
            "mfu": 1,
            "memory": 1,
            "cost": 3,
            "energy": 4,
            "throughput": 5,
            "steps": 5,
            "carbon": 6,
        }
        show_ = terms.metric if sure else lambda o, p: terms.metric(o, p).partition(" ±")[0]
        return Column(
            heads[path], lambda o: show_(o, path).removesuffix(" tokens/s").removesuffix(" steps/s"), order[path]
        )

    wanted = [Column("Plan", lambda o: terms.plan_name(o.plan), right=False), cell("iteration_time", sure=width >= 100)]
    wanted += [cell(path) for path in ("mfu", "memory", "throughput", "steps", "cost", "energy", "carbon")]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim")
    filled = fitted(wanted, plans, width)
    for column, _ in filled:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=column.right)
    for i, outcome in enumerate(plans):
        chosen = best is not None and outcome.plan == best.plan
        table.add_row(*(cells[i] for _, cells in filled), style="bold" if chosen else "")
    return table


def _shown(path: str, head: str) -> Shown:
    """The column of a metric; the heading says what it counts a second."""
    return {path: (head, cell(path, lambda value: terms.number(value, path).removesuffix(f" {head.lower()}")))}


COLUMNS: Shown = {
    **_shown("iteration_time", "Iteration"), **_shown("mfu", "MFU"), **_shown("throughput", "Tokens/s"),
    **_shown("steps", "Steps/s"), **_shown("memory", "Memory"), **_shown("cost", "Cost"), **_shown("energy", "Energy"),
    **_shown("carbon", "Carbon"), **_shown("job.time", "Job's time"), **_shown("job.cost", "Job's cost"),
    **_shown("job.energy", "Job's energy"),
}  # fmt: skip


def question(scenario: TrainingScenario | MultitaskScenario, outcome: Outcome | None) -> str:
    """Returns what was asked, in a sentence."""
    if isinstance(scenario, MultitaskScenario):
        return waves.question(scenario)
    return terms.question(scenario, goals=False)
