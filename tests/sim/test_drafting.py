"""Speculation in the serving world: expectation against hand-made sums, draws, memory, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.spec import build
from fleetcast.cost.overlap.schedule import gain_spread
from fleetcast.cost.speculate import constant_tokens
from fleetcast.policy import route
from fleetcast.scenario.drafts import Drafting
from fleetcast.scenario.load import load
from fleetcast.sim.serving import reference
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.drafting import spread_of
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

FIXED = {"kind": "fixed", "model": "llama-3.2-1b", "length": 4, "acceptance": 0.7}


def state_of(speculate: Any = None, users: int = 1, requests: int = 40, output: int = 256, **plan: Any) -> Setting:
    table = {
        "fleet": {"devices": "8x h100-sxm"},
        "workload": {
            "model": "llama-3.1-70b", "arrivals": {"kind": "closed", "concurrency": users, "requests": requests},
            "lengths": {"kind": "fixed", "prompt": 512, "output": output, "spread": 0.0},
        },
        "plan": {"replicas": 1, "tensor_parallel": 4, "pipeline_parallel": 1} | plan,
    }  # fmt: skip
    if speculate is not None:
        table["plan"]["speculate"] = speculate
    return setting(load(table))


def run(*args: Any, **kwargs: Any) -> Any:
    state = state_of(*args, **kwargs)
    return simulate(state, complete(state, state.scenario.plan))


def test_one_user_waits_for_the_calls_that_the_closed_form_says() -> None:
    state = state_of(FIXED, requests=200)
    plan = complete(state, state.scenario.plan)
    server, outcome = state.server(plan.pools[0]), simulate(state, plan)
    assert server.speculation is not None
    tokens = constant_tokens(0.7, 4)
    t, n = server.cost.tables, 1
    context = 512 + 128 + 4
    call = t["dense"][5 * n] + t["head"][5 * n] + max(t["floor"][1], t["base"][1] + t["slope"][1] * context)
    wait = outcome.metrics["e2e"]["mean"] - outcome.metrics["ttft"]["mean"]
    calls = wait / (call + server.engine.host_on("h100-sxm").step * (not server.engine.overlap))
    # 255 tokens after the first, and what the last call makes too much
    assert calls == pytest.approx(255 / tokens, rel=0.02)
    assert calls > 255 / tokens
    assert outcome.metrics["output_tokens"] == 200 * 256
    plain = run(requests=200)
    assert 1.5 < plain.metrics["tpot"]["mean"] / outcome.metrics["tpot"]["mean"] < tokens


def test_a_draft_pass_costs_what_the_drafter_alone_costs() -> None:
    state = state_of(FIXED)
    pool = complete(state, state.scenario.plan).pools[0]
    small = state_of(model="llama-3.2-1b")
    alone = small.server(complete(small, small.scenario.plan).pools[0]).cost.tables
    drafts = state.server(pool).cost.tables["draft"]
    for n in (1, 7, 64, 1000):
        assert drafts[n] == pytest.approx(4 * (alone["dense"][n] + alone["head"][n]), rel=1e-9)


def test_off_is_what_there_is_without_speculation() -> None:
    plain, off = run(users=8), run("off", users=8)
    assert plain.metrics == off.metrics and off.plan["speculate"] == {"kind": "off"}
    never = run({"kind": "ngram", "lookups": 0.0}, users=8)
    assert never.metrics["tpot"]["mean"] == pytest.approx(plain.metrics["tpot"]["mean"], rel=1e-3)


def test_it_helps_small_batches_and_hurts_large_ones() -> None:
    gain = [
        run(FIXED, users=n, requests=3 * n, output=128).metrics["throughput"]
        / run(users=n, requests=3 * n, output=128).metrics["throughput"]
        for n in (4, 256)
    ]
    assert gain[0] > 1.5 and gain[1] < 1.0


def test_draws_depend_on_seed_and_request_alone() -> None:
    state = state_of(FIXED, requests=60)
    server = state.server(complete(state, state.scenario.plan).pools[0])
    assert server.speculation is not None
    whole = server.speculation.calls(state.requests)
    np.testing.assert_array_equal(whole[:20], server.speculation.calls(state.requests.slice(0, 20)))
    other = replace(server.speculation, seed=1).calls(state.requests)
    assert (whole != other).any()
    assert (whole <= state.requests.output).all() and (whole >= 1 + 255 / 5).all()


def test_drafters_take_memory_and_each_call_reads_its_own_logits() -> None:
    rooms = {}
    for name, table in (("off", None), ("one", FIXED), ("three", FIXED | {"drafters": 3})):
        state = state_of(table)
        rooms[name] = state.server(complete(state, state.scenario.plan).pools[0]).room
    weights = [rooms[name].weights for name in ("off", "one", "three")]
    assert weights[0] < weights[1] < weights[2]
    assert weights[2] - weights[0] == pytest.approx(3 * (weights[1] - weights[0]))
    assert rooms["off"].kv_token < rooms["one"].kv_token < rooms["three"].kv_token
    assert rooms["one"].activations > rooms["off"].activations


def test_time_by_term_adds_up_and_work_is_counted() -> None:
    plain, drafted = run(users=8), run(FIXED, users=8)
    terms = drafted.breakdown["time"]
    assert terms["draft"] > 0 and "draft" not in plain.breakdown["time"]
    assert sum(terms.values()) == pytest.approx(drafted.metrics["makespan"], rel=0.01)
    # five tokens are checked for 2.77 that come out
    assert drafted.metrics["mfu"] * drafted.metrics["makespan"] > plain.metrics["mfu"] * plain.metrics["makespan"]


def test_what_is_taken_as_given_is_said() -> None:
    outcome = run({"kind": "fixed", "model": "llama-3.2-1b", "drafters": 2})
    assert any("0.7, assumed" in note for note in outcome.notes)
    assert any("2 drafters that err alike in 50%" in note for note in outcome.notes)
    named = run(FIXED | {"acceptance": "distilgpt2-for-gpt2-large"})
    assert any("speculative-decoding-lab" in note and "(verified)" in note for note in named.notes)


def test_the_reference_world_gives_the_same_outcome() -> None:
    state = state_of({"kind": "minions", "model": "llama-3.2-1b"}, users=4, requests=12, output=64)
    plan = complete(state, state.scenario.plan)
    fast, slow = simulate(state, plan), simulate(state, plan, by_step=True)
    assert fast.metrics["e2e"]["mean"] == pytest.approx(slow.metrics["e2e"]["mean"], rel=1e-9)


@pytest.mark.parametrize(
    ("speculate", "plan", "error", "message"),
    [
        ({"kind": "fixed"}, {}, SpecError, r"plan\.speculate\.model: is missing"),
        (FIXED | {"model": "llama-3.1-405b"}, {}, SpecError, "no smaller than the model it drafts for"),
        (FIXED | {"model": "llama-3.1-70b"}, {}, SpecError, "no smaller than the model it drafts for"),
        (FIXED | {"model": "llama-2-7b"}, {}, SpecError, "another vocabulary"),
        (FIXED | {"model": "llama-9-1b"}, {}, SpecError, r"plan\.speculate\.model"),
        (FIXED | {"length": 0}, {}, SpecError, r"plan\.speculate\.length"),
        (FIXED | {"length": 17}, {}, SpecError, r"plan\.speculate\.length"),
        (FIXED | {"acceptance": 1.2}, {}, SpecError, r"plan\.speculate\.acceptance.*0 to 1"),
        (FIXED | {"acceptance": [0.8, -0.1]}, {}, SpecError, r"plan\.speculate\.acceptance.*0 to 1"),
        (FIXED | {"acceptance": []}, {}, SpecError, r"plan\.speculate\.acceptance: is empty"),
        (FIXED | {"acceptance": "distilgpt2"}, {}, SpecError, "no known profile"),
        (FIXED | {"lenght": 4}, {}, SpecError, "lenght"),
        (FIXED | {"modle": "llama-3.2-1b"}, {}, SpecError, "known keys: length, drafters, model, acceptance"),
        (FIXED | {"drafters": 0}, {}, SpecError, "drafters"),
        (FIXED | {"drafter_correlation": 2.0}, {}, SpecError, "drafter_correlation"),
        ({"kind": "ngram", "model": "llama-3.2-1b"}, {}, SpecError, "is not used by 'ngram'"),
        ({"kind": "ngram", "lookups": -1.0}, {}, SpecError, "lookups"),
        ({"kind": "minions", "model": "llama-3.2-1b", "start": 9}, {}, SpecError, "start 9 is above most 8"),
        ({"kind": "wishful"}, {}, SpecError, r"plan\.speculate\.kind: is unknown"),
        (FIXED, {"pipeline_parallel": 2}, Infeasible, "pipeline stages beside drafts"),
        ([FIXED], {}, SpecError, "list of values to search"),
    ],
    ids=lambda x: str(x)[:60],
)  # fmt: skip
def test_nonsense_is_refused_with_its_place(speculate: Any, plan: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        run(speculate, **plan)


def test_a_decode_pool_drafts_and_a_prefill_pool_does_not() -> None:
    layout = {"replicas": 1, "tensor_parallel": 4, "pipeline_parallel": 1}
    pools = [layout | {"role": "prefill"}, layout | {"role": "decode", "speculate": FIXED}]
    table = {
        "fleet": {"devices": "8x h100-sxm"},
        "workload": {
            "model": "llama-3.1-70b", "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 40},
            "lengths": {"kind": "fixed", "prompt": 512, "output": 128},
        },
    }  # fmt: skip
    state = setting(load(table | {"plan": {"pools": pools}}))
    plan = complete(state, state.scenario.plan)
    servers = [state.server(pool) for pool in plan.pools]
    assert [s.speculation is None for s in servers] == [True, False]
    fast, slow = (
        simulate(state, plan),
        reference.run(state, servers, build(route, plan.route, "plan.route"), record=False, by_step=True),
    )
    np.testing.assert_allclose(fast.requests.e2e - fast.requests.ttft, slow.finish - slow.first, rtol=1e-9)
    plain = setting(load(table | {"plan": {"pools": [pools[0], layout | {"role": "decode"}]}}))
    other = simulate(plain, complete(plain, plain.scenario.plan))
    assert fast.metrics["tpot"]["mean"] < 0.7 * other.metrics["tpot"]["mean"]
    with pytest.raises(SpecError, match="nothing to draft in a prefill pool"):
        wrong = setting(load(table | {"plan": {"pools": [pools[0] | {"speculate": FIXED}, pools[1]]}}))
        complete(wrong, wrong.scenario.plan)


def test_drafters_apart_take_devices_and_hide_behind_the_check() -> None:
    apart = FIXED | {"pipelined": True, "drafters": 3}
    state = state_of(apart, users=32, requests=64)
    plan = complete(state, state.scenario.plan)
    together = state_of(apart | {"pipelined": False}, users=32, requests=64)
    server, other = (s.server(complete(s, s.scenario.plan).pools[0]) for s in (state, together))
    assert plan.devices() == 7 and server.takes == ((server.group, 4), (server.group, 3))
    outcome, shared = simulate(state, plan), simulate(together, complete(together, together.scenario.plan))
    assert outcome.metrics["devices"] == 7 and outcome.metrics["throughput"] > shared.metrics["throughput"]
    span = outcome.metrics["makespan"]
    assert outcome.metrics["cost"] == pytest.approx(7 * 2.95 * span / 3600)
    assert outcome.metrics["energy"] > 7 * server.group.device.power.idle * span
    assert server.room.weights < other.room.weights  # the pool's devices hold the target alone
    # two halves in turn: twice the longer of checking and drafting half, never more than one after the other
    table, n, length = server.cost.tables, 64, 4
    plain = state_of("off").server(complete(state_of("off"), state_of("off").scenario.plan).pools[0]).cost.tables
    half = n // 2
    check = plain["dense"][5 * half] + plain["head"][5 * half] + plain["base"][half]
    whole = plain["dense"][5 * n] + plain["head"][5 * n] + plain["base"][n]
    small = state_of(model="llama-3.2-1b", tensor_parallel=1)
    drafter = small.server(complete(small, small.scenario.plan).pools[0]).cost.tables
    drafts = [length * (drafter["dense"][m] + drafter["head"][m] + drafter["base"][m]) for m in (half, n)]
    assert check > drafts[0]
    want = min(2 * check, whole + drafts[1])
    assert table["base"][n] + table["dense"][5 * n] + table["head"][5 * n] == pytest.approx(want, rel=1e-3)
    sent = 2 * 3.4e-6 + 3 * (2 * length + 1) * 4.0 / 450e9  # two messages of token ids, of three drafters, NVLink 4
    assert table["base"][1] == pytest.approx(
        plain["base"][1] + length * (drafter["dense"][1] + drafter["head"][1] + drafter["base"][1]) + sent, rel=1e-9
    )


def test_drafters_apart_need_devices_and_a_model() -> None:
    with pytest.raises(Infeasible, match="devices of group"):
        run(FIXED | {"pipelined": True, "drafters": 5})
    with pytest.raises(SpecError, match="no draft model to run"):
        run({"kind": "ngram", "pipelined": True})


def half(outcome: Any, path: str) -> float:
    low, high = outcome.intervals[path]
    return float(np.log(high / low)) / 2


def test_intervals_widen_with_the_doubt_of_the_acceptance_and_never_shrink() -> None:
    plain, known = run(users=8), run(FIXED | {"acceptance_spread": 0.0}, users=8)
    widths = [half(run(FIXED | {"acceptance_spread": s}, users=8), "tpot.mean") for s in (0.0, 0.02, 0.05, 0.2)]
    assert widths == sorted(widths) and widths[0] < widths[1] < widths[3]
    assert half(known, "tpot.mean") >= half(plain, "tpot.mean") * (1 - 1e-9)
    stated, assumed, named = (
        run({k: v for k, v in FIXED.items() if k != "acceptance"} | more, users=8)
        for more in ({"acceptance": 0.7}, {}, {"acceptance": "distilgpt2-for-gpt2-large"})
    )
    assert half(stated, "tpot.mean") == widths[1] < half(assumed, "tpot.mean")
    assert half(named, "tpot.mean") > widths[1]  # measured, but for another pair and task
    assert half(assumed, "ttft.mean") == half(stated, "ttft.mean")  # a first token waits for no draft
    for path in ("e2e.mean", "throughput", "cost", "energy"):
        assert half(assumed, path) > half(stated, path) > half(known, path)
    assert any("acceptance may be off by 0.02 (acceptance_spread): 3.8% of" in note for note in stated.notes)
    with pytest.raises(SpecError, match=r"acceptance_spread: is out of range"):
        run(FIXED | {"acceptance_spread": 0.6})


def test_the_doubt_of_a_token_s_time_is_what_another_acceptance_makes_of_it() -> None:
    low, mid, high = (run(FIXED | {"acceptance": a}, requests=100).metrics["tpot"]["mean"] for a in (0.65, 0.7, 0.75))
    state = state_of(FIXED | {"acceptance_spread": 0.05})
    doubt = state.server(complete(state, state.scenario.plan).pools[0]).cost.doubt
    assert low > mid > high and doubt[0] == 0.0
    assert np.log(low / high) / 2 == pytest.approx(doubt[1], rel=0.1)


def test_drafts_are_charged_in_iterations_that_are_cut_into_nano_batches_too() -> None:
    nano = {"kind": "nano", "splits": [0.5, 0.5], "least": 64}
    cuts = []
    for speculate in (None, FIXED, FIXED | {"pipelined": True}):
        state = state_of(speculate, overlap=nano)
        cuts.append(state.server(complete(state, state.scenario.plan).pools[0]).cost.tables)
    plain, shared, apart = cuts
    for n in (1, 32):
        assert shared["cut_base"][n] - plain["cut_base"][n] == pytest.approx(
            shared["base"][n] - plain["base"][n], abs=2e-4
        )
        assert shared["cut_base"][n] > plain["cut_base"][n] + 0.9 * shared["draft"][n]
        assert apart["cut_base"][n] > plain["cut_base"][n]


def test_figures_that_the_documentation_states_are_those_of_the_code(root: Any) -> None:
    said = (root / "docs/speculation.md").read_text(encoding="utf-8")
    assumed, stated = spread_of(Drafting()), spread_of(Drafting(acceptance=0.7))
    assert f"| {stated:.2g} for rates, {assumed:.2g} for a profile or none |" in said
    assert stated == pytest.approx((0.7 * 0.3 / 500) ** 0.5, rel=0.05)  # 500 judged drafts, independent
    assert f"differs by {gain_spread():.0%}".replace("%", " %") in " ".join(
        (root / "docs/overlap.md").read_text(encoding="utf-8").split()
    )
