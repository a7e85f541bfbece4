"""What the terminal shows of tiers: cascades of a familial model in order, and advice for a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view import words
from fleetcast.view.plans import GAP, bare, slo_word
from fleetcast.view.tables import bullets, rejected_table, rows_table

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.advice.advisor import Advice
    from fleetcast.search.ranking import Ranking


def cascades_view(scenario: ServingScenario, ranking: Ranking) -> RenderableType:
    """Returns the best cascade and the best of each other way, why, what does not fit, and the space."""
    best = ranking.best
    plans = ranking.plans or ranking.misses
    if best is None:
        head = Text(words.failure(ranking) + (". Nearest misses:" if plans else "."), style="bold red")
        why = words.binding(plans[0]) if plans else []
    else:
        head = Text.assemble("Best: ", (words.plan_name(best.plan), "bold"))
        why = words.why(best, [*ranking.plans, *ranking.misses], scenario.objective)
    parts: list[RenderableType] = [Text(words.question(scenario), style="dim"), Text(), head, Text()]
    if plans:
        parts += [cascades_table(plans, best), Text()]
    parts.append(bullets("Why" if best is not None else "What binds", why))
    if ranking.rejected:
        parts += [rejected_table(ranking.rejected), Text()]
    parts.append(bullets("Space searched", ranking.lines(), dim=True))
    if plans:
        parts.append(bullets("Taken as given", plans[0].notes, dim=True))
    return Group(*parts)


def cascades_table(plans: Sequence[Outcome], best: Outcome | None) -> Table:
    """Returns a row per cascade, all figures means per answer but for percentiles under load; the best one bold."""
    queued = "p99" in plans[0].metrics["e2e"]
    times = ("TTFT p99", "E2E p50", "E2E p99") if queued else ("TTFT", "E2E")
    shown = {head: bare(head.lower().replace(" ", ".") if queued else f"{head.lower()}.mean") for head in times}
    columns = {
        "Answers": lambda o: words.plan_name(o.plan), "Right": bare("quality"),
        **shown, "Energy": bare("energy"), "Sent": bare("bytes"),
        "$ per 1,000": lambda o: words.show_money(1000 * o.metrics["cost"]), "SLO": slo_word,
    }  # fmt: skip
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim")
    for head in columns:
        table.add_column(head, justify="left" if head in ("Answers", "SLO") else "right", no_wrap=head != "Answers")
    for outcome in plans:
        table.add_row(*(Text(cell(outcome)) for cell in columns.values()), style="bold" if outcome is best else "")
    return table


def advice_view(found: Sequence[Advice], width: int) -> RenderableType:
    """Returns how a model runs on each device: what fits, how fast, at what cost in quality; and what does not fit."""
    parts: list[RenderableType] = []
    for advice in found:
        verb = "runs" if advice.options else "does not run"
        parts.append(Text.assemble((f"{advice.model} {verb} on {advice.device}", "bold"), f", {advice.engine}"))
        rows = [
            (
                o.technique, o.model, show(o.bytes, "B"), f"{show(o.elsewhere, 'B')} in {o.where}" if o.where else "",
                show(o.ttft, "s"), show(o.tpot, "s"), o.quality,
            )
            for o in advice.options
        ]  # fmt: skip
        if rows:
            have = show(advice.options[0].have, "B")
            heads = ("Technique", "Model", f"Of {have}", "Elsewhere", "TTFT", "A token", "Quality lost")
            parts += [Text(), rows_table(heads, rows, right=(2, 4, 5), width=width)]
        sentences = [
            f"{r.technique}: {r.why}" + (f", {show(r.need, 'B')} of {show(r.have, 'B')}" if r.have else "")
            for r in advice.refused
        ]
        sources = dict.fromkeys(o.source for o in advice.options if o.source)
        made = [f"fleetcast transform FOLDER '{o.transform}' --out DIR" for o in advice.options if o.transform]
        if made:
            parts += [Text(), bullets("What makes such a checkpoint of a folder of the model", made, dim=True)]
        parts += [Text()] * (not made) + [bullets("Not possible, or of no use", sentences, dim=True)]
        parts.append(bullets("Sources", list(sources), dim=True))
    if found and found[0].notes:
        parts.append(bullets("Taken as given", found[0].notes, dim=True))
    return Group(*parts)
