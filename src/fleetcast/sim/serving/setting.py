"""A scenario with everything looked up once: tree, models, requests, and what each pool's replicas cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build
from fleetcast.cost.drafted import with_drafts
from fleetcast.cost.engine import Engine, engine
from fleetcast.cost.memory import Memory, layout_memory, misfit
from fleetcast.cost.overlap.nano import nano_of
from fleetcast.cost.step import StepCost, step_cost
from fleetcast.policy import batch, memory, order
from fleetcast.scenario.fleet.failures import Downtime
from fleetcast.scenario.fleet.signals import Signal, signal
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.load import Scenario
from fleetcast.scenario.plan import Pool, clock_of, pool_label
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.arrivals import traffic
from fleetcast.scenario.workload.exits import exits_of
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import BITS, Precision, as_engine, quality_lost
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.drafting import Speculation, checked, drafter_costs, speculation_of

DEFAULT_ENGINE = "vllm-1"
FAMILIES = {"batch": batch, "order": order, "memory": memory}
"""Policies a pool carries; the route lies above the pools."""
METHODS = {"batch": "compose", "order": "key", "memory": "victim", "route": "choose", "power": "cap"}
"""The one decision method of each family."""


@dataclass(frozen=True)
class Server:
    """A complete pool, resolved: what its replicas run and what it costs them."""

    pool: Pool
    group: Group
    model: Model
    engine: Engine
    layout: Layout
    precision: Precision
    kv_dtype: str
    batch: Any
    order: Any
    memory: Any
    room: Memory
    cost: StepCost
    speculation: Speculation | None = None


@dataclass
class Setting:
    """A scenario resolved: tree, models, requests, grid. Caches what plans share; holds no result.

    Attributes:
        overlaps: nano-batches that `search.overlap` has chosen, by layout.
        downtimes: when replicas are down, by group and the units that they stand on.
    """

    scenario: Scenario
    tree: Tree
    model: Model
    requests: Requests
    overlaps: dict[Any, Any] = field(default_factory=dict, repr=False)
    downtimes: dict[Any, Downtime] = field(default_factory=dict, repr=False)
    _servers: dict[Any, Server] = field(default_factory=dict, repr=False)
    _models: dict[str, Model] = field(default_factory=dict, repr=False)
    _kernels: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def longest(self) -> int:
        """Prompt and output tokens of the longest request."""
        return int((self.requests.prompt + self.requests.output).max())

    @cached_property
    def grid(self) -> Signal:
        """Carbon intensity of the fleet's grid."""
        return signal(self.tree.grid, self.tree.base or Path(self.scenario.folder))

    @cached_property
    def tokens(self) -> tuple[int, int]:
        """Prompt and output tokens of all requests."""
        return int(self.requests.prompt.sum()), int(self.requests.output.sum())

    def model_named(self, name: str | None, path: str = "plan.model") -> Model:
        """Returns the workload's model, or another one a pool names at ``path``."""
        if name is None or name == self.scenario.workload.model:
            return self.model
        if name not in self._models:
            self._models[name] = model_at(name, Path(self.scenario.folder), path)
        return self._models[name]

    def group_of(self, pool: Pool, path: str = "plan.on") -> Group:
        """Returns the group of the fleet that a pool runs on.

        Raises:
            SpecError: the fleet has several groups and the pool names none, or one that is not there.
        """
        if pool.on is not None:
            return self.tree.group(pool.on, path)
        if len(self.tree.groups) > 1:
            names = ", ".join(g.name for g in self.tree.groups)
            raise SpecError(
                path,
                "is missing",
                limit=f"the fleet has several groups: {names}",
                hint="Add e.g. on",
            )
        return self.tree.groups[0]

    def server(self, pool: Pool) -> Server:
        """Returns what a complete pool runs and costs, from the cache where it was asked for before.

        Raises:
            Infeasible: the layout does not divide the model, or memory does not suffice.
        """
        key = (
            pool.role, pool.on, pool.model, pool.tensor_parallel, pool.pipeline_parallel, pool.expert_parallel,
            pool.attention_dp, pool.engine, pool.dtype, pool.kv_dtype, pool.activation_dtype, pool.clock,
            frozen(pool.batch), frozen(pool.order),
            frozen(pool.memory), frozen(pool.speculate), nano_of(pool.overlap),
        )  # fmt: skip
        found = self._servers.get(key)
        if found is None:
            found = self._servers[key] = self._serve(pool)
        return found if found.pool == pool else _with_pool(found, pool)

    def _serve(self, pool: Pool) -> Server:
        group, architecture = self.group_of(pool), self.model_named(pool.model)
        profile = engine(str(pool.engine))
        layout = layout_of(pool)
        precision = activated(as_engine(str(pool.dtype), architecture.precision), pool.activation_dtype)
        if (wrong := architecture.misfit(layout)) is not None:
            raise wrong
        if architecture.encoder_decoder:
            raise SpecError(
                "workload.model", "is an encoder-decoder model, which the serving world does not batch yet",
                value=architecture.id, hint="Its memory and parameters are in the catalogue; simulate a decoder",
            )  # fmt: skip
        kv = kv_dtype_of(str(pool.kv_dtype), profile, precision)
        policies = {name: policy_of(space, getattr(pool, name), f"plan.{name}") for name, space in FAMILIES.items()}
        max_batch, budget = sizes(policies["batch"])
        speculation = speculation_of(pool, architecture, self.model_named, self.scenario.seed)
        room = layout_memory(
            architecture, group.device, layout, precision, kv, profile, max_batch, budget,
            beside=speculation.beside if speculation is not None else (), checked=checked(speculation),
        )  # fmt: skip
        drafters = None
        if speculation is not None and speculation.drafter is not None:
            drafters, room = drafter_costs(
                speculation, group, kv, profile, max_batch, budget, room, clock_of(pool), self._kernels
            )  # fmt: skip
        longest = int(self.requests.prompt.max()) + 1 if pool.role == "prefill" else self.longest
        if (wrong := misfit(room, longest, pool_label(pool))) is not None:
            raise wrong
        cost = step_cost(
            architecture, layout, precision, kv, group, profile, max_batch, room.blocks, clock_of(pool),
            self._kernels, nano_of(pool.overlap), queries=checked(speculation),
        )  # fmt: skip
        if speculation is not None:
            cost = with_drafts(cost, speculation.process, drafters, speculation.drafting.pipelined)
            cost = replace_fields(cost, notes=(*cost.notes, *speculation.notes))
        if told := _quantised(str(pool.dtype), kv, precision, architecture.precision):
            cost = replace_fields(cost, notes=(*cost.notes, *told))
        if (cut := architecture.misfit(layout, precision)) is not None:
            note = f"{architecture.id} with {pool_label(pool)}: {profile.name} refuses to load it ({cut})"
            cost = replace_fields(cost, notes=(*cost.notes, note))
        return Server(
            pool, group, architecture, profile, layout, precision, kv, policies["batch"], policies["order"],
            policies["memory"], room, cost, speculation,
        )  # fmt: skip


def setting(scenario: Scenario) -> Setting:
    """Returns ``scenario`` with fleet, model and traffic looked up.

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    folder = Path(scenario.folder)
    model = model_at(scenario.workload.model, folder)
    _check_exits(scenario, model)
    found = Setting(
        scenario, resolve(scenario.fleet, folder), model,
        traffic(scenario.workload, seed=scenario.seed, folder=folder),
    )  # fmt: skip
    _check_failures(found)
    return found


def _check_failures(state: Setting) -> None:
    """Refuses replicas that fail where the world does not say what becomes of their requests."""
    group = next((g for g in state.tree.groups if g.outages is not None), None)
    if group is None:
        return
    for path, value, problem in (
        ("workload.arrivals.concurrency", state.requests.concurrency or None, "is a closed loop"),
        ("workload.exits", "exits" if state.scenario.workload.exits is not None else None, "has answers of tiers"),
        ("plan.phases", state.scenario.plan.phases, "may split prefill from decode"),
        ("plan.pools.role", next((p.role for p in state.scenario.plan.pools if p.role != "all"), None), "is split"),
    ):
        if value is not None:
            raise SpecError(
                path, f"{problem}, and group '{group.name}' fails", value=value,
                limit="with failures: requests that arrive by the clock, replicas that prefill and decode",
                hint="Leave it out, or leave out fleet.failures",
            )  # fmt: skip


def _check_exits(scenario: Scenario, model: Model) -> None:
    """Refuses exits that the model cannot have, and what only exits give a meaning where there are none."""
    if scenario.workload.exits is not None:
        exits_of(scenario.workload.exits, model)
        return
    goals = [goal for goal, _, _ in scenario.objective.goals()]
    for path, value in (
        ("slo.quality", scenario.slo.quality),
        ("objective.minimize", "bytes" if "bytes" in goals else None),
        ("workload.confidence", scenario.workload.confidence),
        ("plan.cascade", [stage.label() for stage in scenario.plan.cascade] or None),
    ):
        if value is not None:
            raise SpecError(
                path, "is about a familial model, and the workload has no exits", value=value,
                hint='Add workload.exits, e.g. "ai-flow-ruyi-7b", or leave it out',
            )  # fmt: skip


def layout_of(pool: Pool) -> Layout:
    """Returns the layout of a complete pool's replicas."""
    return Layout(
        tensor_parallel=int(pool.tensor_parallel or 1), pipeline_parallel=int(pool.pipeline_parallel or 1),  # type: ignore[arg-type]
        attention_dp=int(pool.attention_dp or 1), expert_parallel=int(pool.expert_parallel or 1),  # type: ignore[arg-type]
    )  # fmt: skip


def activated(precision: Precision, asked: str | None) -> Precision:
    """Returns the precision with the activations a plan asks for.

    Raises:
        SpecError: the weights as served cannot be multiplied in that format.
    """
    if asked is None or asked == precision.activations:
        return precision
    possible = dict.fromkeys((precision.activations, precision.rest))
    if precision.weights in ("fp8", "int8", "nvfp4"):
        possible[precision.weights] = None
    if asked not in possible:
        raise SpecError(
            "plan.activation_dtype", f"does not go with {precision.weights} weights", value=asked,
            limit=f"one of {', '.join(possible)}", hint="Choose another dtype for the weights, or leave it out",
        )  # fmt: skip
    return msgspec.structs.replace(precision, activations=asked)


def _quantised(dtype: str, kv: str, served: Precision, checkpoint: Precision) -> tuple[str, ...]:
    """Returns what narrower weights or a narrower cache than the checkpoint's cost in quality, in sentences."""
    stored = as_engine("auto", checkpoint)
    notes = []
    if BITS[served.weights] < BITS[stored.weights]:
        notes.append(f"weights in {dtype} instead of {stored.weights}: quality lost {quality_lost(dtype)}")
    if BITS[kv] < BITS[checkpoint.kv or stored.rest]:
        notes.append(f"cache in {kv} instead of {checkpoint.kv or stored.rest}: quality lost unknown")
    return tuple(notes)


def kv_dtype_of(asked: str, profile: Engine, precision: Precision) -> str:
    """Returns the cache's dtype: the plan's, else the engine's, else the checkpoint's, else that of its activations."""
    if asked != "auto":
        return asked
    return profile.kv_dtype or precision.kv or ("bf16" if precision.rest == "fp32" else precision.rest)


def sizes(policy: Any) -> tuple[int, int]:
    """Returns (most running requests, most tokens of an iteration) of a batch policy."""
    if hasattr(policy, "rule"):
        rule = policy.rule()
        return rule.max_batch, rule.budget
    return int(getattr(policy, "max_batch", 256)), int(getattr(policy, "max_tokens", 8192))


def policy_of(space: ModuleType, table: Any, path: str) -> Any:
    """Returns the policy that ``table`` describes.

    Raises:
        SpecError: unknown, or a class without the family's decision method.
    """
    family = space.__name__.rpartition(".")[2]
    found = build(space, table, path)
    if not callable(getattr(found, METHODS[family], None)):
        raise SpecError(
            f"{path}.kind", f"is no {family} policy: it has no method {METHODS[family]}", value=type(found).__name__,
            hint=f"See fleetcast.policy.{family} for the protocol",
        )  # fmt: skip
    return found


def _with_pool(server: Server, pool: Pool) -> Server:
    return Server(
        pool, server.group, server.model, server.engine, server.layout, server.precision, server.kv_dtype,
        server.batch, server.order, server.memory, server.room, server.cost, server.speculation,
    )  # fmt: skip


def frozen(table: Any) -> Any:
    """Returns a table as nested tuples, for keys."""
    if isinstance(table, list):
        return tuple(table)
    return tuple(sorted((k, frozen(v)) for k, v in table.items())) if isinstance(table, dict) else table


def model_at(name: str, folder: Path, path: str = "workload.model") -> Model:
    """Returns the model of a catalogue name, or of a config.json whose path starts at ``folder``."""
    file = folder / name
    return catalog.model(str(file) if file.exists() else name, path)
