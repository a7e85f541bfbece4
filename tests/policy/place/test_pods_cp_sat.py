"""Constraint packing against brute force, its proofs, and what it must never do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import GPU, BestFit, CpSat, CpSatNaive, KubeDefault, Node, Pod, Restarts, View
from fleetcast.policy.place.pods.check import carry_out
from fleetcast.policy.place.pods.greedy import decide
from fleetcast.scenario.workload.pods import deployments, distinct
from fleetcast.sim.cluster.pods import as_nodes, as_pods

pytest.importorskip("ortools", reason="needs OR-Tools: pip install 'fleetcast[solve]'")


def started(nodes: tuple[Node, ...], pods: tuple[Pod, ...]) -> View:
    """The cluster after the default."""
    view = View(nodes, (), pods)
    placed = KubeDefault().place(view)
    after = carry_out(view, placed)
    run = tuple(
        replace(p, node=placed.bound[p.name], gpus=after.laid[p.name].devices) for p in pods if p.name in placed.bound
    )
    return View(nodes, run, tuple(p for p in pods if p.name not in placed.bound))


def worth(view: View, ledger: object) -> tuple[int, ...]:
    """By tier kept and placed, highest first; then -evictions and -moves: the reference, with no line in common."""
    laid = {name: view.nodes[found.node].name for name, found in ledger.laid.items()}  # type: ignore[attr-defined]
    pods = (*view.running, *view.waiting)
    found: list[int] = []
    for tier in sorted({p.priority for p in pods}, reverse=True):
        found.append(sum(p.priority == tier and p.name in laid for p in view.running))
        found.append(sum(p.priority == tier and p.name in laid for p in pods))
    gone = sum(p.name not in laid for p in view.running)
    return (*found, -gone, -sum(p.name in laid and laid[p.name] != p.node for p in view.running))


def brute(view: View) -> tuple[int, ...]:
    """The best worth of all placements, each built pod by pod and checked by the check alone."""
    pods = (*view.running, *view.waiting)
    best: tuple[int, ...] | None = None
    for where in itertools.product((-1, *range(len(view.nodes))), repeat=len(pods)):
        ledger = view.ledger.copy()
        for pod in view.running:
            ledger.remove(pod.name)
        held = [(p, w) for p, w in zip(pods, where, strict=True) if w >= 0]
        sums = np.zeros_like(ledger.free)
        for p, w in held:
            sums[w] += ledger.need(p).amount
        if (sums > ledger.capacity).any():
            continue
        for p, w in held:
            home = p.gpus if p.node == view.nodes[w].name and p.gpus else None
            ledger.place(p, w, home)
        value = worth(view, ledger)
        if best is not None and value <= best:
            continue
        try:
            carry_out(view, decide(view, ledger, why=False))
        except PolicyError:
            continue
        best = value
    assert best is not None
    return best


def tiny(seed: int) -> View:
    """Up to 3 nodes and 6 pods, of which the default leaves some out, if it does."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 4)), int(rng.integers(4, 7))
    cpu, memory = rng.integers(1, 7, m), rng.integers(1, 7, m)
    total = max(cpu.sum(), memory.sum()) * rng.uniform(0.85, 1.2) / n
    nodes = tuple(Node(f"n{i}", {"cpu": float(np.ceil(total)), "memory": float(np.ceil(total))}) for i in range(n))
    pods = tuple(
        Pod(f"p{i}", {"cpu": float(cpu[i]), "memory": float(memory[i])}, int(rng.integers(0, 3)), arrival=float(i))
        for i in range(m)
    )
    view = View(nodes, (), pods)
    # arrival order, not priority, so that some low ones run and some high ones wait
    placed: dict[str, str] = {}
    ledger = view.ledger.copy()
    for pod in pods:
        fits = np.flatnonzero(ledger.fits(pod))
        if len(fits):
            node = int(fits[np.argmax(ledger.free[fits].sum(axis=1))])  # the emptiest: room is left in pieces
            ledger.place(pod, node)
            placed[pod.name] = nodes[node].name
    run = tuple(replace(p, node=placed[p.name]) for p in pods if p.name in placed)
    return View(nodes, run, tuple(p for p in pods if p.name not in placed))


SEEDS = (2, 4, 5, 13, 16, 17, 19, 27, 29, 31, 40, 41)
"""Views of which some need moves and some evictions (asserted below)."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_is_that_of_trying_everything_moves_included(seed: int) -> None:
    view = tiny(seed)
    answer = CpSat(budget=5.0).solve(view)
    after = carry_out(view, answer.placement)
    assert worth(view, after) == brute(view)
    assert answer.placement.proof == "optimal"


def test_some_tiny_views_need_moves_and_some_evictions() -> None:
    answers = [CpSat(budget=5.0).solve(tiny(seed)) for seed in SEEDS]
    assert any(a.moves for a in answers)
    assert any(a.placement.evicted for a in answers)


@pytest.mark.parametrize("make", [distinct, deployments])
@pytest.mark.parametrize("usage", [0.95, 1.05])
def test_no_baseline_serves_a_tier_better_and_bounds_hold(make: object, usage: float) -> None:
    nodes, pods = make(16, 8, usage, 2, 3)  # type: ignore[operator]
    view = started(as_nodes(nodes), as_pods(pods))
    answer = CpSat(budget=0.5).solve(view)
    ours = worth(view, carry_out(view, answer.placement))
    for rival in (KubeDefault(), BestFit(repack=True), Restarts(budget=0.25), CpSatNaive(budget=0.5)):
        theirs = worth(view, carry_out(view, rival.place(view)))
        assert ours[:-2] >= theirs[:-2], rival.kind
        placed = theirs[1:-2:2]
        kept = theirs[0:-2:2]
        if kept[0] == answer.tiers[0].kept:
            assert placed[0] <= answer.tiers[0].bound, "a bound is one for every policy"


def test_equal_views_have_equal_answers() -> None:
    nodes, pods = distinct(32, 8, 1.0, 2, 1)
    view = started(as_nodes(nodes), as_pods(pods))
    assert CpSat(budget=0.4).place(view) == CpSat(budget=0.4).place(replace(view))


def test_patterns_prove_deployments_on_many_nodes() -> None:
    nodes, pods = deployments(64, 8, 1.0, 1, 0)
    answer = CpSat(budget=1.0).solve(started(as_nodes(nodes), as_pods(pods)))
    assert answer.optimal


def test_a_lower_priority_never_displaces_a_higher() -> None:
    nodes = (Node("n", {"cpu": 4.0}),)
    running = (Pod("high", {"cpu": 3.0}, 5, node="n"),)
    view = View(nodes, running, (Pod("a", {"cpu": 2.0}, 1), Pod("b", {"cpu": 2.0}, 1)))
    placement = CpSat().place(view)
    assert not placement.evicted and not placement.bound
    assert "cpu: needs 2 cores" in placement.reasons["a"]


def test_nobody_of_equal_priority_leaves_unless_asked() -> None:
    nodes = (Node("n", {"cpu": 4.0}),)
    view = View(nodes, (Pod("one", {"cpu": 4.0}, node="n"),), (Pod("a", {"cpu": 2.0}), Pod("b", {"cpu": 2.0})))
    assert not CpSat().place(view).evicted
    assert CpSat(equals=True).place(view).evicted == ("one",)


def test_nobody_leaves_for_a_pod_that_no_node_could_take() -> None:
    """Quota says there are devices enough; no single node has them."""
    nodes = tuple(Node(f"n{i}", {"cpu": 8.0, GPU: 4.0}) for i in range(4))
    running = tuple(Pod(f"p{i}", {"cpu": 1.0, GPU: 2.0}, 0, node=f"n{i}", gpus=(0, 1)) for i in range(4))
    view = View(nodes, running, (Pod("wide", {"cpu": 1.0, GPU: 8.0}, 9),))
    placement = CpSat().place(view)
    assert not placement.evicted and not placement.moved
    assert placement.reasons["wide"] == f"{GPU}: needs 8 {GPU}, and the largest node has 4 {GPU}"


def test_devices_scattered_over_nodes_are_gathered_by_moves_not_evictions() -> None:
    nodes = tuple(Node(f"n{i}", {"cpu": 8.0, GPU: 4.0}) for i in range(2))
    running = tuple(Pod(f"p{i}", {"cpu": 1.0, GPU: 2.0}, 0, node=f"n{i}", gpus=(0, 1)) for i in range(2))
    view = View(nodes, running, (Pod("four", {"cpu": 1.0, GPU: 4.0}, 9),))
    placement = CpSat().place(view)
    assert placement.bound.keys() == {"four"} and len(placement.moved) == 1 and not placement.evicted
    assert placement.proof == "optimal"


def test_budgets_of_steps_not_positive_are_refused() -> None:
    for made in (CpSat, CpSatNaive, Restarts):
        with pytest.raises(ValueError, match="above 0"):
            made(budget=0.0)
