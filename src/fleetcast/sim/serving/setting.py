"""A scenario with everything looked up once: tree, models, requests, and what each pool's replicas cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.spec import build
from fleetcast.cost.drafted import with_drafts
from fleetcast.cost.engine import Engine, engine
from fleetcast.cost.memory import Memory, layout_memory, misfit
from fleetcast.cost.overlap.nano import nano_of
from fleetcast.cost.step import StepCost, step_cost
from fleetcast.policy import batch, memory
from fleetcast.policy.order import requests as order
from fleetcast.scenario.drafts import drafts_elsewhere
from fleetcast.scenario.fleet.failures import Downtime
from fleetcast.scenario.fleet.links import transfer_time
from fleetcast.scenario.fleet.signals import Signal, signal
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.load import ServingScenario
from fleetcast.scenario.plan import PLACEMENTS, Plan, Pool, clock_of, pool_label, replace
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.arrivals import traffic
from fleetcast.scenario.workload.loads import ExpertLoad, expert_load_of
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision, as_engine
from fleetcast.scenario.workload.prefixes import PrefixTree, prefix_tree
from fleetcast.scenario.workload.quality import Score, scores_of
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.caching import caching_of
from fleetcast.sim.serving.contradictions import check_exits, check_failures, check_placement
from fleetcast.sim.serving.drafting import Drafters, Speculation, checked, draft_pool, speculation_of
from fleetcast.sim.serving.dtypes import activated, kv_dtype_of, quantised
from fleetcast.sim.serving.prefixes import Caching, PrefixCache
from fleetcast.sim.serving.quality import measured

DEFAULT_ENGINE = "vllm-1"
FAMILIES = {"batch": batch, "order": order, "memory": memory}
"""Policies a pool carries; the route lies above the pools."""
METHODS = {"batch": "compose", "order": "key", "memory": "victim", "route": "choose", "power": "cap"}
"""The one decision method of each family."""


@dataclass(frozen=True)
class Server:
    """A complete pool, resolved: what its replicas run and what it costs them; of a draft pool without policies."""

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
    drafters: Drafters | None = None
    caching: Caching | None = None
    quality: Score | None = None

    @property
    def takes(self) -> tuple[tuple[Group, int], ...]:
        """The devices of a replica by group, then those that draft for it."""
        own = ((self.group, self.cost.devices),)
        return own if self.drafters is None else (*own, (self.drafters.group, self.drafters.devices))


@dataclass
class Setting:
    """A scenario resolved: tree, models, requests, grid. Caches what plans share; holds no result.

    Attributes:
        expert_load: how the model's router spreads tokens over experts; None = not said.
        scores: measured quality of models by dtype; empty = not said.
        overlaps: nano-batches that `search.overlap` has chosen, by layout.
        downtimes: when replicas are down, by group and the units that they stand on.
    """

    scenario: ServingScenario
    tree: Tree
    model: Model
    requests: Requests
    expert_load: ExpertLoad | None = None
    scores: tuple[Score, ...] = ()
    overlaps: dict[Any, Any] = field(default_factory=dict, repr=False)
    downtimes: dict[Any, Downtime] = field(default_factory=dict, repr=False)
    _servers: dict[Any, Server] = field(default_factory=dict, repr=False)
    _models: dict[str, Model] = field(default_factory=dict, repr=False)
    _kernels: dict[Any, Any] = field(default_factory=dict, repr=False)
    _trees: dict[tuple[int, int], tuple[Requests, PrefixTree]] = field(default_factory=dict, repr=False)

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

    def prefix_tree(self, block: int) -> PrefixTree:
        """Returns what the requests have in common, in blocks of ``block`` tokens."""
        key = id(self.requests), block
        if key not in self._trees:  # the requests beside it, so that their id stays theirs
            self._trees[key] = self.requests, prefix_tree(self.requests, block)
        return self._trees[key][1]

    def caches(self, server: Server) -> list[PrefixCache]:
        """Returns an empty prefix cache for each lane of a replica; none where it caches none."""
        if server.caching is None or self.requests.parent is None:
            return []
        tree, lanes = (
            self.prefix_tree(server.engine.block),
            server.layout.pipeline_parallel * server.layout.attention_dp,
        )
        return [PrefixCache(tree, server.caching.tiers, server.caching.policy) for _ in range(lanes)]

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

    def servers(self, plan: Plan) -> list[Server]:
        """Returns the servers of a complete plan's pools that serve, in their order."""
        return [self.server(pool, plan.draft) for pool in plan.serving]

    def server(self, pool: Pool, draft: Pool | None = None) -> Server:
        """Returns what a complete pool runs and costs, from the cache where it was asked for before.

        Args:
            pool: complete; a draft pool is taken alone, with room for one sequence.
            draft: the plan's draft pool, complete, or `drafting.ELSEWHERE`.

        Raises:
            Infeasible: the layout does not divide the model, or memory does not suffice.
        """
        draft = draft if drafts_elsewhere(pool.speculate) else None
        key = _key(pool) if draft is None else (_key(pool), _key(draft))
        found = self._servers.get(key)
        if found is None:
            found = self._servers[key] = self._alone(pool) if pool.role == "draft" else self._serve(pool, draft)
        return found if found.pool == pool else replace_fields(found, pool=pool)

    def _alone(self, pool: Pool) -> Server:
        """What a draft replica needs at least, whomever it drafts for."""
        made, group, profile, layout, precision, kv = self._resolved(pool)
        drafters = self._drafters(pool, group, 1, 1, 1)
        return Server(
            pool, group, made, profile, layout, precision, kv, None, None, None, drafters.room, drafters.cost
        )  # fmt: skip

    def _resolved(self, pool: Pool) -> tuple[Model, Group, Engine, Layout, Precision, str]:
        made, profile = self.model_named(pool.model), engine(str(pool.engine))
        precision = activated(as_engine(str(pool.dtype), made.precision), pool.activation_dtype)
        if precision.parts:
            precision = msgspec.structs.replace(precision, parts=(*precision.parts, *profile.quantises))
        return (
            made, self.group_of(pool), profile, layout_of(pool), precision,
            kv_dtype_of(str(pool.kv_dtype), profile, precision),
        )  # fmt: skip

    def _drafters(self, pool: Pool, target: Group, count: int, max_batch: int, budget: int) -> Drafters:
        """Returns what ``count`` replicas of a draft pool are and cost beside a replica on ``target``.

        Raises:
            Infeasible: one does not fit.
        """
        made, group, profile, layout, precision, kv = self._resolved(pool)
        if (wrong := made.misfit(layout)) is not None:
            raise wrong
        room = layout_memory(made, group.device, layout, precision, kv, profile, max_batch, budget)
        if not room.fits:
            raise Infeasible(
                f"memory of a device for {made.id}, which drafts on it", need=room.weights + room.activations,
                have=room.total - room.reserve, unit="B", hint="Choose a smaller drafter or max_batch",
            )  # fmt: skip
        cost = step_cost(
            made, layout, precision, kv, group, profile, max_batch, room.blocks, clock_of(pool), self._kernels
        )
        links = self.tree.path(target, group) or (self.tree.link_between(target, group),)
        if target.name != group.name:
            one = transfer_time(links, 0.0, 2.0)
            over = ", ".join(link.id for link in links)
            note = f"{made.id} on {group.name} drafts over {over}: token ids alone, {one * 1e6:.3g} us a round or more"
            cost = replace_fields(cost, notes=(note, *cost.notes))
        return Drafters(replace(pool, replicas=None), group, links, count, room, cost)

    def _serve(self, pool: Pool, draft: Pool | None) -> Server:
        architecture, group, profile, layout, precision, kv = self._resolved(pool)
        if (wrong := architecture.misfit(layout)) is not None:
            raise wrong
        if pool.expert_placement == "balanced" and layout.expert_parallel == 1:
            raise Infeasible(
                "balanced experts", need=2.0, have=1.0, unit="expert-parallel ranks",
                hint='Raise expert_parallel, or leave expert_placement = "balanced" out',
            )  # fmt: skip
        if architecture.encoder_decoder:
            raise SpecError(
                "workload.model", "is an encoder-decoder model, which the serving world does not batch yet",
                value=architecture.id, hint="Its memory and parameters are in the catalogue; simulate a decoder",
            )  # fmt: skip
        policies = {name: policy_of(space, getattr(pool, name), f"plan.{name}") for name, space in FAMILIES.items()}
        max_batch, budget = sizes(policies["batch"])
        speculation = speculation_of(pool, architecture, self.model_named, self.scenario.seed, draft is not None)
        room = layout_memory(
            architecture, group.device, layout, precision, kv, profile, max_batch, budget,
            beside=speculation.beside if speculation is not None else (), checked=checked(speculation),
        )  # fmt: skip
        drafters = None
        if speculation is not None and (other := draft_pool(pool, speculation, draft, kv)) is not None:
            voters = speculation.process.drafters * layout.attention_dp
            drafters = self._drafters(other, group, voters, max_batch, budget)
            blocks = min(room.blocks, drafters.room.tokens // profile.block)
            room = replace_fields(room, blocks=blocks, tokens=blocks * profile.block)
        longest = int(self.requests.prompt.max()) + 1 if pool.role == "prefill" else self.longest
        if (wrong := misfit(room, longest, pool_label(pool))) is not None:
            raise wrong
        cost = step_cost(
            architecture, layout, precision, kv, group, profile, max_batch, room.blocks, clock_of(pool),
            self._kernels, nano_of(pool.overlap), queries=checked(speculation),
            load=self.expert_load if architecture is self.model else None,
            placement=str(pool.expert_placement or PLACEMENTS[0]),
        )  # fmt: skip
        if self.expert_load is not None and architecture is not self.model:
            cost = replace_fields(
                cost, notes=(*cost.notes, f"expert load: the workload's, not used for {architecture.id}")
            )
        if speculation is not None:
            drafter = drafters.cost if drafters is not None else None
            if speculation.drafter is not None:
                drafter = step_cost(
                    *speculation.drafter, kv, group, profile, max_batch, room.blocks, clock_of(pool), self._kernels
                )
            links = None if drafters is None else drafters.links
            cost = with_drafts(cost, speculation.process, drafter, links, speculation.doubt)
            cost = replace_fields(cost, notes=(*cost.notes, *speculation.notes))
        if told := quantised(str(pool.dtype), kv, precision, architecture.precision):
            cost = replace_fields(cost, notes=(*cost.notes, *told))
        if (cut := architecture.misfit(layout, precision)) is not None:
            note = f"{architecture.id} with {pool_label(pool)}: {profile.name} refuses to load it ({cut})"
            cost = replace_fields(cost, notes=(*cost.notes, note))
        return Server(
            pool, group, architecture, profile, layout, precision, kv, policies["batch"], policies["order"],
            policies["memory"], room, cost, speculation, drafters,
            caching_of(pool, policies["memory"], architecture, cost, self.tree.ssd),
            measured(self.scenario, self.scores, pool, architecture),
        )  # fmt: skip


def setting(scenario: ServingScenario) -> Setting:
    """Returns ``scenario`` with fleet, model and traffic looked up.

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    folder = Path(scenario.folder)
    model = model_at(scenario.workload.model, folder)
    check_exits(scenario, model)
    given, quality = scenario.workload.expert_load, scenario.workload.quality
    check_placement(scenario)
    found = Setting(
        scenario, resolve(scenario.fleet, folder), model,
        traffic(scenario.workload, seed=scenario.seed, folder=folder),
        None if given is None else expert_load_of(given, model, folder),
        () if quality is None else scores_of(quality, scenario.workload.model, folder),
    )  # fmt: skip
    check_failures(scenario, found.tree, bool(found.requests.concurrency))
    return found


def layout_of(pool: Pool) -> Layout:
    """Returns the layout of a complete pool's replicas."""
    return Layout(
        tensor_parallel=int(pool.tensor_parallel or 1), pipeline_parallel=int(pool.pipeline_parallel or 1),  # type: ignore[arg-type]
        attention_dp=int(pool.attention_dp or 1), expert_parallel=int(pool.expert_parallel or 1),  # type: ignore[arg-type]
    )  # fmt: skip


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
    family = space.__name__.split(".")[2]
    return build(space, table, path, methods=(METHODS[family],))


def _key(pool: Pool) -> tuple[Any, ...]:
    """What a pool's server depends on: all of it but the number of its replicas."""
    return (
        pool.role, pool.on, pool.model, pool.tensor_parallel, pool.pipeline_parallel, pool.expert_parallel,
        pool.attention_dp, pool.engine, pool.dtype, pool.kv_dtype, pool.activation_dtype, pool.clock,
        frozen(pool.batch), frozen(pool.order), frozen(pool.memory), frozen(pool.speculate),
        frozen(pool.prefix_cache), nano_of(pool.overlap), pool.expert_placement,
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
