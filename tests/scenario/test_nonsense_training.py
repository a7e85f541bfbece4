"""Every key of a training scenario with every kind of nonsense: an error names path, value and what to write.

Also keys that contradict each other, and those of requests, which training does not have.
"""

import copy
import typing

import msgspec
import pytest

from fleetcast.base.errors import FleetcastError, SpecError, Unsupported
from fleetcast.scenario.fleet.spec import Links
from fleetcast.scenario.load import TrainingScenario, dump, load
from fleetcast.scenario.training_plan import CHOICES, Shards, TrainingPlan
from fleetcast.scenario.workload.training import Features, Shape, Training
from fleetcast.search.training.planner import search
from fleetcast.sim.training.counted import simulate as simulate_counted
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate
from tests.scenario.test_nonsense import NONSENSE

SHAPE = {"layers": 4, "hidden": 512, "heads": 8, "vocab": 1024}
BASE = {
    "fleet": {"devices": "2x h100-sxm"},
    "workload": {"kind": "training", "model": SHAPE, "sequence": 128, "batch": 8},
    "plan": {},
}
COUNTED = {"flops": "1 TFLOP", "traffic": "1 GB", "weights": "1 GB", "input": "1 MB"}
PARTS = {
    ("fleet", "links"): Links, ("workload",): Training, ("workload", "model"): Shape,
    ("workload", "features"): Features, ("plan",): TrainingPlan,
    ("plan", "shards"): Shards,
}  # fmt: skip
KEYS = [
    (path, field.name) for path, part in PARTS.items() for field in msgspec.structs.fields(part)
    if (path, field.name) != (("plan",), "recover")  # its policies say what they take
]  # fmt: skip

FINE = {
    **dict.fromkeys(("workload.model.experts", "workload.model.shared_ffn"), (0,)),
    **dict.fromkeys(("workload.model.gated", "workload.model.tied", "workload.model.learned_positions"), (True,)),
    **dict.fromkeys((f"workload.features.{name}" for name in ("traffic", "weights", "input")), (0, 0.5)),
    **dict.fromkeys(
        (f"plan.{name}_parallel" for name in ("tensor", "pipeline", "data", "context", "expert")), ([1, 2],)
    ),
    **dict.fromkeys(("plan.shards.weights", "plan.shards.gradients", "plan.shards.optimizer"), ([1, 2],)),
    **dict.fromkeys(("plan.micro_batch", "plan.interleave", "plan.islands"), ([1, 2],)), "plan.zero": (0, [1, 2]),
    **dict.fromkeys(("plan.sequence_parallel", "plan.fused_attention"), (True,)),
    **dict.fromkeys(("plan.offload", "plan.overlap"), ([],)), "plan.shards.second": (0,),
}  # fmt: skip
"""Values of that list which a key may have."""


def table_with(path, key, value):
    table = copy.deepcopy(BASE)
    if path == ("workload", "features") or (path, key) == (("workload",), "features"):
        table["workload"] = {"kind": "training", "features": dict(COUNTED)}
    if path == ("plan", "shards"):
        table["plan"] = {"shards": {"weights": 1, "gradients": 2}}
    place = table
    for step in path:
        place = place.setdefault(step, {})
    place[key] = value
    return table


def ask(table):
    """Reads a scenario as `plan` does, then as `simulate` does where the plan has no lists."""
    scenario = load(table)
    if scenario.workload.features is not None:
        simulate_counted(scenario)
        return
    state = setting(scenario)
    plan = scenario.plan
    listed = isinstance(plan.shards, Shards) and not plan.shards.decided
    if listed or any(isinstance(getattr(plan, name), tuple) for name in plan.__struct_fields__):
        search(state, top=1)
    else:
        simulate(state)


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[".".join([*p, k]) for p, k in KEYS])
def test_nonsense_is_named(path, key):
    name = ".".join([*path, key])
    for value in NONSENSE:
        table = table_with(path, key, value)
        if any(type(value) is type(fine) and value == fine for fine in FINE.get(name, ())):
            ask(table)
            continue
        with pytest.raises((SpecError, Unsupported)) as caught:
            ask(table)
        error, said = caught.value, f"{name} = {value!r}: {caught.value}"
        assert "`" not in str(error), f"a library's own words: {said}"
        if isinstance(error, Unsupported):
            assert error.hint and name in str(error), f"says no next step: {said}"
            continue
        at = error.path.replace("[0]", "").replace("[1]", "")
        assert at.startswith(name) or name.startswith(at), f"names another place: {said}"
        assert error.limit or error.hint, f"says no next step: {said}"
        if "is missing" not in error.problem and "is not a key" not in error.problem:
            assert error.value is not None or "none" in error.problem, f"no value: {said}"


def test_the_list_of_keys_is_whole():
    assert {key for _, key in KEYS} | {"recover"} == {
        name for part in PARTS.values() for name in typing.get_type_hints(part)
    }


@pytest.mark.parametrize("name", [name for name, _ in CHOICES])
def test_words_are_known_and_the_nearest_is_named(name):
    known = dict(CHOICES)[name]
    wrong = known[0] + "x"
    with pytest.raises(SpecError, match=f"plan.{name}: is unknown.*one of {known[0]}.*Did you mean") as caught:
        load(BASE | {"plan": {name: [wrong] if name in ("offload", "overlap") else wrong}})
    assert caught.value.value == wrong


AGAINST = {
    "requests": ({"workload": {"arrivals": {"kind": "poisson", "rate": 1}}}, "workload.arrivals: is not a key here"),
    "an SLO": ({"slo": {"ttft_p99": "1 s"}}, 'limits the latency of requests.*minimize = "time"'),
    "latency": ({"objective": {"minimize": "latency"}}, "objective.minimize: is unknown.*one of time, cost"),
    "throughput": ({"objective": {"maximize": "throughput"}}, "objective.maximize"),
    "pools": ({"plan": {"replicas": 2}}, "plan.replicas: is not a key here"),
    "two lengths": ({"workload": {"tokens": 10**9, "steps": 10}}, "workload.steps: stands beside workload.tokens"),
    "no model": ({"workload": {"model": "gpt5"}}, "workload.model: is not in the catalogue"),
    "heads that do not divide": ({"workload": {"model": SHAPE | {"heads": 7}}}, "model.heads: does not divide hidden"),
    "keys that do not divide": ({"workload": {"model": SHAPE | {"kv_heads": 3}}}, "kv_heads: does not divide heads"),
    "more visited than there are": (
        {"workload": {"model": SHAPE | {"experts": 2, "top_k": 4}}}, "top_k: is more than there are experts",
    ),
    "an encoder": ({"workload": {"model": "t5-11b"}}, "has an encoder"),
    "fp8 without tensor cores for it": (
        {"fleet": {"devices": "2x a100-80g-sxm"}, "plan": {"dtype": "fp8"}}, "does not multiply in it",
    ),
    "a format that no plan has": (
        {"fleet": {"devices": "2x a100-80g-sxm"}, "plan": {"dtype": "fp8"}}, "one of bf16, fp16, fp32, or",
    ),
    "a word twice": ({"plan": {"offload": ["weights", "weights"]}}, "plan.offload: names the same twice"),
    "a word twice to search": ({"plan": {"overlap": [["data", "data"], []]}}, "plan.overlap: names the same twice"),
    "a placement of a model": ({"plan": {"placement": "one"}}, "plan.placement: places a job that is known by"),
    "a policy that is none": ({"plan": {"recover": "nothing"}}, "plan.recover.kind: is unknown"),
    "no model at all": ({"workload": {"model": ""}}, "workload.model: is missing"),
    "a sequence that is not cut": (
        {"workload": {"sequence": 126}, "plan": {"context_parallel": 2}}, "context_parallel: does not cut.*one of 1, 3",
    ),
    "two kinds of device": ({"fleet": {"devices": "1x v100-32g-sxm + 1x tpu-v6e"}}, "no format in common"),
    "a link twice": (
        {"fleet": {"network": "infiniband-hdr", "links": {"inter": "infiniband-ndr"}}}, "links.inter: names a link",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AGAINST)
def test_what_training_does_not_have_is_refused(case):
    changes, said = AGAINST[case]
    table = copy.deepcopy(BASE)
    for part, keys in changes.items():
        table[part] = table.get(part, {}) | keys
    with pytest.raises(FleetcastError, match=said) as caught:
        ask(table)
    error = caught.value
    assert getattr(error, "limit", "") or error.hint


def test_a_scenario_written_is_the_scenario_read():
    table = BASE | {
        "fleet": BASE["fleet"] | {"links": {"inter": "100 Gb/s"}},
        "plan": {"tensor_parallel": [1, 2], "offload": [["optimizer"], []], "zero": 1, "recompute": "full"},
    }  # fmt: skip
    scenario = load(table)
    assert isinstance(scenario, TrainingScenario)
    again = load(dump(scenario))
    assert msgspec.structs.replace(again, folder=scenario.folder) == scenario
