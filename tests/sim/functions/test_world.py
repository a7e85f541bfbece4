"""Functions in both worlds: closed forms, conservation, twins, brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, PolicyError
from fleetcast.base.rng import rng
from fleetcast.policy.route.invocations import Hash
from fleetcast.policy.scale import Decision, Fixed, Priced, Timers
from fleetcast.scenario.workload.invocations import assemble
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.sim.functions import kernel, world
from fleetcast.sim.functions.bound import bound
from fleetcast.sim.functions.contracts import differ, instance, keeps_warm, lost
from fleetcast.sim.functions.places import Node, Places
from fleetcast.sim.functions.world import play


class Scattered:
    """Decides anything, from what it has seen: keep-alives, windows, following, for one to three arrivals."""

    kind = "scattered"

    def __init__(self, windows: bool) -> None:
        self.windows = windows

    def decide(self, view):
        k = len(view.gaps) // 3 * 3
        code = (k * 7919 + int(view.memory / 128e6) * 31 + int(1000 * (view.gaps[:k].sum() % 10))) % 97
        stands = 3 - len(view.gaps) % 3
        if not self.windows:
            return Decision(code / 10.0, stands=stands)
        begin = code / 7.0 if code % 3 else math.inf
        return Decision(code % 5, begin, begin + code % 11, follow=code % 4 * 1.5, stands=stands)


def one(times, durations=0.0, start=0.0, span=0.0, **more):
    times = np.asarray(times, float)
    return assemble(
        names=["f"], function=np.zeros(len(times), int), time=times,
        duration=np.broadcast_to(np.asarray(durations, float), times.shape), starts=[[start, 0, 0, 0]], span=span,
        source="test", **more,
    )  # fmt: skip


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_walk_and_the_world_of_events_are_equal(seed, windows):
    assert keeps_warm(Scattered(windows), seed) == ""


def test_the_scattered_policy_reaches_every_way_to_meet_a_pod():
    met = np.zeros(4, int)
    for i in range(40):
        trace, patience = instance(1, i)
        met += np.bincount(play(trace, Scattered(True), patience=patience).state, minlength=4)
    assert (met > 20).all()


def test_twins_agree_to_the_last_bit(twins, monkeypatch):
    found = []
    for form in twins("fleetcast.sim.functions.kernel"):
        monkeypatch.setattr(world, "kernel", form)
        runs = []
        for i in range(8):
            trace, patience = instance(2, i)
            pods = play(trace, Scattered(True), patience=patience)
            runs.append((pods.wait.tobytes(), pods.state.tobytes(), pods.death.tobytes(), pods.idle.tobytes()))
        found.append(runs)
    assert all(runs == found[0] for runs in found)


@pytest.mark.parametrize("keep", [0.0, 1.0, 5.0, 30.0])
def test_poisson_arrivals_find_a_cold_pod_as_often_as_the_closed_form_says(keep):
    """Starts and runs take no time: a request is cold where no other came within the keep-alive."""
    rate, n = 0.2, 40_000
    trace = one(np.cumsum(rng(0, "poisson").exponential(1 / rate, n)))
    pods = play(trace, Fixed(keep=keep))
    chance = math.exp(-rate * keep)
    assert abs(pods.cold / n - chance) <= 4 * math.sqrt(chance * (1 - chance) / n) + 1 / n
    # and a pod idles for min(gap, keep): (1 - exp(-rate keep)) / rate on average
    assert pods.seconds.sum() / n == pytest.approx((1 - chance) / rate, rel=0.03, abs=1e-9)


def test_pod_seconds_are_starting_running_and_idling():
    trace = Synthetic(functions=60, regions=2, hours=1.0).invocations(3)
    for policy in (Fixed(), Timers(), Priced(worth=200.0), Scattered(True)):
        pods = play(trace, policy, patience=3.0)
        assert lost(pods) == ""
        assert pods.components()["code"] <= pods.starting.sum()
        assert sum(pods.components().values()) == pytest.approx(pods.starting.sum())


def test_a_pod_of_the_gap_that_is_exactly_the_keep_alive_is_warm():
    assert play(one([0.0, 10.0, 20.0], span=50.0), Fixed(keep=10.0)).cold == 1
    assert play(one([0.0, 10.0, 20.0], span=50.0), Fixed(keep=9.999)).cold == 3


def test_requests_at_once_need_a_pod_each():
    pods = play(one(np.zeros(10_000), durations=1.0, start=2.0), Fixed())
    assert pods.cold == 10_000 and pods.peak() == 10_000
    assert (pods.wait == 2.0).all()


def test_the_pod_used_last_takes_the_next_request():
    # two at once, then one at a time: the second pod may end
    pods = play(one([0, 0, 5, 10, 15, 20], durations=1.0, span=100.0), Fixed(keep=6.0))
    assert pods.cold == 2
    assert sorted(np.round(pods.death, 9)) == [7.0, 27.0]


class Window:
    kind = "window"

    def decide(self, view):
        return Decision(0.0, 50.0, 70.0)


def test_a_window_warms_a_pod_ahead_and_the_next_arrival_takes_it_back():
    trace = one([0.0, 60.0, 90.0, 145.0, 225.0], durations=1.0, start=4.0, span=400.0)
    pods = play(trace, Window())
    # 60 s: warm. 90 s: before the window. 145 s: 55 s later, warm. 225 s: 80 s later, the pod has ended
    assert pods.state.tolist() == [kernel.COLD, kernel.WARM, kernel.COLD, kernel.WARM, kernel.COLD]
    late = play(one([0.0, 51.0], durations=1.0, start=4.0, span=400.0), Window())
    assert late.state.tolist() == [kernel.COLD, kernel.STARTING] and late.wait.tolist() == [4.0, 3.0]


class Follow:
    kind = "follow"

    def decide(self, view):
        return Decision(0.0, follow=30.0 if view.name == "b" else 0.0)


def test_a_called_function_is_warmed_by_its_caller():
    trace = assemble(
        names=["a", "b"], function=[0, 0, 1, 1], time=[0.0, 100.0, 10.0, 110.0], duration=[5.0] * 4, caller=[-1, 0],
        starts=[[3.0, 0, 0, 0]], source="test", span=300.0,
    )  # fmt: skip
    pods = play(trace, Follow())
    assert pods.state.tolist() == [kernel.COLD, kernel.COLD, kernel.COLD, kernel.WARM]


def test_only_asynchronous_requests_wait_for_a_busy_pod():
    times = [0.0, 1.0, 2.0]
    for asynchronous, cold, waits in ((True, 1, [2.0, 3.0, 4.0]), (False, 3, [2.0, 2.0, 2.0])):
        pods = play(one(times, durations=2.0, start=2.0, asynchronous=asynchronous), Fixed(), patience=10.0)
        assert pods.cold == cold
        assert pods.wait.tolist() == waits
    assert play(one(times, durations=2.0, start=2.0, asynchronous=True), Fixed(), patience=2.5).cold == 2


# the clairvoyant


def kept_gaps(trace):
    """Pod-seconds and cold starts of every way to keep pods of one function whose requests do not overlap."""
    n, total = len(trace), trace.total[0]
    for chosen in itertools.product([False, True], repeat=n - 1):
        keeps = np.array([1e6 if kept else 0.0 for kept in (*chosen, False)])

        class Chosen:
            kind = "chosen"

            def decide(self, view, keeps=keeps):
                return Decision(float(keeps[len(view.gaps)]))

        pods = play(trace, Chosen())
        # a pod kept past the last request that takes it ends there for one who knows all
        useful = pods.seconds.sum() - sum(max(0.0, d - e) for d, e in zip(pods.death, pods.last, strict=True))
        yield useful, pods.cold, total


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_brute_force_where_starts_take_no_time(seed):
    draw = rng(seed, "bound")
    trace = one(np.cumsum(draw.exponential(10.0, 9)), durations=draw.uniform(0, 1e-3, 9), span=1e3)
    limit = bound(trace)
    ways = [(seconds, cold) for seconds, cold, _ in kept_gaps(trace)]
    for budget in np.linspace(0.0, 150.0, 40):
        best = min((cold for seconds, cold in ways if seconds <= budget + 1e-9), default=None)
        if best is not None:
            assert limit.cold(budget) == best


@pytest.mark.parametrize("seed", range(6))
def test_no_way_to_keep_pods_beats_the_bound_where_starts_take_time(seed):
    draw = rng(seed, "bound", "starts")
    trace = one(np.cumsum(draw.exponential(6.0, 8)), durations=draw.exponential(2.0, 8), start=1.5, span=1e3)
    limit = bound(trace)
    assert all(limit.cold(seconds + 1e-9) <= cold for seconds, cold, _ in kept_gaps(trace))


@pytest.mark.parametrize("keep", [1.0, 20.0, 60.0, 300.0])
def test_no_fixed_keep_alive_beats_the_bound(keep):
    trace = Synthetic(functions=60, regions=2, hours=1.0).invocations(1)
    pods = play(trace, Fixed(keep=keep))
    assert bound(trace).cold(float(pods.seconds.sum())) <= pods.cold


# nodes


def nodes(*sizes):
    return [Node(f"n{i}", 0, size) for i, size in enumerate(sizes)]


def test_where_memory_is_plenty_nodes_change_nothing_but_the_place():
    trace, _ = instance(5, 0)
    plenty = [Node("a", 0, 1e15), Node("b", 1, 1e15)]
    assert differ(play(trace, Fixed()), Places(trace, Fixed(), plenty, Hash()).run().pods) == ""


def test_idle_pods_are_ended_for_others_and_requests_wait_where_none_are():
    trace = assemble(
        names=["a", "b"], function=[0, 1, 0], time=[0.0, 5.0, 6.0], duration=[1.0, 10.0, 1.0], memory=[60.0, 60.0],
        starts=[[1.0, 0, 0, 0]], source="test", span=100.0,
    )  # fmt: skip
    found = Places(trace, Fixed(), nodes(100.0), Hash()).run()
    assert found.ended >= 1 and found.queued == 1
    # the third waits until the second has ended at 16 s, then for its start
    third = int(trace.first[1]) - 1
    assert found.pods.wait[third] == pytest.approx(16.0 - 6.0 + 1.0)
    assert lost(found.pods) == ""


@pytest.mark.parametrize("seed", range(8))
def test_memory_of_nodes_is_never_exceeded(seed):
    trace, patience = instance(seed, 7)
    room = float(trace.memory.max()) * 1.5
    found = Places(trace, Scattered(True), nodes(room, room), Hash(across=True), patience=patience).run()
    pods = found.pods
    assert lost(pods) == "" and (pods.wait >= 0).all() and (found.where >= 0).all()
    for node in range(2):
        mine = found.node == node
        times = np.concatenate([pods.death[mine], pods.start[mine]])
        change = np.concatenate([-trace.memory[pods.function[mine]], trace.memory[pods.function[mine]]])
        order = np.lexsort((change, times))
        assert np.cumsum(change[order]).max(initial=0.0) <= room + 1e-6


def test_a_pod_that_fits_no_node_is_refused_with_function_resource_and_shortage():
    trace = one([0.0], memory=8e9)
    with pytest.raises(Infeasible, match=r"function f: memory of a pod on the largest node needs 8 GB, have 4 GB"):
        Places(trace, Fixed(), nodes(4e9), Hash())


def test_a_region_without_nodes_is_refused_unless_routes_cross():
    trace = one([0.0], region=0, regions=("a", "b"))
    there = [Node("n", 1, 1e12)]
    with pytest.raises(Infeasible, match="a node of region a"):
        Places(trace, Fixed(), there, Hash()).run()
    far = np.array([[0.0, 0.2], [0.2, 0.0]])
    found = Places(trace, Fixed(), there, Hash(across=True), distance=far).run()
    assert found.pods.wait.tolist() == [0.2]


class Astray:
    kind = "astray"

    def pick(self, view):
        return 0


def test_a_route_to_a_full_node_is_refused():
    trace = one([0.0, 0.0], durations=5.0, memory=80.0)
    with pytest.raises(PolicyError, match="route astray: n0 has no room for function f: 80 B of 20 B"):
        Places(trace, Fixed(), nodes(100.0, 100.0), Astray()).run()


class Wrong:
    kind = "wrong"

    def __init__(self, decision):
        self.decision = decision

    def decide(self, view):
        return self.decision


@pytest.mark.parametrize(
    "decision", [Decision(-1.0), Decision(0.0, 5.0, 4.0), Decision(0.0, stands=0), Decision(math.nan)]
)
def test_decisions_that_cannot_be_are_refused_by_name(decision):
    with pytest.raises(PolicyError, match=r"function f: .* cannot be"):
        play(one([0.0]), Wrong(decision))
