"""The space holds what it says: counted by brute force, cut by what [plan] fixes, bounded in size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import load
from fleetcast.search.candidates import fit
from fleetcast.search.layouts import places
from fleetcast.search.space import enumerate_space, spaces
from fleetcast.search.variants import CHUNKS, MAX_BATCHES, batches
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting


def state(devices: str = "8x h100-sxm", model: str = "llama-3.1-70b", **plan: Any) -> Setting:
    table: dict[str, Any] = {
        "fleet": {"devices": devices},
        "workload": {
            "model": model, "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 20},
            "lengths": {"kind": "fixed", "prompt": 512, "output": 64},
        },
        "plan": plan,
    }  # fmt: skip
    return setting(load(table))


def test_dense_space_is_every_divisor_layout() -> None:
    space = enumerate_space(state())
    found = {tuple(int(x) for x in row.tolist()[2:]) for row in space.rows}
    expected = {
        (r, tp, pp, 1, 1)
        for tp in (1, 2, 4, 8) for pp in range(1, 9) for r in range(1, 9) if r * tp * pp <= 8
    }  # fmt: skip
    assert found == expected
    assert len(space.variants[0]) == sum(c >= b for c in CHUNKS for b in MAX_BATCHES)
    assert [family for family, _ in space.misfits] == ["TP3, TP5, TP6, TP7 on h100-sxm"]
    assert fit(state(), space).enumerated == len(expected) * 8


def test_expert_space_is_every_mesh() -> None:
    space = enumerate_space(state("4x h100-sxm", "mixtral-8x7b"))
    found = {tuple(int(x) for x in row.tolist()[2:]) for row in space.rows}
    expected = {
        (r, tp, pp, ep, adp)
        for tp in (1, 2, 4) for pp in range(1, 5) for adp in range(1, 5) for ep in (1, 2, 4, 8) for r in range(1, 5)
        if r * tp * pp * adp <= 4 and (tp * adp) % ep == 0 and 14336 % (tp * adp // ep) == 0
    }  # fmt: skip
    assert found == expected


def test_fixed_is_not_searched_and_a_list_is() -> None:
    space = enumerate_space(state(
        tensor_parallel=[2, 4], pipeline_parallel=1, replicas=1, kv_dtype=["bf16", "fp8"], engine="vllm-0.6",
        batch={"kind": "chunked", "chunk": [512, 2048]},
    ))  # fmt: skip
    assert {(int(r["tp"]), int(r["pp"]), int(r["replicas"])) for r in space.rows} == {(2, 1, 1), (4, 1, 1)}
    variants = space.variants[0]
    assert {v["kv_dtype"] for v in variants} == {"bf16", "fp8"}
    assert {v["batch"]["chunk"] for v in variants} == {512, 2048}
    assert {v["batch"]["max_batch"] for v in variants} == set(MAX_BATCHES)
    assert {v["engine"] for v in variants} == {"vllm-0.6"}


def test_clocks_and_orders_are_listed() -> None:
    space = enumerate_space(state(
        clock=[0.7, 1.0], batch={"kind": "chunked", "chunk": 512, "max_batch": 64},
        order=[{"kind": "fifo"}, {"kind": "shortest_prompt"}],
    ))  # fmt: skip
    assert {(v["clock"], v["order"]["kind"]) for v in space.variants[0]} == {
        (c, o) for c in (0.7, 1.0) for o in ("fifo", "shortest_prompt")
    }


def test_every_candidate_is_a_complete_plan() -> None:
    here = state("2x l40s + 2x a100-80g-sxm", "llama-3.1-8b")
    fitted = fit(here, enumerate_space(here))
    sizes = {len(c.plan.pools) for c in fitted.candidates}
    assert sizes == {1, 2}
    for c in fitted.candidates:
        assert complete(here, c.plan) == c.plan
        assert c.devices == sum(p.devices() for p in c.plan.pools) <= 4


def test_joint_plans_fill_their_groups() -> None:
    here = state("4x l40s + 4x a100-80g-sxm", "llama-3.1-8b")
    fitted = fit(here, enumerate_space(here))
    for c in (c for c in fitted.candidates if len(c.plan.pools) == 2):
        assert c.plan.pools[0].batch == c.plan.pools[1].batch
        for pool in c.plan.pools:
            one = pool.devices() // pool.replicas
            assert pool.devices() + one > 4
    assert any("several groups at once" in line for line in fitted.lines)


def test_pools_written_out_are_combined() -> None:
    pools = [
        {"on": "h100-sxm", "tensor_parallel": [1, 4], "pipeline_parallel": 1, "replicas": 1},
        {"on": "a100-80g-sxm", "tensor_parallel": 4, "pipeline_parallel": 1},
    ]
    batch = {"kind": "chunked", "chunk": 512, "max_batch": 64}
    here = state("4x h100-sxm + 8x a100-80g-sxm", pools=[p | {"batch": batch} for p in pools])
    fitted = fit(here, enumerate_space(here))
    labels = {c.plan.label() for c in fitted.candidates}
    assert labels == {f"1x TP4 on h100-sxm + {r}x TP4 on a100-80g-sxm" for r in (1, 2)}
    assert [r["family"] for r in fitted.rejected] == ["TP1 PP1 on h100-sxm"]
    assert fitted.enumerated == 4


@given(count=st.integers(1, 40), node=st.integers(1, 9), span=st.integers(1, 40))
def test_places_by_laying_them_out(count: int, node: int, span: int) -> None:
    from fleetcast.scenario.fleet.catalog import device, link
    from fleetcast.scenario.fleet.tree import Group

    node = min(node, count)
    d = device("h100-sxm")
    group = Group("g", d, count, node, link(d.link), link(d.network), ("g",), 1.0, 700.0)
    found = int(places(group, np.array([span]))[0])
    assert 0 <= found * span <= count
    if span <= node:
        nodes = [min(node, count - i) for i in range(0, count, node)]
        assert found == sum(n // span for n in nodes)
    else:
        assert (found >= 1) == (span <= count)


def test_rejections_say_what_binds() -> None:
    here = state()
    rejected = {r["family"]: r for r in fit(here, enumerate_space(here)).rejected}
    row = rejected["TP1 PP1 on h100-sxm"]
    assert row["constraint"].startswith("memory") and row["need"] > row["have"] > 60e9 and row["unit"] == "B"


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (None, 8), ("static", 3), ({"chunk": 512}, 2), ([{"kind": "orca", "max_batch": 8}, "chunked"], 9),
        ({"kind": "chunked", "chunk": 2048, "max_batch": 256}, 1),
    ],
)  # fmt: skip
def test_batches(asked: Any, count: int) -> None:
    found = batches(asked, {"kind": "chunked", "chunk": 8192, "max_batch": 1024})
    assert len(found) == count
    assert len({tuple(sorted(t.items())) for t in found}) == count


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"plan\.batch.*chunk must be at least max_batch"):
        batches({"kind": "chunked", "chunk": 32}, {"kind": "chunked"})


def test_a_huge_fleet_is_searched_in_steps_or_refused() -> None:
    space = enumerate_space(state("4096x h100-sxm", tensor_parallel=8, pipeline_parallel=1))
    replicas = np.sort(space.rows["replicas"])
    assert replicas[-1] == 512
    assert np.isin(np.arange(1, 65), replicas).all()
    assert (np.diff(replicas)[64:] / replicas[64:-1]).max() <= 1 / 32 + 1e-12
    with pytest.raises(SpecError, match="plans open"):
        enumerate_space(state("1000000x h100-sxm"))


def test_the_space_in_words() -> None:
    batch = {"kind": "chunked", "chunk": [512, 2048], "max_batch": 64}
    fixed = {"replicas": 1, "tensor_parallel": 2, "pipeline_parallel": 1}

    def lines(plan: dict[str, Any]) -> tuple[str, ...]:
        return enumerate_space(state("2x l40s", "llama-3.1-8b", **plan)).lines

    assert lines(fixed | {"batch": batch | {"chunk": 512}}) == (
        "one layout on 2 x l40s (replicas 1; tensor_parallel 2; pipeline_parallel 1); "
        "the batch policy chunked (chunk 512; max_batch 64)",
    )
    assert lines({"replicas": 1, "dtype": ["bf16", "fp8"], "batch": batch}) == (
        "every TP x PP x EP x attention-DP on 1 to all of 2 x l40s (replicas 1; dtype bf16, fp8); "
        "2 batch policies: chunked (chunk 512, 2048; max_batch 64), 2 variants of the other choices",
    )


def test_a_power_policy_that_cannot_be_is_refused_by_the_search_too() -> None:
    with pytest.raises(SpecError, match=r"plan\.power"):
        spaces(state(power={"kind": "polca", "lower": 0.9, "upper": 0.8}))
