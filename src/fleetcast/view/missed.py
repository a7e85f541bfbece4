"""Layouts that miss the SLO, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetcast.view.words import limit_text, strain


def too_slow(missed: Sequence[Mapping[str, Any]], most: int = 6) -> list[tuple[str, str, str]]:
    """Returns, for each number of devices with which no layout meets the SLO, what misses and by how much.

    A row is (devices, layout, limit): of several layouts the one that was tried furthest. Where there are more than
    ``most`` rows, those furthest from the SLO share the last.

    Args:
        missed: of a `Ranking`.
        most: rows.
    """
    sets: dict[tuple[tuple[str, int], ...], list[Mapping[str, Any]]] = {}
    for row in missed:
        if row["every_layout"]:
            sets.setdefault(tuple(row["on"].items()), []).append(row)
    near = sorted(sets, key=lambda on: min(map(strain, sets[on])))
    own = set(near if len(near) <= most else near[: most - 1])
    rows = []
    for on, layouts in sets.items():
        if on in own:
            more = f" and {len(layouts) - 1} more" if len(layouts) > 1 else ""
            count = _devices(layouts[0]["devices"])
            count = " + ".join(f"{n} {name}" for name, n in on) if len(on) > 1 else count
            rows.append((count, f"{layouts[0]['layout']}{more}", limit_text(layouts[0])))
    rest = [row for on in near if on not in own for row in sets[on]]
    if rest:
        numbers = sorted({row["devices"] for row in rest})
        run = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
        best = min(rest, key=strain)
        rows.append((f"{run} devices", f"{best['layout']} and {len(rest) - 1} more", limit_text(best)))
    return rows


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
