"""Figures: what they show is computed here, how it looks is drawn from that alone."""

import itertools
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
    assert drawn[0].count("<title>") == len(ranking.plans) + len(ranking.misses), "each dot is named"
    assert "limit-name" in drawn[1], "the SLO is drawn"


def test_what_is_drawn_stays_on_the_paper(ranking, scenario):
    root = ElementTree.fromstring(plots.draw_scatter(figures.frontier_info(ranking, scenario.slo)))
    _, _, width, height = map(float, root.get("viewBox").split())
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height


@pytest.mark.parametrize(
    ("ticks", "unit", "said"),
    [
        ([5.55, 5.6, 5.65], "$", ["$5.55", "$5.60", "$5.65"]),
        ([0.3, 0.4], "$", ["$0.30", "$0.40"]),
        ([1, 2, 3], "$", ["$1", "$2", "$3"]),
        ([0.0015, 0.002], "$", ["$0.0015", "$0.0020"]),
        ([0, 0.02, 0.04], "s", ["0 ms", "20 ms", "40 ms"]),
        ([1.5, 2, 2.5], "s", ["1.5 s", "2.0 s", "2.5 s"]),
        ([0.3, 1, 3], "s", ["300 ms", "1 s", "3 s"]),
        ([0, 0.5, 1], "%", ["0%", "50%", "100%"]),
        ([0, 1000], "s", ["0 s", "1,000 s"]),
    ],
)
def test_ticks_of_an_axis_read_alike(ticks, unit, said):
    assert svg.tick_texts(ticks, unit) == said


def boxes(drawn, kind):
    """(left, top, right, bottom, text) of the texts of a class."""
    found = []
    for item in ElementTree.fromstring(drawn).iter():
        if item.tag.endswith("text") and kind in item.get("class", ""):
            wide, x, y = 7.2 * len(item.text), float(item.get("x")), float(item.get("y"))
            left = x - wide if item.get("text-anchor") == "end" else x
            found.append((left, y - 12, left + wide, y + 3, item.text))
    return found


def crossed(box, start, end):
    steps = np.linspace(0, 1, 400)
    x, y = (start[i] + (end[i] - start[i]) * steps for i in (0, 1))
    return bool(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).any())


@given(st.lists(st.tuples(st.floats(1, 5), st.floats(1, 5)), min_size=2, max_size=14, unique=True))
def test_names_of_plans_lie_over_no_line_dot_or_name(points):
    front, lowest = [], np.inf
    for x, y in sorted(points):
        if y < lowest:
            front.append((x, y))
            lowest = y
    made = [
        figures.Point(
            x, y, f"{i}x TP4 on h100-sxm, b", "best" if (x, y) == front[0] else "frontier" if (x, y) in front else "met"
        )
        for i, (x, y) in enumerate(points)
    ]
    axis = figures.Quantity("cost", "$")
    drawn = plots.draw_scatter(figures.Scatter(axis, axis, tuple(made), None, None))
    named = boxes(drawn, "plan-name")
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in ElementTree.fromstring(drawn).iter() if c.get("cx")]
    dots = [d for d in dots if d[1] > 20]  # below the legend
    line = re.search(r'<path d="M([^"]*)" class="frontier-line"', drawn)
    corners = [tuple(map(float, p.split())) for p in line[1].split("L")] if line else []
    for i, box in enumerate(named):
        assert not [d for d in dots if box[0] < d[0] < box[2] and box[1] < d[1] < box[3]], "over a dot"
        assert not any(crossed(box, a, b) for a, b in itertools.pairwise(corners)), "over the frontier"
        for other in named[:i]:
            apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            assert apart, "over another name"


def test_names_of_batches_of_one_layout_are_said_once():
    axis = figures.Quantity("cost", "$")
    made = tuple(figures.Point(2 + i / 1000, 3.0, f"1x TP8, chunked {i}", "frontier") for i in range(4))
    far = figures.Point(1.0, 5.0, "2x TP4, chunked", "best")
    named = boxes(plots.draw_scatter(figures.Scatter(axis, axis, (*made, far), None, None)), "plan-name")
    assert sorted(box[4] for box in named) == ["1x TP8", "2x TP4"]


def test_a_distribution_says_its_marks_above_the_curve(outcome, scenario):
    ttft, *_ = figures.latency_info(outcome, scenario.slo)
    root = ElementTree.fromstring(plots.draw_curve(ttft))
    said = {s.text: float(t.get("y")) for t in root.iter() if t.tag.endswith("text") for s in t}
    assert [text.split()[0] for text in said] == ["p50", "p99", "limit"] and "limit p99 2 s" in said
    top = min(float(line.get("y1")) for line in root.iter() if line.get("class") == "grid")
    assert max(said.values()) < top - 10, "no line of the figure runs through them"


def test_without_a_plan_the_figure_shows_the_limit_that_is_missed(ranking, scenario):
    nothing = replace(ranking, plans=(), frontier=(), misses=(*ranking.misses, *ranking.plans))
    info = figures.frontier_info(nothing, scenario.slo)
    assert info.y_limit is not None
    assert [p.state for p in info.points].count("nearest") == 1
    drawn = plots.draw_scatter(info)
    assert 'class="limit"' in drawn and 'class="plan nearest"' in drawn and len(boxes(drawn, "plan-name")) == 1
    assert ">nearest miss<" in drawn, "the legend"


def test_ticks_of_a_panel_reach_over_its_values(outcome):
    info = figures.timeline_info(outcome)
    for panel, top in zip(info.panels, (9.1, 1.0, 0.05), strict=True):
        drawn = plots.draw_timeline(figures.Timeline(info.edges, (replace(panel, top=top),)))
        ticks = [float(t) for t in re.findall(r'text-anchor="end">([\d,]+)', drawn)]
        assert 2 <= len(ticks) - 1 <= 3 and max(ticks) >= top


@given(st.floats(0, 1e3), st.floats(0.01, 1e3), st.integers(4, 8))
def test_an_axis_has_some_ticks_and_not_many(low, span, most):
    ticks = svg.Scale(low, low + span, 0.0, 300.0).ticks(most)
    assert 2 <= len(ticks) <= most + 2
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in ticks)


def test_a_picture_of_terms_has_the_colours_of_its_bars():
    from fleetcast.view.compare import Term
    from fleetcast.view.picture import alone

    drawn = alone(plots.draw_terms([Term("gemm", 1.0, 2.0, -0.5)], ("forecast", "measured")))
    fills = dict(re.findall(r"\.(c\d) \{ fill: (#\w+)", drawn))
    assert fills["c0"] != fills["c1"]
