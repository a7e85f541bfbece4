"""Evidence as data: one record a claim, the same keys everywhere.

A script in this folder defines ``records(quick: bool) -> list[Record]``. It starts and ends with

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well
    from benchmarks.records import Ours, Record, main
    ...
    if __name__ == "__main__":
        sys.exit(main(records))

which gives it ``--json``, ``--quick`` and the printed table. `benchmarks.evidence` runs them all.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = 62

Value = float | int | str | bool | None


class Paper(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the paper says; value None where no paper says anything (a bar of our own)."""

    value: Value = None
    unit: str = ""
    setting: str = ""


class Ours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured here, its spread (say of what) and the setting."""

    value: Value = None
    unit: str = ""
    spread: Value = None
    setting: str = ""


class Null(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the trivial rule gives on the same cases, and which rule that is."""

    value: Value = None
    what: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One claim, what the paper says, what we measured, and whether our bar holds.

    Attributes:
        system: number of the published system, 1 to 62.
        claim: what is claimed, one line; with ``system`` it identifies the record.
        paper: the paper's figure.
        ours: our figure; value None only where skipped.
        null: the trivial rule's figure.
        bar: what we hold ourselves to, in words.
        holds: whether our bar holds; None only where skipped.
        reproduced: whether the paper's claim came out; "other setting" where ours is another.
        reason: why not, required unless reproduced is "yes".
        skipped: why nothing was measured, or None.
        seconds: CPU time of the record, s.
        command: what reproduces it.
    """

    system: int
    claim: str
    paper: Paper = msgspec.field(default_factory=Paper)
    ours: Ours = msgspec.field(default_factory=Ours)
    null: Null = msgspec.field(default_factory=Null)
    bar: str
    holds: bool | None
    reproduced: Literal["yes", "no", "other setting"]
    reason: str = ""
    skipped: str | None = None
    seconds: float = 0.0
    command: str

    def __post_init__(self) -> None:
        """Refuses a record that says less than it must.

        Raises:
            ValueError: names the record and what is missing.
        """
        for problem, bad in {
            f"system must be 1 to {SYSTEMS}": not 1 <= self.system <= SYSTEMS,
            "claim must be one line of text": not self.claim.strip() or "\n" in self.claim,
            "bar must say what is held to": not self.bar.strip(),
            "command must say how to run it": not self.command.strip(),
            "reason is required unless reproduced is 'yes'": self.reproduced != "yes" and not self.reason.strip(),
            "skipped must say why": self.skipped is not None and not self.skipped.strip(),
            "ours.value and holds are required unless skipped": self.skipped is None
            and (self.ours.value is None or self.holds is None),
            "a skipped record has no result": self.skipped is not None
            and (self.ours.value is not None or self.holds is not None),
            "seconds must be at least 0": not self.seconds >= 0,
            "numbers must be finite": any(
                isinstance(v, float) and not math.isfinite(v)
                for v in (self.paper.value, self.ours.value, self.ours.spread, self.null.value)
            ),
        }.items():
            if bad:
                raise ValueError(f"record {self.system} '{self.claim[:60]}': {problem}")

    @property
    def key(self) -> tuple[int, str]:
        """What identifies the record."""
        return self.system, self.claim


def skipped(*, system: int, claim: str, bar: str, why: str, command: str = "") -> Record:
    """Returns the record of a claim that cannot be measured on this machine."""
    return Record(
        system=system, claim=claim, bar=bar, holds=None, reproduced="other setting",
        reason=f"not measured: {why}", skipped=why, command=command or caller_command(),
    )  # fmt: skip


def absent(*packages: str) -> str:
    """Returns those of the packages that are not installed, or ""."""
    return ", ".join(name for name in packages if find_spec(name) is None)


def caller_command() -> str:
    """Returns ``python -m benchmarks.NAME`` for the script in this folder that called."""
    folder = str(Path(__file__).resolve().parent)
    for frame in inspect.stack():
        path = Path(frame.filename).resolve()
        if str(path.parent) == folder and path.stem not in ("records", "evidence"):
            return f"python -m benchmarks.{path.stem}"
    raise ValueError("no script of benchmarks/ is calling: name the command")


def data_root() -> Path | None:
    """Returns the folder of measured data, or None: ``FLEETCAST_DATA``, else ``../shared/data``."""
    root = Path(os.environ.get("FLEETCAST_DATA") or ROOT.parent / "shared" / "data")
    return root if root.is_dir() else None


def data_path(*parts: str) -> Path | None:
    """Returns a file or folder of the measured data, or None where it is absent."""
    root = data_root()
    path = root.joinpath(*parts) if root else None
    return path if path is not None and path.exists() else None


def cpu_seconds() -> float:
    """Returns the CPU time spent so far by this process and its finished children, s."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Timer:
    """How long a block took: ``seconds`` of CPU (children included) and ``wall``."""

    seconds = 0.0
    wall = 0.0


@contextlib.contextmanager
def timer() -> Iterator[Timer]:
    """Measures the block that it opens; read ``seconds`` and ``wall`` after it."""
    result = Timer()
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield result
    finally:
        result.seconds, result.wall = cpu_seconds() - cpu, time.perf_counter() - wall


def child(script: str, function: Callable[..., Any], *arguments: Any, before: str = "") -> tuple[Any, float]:
    """Runs a function of a script in a fresh interpreter; returns its result and the CPU seconds of all processes.

    Args:
        script: name of its module in this folder; a script that is run has another.
        function: takes and returns what JSON holds.
        arguments: of it.
        before: code that runs first.
    """
    code = f"import importlib, json\n{before}\nfrom benchmarks import {script} as s\n"
    code += f"print(json.dumps(s.{function.__name__}(*{arguments!r})))"
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    started = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)},
    )  # fmt: skip
    ended = os.times()
    used = ended.children_user + ended.children_system - started.children_user - started.children_system
    return json.loads(done.stdout.splitlines()[-1]), used


def to_json(records: Sequence[Record]) -> str:
    """Returns a JSON list; equal records give equal text."""
    return msgspec.json.format(msgspec.json.encode(list(records)), indent=1).decode() + "\n"


def from_json(text: str | bytes) -> list[Record]:
    """Returns the records of a JSON list.

    Raises:
        msgspec.ValidationError: a key too many or missing, a wrong type, a refused record.
    """
    return msgspec.json.decode(text, type=list[Record])


def show(value: Value, unit: str = "") -> str:
    """Returns a figure for people: three significant digits, with its unit.

    Examples:
        >>> show(0.012345, "s"), show(1543.2), show(True), show(None)
        ('0.0123 s', '1543', 'yes', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    else:
        text = str(value)
    return f"{text} {unit}".rstrip()


def verdict(record: Record) -> str:
    """Returns "holds", "MISSED" or "skipped"."""
    if record.skipped is not None:
        return "skipped"
    return "holds" if record.holds else "MISSED"


def table(records: Sequence[Record]) -> str:
    """Returns the records as a table of plain text, reasons below."""
    head = ("system", "claim", "paper", "ours", "null", "bar", "", "reproduced")
    rows = [head]
    notes = []
    for r in records:
        ours = show(r.ours.value, r.ours.unit)
        if r.ours.spread is not None:
            ours += f" (spread {show(r.ours.spread)})"
        rows.append((
            str(r.system), r.claim, show(r.paper.value, r.paper.unit), ours,
            show(r.null.value, r.ours.unit), r.bar, verdict(r), r.reproduced,
        ))  # fmt: skip
        if r.skipped is not None or r.reason:
            notes.append(f"  {r.system} {r.claim}: {r.skipped or r.reason}")
    widths = [min(48, max(len(row[i]) for row in rows)) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines + (["", *notes] if notes else []))


def main(records: Callable[[bool], list[Record]], arguments: Sequence[str] | None = None) -> int:
    """Runs a script: prints its table, or JSON alone with ``--json``.

    Whatever the script prints goes to stderr, so that the JSON on stdout stays whole.

    Args:
        records: takes ``quick`` and measures.
        arguments: instead of the command line's.

    Returns:
        The exit status: 0, also when a bar is missed (the records say so).
    """
    parser = argparse.ArgumentParser(description=(sys.modules[records.__module__].__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print a JSON list of records")
    parser.add_argument("--quick", action="store_true", help="fewer cases, under a minute where that is possible")
    options = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):
        found = records(options.quick)
    print(to_json(found) if options.json else table(found))
    return 0
