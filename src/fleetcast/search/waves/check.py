"""Whether a timetable can be carried out: it knows the graph and the wires, and nothing of how plans are made."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from fleetcast.search.waves.graph import Graph
from fleetcast.search.waves.place import Timetable, Wires, transfer

NEAR = 1e-9


def problems(graph: Graph, table: Timetable, devices: int, wires: Wires) -> list[str]:
    """Returns what is wrong with a timetable, in sentences; an empty list means nothing.

    Checked: every operator runs once and in order, each slot is as long as its operators take on its devices, the
    number of devices is one that the curve has, no device runs two at a time, nothing starts before its input is there.
    """
    wrong: list[str] = []
    by_op = defaultdict(list)
    by_device = defaultdict(list)
    for slot in table.slots:
        name = f"{graph[slot.op].name}[{slot.first}:{slot.first + slot.count}]"
        if len(set(slot.devices)) != len(slot.devices) or not slot.devices:
            wrong.append(f"{name} names a device twice, or none")
        if not all(0 <= d < devices for d in slot.devices):
            wrong.append(f"{name} runs on a device that is not there")
        curve = graph[slot.op].curve
        if len(slot.devices) not in curve.counts:
            wrong.append(f"{name} runs on {len(slot.devices)} devices, which its curve does not have")
            continue
        takes = slot.count * curve.seconds[curve.counts.index(len(slot.devices))]
        if slot.count < 1 or abs(slot.end - slot.start - takes) > NEAR * max(takes, slot.end):
            wrong.append(f"{name} takes {slot.end - slot.start:.6g} s, and its operators {takes:.6g} s")
        by_op[slot.op].append(slot)
        for d in slot.devices:
            by_device[d].append((slot.start, slot.end, name))
    for d, runs in by_device.items():
        runs.sort()
        for (_, end, name), (start, _, later) in pairwise(runs):
            if start < end - NEAR * end:
                wrong.append(f"device {d} runs {name} and {later} at a time")
    final = {}
    for i, op in enumerate(graph):
        slots = sorted(by_op[i], key=lambda s: (s.first, s.start))
        run = [n for s in slots for n in range(s.first, s.first + s.count)]
        if run != list(range(op.count)):
            wrong.append(f"{op.name} runs operators {run[:8]}..., and has {op.count}")
            continue
        final[i] = slots[-1]
        for one, other in pairwise(slots):
            if other.start < one.end + transfer(op.size, one.devices, other.devices, wires)[1] - NEAR * other.end:
                wrong.append(f"{op.name} goes on before its own output has arrived")
    for i, op in enumerate(graph):
        for j in op.after:
            if i not in final or j not in final:
                continue
            head = min(by_op[i], key=lambda s: s.first)
            there = final[j].end + transfer(graph[j].size, final[j].devices, head.devices, wires)[1]
            if head.start < there - NEAR * there:
                wrong.append(f"{op.name} starts before the output of {graph[j].name} has arrived")
    last = max((slot.end for slot in table.slots), default=0.0)
    if abs(last - table.seconds) > NEAR * max(last, 1e-30):
        wrong.append(f"the timetable says {table.seconds:.6g} s, and its last slot ends at {last:.6g} s")
    return wrong
