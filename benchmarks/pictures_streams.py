"""The picture of streams: where the example's filter sits, and what flows and is drawn then."""

from __future__ import annotations

import math

import fleetcast
from fleetcast.base.show import show
from fleetcast.search.ranking import made
from fleetcast.view import svg

LEFT, WIDE, BETWEEN, HIGH = 180, 88, 62, 92
"""Places of the first box, its width, the room to the next, and the height of a row."""


def filter_places() -> str:
    """Draws the pipeline of the example once for each place of its filter: links as thick as what they carry."""
    ranking = fleetcast.plan("cameras", top=None)
    most = max(row["output_rate"] * row["bytes"] for o in ranking.plans for row in o.resources)
    body = []
    for i, outcome in enumerate(ranking.plans):
        top = 16 + i * HIGH
        m = outcome.metrics
        body += [
            svg.text(10, top + 20, made(outcome.plan), "name"),
            svg.text(10, top + 38, f"{show(m['power'], 'W')}, F1 {m['f1']:.2f}", "tick"),
            svg.text(10, top + 54, f"{m['productivity']:.3g} samples/J", "tick"),
            svg.text(10, top + 70, f"{show(m['latency'], 's')} late", "tick"),
        ]
        for k, row in enumerate(outcome.resources):
            x = LEFT + k * (WIDE + BETWEEN)
            here = outcome.plan["filter"] == row["name"]
            power = row["op_power"]
            body += [
                svg.rect(x, top, WIDE, 56, f"mark s{2 if here else 1}", f"{row['name']}: busy {row['busy']:.0%}"),
                svg.text(x + WIDE / 2, top + 20, row["name"], "name", "middle"),
                svg.text(x + WIDE / 2, top + 35, "filters" if here else "", "tick", "middle"),
                svg.text(x + WIDE / 2, top + 50, show(power, "W", 2) if power >= 0.01 else "", "tick", "middle"),
            ]
            if k + 1 < len(outcome.resources):
                sent = row["output_rate"] * row["bytes"]
                thick = 2 + 16 * math.log10(max(1.0, sent / (most / 100))) / 2
                body += [
                    svg.rect(x + WIDE, top + 28 - thick / 2, BETWEEN, thick, "part c2", f"{show(sent, 'B/s')}"),
                    svg.text(x + WIDE + BETWEEN / 2, top + 52, show(sent, "B/s", 2), "tick", "middle"),
                    svg.text(
                        x + WIDE + BETWEEN / 2, top + 66, show(row["link_power"], "W", 2) if row["link_power"] else "",
                        "tick", "middle",
                    ),
                ]  # fmt: skip
    return svg.figure(
        780, 16 + HIGH * len(ranking.plans), body, "a filter at each of its places, what flows and is drawn"
    )
