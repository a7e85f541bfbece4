"""The prefix caches of a pool, resolved: the engine's default, what they do not go with, and their tiers in blocks."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import build, describe, kinds
from fleetcast.cost.step import StepCost
from fleetcast.policy import evict
from fleetcast.scenario.caches import TIERS, tiers_of
from fleetcast.scenario.plan import Pool
from fleetcast.scenario.workload.models import Model
from fleetcast.sim.serving.prefixes import Caching, Tier


def caching_table(
    pool: Pool, default: str, memory: Any, model: Model, shared: bool, path: str
) -> dict[str, Any] | None:
    """Returns a pool's ``prefix_cache`` table, complete: left out, the engine's default where it is of any use.

    Args:
        pool: may leave it open.
        default: the engine's policy, "" = none.
        memory: the pool's memory policy.
        model: that it serves.
        shared: the traffic says what prompts share.
        path: of the pool, for errors.

    Raises:
        SpecError: no such policy, or a tier out of range.
    """
    if pool.prefix_cache is None:
        useless = not shared or not default or no_prefixes(pool.role, memory, model) is not None
        return None if useless else {"kind": default}
    found = tiers_of(pool.prefix_cache, f"{path}.prefix_cache")
    if found is None:
        return {"kind": "off"}
    kind, known = found[0].get("kind") if isinstance(found[0], dict) else None, ("off", *kinds(evict))
    if isinstance(kind, str) and ":" not in kind and kind not in known:
        raise SpecError(
            f"{path}.prefix_cache.kind", "is unknown", value=kind,
            limit=f"one of {', '.join(known)}, or 'module:Class'", hint=closest(kind, known),
        )  # fmt: skip
    policy = build(evict, found[0], f"{path}.prefix_cache", TIERS)
    return describe(policy) | {name: size for name in TIERS if (size := getattr(found[1], name))}


def caching_of(
    pool: Pool, memory: Any, model: Model, cost: StepCost, disk: float | None, path: str = "plan.prefix_cache"
) -> Caching | None:
    """Returns how a pool's lanes cache prefixes, None where they do not.

    Args:
        pool: complete.
        memory: its memory policy.
        model: that it serves.
        cost: of an iteration, which knows a block's bytes and the host link.
        disk: B/s that a device's share of the disks reads; None = nobody says.
        path: for errors.

    Raises:
        SpecError: what a prefix cache does not go with, or a tier whose speed is not known.
    """
    asked = tiers_of(pool.prefix_cache, path)
    if asked is None:
        return None
    table, below = asked
    policy = build(evict, table, path, TIERS, methods=("rank",))
    if (why := no_prefixes(pool.role, memory, model)) is not None:
        raise SpecError(path, why, value=table, hint='Leave it out, or write "off"')
    if below.ssd and disk is None:
        raise SpecError(
            f"{path}.ssd", "is a tier whose speed the fleet does not say", value=below.ssd,
            limit="fleet.ssd, what a device's share of the disks reads", hint='Write e.g. [fleet] ssd = "6 GB/s"',
        )  # fmt: skip
    block, lanes = cost.work["block_bytes"], cost.scalars["stages"]
    tiers = [Tier(int(below.cpu / block / lanes), cost.scalars["swap_block"])]
    if below.ssd:
        read = max(block / float(disk or 1.0), cost.scalars["swap_block"])
        tiers.append(Tier(int(below.ssd / block / lanes), read))
    return Caching(policy, tuple(tiers) if tiers[-1].blocks else ())


def no_prefixes(role: str, memory: Any, model: Model) -> str | None:
    """Returns why a pool cannot cache prefixes, or None."""
    if role == "decode":
        return "is not used by a decode pool: prompts are computed elsewhere"
    if memory.swap:
        return "does not go with swapping: a request's blocks move, those it shares cannot"
    if any(block.recurrence is not None for block in model.blocks):
        return f"cannot restore the state that {model.id} keeps per sequence"
    return None
