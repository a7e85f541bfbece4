"""Plans made complete: the engine's profile fills what is open, and contradictions are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.spec import build, describe
from fleetcast.cost.engine import Engine, engine
from fleetcast.cost.memory import layout_memory
from fleetcast.cost.overlap.nano import nano_of, table_of
from fleetcast.policy import batch, power, route
from fleetcast.scenario.drafts import drafts_elsewhere
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Plan, Pool, as_tuple, one, replace
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.precision import as_engine
from fleetcast.sim.serving.caching import caching_table
from fleetcast.sim.serving.drafting import check_pair, speculate_table
from fleetcast.sim.serving.dtypes import kv_dtype_of
from fleetcast.sim.serving.provision import excess, limited
from fleetcast.sim.serving.provision import taken as power_and_price
from fleetcast.sim.serving.setting import (
    DEFAULT_ENGINE,
    FAMILIES,
    Server,
    Setting,
    layout_of,
    policy_of,
    sizes,
)


def complete(state: Setting, plan: Plan) -> Plan:
    """Returns ``plan`` with every choice made: engine profile defaults fill what is open.

    Raises:
        SpecError: replicas, tensor_parallel or pipeline_parallel missing, or a list where one value is needed.
        Infeasible: more devices than the fleet has, a layout that does not divide the model, too little memory, or
            more power or money than the fleet allows.
    """
    if plan.phases is not None:
        raise SpecError(
            "plan.phases", "is a choice to search", value=plan.phases, limit="pools with roles for simulate",
            hint="Use 'fleetcast plan', or write [[plan.pools]] with role = \"prefill\" and \"decode\"",
        )  # fmt: skip
    paths = [f"plan.pools[{i}]" for i in range(len(plan.pools))] if len(plan.pools) > 1 else ["plan"]
    taken, drafting = dict.fromkeys((g.name for g in state.tree.groups), 0), 0
    draft = None
    if plan.draft is not None:
        draft = fill_draft(state, plan, paths[plan.pools.index(plan.draft)])
    pools: list[Pool] = []
    for pool, path in zip(plan.pools, paths, strict=True):
        if pool.role == "draft":
            continue
        done = fill(state, pool, path, draft)
        # counted before it is costed: what takes too many devices is told that, not that it fits on none of them
        _take(taken, state.group_of(done, f"{path}.on"), one(done.replicas) * _own(done))
        server = state.server(done, draft)
        if server.drafters is not None:
            drafting += one(done.replicas) * server.drafters.count
            _take(taken, server.drafters.group, one(done.replicas) * server.drafters.devices)
        pools.append(replace(done, kv_dtype=server.kv_dtype, **_tables(server)))
    if plan.draft is not None and draft is not None:
        at = plan.pools.index(plan.draft)
        pools.insert(at, matched(draft, drafting, paths[at]))
    check_power(plan)
    whole = Plan(pools=tuple(pools), route=route_of(state, plan), power=plan.power)
    _check_limits(state, whole)
    if any(pool.role != "all" for pool in whole.serving):
        _check_caches(state, whole)
    return whole


def _take(taken: dict[str, int], group: Group, devices: int) -> None:
    """Counts devices of a group as taken."""
    taken[group.name] += devices
    if taken[group.name] > group.count:
        raise Infeasible(
            f"devices of group '{group.name}'", need=taken[group.name], have=group.count,
            hint="Lower replicas or a parallel degree, or add devices to the fleet",
        )  # fmt: skip


def _own(pool: Pool) -> int:
    return one(pool.tensor_parallel) * one(pool.pipeline_parallel) * one(pool.attention_dp)


def matched(draft: Pool, needed: int, path: str = "plan") -> Pool:
    """Returns a draft pool with as many replicas as the targets' drafters need: one for each that votes.

    Raises:
        SpecError: it says another number.
    """
    if draft.replicas not in (None, needed):
        fewer = one(draft.replicas) < needed
        raise SpecError(
            f"{path}.replicas", "are fewer than draft" if fewer else "are more than draft", value=draft.replicas,
            limit=f"{needed}: a replica for each drafter of each replica that speculates",
            hint="Lower drafters or the target's replicas, or leave it out" if fewer else "Leave it out",
        )  # fmt: skip
    return replace(draft, replicas=needed)


def fill_draft(state: Setting, plan: Plan, path: str = "plan") -> Pool:
    """Returns the plan's draft pool with the engine profile's defaults for what is open, but for its replicas.

    Raises:
        SpecError: an open or listed choice that has no default, or a model that does not go with its target's.
    """
    assert plan.draft is not None
    draft = named_draft(state, plan.serving, plan.draft, path)
    if draft.tensor_parallel is None:
        raise SpecError(
            f"{path}.tensor_parallel", "is missing", limit="a whole number from 1",
            hint="Add it, or let 'fleetcast plan FILE --out DIR' choose: it writes DIR/plan.toml",
        )  # fmt: skip
    _single(draft, path)
    profile = engine(str(draft.engine or DEFAULT_ENGINE), f"{path}.engine")
    return decided_draft(state, replace(draft, engine=draft.engine or profile.id), path)


def named_draft(state: Setting, serving: Sequence[Pool], draft: Pool, path: str = "plan") -> Pool:
    """Returns a draft pool with its model and the degrees that it has no choice in.

    Raises:
        SpecError: models of several names, or one that does not go with its target's.
    """
    tables = [(p, t) for p in serving for t in as_tuple(p.speculate) if drafts_elsewhere(t)]
    named = {n for _, t in tables if isinstance(t, dict) for n in as_tuple(t.get("model"))}
    name = draft.model or min(named)
    if len(named) > 1:
        raise SpecError(
            f"{path}.model", "is missing where speculate names several", value=sorted(named), limit="one draft model",
            hint="Name it here, and plan each model by itself",
        )  # fmt: skip
    for target, _ in tables:
        other = state.model_named(name, f"{path}.model")
        check_pair(name, other, state.model_named(target.model), f"{path}.model")
    return replace(draft, model=name, pipeline_parallel=1, expert_parallel=1, attention_dp=1)


def decided_draft(state: Setting, draft: Pool, path: str = "plan") -> Pool:
    """Returns a draft pool whose layout and engine are decided with its dtypes and group named."""
    stored = state.model_named(draft.model)
    done = replace(
        draft, dtype=draft.dtype or _stored(stored), kv_dtype=draft.kv_dtype or "auto",
        on=state.group_of(draft, f"{path}.on").name if len(state.tree.groups) > 1 else draft.on,
    )  # fmt: skip
    precision = as_engine(str(done.dtype), stored.precision)
    return replace(done, kv_dtype=kv_dtype_of(str(done.kv_dtype), engine(str(done.engine)), precision))


def _single(pool: Pool, path: str) -> None:
    """Refuses a list of values where one is needed."""
    for name in pool.__struct_fields__:
        value = getattr(pool, name)
        if isinstance(value, tuple | list):
            raise SpecError(
                f"{path}.{name}", "is a list of values to search", value=list(as_tuple(value)),
                limit="one value for simulate", hint="Use 'fleetcast plan'",
            )  # fmt: skip


def _check_limits(state: Setting, plan: Plan) -> None:
    """Raises Infeasible where a complete plan takes more power or money than the fleet allows."""
    if not limited(state.tree):
        return
    found = power_and_price(state.tree, list(zip(state.servers(plan), plan.serving, strict=True)))
    if (why := excess(state.tree, found, capped=plan.power is not None)) is not None:
        raise why


def route_of(state: Setting, plan: Plan) -> dict[str, Any]:
    """Returns the complete table of the plan's route policy, by default the one for its roles.

    Raises:
        SpecError: it needs a column the trace lacks, or does not go with the pools' roles.
    """
    split = any(pool.role != "all" for pool in plan.serving)
    if isinstance(plan.route, tuple):
        raise SpecError(
            "plan.route", "is a list of values to search", value=list(plan.route), limit="one value for simulate",
            hint="Use 'fleetcast plan'",
        )  # fmt: skip
    default = "split_phases" if split else "least_loaded"
    chosen = policy_of(route, plan.route if plan.route is not None else default, "plan.route")
    check_route(state, chosen)
    if split and getattr(chosen, "kind", "") in ("round_robin", "least_loaded", "random", "prefix_hash"):
        raise SpecError(
            "plan.route.kind", "does not tell prefill from decode pools", value=chosen.kind,
            limit="split_phases, or a policy of your own that reads view.role",
            hint="Leave the route out, or give every pool role = \"all\"",
        )  # fmt: skip
    if not split and getattr(chosen, "kind", "") == "split_phases":
        raise SpecError(
            "plan.route.kind", "splits phases, and every pool takes both", value=chosen.kind,
            limit="pools with the roles prefill and decode",
            hint='Give pools roles, write phases = "split" for a search, or leave the route out',
        )  # fmt: skip
    return describe(chosen)


def _check_caches(state: Setting, plan: Plan) -> None:
    """Raises SpecError where a cache could not move: other models or cache formats on its two sides."""
    servers = state.servers(plan)
    for name, values in (
        ("model", [s.model.id for s in servers]), ("kv_dtype", [s.kv_dtype for s in servers]),
    ):  # fmt: skip
        if len(set(values)) > 1:
            raise SpecError(
                f"plan.pools.{name}", "differs between prefill and decode pools", value=list(dict.fromkeys(values)),
                limit="the same in all, since the cache moves", hint=f"Set the same {name} in every pool",
            )  # fmt: skip


def fill(state: Setting, pool: Pool, path: str = "plan", draft: Pool | None = None) -> Pool:
    """Returns ``pool`` with the engine profile's defaults for whatever is open, policies as tables.

    Args:
        state: the scenario.
        pool: one that serves.
        path: of it, for errors.
        draft: the plan's draft pool, whose model drafts.

    Raises:
        SpecError: an open or listed choice that has no default.
    """
    for name in ("replicas", "tensor_parallel", "pipeline_parallel"):
        if getattr(pool, name) is None:
            raise SpecError(
                f"{path}.{name}", "is missing", limit="replicas, tensor_parallel and pipeline_parallel",
                hint="Add it, or let 'fleetcast plan FILE --out DIR' choose: it writes DIR/plan.toml",
            )  # fmt: skip
    _single(pool, path)
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
    model, keeps = state.model_named(pool.model), policy_of(FAMILIES["memory"], changes["memory"], f"{path}.memory")
    changes["prefix_cache"] = caching_table(
        pool, profile.prefix_cache, keeps, model, state.requests.parent is not None, path
    )
    return replace(pool, **changes, speculate=speculate_table(pool, path, draft))


def check_power(plan: Plan) -> None:
    """Raises SpecError where a power policy of the plan cannot be."""
    for table in as_tuple(plan.power):
        policy_of(power, table, "plan.power")


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
