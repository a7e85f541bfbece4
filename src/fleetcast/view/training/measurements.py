"""`fleetcast calibrate iterations.csv`: measured iterations of training in, a practice that scenarios name out.

A row is an iteration: columns that say what it was of, and ``iteration_time`` in seconds (or ``iteration_time_ms``). A
column is a key of the scenario file by its path (``plan.tensor_parallel``, ``workload.batch``), or by its last name
alone. ``devices`` may be a number, of the scenario's devices. Cells that are empty say nothing, and what no column says
is the scenario's.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from math import expm1
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.show import show
from fleetcast.base.spec import dump_toml
from fleetcast.cost.intervals import Z80
from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape, Training
from fleetcast.search.training.calibrate import Fitted, Measured, calibrate
from fleetcast.sim.training.setting import setting
from fleetcast.view.tables import rows_table
from fleetcast.view.whatif import as_written, changed

if TYPE_CHECKING:
    from rich.console import RenderableType

TIMES = {"iteration_time": 1.0, "iteration_time_s": 1.0, "iteration_time_ms": 1e-3}
IGNORED = ("note", "label", "source")
"""Columns for people."""
SHORT: Mapping[str, str] = {
    **{name: f"workload.model.{name}" for name in Shape.__struct_fields__},
    **{name: f"workload.{name}" for name in Training.__struct_fields__ if name not in ("kind", "features")},
    **{name: f"plan.{name}" for name in TrainingPlan.__struct_fields__ if name != "practice"},
    "devices": "fleet.devices",
}  # fmt: skip


def fitted(files: Sequence[Path], scenario: TrainingScenario, *, seed: int = 0) -> Fitted:
    """Returns the practice that explains the measured iterations of some files.

    Args:
        files: CSV, or JSON (a list of objects).
        scenario: what rows do not say.
        seed: of the random halves that are held out.

    Raises:
        SpecError: a column that is no key, a cell that cannot be, or too few rows.
    """
    runs = [run for file in files for run in measured(file, scenario)]
    kinds = list(dict.fromkeys(group.device.id for run in runs for group in run.state.tree.groups))
    if len(kinds) > 1:
        raise SpecError(
            str(files[0]), "measures devices of several kinds", value=kinds, limit="one kind to a practice",
            hint="Split the file by device",
        )  # fmt: skip
    names = ", ".join(file.name for file in files)
    try:
        return calibrate(runs, seed=seed, source=f"{len(runs)} iterations of {names}")
    except ValueError as error:
        raise SpecError(str(files[0]), str(error), value=len(runs), limit="from 4 rows", hint="Measure more") from None


def measured(file: Path, scenario: TrainingScenario) -> Iterator[Measured]:
    """Yields the iterations of a file.

    Raises:
        SpecError: names the file, the row and the column.
    """
    for number, row in _rows(file):
        where = f"{file} row {number}"
        changes, seconds = _read(row, where, scenario)
        try:
            made = changed(scenario, changes)
            assert isinstance(made, TrainingScenario)
            yield Measured(setting(made), made.plan, seconds)
        except SpecError as error:
            raise SpecError(
                f"{where}: {error.path}", error.problem, value=error.value, limit=error.limit, hint=error.hint
            ) from None


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = read_text(file)
    if file.suffix == ".json":
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(str(file), f"is not JSON: {error}", hint="Check quotes and brackets there") from None
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise SpecError(str(file), "is no list of objects", limit='[{"iteration_time": 1.2, ...}, ...]')
        yield from enumerate(table, 1)
        return
    yield from enumerate(csv.DictReader(text.lstrip("\ufeff").splitlines()), 2)


def _read(row: Mapping[str, Any], where: str, scenario: TrainingScenario) -> tuple[dict[str, Any], float]:
    """A row's changes to the scenario, and its seconds."""
    changes: dict[str, Any] = {}
    seconds = None
    for column, cell in row.items():
        name = (column or "").strip()
        if cell is None or cell == "" or name in IGNORED:
            continue
        value = as_written(cell) if isinstance(cell, str) else cell
        if name in TIMES:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
                raise SpecError(f"{where}, column {name}", "is no time", value=cell, limit="a number above 0")
            seconds = value * TIMES[name]
            continue
        path = name if "." in name else SHORT.get(name)
        if path is None:
            raise SpecError(
                f"{where}, column {name}", "is no key of a training scenario",
                limit=f"iteration_time, a path such as plan.zero, or one of {', '.join(SHORT)}",
                hint=closest(name, [*SHORT, *TIMES]) or "Leave the column out, or call it note",
            )  # fmt: skip
        if path == "fleet.devices" and isinstance(value, int):
            value = f"{value}x {_device(scenario)}"
        changes[path] = value
    if seconds is None:
        raise SpecError(where, "has no time", limit=f"a column {', or '.join(TIMES)}", hint="Add iteration_time in s")
    shape = {path: value for path, value in changes.items() if path.startswith("workload.model.")}
    if shape and not isinstance(scenario.workload.model, Shape):
        for path in shape:
            del changes[path]
        changes["workload.model"] = {path.removeprefix("workload.model."): value for path, value in shape.items()}
    return changes, seconds


def _device(scenario: TrainingScenario) -> str:
    """What the scenario's fleet is made of, as its file calls it."""
    first = scenario.fleet.devices or next((g.devices for g in scenario.fleet.groups if g.devices), "")
    return first.split("+")[0].strip().lstrip("0123456789").lstrip(" x×*X") or first


def toml(found: Fitted) -> str:
    """Returns the text of the file that ``plan.practice`` names."""
    practice = {f.name: getattr(found.practice, f.name) for f in fields(found.practice)}
    table = {
        "practice": practice,
        "measured": {
            "rows": found.rows, "date": datetime.now(UTC).date().isoformat(),
            "mean_error_before": found.first, "mean_error": found.seen,
            "intervals": {name: list(pair) for name, pair in found.intervals.items()},
            "held_out": [split.table() for split in found.splits],
        },
    }  # fmt: skip
    head = '# What training adds to kernels, fitted by fleetcast calibrate. Name it: [plan] practice = "./FILE"\n'
    return head + dump_toml(_plain(table))


def _plain(value: Any) -> Any:
    """The same in numbers of six digits."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(found: Fitted) -> dict[str, Any]:
    """Returns everything for JSON."""
    return {
        "practice": {f.name: getattr(found.practice, f.name) for f in fields(found.practice)},
        "intervals": {name: list(pair) for name, pair in found.intervals.items()}, "rows": found.rows,
        "mean_error_before": found.first, "mean_error": found.seen, "held_out": [s.table() for s in found.splits],
    }  # fmt: skip


def fitted_view(found: Fitted, kept: Path | None) -> RenderableType:
    """Returns the factors before and after with their intervals, and errors on rows that no fit has seen."""
    from rich.console import Group
    from rich.text import Text

    old, new = found.before, found.practice
    factors = []
    for name, (low, high) in found.intervals.items():
        seconds = name in ("kernel", "pace", "gap", "iteration")
        a, b, c, d = (
            show(v, "s") if seconds else f"{v:.3f}" for v in (getattr(old, name), getattr(new, name), low, high)
        )
        factors.append((name, a, b, f"{c} to {d}"))
    errors = [(s.name, str(s.rows), *(f"{v:.1%}" for v in (s.mean, s.median, s.worst, s.null))) for s in found.splits]
    parts: list[RenderableType] = [
        Text(f"{found.rows} measured iterations: mean error {found.first:.1%} before, {found.seen:.1%} fitted"), Text(),
        rows_table(("Factor", "Before", "Fitted", "90 %"), factors, right=(1, 2, 3)), Text(),
    ]  # fmt: skip
    if errors:
        heads = ("Held out", "Rows", "Mean error", "Median", "Worst", "One constant speed")
        parts += [rows_table(heads, errors, right=(1, 2, 3, 4, 5)), Text()]
    else:
        parts += [Text("too few rows to hold any out: the interval is the prior's or wider", style="bold yellow")]
    parts.append(Text(f"Forecasts with it carry ±{expm1(Z80 * new.spread):.0%} at 80 %", style="dim"))
    if kept is None:
        parts.append(
            Text('keep it with --out practice.toml, then write practice = "./practice.toml" under [plan]', style="dim")
        )
    return Group(*parts)
