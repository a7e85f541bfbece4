"""Outcome minus Outcome."""

import pytest

from fleetcast.view.compare import compare


def test_difference_of_each_metric(make):
    before, after = make(), make(slow=1.1)
    found = {d.metric: d for d in compare(before, after)}
    assert found["ttft.p99"].relative == pytest.approx(0.1, rel=1e-6)
    assert found["ttft.p99"].covered is True, "10 % lies within +-20 %"
    assert found["tpot.p99"].covered is False, "10 % lies outside +-5 %"
    assert found["throughput"].covered is None


def test_no_difference_to_itself(make):
    assert all(d.relative in (0.0, None) for d in compare(make(), make()))
