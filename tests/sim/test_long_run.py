"""The weeks of a training job, held to closed forms, to conservation and to brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.checkpoints import (
    Checkpoint,
    checkpoint,
    daly,
    exact,
    expected,
    expected_staged,
    slowest,
    young,
)
from fleetcast.policy.recover import Fixed, Never, TwoStage, YoungDaly
from fleetcast.sim.training.run import TERMS, Cause, LongJob, long_run
from fleetcast.sim.training.striking import Failure, failures

HOUR = 3600.0
WRITE = Checkpoint(direct=100.0, stall=10.0, drain=300.0, read=50.0)


def job(**changes):
    given = {
        "iterations": 20_000, "iteration": 6.0, "machines": 1000, "mtbf": 1000 * 5 * HOUR, "checkpoint": WRITE,
        "spares": 1000, "restart": 300.0, "causes": (Cause("failure", 1.0, 600.0),),
    }  # fmt: skip
    return LongJob(**(given | changes))


def mean(job_, policy, seeds=600):
    totals = np.array([long_run(job_, policy, seed=s).total for s in range(seeds)])
    return totals.mean(), totals.std() / math.sqrt(seeds)


@pytest.mark.parametrize("interval", [600.0, 1800.0, 7200.0])
def test_one_stage_takes_what_daly_s_closed_form_says(interval):
    got, error = mean(job(iterations=12_000), Fixed(interval=interval))
    assert got == pytest.approx(expected(72_000.0, interval, 100.0, 950.0, 5 * HOUR), abs=4 * error)


@pytest.mark.parametrize("interval", [600.0, 1800.0])
def test_two_stages_take_what_their_closed_form_says(interval):
    got, error = mean(job(iterations=12_000), Fixed(interval=interval, staged=True))
    assert got == pytest.approx(expected_staged(72_000.0, interval, 10.0, 300.0, 950.0, 5 * HOUR), abs=4 * error)


def test_no_checkpoint_takes_what_the_closed_form_says():
    short = job(iterations=2000)
    got, error = mean(short, Never(), 1500)
    assert got == pytest.approx(expected(12_000.0, 12_000.0, 100.0, 950.0, 5 * HOUR), abs=4 * error)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), machines=st.integers(1, 50), hours=st.floats(0.7, 50.0), spares=st.integers(0, 3),
    staged=st.booleans(), slow=st.floats(0.0, 0.3), shape=st.sampled_from([0.7, 1.0, 2.0]),
)  # fmt: skip
def test_time_adds_up_and_the_job_is_done(seed, machines, hours, spares, staged, slow, shape):
    asked = job(
        iterations=3000, machines=machines, mtbf=machines * hours * HOUR, spares=spares, slow=slow, slower=0.1,
        causes=(Cause("a", 0.7, 60.0), Cause("b", 0.3, 900.0, machine=False)),
    )  # fmt: skip
    striking = failures(machines, asked.mtbf, repair=2 * HOUR, shape=shape, seed=seed)
    run = long_run(asked, Fixed(interval=900.0, staged=staged, evict=True), seed=seed, striking=striking, record=True)
    assert math.fsum(run.terms.values()) == pytest.approx(run.total, rel=1e-12)
    assert set(run.terms) == set(TERMS)
    assert run.terms["useful"] == pytest.approx(3000 * 6.0)
    assert all(value >= 0 for value in run.terms.values())
    assert math.fsum(taken for _, taken, _ in run.spans) == pytest.approx(run.total, rel=1e-12)
    again = long_run(
        asked, Fixed(interval=900.0, staged=staged, evict=True), seed=seed,
        striking=failures(machines, asked.mtbf, repair=2 * HOUR, shape=shape, seed=seed),
    )  # fmt: skip
    assert (again.total, again.terms) == (run.total, run.terms)


def test_a_job_by_hand():
    # 100 iterations of 10 s, a checkpoint of 100 s each 300 s; one failure at 1000 s: 600 s of work and two
    # checkpoints are safe by 800 s, 200 s are lost, known after 600 s, up 350 s later.
    asked = job(iterations=100, iteration=10.0, mtbf=math.inf)
    run = long_run(asked, Fixed(interval=300.0), striking=iter([Failure(1000.0, 3, HOUR)]))
    assert run.terms == {
        "useful": 1000.0, "straggling": 0.0, "checkpoint": 400.0, "lost": 200.0, "detect": 600.0, "waiting": 0.0,
        "restart": 350.0,
    }  # fmt: skip
    assert run.total == 2550.0
    # In two stages the checkpoint taken at 920 s is not in the store yet: all since 610 s (the one before) is lost.
    staged = long_run(asked, Fixed(interval=300.0, staged=True), striking=iter([Failure(1000.0, 3, HOUR)]))
    assert staged.terms["lost"] == pytest.approx(1000.0 - 620.0)


def test_without_a_spare_the_job_waits_for_the_repair_and_a_failure_while_restarting_begins_it_again():
    asked = job(iterations=100, iteration=10.0, mtbf=math.inf, spares=0)
    run = long_run(asked, Fixed(interval=300.0), striking=iter([Failure(1000.0, 3, HOUR)]))
    assert run.terms["waiting"] == HOUR - 600.0
    asked = job(iterations=100, iteration=10.0, mtbf=math.inf, spares=2)
    run = long_run(asked, Fixed(interval=300.0), striking=iter([Failure(1000.0, 3, HOUR), Failure(1700.0, 4, HOUR)]))
    assert (run.terms["detect"], run.terms["restart"]) == (1200.0, 100.0 + 350.0)
    assert run.restarts == 1


def test_the_intervals_are_those_of_the_closed_form_and_of_brute_force():
    cost, mtbf = 100.0, 5 * HOUR
    tried = np.linspace(200.0, 6000.0, 5801)
    times = mtbf * np.exp(950.0 / mtbf) * np.expm1((tried + cost) / mtbf) / tried
    assert exact(cost, mtbf) == pytest.approx(tried[times.argmin()], abs=1.0)
    assert daly(cost, mtbf) == pytest.approx(exact(cost, mtbf), rel=1e-4)
    assert young(cost, mtbf) == math.sqrt(2 * cost * mtbf)
    assert exact(np.array([1e-9, cost]), mtbf).shape == (2,)
    assert daly(3 * mtbf, mtbf) == mtbf


def test_paired_runs_are_best_near_the_optimum():
    best = exact(100.0, 5 * HOUR)
    totals = {
        share: mean(job(iterations=6000), Fixed(interval=share * best), 300)[0] for share in (0.2, 0.5, 1.0, 2.0, 5.0)
    }
    assert min(totals, key=totals.__getitem__) in (0.5, 1.0, 2.0)
    assert totals[0.2] > totals[1.0] * 1.05
    assert totals[5.0] > totals[1.0] * 1.05


def test_policies_stand_in_the_order_of_their_checkpoints():
    got = [mean(job(iterations=6000), p, 100)[0] for p in (TwoStage(), YoungDaly(), Fixed(interval=4 * HOUR), Never())]
    assert got == sorted(got)


def test_slow_machines_are_evicted_where_that_pays():
    asked = job(mtbf=math.inf, slow=0.005, slower=0.1)
    kept, gone = (long_run(asked, TwoStage(evict=e), seed=4) for e in (False, True))
    assert kept.evicted == 0
    assert gone.evicted > 0
    assert kept.terms["straggling"] == pytest.approx(0.1 * kept.terms["useful"])
    assert gone.total < kept.total / 1.08
    none_left = long_run(job(mtbf=math.inf, slow=0.005, slower=0.1, spares=0), TwoStage(), seed=4)
    assert none_left.evicted == 0


def test_weibull_times_have_the_mean_asked_for():
    for shape in (0.7, 1.0, 2.0):
        stream = failures(1, 100.0, shape=shape, seed=1)
        times = [next(stream).time for _ in range(4000)]
        assert times[-1] / 4000 == pytest.approx(100.0, rel=0.08)


def test_the_longest_of_many_is_what_a_monte_carlo_gives():
    draw = np.random.default_rng(0)
    steps = np.exp(0.05 * draw.standard_normal((4000, 200)))
    steps[:, :2] *= 1.1
    assert slowest(0.05, 198, 2, 0.1) == pytest.approx(steps.max(axis=1).mean(), rel=2e-3)
    assert slowest(0.0, 10, 1, 0.1) == 1.1


def test_one_reader_reads_less_than_all():
    args = {"store": 100e9, "host_link": 32e9, "network": 25e9, "split": 64, "copies": 16}
    one, each = checkpoint(175e9, **args), checkpoint(175e9, one_reader=False, **args)
    assert one.size == 14 * 175e9
    assert each.read - one.read == pytest.approx(15 * 2 * 175e9 / 100e9 - 2 * 175e9 / 64 / 25e9)
    assert one.direct == one.stall + one.drain


def test_a_job_that_cannot_end_and_one_that_cannot_be_are_refused():
    with pytest.raises(SpecError, match="never ends"):
        long_run(job(mtbf=1000 * 600.0), Never())
    for wrong in ({"iterations": 0}, {"mtbf": 0.0}, {"slow": 2.0}, {"restart": -1.0}, {"causes": ()}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            job(**wrong)
