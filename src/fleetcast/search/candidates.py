"""Candidates: combinations that fit in memory, with the bounds of what they can reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as renumbered
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible
from fleetcast.cost.engine import engine
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan, Pool, Table, replace
from fleetcast.scenario.workload.precision import as_engine
from fleetcast.search.bounds import Floor, demand, floor_of
from fleetcast.search.overlap import tuned
from fleetcast.search.pace import SLACK, Pace, Traffic, least_attention, pace
from fleetcast.search.rent import least_idle, least_rent
from fleetcast.search.space import Space, combine
from fleetcast.sim.serving.completing import fill
from fleetcast.sim.serving.setting import Server, Setting, frozen, kv_dtype_of

SPEED_BATCH = 64
"""Replicas are weighed by their speed at this batch (`sim.serving.world.speeds`): smaller max_batch, other weights."""


@dataclass(frozen=True)
class Candidate:
    """One plan of the space, not yet simulated.

    Attributes:
        index: its place in the space, which breaks ties.
        rows: layouts, one per pool.
        layout: number of what is all alike but for the batch policies: rows, engine, dtypes, clock, other policies.
        plan: with every pool complete.
        servers: one per pool.
        floor: what it takes at least.
    """

    index: int
    rows: tuple[int, ...]
    layout: int
    plan: Plan
    servers: tuple[Server, ...]
    floor: Floor

    @cached_property
    def devices(self) -> int:
        """Devices it takes."""
        return self.plan.devices()


def bound(state: Setting, c: Candidate, path: str, sign: int, floor: Floor | None = None) -> float:
    """Returns a signed value (less is better) that a plan's metric ``path`` is not better than.

    Money is devices x price x time, without what is taken away; energy likewise at least idle power x time (no model
    of ours draws less), carbon that at the grid's cleanest; rates at most what comes out over the least span.

    Args:
        state: the scenario.
        c: the candidate.
        path: metric path of a goal.
        sign: 1 = less is better, -1 = more is.
        floor: sharper than the candidate's own.
    """
    floor = floor or c.floor
    if path == "devices":
        return float(c.devices)
    if path == "makespan":
        return floor.span
    if path == "throughput":
        return -float(state.tokens[1]) / floor.span
    if path == "goodput":
        return -floor.within(state.scenario.slo.per_request()) / floor.span
    if path == "cost":
        return least_rent(state, c.servers, c.plan.pools, float(floor.arrival[0]), floor.span)
    if path in ("energy", "carbon"):
        idle = least_idle(state, c.servers, c.plan.pools, float(floor.arrival[0]), floor.span)
        joules = idle * state.tree.pue
        return joules * (min(state.grid.values) / 3.6e6 if path == "carbon" else 1.0) * SLACK
    return sign * floor.metric(path)


def same(a: Candidate, b: Candidate, outcome: Outcome) -> bool:
    """Whether ``b`` provably has the outcome of ``a``, given that outcome.

    They differ at most in how many requests may run and how many tokens an iteration may hold. A limit that never
    held anything back under ``a`` does not do so when it is raised, so every decision is the same. Both reserve memory
    for their largest iteration, so the cache differs too: `demand` must fit in either.
    """
    if a.rows != b.rows:
        return False
    limited, truncated = outcome.provenance["batch_limited"], outcome.provenance["budget_truncated"]
    tight = False
    for one, other in zip(a.servers, b.servers, strict=True):
        if one is other:
            continue
        if not (hasattr(one.batch, "rule") and type(one.batch) is type(other.batch)):
            return False
        if _rest(one.pool) != _rest(other.pool):
            return False
        low, high = one.batch.rule(), other.batch.rule()
        if low[2:] != high[2:] or low.max_batch > high.max_batch or low.budget > high.budget:
            return False
        if (limited and low.max_batch != high.max_batch) or (truncated and low.budget != high.budget):
            return False
        if len(a.servers) > 1 and min(low.max_batch, SPEED_BATCH) != min(high.max_batch, SPEED_BATCH):
            return False
        tight |= _free(one) != _free(other)
    if not tight:
        return True
    if any(s.pool.role != "all" for s in a.servers):
        return False  # a request stays in two replicas: `demand` does not tell for how long
    if any(s.group.outages is not None for s in a.servers):
        return False  # a request that was lost has claimed cache elsewhere, too
    if any(s.speculation is not None for s in (*a.servers, *b.servers)):
        return False  # `demand` knows the tokens that are made, not those that are drafted beyond them
    least = min(_free(s) for s in (*a.servers, *b.servers))
    return _demand(a.floor.traffic, outcome, min(s.engine.block for s in a.servers)) <= least


def _demand(traffic: Traffic, outcome: Outcome, block: int) -> int:
    """`demand`, once per outcome, which is kept so that its id stays its own."""
    key = id(outcome), block
    if key not in traffic.demands:
        traffic.demands[key] = outcome, demand(outcome, traffic.requests.prompt, block)
    return traffic.demands[key][1]


def _free(server: Server) -> int:
    return int(server.cost.scalars["capacity"] - server.cost.scalars["watermark"])


def _rest(pool: Pool) -> Pool:
    return replace(pool, batch=None, replicas=None)


@dataclass(frozen=True)
class Fitted:
    """The space after memory: candidates in order, and the families that cannot run."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[dict[str, Any], ...]
    enumerated: int
    lines: tuple[str, ...]


def fit(state: Setting, space: Space) -> Fitted:
    """Returns the candidates that fit in memory, with floors, and for each family that does not, why."""
    servers: dict[tuple[int, ...], list[Server | Infeasible]] = {}
    usable = np.zeros(len(space.rows), dtype=bool)
    rejected = [_rejection(family, why) for family, why in space.misfits]
    for row in range(len(space.rows)):
        shape = _shape(space, row)
        if shape not in servers:
            servers[shape] = list(_served(state, space, row))
            if all(isinstance(s, Infeasible) for s in servers[shape]):
                first = servers[shape][0]
                assert isinstance(first, Infeasible)
                rejected.append(_rejection(space.family(row), first))
        usable[row] = any(isinstance(s, Server) for s in servers[shape])
    combinations, how = combine(space, usable)
    if not combinations and all((usable & (space.rows["pool"] == i)).any() for i in range(len(space.templates))):
        rejected.append(_rejection(*_crowded(space, usable)))
    candidates: list[Candidate] = []
    floors: dict[Any, Floor] = {}
    paces: dict[Any, Pace] = {}
    traffic = Traffic(state.requests)
    apart = [_apart(variants) for variants in space.variants]
    layouts: dict[Any, int] = {}
    for rows in combinations:
        for choice in _choices(space, len(rows)):
            found = [servers[_shape(space, row)][v] for row, v in zip(rows, choice, strict=True)]
            if any(isinstance(s, Infeasible) for s in found):
                continue
            complete = tuple(s for s in found if isinstance(s, Server))
            floor = _floor(traffic, space, rows, complete, paces, floors)
            pools = [
                replace(s.pool, replicas=int(space.rows["replicas"][row]))
                for s, row in zip(complete, rows, strict=True)
            ]
            kinds = tuple(apart[space.rows["pool"][row]][v] for row, v in zip(rows, choice, strict=True))
            layout = layouts.setdefault((rows, kinds), len(layouts))
            plan = space.plan(pools)
            if not _room_for_drafters(complete, pools):
                continue
            candidates.append(Candidate(len(candidates), rows, layout, plan, complete, floor))
    every = _enumerated(space, usable, len(combinations))
    return Fitted(tuple(candidates), tuple(rejected), every, (*space.lines, *how))


def fit_all(state: Setting, found: Sequence[Space]) -> Fitted:
    """Returns `fit` of several spaces as one; rows and layouts of the later ones are numbered on."""
    if len(found) == 1:
        return fit(state, found[0])
    parts = [fit(state, space) for space in found]
    candidates: list[Candidate] = []
    rows = layout = 0
    for space, part in zip(found, parts, strict=True):
        for c in part.candidates:
            moved = tuple(row + rows for row in c.rows)
            candidates.append(renumbered(c, index=len(candidates), rows=moved, layout=c.layout + layout))
        rows += len(space.rows)
        layout += len(part.candidates)
    rejected = {(row["family"], row["constraint"]): row for part in reversed(parts) for row in part.rejected}
    lines = tuple(line for part in parts for line in part.lines)
    return Fitted(tuple(candidates), tuple(rejected.values()), sum(p.enumerated for p in parts), lines)


def _room_for_drafters(servers: Sequence[Server], pools: Sequence[Pool]) -> bool:
    """Whether the groups hold the devices of drafters too, which a layout does not count."""
    if not any(pool.drafters() for pool in pools):
        return True
    taken: dict[str, int] = {}
    for server, pool in zip(servers, pools, strict=True):
        taken[server.group.name] = taken.get(server.group.name, 0) + pool.devices()
    return all(taken[s.group.name] <= s.group.count for s in servers)


def refusal(state: Setting, space: Space) -> tuple[str, Infeasible] | None:
    """Returns None where every pool of the space has a layout that fits, else the nearest family and why it does not.

    Every variant of the first layout that fits is made complete, so that what is wrong in one of them is found.

    Raises:
        SpecError: a choice that cannot be.
    """
    for template in range(len(space.templates)):
        tried: dict[tuple[int, ...], tuple[str, Infeasible]] = {}
        for row in np.flatnonzero(space.rows["pool"] == template):
            if _shape(space, int(row)) in tried:
                continue
            served = list(_served(state, space, int(row)))
            refused = [s for s in served if isinstance(s, Infeasible)]
            if len(refused) < len(served):
                break
            tried[_shape(space, int(row))] = space.family(int(row)), refused[0]
        else:
            wrong = [*tried.values()] or list(space.misfits)
            return min(wrong, key=lambda found: found[1].need / max(found[1].have, 1e-9))
    every = np.ones(len(space.rows), dtype=bool)
    return None if combine(space, every)[0] else _crowded(space, every)


def _crowded(space: Space, usable: NDArray[np.bool_]) -> tuple[str, Infeasible]:
    """Why no combination of pools was found where each fits alone: together they take more devices than there are."""
    devices, r = space.devices(), space.rows
    pools = []
    for i in range(len(space.templates)):
        own = usable & (r["pool"] == i)
        pools.append((frozenset(int(g) for g in r["group"][own]), int(devices[own].min())))
    # the groups with the least room for those pools that can run nowhere else
    sets = {*(home for home, _ in pools), frozenset().union(*(home for home, _ in pools))}
    need = {groups: sum(least for home, least in pools if home <= groups) for groups in sets}
    have = {groups: sum(space.groups[g].count for g in groups) for groups in sets}
    tightest = max(sorted(sets, key=sorted), key=lambda groups: need[groups] / have[groups])
    names = ", ".join(space.groups[g].name for g in sorted(tightest))
    return f"the pools on {names} together", Infeasible("devices", need=need[tightest], have=have[tightest])


def _apart(variants: Sequence[Table]) -> list[int]:
    """Numbers variants so that those which differ in their batch policy alone share a number."""
    seen: list[Table] = []
    for variant in variants:
        rest = variant | {"batch": None}
        if rest not in seen:
            seen.append(rest)
    return [seen.index(variant | {"batch": None}) for variant in variants]


def _served(state: Setting, space: Space, row: int) -> Iterator[Server | Infeasible]:
    """Yields the server of each variant of a layout, or why it cannot run.

    Memory only falls with the batch: what does not fit with the smallest variant of a kind fits with none after it.
    """
    refused: list[tuple[Table, Infeasible]] = []
    template = int(space.rows["pool"][row])
    for variant in space.variants[template]:
        known = next((why for table, why in refused if _needs_more(variant, table)), None)
        if known is not None:
            yield known
            continue
        try:
            server = state.server(_decided(state, space.pool(row, variant)))
            if (cut := server.model.misfit(server.layout, server.precision)) is not None:
                raise cut  # a measured plan may say so and be simulated; none is proposed that engines refuse to load
            yield server
        except Infeasible as why:
            refused.append((variant, why))
            yield why


def _decided(state: Setting, pool: Pool) -> Pool:
    """The pool with every choice made, the cache's dtype too."""
    done = fill(state, replace(pool, overlap=None))
    precision = as_engine(str(done.dtype), state.model_named(done.model).precision)
    done = replace(done, kv_dtype=kv_dtype_of(str(done.kv_dtype), engine(str(done.engine)), precision))
    return tuned(state, replace(done, overlap=pool.overlap))


def _needs_more(variant: Table, least: Table) -> bool:
    """Whether ``variant`` differs from ``least`` only in a larger batch policy of the same kind."""
    if any(variant[k] != least[k] for k in variant if k != "batch"):
        return False
    a, b = variant["batch"], least["batch"]
    return a.keys() == b.keys() and all(
        a[k] == b[k] if k == "kind" or not isinstance(a[k], int) else a[k] >= b[k] for k in a
    )


def _floor(
    traffic: Traffic, space: Space, rows: Sequence[int], servers: Sequence[Server], paces: dict[Any, Pace],
    floors: dict[Any, Floor],
) -> Floor:  # fmt: skip
    """The floor of a combination; those that differ in max_batch alone share it."""
    keys = [(_shape(space, row), _paced(s)) for row, s in zip(rows, servers, strict=True)]
    for key, server in zip(keys, servers, strict=True):
        if key not in paces:
            paces[key] = pace(server, traffic)
    replicas = [int(space.rows["replicas"][row]) for row in rows]
    whole = (tuple(keys), tuple(replicas), tuple(s.pool.role for s in servers))
    if whole not in floors:
        roles = [s.pool.role if kept_apart(space.route) else "all" for s in servers]
        parts = [(r, paces[key], role) for r, key, role in zip(replicas, keys, roles, strict=True)]
        floors[whole] = floor_of(parts, traffic)
    return floors[whole]


def kept_apart(route: Table) -> bool:
    """Whether a route keeps prompts out of decode pools and decoding out of prefill pools."""
    return route.get("kind") == "split_phases" and not route.get("spill")


def _paced(server: Server) -> Any:
    """What a server's pace depends on beside its layout."""
    rule = tuple(server.batch.rule())[1:] if hasattr(server.batch, "rule") else id(server.batch)
    least = tuple(least_attention(server.cost, name) for name in ("floor", "base", "slope"))
    p = server.pool
    return (
        p.engine, p.dtype, p.kv_dtype, p.activation_dtype, p.clock, p.model, rule, least, server.cost.overlap,
        frozen(p.speculate),
    )  # fmt: skip


def _shape(space: Space, row: int) -> tuple[int, ...]:
    return tuple(int(space.rows[name][row]) for name in ("pool", "group", "tp", "pp", "ep", "adp"))


def _choices(space: Space, pools: int) -> Iterator[tuple[int, ...]]:
    """Which variant each pool takes: all the same under one template, every combination under several."""
    if space.joined:
        for i in range(len(space.variants[0])):
            yield (i,) * pools
    else:
        yield from itertools.product(*(range(len(v)) for v in space.variants))


def _enumerated(space: Space, usable: NDArray[np.bool_], combinations: int) -> int:
    """Plans of the space, those that memory forbids included."""
    if not space.joined:
        every, _ = combine(space, np.ones(len(space.rows), dtype=bool))
        return len(every) * int(np.prod([len(v) for v in space.variants]))
    alone = int(usable.sum())
    return (len(space.rows) + combinations - alone) * len(space.variants[0])


def _rejection(family: str, why: Infeasible) -> dict[str, Any]:
    return {
        "family": family,
        "constraint": why.constraint,
        "need": float(why.need),
        "have": float(why.have),
        "unit": why.unit,
    }
