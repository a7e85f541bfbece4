"""What multi-task training does without waves: one operator after the other, task by task, or devices dealt to tasks.

- `sequential`: Megatron-LM and DeepSpeed as the paper runs them: every operator on all devices, one task after another.
- `decoupled`: task after task, but within each the devices are dealt to its modules by waves.
- `by_task`: devices dealt to whole tasks by who gains most from one more (Optimus, EuroSys 2018); tasks run side by
  side, each of them one operator after the other. More tasks than devices take turns.
"""

from __future__ import annotations

from dataclasses import replace

from fleetcast.search.waves.graph import Graph, MetaOp
from fleetcast.search.waves.place import Slot, Timetable, Wires, place, transfer
from fleetcast.search.waves.schedule import Share, level_waves, one_by_one


def tasks_of(graph: Graph) -> dict[str, list[int]]:
    """Returns the MetaOps of each task, in order."""
    found: dict[str, list[int]] = {}
    for i, op in enumerate(graph):
        found.setdefault(op.task, []).append(i)
    return found


def sequential(graph: Graph, devices: int, wires: Wires) -> Timetable:
    """Returns the timetable of one operator after the other on all devices that help it."""
    return _in_line(graph, one_by_one(graph, devices), devices, wires)


def decoupled(graph: Graph, devices: int, wires: Wires) -> Timetable:
    """Returns the timetable of one task after the other, each in waves of its own."""
    slots: list[Slot] = []
    moved = now = 0.0
    wave = 0
    for members in tasks_of(graph).values():
        number = {old: new for new, old in enumerate(members)}
        alone = tuple(replace(graph[i], after=tuple(number[j] for j in graph[i].after)) for i in members)
        table = place(alone, level_waves(alone, devices), devices, wires)
        for slot in table.slots:
            slots.append(
                replace(slot, op=members[slot.op], start=slot.start + now, end=slot.end + now, wave=slot.wave + wave)
            )
        now, moved, wave = now + table.seconds, moved + table.moved, slots[-1].wave + 1
    return Timetable(tuple(slots), moved, now)


def by_task(graph: Graph, devices: int, wires: Wires) -> Timetable:
    """Returns the timetable of tasks side by side, devices dealt by marginal gain."""
    members = tasks_of(graph)
    names = list(members)

    def time(name: str, n: int) -> float:
        return sum(_time(graph[i], n) for i in members[name])

    # With fewer devices than tasks, each device takes several: longest first to who is free first.
    if len(names) > devices:
        groups: list[list[str]] = [[] for _ in range(devices)]
        load = [0.0] * devices
        for name in sorted(names, key=lambda name: -time(name, 1)):
            at = load.index(min(load))
            groups[at].append(name)
            load[at] += time(name, 1)
        dealt = dict.fromkeys(range(devices), 1)
    else:
        groups = [[name] for name in names]
        dealt = dict.fromkeys(range(len(names)), 1)
        for _ in range(devices - len(names)):
            gain = {g: time(names[g], n) - time(names[g], n + 1) for g, n in dealt.items()}
            if max(gain.values()) <= 0:  # a plateau: whoever is slowest gets it
                most = max(dealt, key=lambda g: time(names[g], dealt[g]))
            else:
                most = max(gain, key=lambda g: gain[g] / dealt[g])
            dealt[most] += 1
    first, slots, moved, wave = 0, list[Slot](), 0.0, 0
    for g, group in enumerate(groups):
        own = tuple(range(first, first + dealt[g]))
        first += dealt[g]
        now = 0.0
        for name in group:
            done: dict[int, Slot] = {}
            for i in members[name]:
                used = own[: graph[i].curve.allowed(len(own))]
                start = now
                for j in graph[i].after:
                    part, seconds = transfer(graph[j].size, done[j].devices, used, wires)
                    moved, start = moved + part, max(start, done[j].end + seconds)
                now = start + graph[i].curve.on(len(own)) * graph[i].count
                done[i] = Slot(i, 0, graph[i].count, used, start, now, wave)
                slots.append(done[i])
                wave += 1
    return Timetable(tuple(slots), moved, max(slot.end for slot in slots))


def _time(op: MetaOp, n: int) -> float:
    return op.curve.on(n) * op.count


def _in_line(graph: Graph, waves: list[tuple[Share, ...]], devices: int, wires: Wires) -> Timetable:
    """Returns waves one strictly after the other: nothing starts before all before it has ended."""
    slots: list[Slot] = []
    done: dict[int, Slot] = {}
    now = moved = 0.0
    for number, (share,) in enumerate(waves):
        used, start = tuple(range(share.devices)), now
        for j in graph[share.op].after:
            part, seconds = transfer(graph[j].size, done[j].devices, used, wires)
            moved, start = moved + part, max(start, done[j].end + seconds)
        now = start + graph[share.op].curve.on(share.devices) * share.count
        done[share.op] = Slot(share.op, 0, share.count, used, start, now, number)
        slots.append(done[share.op])
    return Timetable(tuple(slots), moved, now)
