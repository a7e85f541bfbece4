"""Event records as Chrome traces."""

import gzip
import json

import pytest

from fleetcast.view.timeline import chrome_trace, left_out, trace_bytes


def test_trace_holds_every_span_and_lane(outcome):
    events = list(chrome_trace(outcome.record))
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == len(outcome.record)
    assert {e["args"]["name"] for e in events if e["name"] == "thread_name"} == set(outcome.record.resources)
    assert sum(e["dur"] for e in spans) == pytest.approx(1e6 * outcome.record.duration.sum(), rel=1e-6)
    assert {e["name"] for e in spans} == set(outcome.record.whats)


def test_trace_file_is_json_and_equal_for_equal_records(outcome):
    data = trace_bytes(outcome.record)
    table = json.loads(gzip.decompress(data))
    assert table["displayTimeUnit"] == "ms"
    assert len(table["traceEvents"]) == 1 + len(outcome.record.resources) + 2 * len(outcome.record)
    assert data == trace_bytes(outcome.record)


def test_a_long_trace_holds_its_beginning_and_says_so(outcome):
    record = outcome.record
    assert left_out(record) == "" and not any(e["name"] == "process_labels" for e in chrome_trace(record))
    note = left_out(record, 100)
    assert note.startswith("the first 100 of 600 spans: ")
    events = list(chrome_trace(record, most=100))
    spans = [e for e in events if e["ph"] == "X"]
    assert [e["ts"] for e in spans] == [pytest.approx(1e6 * t, abs=1e-3) for t in record.time[:100]]
    assert [e["args"]["labels"] for e in events if e["name"] == "process_labels"] == [note]
    assert len(trace_bytes(record, most=100)) < len(trace_bytes(record))
