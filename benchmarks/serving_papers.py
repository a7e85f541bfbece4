"""The serving papers' claims in one table: what each says, our figure, the trivial rule's, and why they differ.

Runs the scripts of `PAPERS` one after another, each in a process of its own; what one has measured is kept when a later
one fails, and with ``--resume`` a script that is done is not run again.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.evidence import run, script, scripts
from benchmarks.records import Record, from_json, show, to_json
from fleetcast.base.files import write_atomic

PAPERS = (
    "splitwise", "overlap", "speculation", "power", "tiers", "help_latency", "measure", "frontier", "expert_load",
    "mixed", "prefix_cache",
)  # fmt: skip
"""The scripts, in the order in which they are run; one that is not there yet is skipped, and said so."""
WIDTH = 200
RATIO = {"claim": 3, "paper": 1, "ours": 1, "null": 3, "why they differ": 4}
"""How columns share the width."""
HEAD = ("system", "claim", "paper", "ours", "null", "same setting?", "why they differ", "reproduced?")
Run = Callable[[str, bool], "list[Record] | None"]


def row(record: Record) -> tuple[str, ...]:
    """Returns a record as a row under `HEAD`; where the setting is another, it is our bar that holds or not."""
    other = record.reproduced == "other setting"
    null = show(record.null.value, record.ours.unit) + (f": {record.null.what}" if record.null.what else "")
    if record.skipped is not None:
        same, came = "-", "not measured"
    else:
        same = "no" if other else "yes"
        came = ("our bar holds" if record.holds else "our bar is missed") if other else record.reproduced
    return (
        str(record.system), record.claim, show(record.paper.value, record.paper.unit),
        show(record.ours.value, record.ours.unit), null, same, record.skipped or record.reason, came,
    )  # fmt: skip


def table(records: Iterable[Record], width: int = WIDTH) -> str:
    """Returns the records as one table of plain text, ``width`` characters wide."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in HEAD:
        made.add_column(head, overflow="fold", ratio=RATIO.get(head))
    for record in records:
        made.add_row(*map(Text, row(record)))
    made.expand = True
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n"))


def gather(
    names: Sequence[str], known: Iterable[str], *, quick: bool, kept: Path | None = None, resume: bool = False,
    measure: Run | None = None, say: Callable[[str], None] = print,
) -> tuple[list[Record], list[str]]:  # fmt: skip
    """Runs scripts, saying so, and returns the records of all that did, and the names of those that failed.

    Args:
        names: of scripts, in order.
        known: those that there are; others are skipped.
        quick: fewer cases.
        kept: file that holds the records so far, written after every script; None = nowhere.
        resume: leave out scripts with records in ``kept``.
        measure: what runs one: (name, quick) to its records, or None where it failed; default: `evidence.run`.
        say: takes a line on each.
    """
    present, found, failed = set(known), list[Record](), list[str]()
    if kept is not None and resume and kept.exists():
        found = from_json(kept.read_bytes())
    for i, name in enumerate(names, 1):
        line = f"[{i}/{len(names)}] {name}"
        if name not in present:
            say(f"{line}: skipped, there is no benchmarks/{name}.py")
            continue
        if any(script(r) == name for r in found):
            say(f"{line}: known, {sum(script(r) == name for r in found)} records")
            continue
        start = time.perf_counter()
        new = run(name, quick=quick) if measure is None else measure(name, quick)
        spent = time.perf_counter() - start
        if new is None:
            failed.append(name)
            say(f"{line}: FAILED after {spent:.0f} s; the others' records stay")
            continue
        found += new
        if kept is not None:
            write_atomic(kept, to_json(found))
        say(f"{line}: {len(new)} records in {spent:.0f} s")
    return found, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named scripts (default: all) and prints one table; 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scripts", nargs="*", metavar="script", help=f"of {', '.join(PAPERS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer cases, some minutes for all")
    parser.add_argument("--json", action="store_true", help="print a JSON list of records")
    parser.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    parser.add_argument("--keep", type=Path, help="file that holds the records so far; default: a temporary one")
    options = parser.parse_args(arguments)
    for name in options.scripts:
        if name not in PAPERS:
            parser.error(f"no script {name!r}; known: {', '.join(PAPERS)}")
    name = "fleetcast-serving-papers-quick.json" if options.quick else "fleetcast-serving-papers.json"
    found, failed = gather(
        options.scripts or PAPERS, scripts(), quick=options.quick, resume=options.resume,
        kept=options.keep or Path(tempfile.gettempdir()) / name,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(to_json(found) if options.json else table(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
