"""Draws which promises tiny systems of voting processes can keep, from the exhaustive search."""

from __future__ import annotations

from benchmarks.vote import FOUR, PROMISES, SYSTEMS, answers
from fleetcast.view import svg

STATES = (("kept by some rule", "part c2"), ("kept where ballots of crashed processes count", "part c0"),
          ("no rule keeps it", "part c1"))  # fmt: skip


def promises() -> str:
    """Draws a cell for each system and promise: kept under either unanimity, of all ballots, or by no rule."""
    systems = SYSTEMS | FOUR
    whole, strict = answers(systems), answers(systems, "correct")
    left, top, wide, high = 300.0, 46.0, 84.0, 28.0
    body = [
        svg.text(left + wide * (i + 0.5), top - 14, name, "name", "middle")
        for i, name in enumerate(PROMISES)
    ]  # fmt: skip
    for r, system in enumerate(systems):
        y = top + r * high
        body.append(svg.text(0, y + high / 2 + 4, system, "said"))
        for i, name in enumerate(PROMISES):
            if (system, name) not in whole:
                body.append(svg.text(left + (i + 0.5) * wide, y + high / 2 + 4, "not searched", "tick", "middle"))
                continue
            state = 0 if strict[system, name].exists else 1 if whole[system, name].exists else 2
            body.append(
                svg.rect(left + i * wide, y, wide - 2, high - 2, STATES[state][1], f"{name}: {STATES[state][0]}")
            )
    below, at = top + len(systems) * high + 22, 0.0
    for said, kind in STATES:
        body += [svg.rect(at, below - 10, 12, 12, kind), svg.text(at + 18, below, said, "tick")]
        at += 40 + 7.2 * len(said)
    return svg.figure(730, below + 10, body, "which promises some rule keeps, by system: three plans, from the search")
