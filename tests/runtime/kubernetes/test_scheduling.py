"""A policy schedules a cluster through the official client, against the double of the API server."""

import time
from collections import Counter

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes client is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import Placement
from tests.runtime.kubernetes.made import node, places, pod, put, replicas, until
from tests.runtime.kubernetes.policies import Greedy, Scripted

ZONE = "topology.kubernetes.io/zone"


def settled(double, count, seconds=0.3):
    until(lambda: len(places(double)) >= count)
    time.sleep(seconds)
    found = places(double)
    assert len(found) == count
    return found


def affinity(kind, terms):
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def term(labels, topology=ZONE, **more):
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology, **more}


def test_pods_are_bound_and_the_rest_says_what_it_lacks(double, start):
    for k in range(3):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    put(double, *(pod(f"p{k}") for k in range(10)), pod("other", scheduler="default-scheduler"))
    running = start(Greedy())
    until(lambda: len(places(double)) == 10)
    put(double, *(pod(f"q{k}") for k in range(10)))
    assert "other" not in settled(double, 12)
    until(lambda: len(running.scheduler.pending) == 8)
    reason = "default/q9: 0 of 3 nodes take it: 3 lack cpu (needs 1, the most left on one is 0)"
    assert running.scheduler.pending["default/q9"] == reason

    def said():
        events = [e for e in double.store.objects["events"].values() if e["involvedObject"]["name"] == "q9"]
        return [(e["reason"], e["message"], e["type"]) for e in events]

    until(lambda: ("FailedScheduling", reason, "Warning") in said())
    status = double.store.find("pods", "default", "q9")["status"]
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("PodScheduled", "False", "Unschedulable")
    ]
    # Room comes: a node, and the pods go there without being asked.
    double.store.add("nodes", node("n3", cpu="8"))
    assert Counter(settled(double, 20).values())["n3"] == 8
    assert len(double.rules.bindings) == len({uid for uid, _ in double.rules.bindings}) == 20


def test_gates_taints_selectors_and_unready_nodes_are_respected(double, start):
    double.store.add(
        "nodes",
        node(
            "gpu",
            labels={"kind": "gpu"},
            taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}],
            nvidia__com__gpu="0",
            **{"nvidia.com/gpu": "8"},
        ),
    )
    double.store.add("nodes", node("plain", labels={"kind": "plain"}))
    sick = node("sick", cpu="64")
    sick["status"]["conditions"][0]["status"] = "Unknown"
    double.store.add("nodes", sick)
    tolerant = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    put(
        double,
        *(pod(f"g{k}", cpu="500m", requests={"nvidia.com/gpu": "3"}, **tolerant) for k in range(3)),
        pod("plain"),
        pod("chosen", nodeSelector={"kind": "gpu"}),
        pod("both", nodeSelector={"kind": "gpu"}, **tolerant),
        pod("gated", schedulingGates=[{"name": "x"}]),
        pod("nowhere", nodeSelector={"kind": "tpu"}),
    )
    running = start(Greedy())
    found = settled(double, 4)
    assert found == {"g0": "gpu", "g1": "gpu", "both": "gpu", "plain": "plain"}
    pending = running.scheduler.pending
    assert "2 lack nvidia.com/gpu (needs 3, the most left on one is 2)" in pending["default/g2"]
    assert "1: has taint gpu=yes:NoSchedule" in pending["default/chosen"]
    assert "1: lacks label kind=tpu" in pending["default/nowhere"]
    assert "1: is not ready" in pending["default/nowhere"]
    assert "default/gated" not in pending
    gated = double.store.find("pods", "default", "gated")
    double.store.put("pods", {**gated, "spec": {**gated["spec"], "schedulingGates": []}})
    assert settled(double, 5)["gated"] == "plain"


def test_affinities_between_pods(double, start):
    for k in range(4):
        double.store.add("nodes", node(f"n{k}", labels={ZONE: "ab"[k // 2]}))
    double.store.add("namespaces", {"metadata": {"name": "far", "labels": {"team": "x"}}})
    web, cache = {"app": "web", "tier": "front"}, {"app": "cache"}
    put(
        double,
        # Each of these on a node of its own; one more than there are nodes.
        *(
            pod(f"web{k}", labels=web, affinity=affinity("podAntiAffinity", [term(web, "kubernetes.io/hostname")]))
            for k in range(5)
        ),
        # They seek their own kind: the first may lie anywhere, the others in its zone.
        *(pod(f"cache{k}", labels=cache, affinity=affinity("podAffinity", [term(cache)])) for k in range(4)),
        # Kept off by selectors that one label cannot say, in another namespace.
        pod(
            "shy",
            namespace="far",
            labels={"app": "shy"},
            affinity=affinity(
                "podAntiAffinity",
                [
                    {
                        "labelSelector": {
                            "matchExpressions": [{"key": "app", "operator": "In", "values": ["cache", "none"]}]
                        },
                        "namespaces": ["default"],
                        "topologyKey": ZONE,
                    }
                ],
            ),
        ),
    )
    start(Greedy())
    found = settled(double, 9)
    assert len({found[f"web{k}"] for k in range(5) if f"web{k}" in found}) == 4
    zones = {n: "ab"[int(n[1]) // 2] for n in ("n0", "n1", "n2", "n3")}
    assert len({zones[found[f"cache{k}"]] for k in range(4)}) == 1
    assert zones[found["shy"]] != zones[found["cache0"]]
    # The rule of a pod that lies there holds for those who come: nobody of "cache" may join it.
    put(double, pod("late", labels=cache, nodeSelector={ZONE: zones[found["shy"]]}))
    time.sleep(0.3)
    assert "late" not in places(double)


def test_node_affinity_of_several_terms(double, start):
    for k in range(4):
        double.store.add("nodes", node(f"n{k}", labels={"disk": ["ssd", "hdd", "ssd", "nvme"][k], "size": str(k)}))
    terms = [
        {
            "matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["ssd"]},
                {"key": "size", "operator": "Gt", "values": ["1"]},
            ]
        },
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n3"]}]},
    ]
    wanted = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    put(double, *(pod(f"p{k}", cpu="4", affinity=wanted) for k in range(5)))
    start(Greedy())
    assert Counter(settled(double, 4).values()) == {"n2": 2, "n3": 2}


def test_spread_is_kept_even(double, start):
    for k in range(6):
        double.store.add("nodes", node(f"n{k}", cpu="20", labels={ZONE: "abc"[k // 2]}))
    rule = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "w"}},
    }
    fine = {**rule, "topologyKey": "kubernetes.io/hostname"}
    put(double, *(pod(f"p{k}", labels={"app": "w"}, topologySpreadConstraints=[rule, fine]) for k in range(50)))
    running = start(Greedy())
    found = settled(double, 50)
    zones, nodes = Counter("abc"[int(n[1]) // 2] for n in found.values()), Counter(found.values())
    assert max(zones.values()) - min(zones.values()) <= 1
    assert max(nodes.values()) - min(nodes.values()) <= 1
    # Dealt out in one go, not one pod a round.
    assert running.scheduler.counts.rounds <= 6
    # A zone that is full holds the others up.
    double.store.remove("nodes", "", "n5")
    double.store.remove("nodes", "", "n4")
    until(lambda: not {"n4", "n5"} & set(places(double).values()))
    double.store.add("nodes", node("n6", cpu="5", labels={ZONE: "c"}))
    until(lambda: "n6" in running.scheduler.cluster.machines)
    put(double, *(pod(f"q{k}", labels={"app": "w"}, topologySpreadConstraints=[rule]) for k in range(20)))
    until(lambda: list(places(double).values()).count("n6") == 5)
    time.sleep(0.3)
    zones = Counter({"n6": "c"}.get(n) or "abc"[int(n[1]) // 2] for n in places(double).values())
    assert zones["c"] == 5
    assert sum(zones.values()) <= 50 - 16 + 5


def test_gangs_are_placed_whole_or_not_at_all(double, start):
    for k in range(4):
        double.store.add("nodes", node(f"n{k}", cpu="4"))

    def group(name, size):
        label = "scheduling.x-k8s.io/pod-group"
        return {label: name, f"{label}-min-available": str(size)}

    put(
        double,
        *(pod(f"a{k}", cpu="3", labels=group("a", 3)) for k in range(3)),
        *(pod(f"b{k}", cpu="3", labels=group("b", 2)) for k in range(2)),
        *(pod(f"c{k}", cpu="1", labels=group("c", 3)) for k in range(2)),
    )
    running = start(Greedy())
    found = settled(double, 3)
    assert set(found) == {"a0", "a1", "a2"}
    assert "has 2 of 3 pods" in running.scheduler.pending["default/c0"]
    put(double, pod("c2", cpu="1", labels=group("c", 3)))
    assert {"c0", "c1", "c2"} < set(settled(double, 6))
    double.store.add("nodes", node("n4", cpu="8"))
    assert {"b0", "b1"} < set(settled(double, 8))


def test_a_policy_that_breaks_gangs_and_capacity_is_not_believed(double, start):
    double.store.add("nodes", node("n0", cpu="2"))
    labels = {"scheduling.x-k8s.io/pod-group": "g"}
    put(double, pod("g0", labels=labels), pod("g1", labels=labels), *(pod(f"p{k}") for k in range(3)))
    running = start(Scripted(lambda view: Placement({p.name: "n0" for p in view.waiting if p.name != "default/g1"})))
    found = settled(double, 2)
    assert set(found) == {"p0", "p1"}
    assert "its gang has 2 pods and only 1 found a node" in running.scheduler.pending["default/g0"]
    assert "n0 lacks cpu: needs 1, 0 of 2 left" in running.scheduler.pending["default/p2"]


def test_a_policy_that_fails_is_asked_again(double, start):
    double.store.add("nodes", node("n0"))
    calls = []

    def decide(view):
        calls.append(1)
        if len(calls) == 1:
            raise PolicyError("not today")
        return Placement({p.name: "n0" for p in view.waiting})

    running = start(Scripted(decide))
    put(double, pod("p0"))
    until(
        lambda: running.scheduler.pending.get("default/p0") == "default/p0: 0 of 1 nodes take it: 1: takes it" or calls
    )
    put(double, pod("p1"))
    settled(double, 2)
    assert any("not today" in line for line in running.log)


def priority(double, name, value, **more):
    double.store.add("priorityclasses", {"metadata": {"name": name}, "value": value, **more})


def test_higher_priorities_evict_lower_ones_only(double, start):
    priority(double, "low", 10)
    priority(double, "high", 1000)
    priority(double, "meek", 1000, preemptionPolicy="Never")
    for k in range(2):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    double.rules.grace = 0.2
    double.store.add("replicasets", replicas("low", 8, priorityClassName="low"))
    running = start(Greedy())
    settled(double, 8)
    put(double, pod("meek", cpu="2", priorityClassName="meek"), pod("equal", cpu="2", priorityClassName="low"))
    time.sleep(0.4)
    assert running.scheduler.counts.evictions == 0
    put(double, pod("high", cpu="3", priorityClassName="high"))
    until(lambda: "high" in places(double))
    # The room of three was enough; their replacements wait, and so does the equal.
    assert running.scheduler.counts.evictions == 3
    found = settled(double, 6)
    assert set(found) == {"high", *(n for n in found if n.startswith("low-"))}
    assert double.calls["", "pods/eviction", "create"] == 3
    assert ("", "pods", "delete") not in double.calls
    until(lambda: any(e["reason"] == "Preempted" for e in double.store.objects["events"].values()))


def test_a_pod_that_waits_for_room_is_nominated_and_nobody_takes_its_room(double, start):
    priority(double, "high", 1000)
    double.store.add("nodes", node("n0", cpu="4"))
    double.rules.grace = 0.8
    double.store.add("replicasets", replicas("low", 1, cpu="4"))
    start(Greedy())
    settled(double, 1)
    put(double, pod("high", cpu="3", priorityClassName="high"))
    until(lambda: double.store.find("pods", "default", "high")["status"].get("nominatedNodeName") == "n0")
    put(double, pod("small", cpu="1"), pod("thief", cpu="3"))
    until(lambda: "high" in places(double))
    assert set(settled(double, 2)) == {"high", "small"}


def budget(double, name, labels, **spec):
    double.store.add(
        "poddisruptionbudgets", {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, **spec}}
    )


def test_disruption_budgets_are_kept(double, start):
    priority(double, "high", 1000)
    for k in range(2):
        double.store.add("nodes", node(f"n{k}", cpu="2"))
    double.store.add("replicasets", replicas("low", 4))
    running = start(Greedy())
    settled(double, 4)
    budget(double, "keep", {"app": "low"}, minAvailable=3)
    until(lambda: any(b.allowed == 1 for b in running.scheduler.cluster.budgets.values()))
    put(double, *(pod(f"h{k}", cpu="2", priorityClassName="high") for k in range(2)))
    time.sleep(0.6)
    # One may leave, two would have to: nobody does.
    assert running.scheduler.counts.evictions == 0
    put(double, pod("one", cpu="1", priorityClassName="high"))
    until(lambda: "one" in places(double))
    time.sleep(0.3)
    assert running.scheduler.counts.evictions == 1
    low = [n for n in places(double) if n.startswith("low-")]
    assert len(low) == 3


def test_a_refused_eviction_is_tried_again_and_never_becomes_a_deletion(double, start):
    priority(double, "high", 1000)
    double.store.add("nodes", node("n0", cpu="2"))
    double.store.add("replicasets", replicas("low", 2))

    class Bold(Greedy):
        """Does not look at budgets."""

        def place(self, view):
            from dataclasses import replace

            return super().place(replace(view, budgets={}))

    running = start(Bold(), patience=30.0)
    settled(double, 2)
    # The scheduler believes that two may leave; the server says 429 until the budget is raised.
    budget(double, "keep", {"app": "low"}, minAvailable=0)
    until(lambda: any(b.allowed == 2 for b in running.scheduler.cluster.budgets.values()))
    from fleetcast.runtime.kubernetes.double import ApiError

    tries = []

    def refuse(verb, resource, name):
        if resource == "pods/eviction":
            tries.append(name)
            if len(tries) < 3:
                raise ApiError(
                    429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget."
                )

    double.before.append(refuse)
    put(double, pod("high", cpu="2", priorityClassName="high"))
    until(lambda: "high" in places(double))
    assert running.scheduler.counts.refusals == 2
    assert running.scheduler.counts.evictions == 2
    assert ("", "pods", "delete") not in double.calls


def test_a_moved_pods_replacement_goes_where_the_policy_said(double, start):
    for k in range(3):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    double.rules.grace = 0.2
    double.store.add("replicasets", replicas("web", 2, cpu="2"))

    def decide(view):
        waiting = [p.name for p in view.waiting]
        if "default/big" in waiting:
            # n0 has 2 of 4 cores left, n1 too: one of the two moves to the other's node, big takes the node.
            mine = next(p for p in view.running if p.node == "n0")
            assert mine.movable
            return Placement({"default/big": "n0"}, moved={mine.name: "n1"})
        first = [p.name for p in view.waiting]
        return Placement(dict(zip(first, ["n0", "n1"], strict=False)))

    running = start(Scripted(decide))
    settled(double, 2)
    put(double, pod("big", cpu="4"))
    until(lambda: "big" in places(double))
    found = settled(double, 3)
    assert Counter(found.values()) == {"n0": 1, "n1": 2}
    assert found["big"] == "n0"
    assert (running.scheduler.counts.moves, running.scheduler.counts.evictions) == (1, 0)


def test_pods_without_a_controller_are_never_moved_or_evicted(double, start):
    priority(double, "high", 1000)
    double.store.add("nodes", node("n0", cpu="2"))
    double.store.add("nodes", node("n1", cpu="2"))
    put(double, pod("alone", cpu="1"))

    def decide(view):
        moved = {p.name: "n1" for p in view.running if p.name == "default/alone"}
        assert not any(p.movable for p in view.running)
        return Placement({p.name: "n0" for p in view.waiting}, moved=moved if len(moved) and view.waiting else {})

    running = start(Scripted(decide))
    settled(double, 1)
    put(double, pod("high", cpu="2", priorityClassName="high"))
    time.sleep(0.5)
    assert places(double) == {"alone": "n0"}
    assert ("", "pods/eviction", "create") not in double.calls
    assert any("default/alone stays: it has no controller" in line for line in running.log)


def test_odd_objects_neither_stop_it_nor_are_forgotten(double, start):
    from tests.runtime.kubernetes.test_reading import ODD

    double.store.add("nodes", node("n0"))
    double.store.add(
        "nodes", {"metadata": {"name": "odd"}, "spec": {"taints": "x"}, "status": {"allocatable": {"cpu": "lots"}}}
    )
    double.store.add("nodes", {"metadata": {"name": "bare"}})
    double.store.add("priorityclasses", {"metadata": {"name": "odd"}, "value": "high"})
    double.store.add("poddisruptionbudgets", {"metadata": {"name": "odd"}, "spec": {"selector": [1]}})
    for k, (_, odd) in enumerate(ODD.items()):
        meta = {**(odd.get("metadata") or {}), "name": f"odd{k}", "namespace": "default"}
        spec = odd.get("spec")
        if isinstance(spec, dict):
            spec = {"schedulerName": "fleetcast", **spec}
        double.store.add("pods", {"metadata": meta, "spec": spec if spec is not None else {}})
    put(
        double,
        pod("unknown", requests={"example.com/widget": "1"}),
        pod("a" * 250, labels={"x" * 60: "y" * 60}),
        pod("good"),
    )
    running = start(Greedy())
    until(lambda: {"good", "a" * 250} <= set(places(double)))
    pending = running.scheduler.pending
    until(lambda: "default/odd5" in pending)
    assert "spec.containers[0].resources.requests.cpu: is no quantity (got 'lots')" in pending["default/odd5"]
    assert "mounts a persistent volume claim" in "".join(pending.values())
    assert "lack example.com/widget (needs 1, the most left on one is 0)" in pending["default/unknown"]
    assert (
        "status.allocatable.cpu" in running.scheduler.cluster.problems["nodes odd"]
        or "spec.taints" in running.scheduler.cluster.problems["nodes odd"]
    )
    rounds = running.scheduler.counts.rounds
    time.sleep(0.5)
    assert running.scheduler.counts.rounds - rounds <= 1


def test_a_replacement_is_steered_even_if_its_first_binding_is_refused(double, start):
    for k in range(3):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    double.store.add("replicasets", replicas("web", 1, cpu="2"))
    from fleetcast.runtime.kubernetes.double import ApiError

    def decide(view):
        running = [p for p in view.running if p.movable]
        if running and running[0].node == "n0":
            return Placement({}, moved={running[0].name: "n2"})
        return Placement({p.name: "n0" for p in view.waiting})

    first, refused = [], []

    def refuse(verb, resource, name):
        if resource == "pods/binding" and first and len(refused) < 5:
            refused.append(name)
            raise ApiError(503 if len(refused) == 1 else 409, "Conflict", "not yet")

    double.before.append(refuse)
    running = start(Scripted(decide))
    settled(double, 1)
    first.append(1)
    put(double, pod("nudge", cpu="9", scheduler="fleetcast"))
    until(lambda: [n for p, n in places(double).items() if p.startswith("web-")] == ["n2"])
    assert len(refused) == 5
    assert running.scheduler.counts.moves == 1
