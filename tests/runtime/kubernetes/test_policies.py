"""Every policy of pods schedules a real API: the same object that the simulated cluster asks."""

import time
from collections import Counter

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes client is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from fleetcast.policy.place import pods
from tests.runtime.kubernetes.made import node, places, pod, put, replicas, until
from tests.runtime.kubernetes.test_scheduling import ZONE, affinity, term

POLICIES = [pods.KubeDefault, pods.BestFit, pods.Fgd, pods.Restarts, pods.CpSat]


def made(policy):
    if policy is pods.CpSat:
        pytest.importorskip("ortools", reason="OR-tools is not installed")
    return policy()


@pytest.mark.parametrize("policy", POLICIES)
def test_it_binds_and_respects_what_pods_ask(double, start, policy):
    for k in range(4):
        double.store.add("nodes", node(f"n{k}", labels={ZONE: "ab"[k // 2]}))
    double.store.add("nodes", node("gpu", taints=[{"key": "gpu", "effect": "NoSchedule"}], **{"nvidia.com/gpu": "4"}))
    web = {"app": "web", "tier": "front"}
    tolerant = [{"key": "gpu", "operator": "Exists"}]
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"s": "1"}},
    }
    group = {"scheduling.x-k8s.io/pod-group": "g"}
    port = [{"name": "c", "ports": [{"hostPort": 8080}]}]
    put(
        double,
        *(pod(f"g{k}", requests={"nvidia.com/gpu": "2"}, tolerations=tolerant) for k in range(2)),
        *(
            pod(f"web{k}", labels=web, affinity=affinity("podAntiAffinity", [term(web, "kubernetes.io/hostname")]))
            for k in range(3)
        ),
        *(pod(f"s{k}", labels={"s": "1"}, topologySpreadConstraints=[spread]) for k in range(4)),
        *(pod(f"gang{k}", labels=group) for k in range(3)),
        *(pod(f"port{k}", containers=port) for k in range(4)),
        pod("nowhere", cpu="9"),
    )
    running = start(made(policy))
    until(lambda: len(places(double)) == 16, 30)
    found = places(double)
    zones = Counter("ab"[int(found[f"s{k}"][1]) // 2] for k in range(4))
    assert zones == {"a": 2, "b": 2}
    assert len({found[f"web{k}"] for k in range(3)}) == 3
    assert len({found[f"port{k}"] for k in range(4)}) == 4
    assert {n for n, where in found.items() if where == "gpu"} == {"g0", "g1"}
    until(lambda: "default/nowhere" in running.scheduler.pending)
    assert "lack cpu (needs 9" in running.scheduler.pending["default/nowhere"]


def test_cp_sat_moves_pods_so_that_one_fits(double, start):
    """Two nodes of 4 cores with 2 free on each; a pod of 4 fits once one moves. The default leaves it waiting."""
    pytest.importorskip("ortools", reason="OR-tools is not installed")
    for k in range(2):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    double.store.add("replicasets", replicas("web", 2, cpu="2"))
    for k, name in enumerate(sorted(n for _, n in double.store.objects["pods"])):
        double.rules.bind("default", name, {"target": {"name": f"n{k}"}})
    put(double, pod("big", cpu="4"))
    null = start(pods.KubeDefault())
    until(lambda: "default/big" in null.scheduler.pending)
    null.stop()
    running = start(pods.CpSat())
    until(lambda: "big" in places(double), 30)
    until(lambda: len(places(double)) == 3)
    time.sleep(0.2)
    assert running.scheduler.counts.moves == 1
    assert running.scheduler.counts.evictions == 0
    big = places(double).pop("big")
    assert Counter(places(double).values()) == {big: 1, ({"n0", "n1"} - {big}).pop(): 2}
