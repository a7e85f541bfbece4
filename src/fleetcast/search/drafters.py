"""Targets beside the pool that drafts for them: what a combination of layouts takes, and whether it can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Pool, one, replace
from fleetcast.sim.serving.setting import Server, Setting

Taken = list[tuple[Group, int]]
"""Devices of a group, a group as often as something runs on it."""


def drafted(
    state: Setting, servers: Sequence[Server], pools: Sequence[Pool]
) -> tuple[tuple[Server, ...], tuple[Pool, ...]] | Infeasible:
    """Returns the servers of the pools that serve beside the draft pool among them, and all pools, or why not.

    Args:
        state: the scenario.
        servers: of all pools, those that serve as if their drafters were elsewhere and cost nothing.
        pools: complete, with their replicas; those of the draft pool follow from the others where it has none.
    """
    draft = next((pool for pool in pools if pool.role == "draft"), None)
    if draft is None:
        return tuple(servers), tuple(pools)
    try:
        found = [(state.server(s.pool, draft), p) for s, p in zip(servers, pools, strict=True) if p.role != "draft"]
    except Infeasible as why:
        return why
    need = sum(s.drafters.count * one(p.replicas) for s, p in found if s.drafters is not None)
    if draft.replicas not in (None, need):
        return Infeasible("replicas of the draft pool, one for each drafter", need=need, have=one(draft.replicas))
    return tuple(server for server, _ in found), tuple(
        replace(pool, replicas=need) if pool is draft else pool for pool in pools
    )  # fmt: skip


def taken(servers: Sequence[Server], pools: Sequence[Pool]) -> Taken:
    """Returns the devices that complete pools take, those of their drafters too, which a layout does not count."""
    both = zip(servers, pools, strict=True)
    return [(group, n * one(pool.replicas)) for server, pool in both for group, n in server.takes]


def crowded(devices: Taken) -> Infeasible | None:
    """Returns why the groups do not hold so many devices, None where they do."""
    count: Counter[str] = Counter()
    for group, n in devices:
        count[group.name] += n
    over = next((group for group, _ in devices if count[group.name] > group.count), None)
    if over is None:
        return None
    return Infeasible(f"devices of group '{over.name}', drafters' among them", need=count[over.name], have=over.count)


def drafting(server: Server) -> Pool | None:
    """Returns the pool that drafts for a server on devices of its own, but for its replicas."""
    return None if server.drafters is None else server.drafters.pool
