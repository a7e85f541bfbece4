"""The script of speculation's records: where a gain crosses 1, and that quick records say what they must."""

import pytest

from benchmarks import speculation
from benchmarks.records import from_json, to_json


@pytest.mark.parametrize(
    ("gains", "at"), [({1: 2.0, 4: 1.5, 16: 0.5}, 8.0), ({1: 2.0, 4: 1.1}, 0.0), ({1: 0.9, 4: 0.8}, 0.0)]
)
def test_crossing(gains: dict[int, float], at: float) -> None:
    assert speculation.crossing(gains) == pytest.approx(at)


def test_quick_records_hold() -> None:
    records = speculation.records(quick=True)
    assert {r.system for r in records} == {45} and len({r.claim for r in records}) == len(records)
    assert from_json(to_json(records)) == records
    missed = [r.claim for r in records if not r.holds]  # of ours, and the forecast does not bear it out
    assert missed == ["cost of a token with the drafter on an L40S over on the target's own devices, least"]
