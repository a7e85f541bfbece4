"""What each part of a familial model takes on each tier: run in the serving world, in a closed loop.

A tier answers ``at_once`` requests together (its pool's ``max_batch``): so many users send their next request as soon
as the last was answered. A device has one; a cloud GPU shares its iterations, joules and dollars among many. Queues
that form where requests come faster than they are answered are not in it, but in `queues`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.cost.memory import layout_memory, misfit
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.scenario.plan import replace as with_fields
from fleetcast.scenario.workload.precision import BITS
from fleetcast.scenario.workload.requests import Requests
from fleetcast.search.tiers.family import Part, held, lower, runs
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import DEFAULT_ENGINE, Server, Setting, sizes
from fleetcast.sim.serving.world import simulate

SAMPLE = 256
"""Requests of the workload that stand for all."""
ROUNDS = 8
"""Least requests per user of a tier that answers many at once, so that its start weighs little."""
ON_DEVICE = ("phone", "soc", "cpu")
"""Kinds of device whose default engine is llama.cpp."""


@dataclass(frozen=True)
class Use:
    """What a part takes per request, means over the workload.

    Attributes:
        prefill: s until the part's first token is out.
        decode: s for all further tokens.
        prefill_energy: J.
        decode_energy: J.
        prefill_cost: $.
        decode_cost: $.
    """

    prefill: float
    decode: float
    prefill_energy: float = 0.0
    decode_energy: float = 0.0
    prefill_cost: float = 0.0
    decode_cost: float = 0.0


@dataclass(frozen=True)
class Tier:
    """One group of the fleet as a place to answer.

    Attributes:
        group: of the fleet.
        pool: what it runs; under arrivals by the clock one replica of it.
        at_once: requests that a replica answers together.
        copies: replicas that stand there under arrivals by the clock: those of the plan, else all that it has room for.
    """

    group: Group
    pool: Pool
    at_once: int
    copies: int = 1

    @property
    def name(self) -> str:
        """Name of the group."""
        return self.group.name


@dataclass
class Costs:
    """Times parts and checks memory, each once.

    Attributes:
        state: the scenario, resolved.
        tiers: device first.
    """

    state: Setting
    tiers: tuple[Tier, ...]
    _uses: dict[tuple[int, Part], Use | Infeasible] = field(default_factory=dict, repr=False)
    _rooms: dict[tuple[int, frozenset[Part]], Infeasible | None] = field(default_factory=dict, repr=False)
    _servers: dict[int, Server] = field(default_factory=dict, repr=False)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def prompt(self) -> float:
        """Mean prompt tokens."""
        return float(self.state.requests.prompt[:SAMPLE].mean())

    @property
    def output(self) -> float:
        """Mean output tokens."""
        return float(self.state.requests.output[:SAMPLE].mean())

    @property
    def hidden(self) -> float:
        """Bytes of one token's hidden state, 16 bits an element."""
        return 2.0 * self.state.model.hidden

    def links(self, a: int, b: int) -> tuple[Link, ...]:
        """Returns the links between two tiers."""
        return self.state.tree.path(self.tiers[a].group, self.tiers[b].group)

    def cache(self, tier: int, split: int) -> float:
        """Returns bytes of KV cache per token that the layers below a split keep on a tier."""
        kv = BITS[self._server(tier).kv_dtype] / 8
        return runs(self.state.model, lower(split)).kv_bytes_per_token(kv)

    def use(self, tier: int, part: Part) -> Use:
        """Returns what a part takes on a tier.

        Raises:
            Infeasible: it does not fit there even alone.
        """
        key = (tier, part)
        if key not in self._uses:
            try:
                self._uses[key] = self._run(tier, part)
            except Infeasible as error:
                self._uses[key] = error
        found = self._uses[key]
        if isinstance(found, Infeasible):
            raise found
        return found

    def served(self, tier: int, part: Part) -> tuple[Setting, Plan]:
        """Returns the world of a part on a tier, with the scenario's requests, and the plan of its replica."""
        return self._plan(tier, part, self.state.requests)

    def lacks(self, tier: int, parts: Iterable[Part]) -> Infeasible | None:
        """Returns why a tier cannot hold several parts at once, or None."""
        key = (tier, frozenset(parts))
        if key not in self._rooms:
            self._rooms[key] = self._room(tier, key[1])
        return self._rooms[key]

    def _room(self, tier: int, parts: frozenset[Part]) -> Infeasible | None:
        server = self._server(tier)
        room = layout_memory(
            held(self.state.model, parts), server.group.device, server.layout, server.precision, server.kv_dtype,
            server.engine, *sizes(server.batch),
        )  # fmt: skip
        named = " and ".join(str(p) for p in sorted(parts))
        return misfit(room, self.state.longest, f"{named} on {self.tiers[tier].name}")

    def _server(self, tier: int) -> Server:
        """The tier's server of one layer: what does not depend on the part it runs."""
        if tier not in self._servers:
            state, plan = self._plan(tier, lower(1), self._loop(1, self.state.requests.output))
            self._servers[tier] = state.server(plan.pools[0])
        return self._servers[tier]

    def _plan(self, tier: int, part: Part, requests: Requests) -> tuple[Setting, Plan]:
        state = replace(
            self.state, model=runs(self.state.model, part), requests=requests, _servers={}, _models={}, _kernels={},
            scenario=msgspec.structs.replace(self.state.scenario, slo=Slo()),
        )  # fmt: skip
        return state, complete(state, Plan(pools=(self.tiers[tier].pool,)))

    def _loop(self, users: int, output: Any, ramp: float = 0.0) -> Requests:
        """The first requests of the workload, sent by ``users`` who start over ``ramp`` s."""
        q = self.state.requests
        n = min(len(q), SAMPLE)
        rows = np.resize(np.arange(n), max(n, ROUNDS * users if users > 1 else 1))
        return Requests(np.zeros(len(rows)), q.prompt[rows], output[rows], timed=False, concurrency=users, ramp=ramp)

    def _run(self, tier: int, part: Part) -> Use:
        users, output = self.tiers[tier].at_once, self.state.requests.output
        if (wrong := self.lacks(tier, (part,))) is not None:
            raise wrong
        full = simulate(*self._plan(tier, part, self._loop(users, output)))
        if users > 1:  # users who start together march in step: let them start over one request's time
            full = simulate(*self._plan(tier, part, self._loop(users, output, full.metrics["e2e"]["mean"])))
        first = simulate(*self._plan(tier, part, self._loop(users, np.ones_like(output))))
        free = self.tiers[tier].group.price is None
        said = full.notes[:-1] if free else full.notes  # the last says that there is no price
        self.notes |= dict.fromkeys(said)
        count = full.metrics["requests"]
        energy, prompts = full.metrics["energy"] / count, first.metrics["energy"] / count
        cost, entry = (0.0 if free else run.metrics["cost"] / count for run in (full, first))
        ttft, e2e = full.metrics["ttft"]["mean"], full.metrics["e2e"]["mean"]
        return Use(
            ttft, e2e - ttft, min(prompts, energy), max(0.0, energy - prompts), min(entry, cost), max(0.0, cost - entry)
        )


def tiers_of(state: Setting) -> tuple[Tier, ...]:
    """Returns the groups of the fleet as tiers, in the order written: the first is where queries arise.

    Raises:
        SpecError: a pool leaves a choice open that tiers do not search, or names a model of its own.
        Infeasible: a pool has more devices than its group.
    """
    given = {}
    for i, pool in enumerate(state.scenario.plan.pools):
        path = f"plan.pools[{i}]" if len(state.scenario.plan.pools) > 1 else "plan"
        for name in pool.__struct_fields__:
            if isinstance(getattr(pool, name), tuple):
                raise SpecError(
                    f"{path}.{name}", "is a list of values to search", value=list(getattr(pool, name)),
                    limit="one value for each tier", hint="Plan each value by itself",
                )  # fmt: skip
        if pool.model is not None:
            raise SpecError(
                f"{path}.model", "is another model than the family's", value=pool.model,
                limit="all tiers hold parts of workload.model", hint="Leave it out",
            )  # fmt: skip
        if pool.on is not None:
            state.tree.group(pool.on, f"{path}.on")
        given[pool.on] = pool
    return tuple(_tier(state, group, given.get(group.name, given.get(None, Pool()))) for group in state.tree.groups)


def engine_for(device: Any) -> str:
    """Returns the engine that serves on a device where a plan names none."""
    return "llama-cpp" if device.kind in ON_DEVICE else DEFAULT_ENGINE


def _tier(state: Setting, group: Group, pool: Pool) -> Tier:
    batch: Any = pool.batch
    table = {"kind": batch} if isinstance(batch, str) else dict(batch or {})
    at_once = int(table.setdefault("max_batch", 1))
    given = pool.replicas
    pool = with_fields(
        pool, on=group.name, engine=pool.engine or engine_for(group.device), batch=table,
        replicas=given or 1, tensor_parallel=pool.tensor_parallel or 1,
        pipeline_parallel=pool.pipeline_parallel or 1,
    )  # fmt: skip
    if pool.devices() > group.count:
        raise Infeasible(f"devices of group '{group.name}'", need=pool.devices(), have=group.count)
    if state.requests.concurrency:
        return Tier(group, pool, at_once)
    copies = pool.replicas if given else max(1, group.count // pool.devices())
    return Tier(group, with_fields(pool, replicas=1), at_once, int(copies))  # type: ignore[arg-type]
