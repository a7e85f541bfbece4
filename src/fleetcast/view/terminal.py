"""The command line's terminal: options that every command takes, what is printed and written, errors, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.exceptions import CycloptsError

from fleetcast.base.errors import FleetcastError, Infeasible
from fleetcast.view import verbs

if TYPE_CHECKING:
    from rich.console import Console

    from fleetcast.scenario.load import Scenario, ServingScenario

STDIN = "<stdin>"


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options that every command takes."""

    json: Annotated[bool, Parameter(negative=())] = False
    "Print one JSON object instead of tables."
    out: Path | None = None
    "plan, simulate, run: folder for outcome.json and what goes with it; transform: the new model's; others: a file."
    seed: int | None = None
    "Seed of every random stream, instead of the scenario's."


File = Annotated[str, Parameter(name="FILE", help="Scenario (.toml, .json), '-' for stdin, or an example's name.")]
DEFAULTS = Common()


def load(file: str, common: Common) -> Scenario:
    """Returns the scenario of a file, of standard input or of an example's name."""
    if file == STDIN:
        return verbs.load(sys.stdin.read() + "\n", seed=common.seed)
    return verbs.load(file, seed=common.seed)


def serving(file: str, common: Common, asked: str) -> ServingScenario:
    """Returns the same where it has requests; ``asked`` says who asks, for the error."""
    return verbs.serving(load(file, common), asked)


def tables() -> Any:
    """Returns `view.tables`, which imports rich, when something is shown."""
    from fleetcast.view import tables

    return tables


def screen(*, stderr: bool = False) -> Console:
    """Returns the console of standard output or error."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False, markup=False)


def print_json(table: Any) -> None:
    """Prints a table as JSON."""
    from fleetcast.view.outputs import to_json

    sys.stdout.write(to_json(table))


def answer(common: Common, table: Any, view: Callable[[int], Any]) -> None:
    """Prints the table as JSON or the view for people, and writes the same to --out."""
    from fleetcast.base.files import write_atomic
    from fleetcast.view.outputs import to_json

    if common.out is not None:
        if common.json:
            write_atomic(common.out, to_json(table))
        else:
            from io import StringIO

            from rich.console import Console

            page = Console(file=StringIO(), width=120, highlight=False, emoji=False, markup=False)
            page.print(view(120))
            write_atomic(common.out, page.file.getvalue())  # type: ignore[attr-defined]
    if common.json:
        print_json(table)
    else:
        console = screen()
        console.print(view(console.width))


def write_text(common: Common, text: str, table: Any) -> None:
    """Prints a text as it is (or its table as JSON), or writes it to --out instead."""
    from fleetcast.base.files import write_atomic
    from fleetcast.view.outputs import to_json

    shown = to_json(table) if common.json else text
    if common.out is None:
        sys.stdout.write(shown)
    else:
        write_atomic(common.out, shown)
        print(f"wrote {common.out}", file=sys.stderr)


def show(
    common: Common, table: Any, view: Callable[[int], Any], written: Sequence[Path] = (), note: str = ""
) -> None:  # fmt: skip
    """Prints the table as JSON, or the view for people, which files were written and a note on them."""
    if common.json:
        print_json(table)
        return
    console = screen()
    console.print(view(console.width))
    say_written(console, written)
    if note:
        console.print(note, style="dim")


def say_written(console: Console, written: Sequence[Path]) -> None:
    """Says which files were written."""
    for path in written:
        console.print(f"wrote {path}", style="dim")


@contextmanager
def progress(what: str, common: Common) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for people at a terminal, nothing for anyone else."""
    if common.json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def report(error: FleetcastError, as_json: bool) -> None:
    """One block: where, what, the value, the limit, the next step."""
    fields = {
        name: value
        for name in ("path", "problem", "constraint", "need", "have", "unit", "value", "limit", "hint")
        if (value := getattr(error, name, None)) not in (None, "")
    }
    if as_json:
        kind = type(error).__name__
        print_json({"error": {"kind": kind, "message": str(error), "exit_code": error.exit_code} | _jsonable(fields)})
        return
    if isinstance(error, Infeasible):
        head = str(error).removesuffix(f". {error.hint}") if error.hint else str(error)
    elif "path" in fields:
        head = f"{error.path}: {error.problem}"  # type: ignore[attr-defined]
    else:
        head = str(error)
        fields.pop("hint", None)
    rows = [
        (name, fields[key]) for name, key in (("value", "value"), ("limit", "limit"), ("next", "hint")) if key in fields
    ]
    _block(head, rows)


def usage(error: CycloptsError, as_json: bool) -> None:
    """Says what is wrong with a command's words."""
    text = " ".join(str(error).split())
    if as_json:
        print_json({"error": {"kind": "usage", "message": text, "exit_code": 2}})
    else:
        _block(text, [("next", "fleetcast --help, or fleetcast COMMAND --help")])


def _block(head: str, rows: Sequence[tuple[str, object]]) -> None:
    from rich.text import Text

    console = screen(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), head))
    for name, value in rows:
        shown = value if isinstance(value, str) and name != "value" else repr(value)
        console.print(Text.assemble((f"  {name:<6}", "dim"), shown))


def _jsonable(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, str | int | float | bool) else repr(v) for k, v in fields.items()}
