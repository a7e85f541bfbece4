"""The JSON Schema that editors read."""

import tomllib

import pytest

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
    plan = schema["$defs"]["TrainingPlan"]["properties"]
    assert plan["recompute"]["anyOf"][0]["enum"] == ["none", "selective", "full"]
    assert plan["offload"]["items"]["anyOf"][0]["enum"] == ["weights", "activations", "optimizer"]
    assert "time" in schema["$defs"]["Objective"]["properties"]["minimize"]["anyOf"][0]["enum"]
    assert {item.get("type") for item in schema["$defs"]["Links"]["properties"]["inter"]["anyOf"]} == {
        "number",
        "string",
    }


@pytest.mark.parametrize("name", examples())
def test_editors_accept_the_examples(name):
    jsonschema = pytest.importorskip("jsonschema")
    table = tomllib.loads(examples()[name].read_text())
    validator = jsonschema.Draft202012Validator(scenario_schema())
    assert [error.message for error in validator.iter_errors(table)] == []
    for part in ("workload", "plan"):
        wrong = table | {part: table.get(part, {}) | {"no_such_key": 1}}
        assert list(validator.iter_errors(wrong)), part
    other = {"serving": "training"}.get(table["workload"].get("kind", "serving"), "serving")
    assert list(validator.iter_errors(table | {"workload": table["workload"] | {"kind": other}}))
