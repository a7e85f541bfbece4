"""What a run against a server shows and leaves behind, and how a forecast compares with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.files import check_writable, write_atomic
from fleetcast.base.show import show
from fleetcast.runtime.replay.account import COLUMNS
from fleetcast.runtime.replay.local import STEPS
from fleetcast.view import words
from fleetcast.view.compare import Difference, Term, by_term, heading
from fleetcast.view.outputs import decided, to_json, write_plan
from fleetcast.view.tables import bullets, latency_table, rows_table
from fleetcast.view.timeline import trace_bytes

if TYPE_CHECKING:
    from fleetcast.runtime.replay import Replay
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.outcome import Outcome

_TABLE, _COLUMNS = "outcome.json", "requests.csv"
STEPS_FILE = "steps.csv"


def check_folder(folder: Path) -> None:
    """Refuses, before a run, a folder that its files could not be written to.

    Raises:
        SpecError: it cannot be made or written.
    """
    for name in (_TABLE, _COLUMNS):
        check_writable(folder / name)


def write_run(folder: Path, scenario: ServingScenario, done: Replay) -> list[Path]:
    """Writes a run's outcome.json, and requests.csv with a row per request, failed ones too; returns their paths.

    A run of the engine here leaves also its plan.toml, steps.csv with a row per iteration, and trace.json.gz.
    """
    found = [
        write_atomic(folder / _TABLE, to_json(done.outcome.table())),
        write_atomic(folder / _COLUMNS, _csv(COLUMNS, done.rows)),
    ]
    if done.steps is not None and done.outcome.record is not None:
        rows = [[round(x, 7) for x in row] for row in done.steps]
        found += [
            write_plan(folder, decided(scenario, done.outcome)),
            write_atomic(folder / STEPS_FILE, _csv(STEPS, rows)),
            write_atomic(folder / "trace.json.gz", trace_bytes(done.outcome.record, name=scenario.name)),
        ]
    return found


def _csv(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    made = csv.writer(text, lineterminator="\n")
    made.writerow(heads)
    made.writerows(rows)
    return text.getvalue()


def measured_view(scenario: ServingScenario, outcome: Outcome) -> RenderableType:
    """Returns what was measured: whom it was asked of, latencies, rates, what failed, notes."""
    known = outcome.provenance
    metrics, failed = outcome.metrics, int(outcome.metrics["failed"])
    rows = [("throughput", "Throughput"), ("goodput", "Goodput"), ("makespan", "Time span")]
    rates = "   ".join(f"{name} {words.metric(outcome, path)}" for path, name in rows)
    count = f"{int(metrics['requests']):,} requests answered, {int(metrics['output_tokens']):,} tokens"
    if "cached" in metrics:
        rates += f"   From the prefix cache {words.metric(outcome, 'cached')}"
    where = f"at {known['url']}" if known["url"] else f"on {known['device']}, {known['dtype']}"
    if not known["url"]:
        rates += f"   Host {outcome.breakdown['time']['host'] / max(_busy(outcome), 1e-12):.1%} of busy time"
    reasons = ", ".join(f"{n} {status}" for status, n in known["failed"].items())
    parts: list[RenderableType] = [
        Text(words.question(scenario, goals=False, fleet=False), style="dim"), Text(),
        Text.assemble("Measured: ", (str(known["model"]), "bold"), f" {where}"),
        Text(count), *([Text(f"{failed:,} failed: {reasons}", style="bold red")] if failed else []),
        *([Text(f"Stopped before {known['stopped']:,} others", style="bold red")] if known["interrupted"] else []),
        Text(), latency_table(outcome), Text(), Text(rates), Text(),
    ]  # fmt: skip
    if outcome.notes:
        parts.append(bullets("To know", outcome.notes, dim=True))
    return Group(*parts)


def _busy(outcome: Outcome) -> float:
    return sum(seconds for term, seconds in outcome.breakdown["time"].items() if term != "idle")


def compare_view(
    before: Outcome, after: Outcome, found: Sequence[Difference], remarks: Sequence[str]
) -> RenderableType:
    """Returns a row per metric: both values, how far apart, and whether the forecast's interval holds the second."""
    measured = after.source == "measured"
    first, second = ("Forecast", "Measured") if measured else ("First", "Second")
    rows = []
    told_by_term = bool(by_term(before, after))
    for row in found:
        if told_by_term and row.metric.startswith("breakdown."):
            continue
        apart = row.error if measured else row.relative
        inside = "" if row.covered is None else "yes" if row.covered else "no"
        rows.append((
            heading(row.metric), words.number(row.before, row.metric), words.number(row.after, row.metric),
            "" if apart is None else f"{apart:+.1%}", _range(before, row.metric), inside,
        ))  # fmt: skip
    heads = ("", first, second, "Off by" if measured else "Change", "80 % interval", "Inside")
    parts: list[RenderableType] = [rows_table(heads, rows, right=(1, 2, 3, 4)), Text()]
    if terms := by_term(before, after):
        parts += [terms_table(terms, (first, second)), Text()]
    return Group(*parts, bullets("What it means", remarks))


def terms_table(terms: Sequence[Term], heads: tuple[str, str]) -> RenderableType:
    """Returns a row per term of busy time, what it is off by, and what of the whole's error it is."""
    whole = (sum(t.before for t in terms), sum(t.after for t in terms))
    rows = [
        (words.TERMS.get(t.term, t.term.replace("_", " ")).capitalize(), t.before, t.after, t.error, t.share)
        for t in terms
    ]
    rows.append(("All busy time", *whole, whole[0] / whole[1] - 1, whole[0] / whole[1] - 1))
    shown = [
        (name, show(a, "s"), show(b, "s"), "" if error is None else f"{error:+.1%}", f"{share:+.1%}")
        for name, a, b, error, share in rows
    ]
    return rows_table(("Busy time", *heads, "Off by", "Of the whole"), shown, right=(1, 2, 3, 4))


def _range(outcome: Outcome, path: str) -> str:
    """The 80 % interval of a metric with its unit once: ``13.8 to 46.7 ms``."""
    low, _, high = words.interval_text(outcome, path).partition(" to ")
    if low.partition(" ")[2] == high.partition(" ")[2]:
        low = low.partition(" ")[0]
    return f"{low} to {high}" if high else ""
