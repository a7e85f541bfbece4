"""The JSON Schema that editors read."""

import tomllib

from fleetcast.base.spec import kinds
from fleetcast.policy import batch
from fleetcast.view.schema import scenario_schema
from fleetcast.view.verbs import examples


def test_every_reference_is_defined():
    schema = scenario_schema()

    def references(value):
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            value = value.values()
        if isinstance(value, list | type({}.values())):
            for item in value:
                yield from references(item)

    found = set(references(schema))
    assert found and found <= {f"#/$defs/{name}" for name in schema["$defs"]}


def test_quantities_may_be_text_with_a_unit():
    schema = scenario_schema()
    slo = schema["$defs"]["Slo"]["properties"]["ttft_p99"]
    assert {item["type"] for item in slo["anyOf"]} == {"number", "string"}
    assert "folder" not in schema["properties"]


def test_policies_are_offered_by_kind():
    pool = scenario_schema()["$defs"]["Plan"]["properties"]
    offered = pool["batch"]["anyOf"][0]["anyOf"][0]["enum"]
    assert offered == list(kinds(batch))
    assert {"pools", "route", "tensor_parallel"} <= set(pool)


def test_the_kind_of_workload_says_which_keys_there_are():
    schema = scenario_schema()
    assert schema["if"]["properties"]["workload"]["properties"]["kind"] == {"const": "training"}
    both = [schema[name]["properties"]["plan"]["$ref"] for name in ("then", "else")]
    assert both == ["#/$defs/TrainingPlan", "#/$defs/Plan"]
    plan = schema["$defs"]["TrainingPlan"]["properties"]
    assert plan["recompute"]["anyOf"][0]["enum"] == ["none", "selective", "full"]
    assert plan["offload"]["items"]["anyOf"][0]["enum"] == ["weights", "activations", "optimizer"]
    assert "time" in schema["$defs"]["Objective"]["properties"]["minimize"]["anyOf"][0]["enum"]
    assert {item.get("type") for item in schema["$defs"]["Links"]["properties"]["inter"]["anyOf"]} == {
        "number",
        "string",
    }


def test_examples_use_only_keys_of_the_schema():
    schema = scenario_schema()
    for name, path in examples().items():
        table = tomllib.loads(path.read_text())
        if "tasks" in table["workload"]:  # the schema knows one model
            continue
        trains = table["workload"].get("kind") == "training"
        kind = schema["then" if trains else "else"]["properties"]
        for part, value in table.items():
            assert part in schema["properties"], name
            assert part in kind or part not in ("workload", "plan", "slo"), "not a part of this kind"
            reference = (kind.get(part) or schema["properties"][part]).get("$ref", "").rpartition("/")[2]
            if reference:
                assert set(value) <= set(schema["$defs"][reference]["properties"]), (name, part)
