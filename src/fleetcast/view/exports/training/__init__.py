"""Training plans as what an operator pastes: arguments of Megatron-LM, a DeepSpeed config, a torchtitan file, torchrun.

`run_of` reads everything an exporter needs off a complete plan; each target is one file with one function
``export(run) -> Export``. What a target cannot say stands in its notes; what it would do otherwise is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleetcast.base.errors import Infeasible, SpecError, Unsupported, closest
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.blocks import Attention, Ffn
from fleetcast.scenario.workload.models import Model
from fleetcast.sim.training.setting import Setting
from fleetcast.view.exports import Export

TARGETS = ("megatron", "deepspeed", "torchtitan", "torchrun")


@dataclass(frozen=True)
class Run:
    """A complete plan as an exporter reads it.

    Attributes:
        name: of the job.
        plan: complete.
        model: what is trained.
        attention, ffn: of its layers, which are alike.
        asked: the name of the model in the scenario, "" = written out.
        sequence: tokens of a sequence.
        batch: sequences of an iteration.
        steps: iterations, None = not said.
        node: devices of a node.
        nodes: how many.
        network: the link between them.
        device: catalogue id.
        groups: names of the fleet's groups, in the order in which stages lie on them.
        stages: layers of each stage, where stages lie each on one group; () = as equal as they divide.
    """

    name: str
    plan: TrainingPlan
    model: Model
    attention: Attention
    ffn: Ffn
    asked: str
    sequence: int
    batch: int
    steps: int | None
    node: int
    nodes: int
    network: str
    device: str
    groups: tuple[str, ...]
    stages: tuple[int, ...] = ()

    def degree(self, name: str) -> int:
        """Returns a whole number of the plan: ``tensor_parallel``, ``micro_batch``, ``zero``, ..."""
        value = getattr(self.plan, name)
        assert isinstance(value, int)
        return value

    def has(self, name: str, word: str) -> bool:
        """Returns whether a list of the plan, ``offload`` or ``overlap``, holds a word."""
        return word in (getattr(self.plan, name) or ())

    @property
    def accumulation(self) -> int:
        """Micro-batches that a copy of the model works through in an iteration."""
        return self.batch // (self.degree("data_parallel") * self.degree("micro_batch"))


def export(state: Setting, plan: TrainingPlan, target: str) -> Export:
    """Returns a complete training plan for ``target``.

    Raises:
        SpecError: unknown target.
        Infeasible: the plan does not fit in memory.
        Unsupported: the target has no way to run this plan.
    """
    if target not in TARGETS:
        raise SpecError(
            "--to", "is unknown for training", value=target, limit=f"one of {', '.join(TARGETS)}",
            hint=closest(target, TARGETS),
        )  # fmt: skip
    from fleetcast.view.exports.training import deepspeed, megatron, torchrun, torchtitan

    make: dict[str, Callable[[Run], Export]] = {
        "megatron": megatron.export, "deepspeed": deepspeed.export, "torchtitan": torchtitan.export,
        "torchrun": torchrun.export,
    }  # fmt: skip
    return make[target](run_of(state, plan))


def run_of(state: Setting, plan: TrainingPlan) -> Run:
    """Returns a complete plan as exporters read it.

    Raises:
        Infeasible: it does not fit in memory.
    """
    from fleetcast.sim.training.completing import columns
    from fleetcast.sim.training.world import across, simulate

    outcome = simulate(state, plan)
    if over := outcome.provenance["over"]:
        raise Infeasible(
            over["constraint"], need=over["need"], have=over["have"], unit=over["unit"],
            hint=f"Most of it is {over['term']}: recompute, share out more (zero), or raise a degree",
        )  # fmt: skip
    for key, what in (("shards", "sharing out level by level"), ("islands", "experts that train apart")):
        if getattr(plan, key) is not None:
            raise Unsupported(f"no trainer is told here of {what} (plan.{key})", f"Plan without plan.{key}")
    block = next((block for block in state.model.blocks if block.attention is not None), None)
    if block is None or block.attention is None:
        raise Unsupported(
            f"no trainer is told here of {state.model.id}, which has no attention", "Choose another model"
        )
    work, group = state.workload, state.group
    mixed = across(state, plan, columns(plan), state.job(str(plan.dtype))) if len(state.tree.groups) > 1 else None
    placement = None if mixed is None else mixed.placement
    at = range(len(state.tree.groups)) if placement is None else placement.groups
    names = [state.tree.groups[i].name for i in at]
    return Run(
        name=state.scenario.name, plan=plan, model=state.model, attention=block.attention, ffn=block.ffn,
        asked=work.model if isinstance(work.model, str) else "", sequence=work.sequence, batch=work.batch,
        steps=work.iterations(), node=min(group.node, group.count), nodes=group.nodes, network=group.network.name,
        device=group.device.id, groups=tuple(dict.fromkeys(names)),
        stages=() if placement is None else placement.layers,
    )  # fmt: skip


def placed(run: Run) -> list[str]:
    """Returns in a sentence which stages there are, where those of a pipeline lie each on one group."""
    if not run.stages:
        return []
    counts = "+".join(map(str, run.stages))
    return [f"The pipeline is the outermost axis of ranks; its stages of {counts} layers lie each on one group."]


def launch(run: Run, script: Sequence[str]) -> list[str]:
    """Returns the torchrun words that start ``script`` on every device; the same on each node."""
    words = ["torchrun", "--nproc-per-node", str(run.node)]
    if run.nodes > 1:
        words += [
            "--nnodes", str(run.nodes), "--rdzv-backend", "c10d", "--rdzv-id", run.name or "job", "--rdzv-endpoint",
            "$HEAD:29500",
        ]  # fmt: skip
    return [*words, *script]


def shell(run: Run, head: str, words: Sequence[str], notes: Sequence[str], env: Sequence[str] = ()) -> Export:
    """Returns a shell script of one command, and the same as data.

    Args:
        run: the job.
        head: what the script is for.
        words: the command.
        notes: what the reader must know; comments at the top.
        env: ``NAME=value`` lines before it.
    """
    lines = ["#!/bin/sh", f"# {head}", *(f"# {note}" for note in notes)]
    if len(run.groups) > 1:
        lines.append(f"# Number the nodes group by group, first {', '.join(run.groups)}: stages follow that order.")
    if run.nodes > 1:
        lines.append(f"# Run it on each of the {run.nodes} nodes; HEAD is the address of one of them.")
        lines += ["", ': "${HEAD:?set HEAD to the address of the first node}"']
    lines += ["", *(f"export {line}" for line in env), *([""] if env else []), wrapped(words)]
    return Export("\n".join(lines) + "\n", {"argv": list(words), "env": list(env), "notes": list(notes)}, "sh")


SPLIT = ("$DATA_ARGS",)
"""Variables of several words, which stand without quotes."""


def wrapped(words: Sequence[str]) -> str:
    """Returns a command over several lines: the script, and each option with its values, on a line of its own."""
    lines: list[str] = []
    for word in words:
        quoted = word if word in SPLIT else f'"{word}"' if word.startswith("$") else shlex.quote(word)
        if word.startswith("--") or word.endswith(".py") or word in SPLIT or not lines:
            lines.append(quoted)
        else:
            lines[-1] += f" {quoted}"
    return " \\\n    ".join(lines)
