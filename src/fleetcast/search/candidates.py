"""Candidates: combinations that fit in memory, with the bounds of what they can reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible
from fleetcast.cost.engine import engine
from fleetcast.scenario.plan import Plan, Pool, Table, replace
from fleetcast.scenario.workload.precision import as_engine
from fleetcast.scenario.workload.prefixes import shared_tokens
from fleetcast.search.beyond import Beyond
from fleetcast.search.bounds import Floor, floor_of
from fleetcast.search.drafters import Taken, crowded, drafted, drafting, taken
from fleetcast.search.overlap import tuned
from fleetcast.search.pace import SLACK, Pace, Traffic, least_attention, pace
from fleetcast.search.rent import least_idle, least_rent
from fleetcast.search.space import Space, combine
from fleetcast.search.variants import named
from fleetcast.sim.serving.completing import decided_draft, fill
from fleetcast.sim.serving.drafting import ELSEWHERE
from fleetcast.sim.serving.dtypes import kv_dtype_of
from fleetcast.sim.serving.provision import limited
from fleetcast.sim.serving.setting import Server, Setting, frozen

BESIDE = "the drafters, beside their targets"


@dataclass(frozen=True)
class Candidate:
    """One plan of the space, not yet simulated.

    Attributes:
        index: its place in the space, which breaks ties.
        rows: layouts, one per pool.
        layout: number of what is all alike but for the batch policies: rows, engine, dtypes, clock, other policies.
        plan: with every pool complete.
        servers: one per pool that serves.
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

    @cached_property
    def taken(self) -> Taken:
        """Devices it takes of each group."""
        return taken(self.servers, self.plan.serving)


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
    if path == "quality":
        return -floor.quality
    if path == "makespan":
        return floor.span
    if path == "throughput":
        return -float(state.tokens[1]) / floor.span
    if path == "goodput":
        return -floor.within(state.scenario.slo.per_request()) / floor.span
    if path == "cost":
        return least_rent(state, c.servers, c.plan.serving, float(floor.arrival[0]), floor.span)
    if path in ("energy", "carbon"):
        idle = least_idle(state, c.servers, c.plan.serving, float(floor.arrival[0]), floor.span)
        joules = idle * state.tree.pue
        return joules * (min(state.grid.values) / 3.6e6 if path == "carbon" else 1.0) * SLACK
    return sign * floor.metric(path)


@dataclass(frozen=True)
class Fitted:
    """The space after memory and budget.

    Attributes:
        candidates: what fits both, in order.
        rejected: the families that cannot run, and what takes too much power or money.
        enumerated: plans of the space.
        lines: the space in sentences.
        over: plans that fit in memory and take too much power or money.
        refused: what fits alone and not together, or not within the budget, and why.
    """

    candidates: tuple[Candidate, ...]
    rejected: tuple[dict[str, Any], ...]
    enumerated: int
    lines: tuple[str, ...]
    over: int = 0
    refused: tuple[tuple[str, Infeasible], ...] = ()


def fit(state: Setting, space: Space) -> Fitted:
    """Returns the candidates that fit in memory, with floors, and for each family that does not, why."""
    servers: dict[tuple[int, ...], list[Server | Infeasible]] = {}
    usable = np.zeros(len(space.rows), dtype=bool)
    rejected = [_rejection(family, why) for family, why in space.misfits]
    for row in range(len(space.rows)):
        shape = _shape(space, row)
        if shape not in servers:
            servers[shape] = list(servers_of(state, space, row))
            if all(isinstance(s, Infeasible) for s in servers[shape]):
                first = servers[shape][0]
                assert isinstance(first, Infeasible)
                rejected.append(_rejection(space.family(row), first))
        usable[row] = any(isinstance(s, Server) for s in servers[shape])
    beyond = Beyond(state)

    def fits(rows: tuple[int, ...], variant: int) -> bool:
        found = [servers[_shape(space, row)][variant] for row in rows]
        known = [s for s in found if isinstance(s, Server)]
        if len(known) < len(rows):
            return False
        pools = [replace(s.pool, replicas=space.replicas(row)) for s, row in zip(known, rows, strict=True)]
        return beyond.why(known, pools) is None

    combinations, how = combine(space, usable, fits if limited(state.tree) else None)
    if not combinations and all((usable & (space.rows["pool"] == i)).any() for i in range(len(space.templates))):
        rejected.append(_rejection(*_crowded(space, usable)))
    candidates: list[Candidate] = []
    floors: dict[Any, Floor] = {}
    paces: dict[Any, Pace] = {}
    traffics: dict[int, Traffic] = {}
    apart = [_apart(variants) for variants in space.variants]
    layouts: dict[Any, int] = {}
    refused: list[tuple[str, Infeasible]] = []
    for rows in combinations:
        for choice in _choices(space, len(rows)):
            found = [servers[_shape(space, row)][v] for row, v in zip(rows, choice, strict=True)]
            if any(isinstance(s, Infeasible) for s in found):
                continue
            fixed = [space.replicas(row) for row in rows]
            pools = [replace(s.pool, replicas=n) for s, n in zip(found, fixed, strict=True) if isinstance(s, Server)]
            matched = drafted(state, [s for s in found if isinstance(s, Server)], pools)
            if isinstance(matched, Infeasible):
                refused.append((BESIDE, matched))
                continue
            complete, whole = matched
            serving = [row for row, pool in zip(rows, whole, strict=True) if pool.role != "draft"]
            if (why := crowded(taken(complete, [p for p in whole if p.role != "draft"]))) is not None:
                refused.append((BESIDE, why))
                continue
            if beyond.refuses(complete, whole):
                continue
            floor = _floor(_traffic(state, complete, traffics), space, serving, complete, paces, floors)
            kinds = tuple(apart[space.rows["pool"][row]][v] for row, v in zip(rows, choice, strict=True))
            layout = layouts.setdefault((rows, kinds), len(layouts))
            candidates.append(Candidate(len(candidates), rows, layout, space.plan(whole), complete, floor))
    refused = [*([] if candidates else refused[:1]), *beyond.rows()]
    rejected += [_rejection(*row) for row in refused]
    every = _enumerated(space, usable, len(combinations))
    return Fitted(tuple(candidates), tuple(rejected), every, (*space.lines, *how), beyond.count, tuple(refused))


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
            candidates.append(changed(c, index=len(candidates), rows=moved, layout=c.layout + layout))
        rows += len(space.rows)
        layout += len(part.candidates)
    rejected = {(row["family"], row["constraint"]): row for part in reversed(parts) for row in part.rejected}
    lines = tuple(dict.fromkeys(line for part in parts for line in part.lines))
    if len(found) > len({tuple(pool.role for pool in space.templates) for space in found}):
        lines = (*lines, f"routes: {', '.join(dict.fromkeys(named(space.route) for space in found))}")
    enumerated, over = sum(p.enumerated for p in parts), sum(p.over for p in parts)
    return Fitted(tuple(candidates), tuple(rejected.values()), enumerated, lines, over)


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
            served = list(servers_of(state, space, int(row)))
            refused = [s for s in served if isinstance(s, Infeasible)]
            if len(refused) < len(served):
                break
            tried[_shape(space, int(row))] = space.family(int(row)), refused[0]
        else:
            wrong = [*tried.values()] or list(space.misfits)
            return min(wrong, key=lambda found: found[1].need / max(found[1].have, 1e-9))
    every = np.ones(len(space.rows), dtype=bool)
    combinations, _ = combine(space, every)
    if not combinations:
        return _crowded(space, every)
    if any(template.role == "draft" for template in space.templates) or limited(state.tree):
        found = fit(state, space)
        if not found.candidates:
            return min(found.refused, key=lambda row: row[1].need / max(row[1].have, 1e-9), default=None)
    return None


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


def servers_of(state: Setting, space: Space, row: int) -> Iterator[Server | Infeasible]:
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
            pool = space.pool(row, variant)
            draft = next((t for t in space.templates if t.role == "draft"), None)
            if pool.role == "draft":
                server = state.server(decided_draft(state, pool))
            else:
                server = state.server(_decided(state, pool, draft), ELSEWHERE if draft is not None else None)
            if (cut := server.model.misfit(server.layout, server.precision)) is not None:
                raise cut  # a measured plan may say so and be simulated; none is proposed that engines refuse to load
            yield server
        except Infeasible as why:
            refused.append((variant, why))
            yield why


def _decided(state: Setting, pool: Pool, draft: Pool | None) -> Pool:
    """The pool with every choice made, the cache's dtype too."""
    done = fill(state, replace(pool, overlap=None), draft=draft)
    precision = as_engine(str(done.dtype), state.model_named(done.model).precision)
    done = replace(done, kv_dtype=kv_dtype_of(str(done.kv_dtype), engine(str(done.engine)), precision))
    return tuned(state, replace(done, overlap=pool.overlap), ELSEWHERE if draft is not None else None)


def _needs_more(variant: Table, least: Table) -> bool:
    """Whether ``variant`` differs from ``least`` only in a larger batch policy of the same kind."""
    if "batch" not in variant or any(variant[k] != least[k] for k in variant if k != "batch"):
        return False
    a, b = variant["batch"], least["batch"]
    return a.keys() == b.keys() and all(
        a[k] == b[k] if k == "kind" or not isinstance(a[k], int) else a[k] >= b[k] for k in a
    )


def _traffic(state: Setting, servers: Sequence[Server], known: dict[int, Traffic]) -> Traffic:
    """The requests as some pools have to serve them at least: prefix caches may spare parts of prompts."""
    cached = state.requests.parent is not None and any(s.caching is not None for s in servers)
    block = min(s.engine.block for s in servers if s.caching is not None) if cached else 0
    if block not in known:
        spared = shared_tokens(state.requests, block) if block else None
        known[block] = Traffic(state.requests, spared)
    return known[block]


def _floor(
    traffic: Traffic, space: Space, rows: Sequence[int], servers: Sequence[Server], paces: dict[Any, Pace],
    floors: dict[Any, Floor],
) -> Floor:  # fmt: skip
    """The floor of a combination; those that differ in max_batch alone share it."""
    keys = [(_shape(space, row), _paced(s), id(traffic)) for row, s in zip(rows, servers, strict=True)]
    for key, server in zip(keys, servers, strict=True):
        if key not in paces:
            paces[key] = pace(server, traffic)
    replicas = [int(space.rows["replicas"][row]) for row in rows]
    whole = (tuple(keys), tuple(replicas), tuple(s.pool.role for s in servers))
    if whole not in floors:
        roles = [s.pool.role if kept_apart(space.route) else "all" for s in servers]
        parts = [(r, paces[key], role) for r, key, role in zip(replicas, keys, roles, strict=True)]
        scores = [s.quality.quality for s in servers if s.quality is not None]
        # a request is served by some of the pools: it is no better than the best of them
        best = max(scores) if len(scores) == len(servers) else 1.0
        floors[whole] = changed(floor_of(parts, traffic), quality=best)
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
        frozen(p.speculate), p.expert_placement, drafting(server),
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
