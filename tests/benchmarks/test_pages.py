"""The tables of the documentation say what the code does."""

import tomllib

import msgspec
import pytest

from benchmarks import pages
from benchmarks.records import ROOT
from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.load import load

PAGES = sorted((ROOT / "docs").glob("**/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_page_shows_the_tables_of_the_code(page):
    text = page.read_text(encoding="utf-8")
    assert pages.fill(text) == text, "run: python -m benchmarks.pages"


def test_every_table_is_on_a_page():
    text = "".join(p.read_text(encoding="utf-8") for p in PAGES)
    assert {name for name in pages.TABLES if f"<!-- table:{name} -->" not in text} == set()


def scenario(key: str, value: str) -> dict:
    """The least scenario in which a key may stand, with that key set."""
    value = tomllib.loads(f"x = {value}")["x"]
    table = {
        "fleet": {"devices": "4x h100-sxm + 4x l40s"},
        "workload": {"model": "llama-3.1-8b", "trace": "azure-conv-2023"},
        "plan": {},
    }
    if key.startswith("graph."):
        part, _, rest = key.removeprefix("graph.").rpartition(".")
        made = {"kind": "graph", "graph": {"kind": "cholesky", "tiles": 2}}
        return (
            table
            | {"workload": made | ({rest: value} if part == "workload" else {})}
            | ({"plan": {rest: value}} if part == "plan" else {})
        )
    if key.startswith("training."):
        return trained(key.removeprefix("training."), value)
    part, _, rest = key.rpartition(".")
    if key in ("fleet.ssd_write", "fleet.ssd_memory"):
        table["fleet"] |= {"ssd": "6 GB/s", rest: value}
    elif part == "fleet.links":
        table["fleet"]["links"] = {rest: value}
    elif part == "fleet.groups":
        table["fleet"] = {"groups": [{"devices": "8x h100-sxm"} | {rest: value}]}
    elif part == "fleet.failures":
        table["fleet"]["failures"] = ({} if rest == "outages" else {"mtbf": "1 h", "repair": "1 min"}) | {rest: value}
    elif part == "workload.arrivals":
        kinds = {"concurrency": {"kind": "closed"}, "cv": {"kind": "gamma", "rate": 1.0}}
        table["workload"]["arrivals"] = kinds.get(rest, {"kind": "poisson", "rate": 1.0}) | {rest: value}
    elif part == "workload.lengths":
        full = {"kind": "lognormal", "prompt": 1000, "output": 200, "prompt_p90": 2000, "output_p90": 300}
        table["workload"]["lengths"] = full | {rest: value}
    elif part == "workload.sessions":
        table["workload"]["sessions"] = {"turns": 2.0, "think": "9 s"} | {rest: value}
    elif part == "workload.exits":
        table["workload"]["exits"] = [{"layers": 11, "quality": 0.37} | {rest: value}]
    elif part == "workload.quality":
        table["workload"]["quality"] = [{"quality": 0.5} | {rest: value}]
    elif part == "workload.expert_load":
        table["workload"]["expert_load"] = {rest: value}
    elif part == "plan.cascade":
        table["plan"]["cascade"] = [{"on": "cloud", "exit": 28} | {rest: value}]
    elif part:
        table.setdefault(part, {})[rest] = value
    else:
        table[rest] = value
    return table


def trained(key: str, value: object) -> dict:
    """The least scenario that trains in which a key may stand, with that key set."""
    shape = {"layers": 48, "hidden": 6144, "heads": 64}
    table = {"fleet": {"devices": "64x h100-sxm"}, "workload": {"kind": "training", "model": shape, "batch": 64}}
    part, _, rest = key.rpartition(".")
    if part == "workload.model":
        table["workload"]["model"] = shape | {rest: value}
    elif part == "workload.features":
        table["workload"] = {"kind": "training", "features": {"flops": "1 TFLOP"} | {rest: value}}
    elif part == "plan.shards":
        full = {"weights": 2, "gradients": 8} | ({"optimizer": 64} if rest == "optimizer" else {})
        table["plan"] = {"shards": full | {rest: value}}
    else:
        table.setdefault(part, {})[rest] = value
    if "placement" in table.get("plan", {}):
        table["workload"] = {"kind": "training", "features": {"flops": "1 TFLOP"}}
    return table


@pytest.mark.parametrize("key", pages.EXAMPLES)
def test_the_example_of_a_key_is_accepted(key, tmp_path):
    (tmp_path / "outages.csv").write_text("node,start_h,end_h\n0,1,2\n")
    made = load(scenario(key, pages.EXAMPLES[key]))
    assert resolve(made.fleet, tmp_path).devices > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "-1"), ("fleet.pue", "0.9"), ("fleet.pue", "11"), ("fleet.power_limit", '"100 W"'),
        ("fleet.failures.mtbf", "59"), ("fleet.failures.repair", "0"), ("fleet.failures.per", '"rack"'),
        ("fleet.groups.count", "0"), ("fleet.groups.count", "10_001"), ("plan.clock", "0.2"), ("plan.clock", "1.1"),
        ("plan.replicas", "0"), ("plan.tensor_parallel", "[0, 1]"), ("plan.attention_dp", "0"),
        ("workload.speed_up", "0"), ("workload.requests", "0"), ("workload.arrivals.concurrency", "0"),
        ("workload.lengths.prompt", "-1"), ("workload.expert_load.zipf", "3.1"),
        ("slo.ttft_p99", '"-1 s"'), ("plan.role", '"drafts"'),
        ("fleet.links.inter", "0"), ("training.workload.batch", "0"), ("training.workload.model.layers", "0"),
        ("training.plan.zero", "4"), ("training.plan.tensor_parallel", "[0, 1]"), ("training.plan.dtype", '"fp12"'),
        ("training.plan.schedule", '"2f2b"'),
        ("graph.plan.workers", "{ l40s = 0 }"),
        ("graph.workload.work_unit", "-1"),
        ("plan.dtype", '"fp12"'), ("plan.kv_dtype", '"nvfp4"'), ("objective.minimize", '"goodput"'),
    ],
)  # fmt: skip
def test_what_lies_outside_the_stated_range_is_refused(key, value):
    with pytest.raises(SpecError) as caught:
        resolve(load(scenario(key, value)).fleet)
    assert key.rpartition(".")[2] in caught.value.path


def test_every_key_has_a_meaning_and_every_single_value_an_example():
    for path, struct in pages.FORMS.items():
        said = pages.attributes(struct)
        for field in msgspec.structs.fields(struct):
            full = f"{path}.{field.name}".lstrip(".")
            if path == "slo" or full == "folder":
                continue
            assert said[field.name], full
            holds_a_table = full in pages.FORMS or field.name == "groups"
            assert holds_a_table or full in pages.EXAMPLES, full
