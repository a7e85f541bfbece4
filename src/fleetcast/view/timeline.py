"""Event records as Chrome trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

from fleetcast.base.record import Record


def chrome_trace(record: Record, *, name: str = "fleetcast") -> Iterator[dict[str, Any]]:
    """Yields the events of a trace: a lane per resource, a counter of its memory's fill; times in us.

    Args:
        record: what was logged.
        name: of the process that holds the lanes.
    """
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}}
    for i, resource in enumerate(record.resources):
        yield {"ph": "M", "pid": 1, "tid": i + 1, "name": "thread_name", "args": {"name": resource}}
    fills = [f"{resource}: memory filled" for resource in record.resources]
    columns = (record.time, record.duration, record.resource, record.what, record.count, record.items, record.level)
    for time, duration, resource, what, count, items, level in zip(*(c.tolist() for c in columns), strict=True):
        yield {
            "ph": "X", "pid": 1, "tid": resource + 1, "name": record.whats[what],
            "ts": round(time * 1e6, 3), "dur": round(duration * 1e6, 3), "args": {"steps": count, "requests": items},
        }  # fmt: skip
        yield {
            "ph": "C", "pid": 1, "name": fills[resource], "ts": round((time + duration) * 1e6, 3),
            "args": {"percent": round(100 * level, 2)},
        }  # fmt: skip


def trace_bytes(record: Record, *, name: str = "fleetcast") -> bytes:
    """Returns the trace as gzipped JSON; equal records give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        for i, event in enumerate(chrome_trace(record, name=name)):
            file.write((",\n" if i else "").encode() + json.dumps(event, separators=(",", ":")).encode())
        file.write(b"\n]}\n")
    return buffer.getvalue()
