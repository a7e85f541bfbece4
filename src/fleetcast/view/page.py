"""What pages have in common: sections, rows, lists, tiles, and the frame with the question at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from fleetcast.scenario.load import Scenario, dump
from fleetcast.view.release import release
from fleetcast.view.svg import escape

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome

_TEMPLATES = Path(__file__).parent / "templates"


def page(scenario: Scenario, parts: Sequence[str], outcome: Outcome | None) -> str:
    """Returns a whole page: its parts, what was taken as given, the scenario and the plan.

    Args:
        scenario: the question.
        parts: HTML of the sections, in order; empty ones are left out.
        outcome: whose plan and notes are shown; None = there is none.
    """
    kept = [part for part in parts if part]
    if outcome is not None and outcome.notes:
        lead = "What the scenario left open and what was assumed."
        kept.append(section("Taken as given", listing(outcome.notes), lead))
    plan = ""
    if outcome is not None:
        told = escape(json.dumps(outcome.plan, indent=2, default=str))
        plan = f"<details><summary>The plan</summary><pre>{told}</pre></details>"
    asked = f"<details open><summary>Scenario</summary><pre>{escape(dump(scenario))}</pre></details>{plan}"
    kept.append(section("The question", asked))
    provenance: Mapping[str, Any] = outcome.provenance if outcome is not None else {}
    said = [
        f"fleetcast {release()}",
        *(f"{k} {v}" for k, v in provenance.items() if isinstance(v, str | int) and not isinstance(v, bool)),
    ]
    frame = Template((_TEMPLATES / "report.html").read_text(encoding="utf-8"))
    return frame.substitute(
        title=escape(f"{scenario.name} – Fleetcast"), version=escape(release()), body="\n".join(kept),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"), footer=escape(" · ".join(said)),
    )  # fmt: skip


def section(title: str, body: str, lead: str = "", *, card: bool = True) -> str:
    """Returns a section under its title; ``lead`` says in a sentence what it shows."""
    said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{said}{f'<div class=card>{body}</div>' if card else body}</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Returns a table of plain text; ``right`` names the columns of numbers."""
    body = "".join(row(cells, right=right) for cells in rows)
    return f"<table><thead>{row(heads, right=right, cell='th')}</thead><tbody>{body}</tbody></table>"


def row(cells: Sequence[str], *, right: Sequence[int] = (), cell: str = "td") -> str:
    """Returns a row of a table."""
    made = (f"<{cell}{' class=n' if i in right else ''}>{escape(c)}</{cell}>" for i, c in enumerate(cells))
    return f"<tr>{''.join(made)}</tr>"


def listing(sentences: Sequence[str]) -> str:
    """Returns sentences as a list."""
    return f'<ul class="why">{"".join(f"<li>{escape(s)}</li>" for s in sentences)}</ul>'


def tile(name: str, value: str, note: str = "", *, bad: bool = False) -> str:
    """Returns a number in a box, its unit in smaller type, with a note below."""
    figure, space, unit = value.partition(" ")
    sized = escape(figure) + (f" <i>{escape(unit)}</i>" if space else "")
    return (
        f'<div class="tile{" bad" if bad else ""}"><span>{escape(name)}</span><b>{sized}</b>'
        f"<small>{escape(note) or '&nbsp;'}</small></div>"
    )


def tiles(made: Sequence[str]) -> str:
    """Returns tiles side by side."""
    return f'<div class="tiles">{"".join(made)}</div>'


def title(headline: str, rest: str, badge: str, good: bool, question: str) -> str:
    """Returns the head of a page: what was found, what its short name leaves out, a badge, what was asked."""
    mark = f'<span class="badge {"ok" if good else "bad"}">{escape(badge)}</span>' if badge else ""
    said = f"<p class=detail>{escape(rest)}</p>" if rest else ""
    return f"<h1>{escape(headline)}{mark}</h1>{said}<p class=lead>{escape(question)}</p>"


def bars(wholes: Sequence[tuple[str, str, str]]) -> str:
    """Returns wholes one below the other: (name, how much in all, drawing)."""
    made = "".join(f"<h3>{escape(name)}<span>{escape(total)}</span></h3>{drawn}" for name, total, drawn in wholes)
    return f'<div class="bars">{made}</div>'
