"""JSON Schema of scenario files, so that editors complete keys and underline mistakes."""

from __future__ import annotations

import inspect
import typing
from types import ModuleType
from typing import Any

import msgspec

from fleetcast.base.spec import kinds
from fleetcast.base.units import Quantity
from fleetcast.policy import batch, evict, memory, power, route, scale, share, speculate
from fleetcast.policy.order import requests as order
from fleetcast.policy.order import tasks
from fleetcast.policy.place import gangs, pods
from fleetcast.policy.route import invocations as routes
from fleetcast.scenario.kinds.functions import GOALS as OF_FUNCTIONS
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.scenario.kinds.jobs import GOALS as OF_JOBS
from fleetcast.scenario.kinds.jobs import RAISED as RAISED_BY_JOBS
from fleetcast.scenario.kinds.pods import GOALS as OF_PODS
from fleetcast.scenario.kinds.pods import RAISED as RAISED_BY_PODS
from fleetcast.scenario.kinds.stream import LOWERED, RAISED
from fleetcast.scenario.load import WITHOUT_FLEET, PodsScenario, ServingScenario
from fleetcast.scenario.objective import MAXIMIZE, MINIMIZE, TRAINING
from fleetcast.scenario.plan import COUNTS, DTYPES, KV_DTYPES, OVERLAPS, PHASES, PLACEMENTS
from fleetcast.scenario.training_plan import CHOICES
from fleetcast.scenario.workload.graphs import generators
from fleetcast.scenario.workload.invocations import generators as invocations
from fleetcast.scenario.workload.job_traces import generators as arriving
from fleetcast.view.worlds import WORLDS

FAMILIES: dict[str, ModuleType] = {
    "batch": batch, "order": order, "memory": memory, "route": route, "power": power,
    "speculate": speculate, "evict": evict,
}  # fmt: skip


def scenario_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a scenario file; ``workload.kind`` says which of its parts hold."""
    worlds = tuple(WORLDS)
    _, parts = msgspec.json.schema_components(worlds, ref_template="#/$defs/{name}")
    for struct in dict.fromkeys(struct for world in worlds for struct in _structs(world)):
        _describe(parts[struct.__name__]["properties"], struct)
    parts["Plan"] = _plan(parts)
    for name, known in CHOICES:
        said = parts["TrainingPlan"]["properties"][name].get("description", "")
        one = {"enum": list(known)}
        listed = {"type": "array", "items": _one_or_several(one)} if name in ("offload", "overlap") else None
        parts["TrainingPlan"]["properties"][name] = {"description": said} | (listed or _one_or_several(one))
    ordered = parts["GraphPlan"]["properties"]
    ordered["order"] = {"description": ordered["order"].get("description", "")} | _policy(tasks, several=True)
    called = parts["Functions"]["properties"]["invocations"]
    parts["Functions"]["properties"]["invocations"] = {"description": called.get("description", "")} | {
        "anyOf": [{"type": "string"}, _policy(invocations, several=False)]
    }
    for name, family in (("scale", scale), ("route", routes)):
        said = parts["FunctionsPlan"]["properties"][name].get("description", "")
        parts["FunctionsPlan"]["properties"][name] = {"description": said} | _policy(family, several=True)
    traced = parts["JobList"]["properties"]["trace"]
    parts["JobList"]["properties"]["trace"] = {"description": traced.get("description", "")} | {
        "anyOf": [{"type": "string"}, _policy(arriving, several=False)]
    }
    for name, family in (("share", share), ("place", gangs)):
        said = parts["JobsPlan"]["properties"][name].get("description", "")
        parts["JobsPlan"]["properties"][name] = {"description": said} | _policy(family, several=True)
    lying = parts["PodsPlan"]["properties"]
    lying["place"] = {"description": lying["place"].get("description", "")} | _policy(pods, several=True)
    made = parts["Graph"]["properties"]
    made["graph"] = {"description": made["graph"].get("description", "")} | _policy(generators, several=False)
    made["graph"]["anyOf"].append({"type": "string"})
    for forms in (made["graph"]["anyOf"], ordered["order"]["anyOf"][0]["anyOf"]):
        forms[:] = [form for form in forms if "minProperties" not in form]  # here no engine has a method of its own
    goals_of = (
        ("minimize", MINIMIZE | TRAINING | GOALS | OF_FUNCTIONS | OF_JOBS | OF_PODS | LOWERED),
        ("maximize", MAXIMIZE | RAISED | RAISED_BY_JOBS | RAISED_BY_PODS),
    )
    for key, goals in goals_of:
        parts["Objective"]["properties"][key] = _one_or_several({"enum": list(goals)})
    bodies = [parts.pop(world.__name__)["properties"] for world in worlds]
    own = ("workload", "slo", "plan")
    common = {name: value for name, value in bodies[0].items() if name not in (*own, "folder")}
    by_kind: dict[str, list[Any]] = {}
    for world, properties in zip(worlds, bodies, strict=True):
        mine = {name: properties[name] for name in own if name in properties}
        mine["plan"].pop("default", None)
        by_kind.setdefault(world.kind, []).append({"properties": mine})
    body: dict[str, Any] = {"title": "Scenario", "type": "object"}
    body |= {"properties": common | {name: {} for name in own}, "additionalProperties": False}
    body |= {"required": ["workload"], "allOf": [_rule(kind, found) for kind, found in by_kind.items()]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | body | {"$defs": parts}


def _rule(kind: str, bodies: list[Any]) -> dict[str, Any]:
    """Returns what holds of a kind's tables; a workload without a kind is of the first, requests."""
    said: dict[str, Any] = {"properties": {"workload": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}}}
    if kind == ServingScenario.kind:
        said = {"anyOf": [said, {"properties": {"workload": {"not": {"required": ["kind"]}}}}]}
    then = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    bare = kind in (*WITHOUT_FLEET, PodsScenario.kind)  # pods may bring their nodes
    return {"if": said, "then": then if bare else then | {"required": ["fleet"]}}


def _describe(properties: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Lets quantities be text with a unit, and puts the docstring's words beside the keys."""
    words = _attributes(struct)
    for name, hint in typing.get_type_hints(struct, include_extras=True).items():
        if name not in properties:
            continue
        unit = _unit(hint)
        if unit is not None and "additionalProperties" in properties[name]:
            properties[name]["additionalProperties"] = _quantity(unit)
        elif unit is not None:
            properties[name] = _quantity(unit)
        if name in words:
            properties[name]["description"] = words[name]


def _plan(parts: dict[str, Any]) -> dict[str, Any]:
    """A plan is flat, or has pools; both with a route and a power policy."""
    pool = parts["Pool"]["properties"]
    for name in COUNTS:
        pool[name] = pool[name] | _one_or_several({"type": "integer", "minimum": 1})
        pool[name].pop("default", None)
    for name, known in (("dtype", DTYPES), ("kv_dtype", KV_DTYPES), ("expert_placement", PLACEMENTS)):
        pool[name] = pool[name] | _one_or_several({"enum": list(known)})
    for name in ("batch", "order", "memory", "speculate"):
        pool[name] = {"description": pool[name].get("description", "")} | _policy(FAMILIES[name], several=True)
    caching = _policy(FAMILIES["evict"], several=True)
    caching["anyOf"][0]["anyOf"].append({"enum": ["off"]})
    pool["prefix_cache"] = {"description": pool["prefix_cache"].get("description", "")} | caching
    nano = {"type": "object", "properties": {"kind": {"enum": list(OVERLAPS)}}, "required": ["kind"]}
    pool["overlap"] = pool["overlap"] | _one_or_several({"anyOf": [{"enum": list(OVERLAPS)}, nano]})
    chosen = {
        "route": _policy(FAMILIES["route"], several=True), "power": _policy(FAMILIES["power"], several=True),
        "phases": _one_or_several({"enum": list(PHASES)}),
    }  # fmt: skip
    pools = {"pools": {"type": "array", "items": {"$ref": "#/$defs/Pool"}, "minItems": 1}}
    stages = {"cascade": {"type": "array", "items": {"$ref": "#/$defs/Stage"}}}
    return {"type": "object", "properties": pool | pools | chosen | stages, "additionalProperties": False}


def _policy(family: ModuleType, *, several: bool) -> dict[str, Any]:
    found = kinds(family)
    tables: list[dict[str, Any]] = []
    for kind, made in found.items():
        keys = {n: {"default": p.default} for n, p in inspect.signature(made).parameters.items()}
        said = (inspect.getdoc(made) or "").split("\n")[0]
        properties = {"kind": {"const": kind, "description": said}} | keys
        tables.append({"type": "object", "properties": properties, "required": ["kind"]})
    # Without a kind the engine's own method takes the keys.
    keyless: dict[str, Any] = {name: {} for table in tables for name in table["properties"] if name != "kind"}
    if keyless:
        tables.append({"type": "object", "properties": keyless, "additionalProperties": False, "minProperties": 1})
    one = {"anyOf": [{"enum": list(found)}, {"type": "string", "pattern": ":"}, *tables]}
    return _one_or_several(one) if several else one


def _one_or_several(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _quantity(unit: str) -> dict[str, Any]:
    text = {"type": "string", "description": f"a number with a unit of {unit}"}
    return {"anyOf": [{"type": "number", "minimum": 0, "description": unit}, text]}


def _unit(hint: Any) -> str | None:
    for item in (hint, *typing.get_args(hint)):
        for mark in getattr(item, "__metadata__", ()):
            if isinstance(mark, Quantity):
                return mark.unit
    return None


def _structs(top: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """``top`` and every Struct that it holds."""
    found: list[type[msgspec.Struct]] = []
    waiting: list[Any] = [top]
    while waiting:
        item = waiting.pop()
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            if item not in found:
                found.append(item)
                waiting += typing.get_type_hints(item).values()
        else:
            waiting += typing.get_args(item)
    return found


def _attributes(struct: type) -> dict[str, str]:
    """Returns the sentences under "Attributes:" of a class and those above it, by name."""
    above = _attributes(struct.__base__) if struct.__base__ is not None and struct.__base__ is not object else {}
    text = inspect.cleandoc(struct.__doc__ or "")
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:")[2].splitlines():
        bare = line.strip()
        head, colon, rest = bare.partition(":")
        if line.startswith("    ") and not line.startswith("        ") and colon and head.isidentifier():
            name = head
            found[name] = rest.strip()
        elif name and bare:
            found[name] += f" {bare}"
    return above | found
