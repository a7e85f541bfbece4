"""Draws the pictures of the documentation from real runs: the figures of the HTML report, each as a file of its own.

``python -m benchmarks.pages --runs`` writes them to ``docs/images``. The runs are the packaged examples, so anyone
can see the same figures with ``fleetcast plan mixed-fleet --report report.html``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import fleetcast
from fleetcast.view import figures, plots, svg
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
        "power.svg": alone(power_day()),
    }


def power_day() -> str:
    """Draws a day of the power benchmark's row with 30 % more servers, uncapped and under POLCA, by ten minutes."""
    from benchmarks import power
    from fleetcast.policy.power import Polca
    from fleetcast.scenario.workload.weeks import DAY

    row = power.row_at(power.inputs()[power.MODEL]["budget"]["80"], power.phases())
    week, count = power.traffic(1, 1, row.most), round(1.3 * row.servers)
    free = replace(row, most=count).free(week)
    capped = row.run(Polca(), week, count)
    day = slice(round(DAY / free.tick), round(2 * DAY / free.tick))
    x, y = svg.Scale(0.0, 24.0, 60, 700), svg.Scale(0.7, 1.1, 262, 30)
    body = svg.axes(x, y, "h", "%", "hour of a weekday", "power of the row, share of its budget")
    for name, kind, run in (("uncapped, no brake", 0, free), ("POLCA", 1, capped)):
        share = run.power[day].reshape(144, -1) / row.breaker.budget
        hours = [x((i + 0.5) / 6) for i in range(144)]
        band = [*zip(hours, map(y, share.max(axis=1)), strict=True)]
        band += reversed([*zip(hours, map(y, share.min(axis=1)), strict=True)])
        body.append(svg.path(band, f"band s{kind}", closed=True))
        mean = [*zip(hours, map(y, share.mean(axis=1)), strict=True)]
        body.append(svg.path(mean, f"series s{kind}"))
        noon = share[78:90]
        edge = y(float(noon.min())) + 18 if kind else y(float(noon.max())) - 10
        body.append(svg.text(x(14.0), edge, name, "said", "middle"))
    for limit in (1.0, Polca().upper, Polca().lower):
        said = svg.tick_text(limit, "%")
        body += [svg.line(x.start, y(limit), x.end, y(limit), "limit"), svg.text(704, y(limit) + 4, said, "limit-name")]
    return svg.figure(750, 310, body, "power of a row over a day, uncapped and under POLCA")


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
