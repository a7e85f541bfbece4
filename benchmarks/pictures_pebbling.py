"""Draws the least schedules of the alternating chain on one processor and on two: loads, computes and saves."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.cost.pebbling import families
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move, costs, game
from fleetcast.search.memory.exact import exact
from fleetcast.view import svg

STEPS, TABLE = 8, 8
KINDS = {LOAD: ("load", "part c0"), COMPUTE: ("compute", "part c1"), SAVE: ("save", "part c2")}
Span = tuple[int, int, int, float, float]
"""(processor, kind, node, begin, end)"""


def spans(of: Game, moves: Sequence[Move]) -> tuple[list[Span], float]:
    """Returns when each move is made, processors in step, and when all is done."""
    found: list[Span] = []
    start, busy, phase = 0.0, [0.0] * of.processors, DELETE
    for (kind, p, v), price in zip(moves, costs(of, moves), strict=True):
        if kind == DELETE:
            continue
        if kind != phase:
            start, busy, phase = start + max(busy), [0.0] * of.processors, kind
        found.append((p, kind, v, start + busy[p], start + busy[p] + price))
        busy[p] += price
    return found, start + max(busy)


def two_processors() -> str:
    """Draws both, one above the other, on one scale of steps."""
    dag = families.alternating(STEPS, TABLE)
    drawn = []
    for k in (1, 2):
        it = game(dag, red=TABLE + 2, processors=k)
        drawn.append(spans(it, exact(it).moves))
    x = svg.Scale(0.0, max(end for _, end in drawn), 60, 720)
    body = [svg.line(x(tick), 226, x(tick), 30, "grid") for tick in x.ticks(8)]
    body += [svg.text(x(tick), 244, f"{tick:g}", "tick", "middle") for tick in x.ticks(8)]
    top = 40.0
    for (found, end), said in zip(drawn, ("one processor", "two processors"), strict=True):
        rows = 1 + max(p for p, *_ in found)
        body.append(svg.text(60, top - 6, f"{said}: {end:g} steps", "name"))
        for p, kind, v, begin, until in found:
            place, width = top + 40.0 * p, x(until) - x(begin)
            name = f"{KINDS[kind][0]} {dag.name(v)}, {until - begin:g}"
            body.append(svg.rect(x(begin), place, max(1.0, width - 1.0), 32, KINDS[kind][1], name))
            if width > 12:
                body.append(svg.text(x(begin) + width / 2, place + 20, dag.name(v), "said", "middle"))
        top += 40.0 * rows + 34.0
    body.append(svg.text(390, 262, "steps", "name", "middle"))
    for i, (said, look) in enumerate(KINDS.values()):
        body += [svg.rect(60 + 120 * i, 276, 12, 12, look), svg.text(78 + 120 * i, 286, said, "tick")]
    return svg.figure(750, 296, body, "loads, computes and saves over time on one processor and on two")
