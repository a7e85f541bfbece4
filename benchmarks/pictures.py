"""Draws the pictures of the documentation from real runs: the figures of the HTML report, each as a file of its own.

``python -m benchmarks.pages --runs`` writes them to ``docs/images``. The runs are the packaged examples, so anyone
can see the same figures with ``fleetcast plan mixed-fleet --report report.html``.
"""

from __future__ import annotations

import re
from pathlib import Path

import fleetcast
from fleetcast.view import figures, plots
from fleetcast.view.outputs import decided

_MARGIN = 16
_CSS = Path(str(fleetcast.__file__)).parent / "view" / "templates" / "report.css"


def draw() -> dict[str, str]:
    """Returns the pictures: file name -> SVG text."""
    scenario = fleetcast.load("mixed-fleet")
    ranking = fleetcast.plan(scenario, top=None)
    assert ranking.best is not None, "the example has a plan within its SLO"
    best = fleetcast.simulate(decided(scenario, ranking.best), record=True)
    plane = figures.frontier_info(ranking, scenario.slo)
    timeline = figures.timeline_info(best)
    assert plane is not None, "the example has a frontier"
    assert timeline is not None, "the run was recorded"
    return {
        "plans.svg": alone(plots.draw_scatter(plane)),
        "timeline.svg": alone(plots.draw_timeline(timeline)),
    }


def alone(figure: str) -> str:
    """Returns a figure of the report as a file of its own: with its size, its colours and a margin, on white."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)
    assert box is not None, "figures have a viewBox"
    width, height = float(box[1]) + 2 * _MARGIN, float(box[2]) + 2 * _MARGIN
    place = f"{-_MARGIN} {-_MARGIN} {width:.0f} {height:.0f}"
    size = f'width="{width:.0f}" height="{height:.0f}"'
    css = _CSS.read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", css.partition("@media")[0]))
    rules = re.findall(r"^svg .*$", css, re.MULTILINE)
    style = "\n".join(["svg { font: 13px system-ui, sans-serif; fill: var(--ink); }", *rules])
    style = re.sub(r"var\((--[\w-]+)\)", lambda m: colours[m[1]], style)
    ground = f'<style>\n{style}\n</style><rect x="{-_MARGIN}" y="{-_MARGIN}" {size} fill="{colours["--card"]}"/>'
    figure = figure.replace(box[0], f'viewBox="{place}"')
    return re.sub(r"<svg([^>]*)>", lambda m: f"<svg {size}{m[1]}>{ground}", figure, count=1) + "\n"
