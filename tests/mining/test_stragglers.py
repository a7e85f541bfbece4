"""Slow ranks and hanging ones, held to the best test there can be and to the trivial rules."""

import math

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.record import Record
from fleetcast.base.rng import rng
from fleetcast.mining.stragglers import compute, hangs, judge, limit, stragglers


def steps(seed, iterations, ranks=1024, slow=5, slower=0.1, sigma=0.05, spikes=0.01):
    """Synthetic: log-normal noise, spikes of twice the time, some ranks slower."""
    draw = rng(seed, "synthetic", "tests", "stragglers")
    who = draw.choice(ranks, slow, replace=False)
    made = np.exp(sigma * draw.standard_normal((ranks, iterations)))
    made *= np.where(draw.random(made.shape) < spikes, 2.0, 1.0)
    made[who] *= 1.0 + slower
    return made, set(who.tolist())


def scores(iterations, sure=0.25, seeds=50, **kwargs):
    right = named = there = 0
    for seed in range(seeds):
        made, who = steps(seed, iterations, **kwargs)
        found = set(np.flatnonzero(judge(made).chance >= sure).tolist())
        right, named, there = right + len(found & who), named + len(found), there + len(who)
    return right / max(1, named), right / there


def test_eight_iterations_are_enough():
    precision, recall = scores(8, seeds=200)  # of 50 alone chance moves either by 0.012
    assert precision >= 0.95
    assert recall >= 0.95


def test_nothing_slow_and_almost_nothing_named():
    named = sum((judge(steps(seed, 8, slow=0, slower=0.0)[0]).chance >= 0.3).sum() for seed in range(50))
    assert named <= 15  # of 51,200 ranks


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_no_better_than_the_best_test_and_close_to_it(iterations):
    hit = 0
    for seed in range(100):
        made, who = steps(seed, iterations, spikes=0.0)
        hit += len(set(np.argsort(-judge(made, spike=1e-6).chance)[:5].tolist()) & who)
    best, spread = limit(1024, 5, 0.1, 0.05, iterations), math.sqrt(0.25 / 500)
    assert hit / 500 == pytest.approx(best, abs=3 * spread + 0.02)


def test_the_limit_is_what_a_monte_carlo_of_that_test_gives():
    draw, hit = rng(0, "limit"), 0
    for _ in range(400):
        z = draw.standard_normal(1024)
        z[:5] += math.log(1.1) / 0.05 * math.sqrt(3)
        hit += (np.argsort(-z)[:5] < 5).sum()
    assert hit / 2000 == pytest.approx(limit(1024, 5, 0.1, 0.05, 3), abs=0.035)


def test_the_limit_of_a_tenth_at_a_twentieth_of_noise_is_the_published_one():
    # additive noise: the signal is two standard deviations, not log(1.1) / 0.05
    assert limit(1024, 5.12, math.expm1(0.1), 0.05, 1) == pytest.approx(0.25, abs=0.01)
    assert limit(1024, 5.12, math.expm1(0.1), 0.05, 3) == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize("slower", [0.1, 0.2, 0.5, 1.0, 2.0])
def test_however_slow_a_rank_is_it_is_found(slower):
    precision, recall = scores(16, seeds=10, slower=slower)
    assert precision >= 0.95
    assert recall >= 0.95


def test_a_host_needs_fewer_iterations_and_is_blamed_as_one():
    made, _ = steps(3, 3, slow=0)
    made[40:48] *= 1.1
    made[777] *= 1.6
    hosts = [f"n{i // 8}" for i in range(1024)]
    found = stragglers(made, [str(i) for i in range(1024)], hosts)
    assert {f.who for f in found if f.sure > 0.95} == {"host n5", "rank 777 of host n97"}
    assert next(f for f in found if f.who == "host n5").values["slower"] == pytest.approx(0.1, abs=0.04)


def test_stages_with_more_work_are_not_slow():
    made, who = steps(1, 12, slow=2)
    stage = np.arange(1024) % 4
    made *= np.array([1.0, 1.0, 1.3, 1.0])[stage][:, None]
    assert set(np.flatnonzero(judge(made, alike=stage).chance >= 0.3).tolist()) == who
    assert (judge(made).chance >= 0.3).sum() > 100


def test_too_little_or_no_time_is_refused():
    with pytest.raises(SpecError, match="too small"):
        judge(np.ones((2, 5)))
    with pytest.raises(SpecError, match="without a length"):
        judge(np.zeros((4, 5)))


def log(rows, whats=("forward", "all_reduce")):
    ranks = tuple(dict.fromkeys(r for r, *_ in rows))
    n = len(rows)
    return Record(
        time=np.array([t for _, _, t, _ in rows], dtype=float), duration=np.array([d for *_, d in rows], dtype=float),
        resource=np.array([ranks.index(r) for r, *_ in rows], dtype=np.int32),
        what=np.array([whats.index(w) for _, w, *_ in rows], dtype=np.int32), count=np.ones(n, dtype=np.int64),
        items=np.ones(n, dtype=np.int64), level=np.zeros(n), resources=ranks, whats=whats,
    )  # fmt: skip


def job(stop, inside, ranks=16, iterations=5):
    """Spans of a job whose rank ``stop`` ends its last computation and logs no more, or never ends it."""
    rows = []
    for rank in range(ranks):
        for i in range(iterations):
            last = i == iterations - 1
            ends = not (last and rank == stop and inside)
            rows.append((str(rank), "forward", 10.0 * i, 3.0 + 0.01 * rank if ends else math.inf))
            if not (last and rank == stop):
                rows.append((str(rank), "all_reduce", 10.0 * i + 4, math.inf if last else 6.0))
    return log(rows)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("stop", range(16))
def test_the_hanging_rank_is_found_exactly(stop, inside):
    found = hangs(job(stop, inside))
    assert [f.who for f in found] == [f"rank {stop}"]
    assert ("never ended" in found[0].what) == inside


def test_a_job_that_runs_hangs_nowhere_and_one_where_all_wait_blames_no_rank():
    ended = log(
        [(str(r), "forward", 0.0, 1.0) for r in range(4)] + [(str(r), "all_reduce", 1.0, 1.0) for r in range(4)]
    )
    assert hangs(ended) == []
    stuck = log([(str(r), "all_reduce", 1.0, math.inf) for r in range(4)])
    assert [f.who for f in hangs(stuck)] == ["the network"]


def test_computation_is_what_lies_between_collectives():
    seconds, who = compute(job(3, inside=False))
    assert who == list(range(16))
    assert seconds.shape == (16, 4)
    assert seconds[5] == pytest.approx(np.full(4, 3.05))
