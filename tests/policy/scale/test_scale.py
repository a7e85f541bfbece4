"""Scale policies: the contract of each, and the claim that it came from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.base.spec import build, describe, kinds
from fleetcast.policy import scale
from fleetcast.policy.scale import NEVER, Fixed, Histogram, Priced, Timers, View
from fleetcast.scenario.workload.invocations import assemble
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.sim.functions.bound import bound
from fleetcast.sim.functions.contracts import keeps_warm, lost
from fleetcast.sim.functions.world import play

ALL = kinds(scale)


def trace(times, function=0, names=("f",), **more):
    times = np.asarray(times, float)
    which = np.broadcast_to(np.asarray(function), times.shape)
    settings = {"starts": [[1.0, 0, 0, 0]], "span": 1e5, "source": "test", "duration": np.full(len(times), 0.1)} | more
    return assemble(names=names, function=which, time=times, **settings)


def view(gaps, *, trigger="APIG-S", lags=None, calls=0, start=1.0):
    gaps = np.asarray(gaps, float)
    lags = np.full(len(gaps) + 1, np.inf) if lags is None else np.asarray(lags, float)
    return View("f", trigger, False, 128e6, start, gaps, lags, calls)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_every_policy_keeps_the_contract(kind, seed):
    assert keeps_warm(ALL[kind](), seed) == ""


@pytest.mark.parametrize("kind", ALL)
def test_every_policy_is_built_from_a_table_and_described(kind):
    made = build(scale, kind, "plan.scale")
    assert type(made) is ALL[kind] and describe(made)["kind"] == kind
    name, low, high = made.knob
    assert 0 < low < high and describe(made)[name] <= high


@pytest.mark.parametrize("kind", ALL)
def test_empty_traces_ties_and_bursts(kind):
    policy = ALL[kind]()
    nothing = play(trace([]), policy)
    assert nothing.cold == 0 and nothing.seconds.sum() == 0.0
    nobody = play(trace([], names=()), policy)
    assert nobody.cold == 0
    alone = play(trace([7.0]), policy)
    assert alone.cold == 1 and lost(alone) == ""
    burst = play(trace(np.full(10_000, 3.0)), policy)
    assert burst.cold == 10_000 and lost(burst) == ""
    ties = play(trace(np.repeat(np.arange(0.0, 5000.0, 50.0), 3)), policy)
    assert lost(ties) == "" and ties.cold >= 3


@pytest.mark.parametrize("kind", ALL)
def test_more_of_the_knob_is_more_pod_seconds_and_fewer_cold_starts(kind):
    made = Synthetic(functions=60, regions=1, hours=2.0, steady=0.5).invocations(0)
    name, *_ = ALL[kind].knob
    runs = [play(made, ALL[kind](**{name: value})) for value in (30.0, 300.0, 3000.0)]
    assert runs[0].seconds.sum() < runs[1].seconds.sum() < runs[2].seconds.sum()
    assert runs[0].cold > runs[1].cold > runs[2].cold


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "fixed", "keep": -1}, "keep is out of range"),
        ({"kind": "histogram", "head": 0.9, "tail": 0.5}, "head is below tail"),
        ({"kind": "timers", "scatter": 0.7}, "scatter below one half"),
        ({"kind": "priced", "prior": 0.0}, "prior and timer above 0"),
        ({"kind": "fixd"}, "fixed"),
        ({"kind": "priced", "wort": 1}, "worth"),
    ],
)
def test_wrong_tables_are_refused_with_the_next_step(table, said):
    with pytest.raises(SpecError, match=said):
        build(scale, table, "plan.scale")


def test_a_timer_is_foreseen_after_three_gaps_and_costs_seconds():
    ticks = trace(np.arange(0.0, 60_000.0, 600.0))
    null, foreseen = play(ticks, Fixed()), play(ticks, Timers())
    assert null.cold == 100 and foreseen.cold == 4
    assert foreseen.seconds.sum() < 0.2 * null.seconds.sum()


def test_timers_leave_others_alone():
    gaps = rng(0, "scale").exponential(100.0, 50)
    assert Timers(keep=40.0).decide(view(gaps)) == scale.Decision(40.0, stands=Timers().decide(view(gaps)).stands)


def test_the_histogram_opens_its_window_between_head_and_tail():
    gaps = np.full(50, 3600.0) + rng(1, "scale").uniform(-200, 200, 50)
    found = Histogram().decide(view(gaps))
    assert found.keep == 0.0
    assert 0.85 * 3400 < found.begin < 3400 and 3800 < found.end < 1.15 * 3900
    # gaps from one bin on: no window, the tail is the keep-alive
    short = Histogram().decide(view(np.full(50, 30.0)))
    assert short.begin == NEVER and short.keep == pytest.approx(66.0)
    # scattered evenly over the range, or mostly beyond it: the whole range
    assert Histogram().decide(view(rng(2, "scale").uniform(0, 14400, 4000))).keep == 14400.0
    assert Histogram().decide(view(np.full(20, 1e5))).keep == 14400.0


def brute(gaps, worth):
    """The best keep-alive of a list of gaps, every end tried."""
    ends = np.concatenate([[0.0], gaps])
    losses = [np.minimum(gaps, end).sum() + worth * (gaps > end).sum() for end in ends]
    return ends[int(np.argmin(losses))], min(losses)


@pytest.mark.parametrize("seed", range(8))
def test_priced_takes_a_keep_alive_as_good_as_the_best_there_is(seed):
    draw = rng(seed, "scale", "priced")
    gaps = draw.exponential(draw.choice([5.0, 60.0, 600.0]), 14)  # 15 arrivals: all are looked at
    worth = float(draw.choice([20.0, 200.0]))
    found = Priced(worth=worth, prior=1e-6, timer=1e-6).decide(view(gaps))
    covered = (gaps <= found.keep) | ((gaps >= found.begin) & (gaps <= found.end))
    lives = np.minimum(gaps, found.keep) + np.where(gaps > found.begin, np.minimum(gaps, found.end) - found.begin, 0.0)
    loss = lives[np.isfinite(lives)].sum() + worth * (~covered).sum()
    # windows make it better than any keep-alive; what it rounds its ends up by costs a little
    assert loss <= brute(gaps, worth)[1] * 1.05 + 0.3 * len(gaps)


def test_priced_gives_a_timer_a_window_of_seconds_and_a_rare_function_nothing():
    timer = Priced(worth=300.0).decide(view(np.full(10, 600.0), trigger="TIMER-A"))
    assert timer.keep == 0.0 and 580.0 < timer.begin < 600.0 < timer.end < 610.0
    rare = Priced(worth=300.0).decide(view(rng(3, "scale").uniform(5e3, 5e4, 40)))
    assert rare.keep < 60.0 and (rare.begin == NEVER or rare.end - rare.begin < 300.0)


def test_priced_follows_the_caller_where_that_pays():
    lags = np.full(40, 8.0)
    gaps = rng(4, "scale").uniform(1e3, 1e4, 39)
    found = Priced(worth=300.0).decide(view(gaps, trigger="workflow-S", lags=lags, calls=40))
    assert found.follow > 8.0 and found.keep == 0.0
    # the caller is heard a hundred times as often: each call would hold a pod for nothing
    assert Priced(worth=300.0).decide(view(gaps, trigger="workflow-S", lags=lags, calls=4000)).follow == 0.0


@pytest.mark.slow
def test_priced_beats_fixed_and_histogram_at_equal_pod_seconds():
    """At least 30 % fewer cold starts than a keep-alive of 60 s, and 60 % of what the clairvoyant saves."""
    made = Synthetic(steady=1.0).invocations(0)
    null = play(made, Fixed())
    budget = float(null.seconds.sum())
    low, high = 100.0, 400.0
    for _ in range(6):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if play(made, Priced(worth=middle)).seconds.sum() <= budget else (low, middle)
    ours = play(made, Priced(worth=low))
    assert ours.seconds.sum() <= budget
    assert ours.cold <= 0.7 * null.cold
    assert null.cold - ours.cold >= 0.6 * (null.cold - bound(made).cold(budget))
