"""Plans over shared memory: made-up timings, a real run with its sums, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.collectives import fitting, genmodel
from fleetcast.cost.collectives.fitting import Timing
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.runtime.measure import fan_in
from fleetcast.runtime.measure.fan_in import FanIn, measure_fan_in, read
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.plan_worker import add, algorithms, jobs, steps_of

MEASURED = Path(__file__).parents[3] / "benchmarks" / "collectives_fan_in.csv"


def made():
    p = Parameters(alpha=1e-5, beta=5e-11, gamma=1e-12, delta=5e-12, epsilon=1e-12, threshold=4.0)
    return [
        Timing(a, n, s, genmodel.time(a, n, s, p, op), op)
        for n in (2, 3, 4, 8) for a in algorithms(n)
        for s in (1e6, 4e6, 16e6) for op in ("reduce_scatter", "all_gather")
    ]  # fmt: skip


def test_timings_survive_a_file(tmp_path):
    found = FanIn(this_machine(), tuple(made()), 0.0)
    (tmp_path / "x.csv").write_text(found.csv())
    for a, b in zip(read(tmp_path / "x.csv"), found.timings, strict=True):
        assert (a.algorithm, a.ranks, a.size, a.operation) == (b.algorithm, b.ranks, b.size, b.operation)
        assert a.time == pytest.approx(b.time, rel=1e-3)
    assert not found.busy and found.held_out["genmodel"]["size"] < 0.01


def test_ranks_run_the_steps_that_are_priced():
    for n in (2, 3, 4, 6, 8):
        for algorithm in algorithms(n):
            there = steps_of(algorithm, n, 24 * n)
            data = np.random.default_rng(n).integers(0, 9, (n, 24 * n)).astype(np.float32)
            want = data.sum(axis=0)
            work = [jobs(there, rank) for rank in range(n)]
            for turn in range(len(there)):
                for rank in range(n):
                    for start, stop, sources in work[rank][turn]:
                        add(data, rank, start, stop, sources)
            back = [step.backwards() for step in reversed(there)]
            work = [jobs(back, rank) for rank in range(n)]
            for turn in range(len(back)):
                for rank in range(n):
                    for start, stop, (source,) in work[rank][turn]:
                        data[rank, start:stop] = data[source, start:stop]
            assert np.array_equal(data, np.broadcast_to(want, data.shape)), (n, algorithm)


def test_processes_add_up_over_memory():
    seen = []
    found = measure_fan_in((2, 3, 4), sizes=(1 << 16, 3 << 16), deadline=120.0, progress=lambda *x: seen.append(x))
    assert {t.ranks for t in found.timings} == {2, 3, 4} and {t.algorithm for t in found.timings} >= {
        "ring",
        "cps",
        "2x2",
    }
    assert all(t.time > 0 for t in found.timings)
    assert seen[-1][0] == seen[-1][1] == len(found.timings)


@pytest.mark.parametrize(("counts", "said"), [((1, 2, 4), "from 2 to 16"), ((2, 4), "three numbers"), ((), "three")])
def test_too_few_processes_are_refused(counts, said):
    with pytest.raises(SpecError, match=said):
        measure_fan_in(counts)


def test_a_rank_that_dies_is_named(monkeypatch):
    monkeypatch.setattr(fan_in, "WORKER", ("-c", "import sys; sys.exit('no memory')"))
    with pytest.raises(Unsupported, match="no memory"):
        measure_fan_in((2, 3, 4), deadline=30.0)


def test_systems_whose_ranks_cannot_give_way_are_refused(monkeypatch):
    monkeypatch.delattr(os, "sched_yield")
    with pytest.raises(Unsupported, match="give way"):
        measure_fan_in((2, 3, 4))


def test_genmodel_is_nearer_than_simpler_models_on_what_was_measured():
    timings = read(MEASURED)
    assert len(timings) == 90
    for by in fan_in.GROUPS:
        mine, simple = (fitting.held_out(timings, m, by).mean() for m in ("genmodel", "alpha-beta-gamma"))
        assert mine < simple, by
    assert fitting.fit(timings).parameters.delta > 0  # reading and writing memory has a price of its own
