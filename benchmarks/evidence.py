"""Runs every benchmark, merges the records, and renders all figures of the documentation from them.

``make evidence`` writes

- ``docs/evidence.json``: all records; a skipped one never overwrites a result,
- ``src/fleetcast/view/evidence/forecast_error.json``: those of ``accuracy_*``, for reports,
- ``docs/systems.md``: from ``docs/systems.toml`` and the records,
- what stands between ``<!-- evidence:ID -->`` and ``<!-- /evidence -->`` in ``docs/**/*.md`` and
  the README. ID is ``all``, a system's number, a script's name, or a claim's slug. Alone on its
  line it becomes a table, within a sentence the figure,
- the tables that `benchmarks.pages` makes from the code.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.pages import fill as fill_tables
from benchmarks.records import ROOT, SYSTEMS, Record, from_json, show, table, to_json, verdict
from fleetcast.base.files import write_atomic

EVIDENCE = ROOT / "docs" / "evidence.json"
FORECAST_ERROR = ROOT / "src/fleetcast/view/evidence/forecast_error.json"
_BLOCK = re.compile(r"<!-- evidence:([^ ]+) -->(.*?)<!-- /evidence -->", re.DOTALL)
_STATES = ("done", "partial", "planned")


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published system: its home in the house, how far we are, the command, one line on it."""

    number: int
    name: str
    home: str
    state: str
    line: str
    command: str = ""


def scripts(folder: Path = ROOT / "benchmarks") -> list[str]:
    """Returns the names of the scripts that define ``records``, sorted."""
    return [p.stem for p in sorted(folder.glob("*.py")) if _defines(p, "records")]


def merge(
    old: Sequence[Record], new: Sequence[Record], *, ran: Sequence[str] = (), quick: bool = False
) -> list[Record]:
    """Returns the records after a run.

    Args:
        old: those known so far.
        new: those just measured.
        ran: scripts that ran to their end: what they no longer report is dropped.
        quick: the run was a quick one: it only fills gaps.
    """
    merged = {r.key: r for r in old}
    for record in new:
        known = merged.get(record.key)
        if known is None or known.skipped is not None or (record.skipped is None and not quick):
            merged[record.key] = record
    if not quick:
        reported = {r.key for r in new}
        gone = [k for k, r in merged.items() if script(r) in ran and k not in reported]
        for key in gone:
            del merged[key]
    return sorted(merged.values(), key=lambda r: (r.system, r.command, r.claim))


def script(record: Record) -> str:
    """Returns the name of the script that a record's command runs, or ""."""
    match = re.search(r"benchmarks[./](\w+)", record.command)
    return match[1] if match else ""


def slug(claim: str) -> str:
    """Returns a claim as an identifier.

    Examples:
        >>> slug("TPOT, mean error on 20 vLLM cases")
        'tpot-mean-error-on-20-vllm-cases'
    """
    return re.sub(r"[^a-z0-9]+", "-", claim.lower()).strip("-")


def select(records: Sequence[Record], identifier: str) -> list[Record]:
    """Returns the records that an ID names: all, a system, a script, or one claim."""
    if identifier == "all":
        return list(records)
    if identifier.isdigit():
        return [r for r in records if r.system == int(identifier)]
    return [r for r in records if identifier in (script(r), slug(r.claim))]


def fill(text: str, records: Sequence[Record]) -> str:
    """Returns a page with its marked blocks rendered; filling twice changes nothing."""

    def render(match: re.Match[str]) -> str:
        chosen = select(records, match[1])
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        block = not before.strip() and ("\n" in match[2] or match.end() in _line_ends(text))
        if block:
            body = "\n\n" + markdown(chosen) + "\n\n"
        else:
            body = ", ".join(show(r.ours.value, r.ours.unit) for r in chosen) or "not measured yet"
        return f"<!-- evidence:{match[1]} -->{body}<!-- /evidence -->"

    return _BLOCK.sub(render, text)


def markdown(records: Sequence[Record]) -> str:
    """Returns records as a Markdown table, with the reasons below it."""
    if not records:
        return "*Not measured yet: run `make evidence`.*"
    lines = [
        "| system | claim | paper | ours | null | our bar | | reproduced |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for r in records:
        ours = show(r.ours.value, r.ours.unit)
        if r.ours.spread is not None:
            ours += f" (spread {show(r.ours.spread)})"
        null = f"{show(r.null.value)} ({r.null.what})" if r.null.what else "-"
        cells = (
            str(r.system), r.claim, show(r.paper.value, r.paper.unit), ours, null, r.bar,
            verdict(r), r.reproduced,
        )  # fmt: skip
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        why = r.skipped or r.reason
        setting = f" Setting: {r.ours.setting}." if r.ours.setting else ""
        if why or setting:
            notes.append(
                f"- {r.system}, {r.claim}: {why.rstrip('.')}.{setting}" if why else f"- {r.system}, {r.claim}.{setting}"
            )
    return "\n".join(lines + (["", *notes] if notes else []))


def systems(text: str) -> list[System]:
    """Returns the systems of ``systems.toml``, in order.

    Raises:
        ValueError: a number is missing or twice, or a state is unknown.
    """
    found = msgspec.convert(tomllib.loads(text)["system"], type=list[System])
    if [s.number for s in found] != list(range(1, SYSTEMS + 1)):
        raise ValueError(f"systems.toml must list 1 to {SYSTEMS} in order")
    for s in found:
        if s.state not in _STATES:
            raise ValueError(f"system {s.number}: state {s.state!r} is not one of {_STATES}")
        if s.state != "planned" and not s.command:
            raise ValueError(f"system {s.number} is {s.state}: name the command that shows it")
    return found


def systems_page(found: Sequence[System], records: Sequence[Record]) -> str:
    """Returns ``docs/systems.md``."""
    counts = {state: sum(s.state == state for s in found) for state in _STATES}
    lines = [
        "# The 62 systems",
        "",
        "<!-- Rendered by `make evidence` from systems.toml and evidence.json: edit those. -->",
        "",
        "Every published method that Fleetcast is to hold, where it lives in the house, and "
        "how far it is: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
        + ". The figures come from [the evidence](evidence.md).",
        "",
        "| | system | home | state | what it is for | command | evidence |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in found:
        mine = [r for r in records if r.system == s.number]
        cells = (
            str(s.number), s.name, f"`{s.home}`", s.state, s.line,
            f"`{s.command}`" if s.command else "", _tally(mine),
        )  # fmt: skip
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    shown = [s for s in found if any(r.system == s.number for r in records)]
    for s in shown:
        mine = [r for r in records if r.system == s.number]
        lines += ["", f"## {s.number}. {s.name}", "", s.line, "", markdown(mine)]
    return "\n".join(lines) + "\n"


def render(root: Path, records: Sequence[Record]) -> dict[Path, str]:
    """Returns the text of every file that follows from the records."""
    pages = {
        path: fill(fill_tables(path.read_text(encoding="utf-8")), records)
        for path in [*sorted((root / "docs").glob("**/*.md")), root / "README.md"]
        if path.exists()
    }
    listed = systems((root / "docs" / "systems.toml").read_text(encoding="utf-8"))
    pages[root / "docs" / "systems.md"] = systems_page(listed, records)
    errors = [r for r in records if script(r).startswith("accuracy_") and r.skipped is None]
    pages[root / FORECAST_ERROR.relative_to(ROOT)] = to_json(errors)
    return pages


def run(name: str, *, quick: bool) -> list[Record] | None:
    """Returns a script's records, measured in a process of its own; None where it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"] + ["--quick"] * quick
    print(f"== {' '.join(command[1:])}", file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        print(f"{name} failed with status {done.returncode}: its old records stay", file=sys.stderr)
        return None
    try:
        return from_json(done.stdout)
    except msgspec.MsgspecError as error:
        print(f"{name} returned something else than records: {error}", file=sys.stderr)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named scripts (default: all) and renders; 1 where a script failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks, render the docs' figures.")
    parser.add_argument("scripts", nargs="*", metavar="script", help="names in benchmarks/; default: all")
    parser.add_argument("--quick", action="store_true", help="quick runs, which only fill gaps")
    parser.add_argument("--render", action="store_true", help="measure nothing, only render")
    options = parser.parse_args(arguments)
    known = scripts()
    for name in options.scripts:
        if name not in known:
            parser.error(f"no script {name!r}; known: {', '.join(known) or 'none'}")
    records = from_json(EVIDENCE.read_bytes()) if EVIDENCE.exists() else []
    failed = []
    for name in [] if options.render else options.scripts or known:
        new = run(name, quick=options.quick)
        if new is None:
            failed.append(name)
            continue
        records = merge(records, new, ran=[name], quick=options.quick)
        # Written after each script: a killed run keeps what it has measured.
        write_atomic(EVIDENCE, to_json(records))
    for path, text in render(ROOT, records).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)
    print(table(records))
    return 1 if failed else 0


def _defines(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(n, ast.FunctionDef) and n.name == name for n in tree.body)


def _line_ends(text: str) -> set[int]:
    return {m.start() for m in re.finditer(r"\n|\Z", text)}


def _tally(records: Sequence[Record]) -> str:
    if not records:
        return ""
    held = sum(bool(r.holds) for r in records)
    measured = sum(r.skipped is None for r in records)
    return f"{held} of {measured} bars hold" + (
        f", {len(records) - measured} skipped" if measured < len(records) else ""
    )


if __name__ == "__main__":
    sys.exit(main())
