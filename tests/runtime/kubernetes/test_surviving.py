"""What goes wrong in a cluster: lost watches, lost nodes, two leaders, no answers, and kill -9."""

import os
import random
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes client is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from fleetcast.base.errors import FleetcastError
from fleetcast.policy.place.pods import Placement
from fleetcast.runtime.kubernetes.calls import Refused, Unreachable, connect
from fleetcast.runtime.kubernetes.double import ApiError
from fleetcast.runtime.kubernetes.lease import Lease
from fleetcast.runtime.kubernetes.scheduler import Scheduler
from tests.runtime.kubernetes.made import Running, node, places, pod, put, until
from tests.runtime.kubernetes.policies import Greedy, Scripted


def once_each(double, count):
    """Every pod was bound, exactly once, and no node has more than it can give."""
    assert len(places(double)) == count
    bound = Counter(uid for uid, _ in double.rules.bindings)
    assert set(bound.values()) == {1}
    assert len(bound) >= count


def test_a_burst_of_ten_thousand_pods(double, start):
    for k in range(100):
        double.store.add("nodes", node(f"n{k}", cpu="110", memory="256Gi", pods="110"))
    running = start(Greedy(), threads=4)
    put(double, *(pod(f"p{k}") for k in range(10_000)))
    until(lambda: len(double.rules.bindings) == 10_000, 240)
    once_each(double, 10_000)
    assert max(Counter(places(double).values()).values()) <= 110
    until(lambda: running.scheduler.counts.placed == 10_000)
    assert running.scheduler.counts.conflicts == 0


def test_lost_watches_are_taken_up_again(double, start):
    double.store.add("nodes", node("n0", cpu="100"))
    running = start(Greedy())
    until(running.scheduler.synced)
    for k in range(10):
        put(double, pod(f"p{k}"))
        double.cut()
        put(double, pod(f"q{k}"))
    until(lambda: len(places(double)) == 20)
    # It went on from where it was: no list was asked for again.
    assert running.scheduler._watches.relists == 5
    once_each(double, 20)


def test_a_version_that_is_too_old_is_listed_anew(double, start):
    double.store.add("nodes", node("n0", cpu="100"))
    running = start(Greedy())
    put(double, *(pod(f"p{k}") for k in range(3)))
    until(lambda: len(places(double)) == 3)
    # While nobody watches, pods come and go, and what happened is forgotten.
    gone = threading.Event()

    def unavailable(verb, resource, name):
        if verb in ("watch", "list") and not gone.is_set():
            raise ApiError(503, "ServiceUnavailable", "later")

    double.before.append(unavailable)
    double.cut()
    time.sleep(0.2)
    double.rules.delete("default", "p0")
    put(double, pod("new"))
    double.store.add("nodes", node("n1"))
    double.store.compact()
    gone.set()
    until(lambda: "new" in places(double))
    cluster = running.scheduler.cluster
    until(lambda: len(cluster.pods) == 3 and set(cluster.machines) == {"n0", "n1"})
    until(lambda: cluster.used["n0"]["cpu"] == 1000 * sum(n == "n0" for n in places(double).values()))
    assert any("too old" in line or "503" in line for line in running.log)


def test_a_node_that_is_lost_in_mid_binding_gets_no_more_pods(double, start):
    for k in range(2):
        double.store.add("nodes", node(f"n{k}", cpu="400", pods="500"))
    hit = []

    def lose(verb, resource, name):
        if resource == "pods/binding":
            hit.append(name)
            if len(hit) == 60:
                double.store.remove("nodes", "", "n0")

    double.before.append(lose)
    running = start(Greedy(), threads=4)
    put(double, *(pod(f"p{k}") for k in range(300)))
    until(lambda: Counter(places(double).values()) == {"n1": 300 - len(gone(double, 300))})
    until(lambda: running.scheduler.counts.placed == len(double.rules.bindings))
    # What was bound there went with it; bindings that were on their way then are all that came after.
    assert 0 < len(gone(double, 300)) <= 200
    assert set(places(double).values()) == {"n1"}


def gone(double, count):
    return [f"p{k}" for k in range(count) if ("default", f"p{k}") not in double.store.objects["pods"]]


def test_bindings_that_conflict_are_looked_up_not_repeated(double, start):
    double.store.add("nodes", node("n0", cpu="20"))
    double.store.add("nodes", node("n1", cpu="20"))
    done = set()

    def meddle(verb, resource, name):
        if resource != "pods/binding" or name in done:
            return
        done.add(name)
        if name == "taken":
            double.rules.bind("default", name, {"target": {"name": "n1"}})
        elif name == "changed":
            table = double.store.find("pods", "default", name)
            double.store.put("pods", {**table, "metadata": {**table["metadata"], "labels": {"new": "label"}}})
        elif name == "deleted":
            double.rules.delete("default", name)
        elif name == "refused":
            raise ApiError(500, "InternalError", "etcdserver: request timed out")
        elif name == "done":
            # The binding is carried out and its answer is lost.
            double.rules.bind("default", name, {"target": {"name": "n0"}})
            raise ApiError(504, "Timeout", "timed out")

    double.before.append(meddle)
    running = start(Scripted(lambda view: Placement({p.name: "n0" for p in view.waiting})))
    put(double, *(pod(name) for name in ("taken", "changed", "deleted", "refused", "done", "plain")))
    until(lambda: len(places(double)) == 5)
    assert places(double) == {"taken": "n1", "changed": "n0", "refused": "n0", "done": "n0", "plain": "n0"}
    once_each(double, 5)
    until(lambda: running.scheduler.cluster.used.get("n0", {}).get("cpu") == 4000)
    assert running.scheduler.cluster.used["n1"]["cpu"] == 1000
    until(lambda: not running.scheduler.cluster.assumed)


def test_while_nobody_answers_what_is_assumed_stays_assumed(double, start):
    double.store.add("nodes", node("n0", cpu="1"))
    dark = threading.Event()

    def darkness(verb, resource, name):
        if dark.is_set() and resource.startswith("pods") and verb in ("create", "get"):
            if resource == "pods/binding" and name == "first":
                double.rules.bind("default", name, {"target": {"name": "n0"}})
            raise ApiError(503, "ServiceUnavailable", "no")
        if dark.is_set() and verb in ("watch", "list"):
            raise ApiError(503, "ServiceUnavailable", "no")

    double.before.append(darkness)
    running = start(Greedy())
    until(running.scheduler.synced)
    dark.set()
    double.cut()
    # Its watch is deaf now; the pod is heard of by hand, as the last thing before the lights go out.
    put(double, pod("first"), pod("second"))
    for name in ("first", "second"):
        running.scheduler.cluster.apply("pods", "ADDED", double.store.find("pods", "default", name))
    time.sleep(0.5)
    assert list(running.scheduler.cluster.assumed.values()) == ["n0"]
    dark.clear()
    until(lambda: not running.scheduler.cluster.assumed)
    assert places(double) == {"first": "n0"}


def lease(me, duration=2.0):
    return lambda api: Lease(api, "default", "fleetcast", me, duration=duration, retry=0.1)


def test_of_two_leaders_one_binds_and_the_other_takes_over(double):
    for k in range(4):
        double.store.add("nodes", node(f"n{k}", cpu="50"))
    first, second = (Running(double, Greedy(), lease=lease(me, 20.0)) for me in ("one", "two"))
    put(double, *(pod(f"p{k}") for k in range(50)))
    until(lambda: len(places(double)) == 50)
    counts = [first.scheduler.counts.placed, second.scheduler.counts.placed]
    until(lambda: first.scheduler.counts.placed + second.scheduler.counts.placed == 50)
    counts = sorted([first.scheduler.counts.placed, second.scheduler.counts.placed])
    assert counts == [0, 50]
    leads, waits = (first, second) if first.scheduler.counts.placed else (second, first)
    # A good stop gives the lease back at once.
    leads.stop()
    began = time.monotonic()
    put(double, *(pod(f"q{k}") for k in range(50)))
    until(lambda: len(places(double)) == 100)
    assert time.monotonic() - began < 15.0
    until(lambda: waits.scheduler.counts.placed == 50)
    assert double.store.find("leases", "default", "fleetcast")["spec"]["leaseTransitions"] == 2
    waits.stop()
    once_each(double, 100)


def test_a_leader_that_hangs_binds_nothing_once_another_took_over(double):
    double.store.add("nodes", node("n0", cpu="50"))
    deciding, go_on = threading.Event(), threading.Event()

    def slow(view):
        deciding.set()
        go_on.wait(20)
        return Placement({p.name: "n0" for p in view.waiting})

    first = Running(double, Scripted(slow), lease=lease("one"))
    until(first.scheduler.leads)
    put(double, pod("p0"))
    assert deciding.wait(5)
    # It cannot renew: its calls for the lease fail, as behind a broken network; the other sees the lease run out.
    first.scheduler.lease._api.write_lease = lambda *_: (_ for _ in ()).throw(Unreachable("cut"))
    second = Running(double, Greedy(), lease=lease("two"))
    until(lambda: places(double) == {"p0": "n0"})
    # The first thinks to the end, and its own clock says no; even a clock that stands still would: the server is asked.
    first.scheduler.lease._until = time.monotonic() + 60
    put(double, pod("p1"))
    go_on.set()
    until(lambda: "p1" in places(double))
    time.sleep(0.2)
    assert (first.scheduler.counts.placed, second.scheduler.counts.placed) == (0, 2)
    assert not first.scheduler.lease.holds()
    once_each(double, 2)
    first.stop()
    second.stop()


def test_a_lease_is_taken_only_after_it_was_seen_to_run_out(double):
    api = connect(url=double.url, token=double.token)
    # The holder's clock is a day ahead, or behind: only what this process sees counts.
    for renewed in ("2000-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"):
        spec = {"holderIdentity": "other", "leaseDurationSeconds": 2, "renewTime": renewed, "leaseTransitions": 4}
        double.store.add("leases", {"metadata": {"name": f"l{renewed[:4]}"}, "spec": spec})
        mine = Lease(api, "default", f"l{renewed[:4]}", "me", duration=30.0)
        began = time.monotonic()
        assert not mine.attempt()
        assert mine.holder == "other"
        until(mine.attempt)
        assert time.monotonic() - began >= 2.0
        assert mine.confirmed(0.0)
        assert double.store.find("leases", "default", f"l{renewed[:4]}")["spec"]["leaseTransitions"] == 5
        mine.release()
        assert not mine.holds()
        assert Lease(api, "default", f"l{renewed[:4]}", "next", duration=1.0).attempt()
    both = [Lease(api, "default", "race", f"r{k}") for k in range(4)]
    threads = [threading.Thread(target=one.attempt) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.holds() for one in both) == 1
    api.close()


def test_a_wrong_token_and_missing_rights_are_said(double):
    api = connect(url=double.url, token="wrong")
    with pytest.raises(Refused, match="401"):
        api.list("pods")
    scheduler = Scheduler(Greedy(), connect(url=double.url, token="wrong"))
    with pytest.raises(FleetcastError, match=r"No list of budgets, namespaces, nodes, pods, priorities"):
        scheduler.once(timeout=0.3)


def test_another_holder_of_the_lease_is_named_by_once(double):
    double.store.add(
        "leases",
        {"metadata": {"name": "fleetcast"}, "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 60}},
    )
    api = connect(url=double.url, token=double.token)
    with pytest.raises(FleetcastError, match="somebody holds the lease"):
        Scheduler(Greedy(), api, lease=Lease(api, "default", "fleetcast", "me")).once(timeout=0.5)


def test_killed_at_random_points_it_binds_every_pod_exactly_once(double, monkeypatch):
    import multiprocessing

    for k in range(20):
        double.store.add("nodes", node(f"n{k}", cpu="50"))
    # Processes that are forked from a clean server which has imported everything: quick to start, none of our threads.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.runtime.kubernetes.killed"])
    from tests.runtime.kubernetes.killed import schedule

    rng, made, unfinished = random.Random(7), 0, 0
    for _ in range(20):
        process = context.Process(target=schedule, args=(double.url, double.token), daemon=True)
        process.start()
        put(double, *(pod(f"p{made + k}") for k in range(40)))
        made += 40
        want = len(double.rules.bindings) + rng.randint(1, 45)
        end = time.monotonic() + 10
        while len(double.rules.bindings) < min(want, made) and time.monotonic() < end:
            time.sleep(rng.uniform(0.0, 0.002))
        process.kill()
        process.join()
        unfinished += len(double.rules.bindings) < made
    assert unfinished >= 5
    last = Running(double, Greedy())
    until(lambda: len(places(double)) == made)
    last.stop()
    once_each(double, made)
    assert max(Counter(places(double).values()).values()) <= 50
    assert len(double.rules.bindings) == made


def test_it_resumes_from_what_a_killed_one_left(double, start):
    double.store.add("nodes", node("n0", cpu="3"))
    put(double, *(pod(f"p{k}") for k in range(5)))
    double.rules.bind("default", "p3", {"target": {"name": "n0"}})
    start(Greedy())
    until(lambda: len(places(double)) == 3)
    time.sleep(0.2)
    assert len(places(double)) == 3
    assert places(double)["p3"] == "n0"


def test_a_binding_that_the_server_never_takes_is_not_tried_in_a_loop(double, start):
    double.store.add("nodes", node("n0"))
    tries = []

    def forbid(verb, resource, name):
        if resource == "pods/binding" and name == "never":
            tries.append(time.monotonic())
            raise ApiError(403, "Forbidden", "a webhook says no")

    double.before.append(forbid)
    running = start(Greedy())
    put(double, pod("never"), pod("plain"))
    until(lambda: len(tries) >= 4)
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[0] >= 0.05
    assert gaps[2] >= 0.2
    assert "plain" in places(double)
    assert "the server refuses the binding to n0: a webhook says no" in running.scheduler.pending["default/never"]


def test_a_policy_with_a_bug_does_not_end_the_scheduler(double, start):
    double.store.add("nodes", node("n0"))
    calls = []

    def decide(view):
        calls.append(1)
        if len(calls) < 3:
            raise ZeroDivisionError("division by zero")
        return Placement({p.name: "n0" for p in view.waiting})

    running = start(Scripted(decide))
    for k in range(3):
        put(double, pod(f"p{k}"))
        until(lambda k=k: len(calls) > k)
    until(lambda: len(places(double)) == 3)
    assert any("division by zero" in line for line in running.log)
