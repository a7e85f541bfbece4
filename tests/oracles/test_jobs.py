"""Worlds of jobs held to closed forms, brute force and conservation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.cost.jobs import Linear
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import Drf, Easy, Fifo, Las, Srtf
from fleetcast.policy.share.drf import fill
from fleetcast.scenario.workload.jobs import Jobs, of
from fleetcast.sim.cluster import fast, world
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.nodes import even
from fleetcast.sim.cluster.pace import Pace


def play(jobs: Jobs, devices: int, policy, *, plain: bool = False, node: int = 8, rules: Rules = Rules(), **pace):  # noqa: B008
    nodes = even([devices], [node])
    speeds = Pace(Linear([nodes.kinds[0].name], models=jobs.models), jobs.seconds * jobs.demand, jobs.model, **pace)
    return (world if plain else fast).play(jobs, nodes, speeds, policy, BestFit(), rules)


def waits(servers: int, load: float, n: int, seed: int, *, constant: bool) -> float:
    r = np.random.default_rng(seed)
    seconds = np.full(n, 1.0) if constant else r.exponential(1.0, n)
    jobs = of(np.cumsum(r.exponential(1.0 / (load * servers), n)), np.ones(n), seconds)
    return float(play(jobs, servers, Fifo()).waited[n // 20 :].mean())


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_fifo_on_one_device_waits_as_an_m_d_1_queue(load):
    found = [waits(1, load, 60_000, seed, constant=True) for seed in range(8)]
    spread = 3.5 * np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(load / (2.0 * (1.0 - load)), abs=spread)
    assert spread < 0.15 * np.mean(found)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 0.8), (16, 0.9)])
def test_fifo_on_several_devices_waits_as_erlang_says(servers, load):
    a = servers * load
    top = a**servers / math.factorial(servers) / (1.0 - load)
    erlang = top / (sum(a**k / math.factorial(k) for k in range(servers)) + top)
    found = [waits(servers, load, 60_000, seed, constant=False) for seed in range(8)]
    spread = 3.5 * np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(erlang / (servers * (1.0 - load)), abs=spread)
    assert spread < 0.25 * np.mean(found)


def best_mean(arrival: list[int], seconds: list[int]) -> float:
    """The least mean completion time on one device, over all schedules that may change at whole seconds."""
    known: dict[tuple[int, tuple[int, ...]], int] = {}

    def least(now: int, left: tuple[int, ...]) -> int:
        if not any(left):
            return 0
        key = now, left
        if key not in known:
            able = [i for i, rest in enumerate(left) if rest and arrival[i] <= now]
            inside = sum(1 for i, rest in enumerate(left) if rest and arrival[i] <= now)
            tries = [tuple(r - (j == i) for j, r in enumerate(left)) for i in able] or [left]
            known[key] = inside + min(least(now + 1, one) for one in tries)
        return known[key]

    return least(0, tuple(seconds)) / len(seconds)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=5))
def test_srtf_is_optimal_on_one_device(rows):
    jobs = of([a for a, _ in rows], np.ones(len(rows)), [s for _, s in rows])
    run = play(jobs, 1, Srtf())
    best = best_mean(jobs.arrival.astype(int).tolist(), jobs.seconds.astype(int).tolist())
    assert (run.finish - jobs.arrival).mean() == pytest.approx(best)


def test_drf_gives_the_papers_example():
    """9 cores and 18 GB; tasks of <1 core, 4 GB> and of <3 cores, 1 GB>: three and two, two thirds each."""
    assert fill([9, 18], [[1, 4], [3, 1]]).tolist() == [3, 2]
    assert fill([9, 18], [[1, 4], [3, 1]], [2.0, 1.0]).tolist() == [4, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=2), min_size=2, max_size=3))
def test_progressive_filling_is_max_min_in_dominant_shares(demands):
    """No allocation of whole tasks gives the smallest dominant share more: brute force."""
    capacity = np.array([12.0, 10.0])
    need = np.array(demands, float)
    dominant = (need / capacity).max(axis=1)
    found = fill(capacity, need)
    ranges = [range(13) for _ in demands]
    able = [x for x in itertools.product(*ranges) if (np.array(x) @ need <= capacity + 1e-9).all()]
    best = max(min(np.array(x) * dominant) for x in able)
    assert min(found * dominant) >= best - dominant.max() - 1e-9  # one task is the grain
    assert (found @ need <= capacity + 1e-9).all()


def test_drf_shares_devices_between_users_equally():
    jobs = of(np.zeros(20), np.ones(20), np.full(20, 100.0), user=[0] * 16 + [1] * 4, users=("a", "b"))
    run = play(jobs, 8, Drf())
    assert run.finish[16:].tolist() == [100.0] * 4  # four of eight devices are b's at once
    assert sorted(run.finish[:16].tolist()) == [100.0] * 4 + [200.0] * 8 + [300.0] * 4


def test_las_is_tiresias_two_queues_by_hand():
    """Device-seconds below 100 in the first queue. A begins, falls into the second at 50 s; B arrives at 60 and goes
    first; A goes on when B has fallen or ended; equal queues by arrival."""
    jobs = of([0.0, 60.0, 70.0], [2, 2, 2], [100.0, 80.0, 30.0])
    run = play(jobs, 2, Las(queues=(100.0,)))
    # A 0-60; B 60-110 (falls); C 70 waits behind B in the first queue, 110-140; then A before B: 140-180, B 180-210
    np.testing.assert_allclose(run.start, [0.0, 60.0, 110.0])
    np.testing.assert_allclose(run.finish, [180.0, 210.0, 140.0])
    assert run.preempted.tolist() == [1, 1, 0]


def test_a_restart_holds_devices_and_does_nothing():
    jobs = of([0.0, 10.0], [1, 1], [100.0, 20.0])
    run = play(jobs, 1, Srtf(), rules=Rules(restart=7.0))
    assert run.finish.tolist() == [127.0, 30.0]
    assert run.lost.tolist() == [7.0, 0.0]
    assert run.held.tolist() == [107.0, 20.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 2, 3, 6, 8]), st.integers(1, 30)), min_size=2,
                max_size=14))  # fmt: skip
def test_easy_never_delays_the_head(rows):
    """Each time a job comes to the head of the queue its start is promised; it starts then or before."""
    arrival, demand, seconds = zip(*rows, strict=True)
    jobs = of(arrival, demand, seconds)
    promised: dict[int, float] = {}

    class Watched(Easy):
        def share(self, board):
            super().share(board)
            head = next((job for job in board.jobs if not job.granted), None)
            if head is not None and head.id not in promised:
                free, ends = board.free(0), []
                for job in board.jobs:
                    if job.granted:
                        ends.append((board.now + job.remaining / board.rate(job, job.granted), job.granted[0]))
                for at, n in sorted(ends):
                    free += n
                    if free >= head.demand:
                        promised[head.id] = at
                        break

    run = play(jobs, 8, Watched(), plain=True)
    for job, at in promised.items():
        assert run.start[job] <= at + 1e-6


def test_what_lies_apart_or_beside_others_is_slower_as_said():
    jobs = of([0.0, 0.0, 0.0], [5, 2, 1], [80.0, 10.0, 10.0], model=[0, 1, 0], models=("a", "b"))
    run = play(jobs, 8, Fifo(), node=4, apart=0.5, beside={"a": {"b": 0.8}}, plain=True)
    # five lie as close as they can on two nodes; b lies beside the part on the second until it ends at 10 s
    assert run.finish[1] == 10.0
    assert run.finish[0] == pytest.approx(10.0 + 80.0 - 8.0)
    lone = play(of([0.0] * 3, [3, 3, 2], [10.0] * 3), 8, Fifo(), node=4, apart=0.5)
    assert lone.finish.tolist() == [10.0, 10.0, 20.0]  # one is left on each node: two lie apart


def test_energy_and_carbon_follow_the_devices_at_work():
    import fleetcast

    table = {
        "fleet": {"devices": "8x h100-sxm", "grid": "400 g/kWh", "pue": 1.2},
        "workload": {"kind": "jobs", "trace": {"kind": "synthetic", "jobs": 30, "widest": 8}},
    }
    metrics = fleetcast.simulate(table).metrics
    device = fleetcast.load("quickstart").fleet.devices
    assert device == "8x h100-sxm"
    from fleetcast.scenario.fleet import catalog

    power = catalog.device("h100-sxm").power
    joules = 1.2 * (8 * power.idle * metrics["makespan"] + (power.max - power.idle) * metrics["held"])
    assert metrics["energy"] == pytest.approx(joules)
    assert metrics["carbon"] == pytest.approx(joules / 3.6e6 * 400.0)
    assert metrics["utilisation"] == pytest.approx(metrics["held"] / (8 * metrics["makespan"]))


def test_misjudged_speeds_change_whom_srtf_asks_first_and_nothing_else():
    jobs = of([0.0, 0.0], [1, 1], [10.0, 12.0])
    right = play(jobs, 1, Srtf())
    wrong = play(jobs, 1, Srtf(), believed=np.array([0.5, 1.0]))
    assert right.finish.tolist() == [10.0, 22.0]
    assert wrong.finish.tolist() == [22.0, 12.0]
