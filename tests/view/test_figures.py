"""Figures: what they show is computed here, how it looks is drawn from that alone."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.view import figures, plots, svg


def test_frontier_marks_the_best_the_frontier_and_the_missed(ranking, scenario):
    info = figures.frontier_info(ranking, scenario.slo)
    states = [p.state for p in info.points]
    assert states.count("best") == 1
    assert states.count("missed") == len(ranking.misses)
    assert len(info.points) == len(ranking.plans) + len(ranking.misses)
    assert info.x.name == "cost per million output tokens"
    best = next(p for p in info.points if p.state == "best")
    assert best.x == pytest.approx(ranking.best.metrics["per_million_output_tokens"]["cost"])


def test_frontier_of_nothing_is_nothing(ranking, scenario):
    assert figures.frontier_info(replace(ranking, plans=(), frontier=(), misses=()), scenario.slo) is None


def test_latency_distribution_is_the_requests(outcome, scenario):
    ttft, tpot, e2e = figures.latency_info(outcome, scenario.slo)
    assert ttft.limit == 2.0
    assert e2e.limit is None
    assert dict((n, v) for n, v, _ in ttft.marks)["p99"] == pytest.approx(outcome.metrics["ttft"]["p99"])
    assert dict((n, v) for n, v, _ in tpot.marks)["p50"] == pytest.approx(outcome.metrics["tpot"]["p50"])
    for curve in (ttft, tpot, e2e):
        assert list(curve.value) == sorted(curve.value)
        assert (curve.share[0], curve.share[-1]) == (0.0, 1.0)


def test_timeline_keeps_the_busy_time(outcome):
    info = figures.timeline_info(outcome, bins=50)
    arrivals, busy, fill = info.panels
    widths = np.diff(info.edges)
    assert float(np.dot(arrivals.mean, widths)) == pytest.approx(len(outcome.requests.arrival))
    worked = outcome.record.duration.sum() / len(outcome.record.resources)
    assert float(np.dot(busy.mean, widths)) == pytest.approx(worked)
    assert all(lo <= m <= hi for lo, m, hi in zip(fill.low, fill.mean, fill.high, strict=True))
    assert max(fill.high) <= outcome.record.level.max() + 1e-12


def test_no_record_no_timeline(outcome):
    assert figures.timeline_info(replace(outcome, record=None)) is None


@pytest.mark.parametrize("kind", ["time", "energy", "memory"])
def test_breakdown_adds_up(outcome, kind):
    whole = figures.breakdown_info(outcome, kind)
    assert sum(p.value for p in whole.parts) == pytest.approx(sum(outcome.breakdown[kind].values()))
    assert sum(p.share for p in whole.parts) == pytest.approx(1.0)
    rests = [p.rest for p in whole.parts]
    assert rests == sorted(rests), "what is unused comes last"


def test_small_parts_are_gathered(outcome):
    terms = {"gemm": 100.0, "host": 0.01, "swap": 0.02, "idle": 0.001}
    whole = figures.breakdown_info(replace(outcome, breakdown={"time": terms}), "time")
    assert [p.name for p in whole.parts] == ["gemm", "other", "idle"]
    assert whole.parts[1].value == pytest.approx(0.03)


@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
    zero=st.booleans(),
)
def test_scales_hold_their_values_and_ticks(values, zero):
    scale = svg.scale(values, 40.0, 400.0, zero=zero)
    assert scale.low <= min(values) and max(values) <= scale.high
    places = [scale(v) for v in sorted(values)]
    assert places == sorted(places)
    for tick in scale.ticks(6):
        assert scale.low * (1 - 1e-9) - 1e-9 <= tick <= scale.high * (1 + 1e-9) + 1e-9
    assert len(scale.ticks(6)) <= 13


def test_drawings_are_well_formed_and_name_things(outcome, ranking, scenario):
    drawn = [
        plots.draw_scatter(figures.frontier_info(ranking, scenario.slo)),
        *map(plots.draw_curve, figures.latency_info(outcome, scenario.slo)),
        plots.draw_timeline(figures.timeline_info(outcome)),
    ]
    for text in drawn:
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img" and root.get("aria-label")
        assert not re.search(r"\bnan\b|\binf\b", text)
    assert drawn[0].count("<circle") == len(ranking.plans) + len(ranking.misses)
    assert "limit-name" in drawn[1], "the SLO is drawn"


def test_what_is_drawn_stays_on_the_paper(ranking, scenario):
    root = ElementTree.fromstring(plots.draw_scatter(figures.frontier_info(ranking, scenario.slo)))
    _, _, width, height = map(float, root.get("viewBox").split())
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
