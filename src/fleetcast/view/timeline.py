"""Event records as Chrome trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

from fleetcast.base.record import Record
from fleetcast.base.show import show

SLICES = 50_000
"""Most spans in a trace, the earliest: about a megabyte, which viewers open at once."""


def left_out(record: Record, most: int = SLICES) -> str:
    """Returns what a trace of ``most`` spans leaves out, in a sentence; "" where it holds them all."""
    if len(record) <= most:
        return ""
    start, end = float(record.time[0]), float((record.time + record.duration).max())
    until = show(float(record.time[most - 1]) - start, "s")
    return f"the first {most:,} of {len(record):,} spans: {until} of {show(end - start, 's')}"


def shortened(record: Record | None) -> str:
    """Returns the sentence for people that says what trace.json.gz leaves out, "" where there is nothing to say."""
    note = "" if record is None else left_out(record)
    return f"trace.json.gz holds {note}" if note else ""


def chrome_trace(
    record: Record, *, name: str = "fleetcast", most: int = SLICES, numbered: bool = False
) -> Iterator[dict[str, Any]]:
    """Yields the events of a trace: a lane per resource, a counter of its memory's fill; times in us.

    Args:
        record: what was logged, in order of time.
        name: of the process that holds the lanes; a label beside it says what is left out.
        most: spans, the earliest.
        numbered: a span is one task or message, its items the number of that; no memory fills.
    """
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}}
    if note := left_out(record, most):
        yield {"ph": "M", "pid": 1, "name": "process_labels", "args": {"labels": note}}
    for i, resource in enumerate(record.resources):
        yield {"ph": "M", "pid": 1, "tid": i + 1, "name": "thread_name", "args": {"name": resource}}
    fills = [f"{resource}: memory filled" for resource in record.resources]
    columns = (record.time, record.duration, record.resource, record.what, record.count, record.items, record.level)
    rows = zip(*(c[:most].tolist() for c in columns), strict=True)
    for time, duration, resource, what, count, items, level in rows:
        yield {
            "ph": "X", "pid": 1, "tid": resource + 1, "name": record.whats[what],
            "ts": round(time * 1e6, 3), "dur": round(duration * 1e6, 3),
            "args": {"number": items} if numbered else {"steps": count, "requests": items},
        }  # fmt: skip
        if numbered:
            continue
        yield {
            "ph": "C", "pid": 1, "name": fills[resource], "ts": round((time + duration) * 1e6, 3),
            "args": {"percent": round(100 * level, 2)},
        }  # fmt: skip


def trace_bytes(record: Record, *, name: str = "fleetcast", most: int = SLICES, numbered: bool = False) -> bytes:
    """Returns the trace of at most ``most`` spans as gzipped JSON; equal records give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        for i, event in enumerate(chrome_trace(record, name=name, most=most, numbered=numbered)):
            file.write((",\n" if i else "").encode() + json.dumps(event, separators=(",", ":")).encode())
        file.write(b"\n]}\n")
    return buffer.getvalue()
