"""A figure as an SVG file of its own, with its size and its colours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.view import plots
from fleetcast.view.compare import Term

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome

_MARGIN = 16
_CSS = Path(__file__).parent / "templates" / "report.css"


def write_terms(path: Path, terms: Sequence[Term], before: Outcome, after: Outcome) -> Path:
    """Writes busy time by term of two outcomes as a picture; returns its path.

    Raises:
        Unsupported: one of them does not say where its time went.
    """
    if not terms:
        which = "second" if before.breakdown.get("time") else "first"
        raise Unsupported(
            f"no picture: the {which} outcome does not say where its time went",
            "Runs of the engine here do, and simulations; a server's do not",
        )
    names = ("forecast", "measured") if after.source == "measured" else ("first", "second")
    return write_atomic(path, alone(plots.draw_terms(terms, names)))


def alone(figure: str) -> str:
    """Returns a figure of the report as a file of its own: with its size, its colours and a margin, on white."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)
    assert box is not None, "figures have a viewBox"
    width, height = float(box[1]) + 2 * _MARGIN, float(box[2]) + 2 * _MARGIN
    place = f"{-_MARGIN} {-_MARGIN} {width:.0f} {height:.0f}"
    size = f'width="{width:.0f}" height="{height:.0f}"'
    css = _CSS.read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", css.partition("@media")[0]))
    parts = r"|\.c\d" if 'class="part' in figure else ""
    rules = re.findall(rf"^(?:svg{parts}) .*$", css, re.MULTILINE)
    style = "\n".join(["svg { font: 13px system-ui, sans-serif; fill: var(--ink); }", *rules])
    style = re.sub(r"var\((--[\w-]+)\)", lambda m: colours[m[1]], style)
    ground = f'<style>\n{style}\n</style><rect x="{-_MARGIN}" y="{-_MARGIN}" {size} fill="{colours["--card"]}"/>'
    figure = figure.replace(box[0], f'viewBox="{place}"')
    return re.sub(r"<svg([^>]*)>", lambda m: f"<svg {size}{m[1]}>{ground}", figure, count=1) + "\n"
