"""Objects as nobody should write them: whatever comes, the cluster is seen and judged, and good pods are placed."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.policy.place.pods import KubeDefault
from fleetcast.runtime.kubernetes.cluster import Cluster
from fleetcast.runtime.kubernetes.judging import judge, shortage
from fleetcast.runtime.kubernetes.room import Room
from fleetcast.runtime.kubernetes.seeing import Sight

MUST = "requiredDuringSchedulingIgnoredDuringExecution"
SELECTOR = {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["1"]}]}
POD = {
    "metadata": {
        "name": "odd",
        "namespace": "default",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"app": "a"},
        "annotations": {},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"uid": "o", "controller": True, "kind": "ReplicaSet"}],
    },
    "spec": {
        "schedulerName": "fleetcast",
        "priority": 5,
        "nodeSelector": {"zone": "a"},
        "overhead": {"cpu": "1m"},
        "containers": [
            {"name": "c", "ports": [{"hostPort": 80}], "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
        ],
        "initContainers": [{"restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                MUST: {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["1"]}]}]
                }
            },
            "podAntiAffinity": {MUST: [{"labelSelector": SELECTOR, "topologyKey": "kubernetes.io/hostname"}]},
            "podAffinity": {MUST: [{"labelSelector": SELECTOR, "topologyKey": "zone", "namespaceSelector": {}}]},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": SELECTOR,
                "minDomains": 2,
            }
        ],
    },
    "status": {"phase": "Pending"},
}
NODE = {
    "metadata": {"name": "odd", "labels": {"zone": "a"}},
    "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}, "conditions": [{"type": "Ready", "status": "True"}]},
}
BUDGET = {
    "metadata": {"name": "odd", "namespace": "default"},
    "spec": {"selector": SELECTOR},
    "status": {"disruptionsAllowed": 1},
}
CLASS = {"metadata": {"name": "odd"}, "value": 7, "globalDefault": True}
SPACE = {"metadata": {"name": "default", "labels": {"team": "a"}}}
KINDS = {"pods": POD, "nodes": NODE, "budgets": BUDGET, "priorities": CLASS, "namespaces": SPACE}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["-1", "1e999", "9" * 300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def paths(table, path=()):
    yield path
    rows = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in rows:
        yield from paths(value, (*path, key))


def broken(table, path, junk, *, gone):
    table = copy.deepcopy(table)
    inner = table
    for key in path[:-1]:
        inner = inner[key]
    if not path:
        return junk
    if gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = junk
    return table


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data(), JUNK, st.booleans(), st.booleans())
def test_nothing_that_is_read_stops_a_round(kind, data, junk, gone, listed):
    path = data.draw(st.sampled_from(list(paths(KINDS[kind]))))
    cluster = Cluster("fleetcast")
    good = {
        "metadata": {"name": "good", "namespace": "default", "uid": "g"},
        "spec": {"schedulerName": "fleetcast", "containers": [{}]},
    }
    cluster.replace(
        "nodes",
        [
            {
                "metadata": {"name": "n0", "labels": {"kubernetes.io/hostname": "n0"}},
                "status": {"allocatable": {"cpu": "2", "pods": "9"}},
            }
        ],
    )
    cluster.replace("pods", [good])
    table = broken(KINDS[kind], path, junk, gone=gone)
    if listed and kind == "pods":
        cluster.replace("pods", [good, table])
    else:
        cluster.apply(kind, "ADDED", table)
    room = Room(cluster.machines, cluster.used, cluster.placed(), cluster.picker)
    waiting = [pod for pod in cluster.waiting() if not pod.problem]
    view = Sight().look(cluster, room, waiting, cluster.placed(), set(), set())
    verdict = judge(cluster, room, KubeDefault().place(view), {}, set())
    assert "default/good" in {pod.name for pod, _ in verdict.bind} or kind == "nodes"
    for pod in cluster.waiting():
        assert shortage(room, pod)


def test_objects_as_they_should_be_are_read_whole():
    cluster = Cluster("fleetcast")
    for kind, table in KINDS.items():
        cluster.apply(kind, "ADDED", table)
    assert not cluster.problems
    [pod] = cluster.waiting()
    assert not pod.problem
    assert pod.requests == {"pods": 1, "cpu": 1001, "memory": 2**30, "nvidia.com/gpu": 1, "port/TCP/80": 1}
