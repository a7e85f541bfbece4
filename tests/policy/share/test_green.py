"""Jobs that wait for clean hours and go to clean places: against brute force, and what must never happen."""

import dataclasses

import numpy as np
import pytest

from fleetcast.cost.jobs import Linear
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import Edf, Fifo, Green
from fleetcast.scenario.fleet.signals import Signal
from fleetcast.scenario.workload.jobs import of
from fleetcast.search.jobs_hindsight import least_carbon, means
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.grids import grids
from fleetcast.sim.cluster.nodes import even
from fleetcast.sim.cluster.pace import Pace
from fleetcast.sim.cluster.world import play

HOUR = 3600.0
GREENS = (Green(), Green(interrupt=True), Green(interrupt=True, step=HOUR), Green(defer=False))


def series(values):
    times = tuple(HOUR * i for i in range(len(values)))
    sums = (0.0, *np.cumsum(np.array(values) * HOUR).tolist())
    return Signal("test", times, tuple(float(v) for v in values), HOUR * len(values), sums, "a test")


def run(policy, jobs, carbon, devices=(8, 8), factors=(1.0, 1.0), power=(300.0, 300.0), told=None, restart=0.0):
    """What happens on zones of some devices, g/kWh by hour each."""
    nodes = even(devices, devices)
    kinds = tuple(k._replace(power=p) for k, p in zip(nodes.kinds, power, strict=True))
    nodes = dataclasses.replace(nodes, kinds=kinds)
    pace = Pace(Linear([k.name for k in kinds], factors), jobs.seconds * jobs.demand, jobs.model)
    where = grids([series(row) for row in carbon])
    if told is not None:
        where = dataclasses.replace(where, told=tuple(series(row) for row in told))
    return play(jobs, nodes, pace, policy, BestFit(), Rules(restart=restart, grids=where)), where


def grams(found, where, power=(300.0, 300.0)):
    return float(where.grams(found, power).sum())


@pytest.mark.parametrize("seed", range(8))
def test_one_job_has_the_best_start(seed):
    r = np.random.default_rng(seed)
    carbon = r.uniform(20, 400, (2, 40))
    takes = HOUR * r.integers(1, 24) / 4
    jobs = of([0.0], [2], [takes], deadline=[30 * HOUR])
    found, where = run(Green(), jobs, carbon, factors=(1.0, 0.5), power=(300.0, 120.0))
    rates = (1.0 / takes, 0.5 / takes)
    starts = [(k, 900.0 * i) for k in (0, 1) for i in range(200) if 900.0 * i + 1 / rates[k] <= 29 * HOUR]
    best = min(2 * (300.0, 120.0)[k] / rates[k] * where.true[k].mean(at, at + 1 / rates[k]) / 3.6e6 for k, at in starts)
    assert grams(found, where, (300.0, 120.0)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_one_job_has_the_cheapest_hours(seed):
    r = np.random.default_rng(seed)
    carbon = r.uniform(20, 400, (2, 40))
    jobs = of([0.0], [2], [HOUR * r.integers(1, 12)], deadline=[31 * HOUR])
    found, where = run(Green(interrupt=True, step=HOUR, margin=HOUR), jobs, carbon)
    edges = HOUR * np.arange(41)
    least = least_carbon(
        jobs.arrival, np.array([30 * HOUR]), jobs.demand, np.full((1, 2), 1 / jobs.seconds[0]), edges,
        means(where.true, edges), (8, 8), (300.0, 300.0),
    )  # fmt: skip
    assert grams(found, where) == pytest.approx(least, rel=1e-6)


def spent(found, kind, hour):
    """Device-seconds of work in a zone and an hour."""
    inside = np.minimum(found.end, HOUR * (hour + 1)) - np.maximum(found.begin, HOUR * hour)
    return float((np.maximum(inside, 0.0) * found.devices)[found.kind == kind].sum())


@pytest.mark.parametrize("policy", GREENS, ids=lambda p: f"{p.interrupt}-{p.defer}-{p.step:.0f}")
@pytest.mark.parametrize("seed", range(6))
def test_more_carbon_never_attracts_work(policy, seed):
    r = np.random.default_rng(seed)
    n = 4  # whoever has room for all cannot be crowded out
    arrival = np.sort(r.uniform(0, 10 * HOUR, n))
    seconds = r.uniform(0.5, 6, n) * HOUR
    jobs = of(arrival, [2] * n, seconds, deadline=arrival + seconds + r.uniform(0, 16, n) * HOUR)
    carbon = r.uniform(20, 400, (2, 48))
    before, _ = run(policy, jobs, carbon)
    for _ in range(4):
        kind, hour = int(r.integers(2)), int(r.integers(24))
        dirtier = carbon.copy()
        dirtier[kind, hour] += r.choice([5.0, 100.0, 1000.0])
        after, _ = run(policy, jobs, dirtier)
        assert spent(after, kind, hour) <= spent(before, kind, hour) + 1e-3


@pytest.mark.parametrize("policy", (*GREENS, Edf()), ids=lambda p: f"{p.kind}-{vars(p)}"[:40])
@pytest.mark.parametrize("seed", range(6))
def test_deadlines_that_fifo_meets_on_an_empty_fleet_are_met(policy, seed):
    r = np.random.default_rng(seed)
    n = 12
    arrival = np.sort(r.uniform(0, 20 * HOUR, n))
    seconds = r.uniform(0.2, 9, n) * HOUR
    spare = r.choice([0.0, 60.0, HOUR, 12 * HOUR], n)
    jobs = of(arrival, r.integers(1, 9, n), seconds, deadline=arrival + seconds + spare)
    carbon = r.uniform(20, 400, (2, 30))
    told = carbon * r.uniform(0.5, 1.5, carbon.shape)
    roomy = (8 * n, 8 * n)
    null, _ = run(Fifo(), jobs, carbon, roomy)
    found, _ = run(policy, jobs, carbon, roomy, told=told)
    assert (null.finish <= jobs.deadline + 1e-3).all()
    assert (found.finish <= jobs.deadline + 1e-3).all()


@pytest.mark.parametrize("policy", GREENS, ids=lambda p: f"{p.interrupt}-{p.defer}-{p.step:.0f}")
def test_jobs_without_deadlines_do_not_wait_but_take_the_cleanest_place(policy):
    jobs = of([0.0, 100.0], [1, 1], [HOUR, HOUR])
    found, _ = run(policy, jobs, [[300] * 24, [20] * 24])
    assert found.start.tolist() == [0.0, 100.0]
    assert set(found.kind.tolist()) == {1}


@pytest.mark.parametrize("policy", GREENS, ids=lambda p: f"{p.interrupt}-{p.defer}-{p.step:.0f}")
def test_a_crowded_fleet_ends_every_job(policy):
    r = np.random.default_rng(5)
    n = 60
    arrival = np.sort(r.uniform(0, 20 * HOUR, n))
    seconds = r.lognormal(0.5, 1.0, n) * HOUR
    jobs = of(arrival, r.choice([1, 2, 4, 8], n), seconds, deadline=arrival + seconds * 1.5)
    found, _ = run(policy, jobs, r.uniform(20, 400, (2, 30)))
    assert np.isfinite(found.finish).all()
    np.testing.assert_allclose(found.held, jobs.seconds * jobs.demand, rtol=1e-6)


def test_who_would_be_late_goes_first():
    carbon = [[400] * 3 + [10] * 3 + [400] * 24, [500] * 30]
    jobs = of([0.0, 0.0], [8, 8], [3 * HOUR, 3 * HOUR], deadline=[9 * HOUR, 6 * HOUR])
    found, _ = run(Green(margin=0.0), jobs, carbon)
    assert found.start[1] == pytest.approx(3 * HOUR)
    assert (found.finish <= jobs.deadline + 1e-3).all()


def test_whoever_may_not_wait_is_not_interrupted():
    with pytest.raises(ValueError, match="interrupt needs defer"):
        Green(interrupt=True, defer=False)


@pytest.mark.parametrize("restart", [60.0, 600.0])
def test_restarts_are_planned_for(restart):
    """Every start but the first costs time: deadlines are met all the same, and jobs are stopped less often."""
    r = np.random.default_rng(5)
    n, carbon = 40, r.uniform(20, 400, (2, 80))
    arrival = np.sort(r.uniform(0, 40 * HOUR, n))
    takes = HOUR * r.uniform(1, 6, n)
    jobs = of(arrival, [2] * n, takes, deadline=arrival + takes + 20 * HOUR)
    found, where = {}, None
    for cost in (0.0, restart):
        found[cost], where = run(Green(interrupt=True, step=HOUR), jobs, carbon, restart=cost)
        assert (found[cost].finish <= jobs.deadline + 1.0).all()
    stops = {cost: int((each.preempted + each.moved).sum()) for cost, each in found.items()}
    assert 0 < stops[restart] < stops[0.0]
    at_once, _ = run(Green(defer=False), jobs, carbon, restart=restart)
    assert grams(found[0.0], where) < grams(found[restart], where) < grams(at_once, where)
