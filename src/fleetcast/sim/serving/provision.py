"""What a plan takes before it serves anything: power that must be there for its servers, and money an hour.

Power is provisioned for the worst moment: every device draws the most that it does at its clock (`cost.energy`), but
no more than the fleet's power limit, and every server that the plan touches its host power. Devices that a plan does
not take are off: nobody pays for them, and they draw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleetcast.base.errors import Infeasible
from fleetcast.cost.energy import peak_draw
from fleetcast.cost.step import StepCost
from fleetcast.scenario.fleet.tree import Group, Tree
from fleetcast.scenario.plan import Pool, one
from fleetcast.sim.serving.setting import Server


@dataclass(frozen=True)
class Taken:
    """What a plan takes.

    Attributes:
        power: W of all servers at their highest.
        idle: W of them when nothing runs.
        price: $/h of all devices; what has no price counts nothing.
    """

    power: float
    idle: float
    price: float


def peak_of(group: Group, cost: StepCost) -> float:
    """Returns W that one device of a group draws at most, by the costs of what runs on it."""
    return min(peak_draw(cost.work["rates"], cost.work["bandwidth"]), group.limit)


def taken(tree: Tree, parts: Sequence[tuple[Server, Pool]]) -> Taken:
    """Returns what complete pools take, with those that draft for them.

    Args:
        tree: the fleet.
        parts: each pool that serves, with what its replicas run.
    """
    power = idle = price = 0.0
    sets: dict[str, list[tuple[int, int]]] = {}
    for server, pool in parts:
        width, replicas = one(pool.tensor_parallel) * one(pool.attention_dp), one(pool.replicas)
        runs = [(server.group, server.cost, width, replicas * one(pool.pipeline_parallel))]
        if (d := server.drafters) is not None:
            runs.append((d.group, d.cost, d.cost.devices, replicas * d.count))
        for group, cost, each, count in runs:
            power += each * count * peak_of(group, cost)
            idle += each * count * group.device.power.idle
            price += each * count * (group.price or 0.0)
            sets.setdefault(group.name, []).append((each, count))
    touched = sum(servers_touched(tree.group(name).node, own) for name, own in sets.items()) if tree.host_power else 0
    return Taken(power + tree.host_power * touched, idle + tree.host_power * touched, price)


def servers_touched(node: int, sets: Sequence[tuple[int, int]]) -> int:
    """Returns how many servers sets of devices take, each set within one where it fits; the widest are placed first.

    Args:
        node: devices of a server.
        sets: (devices of a set, how many such sets).
    """
    found, free = 0, dict[int, int]()  # servers by devices left
    for width, count in sorted(sets, reverse=True):
        if width > node:
            found += count * -(-width // node)
            continue
        for room in sorted(r for r in free if r >= width):
            used = min(free[room], -(-count // (room // width)))
            fill = min(count, used * (room // width))
            count -= fill
            _move(free, room, width, used, fill)
        if count:
            fresh = -(-count // (node // width))
            found += fresh
            free[node] = free.get(node, 0) + fresh
            _move(free, node, width, fresh, count)
    return found


def _move(free: dict[int, int], room: int, width: int, used: int, sets: int) -> None:
    """Puts sets into ``used`` of the servers with ``room`` devices left, full ones first."""
    each = room // width
    full, rest = divmod(sets, each)
    free[room] -= used
    free[room - each * width] = free.get(room - each * width, 0) + full
    if rest:
        free[room - rest * width] = free.get(room - rest * width, 0) + 1


def limited(tree: Tree) -> bool:
    """Whether the fleet limits what a plan may take."""
    return tree.budget is not None or tree.spend is not None


def shares(tree: Tree, found: Taken) -> list[dict[str, Any]]:
    """Returns what a plan takes of each of the fleet's limits: ``{what, value, limit, unit}``."""
    rows = (("power", found.power, tree.budget, "W"), ("price", found.price, tree.spend, "$/h"))
    return [{"what": w, "value": v, "limit": limit, "unit": u} for w, v, limit, u in rows if limit is not None]


def excess(tree: Tree, found: Taken, *, capped: bool) -> Infeasible | None:
    """Returns why a plan takes too much, or None where it stays within the fleet's budget and spend.

    Args:
        tree: the fleet.
        found: what the plan takes.
        capped: a power policy caps the servers: then only what they draw when idle must fit, and
            `search.servers` says what the policy holds.
    """
    need = found.idle if capped else found.power
    if tree.budget is not None and need > tree.budget * (1 + 1e-9):
        said = "idle power of all servers" if capped else "power of all servers"
        return Infeasible(
            said, need=need, have=tree.budget, unit="W",
            hint="Raise fleet.budget, take fewer devices, or lower plan.clock or fleet.power_limit",
        )  # fmt: skip
    if tree.spend is not None and found.price > tree.spend * (1 + 1e-9):
        return Infeasible(
            "price of all devices", need=found.price, have=tree.spend, unit="$/h",
            hint="Raise fleet.spend, or take fewer or cheaper devices",
        )  # fmt: skip
    return None
