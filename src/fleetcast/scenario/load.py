"""A scenario file becomes a Scenario: fleet, workload, SLO, objective and what is already decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, dump_toml, read_toml, to_builtins
from fleetcast.scenario.fleet.tree import Fleet
from fleetcast.scenario.objective import Objective, Slo
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.scenario.workload.serving import Serving

PARTS = ("name", "seed", "fleet", "workload", "slo", "objective", "plan")
KINDS = ("serving", "training", "graph", "jobs", "functions", "federation", "stream")
"""Kinds of workload a scenario may name; only the first has an engine so far."""


class Scenario(Spec):
    """One question: this fleet, this workload, these limits, this goal, these choices already made.

    Attributes:
        fleet: devices, links, prices, grid.
        workload: a model and its requests.
        slo: upper limits on latency.
        objective: what is minimised or maximised.
        plan: what is already decided; a list means: search these values.
        name: shown in reports; the file's stem by default.
        seed: of every random stream.
        folder: where relative paths start.
    """

    fleet: Fleet
    workload: Serving
    slo: Slo = Slo()
    objective: Objective = Objective()
    plan: Plan = Plan()
    name: str = "scenario"
    seed: int = 0
    folder: str = "."

    def with_plan(self, plan: Plan) -> Scenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)

    def table(self) -> dict[str, Any]:
        """Returns the table that a file would hold."""
        table: dict[str, Any] = {"name": self.name}
        if self.seed:
            table["seed"] = self.seed
        for part in ("fleet", "workload", "slo", "objective"):
            if rows := to_builtins(getattr(self, part)):
                table[part] = rows
        if plan := self.plan.table():
            table["plan"] = plan
        table["workload"] = {"kind": "serving"} | table["workload"]
        return table


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
    parts = {key: table.get(key, {}) for key in ("fleet", "workload", "slo", "objective", "plan")}
    for key, value in parts.items():
        if not isinstance(value, dict):
            raise SpecError(key, "is not a table", value=value, limit=f"write [{key}]")
    for key, example in (
        ("fleet", 'devices = "8x h100-sxm"'),
        ("workload", 'model = "llama-3.1-70b"'),
    ):
        if key not in table:
            raise SpecError(key, "is missing", hint=f"Add [{key}] with e.g. {example}")
    _check_kind(parts["workload"])
    number = table.get("seed", 0) if seed is None else seed
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise SpecError("seed", "is not a whole number", value=number, limit="0 to 2^63")
    label = table.get("name", name)
    if not isinstance(label, str):
        raise SpecError("name", "is not text", value=label, limit="a name for reports in quotes")
    workload = convert(parts["workload"], Serving, "workload")
    objective = convert(parts["objective"], Objective, "objective")
    objective.goals()
    slo = convert(parts["slo"], Slo, "slo")
    slo.check()
    return Scenario(
        fleet=convert(parts["fleet"], Fleet, "fleet"), workload=workload,
        slo=slo, objective=objective,
        plan=read_plan(parts["plan"]), name=label, seed=number, folder=str(folder),
    )  # fmt: skip


def _check_kind(workload: dict[str, Any]) -> None:
    kind = workload.get("kind", "serving")
    if kind not in KINDS:
        raise SpecError(
            "workload.kind", "is unknown", value=kind, limit=f"one of {', '.join(KINDS)}",
            hint=closest(str(kind), KINDS),
        )  # fmt: skip
    if kind != "serving":
        raise Unsupported(
            f"workload.kind = '{kind}' has no engine yet",
            "This version plans and simulates 'serving'",
        )
    if "model" not in workload:
        raise SpecError("workload.model", "is missing", hint='Write e.g. model = "llama-3.1-70b"')
