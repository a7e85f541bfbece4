"""A scenario with everything looked up once, and plans made complete against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.spec import build, describe
from fleetcast.cost.drafted import with_drafts
from fleetcast.cost.engine import Engine, engine
from fleetcast.cost.memory import Memory, layout_memory, misfit
from fleetcast.cost.overlap.nano import nano_of, table_of
from fleetcast.cost.step import StepCost, step_cost
from fleetcast.policy import batch, memory, order, power, route
from fleetcast.scenario.fleet.signals import Signal, signal
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.load import Scenario
from fleetcast.scenario.plan import Plan, Pool, as_tuple, clock_of, pool_label, replace
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.arrivals import traffic
from fleetcast.scenario.workload.exits import exits_of
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision, as_engine
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.drafting import Speculation, checked, drafter_costs, speculate_table, speculation_of

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
    """

    scenario: Scenario
    tree: Tree
    model: Model
    requests: Requests
    overlaps: dict[Any, Any] = field(default_factory=dict, repr=False)
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
    return Setting(
        scenario, resolve(scenario.fleet, folder), model,
        traffic(scenario.workload, seed=scenario.seed, folder=folder),
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


def complete(state: Setting, plan: Plan) -> Plan:
    """Returns ``plan`` with every choice made: engine profile defaults fill what is open.

    Raises:
        SpecError: replicas, tensor_parallel or pipeline_parallel missing, or a list where one value is needed.
        Infeasible: more devices than the fleet has, a layout that does not divide the model, or too little memory.
    """
    if plan.phases is not None:
        raise SpecError(
            "plan.phases", "is a choice to search", value=plan.phases, limit="pools with roles for simulate",
            hint="Use 'fleetcast plan', or write [[plan.pools]] with role = \"prefill\" and \"decode\"",
        )  # fmt: skip
    many = len(plan.pools) > 1
    pools, taken = [], dict.fromkeys((g.name for g in state.tree.groups), 0)
    for i, pool in enumerate(plan.pools):
        path = f"plan.pools[{i}]" if many else "plan"
        done = fill(state, pool, path)
        group = state.group_of(done, f"{path}.on")
        taken[group.name] += done.devices()
        if taken[group.name] > group.count:
            raise Infeasible(
                f"devices of group '{group.name}'", need=taken[group.name], have=group.count,
                hint="Lower replicas or a parallel degree, or add devices to the fleet",
            )  # fmt: skip
        server = state.server(done)
        pools.append(replace(done, kv_dtype=server.kv_dtype, **_tables(server)))
    for table in as_tuple(plan.power):
        policy_of(power, table, "plan.power")
    whole = Plan(pools=tuple(pools), route=route_of(state, plan), power=plan.power)
    if any(pool.role != "all" for pool in pools):
        _check_caches(state, pools)
    return whole


def route_of(state: Setting, plan: Plan) -> dict[str, Any]:
    """Returns the complete table of the plan's route policy, by default the one for its roles.

    Raises:
        SpecError: it needs a column the trace lacks, or does not go with the pools' roles.
    """
    split = any(pool.role != "all" for pool in plan.pools)
    default = "split_phases" if split else "least_loaded"
    chosen = policy_of(route, plan.route if plan.route is not None else default, "plan.route")
    check_route(state, chosen)
    if split and getattr(chosen, "kind", "") in ("round_robin", "least_loaded", "random", "prefix_hash"):
        raise SpecError(
            "plan.route.kind", "does not tell prefill from decode pools", value=chosen.kind,
            limit="split_phases, or a policy of your own that reads view.role",
            hint="Leave the route out, or give every pool role = \"all\"",
        )  # fmt: skip
    return describe(chosen)


def _check_caches(state: Setting, pools: Sequence[Pool]) -> None:
    """Raises SpecError where a cache could not move: other models or cache formats on its two sides."""
    servers = [state.server(pool) for pool in pools]
    for name, values in (
        ("model", [s.model.id for s in servers]), ("kv_dtype", [s.kv_dtype for s in servers]),
    ):  # fmt: skip
        if len(set(values)) > 1:
            raise SpecError(
                f"plan.pools.{name}", "differs between prefill and decode pools", value=list(dict.fromkeys(values)),
                limit="the same in all, since the cache moves", hint=f"Set the same {name} in every pool",
            )  # fmt: skip


def fill(state: Setting, pool: Pool, path: str = "plan") -> Pool:
    """Returns ``pool`` with the engine profile's defaults for whatever is open, policies as tables.

    Raises:
        SpecError: an open or listed choice that has no default.
    """
    for name in ("replicas", "tensor_parallel", "pipeline_parallel"):
        if getattr(pool, name) is None:
            raise SpecError(
                f"{path}.{name}", "is missing", limit="replicas, tensor_parallel and pipeline_parallel",
                hint="Add it, or let 'fleetcast plan FILE --out DIR' choose: it writes DIR/plan.toml",
            )  # fmt: skip
    for name in pool.__struct_fields__:
        value = getattr(pool, name)
        if isinstance(value, tuple | list):
            raise SpecError(
                f"{path}.{name}", "is a list of values to search", value=list(as_tuple(value)),
                limit="one value for simulate", hint="Use 'fleetcast plan'",
            )  # fmt: skip
    profile = engine(str(pool.engine or DEFAULT_ENGINE), f"{path}.engine")
    nano = nano_of(pool.overlap, f"{path}.overlap")
    changes: dict[str, Any] = {
        "engine": pool.engine or profile.id,
        "expert_parallel": pool.expert_parallel or 1,
        "attention_dp": pool.attention_dp or 1,
        "dtype": pool.dtype or _stored(state.model_named(pool.model)),
        "kv_dtype": pool.kv_dtype or "auto",
        "on": state.group_of(pool, f"{path}.on").name if len(state.tree.groups) > 1 else pool.on,
        "overlap": None if nano is None else table_of(nano),
    }
    for name, space in FAMILIES.items():
        table = getattr(pool, name)
        default = getattr(profile, name)
        if isinstance(table, dict) and "kind" not in table:
            table = default | table
        if table is None and name == "batch" and profile.long_batch:
            default = _default_batch(state, replace(pool, **changes), profile)
        changes[name] = describe(policy_of(space, default if table is None else table, f"{path}.{name}"))
    return replace(pool, **changes, speculate=speculate_table(pool, path))


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


def check_route(state: Setting, policy: Any) -> None:
    """Raises SpecError when a route needs a column that the trace lacks."""
    if getattr(policy, "kind", "") == "prefix_hash" and state.requests.session is None:
        raise SpecError(
            "plan.route.kind", "needs the trace's column 'session'", value="prefix_hash",
            limit="a trace with the columns session and prefix_tokens",
            hint="Add the columns, or route by 'least_loaded'",
        )  # fmt: skip


def _default_batch(state: Setting, pool: Pool, profile: Engine) -> dict[str, Any]:
    """Returns the engine's default batch table: the one for long contexts where the cache holds so long a one.

    An engine does not start with a context longer than its cache, so the operator cuts it (``--max-model-len``).
    """
    architecture, layout = state.model_named(pool.model), layout_of(pool)
    if architecture.misfit(layout) is not None:
        return profile.batch
    precision = as_engine(str(pool.dtype), architecture.precision)
    kv = kv_dtype_of(str(pool.kv_dtype), profile, precision)
    room = layout_memory(
        architecture, state.group_of(pool).device, layout, precision, kv, profile,
        *sizes(build(batch, profile.batch, "plan.batch")),
    )  # fmt: skip
    context = min(architecture.context or room.tokens, room.tokens)
    return profile.long_batch if context > profile.long_context else profile.batch


def _stored(architecture: Model) -> str:
    served = as_engine("auto", architecture.precision)
    if served.weights == "fp8" and served.activations != "fp8":
        return "fp8-weights"
    return served.weights


def _tables(server: Server) -> dict[str, Any]:
    return {name: describe(getattr(server, name)) for name in FAMILIES}


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
