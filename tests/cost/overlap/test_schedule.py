"""Schedules: closed forms, no free lunch, bounds, and a checker that finds every kind of fault."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.cost.overlap.operators import COMPUTE, MEMORY, NETWORK, Operator
from fleetcast.cost.overlap.schedule import (
    MEASURED,
    Interference,
    Run,
    Schedule,
    ScheduleError,
    chain,
    check,
    lower_bound,
    record,
    run,
)
from fleetcast.view.timeline import chrome_trace

NOTHING = replace(MEASURED, gain=0.0)


def op(name: str, stream: int, time: float, stage: int, demand: tuple[float, float, float] | None = None) -> Operator:
    own = tuple(0.9 if s == stream else 0.05 for s in range(3))
    return Operator(name, stream, time, demand or own, stage)


def side_by_side(product: Operator, other: Operator, share: float) -> Schedule:
    order: list[tuple[int, ...]] = [(), (), ()]
    order[product.stream], order[other.stream] = (0,), (1,)
    return Schedule((product, other), ((0, 0), (0, 1)), ((), ()), tuple(order), (1.0, share))


LAYER = (
    op("qkv", COMPUTE, 2.0, 0), op("attention", MEMORY, 1.5, 1), op("out", COMPUTE, 1.0, 2),
    op("reduce", NETWORK, 1.0, 3), op("up", COMPUTE, 3.0, 4),
)  # fmt: skip


def test_one_batch_takes_the_sum_of_its_operators() -> None:
    schedule = chain([LAYER], 3, 1, 0.4, 0.2)
    assert run(schedule).time == pytest.approx(3 * sum(o.time for o in LAYER), rel=1e-12)


def test_two_operators_side_by_side_in_closed_form() -> None:
    schedule = side_by_side(op("product", COMPUTE, 1.0, 0), op("attention", MEMORY, 1.0, 0), 0.4)
    result = run(schedule)
    # attention has P(0.4) = 0.8, so it ends at 1.25 s; the product has done 0.6 x 1.25 s of its second until then
    assert result.end[1] == pytest.approx(1.25, rel=1e-12)
    assert result.time == pytest.approx(1.25 + (1.0 - 0.75), rel=1e-12)
    check(schedule, result)


def test_a_resource_used_by_both_slows_both() -> None:
    both = (0.9, 0.9, 0.0)
    schedule = side_by_side(op("a", COMPUTE, 1.0, 0, both), op("b", MEMORY, 1.0, 0, both), 0.4)
    (_, _, _, _, pace), *_ = run(schedule).spans
    assert pace == pytest.approx([0.6 / (1.4 * 0.9), 0.8 / (1.4 * 0.9)])
    assert sum(p * 0.9 for p in pace) == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3, 0.4, 0.7, 0.9])
def test_without_gain_sharing_saves_nothing(share: float) -> None:
    schedule = side_by_side(op("a", COMPUTE, 1.0, 0), op("b", MEMORY, 0.7, 0), share)
    assert run(schedule, NOTHING).time == pytest.approx(1.7, rel=1e-12)


def test_speed_meets_the_measured_points_and_never_exceeds_one() -> None:
    for stream, points in ((MEMORY, MEASURED.memory), (NETWORK, MEASURED.network)):
        assert [MEASURED.speed(stream, r) for r in MEASURED.share] == pytest.approx(points)
        dense = [MEASURED.speed(stream, r) for r in np.linspace(0, 1, 101)]
        assert all(a <= b + 1e-12 for a, b in pairwise(dense))
        assert max(dense) <= 1.0
    assert MEASURED.speed(COMPUTE, 0.3) == 0.3


operators = st.builds(
    op, st.just("x"), st.sampled_from((COMPUTE, MEMORY, NETWORK)), st.floats(0.1, 5.0), st.just(0),
    st.tuples(*[st.floats(0.01, 1.0)] * 3),
)  # fmt: skip
layers = st.lists(operators, min_size=1, max_size=6).map(
    lambda ops: tuple(replace(o, stage=k) for k, o in enumerate(ops))
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(layers, min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 4), st.sampled_from((0.1, 0.3, 0.5)),
    st.sampled_from((0.1, 0.2, 0.4)), st.sampled_from((0.0, 0.5, 1.0)),
)  # fmt: skip
def test_every_schedule_is_legal_and_between_its_bounds(
    batches: list[Any], count: int, skew: int, memory: float, network: float, gain: float
) -> None:
    interference = replace(MEASURED, gain=gain)
    schedule = chain(batches, count, skew, memory, network)
    result = run(schedule, interference)
    check(schedule, result, interference)
    assert result.time >= lower_bound(schedule) * (1 - 1e-9)
    if gain == 0.0:
        assert result.time >= sum(o.time for o in schedule.operators) * (1 - 1e-9)


MUTANTS = {
    "starts before": lambda s, r: (s, replace(r, start=(*r.start[:1], r.start[1] - 0.5, *r.start[2:]))),
    "runs beside": lambda s, r: (
        replace(s, after=tuple(() for _ in s.after)),
        replace(r, start=tuple(0.0 if i == 2 else t for i, t in enumerate(r.start))),
    ),
    "exactly once": lambda s, r: (replace(s, order=(s.order[0][:-1], *s.order[1:])), r),
    "not its own": lambda s, r: (replace(s, order=(s.order[0], s.order[2], s.order[1])), r),
    "shares of": lambda s, r: (s, spans(r, share=1.3)),
    "of its speed": lambda s, r: (s, spans(r, pace=1.2)),
    "outside its span": lambda s, r: (s, replace(r, end=tuple(t * 0.9 for t in r.end))),
    "of its .* of work": lambda s, r: (s, replace(r, spans=r.spans[:-1])),
    "is used": lambda s, r: (
        replace(s, operators=tuple(replace(o, demand=(1.0, 1.0, 1.0)) for o in s.operators)),
        r,
    ),
}


def spans(r: Run, share: float = 1.0, pace: float = 1.0) -> Run:
    changed = tuple(
        (a, b, ops, tuple(x * share for x in shares), tuple(p * pace for p in paces))
        for a, b, ops, shares, paces in r.spans
    )
    return replace(r, spans=changed)


@pytest.mark.parametrize("rule", list(MUTANTS))
def test_the_checker_finds(rule: str) -> None:
    schedule = chain([LAYER, LAYER], 1, 1, 0.4, 0.2)
    result = run(schedule)
    check(schedule, result)
    with pytest.raises(ScheduleError, match=rule):
        check(*MUTANTS[rule](schedule, result))


def test_every_dropped_dependency_shows_in_some_timeline() -> None:
    """A schedule that forgets a dependency may start too early: the true schedule's check says so."""
    true = chain([LAYER, tuple(replace(o, time=o.time / 3) for o in LAYER)], 2, 1, 0.4, 0.2)
    free = replace(true, after=tuple(() for _ in true.after))
    with pytest.raises(ScheduleError, match="starts before"):
        check(true, run(free))


def test_orders_that_wait_for_each_other_are_refused() -> None:
    schedule = chain([LAYER], 1, 0, 0.4, 0.2)
    backwards = replace(schedule, order=(schedule.order[0][::-1], *schedule.order[1:]))
    with pytest.raises(ScheduleError, match="wait for each other"):
        run(backwards)


def test_shares_that_leave_a_product_nothing_are_refused() -> None:
    schedule = side_by_side(op("a", COMPUTE, 1.0, 0), op("b", MEMORY, 1.0, 0), 1.0)
    with pytest.raises(ScheduleError, match="leave nothing"):
        run(schedule)


def test_timeline_holds_every_operator_once() -> None:
    schedule = chain([LAYER, LAYER], 2, 1, 0.4, 0.2)
    log = record(schedule, run(schedule))
    assert len(log) == len(schedule.operators) == len(log.whats)
    assert float((log.time + log.duration).max()) == pytest.approx(run(schedule).time)
    events = [e for e in chrome_trace(log) if e["ph"] == "X"]
    assert {e["name"] for e in events} == set(log.whats)
    assert {e["tid"] for e in events} == {1, 2, 3}


def test_interference_between_points_is_linear() -> None:
    line = Interference(share=(0.0, 0.5, 1.0), memory=(0.0, 0.9, 1.0), network=(0.0, 0.5, 1.0))
    assert line.speed(MEMORY, 0.25) == pytest.approx(0.45)
    assert replace(line, gain=0.5).speed(MEMORY, 0.5) == pytest.approx(0.7)
