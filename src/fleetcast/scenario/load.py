"""A scenario file becomes a Scenario: fleet, workload, SLO, objective and what is already decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, dump_toml, read_toml, to_builtins
from fleetcast.scenario.fleet.tree import Fleet
from fleetcast.scenario.objective import TRAINING, Objective, Slo
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.scenario.training_plan import TrainingPlan, read_training_plan
from fleetcast.scenario.workload.multitask import Multitask
from fleetcast.scenario.workload.serving import Serving
from fleetcast.scenario.workload.training import Shape, Training

PARTS = ("name", "seed", "fleet", "workload", "slo", "objective", "plan")
KINDS = ("serving", "training", "graph", "jobs", "functions", "federation", "stream")
"""Kinds of workload a scenario may name; the first two have a world so far."""


class Scenario(Spec, kw_only=True):
    """One question: this fleet, this workload, this goal. The workload's kind says which class below it is.

    Attributes:
        fleet: devices, links, prices, grid.
        objective: what is minimised or maximised.
        name: shown in reports; the file's stem by default.
        seed: of every random stream.
        folder: where relative paths start.
    """

    fleet: Fleet
    objective: Objective = Objective()
    name: str = "scenario"
    seed: int = 0
    folder: str = "."

    kind: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()

    def table(self) -> dict[str, Any]:
        """Returns the table that a file would hold."""
        table: dict[str, Any] = {"name": self.name}
        if self.seed:
            table["seed"] = self.seed
        for part in self.parts:
            value = getattr(self, part)
            if rows := value.table() if hasattr(value, "table") else to_builtins(value):
                table[part] = rows
        table["workload"] = {"kind": self.kind} | table["workload"]
        return table


class ServingScenario(Scenario, kw_only=True):
    """Requests for a model, limits on their latency, and what is already decided.

    Attributes:
        workload: a model and its requests.
        slo: upper limits on latency.
        plan: what is already decided; a list means: search these values.
    """

    workload: Serving
    slo: Slo = Slo()
    plan: Plan = Plan()

    kind: ClassVar[str] = "serving"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "slo", "objective", "plan")

    def with_plan(self, plan: Plan) -> ServingScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


class TrainingScenario(Scenario, kw_only=True):
    """One model to train, and what is already decided of how.

    Attributes:
        workload: a model, its sequences, its batch.
        plan: what is already decided; a list means: search these values.
    """

    workload: Training
    plan: TrainingPlan = TrainingPlan()

    kind: ClassVar[str] = "training"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: TrainingPlan) -> TrainingScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


class MultitaskScenario(Scenario, kw_only=True):
    """Several tasks to train together, and what is already decided of how.

    Attributes:
        workload: modules and tasks.
        plan: recompute and dtype, where they are decided.
    """

    workload: Multitask
    plan: TrainingPlan = TrainingPlan()

    kind: ClassVar[str] = "training"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")


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
    """Returns the scenario of a file, a text or a table whose workload is one model to train; as `load`.

    Raises:
        Unsupported: another kind of workload.
    """
    scenario = load(source, seed=seed)
    if not isinstance(scenario, TrainingScenario):
        raise Unsupported(
            f"workload.kind = '{scenario.kind}': this question is about training one model",
            "It takes a workload of kind 'training' with a model or features",
        )
    return scenario


def serving(scenario: Scenario, asked: str = "This question") -> ServingScenario:
    """Returns a scenario that has requests.

    Args:
        scenario: of any kind.
        asked: who asks, for the error.

    Raises:
        Unsupported: another kind of workload.
    """
    if not isinstance(scenario, ServingScenario):
        raise Unsupported(
            f"workload.kind = '{scenario.kind}': {asked[:1].lower()}{asked[1:]} is about requests",
            "It takes a workload of kind 'serving'",
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
    fleet = convert(parts["fleet"], Fleet, "fleet")
    objective = convert(parts["objective"], Objective, "objective")
    if parts["workload"].get("kind", "serving") == "training":
        return _training(parts, fleet, objective, label, number, str(folder))
    workload = convert(parts["workload"], Serving, "workload")
    objective.goals()
    slo = convert(parts["slo"], Slo, "slo")
    slo.check()
    return ServingScenario(
        fleet=fleet, workload=workload, slo=slo, objective=objective, plan=read_plan(parts["plan"]), name=label,
        seed=number, folder=str(folder),
    )  # fmt: skip


def _training(
    parts: dict[str, Any], fleet: Fleet, objective: Objective, name: str, seed: int, folder: str
) -> TrainingScenario | MultitaskScenario:
    if parts["slo"]:
        key = next(iter(parts["slo"]))
        raise SpecError(
            f"slo.{key}", "limits the latency of requests, and training has none", value=parts["slo"][key],
            limit="an objective", hint='Write [objective] minimize = "time"',
        )  # fmt: skip
    if "tasks" in parts["workload"]:
        return _multitask(parts, fleet, objective, name, seed, folder)
    workload = convert(parts["workload"], Training, "workload")
    workload.iterations()
    if isinstance(workload.model, Shape):
        workload.model.model(workload.sequence)
    objective.goals(TRAINING, {})
    plan = read_training_plan(parts["plan"])
    if plan.placement is not None and workload.features is None:
        raise SpecError(
            "plan.placement", "places a job that is known by its features, and this one trains a model",
            value=plan.placement, limit="a workload with features", hint="Leave it out: degrees place a model",
        )  # fmt: skip
    return TrainingScenario(
        fleet=fleet, workload=workload, objective=objective, plan=plan, name=name, seed=seed, folder=folder,
    )  # fmt: skip


def _multitask(
    parts: dict[str, Any], fleet: Fleet, objective: Objective, name: str, seed: int, folder: str
) -> MultitaskScenario:
    workload = convert(parts["workload"], Multitask, "workload")
    workload.check()
    for key, value in parts["plan"].items():
        if key not in ("recompute", "dtype") or not isinstance(value, str):
            raise SpecError(
                f"plan.{key}", "is not decided of several tasks by a file", value=value,
                limit="recompute and dtype, one word each", hint="Leave it out: plan deals the devices to tasks",
            )  # fmt: skip
    objective.goals(TRAINING, {})
    return MultitaskScenario(
        fleet=fleet, workload=workload, objective=objective, plan=read_training_plan(parts["plan"]), name=name,
        seed=seed, folder=folder,
    )  # fmt: skip


def _check_kind(workload: dict[str, Any]) -> None:
    kind = workload.get("kind", "serving")
    if kind not in KINDS:
        raise SpecError(
            "workload.kind", "is unknown", value=kind, limit=f"one of {', '.join(KINDS)}",
            hint=closest(str(kind), KINDS),
        )  # fmt: skip
    if kind not in ("serving", "training"):
        raise Unsupported(
            f"workload.kind = '{kind}' has no engine yet",
            "This version plans and simulates 'serving' and 'training'",
        )
    if kind == "training" and "tasks" in workload:
        if "model" in workload:
            raise SpecError(
                "workload.tasks", "stands beside workload.model", limit="one of them says what is trained",
                hint="Write the model as one of workload.modules",
            )  # fmt: skip
        return
    if kind == "training" and ("features" in workload) != ("model" in workload):
        if "model" in workload and "batch" not in workload:
            raise SpecError("workload.batch", "is missing", hint="Add batch, the sequences of an iteration")
        return
    if kind == "training" and "features" in workload:
        raise SpecError(
            "workload.features", "stands beside workload.model", limit="one of them says what a step does",
            hint="Leave features out: a model's layers are known",
        )  # fmt: skip
    if "model" not in workload:
        raise SpecError("workload.model", "is missing", hint='Write e.g. model = "llama-3.1-70b"')
