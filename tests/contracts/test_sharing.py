"""Every share policy and every place policy of gangs keeps its contract; broken ones are refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, PolicyError
from fleetcast.base.spec import kinds
from fleetcast.cost.jobs import Linear
from fleetcast.policy import share
from fleetcast.policy.place import gangs
from fleetcast.policy.place.gangs import BestFit, View
from fleetcast.scenario.fleet.failures import Outages
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.jobs import Jobs
from fleetcast.scenario.workload.jobs import of as of_
from fleetcast.sim.cluster import world
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.nodes import Nodes, even
from fleetcast.sim.cluster.pace import Pace
from fleetcast.sim.cluster.run import Run
from fleetcast.sim.cluster.setting import setting

SHARES = {kind: made for kind, made in kinds(share).items() if kind != "dl2"}
"""DL2 deals out parameter servers too, and is played in slots (tests of its own)."""
of = partial(of_, models=("resnet-50",))  # a learned policy knows jobs by their models
PLACES = kinds(gangs)
SLOW = ("pollux", "sia")
"""Solvers: fewer jobs, so that tests stay short."""


def pace_of(jobs: Jobs, nodes: Nodes) -> Pace:
    speeds = Linear([kind.name for kind in nodes.kinds], tuple(1.0 / (1 + k) for k in range(len(nodes.kinds))))
    return Pace(speeds, jobs.seconds * jobs.demand, jobs.model)


def play(jobs: Jobs, nodes: Nodes, policy, place=None, rules: Rules = Rules(), pace=None) -> Run:  # noqa: B008
    return world.play(jobs, nodes, pace or pace_of(jobs, nodes), policy, place or BestFit(), rules)


def keeps_its_books(run: Run, jobs: Jobs, nodes: Nodes, pace: Pace) -> None:
    """What was held is what was worked and what was lost; nobody holds what is not there, or two at once."""
    assert np.isfinite(run.finish).all()
    assert (run.start >= jobs.arrival - 1e-9).all() and (run.finish >= run.start).all()
    spans = (run.end - run.begin) * run.devices
    np.testing.assert_allclose(np.bincount(run.job, spans, len(jobs)), run.held, rtol=1e-9, atol=1e-6)
    factor = np.array(pace.speeds.factors)[run.kind]
    worked = np.bincount(run.job, spans * factor, len(jobs))
    most = pace.units + run.lost * factor.max()
    assert (worked >= pace.units * (1 - 1e-9) - 1e-6).all()
    assert (worked <= most * (1 + 1e-9) + 1e-6).all()
    for node, size in enumerate(nodes.size):
        here = run.node == node
        begin, end, n = run.begin[run.span[here]], run.end[run.span[here]], run.share[here]
        when, where = np.unique(np.r_[begin, end], return_inverse=True)
        assert np.cumsum(np.bincount(where, np.r_[n, -n].astype(float), len(when))).max(initial=0.0) <= size + 1e-9
    np.testing.assert_array_equal(np.bincount(run.span, run.share, len(run.job)), run.devices)


@pytest.mark.parametrize("rules", [Rules(restart=5.0), Rules(round=60.0)], ids=["events", "rounds"])
@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("kind", list(SHARES))
def test_a_trace_is_played_to_its_end(kind, place, rules):
    r = np.random.default_rng(7)
    n = 12 if kind in SLOW else 40
    demand = r.choice([1, 2, 4, 8], n)
    jobs = of(np.cumsum(r.exponential(60, n)), demand, r.lognormal(5, 1, n), most=2 * demand, least=(demand + 1) // 2)
    nodes = even([16, 8], [4, 8])
    keeps_its_books(play(jobs, nodes, SHARES[kind](), PLACES[place](), rules), jobs, nodes, pace_of(jobs, nodes))


@pytest.mark.parametrize("kind", list(SHARES))
def test_an_empty_cluster_waits_for_its_first_job(kind):
    jobs = of([1000.0, 5000.0], [1, 2], [10.0, 20.0])
    run = play(jobs, even([4], [4]), SHARES[kind]())
    np.testing.assert_allclose(run.finish, [1010.0, 5020.0])


@pytest.mark.parametrize("kind", list(SHARES))
def test_ties_are_broken_alike_each_time(kind):
    n = 6 if kind in SLOW else 24
    jobs = of(np.zeros(n), np.full(n, 2), np.full(n, 100.0))
    first, again = (play(jobs, even([8], [4]), SHARES[kind]()) for _ in range(2))
    assert first.finish.tobytes() == again.finish.tobytes() and first.node.tobytes() == again.node.tobytes()


@pytest.mark.parametrize("kind", [k for k, c in SHARES.items() if hasattr(c, "rule")] + ["drf"])
def test_a_burst_of_10000_arrivals_drains(kind):
    from fleetcast.sim.cluster import fast

    n = 10_000 if kind != "drf" else 400
    jobs = of(np.zeros(n), np.ones(n), np.full(n, 10.0))
    nodes = even([100], [10])
    run = fast.play(jobs, nodes, pace_of(jobs, nodes), SHARES[kind](), BestFit())
    assert run.finish.max() == pytest.approx(10.0 * n / 100)


def test_a_job_that_fits_nowhere_is_named_with_what_is_short():
    table = {
        "fleet": {"devices": "8x h100-sxm"},
        "workload": {"kind": "jobs", "trace": {"kind": "synthetic", "jobs": 300, "widest": 16}},
    }
    with pytest.raises(
        Infeasible, match=r"job \d+ \(devices of one kind, h100-sxm.*16 devices, have 8 devices. 8 short"
    ):
        setting(load(table))


@pytest.mark.parametrize("kind", list(SHARES))
def test_a_node_that_goes_down_takes_its_jobs_to_their_last_checkpoint(kind):
    listed = {0: ((50.0, 500.0),)}
    outages = Outages("g", 4, 2, 0.0, 0.0, listed, True)
    base = even([8], [4])
    nodes = Nodes(base.kinds, base.first, base.size, base.near, base.names, ((0, 4, outages),))
    jobs = of([0.0, 0.0], [4, 4], [100.0, 100.0])
    run = play(jobs, nodes, SHARES[kind](), rules=Rules(checkpoint=20.0, restart=5.0))
    assert run.outages == 1 and run.failed.sum() == 1
    hit = int(np.argmax(run.failed))
    assert run.lost[hit] == pytest.approx(4 * (10.0 + 5.0))  # since the checkpoint at 40 s, and one restart
    if run.preempted.any():  # the one that failed takes the other's place at once
        assert run.finish[hit] == pytest.approx(50.0 + 5.0 + 60.0)
    else:
        assert run.finish[1 - hit] == 100.0
        assert run.finish[hit] == pytest.approx(100.0 + 5.0 + 60.0)  # on the other node, when that is free


class Breaking:
    """Grants what a world must refuse."""

    def __init__(self, how: str) -> None:
        self.how, self.gone = how, []

    def share(self, board: share.Board) -> None:
        self.gone += [job for job in board.jobs if job not in self.gone]
        job = board.jobs[0]
        if self.how == "twice":
            board.grant(job, job.most)
            board.grant(job, 1)
        elif self.how == "negative":
            board.grant(job, -1)
        elif self.how == "kind":
            board.grant(job, 1, 7)
        elif self.how == "kept twice":
            board.grant(job, job.most)
            board.keep(job)
        elif self.how == "ended":
            for other in self.gone:
                if other not in board.jobs:
                    board.grant(other, 1)
            board.grant(job, job.most)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("twice", "which has 2 and uses 2"), ("negative", "must be above 0"), ("kind", "there are 1"),
        ("kept twice", "which has been granted"), ("ended", "is not there"),
    ],
)  # fmt: skip
def test_a_bad_share_policy_is_refused(how, said):
    jobs = of([0.0, 50.0], [2, 2], [10.0, 10.0])
    with pytest.raises(PolicyError, match=rf"Breaking.share .*{said}"):
        play(jobs, even([4], [4]), Breaking(how))


def test_parameter_servers_are_refused_with_the_world_that_has_them():
    with pytest.raises(PolicyError, match=r"Dl2.share grants 1 parameter servers to job 0: .* in slots"):
        play(of([0.0], [2], [10.0]), even([4], [4]), share.Dl2())


class Nobody:
    def share(self, board: share.Board) -> None:
        """Grants nothing."""


@pytest.mark.parametrize("rules", [Rules(), Rules(round=10.0)], ids=["events", "rounds"])
def test_a_policy_that_lets_jobs_wait_for_ever_is_found_out(rules):
    with pytest.raises(PolicyError, match=r"Nobody.share leaves 1 jobs waiting for ever, job 0"):
        play(of([0.0], [1], [10.0]), even([4], [4]), Nobody(), rules=rules)


class Crowded:
    def place(self, view: View, devices: int):
        return {0: devices}


def test_a_bad_place_policy_is_refused():
    with pytest.raises(PolicyError, match="Crowded places"):
        play(of([0.0], [8], [10.0]), even([8], [4]), share.Fifo(), Crowded())


@pytest.mark.parametrize("place", list(PLACES))
def test_gangs_are_placed_whole_or_not_at_all(place):
    r = np.random.default_rng(3)
    for _ in range(200):
        free = r.integers(0, 9, int(r.integers(1, 12))).tolist()
        devices = int(r.integers(1, 20))
        found = PLACES[place]().place(View(free, 8), devices)
        if sum(free) < devices:
            assert found is None
        else:
            assert found is not None and sum(found.values()) == devices
            assert all(0 < n <= free[node] for node, n in found.items())
