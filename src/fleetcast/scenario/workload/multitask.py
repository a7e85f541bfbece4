"""The workload of several tasks trained together: each task's data passes through modules, and tasks share modules."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.training import Count, Shape

Rows = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class Module(Spec):
    """A stack of equal transformer layers, trained once however many tasks pass through it.

    Attributes:
        layers: how many.
        hidden: elements of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; left out = heads.
        ffn: inner elements of the feed-forward part; left out as in `Shape`.
        gated: three projections (SwiGLU), not two with biases.
        vocab: rows of a head at its end; 0 = none.
        causal: a token attends to those before it alone, as in a decoder; an encoder's attend to all.
    """

    layers: Count
    hidden: Count
    heads: Count
    kv_heads: Count | None = None
    ffn: Count | None = None
    gated: bool = False
    vocab: Rows = 0
    causal: bool = False

    def model(self, sequence: int, path: str) -> Model:
        """Returns one layer of it as a model.

        Raises:
            SpecError: heads that do not divide.
        """
        shape = Shape(
            layers=1, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads, ffn=self.ffn, gated=self.gated,
            vocab=max(self.vocab, 1), learned_positions=False,
        )  # fmt: skip
        return shape.model(sequence, path)


class Pass(Spec):
    """What a task does with one module.

    Attributes:
        module: a name of ``workload.modules``.
        sequence: tokens of each sample there.
        name: of the pass; left out = the module's.
        after: passes of the same task whose output it reads; they stand before it.
    """

    module: str
    sequence: Count
    name: str = ""
    after: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.module


class Task(Spec):
    """One of the tasks.

    Attributes:
        name: of the task.
        batch: samples of an iteration.
        passes: what its samples go through.
    """

    name: str
    batch: Count
    passes: tuple[Pass, ...]


class Multitask(Spec):
    """Several tasks, one iteration of all of them at a time.

    Attributes:
        modules: what is trained: name -> module; tasks that name the same one share its weights.
        tasks: what is trained on.
        kind: "training".
    """

    modules: dict[str, Module]
    tasks: tuple[Task, ...]
    kind: Literal["training"] = "training"

    def check(self) -> None:
        """Refuses what cannot be run.

        Raises:
            SpecError: no task, a name used twice or unknown, or a pass that reads one behind it.
        """
        if not self.tasks:
            raise SpecError(
                "workload.tasks", "lists no task", value=[], limit="at least one", hint="Add [[workload.tasks]]"
            )
        seen: set[str] = set()
        for name, module in self.modules.items():
            module.model(1, f"workload.modules.{name}")
        for i, task in enumerate(self.tasks):
            path = f"workload.tasks.{i}"
            if task.name in seen:
                raise SpecError(
                    f"{path}.name", "is the name of another task", value=task.name, limit="names that differ"
                )
            seen.add(task.name)
            if not task.passes:
                raise SpecError(
                    f"{path}.passes", "is empty", value=[], limit="at least one pass",
                    hint='Write passes = [{ module = "...", sequence = 256 }]',
                )  # fmt: skip
            before: list[str] = []
            for j, one in enumerate(task.passes):
                where = f"{path}.passes.{j}"
                if one.module not in self.modules:
                    raise SpecError(
                        f"{where}.module", "is unknown", value=one.module,
                        limit=f"one of {', '.join(self.modules) or 'no modules'}",
                        hint=closest(one.module, self.modules) or "Add it to [workload.modules]",
                    )  # fmt: skip
                for name in one.after:
                    if name not in before:
                        raise SpecError(
                            f"{where}.after", "names no pass that stands before it", value=name,
                            limit=f"one of {', '.join(before) or 'none: it is the first'}", hint=closest(name, before),
                        )  # fmt: skip
                if one.label in before:
                    raise SpecError(
                        f"{where}.name", "is the name of another pass of the task", value=one.label,
                        limit="names that differ", hint='Write name = "..." beside module',
                    )  # fmt: skip
                before.append(one.label)
