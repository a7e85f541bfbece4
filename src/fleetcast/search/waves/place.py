"""Which devices each share of a wave runs on, and when: data stays where it is, and nobody waits for a wave's end.

A share takes the devices that its MetaOp had before, then those that hold what it reads, then whole nodes. With every
device fixed, a share starts as soon as its devices are free and its input has arrived: waves say the order, not the
moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast.search.waves.graph import Graph
from fleetcast.search.waves.schedule import Share, Wave

SLACK = 0.02
"""Share of its own time by which a share may start later to find its data where it is."""


@dataclass(frozen=True)
class Wires:
    """How devices are joined.

    Attributes:
        node: devices of a node.
        inner: B/s that each device sends within its node.
        outer: B/s that each device sends to another node.
        latency: s of a message.
    """

    node: int = 8
    inner: float = float("inf")
    outer: float = float("inf")
    latency: float = 0.0


@dataclass(frozen=True)
class Slot:
    """A share in time and place.

    Attributes:
        op, first, count: which operators, as in `Share`.
        devices: numbers of the devices.
        start, end: s.
        wave: which wave it is of.
    """

    op: int
    first: int
    count: int
    devices: tuple[int, ...]
    start: float
    end: float
    wave: int


@dataclass(frozen=True)
class Timetable:
    """Slots in order of their waves, and what moves between them.

    Attributes:
        slots: every share, placed and timed.
        moved: B that change devices, forward; as many come back as gradients.
        seconds: until the last ends.
    """

    slots: tuple[Slot, ...]
    moved: float
    seconds: float


def place(graph: Graph, waves: Sequence[Wave], devices: int, wires: Wires, *, local: bool = True) -> Timetable:
    """Returns the timetable of waves.

    Args:
        graph: MetaOps.
        waves: what runs together, in order.
        devices: how many there are.
        wires: how they are joined.
        local: False = number devices from 0 in every wave, wherever the data is.
    """
    free = [0.0] * devices
    last: dict[int, Slot] = {}
    slots: list[Slot] = []
    moved = 0.0
    for number, wave in enumerate(waves):
        taken: set[int] = set()
        order = sorted(wave, key=lambda s: (-s.devices, s.op)) if local else wave
        for share in order:
            feeds = _feeds(graph, share, last)
            held = Counter(d for slot in feeds for d in slot.devices)
            rest = [d for d in range(devices) if d not in taken]
            if local:
                takes = graph[share.op].curve.on(share.devices) * share.count
                soon = max([sorted(free[d] for d in rest)[share.devices - 1], *(s.end for s in feeds)]) + SLACK * takes
                rest = [d for d in rest if free[d] <= soon]
                rest = _near(rest, share.devices, held, free, wires.node)
            chosen = rest[: share.devices]
            taken.update(chosen)
            start = max((free[d] for d in chosen), default=0.0)
            for slot in feeds:
                size = graph[slot.op].size
                part, seconds = transfer(size, slot.devices, chosen, wires)
                moved += part
                start = max(start, slot.end + seconds)
            end = start + graph[share.op].curve.on(share.devices) * share.count
            slot = Slot(share.op, share.first, share.count, tuple(sorted(chosen)), start, end, number)
            slots.append(slot)
            last[share.op] = slot
            for d in chosen:
                free[d] = end
    return Timetable(tuple(slots), moved, max((slot.end for slot in slots), default=0.0))


def _feeds(graph: Graph, share: Share, last: dict[int, Slot]) -> list[Slot]:
    """Returns the slots whose output a share reads: its own MetaOp's last, or those before it."""
    return [last[share.op]] if share.first else [last[i] for i in graph[share.op].after]


def _near(rest: list[int], count: int, held: Counter[int], free: Sequence[float], node: int) -> list[int]:
    """Returns ``count`` devices: in few nodes, where data is, free early."""
    room = Counter(d // node for d in rest)
    data = Counter[int]()
    for d in rest:
        data[d // node] += held[d]

    def rank(d: int) -> tuple[float, ...]:
        home = d // node
        fits = room[home] >= count
        return (-(held[d] > 0), -data[home], not fits, room[home] if fits else -room[home], free[d], d)

    return sorted(rest, key=rank)[:count]


def transfer(size: float, before: Sequence[int], after: Sequence[int], wires: Wires) -> tuple[float, float]:
    """Returns (B that change devices, seconds that this takes, there and back) of data dealt evenly over ``before``.

    What stays on a device does not move. The rest is sent by all at once, between nodes where a sender's node holds no
    receiver.
    """
    if set(before) == set(after):
        return 0.0, 0.0
    # Dealt evenly before and after: a device that is in both keeps the smaller of its two parts.
    kept = len(set(before) & set(after)) / max(len(before), len(after))
    part = size * (1.0 - kept)
    homes = {d // wires.node for d in after}
    near = all(d // wires.node in homes for d in before)
    rate = (wires.inner if near else wires.outer) * min(len(before), len(after))
    return part, 2.0 * (wires.latency + part / rate)
