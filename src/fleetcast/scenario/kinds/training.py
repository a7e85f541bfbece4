"""One model to train, a job that is known by what its steps do, or several tasks trained together."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.training_plan import TrainingPlan, read_training_plan
from fleetcast.scenario.workload.multitask import Multitask
from fleetcast.scenario.workload.training import Shape, Training


class TrainingScenario(Scenario, kw_only=True):
    """One model to train, and what is already decided of how.

    Attributes:
        workload: a model, its sequences, its batch.
        plan: what is already decided; a list means: search these values.
    """

    workload: Training
    plan: TrainingPlan = TrainingPlan()

    kind: ClassVar[str] = "training"
    about: ClassVar[str] = "one model to train"
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
    about: ClassVar[str] = "several tasks to train"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")


def read(parts: Parts) -> TrainingScenario | MultitaskScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    _check(parts.workload)
    parts.refuse_slo("training", '[objective] minimize = "time"')
    if "tasks" in parts.workload:
        return _several(parts)
    workload = convert(parts.workload, Training, "workload")
    workload.iterations()
    if isinstance(workload.model, Shape):
        workload.model.model(workload.sequence)
    parts.objective.goals(TRAINING, {})
    plan = read_training_plan(parts.plan)
    if plan.placement is not None and workload.features is None:
        raise SpecError(
            "plan.placement", "places a job that is known by its features, and this one trains a model",
            value=plan.placement, limit="a workload with features", hint="Leave it out: degrees place a model",
        )  # fmt: skip
    return TrainingScenario(workload=workload, plan=plan, **parts.shared)


def _several(parts: Parts) -> MultitaskScenario:
    workload = convert(parts.workload, Multitask, "workload")
    workload.check()
    for key, value in parts.plan.items():
        if key not in ("recompute", "dtype") or not isinstance(value, str):
            raise SpecError(
                f"plan.{key}", "is not decided of several tasks by a file", value=value,
                limit="recompute and dtype, one word each", hint="Leave it out: plan deals the devices to tasks",
            )  # fmt: skip
    parts.objective.goals(TRAINING, {})
    return MultitaskScenario(workload=workload, plan=read_training_plan(parts.plan), **parts.shared)


def _check(workload: dict[str, Any]) -> None:
    """Refuses a workload of which nothing, or two things at once, say what is trained."""
    if "tasks" in workload:
        if "model" in workload:
            raise SpecError(
                "workload.tasks", "stands beside workload.model", limit="one of them says what is trained",
                hint="Write the model as one of workload.modules",
            )  # fmt: skip
    elif ("features" in workload) != ("model" in workload):
        if "model" in workload and "batch" not in workload:
            raise SpecError("workload.batch", "is missing", hint="Add batch, the sequences of an iteration")
    elif "features" in workload:
        raise SpecError(
            "workload.features", "stands beside workload.model", limit="one of them says what a step does",
            hint="Leave features out: a model's layers are known",
        )  # fmt: skip
    else:
        raise SpecError("workload.model", "is missing", hint='Write e.g. model = "llama-3.1-70b"')
