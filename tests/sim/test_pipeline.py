"""Pipelines as events against the closed forms, conservation, and what no schedule may do."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.cost.training.plans import SCHEDULES
from fleetcast.cost.training.schedule import bubble, in_flight
from fleetcast.sim.training import orders
from fleetcast.sim.training.pipeline import Stage, run

STAGES, ROUNDS = (2, 4, 8), (2, 3, 5)


def made(name, stages, micro_batches, pieces=1):
    if name == "interleaved":
        return orders.interleaved(stages, micro_batches, pieces)
    function = {
        "gpipe": orders.gpipe, "1f1b": orders.one_forward_one_backward, "zero-bubble": orders.zero_bubble,
        "dualpipe": orders.dual,
    }[name]  # fmt: skip
    return function(stages, micro_batches)


CASES = [(name, 1) for name in ("gpipe", "1f1b", "zero-bubble", "dualpipe")] + [("interleaved", v) for v in (2, 3)]


@pytest.mark.parametrize(("name", "pieces"), CASES)
@pytest.mark.parametrize("times", [(1.0, 2.0, 1.0), (0.7, 1.6, 0.7)])
def test_bubbles_and_memory_are_the_closed_forms(name, pieces, times):
    forward, backward, weights = times
    for stages, rounds in itertools.product(STAGES, ROUNDS):
        m = rounds * stages
        if name == "dualpipe":
            m *= 2
        stage = Stage(forward / pieces, backward / pieces, weights / pieces)
        happened = run(made(name, stages, m, pieces), [stage] * stages)
        code = SCHEDULES.index(name)
        expected = float(bubble(code, stages, pieces, forward, backward, weights))
        assert happened.time - m * (forward + backward) == pytest.approx(expected, abs=1e-9), (stages, m)
        assert max(happened.held) / pieces == pytest.approx(float(in_flight(code, stages, pieces, m))), (stages, m)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(CASES), st.sampled_from(STAGES), st.sampled_from(ROUNDS), st.floats(0.1, 3), st.floats(0.1, 3),
    st.floats(0.1, 3), st.floats(0, 0.5),
)  # fmt: skip
def test_work_is_conserved_and_needs_are_met(case, stages, rounds, forward, inputs, weights, message):
    name, pieces = case
    m = rounds * stages * (2 if name == "dualpipe" else 1)
    happened = run(made(name, stages, m, pieces), [Stage(forward, inputs + weights, weights)] * stages, message)
    assert happened.busy == pytest.approx([m * pieces * (forward + inputs + weights)] * stages)
    ends = {}
    for event in happened.events:
        for one in event.passes:
            key = (one.kind, one.copy, one.micro, one.piece)
            assert key not in ends, "a pass ran twice"
            ends[key] = event.end
    last = max(piece for _, _, _, piece in ends)
    for event in happened.events:
        for one in event.passes:
            if one.kind == "F" and one.piece:
                assert event.start >= ends["F", one.copy, one.micro, one.piece - 1] - 1e-9
            if one.kind == "B" and one.piece < last:
                assert event.start >= ends["B", one.copy, one.micro, one.piece + 1] - 1e-9
    assert sum(key[0] == "F" for key in ends) == m * (last + 1)
    by_stage = sorted(happened.events, key=lambda event: (event.stage, event.start))
    for a, b in itertools.pairwise(by_stage):
        assert a.stage != b.stage or b.start >= a.end - 1e-9, "a stage did two things at once"


def test_no_schedule_beats_the_slowest_stage_and_a_slow_stage_costs_what_it_is_slow_by():
    quick, slow = Stage(1.0, 2.0), Stage(1.5, 3.0)
    for stages in ([slow, quick, quick, quick], [quick, quick, slow, quick]):
        time = run(orders.one_forward_one_backward(4, 16), stages).time
        assert 16 * 4.5 <= time <= 16 * 4.5 + 3 * 4.5


def test_stages_that_wait_for_each_other_are_refused():
    order = orders.one_forward_one_backward(2, 2)
    order[1].reverse()
    with pytest.raises(ValueError, match="wait for each other"):
        run(order, [Stage(1.0, 2.0)] * 2)


@pytest.mark.parametrize(("stages", "micro_batches"), [(3, 12), (4, 6), (4, 9)])
def test_dualpipe_refuses_what_it_cannot_split(stages, micro_batches):
    with pytest.raises(ValueError, match="even"):
        orders.dual(stages, micro_batches)


def test_interleaving_refuses_broken_rounds():
    with pytest.raises(ValueError, match="no whole rounds"):
        orders.interleaved(4, 6, 2)
