"""Draft pools: the shorthand's equal, costs by hand, nothing lost between pools, one world, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.base.spec import build
from fleetcast.cost.drafted import exchange, with_drafts
from fleetcast.policy import route, speculate
from fleetcast.scenario.drafts import Drafting
from fleetcast.scenario.fleet.catalog import link
from fleetcast.scenario.load import load
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.search.capacity import devices_needed
from fleetcast.search.parallelism import search
from fleetcast.sim.serving import account, reference, world
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.drafting import process_of
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate
from fleetcast.view.checks import remarks
from fleetcast.view.choices import drafts_brief
from fleetcast.view.exports import export
from fleetcast.view.words import policy_name
from tests.sim.worlds import step_cost

GROUPS = [{"name": "big", "devices": "8x h100-sxm"}, {"name": "small", "devices": "8x l4"}]
FIXED = {"kind": "fixed", "length": 4, "acceptance": 0.7}
TARGET = {"on": "big", "replicas": 1, "tensor_parallel": 4, "pipeline_parallel": 1}
DRAFT = {"role": "draft", "on": "small", "model": "llama-3.2-1b", "tensor_parallel": 1}


def state_of(*pools: Any, users: int = 8, network: str = "ethernet-100g", output: int = 128, **more: Any) -> Setting:
    return setting(load({
        "fleet": {"groups": GROUPS, "network": network},
        "workload": {
            "model": "llama-3.1-70b", "arrivals": {"kind": "closed", "concurrency": users, "requests": 3 * users},
            "lengths": {"kind": "fixed", "prompt": 512, "output": output},
        },
        "plan": {"pools": list(pools)},
    } | more))  # fmt: skip


def run(*pools: Any, **options: Any) -> tuple[Setting, Plan, Any]:
    state = state_of(*pools, **options)
    plan = complete(state, state.scenario.plan)
    return state, plan, simulate(state, plan)


@pytest.mark.parametrize("users", [1, 2, 32])
def test_pipelined_is_short_for_a_pool_in_the_same_group(users: int) -> None:
    said = FIXED | {"drafters": 3}
    _, short, one = run(TARGET | {"speculate": said | {"model": "llama-3.2-1b", "pipelined": True}}, users=users)
    _, long, other = run(TARGET | {"speculate": said}, DRAFT | {"on": "big", "replicas": 3}, users=users)
    assert one.metrics == other.metrics and one.breakdown == other.breakdown and one.resources == other.resources
    assert short.label() == "1x TP4 +3 drafting on big" and long.label() == "1x TP4 on big + draft 3x TP1 on big"
    assert short.devices() == long.devices() == one.metrics["devices"] == 7


def test_a_plan_reads_back_as_it_was_and_does_the_same() -> None:
    state, plan, outcome = run(DRAFT | {"dtype": "fp8", "clock": 0.8}, TARGET | {"speculate": FIXED})
    again = read_plan(plan.table())
    assert again == plan and again.draft is not None and again.draft.replicas == 1
    assert again.serving[0].speculate["model"] == "llama-3.2-1b"
    assert complete(state, again) == plan and simulate(state, again).metrics == outcome.metrics
    assert plan.label() == "draft 1x TP1 at 80% clock on small + 1x TP4 on big"
    assert drafts_brief(outcome.plan) == "fixed 4 by llama-3.2-1b at 0.7, apart"
    assert "default" not in policy_name(outcome.plan)


def test_drafts_of_another_kind_of_device_cost_what_a_hand_adds_up() -> None:
    state, plan, outcome = run(TARGET | {"speculate": FIXED}, DRAFT)
    server = state.servers(plan)[0]
    plain = state_of(TARGET)
    table = plain.server(complete(plain, plain.scenario.plan).pools[0]).cost.tables
    alone = state_of(DRAFT | {"role": "all", "model": "llama-3.2-1b", "replicas": 1, "pipeline_parallel": 1})
    small = alone.server(complete(alone, alone.scenario.plan).pools[0]).cost.tables
    wire, found = link("ethernet-100g"), server.cost.tables

    def check(n: float) -> float:
        at = int(5 * n)
        return float(table["dense"][at] + table["head"][at] + table["base"][int(n)])

    def draft(n: int) -> float:  # four passes, ids there and back: four drafted tokens, five of the target's at most
        sent = 2 * wire.latency + n * (4 + 5) * 4.0 / wire.bandwidth
        return float(4 * (small["dense"][n] + small["head"][n] + small["base"][n]) + sent)

    assert found["base"][1] - table["base"][1] == pytest.approx(draft(1), rel=1e-9)
    assert found["slope"][1] == pytest.approx(table["slope"][1] + 4 * small["slope"][1], rel=1e-9)
    for n in (2, 16, 64):
        assert draft(n // 2) > check(n / 2)  # an L4 is the slower of the two
        round_ = min(2 * draft(n // 2), check(n) + draft(n))
        assert found["base"][n] == pytest.approx(round_ - check(n) + table["base"][n], rel=1e-9)
        if round_ == 2 * draft(n // 2):
            assert found["slope"][n] == pytest.approx(4 * small["slope"][n], rel=1e-6)  # it hides the target's reads
    assert any("llama-3.2-1b on small drafts over ethernet-100g: token ids alone, 60 us" in n for n in outcome.notes)


def test_a_cheaper_kind_of_device_is_slower_and_cheaper_and_neither_is_free() -> None:
    apart = {kind: run(TARGET | {"speculate": FIXED}, DRAFT | {"on": kind})[2].metrics for kind in ("big", "small")}
    none = run(TARGET)[2].metrics
    assert apart["big"]["throughput"] > apart["small"]["throughput"] and apart["big"]["throughput"] > none["throughput"]
    per_hour = {kind: m["cost"] / m["makespan"] * 3600 for kind, m in apart.items()}
    assert per_hour["big"] == pytest.approx(5 * 2.95) and per_hour["small"] == pytest.approx(4 * 2.95 + 0.8)


@pytest.mark.parametrize("drafters", [1, 3])
def test_devices_money_and_energy_are_the_sums_over_pools(drafters: int) -> None:
    state, plan, outcome = run(
        TARGET | {"replicas": 2, "speculate": FIXED | {"drafters": drafters}}, DRAFT | {"tensor_parallel": 1}
    )
    metrics, span, count = outcome.metrics, outcome.metrics["makespan"], 2 * drafters
    assert plan.draft is not None and plan.draft.replicas == count
    assert sum(row["devices"] for row in outcome.resources) == plan.devices() == metrics["devices"] == 8 + count
    by_kind = {kind: sum(r["devices"] for r in outcome.resources if r["device"] == kind) for kind in ("h100-sxm", "l4")}
    assert by_kind == {"h100-sxm": 8, "l4": count}
    big, small = state.tree.groups
    assert metrics["cost"] == pytest.approx((8 * big.price + count * small.price) * span / 3600)
    terms = outcome.breakdown["energy"]
    idle = (8 * big.device.power.idle + count * small.device.power.idle) * span
    assert terms["idle"] == pytest.approx(idle) and sum(terms.values()) == pytest.approx(metrics["energy"])
    # the drafters' share is what is left when the targets are taken alone, and they draw at most their boards' limit
    servers = [s for s in state.servers(plan) for _ in range(2)]
    done = world._run_kernel(state, servers, build(route, plan.route, "plan.route"), record=False, by_step=False)
    calls = [account.work_done(s.cost, r, 1000, 10) for s, r in zip(servers, done.reports, strict=True)]
    both = account.energy_terms(servers, calls, span, 1.0)
    alone = account.energy_terms([replace(s, drafters=None) for s in servers], calls, span, 1.0)
    drawn = sum(both.values()) - sum(alone.values())
    assert count * small.device.power.idle * span < drawn < count * small.limit * span


def test_time_by_term_adds_up_and_the_wait_for_drafts_is_told() -> None:
    _, _, outcome = run(TARGET | {"speculate": FIXED}, DRAFT)
    terms = outcome.breakdown["time"]
    assert sum(terms.values()) == pytest.approx(outcome.metrics["makespan"], rel=1e-6)
    drafters = next(row for row in outcome.resources if row["device"] == "l4")
    assert 0 < drafters["drafting"] < 1 and terms["draft"] > 0
    table, apart = outcome.resources
    assert table["name"] == "replica 0" and apart["name"] == "drafters of replica 0" and "busy" not in apart


@pytest.mark.parametrize("users", [3, 40])
def test_the_compiled_loop_and_the_stepwise_world_agree(users: int) -> None:
    state, plan, fast = run(TARGET | {"replicas": 2, "speculate": FIXED | {"drafters": 2}}, DRAFT, users=users)
    servers = [s for s in state.servers(plan) for _ in range(2)]
    slow = reference.run(state, servers, build(route, plan.route, "plan.route"), record=False, by_step=True)
    np.testing.assert_allclose(fast.requests.e2e - fast.requests.ttft, slow.finish - slow.first, rtol=1e-9)
    stepped = simulate(state, plan, by_step=True)
    assert stepped.metrics["energy"] == pytest.approx(fast.metrics["energy"], rel=1e-9)
    for key in ("busy", "drafting"):
        one, other = ([r[key] for r in outcome.resources if key in r] for outcome in (stepped, fast))
        assert one == pytest.approx(other, rel=1e-9) and len(one) == 2


def test_a_decode_pool_is_drafted_for_and_the_prefill_pool_is_not() -> None:
    pools = (TARGET | {"role": "prefill"}, TARGET | {"role": "decode", "speculate": FIXED}, DRAFT)
    state, plan, outcome = run(*pools)
    assert [s.drafters is None for s in state.servers(plan)] == [True, False]
    assert outcome.metrics["devices"] == 9 and plan.route == {"kind": "split_phases"} | dict(plan.route)


def test_a_slower_link_never_helps_and_an_instant_one_adds_nothing() -> None:
    rates = [
        run(TARGET | {"speculate": FIXED}, DRAFT, users=1, network=name)[2].metrics["throughput"]
        for name in ("infiniband-ndr", "ethernet-100g", "ethernet-1g", "wan-1g")
    ]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.7 * rates[0]
    process, n = process_of(speculate.Fixed(length=4), 0.7, Drafting()), np.arange(5.0)
    assert (exchange(process, (), n) == 0).all()
    wire = link("ethernet-1g")
    assert exchange(process, (wire, wire), n)[3] == pytest.approx(4 * wire.latency + 3 * 9 * 4 / wire.bandwidth)


@given(
    length=st.integers(1, 8), slow=st.floats(0.01, 3.0), reads=st.floats(0.0, 30.0), room=st.integers(1, 4000),
    wide=st.booleans(),
)  # fmt: skip
def test_a_round_is_charged_no_less_than_the_longer_of_its_sides(
    length: int, slow: float, reads: float, room: int, wide: bool
) -> None:
    cost, drafter = step_cost(capacity=room), step_cost()
    scaled = {k: v * (reads if k == "slope" else slow) for k, v in drafter.tables.items()}
    process = process_of(speculate.Fixed(length=length), 0.7, Drafting())
    links = (link("ethernet-10g"),) if wide else ()
    made = with_drafts(cost, process, replace(drafter, tables=scaled), links)
    t, n = cost.tables, np.arange(len(cost.tables["base"]), dtype=float)
    work = t["dense"] + t["experts"] + t["head"]
    passes = np.array([length * (scaled["dense"] + scaled["head"])[k] for k in range(1025)])
    sent = exchange(process, links, n)
    for k in (2, 8, 64):
        for context in (0.0, room * 4.0, room * 8.0, room * 16.0):
            half = k // 2

            def check(m: int) -> float:
                return float(np.interp(m * (length + 1), np.arange(1025), work[:1025]) + t["base"][m])

            def draft(m: int) -> float:
                return float(passes[m] + length * scaled["base"][m] + sent[m])

            own, theirs = t["slope"][k] * context, length * scaled["slope"][k] * context
            turns = max(2 * check(half) + own, 2 * draft(half) + theirs, check(k) + own)
            alone = check(k) + draft(k) + own + theirs
            charged = check(k) - t["base"][k] + made.tables["base"][k] + made.tables["slope"][k] * context
            assert charged >= min(turns, alone) * (1 - 1e-9)
            assert charged <= alone * (1 + 1e-9) + 1e-12 or charged == pytest.approx(turns, rel=1e-9)
            if context in (0.0, room * 16.0):
                assert charged == pytest.approx(turns, rel=1e-9) or charged == pytest.approx(alone, rel=1e-9)


def test_a_slow_drafter_holds_prompts_up_and_a_quick_one_does_not() -> None:
    process = process_of(speculate.Fixed(length=2), 0.7, Drafting())
    cost, drafter = step_cost(), step_cost()
    quick = with_drafts(cost, process, drafter, ())
    assert {k: quick.scalars[k] for k in ("pre_base", "pre_pair", "pre_query")} == {
        k: cost.scalars[k] for k in ("pre_base", "pre_pair", "pre_query")
    }
    slow = replace(drafter, tables={k: 3.0 * v for k, v in drafter.tables.items()})
    per_token = 2.0 * 2e-5  # three times the 20 us that the target takes, less those
    held = with_drafts(cost, process, slow, ()).scalars
    assert held["pre_query"] - cost.scalars["pre_query"] == pytest.approx(per_token, rel=1e-9)


def test_each_lane_has_its_drafters_and_their_memory_binds_where_it_is_the_smaller() -> None:
    lanes = TARGET | {"tensor_parallel": 4, "attention_dp": 2, "speculate": FIXED | {"drafters": 2}}
    state = state_of(lanes, DRAFT)
    plan = complete(state, state.scenario.plan)
    assert plan.draft is not None and plan.draft.replicas == 4
    little = state_of(TARGET | {"speculate": FIXED}, DRAFT | {"model": "llama-3.1-8b", "kv_dtype": "bf16"})
    plain = state_of(TARGET)
    servers = [s.servers(complete(s, s.scenario.plan))[0] for s in (little, plain)]
    assert servers[0].drafters is not None and servers[0].drafters.room.tokens == servers[0].room.tokens
    assert servers[0].room.tokens < servers[1].room.tokens
    with pytest.raises(Infeasible, match="drafts on it"):
        run(TARGET | {"speculate": FIXED}, DRAFT | {"model": "llama-3.1-8b", "dtype": "fp32"})


def test_a_search_weighs_a_pool_on_each_group_and_none_at_all() -> None:
    pools = (
        TARGET
        | {
            "speculate": ["off", FIXED, FIXED | {"pipelined": False}],
            "batch": {"kind": "chunked", "chunk": 2048, "max_batch": 64},
        },
        {"role": "draft", "model": "llama-3.2-1b", "tensor_parallel": [1, 2]},
    )
    state = state_of(*pools, objective={"minimize": "latency"})
    ranking = search(state, top=None)
    labels = [f"{read_plan(dict(o.plan)).label()}, {drafts_brief(o.plan)}" for o in ranking.plans]
    said = "fixed 4 by llama-3.2-1b at 0.7"
    assert len(labels) == 6 and set(labels) == {
        "1x TP4 on big, off", f"1x TP4 on big, {said}", *(
            f"1x TP4 on big + draft 1x TP{t} on {g}, {said}, apart" for t in (1, 2) for g in ("big", "small")
        )
    }  # fmt: skip
    for outcome in ranking.plans:  # each is what it is when it is decided
        plan = read_plan(dict(outcome.plan))
        assert simulate(state, complete(state, plan)).metrics == outcome.metrics
    assert any(line.startswith("draft: every TP on 1 to all of") for line in ranking.space)


def test_a_search_over_counts_keeps_only_those_that_match() -> None:
    pools = (TARGET | {"replicas": [1, 2], "speculate": FIXED}, DRAFT | {"replicas": [2, 3]})
    ranking = search(state_of(*pools), top=None)
    assert {read_plan(dict(o.plan)).label() for o in ranking.plans} == {"2x TP4 on big + draft 2x TP1 on small"}
    none = search(state_of(TARGET | {"speculate": FIXED}, DRAFT | {"replicas": 3}), top=None)
    assert not none.plans and any("replicas of the draft pool" in row["constraint"] for row in none.rejected)
    many = TARGET | {"speculate": FIXED | {"drafters": 5}}, DRAFT | {"on": "big", "dtype": ["bf16", "fp8"]}
    for pools, why in (
        ((TARGET | {"speculate": FIXED}, DRAFT | {"replicas": [3, 4]}), "replicas of the draft pool, one for each"),
        (many, "devices of group 'big', drafters' among them, 9 of 8"),
    ):
        said = [r.text for r in remarks(state_of(*pools)) if r.level == "error"]
        assert any("nothing fits; nearest is the drafters" in text and why in text for text in said), said


def test_capacity_takes_the_draft_pool_along() -> None:
    state = state_of(TARGET | {"speculate": FIXED}, DRAFT, slo={"tpot_p99": "60 ms"})
    (need,) = devices_needed(state.scenario, ["h100-sxm"], most=8)
    assert need.devices == 5 and need.outcome is not None and "draft" in read_plan(dict(need.outcome.plan)).label()


@pytest.mark.parametrize("target", ["vllm", "sglang", "kubernetes"])
def test_no_export_pretends_to_run_one(target: str) -> None:
    for pools in (
        (TARGET | {"speculate": FIXED}, DRAFT),
        (TARGET | {"speculate": FIXED | {"model": "llama-3.2-1b", "pipelined": True}},),
    ):
        state = state_of(*pools)
        with pytest.raises(Unsupported, match="takes drafts from other devices"):
            export(state, complete(state, state.scenario.plan), target)


SAID = TARGET | {"speculate": FIXED}


@pytest.mark.parametrize(
    ("pools", "error", "message"),
    [
        ((TARGET, DRAFT), SpecError, r"plan\.pools\[1\]\.role: has no pool to draft for"),
        ((TARGET | {"speculate": "off"}, DRAFT), SpecError, r"pools\[1\]\.role: has no pool to draft for"),
        ((TARGET | {"speculate": {"kind": "ngram"}}, DRAFT), SpecError, "has no pool to draft for"),
        ((DRAFT,), SpecError, r"plan\.pools: only draft"),
        ((SAID, DRAFT, DRAFT), SpecError, r"plan\.pools: have several of the role 'draft'"),
        ((SAID, DRAFT | {"model": "llama-3.1-405b"}), SpecError, r"pools\[1\]\.model: is no smaller than the model"),
        ((SAID, DRAFT | {"model": "llama-2-7b"}), SpecError, r"pools\[1\]\.model: has another vocabulary"),
        ((SAID, DRAFT | {"model": "llama-9-1b"}), SpecError, r"pools\[1\]\.model"),
        ((SAID, {k: v for k, v in DRAFT.items() if k != "model"}), SpecError, r"pools\[1\]\.model: is missing"),
        ((SAID, DRAFT | {"speculate": FIXED}), SpecError, r"pools\[1\]\.speculate: has no meaning in a draft pool"),
        ((SAID, DRAFT | {"batch": "chunked"}), SpecError, r"pools\[1\]\.batch: has no meaning in a draft pool"),
        ((SAID, DRAFT | {"overlap": "nano"}), SpecError, r"pools\[1\]\.overlap: has no meaning in a draft pool"),
        ((SAID, DRAFT | {"pipeline_parallel": 2}), SpecError, r"pools\[1\]\.pipeline_parallel: is not modelled"),
        ((SAID, DRAFT | {"attention_dp": [1, 2]}), SpecError, r"pools\[1\]\.attention_dp: is not modelled"),
        ((SAID, DRAFT | {"tensor_parallel": 3}), Infeasible, "attention heads needs 3"),
        ((SAID, {k: v for k, v in DRAFT.items() if k != "tensor_parallel"}), SpecError, r"tensor_parallel: is missing"),
        ((SAID, DRAFT | {"tensor_parallel": [1, 2]}), SpecError, r"pools\[1\]\.tensor_parallel: is a list"),
        ((SAID, DRAFT | {"on": "medium"}), SpecError, r"plan\.pools\[1\]\.on: is not a group of the fleet"),
        (
            (TARGET | {"speculate": FIXED | {"drafters": 3}}, DRAFT | {"replicas": 2}), SpecError,
            r"pools\[1\]\.replicas: are fewer than draft \(got 2\); 3: a replica for each drafter",
        ),
        ((SAID, DRAFT | {"replicas": 2}), SpecError, r"pools\[1\]\.replicas: are more than draft"),
        ((TARGET | {"speculate": FIXED | {"drafters": 9}}, DRAFT), Infeasible, "devices of group 'small'"),
        (
            (TARGET | {"speculate": FIXED | {"model": "llama-3.1-8b"}}, DRAFT), SpecError,
            r"pools\[0\]\.speculate\.model: contradicts the draft pool",
        ),
        (
            (TARGET | {"speculate": FIXED | {"pipelined": True}}, DRAFT), SpecError,
            r"pools\[0\]\.speculate\.pipelined: stands beside a draft pool",
        ),
        ((TARGET | {"speculate": FIXED | {"pipelined": False}}, DRAFT), SpecError, "has no pool to draft for"),
        ((SAID | {"pipeline_parallel": 2}, DRAFT), Infeasible, "pipeline stages beside drafts"),
    ],
    ids=lambda x: str(x)[-70:],
)  # fmt: skip
def test_nonsense_is_refused_with_its_place(pools: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        run(*pools)
