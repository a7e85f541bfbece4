"""The tier planner: against trying everything, against the plain serving world, and against nonsense."""

import dataclasses

import pytest

from benchmarks.tiers_exhaustive import compared, same
from fleetcast.base.errors import FleetcastError, Infeasible, SpecError
from fleetcast.cost.memory import layout_memory
from fleetcast.scenario.load import load
from fleetcast.scenario.plan import Plan
from fleetcast.scenario.workload.catalog import model
from fleetcast.search.tiers import planner
from fleetcast.search.tiers.choice import holdings
from fleetcast.search.tiers.family import Part, held, lower, runs, upper, whole
from fleetcast.search.tiers.parts import Costs
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
from fleetcast.view import sizing

FILE = {
    "fleet": {
        "network": "5g",
        "groups": [
            {"name": "phone", "devices": "1x snapdragon-8-gen-3"},
            {"name": "cloud", "devices": "1x h100-sxm"},
        ],
    },
    "workload": {
        "model": "qwen2.5-7b", "exits": "ai-flow-ruyi-7b", "confidence": 0.75,
        "arrivals": {"kind": "closed", "concurrency": 1, "requests": 4},
        "lengths": {"kind": "fixed", "prompt": 300, "output": 20},
    },
    "objective": {"minimize": "latency"},
    "plan": {"dtype": "int4"},
}  # fmt: skip


def changed(**parts):
    whole_ = FILE | {name: FILE.get(name, {}) | part for name, part in parts.items()}
    if "pools" in whole_["plan"]:
        whole_["plan"] = {k: v for k, v in whole_["plan"].items() if k != "dtype"}
    return whole_


# --- every cascade, tried one by one


@pytest.mark.parametrize("block", range(10))
def test_the_planner_equals_trying_everything(block):
    """1,000 random worlds in ten blocks: floors, limits, goals, links, memory that does not suffice."""
    for seed in range(100 * block, 100 * block + 100):
        ours, best, _ = compared(seed)
        assert same(ours, best), seed


# --- parts are models, and take what the serving world says


def test_parts_of_a_trunk_hold_its_weights_once():
    trunk = model("qwen2.5-7b")
    assert held(trunk, [whole(28)]).params() == trunk.params()
    layer = sum(t.elements for t in trunk.tensors[0])
    table = trunk.vocab * trunk.hidden
    assert held(trunk, [whole(28), whole(11)]).params() == trunk.params() + layer + table
    assert held(trunk, [lower(11), upper(11, 28)]).params() == trunk.params()
    assert held(trunk, [lower(11)]).params() + held(trunk, [upper(11, 28)]).params() == pytest.approx(
        trunk.params(), rel=1e-5
    )
    assert runs(trunk, whole(11)).layers == 12 and runs(trunk, whole(28)).layers == 28
    assert str(Part(11, 28, True)) == "layers 12 to exit 28"


def test_a_tied_trunk_shares_its_last_head_with_the_embedding():
    trunk = model("llama-3.2-1b")
    assert trunk.tied
    assert held(trunk, [whole(16)]).params() == trunk.params()


def test_published_exits_have_their_names_sizes():
    """E3B to E7B: the layers of a branch, without the two tables, are about 3 to 7 billion parameters."""
    trunk = model("qwen2.5-7b")
    sizes = [runs(trunk, whole(e)).params() - trunk.embedding_params() for e in (11, 15, 19, 23, 28)]
    assert [round(s / 1e9) for s in sizes] == [3, 4, 5, 6, 7]


def test_the_deepest_exit_on_one_tier_is_the_plain_serving_world():
    only = {"groups": FILE["fleet"]["groups"][:1], "network": "5g"}
    table = changed(fleet=only) | {"plan": {"dtype": "int4", "cascade": [{"on": "phone", "exit": 28}]}}
    found = planner.simulate(setting(load(table)))
    plain = dict(table["workload"])
    del plain["exits"], plain["confidence"]
    pool = {"dtype": "int4", "engine": "llama-cpp", "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1,
            "batch": {"max_batch": 1}}  # fmt: skip
    state = setting(load(table | {"workload": plain, "plan": pool}))
    served = simulate(state, complete(state, state.scenario.plan)).metrics
    for name in ("e2e", "ttft"):
        assert found.metrics[name]["mean"] == pytest.approx(served[name]["mean"], rel=1e-9)
    assert found.metrics["energy"] == pytest.approx(served["energy"] / 4, rel=1e-9)
    assert found.metrics["bytes"] == 0 and found.metrics["quality"] == 0.7162


def test_the_layers_of_a_split_take_about_what_the_whole_takes():
    """One after the other on one tier: the sum of the parts is the whole, but for a second launch and entry."""
    state = setting(load(changed()))
    costs = Costs(state, planner.tiers_of(state))
    a, b, c = (costs.use(0, part) for part in (lower(10), upper(10, 28), whole(28)))
    assert a.prefill + b.prefill == pytest.approx(c.prefill, rel=0.02)
    assert a.decode + b.decode == pytest.approx(c.decode, rel=0.02)
    assert a.decode_energy + b.decode_energy == pytest.approx(c.decode_energy, rel=0.02)


def test_hidden_states_sent_are_tokens_times_width_times_two():
    stage = {"on": "cloud", "exit": 28, "handoff": "hidden", "split": 5, "after": "phone"}
    state = setting(load(changed(plan={"cascade": [stage]})))
    sent = planner.simulate(state).metrics["bytes"]
    assert sent == (300 + 20 - 1) * 3584 * 2 + 20 * 4
    whole_cache = planner.simulate(setting(load(changed(plan={"cascade": [stage | {"handoff": "cache"}]}))))
    assert whole_cache.metrics["bytes"] == 300 * (3584 * 2 + 5 * 2 * 4 * 128 * 2) + 20 * 4


def test_a_cloud_that_answers_many_at_once_shares_its_cost_and_takes_longer():
    def use(n):
        state = setting(load(changed(plan={"pools": [{"on": "cloud", "batch": {"max_batch": n}}]})))
        return Costs(state, planner.tiers_of(state)).use(1, whole(28))

    one, many = use(1), use(16)
    assert many.decode_cost < one.decode_cost / 6 and many.decode > one.decode
    # users of a closed loop: a request's share of the device is its time over their number
    price = 2.95 / 3600
    assert (many.prefill_cost + many.decode_cost) * 16 / price == pytest.approx(many.prefill + many.decode, rel=0.15)


def test_what_is_planned_is_what_is_simulated_and_fits():
    state = setting(load(changed(slo={"quality": 0.6}, objective={"minimize": "energy"})))
    ranking = planner.plan(state, top=None)
    assert ranking.best.metrics["quality"] >= 0.6
    for outcome in ranking.plans[:6]:
        again = planner.simulate(setting(load(FILE | {"plan": dict(outcome.plan)})))
        assert again.metrics["e2e"]["mean"] == pytest.approx(outcome.metrics["e2e"]["mean"], rel=1e-12)
        assert again.metrics["quality"] == outcome.metrics["quality"]


def test_no_tier_holds_more_than_its_memory():
    groups = [{"name": "phone", "devices": "1x a17-pro"}, {"name": "edge", "devices": "1x snapdragon-8-gen-3"}]
    state = setting(load(changed(fleet={"network": "wifi-6", "groups": groups}, plan={"dtype": "bf16"})))
    asked = planner.question(state)
    ranking = planner.plan(state, top=None)
    assert ranking.rejected and ranking.plans
    for outcome in ranking.plans:
        cascade = planner.decided(dataclasses.replace(asked, state=dataclasses.replace(
            state, scenario=state.scenario.with_plan(Plan(cascade=stages(outcome))))))  # fmt: skip
        for tier, parts in holdings(cascade.legs).items():
            device = asked.costs.tiers[tier].group.device
            server = asked.costs._server(tier)
            tier_model = held(state.model, parts)
            room = layout_memory(
                tier_model, device, server.layout, server.precision, server.kv_dtype, server.engine, 1, 512
            )
            assert room.weights + room.activations + room.reserve < 0.75 * device.memory


def stages(outcome):
    return load(FILE | {"plan": {"cascade": outcome.plan["cascade"]}}).plan.cascade


@pytest.mark.parametrize("goal", ["latency", "energy", "bytes"])
def test_the_best_is_never_worse_than_device_alone_cloud_alone_or_two_models(goal):
    """Each null is written as a decided cascade and simulated by itself, so the search has no part in it."""
    floor = 0.68
    path = {"latency": "e2e", "energy": "energy", "bytes": "bytes"}[goal]

    def value(outcome):
        found = outcome.metrics[path]
        return found["mean"] if isinstance(found, dict) else found

    state = setting(load(changed(slo={"quality": floor}, objective={"minimize": goal})))
    best = value(planner.plan(state).best)
    deep = [23, 28]
    nulls = [[{"on": place, "exit": e}] for place in ("phone", "cloud") for e in deep]
    nulls += [
        [{"on": "phone", "exit": a, "threshold": t}, {"on": "cloud", "exit": b}]
        for a in (11, 15, 19) for b in deep for t in (0.5, 0.7, 0.9)
    ]  # fmt: skip
    tried = 0
    for cascade in nulls:
        outcome = planner.simulate(setting(load(changed(plan={"cascade": cascade}))))
        if outcome.metrics["quality"] >= floor:
            tried += 1
            assert best <= value(outcome) * (1 + 1e-12), cascade
    assert tried > 8


# --- nonsense


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"slo": {"quality": 0.5}}, "slo.quality"),
        ({"objective": {"minimize": "bytes"}}, "objective.minimize"),
        ({"workload": {"confidence": 0.7}}, "workload.confidence"),
        ({"plan": {"cascade": [{"on": "cloud", "exit": 28}]}}, "plan.cascade"),
    ],
)
def test_what_only_exits_give_a_meaning_is_refused_without_them(part, path):
    table = changed(**part)
    for key in ("exits", *(("confidence",) if "workload" not in part else ())):
        table["workload"] = {k: v for k, v in table["workload"].items() if k != key}
    with pytest.raises(SpecError, match=path):
        setting(load(table))


def test_worlds_that_know_no_exits_say_so():
    with pytest.raises(FleetcastError, match="only plan, simulate, advise, check"):
        sizing.max_rate(FILE | {"slo": {"e2e_mean": 1.0}})


def exits(*pairs):
    return {"workload": {"exits": [{"layers": layers, "quality": quality} for layers, quality in pairs]}}


def cascade(*stages):
    return {"plan": {"cascade": list(stages)}}


ANSWER = {"on": "cloud", "exit": 28}
FIRST = {"on": "phone", "exit": 11, "threshold": 0.5}
NONSENSE = [
    (exits((40, 0.5)), "workload.exits[0].layers"),
    (exits((9, 0.5), (5, 0.6)), "workload.exits[1].layers"),
    (exits((9, 0.5), (15, 0.4)), "workload.exits[1].quality"),
    (exits(), "workload.exits"),
    (exits((9, 1.0)), "workload.exits"),
    ({"workload": {"exits": "ruyi"}}, "workload.exits"),
    ({"workload": {"model": "llama-3.1-8b"}}, "workload.exits"),
    ({"slo": {"ttft_p99": 1.0}}, "slo.ttft_p99"),
    ({"objective": {"minimize": None, "maximize": "throughput"}}, "objective.maximize"),
    ({"plan": {"dtype": ["bf16", "int4"]}}, "plan.dtype"),
    ({"plan": {"model": "llama-3.1-8b"}}, "plan.model"),
    ({"plan": {"pools": [{"on": "fridge"}]}}, "plan.on"),
    (cascade(ANSWER | {"on": "fridge"}), "plan.cascade[0].on"),
    (cascade(ANSWER | {"exit": 12}), "plan.cascade[0].exit"),
    (cascade(ANSWER | {"exit": 30}), "plan.cascade[0].exit"),
    (cascade(ANSWER | {"handoff": "hidden", "split": 28, "after": "phone"}), "plan.cascade[0].split"),
    (cascade(ANSWER | {"handoff": "hidden", "split": 5}), "plan.cascade[0].after"),
    (cascade({"on": "phone", "exit": 28, "handoff": "hidden", "split": 5, "after": "cloud"}), "plan.cascade[0].after"),
    (cascade(ANSWER | {"split": 5}), "plan.cascade[0].split"),
    (cascade(ANSWER | {"handoff": "telepathy"}), "plan.cascade[0].handoff"),
    (cascade(ANSWER | {"threshold": 0.5}), "plan.cascade[0].threshold"),
    (cascade({"on": "phone", "exit": 11}, ANSWER), "plan.cascade[0].threshold"),
    (cascade(FIRST | {"threshold": 1.5}, ANSWER), "plan.cascade[0].threshold"),
    (cascade(FIRST, ANSWER | {"exit": 11}), "plan.cascade[1].exit"),
    (cascade(FIRST, ANSWER | {"handoff": "hidden", "split": 5}), "plan.cascade[1].split"),
]


@pytest.mark.parametrize(("part", "path"), NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_refused_by_name(part, path):
    with pytest.raises(FleetcastError) as error:
        planner.plan(setting(load(changed(**part))))
    assert path in str(error.value)


def test_a_decided_cascade_that_does_not_fit_says_why():
    table = changed(plan={"dtype": "bf16", "cascade": [{"on": "phone", "exit": 28}]})
    with pytest.raises(Infeasible, match="memory for weights"):
        planner.plan(setting(load(table)))


def test_the_nearest_misses_are_shown_where_nothing_is_good_enough():
    ranking = planner.plan(setting(load(changed(slo={"quality": 0.9}))))
    assert ranking.best is None and ranking.misses
    assert ranking.misses[0].metrics["quality"] == pytest.approx(0.7162)


def test_measured_confidences_are_read(tmp_path):
    rows = ["confidence_11,right_11,confidence_28,right_28"] + ["0.9,1,0.9,1"] * 5 + ["0.2,0,0.8,1"] * 5
    (tmp_path / "answers.csv").write_text("\n".join(rows))
    exits = [{"layers": 11, "quality": 0.5}, {"layers": 28, "quality": 0.99}]
    table = changed(workload={"exits": exits, "confidence": str(tmp_path / "answers.csv")}, slo={"quality": 0.99})
    ranking = planner.plan(setting(load(table)), top=None)
    several = [o for o in ranking.plans if len(o.plan["cascade"]) == 2]
    assert several and all(o.metrics["quality"] == 1.0 for o in several)
    assert {o.resources[1]["reach"] for o in several} == {0.5}
    (tmp_path / "answers.csv").write_text("\n".join([*rows, "1.4,1,0.5,1"]))
    with pytest.raises(SpecError, match="line 12, column confidence_11"):
        planner.plan(setting(load(table)))
    (tmp_path / "answers.csv").write_text("confidence_11,right_11\n0.5,1")
    with pytest.raises(SpecError, match="confidence_28"):
        planner.plan(setting(load(table)))
