"""Fitting recovers factors from times made with them (synthetic), and keeps what no row speaks of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.fit import fit, join, take
from fleetcast.cost.training.groups import distinct
from fleetcast.cost.training.network import Job, of
from fleetcast.cost.training.plans import Plans, plans
from fleetcast.cost.training.step import Parts, parts, settle
from fleetcast.cost.training.system import Practice
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog

TRUE = Practice(gemm=1.3, attention=1.5, vector=0.8, tensor=1.7, data=1.4, kernel=2e-5)
PRIOR = Practice(kernel=1e-5)
NAMES = ("gemm", "attention", "vector", "tensor", "data", "kernel")


def table() -> tuple[Parts, Plans]:
    rng = np.random.default_rng(5)
    rows = []
    for name, batch in (("megatron-1.7b", 256), ("megatron-3.6b", 512), ("megatron-18.4b", 512)):
        system = systems.of(resolve(Fleet(devices="64x a100-80g-sxm")).groups[0], practice=PRIOR)
        tensor = rng.choice([1, 2, 4, 8], 40)
        table = plans(
            tensor=tensor, data=64 // tensor, micro_batch=rng.choice([1, 2, 4], 40), recompute="full", fused=0
        )
        rows.append((parts(of(catalog.model(name)), Job(2048, batch), table, system), table))
    return join(rows)


def test_a_fit_recovers_the_factors_that_made_the_times() -> None:
    rows, plan = table()
    exact = settle(rows, plan, TRUE)["total"]
    found = fit(rows, plan, exact, PRIOR, NAMES, weight=1e-6)
    for name in NAMES:
        assert getattr(found.practice, name) == pytest.approx(getattr(TRUE, name), rel=0.01), name
    noisy = exact * np.exp(np.random.default_rng(1).normal(0, 0.03, len(exact)))
    found = fit(rows, plan, noisy, PRIOR, NAMES, weight=1e-6)
    assert found.practice.spread == pytest.approx(0.03, rel=0.3)
    assert found.practice.gemm == pytest.approx(1.3, rel=0.05)
    inside = [found.interval[n][0] <= getattr(TRUE, n) <= found.interval[n][1] for n in NAMES]
    assert sum(inside) >= 5


def test_a_few_rows_move_what_they_speak_of_and_leave_the_rest() -> None:
    rows, plan = table()
    few = take(rows, plan, np.arange(6))
    times = settle(*few, TRUE)["total"]
    found = fit(*few, times, PRIOR)
    assert np.abs(found.residual).mean() < 0.03
    assert found.practice.pipeline == pytest.approx(PRIOR.pipeline, rel=1e-3)  # no row has a pipeline
    before = np.abs(settle(*few, PRIOR)["total"] / times - 1).mean()
    assert np.abs(found.residual).mean() < before / 3


def test_one_broken_row_does_not_carry_the_fit_away() -> None:
    rows, plan = table()
    exact = settle(rows, plan, TRUE)["total"]
    broken = exact.copy()
    broken[0] *= 3
    found = fit(rows, plan, broken, PRIOR, NAMES, weight=1e-6)
    assert found.practice.gemm == pytest.approx(1.3, rel=0.05)


def test_a_machine_that_is_slower_in_everything_is_slower_in_everything() -> None:
    rows, plan = table()
    few = take(rows, plan, np.arange(0, 120, 30))
    times = 3.0 * settle(*few, PRIOR)["total"]
    found = fit(*few, times, PRIOR, alike=True)
    assert np.abs(found.residual).max() < 0.02
    assert found.practice.gemm == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("times", [[], [0.0], [-1.0]])
def test_times_that_cannot_be_are_refused(times: list[float]) -> None:
    rows, plan = table()
    with pytest.raises(ValueError, match="measured iteration"):
        fit(*take(rows, plan, np.arange(len(times))), times, PRIOR)
    with pytest.raises(ValueError, match="nothing to join"):
        join([])


def test_distinct_rows_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for large in (3, 50, 1 << 21):
        columns = [rng.integers(0, large, 500).astype(np.int32) for _ in range(4)]
        first, inverse = distinct(columns)
        stacked = np.stack(columns, axis=1)
        assert np.array_equal(stacked[first][inverse], stacked)
        assert len(first) == len(np.unique(stacked, axis=0))


def test_plans_say_what_they_do_not_have() -> None:
    with pytest.raises(TypeError, match="no tensor_parallel"):
        plans(tensor_parallel=2)
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        plans(tensor=np.array([1, 2]), data=np.array([1, 2, 3]))
    table = plans(tensor=np.array([1, 2]), overlap=("data", "tensor"), offload=("optimizer",), schedule="zero-bubble")
    assert len(table) == 2
    assert table.overlaps("data").all()
    assert not table.overlaps("pipeline").any()
    assert table.offloads("optimizer").all()
    assert table.expert_tensor.tolist() == [1, 2]
    assert replace(table).take([1]).tensor.tolist() == [2]
