"""Multiple-choice questions with four options: the published schema of Mobile-MMLU, and the packaged everyday items.

Mobile-MMLU (Bsharat et al., arXiv 2503.20786) publishes CSV files, one a field, with the columns question_id, Question,
A, B, C, D and no key: its leaderboard scores answers that are sent in. A file of ours has the same columns and after
them answer, field, source and check; JSON lines and Parquet may hold the same, or options as a list.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError, closest
from fleetcast.base.files import read_text

LETTERS: Final = "ABCD"
COLUMNS: Final = ("question_id", "Question", *LETTERS, "answer", "field", "source", "check")
EVERYDAY: Final = Path(__file__).with_name("everyday.csv")
"""The packaged questions, all written for this project."""

_ID, _QUESTION = ("question_id", "id"), ("question",)
_OPTIONS = ("choices", "options")
_ANSWER = ("answer", "answer_key", "correct_answer", "label")
_FIELD = ("field", "topic", "subject", "category")
_KINDS: Final = (".csv", ".jsonl", ".ndjson", ".parquet", ".pq")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A question.

    Attributes:
        id: its name, unique in a set.
        question: its text.
        options: four, all different.
        answer: index of the right option; -1 = the key is not known.
        field: of life or knowledge that it belongs to.
        source: where the answer stands; "" = not said.
    """

    id: str
    question: str
    options: tuple[str, str, str, str]
    answer: int = -1
    field: str = ""
    source: str = ""


def everyday() -> tuple[Item, ...]:
    """Returns the packaged questions."""
    return read_items(EVERYDAY)


def read_items(path: str | Path) -> tuple[Item, ...]:
    """Returns the questions of a CSV, JSON lines or Parquet file, or of all such files in a folder and below it.

    A file without a column for the field gives its own name as the field; ``test.csv`` that of its folder.

    Raises:
        SpecError: absent, a column missing, or rows that are no question; names file, row, column and value.
        MissingExtra: Parquet without pyarrow.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _KINDS and p.is_file())
        if not files:
            raise SpecError(str(path), "holds no questions", limit=f"files that end in {', '.join(_KINDS)}")
    found: list[Item] = []
    wrong: list[SpecError] = []
    for file in files:
        for row in _read(file):
            if isinstance(row, Item):
                found.append(row)
            else:
                wrong.append(row)
    seen: dict[str, str] = {}
    for item in found:
        if item.id in seen:
            wrong.append(SpecError(f"{path}, question {item.id}", "is there twice", limit="each id once"))
        seen[item.id] = item.question
    if wrong:
        first = wrong[0]
        more = "; ".join(e.path for e in wrong[1 : 1 + _SHOWN])
        rest = f"; {len(wrong) - 1} more rows are wrong: {more}{', ...' if len(wrong) > 1 + _SHOWN else ''}"
        raise SpecError(
            first.path, first.problem, value=first.value, limit=first.limit + (rest if len(wrong) > 1 else ""),
            hint=first.hint,
        )  # fmt: skip
    if not found:
        raise SpecError(str(path), "holds no questions", limit="a header line and at least one question")
    return tuple(found)


def with_key(items: Sequence[Item], path: str | Path) -> tuple[Item, ...]:
    """Returns the questions with the answers of a key: a CSV file with question_id and answer (or predicted_answer).

    Raises:
        SpecError: no such columns, a question that the key leaves out, or an answer that is none of its options.
    """
    table = {}
    for line, row in _csv(Path(path)):
        low = {str(k).strip().lower(): v for k, v in row.items()}
        name, answer = _first(low, _ID), _first(low, (*_ANSWER, "predicted_answer"))
        if name is None or answer is None:
            raise SpecError(f"{path} line {line}", "is no row of a key", limit="columns: question_id, answer")
        table[str(name)] = line, answer
    keyed = []
    for item in items:
        if item.id not in table:
            raise SpecError(str(path), f"has no answer to question {item.id}", limit="a row per question")
        line, answer = table[item.id]
        place = _place(answer, item.options, f"{path} line {line}, column answer")
        keyed.append(replace(item, answer=place))
    return tuple(keyed)


def of_fields(items: Sequence[Item], fields: Iterable[str]) -> tuple[Item, ...]:
    """Returns the questions of some fields; of all where none is named.

    Raises:
        SpecError: a field without questions; names the nearest.
    """
    wanted = [f.strip() for f in fields if f.strip()]
    known = dict.fromkeys(item.field for item in items)
    for field in wanted:
        if field not in known:
            raise SpecError(
                "fields", "has no questions", value=field, limit=f"one of {', '.join(known)}",
                hint=closest(field, known),
            )  # fmt: skip
    return tuple(item for item in items if not wanted or item.field in wanted)


def _read(path: Path) -> Iterator[Item | SpecError]:
    kind = path.suffix.lower()
    field = path.parent.name if path.stem in ("test", "0000") or path.stem.startswith("test-") else path.stem
    if kind in (".parquet", ".pq"):
        rows: Iterable[tuple[str, Mapping[str, Any]]] = ((f"row {i}", row) for i, row in enumerate(_parquet(path), 1))
    elif kind in (".jsonl", ".ndjson"):
        rows = _json_lines(path)
    elif kind == ".csv":
        rows = ((f"line {line}", row) for line, row in _csv(path))
    else:
        raise SpecError(str(path), "is of a kind that is not read", value=kind, limit=f"one of {', '.join(_KINDS)}")
    for place, row in rows:
        try:
            yield _item(row, f"{path} {place}", field)
        except SpecError as error:
            if error.problem.startswith("has no column"):
                raise
            yield error


def _item(row: Mapping[str, Any], where: str, field: str) -> Item:
    low = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
    name, question = _needed(low, _ID, where), _needed(low, _QUESTION, where)
    listed = _first(low, _OPTIONS)
    if listed is not None:
        if isinstance(listed, str) or not isinstance(listed, Sequence) or len(listed) != len(LETTERS):
            raise SpecError(f"{where}, column choices", "are not four", value=listed, limit="a list of four texts")
        options = [str(option).strip() for option in listed]
    else:
        options = [_needed(low, (letter.lower(),), where) for letter in LETTERS]
    for letter, option in zip(LETTERS, options, strict=True):
        if not option:
            raise SpecError(f"{where}, column {letter}", "is empty", value=option, limit="the text of an option")
    if len(set(options)) < len(options):
        twice = next(o for o in options if options.count(o) > 1)
        raise SpecError(f"{where}, columns A to D", "hold an option twice", value=twice, limit="four different ones")
    if not name or not question:
        raise SpecError(f"{where}, column {'Question' if name else 'question_id'}", "is empty", limit="some text")
    answer = _first(low, _ANSWER)
    place = -1 if answer is None or answer == "" else _place(answer, options, f"{where}, column answer")
    a, b, c, d = options
    return Item(
        name, question, (a, b, c, d), place, str(_first(low, _FIELD) or field), str(_first(low, ("source",)) or "")
    )


def _place(answer: object, options: Sequence[str], where: str) -> int:
    """Returns which option an answer is: its letter, its number from 0, or its text."""
    said = str(answer).strip()
    if len(said) == 1 and said.upper() in LETTERS:
        return LETTERS.index(said.upper())
    number = int(said) if said.isdecimal() and int(said) < len(options) else -1
    place = options.index(said) if said in options and not isinstance(answer, int) else -1
    if number >= 0 and place >= 0 and number != place:
        raise SpecError(where, "is a number from 0 and an option's text", value=answer, limit="A to D")
    if max(number, place) < 0:
        raise SpecError(where, "is none of the options", value=answer, limit="A to D, 0 to 3, or an option's text")
    return max(number, place)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _needed(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    if not any(name in row for name in names):
        raise SpecError(
            where, f"has no column {names[0].upper() if len(names[0]) == 1 else names[0]}",
            limit=f"columns: {', '.join(COLUMNS[:6])}, and answer where the key is known",
        )  # fmt: skip
    return str(_first(row, names) or "").strip()


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SpecError(f"{path} line {reader.line_num}", f"is no CSV: {error}", hint="Check its quotes") from None


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for i, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise SpecError(f"{path} line {i}", "is no JSON object", value=line, limit="one question a line")
        yield f"line {i}", row


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise SpecError(str(path), f"cannot be read as Parquet: {error}", hint="Fetch it again") from None
    return rows
