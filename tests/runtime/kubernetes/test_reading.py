from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.policy.place.pods import Taint
from fleetcast.runtime.kubernetes.quantity import LARGEST, amounts, parse, show
from fleetcast.runtime.kubernetes.reading import read_budget, read_node, read_pod
from fleetcast.runtime.kubernetes.selecting import Requirement, read_terms


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", Fraction(1, 10)),
        ("1Gi", 2**30),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1.5Ki", 1536),
        ("12e-3", Fraction(12, 1000)),
        ("0", 0),
        ("1k", 1000),
        ("3n", Fraction(3, 10**9)),
        ("2u", Fraction(2, 10**6)),
        ("-1", -1),
        ("+2M", 2 * 10**6),
        (2, 2),
        (0.5, Fraction(1, 2)),
        ("1P", 10**15),
        ("1Ti", 2**40),
    ],
)
def test_quantities_are_those_of_kubernetes(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gi",
        "1 Gi",
        "1K",
        "1gi",
        "1ki",
        "1e",
        "e3",
        "1e3Ki",
        "0x10",
        "1,5",
        "--1",
        "1" * 300,
        None,
        True,
        [],
        {},
        float("nan"),
    ],
)
def test_no_quantity_is_an_error_that_names_it(text):
    with pytest.raises(SpecError, match=r"spec\.x: is no quantity"):
        parse(text, "spec.x")


@given(st.integers(0, 10**12), st.integers(0, 999), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_a_quantity_is_its_decimal_times_its_suffix(whole, part, suffix):
    scale = {"": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[
        suffix
    ]
    assert parse(f"{whole}.{part:03d}{suffix}") == Fraction(Decimal(f"{whole}.{part:03d}")) * scale


def test_amounts_round_up_and_never_pass_the_largest_number():
    found = amounts({"cpu": "0.5m", "memory": "1.2", "nvidia.com/gpu": "2", "x": "1e999999999"}, "r")
    assert found == {"cpu": 1, "memory": 2, "nvidia.com/gpu": 2, "x": LARGEST}
    with pytest.raises(SpecError, match=r"r\.cpu: is below zero"):
        amounts({"cpu": "-1"}, "r")
    assert (show("cpu", 1500), show("memory", 2**31), show("nvidia.com/gpu", 3)) == ("1.5", "2Gi", "3")


def asks(containers, init=(), **spec):
    def row(r):
        return {"resources": {"requests": r[0]}, **r[1]}

    table = {"containers": [row(c) for c in containers], "initContainers": [row(c) for c in init], **spec}
    pod = read_pod({"metadata": {"name": "p", "namespace": "d"}, "spec": table})
    assert not pod.problem, pod.problem
    return {k: v for k, v in pod.requests.items() if k != "pods"}


def test_requests_count_init_containers_sidecars_and_overhead():
    two = [({"cpu": "1"}, {}), ({"cpu": "500m", "memory": "1Gi"}, {})]
    assert asks(two) == {"cpu": 1500, "memory": 2**30}
    assert asks(two, [({"cpu": "4"}, {})]) == {"cpu": 4000, "memory": 2**30}
    sidecar = ({"cpu": "300m"}, {"restartPolicy": "Always"})
    assert asks(two, [sidecar]) == {"cpu": 1800, "memory": 2**30}
    # The sidecar that started before runs beside the init container; one that starts after does not.
    assert asks(two, [sidecar, ({"cpu": "4"}, {})])["cpu"] == 4300
    assert asks(two, [({"cpu": "4"}, {}), sidecar])["cpu"] == 4000
    assert asks(two, overhead={"cpu": "250m"})["cpu"] == 1750
    assert asks(two, resources={"requests": {"cpu": "2"}}) == {"cpu": 2000, "memory": 2**30}
    assert asks([({}, {"resources": {"limits": {"nvidia.com/gpu": 2}}})]) == {"nvidia.com/gpu": 2}
    assert asks([({}, {"ports": [{"hostPort": 80}, {"containerPort": 90}]})]) == {"port/TCP/80": 1}


def test_a_node_is_what_it_can_give():
    node = read_node(
        {
            "metadata": {"name": "n", "labels": {"zone": "a"}},
            "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoExecute"}]},
            "status": {
                "allocatable": {"cpu": "3800m", "nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "Unknown"}],
            },
        }
    )
    assert dict(node.capacity) == {"cpu": 3800, "nvidia.com/gpu": 8}
    assert not node.ready
    assert node.taints == (Taint("k", "", "NoExecute"), Taint("node.kubernetes.io/unschedulable"))
    budget = read_budget(
        {"metadata": {"name": "b", "namespace": "d"}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 2}}
    )
    assert (budget.name, budget.selector, budget.allowed) == ("d/b", (), 2)


@pytest.mark.parametrize(
    ("line", "met"),
    [
        (Requirement("a", "In", ("1", "2")), True),
        (Requirement("b", "In", ("1",)), False),
        (Requirement("b", "NotIn", ("1",)), True),
        (Requirement("a", "NotIn", ("1",)), False),
        (Requirement("a", "Exists"), True),
        (Requirement("b", "DoesNotExist"), True),
        (Requirement("a", "Gt", ("0",)), True),
        (Requirement("a", "Lt", ("1",)), False),
        (Requirement("b", "Gt", ("0",)), False),
        (Requirement("metadata.name", "In", ("n",), True), True),
    ],
)
def test_requirements(line, met):
    assert line.met({"a": "1"}, "n") == met


def test_terms_are_any_of_all_and_an_empty_one_matches_nothing():
    terms = read_terms(
        {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [{"key": "a", "operator": "Exists"}],
                    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}],
                },
                {},
            ]
        },
        "x",
    )
    assert [t.met({"a": ""}, "n") for t in terms] == [True, False]
    assert not terms[0].met({"a": ""}, "m")


ODD = {
    "no spec": {},
    "spec is a list": {"spec": []},
    "containers is text": {"spec": {"containers": "x"}},
    "a container is null": {"spec": {"containers": [None]}},
    "requests is a list": {"spec": {"containers": [{"resources": {"requests": []}}]}},
    "no quantity": {"spec": {"containers": [{"resources": {"requests": {"cpu": "lots"}}}]}},
    "half a GPU": {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "500m"}}}]}},
    "negative": {"spec": {"containers": [{"resources": {"requests": {"cpu": "-5"}}}]}},
    "labels is text": {"metadata": {"name": "p", "namespace": "d", "labels": "x"}, "spec": {"containers": [{}]}},
    "unknown operator": {
        "spec": {
            "containers": [{}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]
                    }
                }
            },
        }
    },
    "affinity without topology": {
        "spec": {
            "containers": [{}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
        }
    },
    "spread without key": {
        "spec": {
            "containers": [{}],
            "topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
        }
    },
    "weight is text": {
        "spec": {
            "containers": [{}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": "x"}]}},
        }
    },
    "a claim": {"spec": {"containers": [{}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}},
    "gang of none": {
        "metadata": {
            "name": "p",
            "namespace": "d",
            "labels": {"scheduling.x-k8s.io/pod-group": "g", "scheduling.x-k8s.io/pod-group-min-available": "0"},
        },
        "spec": {"containers": [{}]},
    },
    "creation is no time": {
        "metadata": {"name": "p", "namespace": "d", "creationTimestamp": "yesterday"},
        "spec": {"containers": [{}]},
    },
    "owners is text": {
        "metadata": {"name": "p", "namespace": "d", "ownerReferences": "x"},
        "spec": {"containers": [{}]},
    },
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_pod_has_a_problem_that_says_where(odd):
    pod = read_pod({"metadata": {"name": "p", "namespace": "d"}, **ODD[odd]})
    assert pod.name == "d/p"
    assert pod.problem
    assert len(pod.problem) <= 300


def test_a_pod_without_a_name_is_refused():
    for table in ({}, {"metadata": {"name": ""}}, {"metadata": []}, {"metadata": {"name": "p"}}):
        with pytest.raises(SpecError):
            read_pod(table)
