"""A scenario file becomes a Scenario: fleet, workload, SLO, objective and what is already decided."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import convert, dump_toml, read_toml
from fleetcast.scenario.fleet.tree import Fleet
from fleetcast.scenario.kinds import functions as _functions
from fleetcast.scenario.kinds import graph as _graph
from fleetcast.scenario.kinds import jobs as _jobs
from fleetcast.scenario.kinds import serving as _serving
from fleetcast.scenario.kinds import stream as _stream
from fleetcast.scenario.kinds import training as _training
from fleetcast.scenario.kinds.functions import FunctionsScenario
from fleetcast.scenario.kinds.graph import GraphScenario
from fleetcast.scenario.kinds.jobs import JobsScenario
from fleetcast.scenario.kinds.pods import PodsScenario
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.kinds.server_jobs import ServerJobsScenario
from fleetcast.scenario.kinds.serving import ServingScenario
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.kinds.training import MultitaskScenario, TrainingScenario
from fleetcast.scenario.objective import Objective

__all__ = [
    "KINDS", "FunctionsScenario", "GraphScenario", "JobsScenario", "MultitaskScenario", "PodsScenario",
    "Scenario", "ServerJobsScenario", "ServingScenario", "StreamScenario", "TrainingScenario",
    "dump", "load",
    "load_functions", "load_jobs", "load_serving", "load_stream", "load_training", "serving",
]  # fmt: skip

Kind = TypeVar("Kind", bound=Scenario)
PARTS = ("name", "seed", "fleet", "workload", "slo", "objective", "plan")
READERS: Final[dict[str, Callable[[Parts], Scenario]]] = {
    "serving": _serving.read, "training": _training.read, "graph": _graph.read, "functions": _functions.read,
    "jobs": _jobs.read, "stream": _stream.read,
}  # fmt: skip
"""What reads each kind of workload that has a world."""
KINDS = ("serving", "training", "graph", "jobs", "functions", "federation", "stream")
"""Kinds of workload that a scenario may name."""
WITHOUT_FLEET = ("stream",)
"""Kinds whose workload says its own devices."""


def load(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> Scenario:
    """Returns the Scenario of a file, a TOML text (anything with a line break) or a table.

    Args:
        source: path of a .toml or .json file, text, or table.
        seed: instead of the file's.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory; names path, value, limit and next step.
    """
    folder, name = Path(), "scenario"
    if not isinstance(source, str | Path | Mapping):
        raise SpecError("scenario", "is neither a file, text nor a table", value=source, hint="Give a path")
    if isinstance(source, Mapping):
        table: Any = dict(source)
    elif isinstance(source, str) and "\n" in source:
        table = read_toml(source, "scenario")
    else:
        path = Path(source)
        text = read_text(path)
        folder, name = path.parent, path.stem
        table = _read_json(text, str(path)) if path.suffix == ".json" else read_toml(text, str(path))
    return _convert(table, name, folder, seed)


def load_serving(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> ServingScenario:
    """Returns the scenario of a file, a text or a table whose workload is requests; arguments and errors as `load`.

    Raises:
        Unsupported: another kind of workload.
    """
    return serving(load(source, seed=seed))


def load_training(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> TrainingScenario:
    """Returns the same where its workload is one model to train.

    Raises:
        Unsupported: another kind of workload.
    """
    return _only(load(source, seed=seed), TrainingScenario, "this question is about training one model")


def load_stream(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> StreamScenario:
    """Returns the same where its workload is a pipeline from sensors to storage.

    Raises:
        Unsupported: another kind of workload.
    """
    return _only(load(source, seed=seed), StreamScenario, "this question is about a pipeline of sensors")


def load_functions(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> FunctionsScenario:
    """Returns the same where its workload is functions.

    Raises:
        Unsupported: another kind of workload.
    """
    return _only(load(source, seed=seed), FunctionsScenario, "this question is about functions")


def load_jobs(source: str | Path | Mapping[str, Any], *, seed: int | None = None) -> JobsScenario:
    """Returns the same where its workload is many jobs.

    Raises:
        Unsupported: another kind of workload.
    """
    return _only(load(source, seed=seed), JobsScenario, "this question is about many jobs")


def serving(scenario: Scenario, asked: str = "This question") -> ServingScenario:
    """Returns a scenario that has requests.

    Args:
        scenario: of any kind.
        asked: who asks, for the error.

    Raises:
        Unsupported: another kind of workload.
    """
    return _only(scenario, ServingScenario, f"{asked[:1].lower()}{asked[1:]} is about requests")


def _only(scenario: Scenario, kind: type[Kind], asked: str) -> Kind:
    if not isinstance(scenario, kind):
        raise Unsupported(
            f"workload.kind = '{scenario.kind}': {asked}",
            f"It takes a workload of kind '{kind.kind}', {kind.about}",
        )
    return scenario


def dump(scenario: Scenario) -> str:
    """Returns the TOML text of a scenario; `load` of it gives the scenario back (paths still relative)."""
    return dump_toml(scenario.table())


def _read_json(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(path, f"is not JSON: {error}", hint="Check quotes and brackets there") from None


def _convert(table: Any, name: str, folder: Path, seed: int | None) -> Scenario:
    if not isinstance(table, dict):
        raise SpecError(name, "is not a table", value=table, limit=f"parts: {', '.join(PARTS)}")
    for key in table:
        if key not in PARTS:
            near = closest(str(key), PARTS)
            raise SpecError(
                str(key),
                "is not a part of a scenario",
                limit=f"parts: {', '.join(PARTS)}",
                hint=near,
            )
    tables = {key: table.get(key, {}) for key in ("fleet", "workload", "slo", "objective", "plan")}
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise SpecError(key, "is not a table", value=value, limit=f"write [{key}]")
    kind = _kind(tables["workload"])
    for key, example in (
        ("fleet", 'devices = "8x h100-sxm"'),
        ("workload", 'model = "llama-3.1-70b"'),
    ):
        bare = tables["workload"].get("kind") in WITHOUT_FLEET or not {"pods", "servers"}.isdisjoint(tables["workload"])
        if key not in table and not (key == "fleet" and bare):
            raise SpecError(key, "is missing", hint=f"Add [{key}] with e.g. {example}")
    number = table.get("seed", 0) if seed is None else seed
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise SpecError("seed", "is not a whole number", value=number, limit="0 to 2^63")
    label = table.get("name", name)
    if not isinstance(label, str):
        raise SpecError("name", "is not text", value=label, limit="a name for reports in quotes")
    shared = {
        "fleet": convert(tables["fleet"], Fleet, "fleet"),
        "objective": convert(tables["objective"], Objective, "objective"),
        "name": label,
        "seed": number,
        "folder": str(folder),
    }
    return READERS[kind](Parts(tables["workload"], tables["plan"], tables["slo"], shared))


def _kind(workload: dict[str, Any]) -> str:
    kind = workload.get("kind", "serving")
    if kind not in KINDS:
        raise SpecError(
            "workload.kind", "is unknown", value=kind, limit=f"one of {', '.join(KINDS)}",
            hint=closest(str(kind), KINDS),
        )  # fmt: skip
    if kind not in READERS:
        known = " and ".join(f"'{name}'" for name in READERS)
        raise Unsupported(f"workload.kind = '{kind}' has no engine yet", f"This version plans and simulates {known}")
    return str(kind)
