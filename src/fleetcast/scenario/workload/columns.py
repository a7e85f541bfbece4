"""What trace formats call their columns, and how the columns become `Requests`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fleetcast.base.errors import SpecError, nearest
from fleetcast.scenario.workload.requests import Requests, requests

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Format:
    """A trace format: column -> name in the file (compared without regard to case).

    Attributes:
        title: for messages.
        arrival: name of the time column.
        prompt: name of the prompt length column.
        output: name of the output length column.
        scale: seconds per unit of the time column, where it holds numbers.
        timeless: whether a file may lack the time column.
        mark: name of a column that only this format has, where another names the rest alike.
    """

    title: str
    arrival: str
    prompt: str
    output: str
    scale: float = 1.0
    timeless: bool = False
    mark: str = ""


OURS: Final = Format("Fleetcast", "arrival_s", "prompt_tokens", "output_tokens")
FORMATS: Final = (
    OURS,
    # APEX and Azure name the lengths alike: the one whose time column is there wins.
    Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    Format("APEX", "StartTimeOffset", "ContextTokens", "GeneratedTokens", scale=1e-9),
    Format("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", timeless=True),
    # Mooncake (FAST 2025) counts milliseconds, the traces of Qwen-Bailian (ATC 2025) seconds; both name blocks.
    Format("Mooncake", "timestamp", "input_length", "output_length", scale=1e-3),
    Format("Qwen-Bailian", "timestamp", "input_length", "output_length", mark="chat_id"),
)
_OPTIONAL: Final = {"session": "session", "prefix": "prefix_tokens", "blocks": "hash_ids"}
LISTS: Final = ("blocks",)
"""Columns whose cells hold several numbers."""


def match(header: Sequence[str], path: str) -> tuple[Format, dict[str, str]]:
    """Finds the format of a file by its column names.

    Returns:
        The format, and column -> name as the file spells it (no arrival where it has none).

    Raises:
        SpecError: no format's columns are all there; names the missing ones and a near one.
    """
    spelled = {name.strip().lower(): name for name in header}
    if len(spelled) < len(header):
        twice = sorted({h for h in header if [x.strip().lower() for x in header].count(h.lower()) > 1})
        raise SpecError(f"{path}, header", "has a column twice", value=", ".join(twice), hint="Rename one")

    def fit(f: Format) -> tuple[int, bool]:
        return sum(n.lower() in spelled for n in _wanted(f).values()), bool(f.mark) and f.mark in spelled

    best = max(FORMATS, key=fit)
    wanted = _wanted(best)
    missing = [n for n in wanted.values() if n.lower() not in spelled]
    if missing and not (best.timeless and missing == [best.arrival]):
        if header and all(_is_number(h) for h in header):
            raise SpecError(
                path, "has no header line", value=",".join(header[:4]),
                limit="the first line names the columns",
                hint=f"Put the line {','.join(_wanted(OURS).values())} first",
            )  # fmt: skip
        free = [h for h in header if h.strip().lower() not in {w.lower() for w in wanted.values()}]
        near = next((h for m in missing for h in [_near(m, free)] if h), "")
        known = "; ".join(f"{f.title}: {', '.join(_wanted(f).values())}" for f in FORMATS)
        raise SpecError(
            f"{path}, header", f"column {' and '.join(missing)} missing",
            value=", ".join(header)[:200], limit=f"columns by format: {known}", hint=near,
        )  # fmt: skip
    found = {c: spelled[n.lower()] for c, n in (wanted | _OPTIONAL).items() if n.lower() in spelled}
    return best, found


def assemble(
    columns: Mapping[str, Any],
    names: Mapping[str, str],
    format_: Format,
    path: str,
    place: Callable[[int], str],
) -> Requests:
    """Returns the requests of columns as they stand in a file.

    Args:
        columns: column -> values: numbers; arrival also texts or datetime64, session anything, blocks lists.
        names: column -> name in the file.
        format_: the file's format.
        path: the file, for messages.
        place: says where row i stands.

    Raises:
        SpecError: a value is missing or out of range.
    """
    arrival = columns.get("arrival")
    if arrival is not None:
        label = names["arrival"]
        arrival = _seconds(arrival, format_.scale, lambda row: f"{path}, {place(row)}, column {label}")
    session, prefix, parent = columns.get("session"), columns.get("prefix"), None
    if "blocks" in columns and prefix is None:
        prefix, parent = common(
            columns["blocks"], columns["prompt"], lambda row: f"{path}, {place(row)}, column {names['blocks']}"
        )
    return requests(
        arrival, columns["prompt"], columns["output"],
        session=None if session is None else number_sessions(session), prefix=prefix, parent=parent,
        name=path, where=place, labels=dict(names),
    )  # fmt: skip


def common(
    blocks: Sequence[Any], prompt: Any, cell: Callable[[int], str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many leading tokens of each prompt an earlier one holds, and which.

    Args:
        blocks: ids of each prompt's blocks in order; an id stands for a block and all before it. How many tokens a
            block has, a power of two, follows from their number.
        prompt: tokens.
        cell: says where row i stands, for messages.

    Raises:
        SpecError: a cell that is no list of ids, or numbers of blocks that no one size explains.
    """
    sizes = [1 << k for k in range(4, 13)]
    holder: dict[Any, int] = {}
    prefix, parent = np.zeros(len(blocks), dtype=np.int64), np.full(len(blocks), -1)
    for row, ids in enumerate(blocks):
        if not isinstance(ids, list) or any(isinstance(i, list | dict | float) for i in ids):
            raise SpecError(cell(row), "is not a list of block ids", value=ids, limit="e.g. [46, 47, 2353]")
        sizes = [size for size in sizes if -(-int(prompt[row]) // size) == len(ids)]
        if not sizes:
            raise SpecError(
                cell(row), f"names {len(ids)} blocks for a prompt of {int(prompt[row]):,} tokens", value=len(ids),
                limit="the number that one block size, a power of two from 16 to 4,096, gives in every row",
                hint="Correct that row or leave it out",
            )  # fmt: skip
        known = next((i for i, name in enumerate(ids) if name not in holder), len(ids))
        if known:
            prefix[row], parent[row] = known, holder[ids[known - 1]]
        holder |= dict.fromkeys(ids, row)
    return np.minimum(prefix * sizes[0], np.asarray(prompt)).astype(np.int64), parent


def number_sessions(names: Iterable[Any]) -> NDArray[np.int64]:
    """Returns conversations numbered in order of first appearance; an empty name is -1, none."""
    known: dict[str, int] = {}
    texts = ("" if name is None else str(name).strip() for name in names)
    numbered = (known.setdefault(text, len(known)) if text else -1 for text in texts)
    return np.fromiter(numbered, dtype=np.int64)


def _wanted(format_: Format) -> dict[str, str]:
    return {"arrival": format_.arrival, "prompt": format_.prompt, "output": format_.output}


def _near(missing: str, present: Sequence[str]) -> str:
    """A hint where a present column is nearly the missing one."""
    by_lower = {p.strip().lower(): p for p in present}
    near = nearest(missing.lower(), by_lower)
    return f"Did you mean {missing} by '{by_lower[near]}'?" if near else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _seconds(values: Any, scale: float, cell: Callable[[int], str]) -> NDArray[np.float64]:
    """Times as seconds: numbers scaled, dates counted from the earliest one."""
    column = np.asarray(values)
    if column.dtype.kind in "fiu":
        numbers = column.astype(np.float64)
        return numbers if scale == 1 else numbers * scale
    if column.dtype.kind == "M":
        stamps = column.astype("datetime64[ns]")
    else:
        texts = [str(v).strip() for v in values]
        if texts and _is_number(texts[0]):
            return np.array([_number(t, cell, i) for i, t in enumerate(texts)]) * scale
        stamps = _dates(texts, cell)
    missing = np.flatnonzero(np.isnat(stamps))
    if len(missing):
        raise SpecError(cell(int(missing[0])), "is missing", hint="Write a date and time")
    # Integer nanoseconds first: seconds since 1970 as a float would lose the last digits.
    elapsed = (stamps - stamps.min()).astype(np.int64) if len(stamps) else stamps.astype(np.int64)
    return elapsed / 1e9


def _number(text: str, cell: Callable[[int], str], row: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(
            cell(row), "is not a number", value=text, limit="a time in seconds",
            hint="Correct that row or leave it out",
        ) from None  # fmt: skip


_ZONE: Final = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")


def _dates(texts: Sequence[str], cell: Callable[[int], str]) -> NDArray[np.datetime64]:
    """Dates of one time zone; which one does not matter, only differences are used."""
    zone = _ZONE.search(texts[0][10:]) if texts else None
    cut = zone[0] if zone else ""
    bare = [t.removesuffix(cut) for t in texts] if cut else list(texts)
    try:
        return np.array(bare, dtype="datetime64[ns]")
    except ValueError:
        for i, text in enumerate(bare):
            try:
                np.datetime64(text, "ns")
            except ValueError:
                limit = "a date and time such as 2023-11-16 18:15:46.68"
                raise SpecError(
                    cell(i), "is not a time", value=texts[i],
                    limit=limit + (f", all with the zone {cut}" if cut else ""),
                    hint="Correct that row or leave it out",
                ) from None  # fmt: skip
        raise
