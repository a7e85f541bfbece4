"""Rules, the ledger, the check's words, the default's choices, and fragmentation against its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import (
    GPU,
    BestFit,
    Fgd,
    KubeDefault,
    Node,
    Placement,
    Pod,
    Restarts,
    Rule,
    Taint,
    Toleration,
    View,
)  # fmt: skip
from fleetcast.policy.place.pods.check import carry_out, reason
from fleetcast.policy.place.pods.fgd import Kinds, Slope, fragmentation
from fleetcast.policy.place.pods.kube_default import score
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger
from fleetcast.policy.place.pods.match import admits, tolerated

TWO = (Node("a", {"cpu": 4.0, "memory": 8e9}), Node("b", {"cpu": 4.0, "memory": 8e9}))


@pytest.mark.parametrize(
    ("operator", "values", "meets"),
    [("In", ("x", "y"), True), ("In", ("z",), False), ("NotIn", ("x",), False), ("Exists", (), True),
     ("DoesNotExist", (), False), ("Gt", ("3",), False), ("Lt", ("3",), False)],
)  # fmt: skip
def test_operators_of_rules(operator: str, values: tuple[str, ...], meets: bool) -> None:
    assert admits(Node("n", {}, {"k": "x"}), Rule("k", operator, values)) is meets


def test_rules_have_conjunctions_and_alternatives() -> None:
    node = Node("n", {}, {"k": "5", "z": "1"})
    assert admits(node, Rule("k", "Gt", ("3",), also=(Rule("z", values=("1",)),)))
    assert not admits(node, Rule("k", "Gt", ("3",), also=(Rule("z", values=("2",)),)))
    assert admits(node, Rule("k", "Lt", ("3",), either=(Rule("z", values=("1",)),)))
    assert admits(node, Rule("kubernetes.io/hostname", values=("n",)))


def test_tolerations_as_in_kubernetes() -> None:
    taint = Taint("k", "v")
    assert tolerated(taint, (Toleration("k", "Exists"),)) and tolerated(taint, (Toleration("k", value="v"),))
    assert tolerated(taint, (Toleration(operator="Exists"),))
    assert not tolerated(taint, (Toleration("k", value="w"),))
    assert not tolerated(taint, (Toleration("k", "Exists", effect="NoExecute"),))


def test_a_ledger_gives_back_what_it_took_exactly() -> None:
    nodes = (Node("n", {"cpu": 1.0, "memory": 1e9, GPU: 2.0}),)
    ledger = Ledger(nodes)
    before = ledger.free.copy(), ledger.devices.copy()
    pods = [Pod(f"p{i}", {"cpu": 0.1}, gpu_share=0.3) for i in range(6)]
    for pod in pods:
        assert ledger.fits(pod).all()
        ledger.place(pod, 0)
    assert ledger.devices.tolist() == [[100, 100]] and ledger.free[0, ledger.gpu] == 0
    assert not ledger.fits(pods[0].__class__("more", {}, gpu_share=0.3)).any(), "0.1 + 0.1 is no 0.3 of one device"
    for pod in pods:
        ledger.remove(pod.name)
    assert (ledger.free == before[0]).all() and (ledger.devices == before[1]).all()


ILLEGAL = [
    (Placement({"w": "x"}), "node 'x', which is not there"),
    (Placement({"w": "b"}), "pod 'w' needs 3 cores, and node 'b' has 2 cores left"),
    (Placement({"r": "a"}), "is bound and does not wait"),
    (Placement({}, {"r": "b"}), "where it is"),
    (Placement({}, evicted=("r",)), "is evicted, and no more pods"),
    (Placement({}, evicted=("w",)), "is evicted and does not run"),
    (Placement({"g1": "a"}), "gang 'g' is torn: pod 'g1' is placed and 'g2' is not"),
    (Placement({"w": "a"}, {"h": "b"}), "may not be"),
    (Placement({"t": "c"}), "taint keep=:NoSchedule"),
    (Placement({"s": "a"}), "label disk is not 'ssd'"),
]


@pytest.mark.parametrize(("placement", "words"), ILLEGAL, ids=[w[:25] for _, w in ILLEGAL])
def test_illegal_placements_are_refused_by_name(placement: Placement, words: str) -> None:
    nodes = (*TWO, Node("c", {"cpu": 9.0}, taints=(Taint("keep"),)))
    view = View(
        nodes, (Pod("r", {"cpu": 2.0}, 1, node="b"), Pod("h", {"cpu": 1.0}, node="a", movable=False)),
        (Pod("w", {"cpu": 3.0}), Pod("g1", {"cpu": 1.0}, group="g"), Pod("g2", {"cpu": 9.0}, group="g"),
         Pod("t", {"cpu": 1.0}), Pod("s", {"cpu": 1.0}, selector={"disk": "ssd"})),
    )  # fmt: skip
    with pytest.raises(PolicyError, match=words):
        carry_out(view, placement)


def test_budgets_bind_moves_and_evictions() -> None:
    run = tuple(Pod(f"r{i}", {"cpu": 1.0}, node="a", labels={"app": "x"}) for i in range(2))
    view = View(TWO, run, (), {"x": ({"app": "x"}, 1)})
    carry_out(view, Placement({}, {"r0": "b"}))
    with pytest.raises(PolicyError, match="budget 'x' lets 1 pods leave now, and 2 do"):
        carry_out(view, Placement({}, {"r0": "b", "r1": "b"}))


def test_pods_apart_may_not_share_a_domain() -> None:
    nodes = tuple(Node(f"n{i}", {"cpu": 4.0}, {"zone": f"z{i // 2}"}) for i in range(4))
    rule = Rule("app", values=("x",), pods=True, anti=True, topology="zone")
    pods = tuple(Pod(f"p{i}", {"cpu": 1.0}, labels={"app": "x"}, rules=(rule,)) for i in range(3))
    with pytest.raises(PolicyError, match="a rule about the pods there"):
        carry_out(View(nodes, (), pods), Placement({"p0": "n0", "p1": "n1"}))
    for policy in (KubeDefault(), BestFit(), Restarts(budget=0.01)):
        placement = policy.place(View(nodes, (), pods))
        assert len(placement.bound) == 2 and "a rule about pods" in next(iter(placement.reasons.values()))


REASONS = [
    (Pod("p", {"cpu": 9.0}), "cpu: needs 9 cores, and the largest node has 4 cores"),
    (Pod("p", {"memory": 9e9}), "memory: needs 9 GB of memory, and the largest node has 8 GB of memory"),
    (Pod("p", {GPU: 1.0}), f"no node has any {GPU}"),
    (Pod("p", {}, selector={"disk": "ssd"}), "none of 2 nodes lets it on: label disk is not 'ssd'"),
    (
        Pod("p", {"cpu": 3.0}),
        "cpu: needs 3 cores; 2 of 2 nodes are short of cpu: the most free on one is 2 cores, 4 cores on all",
    ),
    (Pod("p", {"cpu": 1.0}), ""),
]


@pytest.mark.parametrize(("pod", "words"), REASONS, ids=[w[:20] or "fits" for _, w in REASONS])
def test_reasons_name_the_resource_and_the_shortage(pod: Pod, words: str) -> None:
    ledger = Ledger.of(View(TWO, (Pod("x", {"cpu": 2.0}, node="a"), Pod("y", {"cpu": 2.0}, node="b")), ()))
    assert reason(ledger, pod) == words


def test_default_scores_are_kube_schedulers() -> None:
    """Least allocated (75 + 50) / 2 = 62, balanced 100 x (1 - |0.25 - 0.5| / 2) = 87."""
    ledger = Ledger(TWO)
    pod = Pod("p", {"cpu": 1.0, "memory": 4e9})
    assert score(ledger, pod, np.ones(2, bool)).tolist() == [62 + 87] * 2


def test_default_preempts_the_fewest_of_the_lowest() -> None:
    run = (
        Pod("a1", {"cpu": 2.0}, 1, node="a"), Pod("a2", {"cpu": 2.0}, 3, node="a"),
        Pod("b1", {"cpu": 2.0}, 2, node="b"), Pod("b2", {"cpu": 2.0}, 2, node="b"),
    )  # fmt: skip
    placement = KubeDefault().place(View(TWO, run, (Pod("w", {"cpu": 2.0}, 5),)))
    assert placement.evicted == ("a1",) and placement.bound == {"w": "a"}
    held = tuple(replace(p, labels={"app": "x"}) for p in run)
    none = KubeDefault().place(View(TWO, held, (Pod("w", {"cpu": 2.0}, 5),), {"x": ({"app": "x"}, 0)}))
    assert not none.bound and not none.evicted


def plain_fragmentation(cpu: int, devices: list[int], kinds: Kinds) -> float:
    """The definition, kind by kind and device by device, in devices."""
    total = 0.0
    for k in range(len(kinds.weight)):
        left = [d for d in devices if d >= 0]
        share, count = int(kinds.share[k]), int(kinds.devices[k])
        fits = bool(share) and cpu >= kinds.cpu[k] and kinds.allowed[k, 0]
        fits = fits and sum(d >= share for d in left) >= max(count, 1)
        total += float(kinds.weight[k]) * sum(d for d in left if not fits or d < share)
    return total / WHOLE


@pytest.mark.parametrize("seed", range(20))
def test_fragmentation_and_its_growth_are_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = 5
    share = rng.choice([0, 250, 500, 1000], k)
    kinds = Kinds(
        rng.integers(0, 4, k) * 1000, share, np.where(share == 1000, rng.integers(1, 4, k), np.where(share > 0, 1, 0)),
        np.full(k, 1 / k), rng.random((k, 1)) < 0.8,
    )  # fmt: skip
    node = Node("n", {"cpu": 8.0, GPU: 4.0})
    ledger = Ledger((node,))
    for i in range(int(rng.integers(0, 4))):
        pod = Pod(f"p{i}", {"cpu": 1.0}, gpu_share=float(rng.choice([0.25, 0.5])))
        ledger.place(pod, 0)
    cpu, devices = int(ledger.free[0, 0]), ledger.devices[0].tolist()
    found = fragmentation(ledger.free[:, 0], ledger.devices, kinds.allowed, kinds)
    assert found[0] == pytest.approx(plain_fragmentation(cpu, devices, kinds))
    slope = Slope(View((node,), (), ()), ledger, kinds)
    growth, device = slope.growth(ledger, 1000, 250, 0)
    each = {}
    for g, left in enumerate(devices):
        if left >= 250:
            taken = [d - 250 * (i == g) for i, d in enumerate(devices)]
            each[g] = plain_fragmentation(cpu - 1000, taken, kinds) - found[0]
    assert growth[0] == pytest.approx(min(each.values())) and each[int(device[0])] == pytest.approx(min(each.values()))


def test_fragmentation_descent_shares_a_broken_device_before_it_breaks_another() -> None:
    nodes = tuple(Node(f"n{i}", {"cpu": 8.0, GPU: 2.0}) for i in range(2))
    run = (Pod("r", {"cpu": 1.0}, node="n1", gpu_share=0.5, gpus=(1,)),)
    typical = (Pod("t1", {"cpu": 1.0}, gpu_share=0.5), Pod("t2", {"cpu": 1.0, GPU: 1.0}))
    placement = Fgd(typical=typical).place(View(nodes, run, (Pod("w", {"cpu": 1.0}, gpu_share=0.5),)))
    assert placement.bound == {"w": "n1"} and placement.gpus == {"w": 1}
