"""Sizing pools: equal to trying every size at every load on small fleets; the race is equal to full bisections."""

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import Scenario, load
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.search.capacity import bisect_rate
from fleetcast.search.parallelism import search
from fleetcast.search.pools import best_pools, shapes
from fleetcast.search.sizes import maximal, race
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

BATCH = {"kind": "chunked", "chunk": 2048, "max_batch": 64}


def scenario(plan: dict[str, Any] | None = None, slo: dict[str, Any] | None = None, **fleet: Any) -> Scenario:
    layout = {"tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    return load({
        "fleet": {"devices": "6x l40s + 3x h100-sxm", "price": {"l40s": 1.0, "h100-sxm": 3.0}} | fleet,
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": "6 /s", "requests": 200},
            "lengths": {"kind": "lognormal", "prompt": 900, "output": 60, "prompt_p90": 2000, "output_p90": 120},
        },
        "slo": {"ttft_p99": "1.5 s", "tpot_p90": "45 ms"} if slo is None else slo, "plan": layout | (plan or {}),
    })  # fmt: skip


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(0, 30), st.integers(0, 2),
)  # fmt: skip
def test_maximal_sizes_by_brute_force(most: list[int], price: list[int], budget: int, gap: int) -> None:
    options = [[n for n in range(1, m + 1) if n == 1 or (n + gap) % (gap + 1) == 0] for m in most]

    def fits(sizes: tuple[int, ...]) -> bool:
        return sum(n * p for n, p in zip(sizes, price, strict=False)) <= budget

    every = [s for s in itertools.product(*options) if fits(s)]

    def above(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    found, total = maximal(options, fits)
    assert found == [s for s in every if not any(above(t, s) for t in every)]
    assert total == len(every)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12), st.sampled_from([0.02, 0.3]))
def test_a_race_is_the_best_of_full_bisections(most: list[float], tolerance: float) -> None:
    """Each design holds loads up to a number of its own."""
    asked: list[tuple[int, float]] = []

    def holds(design: int, load_: float) -> bool:
        asked.append((design, load_))
        return load_ <= most[design]

    found = race(range(len(most)), holds, bisect_rate(tolerance))
    trials = len(asked)
    each = [bisect_rate(tolerance)(lambda f, i=i: holds(i, f)) for i in range(len(most))]
    best = max(low or 0.0 for low, _ in each)
    assert found.held == best and found.design is not None
    assert (found.held, found.missed) == each[found.design]
    assert trials <= len(asked) - trials  # never more trials than bisecting every one of them


def test_a_race_continues_from_a_winner_and_ends_at_one_that_holds_everything() -> None:
    def holds(design: float, load_: float) -> bool:
        return load_ <= design

    first = race([2.0], holds, bisect_rate(0.02))
    assert race([1.0, 1.9], holds, bisect_rate(0.02), first).design == 2.0
    more = race([1.0, 3.0], holds, bisect_rate(0.02), first)
    assert more.design == 3.0 and more.tried == 3
    assert race([float("inf"), 5.0], holds, bisect_rate(0.02)).missed is None
    none = race([0.0, 0.0], holds, bisect_rate(0.02))
    assert none.design is None and none.held == 0.0


def brute(table: Scenario, equal: tuple[str, ...], tolerance: float) -> tuple[float, dict[str, float]]:
    """The largest factor of every size of one pool or of two, each bisected by plain simulation."""
    state = setting(table)
    groups = {g.name: g for g in state.tree.groups}
    fixed = {"tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    cells = {
        (role, name): Pool(role=role, on=name, replicas=1, **fixed)
        for role in ("all", "prefill", "decode") for name in groups
    }  # fmt: skip
    sets = [[("all", k)] for k in groups] + [[("all", k) for k in groups]]
    sets += [[("prefill", a), ("decode", b)] for a in groups for b in groups]
    found, alone = 0.0, dict.fromkeys(groups, 0.0)
    free = replace(state, tree=replace(state.tree, budget=None, spend=None))
    for chosen in sets:
        for sizes in itertools.product(*(range(1, groups[k].count + 1) for _, k in chosen)):
            taken = {k: sum(n for (_, on), n in zip(chosen, sizes, strict=True) if on == k) for k in groups}
            power = sum(n * groups[k].device.power.max for k, n in taken.items())
            price = sum(n * (groups[k].price or 0.0) for k, n in taken.items())
            over = ("power" in equal and power > (state.tree.budget or 0)) or (
                "cost" in equal and price > (state.tree.spend or 0)
            )
            if over or any(n > groups[k].count for k, n in taken.items()):
                continue
            pools = [
                Pool(**{f: getattr(cells[c], f) for f in Pool.__struct_fields__} | {"replicas": n})
                for c, n in zip(chosen, sizes, strict=True)
            ]
            plan = complete(free, Plan(pools=tuple(pools)))

            def met(factor: float, plan: Plan = plan) -> bool:
                there = replace(free, requests=free.requests.speed_up(factor))
                return bool(simulate(there, plan).slo["met"])

            held = bisect_rate(tolerance)(met)[0] or 0.0
            found = max(found, held)
            if len(chosen) == 1:
                alone[chosen[0][1]] = max(alone[chosen[0][1]], held)
    return found, alone


@pytest.mark.parametrize(
    "fleet",
    [
        {"budget": "1.5 kW", "spend": "6 $/h"}, {"budget": "2.2 kW"}, {"spend": "7 $/h", "devices": "4x l40s + 2x l4"},
    ],
)  # fmt: skip
def test_sizing_equals_trying_every_size(fleet: dict[str, Any]) -> None:
    if "devices" in fleet:
        fleet = fleet | {"price": {"l40s": 1.5, "l4": 0.7}}
    table = scenario(**fleet)
    sizing = best_pools(table, tolerance=0.1)
    given_ = [name for name, key in (("power", "budget"), ("cost", "spend")) if key in fleet]
    assert [row.equal for row in sizing.rows] == [(n,) for n in given_] + ([tuple(given_)] if len(given_) > 1 else [])
    for row in sizing.rows:
        best, alone = brute(table, row.equal, 0.1)
        assert row.best is not None and row.best.factor == best
        assert {k: h.factor if h is not None else 0.0 for k, h in row.nulls.items()} == alone
        assert row.together is not None and row.best.factor >= row.together.factor >= max(alone.values())
        assert row.null is not None and row.best.factor >= row.null.factor == max(alone.values())
        assert row.counts["full"] < row.counts["enumerated"]


def test_what_is_held_stays_within_the_limits_and_is_simulated_again() -> None:
    table = scenario(budget="1.5 kW", spend="6 $/h")
    for row in best_pools(table, tolerance=0.1).rows:
        held = row.best
        assert held is not None
        if "power" in row.equal:
            assert held.taken.power <= 1500
        if "cost" in row.equal:
            assert held.taken.price <= 6
        assert held.outcome.slo["met"] and held.missed is not None and held.factor < held.missed
        assert held.rate == pytest.approx(6 * held.factor, rel=0.2)
    assert json.loads(json.dumps(best_pools(table, tolerance=0.1).table()))["equal"][0]["best"]["plan"]


def test_both_limits_hold_no_more_than_either() -> None:
    power, cost, both = best_pools(scenario(budget="1.5 kW", spend="6 $/h"), tolerance=0.05).rows
    assert power.best and cost.best and both.best
    assert both.best.factor <= min(power.best.factor, cost.best.factor)


def test_a_written_out_set_of_pools_keeps_its_shape() -> None:
    rows = [
        {"role": role, "on": on, "tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
        for role, on in (("prefill", "l40s"), ("decode", "h100-sxm"), ("all", "l40s"))
    ]
    table = scenario(budget="2.5 kW")
    table = load(table.table() | {"plan": {"pools": rows}})
    (row,) = best_pools(table, tolerance=0.1).rows
    found, _ = shapes(setting(table))
    assert [len(s.servers) for s in found if not s.one_kind] == [3]
    assert row.best is not None
    assert len(row.best.outcome.plan.get("pools", [0])) in (1, 3)
    assert set(row.nulls) == {"l40s", "h100-sxm"}


def test_listed_replicas_are_the_only_sizes() -> None:
    (row,) = best_pools(scenario({"replicas": [1, 2], "phases": "together"}, budget="9 kW"), tolerance=0.1).rows
    assert row.best is not None
    pools = row.best.outcome.plan.get("pools", [row.best.outcome.plan])
    assert {p["replicas"] for p in pools} <= {1, 2}


def test_short_traffic_is_called_doubtful() -> None:
    sizing = best_pools(scenario(budget="9 kW"), tolerance=0.1)
    assert any("give more requests" in note for note in sizing.notes)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: scenario(), r"fleet\.budget: is missing, and so is fleet\.spend.*200 kW.*500 \$/h"),
        (lambda: scenario(budget="2 kW", slo={}), "slo: is empty"),
        (lambda: scenario({"power": "polca"}, budget="2 kW"), r"plan\.power: does not go with pools.*--of servers"),
        (lambda: scenario({"replicas": 0}, budget="2 kW"), r"plan\.replicas: is out of range"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(table: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        best_pools(table())


@pytest.mark.parametrize("few", [True, False])
def test_a_search_under_a_budget_offers_kinds_side_by_side(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a budget the kinds are filled; with one every size is a plan, of many those with no room for more."""
    if not few:
        monkeypatch.setattr("fleetcast.search.space.JOINT", 4)
    goal = load(scenario({"phases": "together"}, budget="1.75 kW").table() | {"objective": {"minimize": "latency"}})
    state = setting(goal)
    ranking = search(state, top=None, exhaustive=True)
    mixed = [o.plan["pools"] for o in ranking.plans + ranking.misses if "pools" in o.plan]
    sizes = {tuple(p["replicas"] for p in pools) for pools in mixed}
    power = np.array([g.device.power.max for g in state.tree.groups])
    every = [s for s in itertools.product(range(1, 7), range(1, 4)) if np.dot(s, power) <= 1750]
    full = {s for s in every if not any(t != s and t[0] >= s[0] and t[1] >= s[1] for t in every)}
    assert sizes and sizes <= (set(every) if few else full)
    assert len(sizes) > len(full) if few else len(sizes) <= len(full)
    pruned = search(state)
    assert pruned.best is not None and ranking.best is not None
    assert pruned.best.metrics == ranking.best.metrics
    c = pruned.counts
    assert c["over_budget"] > 0
    assert c["memory_feasible"] == c["over_budget"] + c["bounded"] + c["deduplicated"] + c["simulated"]
    assert any(row["constraint"] == "power of all servers" and row["unit"] == "W" for row in pruned.rejected)


def test_capacity_stays_within_the_budget() -> None:
    small = fleetcast.max_rate(scenario({"phases": "together"}, spend="2 $/h"), tolerance=0.1)
    large = fleetcast.max_rate(scenario({"phases": "together"}, spend="6 $/h"), tolerance=0.1)
    assert 0 < small.factor < large.factor
