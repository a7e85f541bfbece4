"""Plan: every choice fixed before the start, as a list of pools and a route above them.

The same type says what is already decided (a part), what shall be searched (a list of values) and what will run
(complete: every field one value). Flat keys in a scenario's ``[plan]`` are shorthand for one pool.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec, convert, to_builtins
from fleetcast.scenario.drafts import check_drafts, drafts_by_model, drafts_elsewhere

Table = dict[str, Any]

ROLES = ("all", "prefill", "decode", "draft")
"""What the replicas of a pool do; the kernel numbers them in this order."""
PHASES = ("together", "split")
DTYPES = ("fp32", "bf16", "fp16", "fp8", "fp8-weights", "int8", "int4", "mxfp4", "nvfp4")
KV_DTYPES = ("auto", "fp32", "bf16", "fp16", "fp8", "int8", "int4")
OVERLAPS = ("none", "nano")
PLACEMENTS = ("contiguous", "balanced")
LOWEST_CLOCK = 0.3
"""Least share of the top clock that the clock model covers."""
HANDOFFS = ("text", "hidden", "cache")
COUNTS = ("replicas", "tensor_parallel", "pipeline_parallel", "expert_parallel", "attention_dp")


class Pool(Spec):
    """Replicas that serve alike. A tuple means: search these values; None means: not decided.

    Attributes:
        role: "all" = prefill and decode; "prefill" = up to the first token, then the cache moves to a "decode" pool;
            "draft" = drafts for the pools that speculate, each replica for one of theirs.
        on: name of the fleet's group it runs on; a search left without it tries every group.
        model: catalogue name or path, instead of the workload's.
        replicas: independent copies of the model.
        tensor_parallel: devices that split each layer.
        pipeline_parallel: stages that split the layers.
        expert_parallel: ranks that split the experts (within tensor_parallel x attention_dp devices).
        attention_dp: ranks that hold whole attention and split the requests of a replica.
        expert_placement: which rank holds which experts: "contiguous", in their order as engines do, or "balanced", by
            how often each is chosen, which workload.expert_load says.
        engine: engine profile, or an engine with its version such as ``vllm-0.11.2``.
        dtype: of the weights; fp8, int8 and nvfp4 quantise activations too, fp8-weights, int4 and mxfp4 weights alone.
        kv_dtype: of the cache; "auto" = the engine profile's, else the checkpoint's.
        activation_dtype: of what the weights are multiplied with.
        clock: share of the devices' top clock; a power limit may lower it further.
        batch: what goes into an iteration and who is admitted.
        order: who is admitted next.
        memory: who is evicted when the cache is full, and how.
        overlap: "none", or "nano": nano-batches of one iteration that use compute, memory and network at once.
        speculate: how many tokens are drafted before the model checks them, by whom; keys in Speculation.
        prefix_cache: "off", or which cached prefix is given up first; keys of `Tiers` beside it.
    """

    role: str = "all"
    on: str | None = None
    model: str | None = None
    replicas: int | tuple[int, ...] | None = None
    tensor_parallel: int | tuple[int, ...] | None = None
    pipeline_parallel: int | tuple[int, ...] | None = None
    expert_parallel: int | tuple[int, ...] | None = None
    attention_dp: int | tuple[int, ...] | None = None
    expert_placement: str | tuple[str, ...] | None = None
    engine: str | tuple[str, ...] | None = None
    dtype: str | tuple[str, ...] | None = None
    kv_dtype: str | tuple[str, ...] | None = None
    activation_dtype: str | None = None
    clock: float | tuple[float, ...] | None = None
    batch: Table | tuple[Table | str, ...] | str | None = None
    order: Table | tuple[Table | str, ...] | str | None = None
    memory: Table | tuple[Table | str, ...] | str | None = None
    overlap: Table | tuple[Table | str, ...] | str | None = None
    speculate: Table | tuple[Table | str, ...] | str | None = None
    prefix_cache: Table | tuple[Table | str, ...] | str | None = None

    def devices(self) -> int:
        """Devices of a complete pool: replicas x (tensor x pipeline x attention-DP, and drafters apart)."""
        own = one(self.tensor_parallel) * one(self.pipeline_parallel) * one(self.attention_dp)
        return one(self.replicas) * (own + self.drafters())

    def drafters(self) -> int:
        """Devices of a replica of a complete pool that draft and do nothing else."""
        table = self.speculate
        if not isinstance(table, dict) or not table.get("pipelined"):
            return 0
        return int(table.get("drafters", 1)) * one(self.attention_dp)


class Stage(Spec):
    """One answer of a cascade over the tiers of a familial model.

    Attributes:
        on: group that answers.
        exit: layers of the trunk after which it answers.
        handoff: what it is sent: "text" (the prompt, computed anew), "hidden" (hidden states of every token, the tier
            before keeps computing the layers below) or "cache" (hidden states and KV cache of the prompt, once).
        split: layers below which another tier has computed; with "hidden" or "cache".
        after: that tier; left out = the stage before.
        threshold: answers less confident than this are passed on to the next stage; all stages but the last need it.
    """

    on: str
    exit: int
    handoff: str = "text"
    split: int = 0
    after: str | None = None
    threshold: float | None = None

    def label(self) -> str:
        """Returns e.g. ``exit 28 on cloud, hidden from layer 11 of phone``."""
        sent = f", {self.handoff} from layer {self.split} of {self.after}" if self.split else ""
        return f"exit {self.exit} on {self.on}{sent}"


class Plan(Spec):
    """Pools and the route above them.

    Attributes:
        pools: replicas that serve alike; an open pool is searched.
        route: which replica gets a request; several: search, each where it goes with the pools' roles.
        phases: to search with one open pool: "together" = every replica prefills and decodes, "split" = a prefill and
            a decode pool made from it, or both as a list. Left out = together.
        cascade: the stages in which a familial model answers.
        power: who caps the clocks of all servers under the breaker; several: compare.
    """

    pools: tuple[Pool, ...] = (Pool(),)
    route: Table | tuple[Table | str, ...] | str | None = None
    phases: str | tuple[str, ...] | None = None
    cascade: tuple[Stage, ...] = ()
    power: Table | tuple[Table | str, ...] | str | None = None

    @property
    def serving(self) -> tuple[Pool, ...]:
        """The pools that serve requests."""
        return tuple(pool for pool in self.pools if pool.role != "draft")

    @property
    def draft(self) -> Pool | None:
        """The pool that drafts for them, if there is one."""
        return next((pool for pool in self.pools if pool.role == "draft"), None)

    def spaces(self) -> tuple[tuple[Pool, ...], ...]:
        """Returns the pools to search, one tuple per way of placing the phases, with a draft pool and without.

        A plan in which no model drafts leaves the draft pool out.
        """
        if self.draft is not None:
            found = []
            for pools in itertools.product(*(_with_and_without(pool, self.draft.model) for pool in self.pools)):
                needed = any(drafts_elsewhere(table) for pool in pools for table in as_tuple(pool.speculate))
                found.append(tuple(pool for pool in pools if needed or pool.role != "draft"))
            return tuple(found)
        ways = as_tuple(self.phases) or ("together",)
        prefill = replace(self.pools[0], role="prefill", speculate=None)  # nothing to draft before the first token
        split = (prefill, replace(self.pools[0], role="decode", prefix_cache=None))  # it computes no prompts
        return tuple(self.pools if way == "together" else split for way in ways)

    def devices(self) -> int:
        """Devices of a complete plan."""
        return sum(pool.devices() for pool in self.pools)

    def table(self) -> Table:
        """Returns the plan as the table a scenario file holds: flat for one pool, ``pools`` for several."""
        rows = [to_builtins(pool) for pool in self.pools]
        table: Table = rows[0] if len(rows) == 1 else {"pools": rows}
        stages = [to_builtins(stage) for stage in self.cascade] or None
        route, power = to_builtins(self.route), to_builtins(self.power)
        rest = {"route": route, "phases": self.phases, "cascade": stages, "power": power}
        return table | {name: value for name, value in rest.items() if value is not None}

    def label(self) -> str:
        """Returns a short name for tables: ``2x TP4`` or ``1x TP4 PP2 + 4x TP1``."""
        if self.cascade:
            passed = [f" if below {s.threshold:g}" if s.threshold is not None else "" for s in self.cascade]
            return ", then ".join(s.label() + below for s, below in zip(self.cascade, passed, strict=True))
        return " + ".join(pool_label(pool) for pool in self.pools)


def _with_and_without(pool: Pool, model: str | None) -> list[Pool]:
    """Returns a pool with those values of ``speculate`` that take a draft pool, which holds ``model``, and the others.

    Of the others, those that draft on the pool's own devices do so with the same model, unless they name one.
    """
    apart = [table for table in as_tuple(pool.speculate) if drafts_elsewhere(table)]
    others = [table for table in as_tuple(pool.speculate) if not drafts_elsewhere(table)]
    if model is not None:
        others = [table | {"model": table.get("model", model)} if drafts_by_model(table) else table for table in others]
    parts = [part for part in (apart, others) if part]
    return [replace(pool, speculate=tuple(part) if len(part) > 1 else part[0]) for part in parts] or [pool]


def pool_label(pool: Pool) -> str:
    """Returns e.g. ``2x TP4 PP2 EP8`` for a complete pool."""
    parts = [f"{one(pool.replicas)}x TP{one(pool.tensor_parallel)}"]
    for name, value in (
        ("PP", pool.pipeline_parallel), ("EP", pool.expert_parallel), ("ADP", pool.attention_dp),
    ):  # fmt: skip
        if one(value) > 1:
            parts.append(f"{name}{one(value)}")
    if isinstance(pool.clock, float) and pool.clock < 1:
        parts.append(f"at {pool.clock:.0%} clock")
    if pool.expert_placement == "balanced":
        parts.append("balanced experts")
    if pool.drafters():
        parts.append(f"+{pool.drafters()} drafting")
    role = "" if pool.role == "all" else f"{pool.role} "
    return role + " ".join(parts) + (f" on {pool.on}" if pool.on else "")


def one(value: int | tuple[int, ...] | None) -> int:
    """Returns a decided count; an undecided one counts as 1."""
    return value if isinstance(value, int) else 1


def read_plan(table: Table, path: str = "plan") -> Plan:
    """Returns the Plan of a scenario's ``[plan]`` table, flat or with ``[[plan.pools]]``.

    Raises:
        SpecError: unknown key, both forms at once, wrong dtype or role, a count below 1.
    """
    table = dict(table)
    route, power = table.pop("route", None), table.pop("power", None)
    route = tuple(route) if isinstance(route, list) else route
    phases = table.pop("phases", None)
    cascade = convert(table.pop("cascade", []), tuple[Stage, ...], f"{path}.cascade")
    pools = table.pop("pools", None)
    if pools is not None and table:
        key = next(iter(table))
        near = closest(key, ["pools", "route", "phases", "cascade", "power"])
        raise SpecError(
            f"{path}.{key}", "stands beside plan.pools", limit="use flat keys or [[plan.pools]], not both",
            hint=near or "Move the key into each [[plan.pools]] table",
        )  # fmt: skip
    if pools is None:
        rows, places = [table], [path]
    else:
        if not isinstance(pools, list) or not pools:
            raise SpecError(f"{path}.pools", "is not a list of tables", value=pools, hint="Write [[plan.pools]]")
        rows, places = pools, [f"{path}.pools[{i}]" for i in range(len(pools))]
    made = tuple(convert(r, Pool, p) for r, p in zip(rows, places, strict=True))
    plan = Plan(pools=made, route=route, phases=_phases(phases, len(rows), path), cascade=cascade, power=power)
    for pool, place in zip(plan.pools, places, strict=True):
        _check_pool(pool, place)
    _check_roles(plan, path)
    check_drafts([to_builtins(pool) for pool in plan.pools], places, path)
    return plan


def _phases(asked: Any, pools: int, path: str) -> str | tuple[str, ...] | None:
    """Returns how the phases may be placed.

    Raises:
        SpecError: unknown, or pools with their own roles stand beside it.
    """
    if asked is None:
        return None
    ways = tuple(asked) if isinstance(asked, list | tuple) else (asked,)
    for way in ways or (asked,):
        if way not in PHASES:
            raise SpecError(
                f"{path}.phases", "is unknown", value=way, limit=f"one of {', '.join(PHASES)}, or a list of them",
                hint=closest(str(way), PHASES),
            )  # fmt: skip
    if pools > 1:
        raise SpecError(
            f"{path}.phases", "stands beside several pools", value=asked, limit="one pool to make both phases from",
            hint="Give each [[plan.pools]] its role instead",
        )  # fmt: skip
    return ways if len(ways) > 1 else ways[0]


def _check_roles(plan: Plan, path: str) -> None:
    roles = {pool.role for pool in plan.pools}
    if roles == {"draft"}:
        raise SpecError(
            f"{path}.pools", "only draft", value=["draft"], limit="a pool that serves requests",
            hint="Add [[plan.pools]] with speculate for the model that is drafted for",
        )  # fmt: skip
    for role, other in (("prefill", "decode"), ("decode", "prefill")):
        if role in roles and not roles & {other, "all"}:
            raise SpecError(
                f"{path}.pools", f"have the role '{role}' but none that can {other}", value=sorted(roles),
                limit=f"a pool of the role '{other}' or 'all'", hint=f'Add [[plan.pools]] with role = "{other}"',
            )  # fmt: skip


def _check_pool(pool: Pool, path: str) -> None:
    for name in COUNTS:
        for value in as_tuple(getattr(pool, name)):
            if isinstance(value, bool) or value < 1 or value > 1_000_000:
                raise SpecError(f"{path}.{name}", "is out of range", value=value, limit="a whole number from 1")
    for value in as_tuple(pool.clock):
        if not LOWEST_CLOCK <= value <= 1.0:
            raise SpecError(f"{path}.clock", "is out of range", value=value, limit=f"{LOWEST_CLOCK} to 1")
    if pool.role not in ROLES:
        raise SpecError(
            f"{path}.role",
            "is unknown",
            value=pool.role,
            limit=f"one of {', '.join(ROLES)}",
        )
    for name in ("engine", "on", "model"):
        if "" in as_tuple(getattr(pool, name)):
            raise SpecError(f"{path}.{name}", "is empty", value="", limit="a name", hint="Or leave it out")
    for name, known in (
        ("dtype", DTYPES), ("kv_dtype", KV_DTYPES), ("activation_dtype", DTYPES),
        ("expert_placement", PLACEMENTS),
    ):  # fmt: skip
        for value in as_tuple(getattr(pool, name)):
            if value not in known:
                raise SpecError(
                    f"{path}.{name}", "is unknown", value=value,
                    limit=f"one of {', '.join(known)}", hint=closest(value, known),
                )  # fmt: skip


def clock_of(pool: Pool) -> float:
    """Returns the clock share of a complete pool; an open one is 1."""
    return 1.0 if pool.clock is None else float(pool.clock)  # type: ignore[arg-type]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Returns the values a field may take: () undecided, (v,) decided, the tuple to search."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def replace(pool: Pool, **changes: Any) -> Pool:
    """Returns ``pool`` with the named fields changed."""
    return msgspec.structs.replace(pool, **changes)
