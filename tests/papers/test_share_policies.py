"""Share policies on their authors' own cases, and two worlds that share no code on the same jobs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cluster_policies import EASY_KINDS, GAVEL_KINDS, OneAtATime
from benchmarks.counting import play
from fleetcast.cost.jobs import Linear, Throughputs, Virtual, work
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import DeviceKind, EasyScale, Fifo, MaxMin, Optimus, Pollux, Sia
from fleetcast.scenario.workload.job_traces import easyscale, gavel
from fleetcast.scenario.workload.jobs import of
from fleetcast.sim.cluster import world
from fleetcast.sim.cluster.nodes import even
from fleetcast.sim.cluster.pace import Pace

DATA = Path(os.environ.get("FLEETCAST_DATA", "/nowhere")) / "scheduling" / "gpu_jobs"
needs_traces = pytest.mark.skipif(not DATA.is_dir(), reason="the traces of jobs are not at hand")


def both(jobs, kinds, speeds, policy, length):
    """Completion times in the world of counts and in `sim/cluster`."""
    model = np.array([speeds.models.index(jobs.models[m]) for m in jobs.model], np.int32)
    jobs = replace(jobs, model=model, models=speeds.models)
    counted = play(jobs, kinds, speeds, policy(), length=length)
    nodes = even([k.total for k in kinds], [k.node for k in kinds], [k.name for k in kinds])
    pace = Pace(speeds, work(speeds, jobs, 0, kinds[0].node), model)
    run = world.play(jobs, nodes, pace, policy(), BestFit(), world.Rules(round=length))
    return counted.jct, run.finish - jobs.arrival


@pytest.mark.parametrize(
    "policy",
    [
        MaxMin, lambda: MaxMin(aware=False), Optimus, Sia, EasyScale, lambda: Pollux(population=20, generations=10),
        lambda: Fifo(backfill=True),
    ],
)  # fmt: skip
def test_two_worlds_agree(policy):
    random = np.random.default_rng(3)
    count = 25
    arrival = np.sort(random.uniform(0, 4000, count)).round()
    arrival[0] = 0.0  # rounds begin with the first job
    jobs = of(arrival, random.choice([1, 2, 4], count), random.uniform(100, 3000, count), least=1)
    kinds = [DeviceKind("a", 6, 1), DeviceKind("b", 3, 1)]
    counted, placed = both(jobs, kinds, Linear(["a", "b"], [1.0, 0.6]), policy, 60.0)
    assert placed == pytest.approx(counted)


@needs_traces
def test_gavels_case_in_both_worlds():
    jobs = gavel.read(DATA / "gavel" / "max_min_fairness.trace")
    speeds = Throughputs([kind.name for kind in GAVEL_KINDS])
    counted, placed = both(jobs, GAVEL_KINDS, speeds, lambda: MaxMin(aware=False), 360.0)
    assert placed == pytest.approx(counted)
    assert counted.mean() == pytest.approx(27808, rel=0.05)


@needs_traces
def test_easyscales_order_and_ratios():
    path = DATA / "easyscale" / "workload_67jobs.csv"

    def jct(policy, mixed=False):
        jobs = easyscale.read(path, mixed=mixed)
        assert len(jobs) == 62
        speeds = Virtual([kind.name for kind in EASY_KINDS], jobs.models)
        return play(jobs, EASY_KINDS, speeds, policy, length=60.0, restart=20.0, first=True).jct.mean()

    one, homo, mixed = jct(OneAtATime()), jct(EasyScale(mixed=False)), jct(EasyScale(), mixed=True)
    assert one / homo >= 4
    assert mixed < homo
