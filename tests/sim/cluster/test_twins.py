"""The columnar loop and the world written for reading: equal in every count, and to 1e-9 in time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fleetcast.cost.jobs import Linear
from fleetcast.policy.place.gangs import BestFit, Spread
from fleetcast.policy.share import Drf, Easy, Fifo, Las, Srtf
from fleetcast.scenario.workload.jobs import Jobs, of
from fleetcast.sim.cluster import fast, kernel, world
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.nodes import Nodes, even
from fleetcast.sim.cluster.pace import Pace, errors
from fleetcast.sim.cluster.run import Run

POLICIES = (
    Fifo(), Fifo(backfill=True), Easy(), Srtf(), Srtf(backfill=False), Srtf(service=True), Las(),
    Las(queues=(500.0, 3000.0, 9000.0), backfill=False), Drf(),
)  # fmt: skip
RULES = (Rules(), Rules(restart=30.0), Rules(round=60.0, restart=10.0))


def plain() -> ModuleType:
    """The loop as it is written, not compiled."""
    spec = importlib.util.spec_from_file_location("plain_kernel", Path(kernel.__file__).parent / "kernel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.COMPILED
    return module


def draw(seed: int, n: int = 120, kinds: int = 2) -> tuple[Jobs, Nodes, Pace]:
    r = np.random.default_rng(seed)
    arrival = np.cumsum(r.exponential(90.0, n))
    arrival[r.random(n) < 0.2] = np.round(arrival[r.random(n) < 0.2].sum() / n)  # bursts
    seconds = np.where(r.random(n) < 0.2, 600.0, r.lognormal(6.5, 1.4, n))  # ties
    user = r.integers(0, 5, n) if seed % 4 else None  # the first of them is nobody
    jobs = of(
        arrival, r.choice([1, 1, 1, 2, 4, 8, 12], n), seconds, user=user, users=("", "a", "b", "c", "d"),
        weight=r.choice([1.0, 2.0], n),
    )  # fmt: skip
    nodes = even([14, 20][:kinds], [8, 4][:kinds])
    speeds = Linear([k.name for k in nodes.kinds], (1.0, 0.6)[:kinds])
    believed = errors(jobs, 0.3, seed) if seed % 2 else np.zeros(0)
    pace = Pace(speeds, jobs.seconds * jobs.demand, jobs.model, apart=0.8, racks=0.9, believed=believed)
    return jobs, nodes, pace


def same(a: Run, b: Run) -> None:
    assert a.decisions == b.decisions
    for name in ("preempted", "moved", "failed"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    for name in ("start", "finish", "held", "lost", "waited"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-6, err_msg=name)
    for x, y in zip(spans(a), spans(b), strict=True):
        assert x[0] == y[0] and x[2:] == y[2:]
        assert x[1] == pytest.approx(y[1], rel=1e-9)


def spans(run: Run) -> list[tuple]:
    on: dict[int, list[tuple[int, int]]] = {}
    for span, node, n in zip(run.span.tolist(), run.node.tolist(), run.share.tolist(), strict=True):
        on.setdefault(span, []).append((node, n))
    rows = zip(run.job.tolist(), run.begin.tolist(), run.kind.tolist(), run.devices.tolist(), strict=True)
    return sorted((job, at, kind, n, tuple(sorted(on[i]))) for i, (job, at, kind, n) in enumerate(rows))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p.kind}-{p.rule().backfill}-{p.rule().key}")
@pytest.mark.parametrize("rules", RULES, ids=["events", "restart", "rounds"])
def test_both_worlds_are_equal(policy, rules):
    for seed in range(4):
        for place in (BestFit(), Spread()):
            jobs, nodes, pace = draw(seed, kinds=1 + seed % 3 // 1 % 2)
            assert fast.known(jobs, nodes, pace, policy, place) is not None
            same(
                fast.play(jobs, nodes, pace, policy, place, rules), world.play(jobs, nodes, pace, policy, place, rules)
            )


def test_compiled_and_plain_loop_are_equal_to_the_bit(monkeypatch):
    found = []
    for module in (kernel, plain()):
        monkeypatch.setattr(fast, "kernel", module)
        for policy in POLICIES:
            jobs, nodes, pace = draw(3)
            run = fast.play(jobs, nodes, pace, policy, BestFit(), Rules(restart=20.0))
            found.append((policy.kind, run.finish.tobytes(), run.node.tobytes(), run.begin.tobytes()))
    half = len(found) // 2
    assert found[:half] == found[half:]
