"""The contract of pods' policies, played on cases that break careless ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fleetcast.policy.place.pods import GPU, Node, Pod, Policy, Rule, Taint, Toleration, View
from fleetcast.policy.place.pods.check import carry_out


def cases() -> Iterator[tuple[str, View]]:
    """Yields a name and a view each."""
    four = tuple(Node(f"n{i}", {"cpu": 4.0, "memory": 8e9, GPU: 2.0}, {"zone": f"z{i % 2}"}) for i in range(4))
    some = tuple(Pod(f"p{i}", {"cpu": 1.0, "memory": 1e9}, i % 3, arrival=float(i)) for i in range(6))
    yield "no nodes", View((), (), some)
    yield "no pods", View(four, (), ())
    yield "ties", View(four, (), tuple(Pod(f"p{i}", {"cpu": 1.0}) for i in range(16)))
    yield "impossible", View(four, (), (Pod("big", {"cpu": 5.0}), Pod("odd", {"fpga": 1.0}), *some))
    yield "nodes away", View(tuple(replace(n, ready=i > 1) for i, n in enumerate(four)), (), some)
    gone = tuple(replace(p, node="lost") for p in some[:2])
    yield "a pod's node is gone", View(four, gone, some[2:])
    full = tuple(Pod(f"low{i}", {"cpu": 2.0}, 0, node=f"n{i % 4}") for i in range(8))
    yield "pre-emption", View(four, full, (Pod("high", {"cpu": 3.0}, 9), Pod("mild", {"cpu": 3.0}, 9, preempts=False)))
    fixed = tuple(replace(p, movable=False) for p in full)
    yield "nobody may leave", View(four, fixed, (Pod("high", {"cpu": 3.0}, 9),))
    labelled = tuple(replace(p, labels={"app": "a"}) for p in full)
    yield "a budget", View(four, labelled, (Pod("high", {"cpu": 3.0}, 9),), {"a": ({"app": "a"}, 1)})
    yield "a budget of none", View(four, labelled, (Pod("high", {"cpu": 3.0}, 9),), {"a": ({"app": "a"}, 0)})
    gang = tuple(Pod(f"g{i}", {"cpu": 3.0}, 1, group="g") for i in range(4))
    yield "a gang", View(four, (), gang)
    yield "a gang too large", View(four, (), (*gang, Pod("g4", {"cpu": 3.0}, 1, group="g"), *some))
    shares = tuple(Pod(f"s{i}", {"cpu": 0.1}, gpu_share=0.4) for i in range(12))
    yield "shares", View(four, (), (*shares, Pod("w", {GPU: 2.0}, 1)))
    running = tuple(replace(p, node=f"n{i % 4}", gpus=(i // 4,)) for i, p in enumerate(shares[:8]))
    yield "shares that run", View(four, running, (*shares[8:], Pod("w", {GPU: 2.0}, 1)))
    apart = Rule("app", values=("a",), pods=True, anti=True, topology="zone")
    lonely = tuple(Pod(f"a{i}", {"cpu": 1.0}, labels={"app": "a"}, rules=(apart,)) for i in range(3))
    yield "apart", View(four, (), lonely)
    near = Rule("app", values=("b",), pods=True, topology="zone")
    fond = tuple(Pod(f"b{i}", {"cpu": 1.5}, labels={"app": "b"}, rules=(near,)) for i in range(4))
    yield "together", View(four, (), fond)
    tainted = tuple(replace(n, taints=(Taint("keep"),)) if i else n for i, n in enumerate(four))
    bears = tuple(replace(p, tolerations=(Toleration("keep", "Exists"),)) for p in some)
    yield "taints", View(tainted, (), (*bears[:3], *some[3:], Pod("z", {"cpu": 1.0}, selector={"zone": "z0"})))
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 1001, (40, 2))
    nodes = tuple(Node(f"n{i}", {"cpu": 4.6, "memory": 4600.0}) for i in range(5))
    tight = tuple(Pod(f"t{i}", {"cpu": c / 1000, "memory": float(m)}, i % 2) for i, (c, m) in enumerate(sizes.tolist()))
    yield "tight", View(nodes, (), tight)


def burst(count: int = 10_000) -> View:
    """Returns many pods at once on few nodes."""
    rng = np.random.default_rng(1)
    nodes = tuple(Node(f"n{i}", {"cpu": 64.0, "memory": 256e9}) for i in range(50))
    sizes = rng.integers(1, 9, (count, 2)).tolist()
    pods = (Pod(f"p{i}", {"cpu": c / 2, "memory": m * 1e9}, i % 4) for i, (c, m) in enumerate(sizes))
    return View(nodes, (), tuple(pods))


def check_policy(policy: Policy) -> list[str]:
    """Returns the cases that a policy was played on; raises what it does wrong.

    Raises:
        PolicyError: a decision that cannot be carried out.
        AssertionError: the same view is answered differently, or a waiting pod has neither a node nor a reason.
    """
    played = []
    for name, view in cases():
        placement = policy.place(view)
        carry_out(view, placement)
        assert policy.place(replace(view)) == placement, f"{name}: two answers to the same view"
        for pod in view.waiting:
            assert (pod.name in placement.bound) != bool(placement.reasons.get(pod.name)), f"{name}: pod {pod.name}"
        played.append(name)
    return played
