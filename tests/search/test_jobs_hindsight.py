"""The bound of deferral and relocation: brute force on tiny cases, and no policy goes below it."""

import itertools

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible
from fleetcast.policy.share import Edf, Fifo, Green
from fleetcast.scenario.workload.jobs import of
from fleetcast.search.jobs_hindsight import least_carbon, means
from tests.policy.share.test_green import HOUR, grams, run


def brute(arrival, until, hours, carbon, total):
    """Whole hours, one device each: every choice of hours and zones."""
    zones = len(total)
    options = []
    for a, u, h in zip(arrival, until, hours, strict=True):
        slots = itertools.combinations(range(a, u), h)
        options.append(
            [tuple(zip(s, z, strict=True)) for s in slots for z in itertools.product(range(zones), repeat=h)]
        )
    best = np.inf
    for choice in itertools.product(*options):
        used = [place for job in choice for place in job]
        if all(used.count((s, z)) <= total[z] for s, z in used):
            best = min(best, sum(carbon[z, s] for s, z in used))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_it_equals_brute_force(seed):
    r = np.random.default_rng(seed)
    n, length = 3, 4
    arrival = r.integers(0, 2, n)
    hours = r.integers(1, 3, n)
    until = np.minimum(arrival + hours + r.integers(0, 2, n), length)
    carbon = r.integers(1, 20, (2, length)).astype(float)
    total = (1, int(r.integers(1, 3)))
    best = brute(arrival, until, hours, carbon, total)
    asked = (
        arrival * HOUR, until * HOUR, np.ones(n, np.int32), np.repeat(1.0 / (hours * HOUR), 2).reshape(n, 2),
        HOUR * np.arange(length + 1), carbon, total, (1000.0, 1000.0),
    )  # fmt: skip
    if best == np.inf:
        with pytest.raises(Infeasible, match="by their deadlines"):
            least_carbon(*asked)
    else:
        assert least_carbon(*asked) == pytest.approx(best, rel=1e-9)


POLICIES = (
    Fifo(backfill=True), Edf(), Green(), Green(defer=False), Green(interrupt=True), Green(interrupt=True, step=HOUR),
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p.kind}-{vars(p)}"[:50])
@pytest.mark.parametrize("seed", range(4))
def test_no_policy_goes_below_it(policy, seed):
    r = np.random.default_rng(seed)
    n = 30
    arrival = np.sort(r.uniform(0, 24 * HOUR, n))
    seconds = r.lognormal(0.5, 0.8, n) * HOUR
    jobs = of(arrival, r.choice([1, 2, 4, 8], n), seconds, deadline=arrival + seconds + r.uniform(0, 12) * HOUR)
    factors, power = (1.0, 0.6), (300.0, 140.0)
    found, where = run(policy, jobs, r.uniform(20, 400, (2, 30)), factors=factors, power=power)
    until = np.maximum(jobs.deadline, found.finish)
    edges = HOUR * np.arange(np.ceil(until.max() / HOUR) + 1)
    least = least_carbon(
        jobs.arrival, until, jobs.demand, np.outer(1.0 / jobs.seconds, factors), edges, means(where.true, edges),
        (8, 8), power,
    )  # fmt: skip
    assert grams(found, where, power) >= least * (1 - 1e-9)
