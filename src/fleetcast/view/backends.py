"""Shows one model under several backends: who agrees, and how long a pass takes in each."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.runtime.measure.backends import AGREE, Comparison
from fleetcast.view.tables import rows_table

BUSY = 0.5
"""Processes per core beyond which latencies are those of a busy machine."""


def backends_view(found: Comparison) -> RenderableType:
    """Returns the report of a benchmark: a row a point of the grid, a column a backend, the fastest marked."""
    names = found.backends
    at = {(c.shape, c.sequence, c.batch, c.backend): c for c in found.cells}
    rows = []
    for shape, sequence, batch in dict.fromkeys((c.shape, c.sequence, c.batch) for c in found.cells):
        row = {name: at.get((shape, sequence, batch, name)) for name in names}
        best = min((c.median for c in row.values() if c is not None), default=0.0)
        told = ["-" if c is None else show(c.median, "s") + (" *" if c.median == best else "  ") for c in row.values()]
        rows.append((shape, f"{sequence} x {batch}", *told))
    widths = sorted((c.interval[1] - c.interval[0]) / 2 / c.median for c in found.cells)
    worst = {name: max(of.get(name, 0.0) for of in found.differences.values()) for name in names}
    notes = [
        f"95 % intervals of the medians are +-{widths[len(widths) // 2]:.1%} wide in the median cell, "
        f"+-{widths[-1]:.1%} at most" if widths else "nothing was timed",
        "Outputs differ from those of the first backend by at most "
        + ", ".join(f"{worst[name]:.1e} ({name})" for name in names[1:])
        + (f": they agree to {AGREE:g}" if found.agreed else f": MORE THAN {AGREE:g}"),
    ] if len(names) > 1 else ["One backend ran, so nothing was compared"]  # fmt: skip
    notes += [f"not run: {name}: {reason}" for name, reason in found.skipped.items()]
    if max(found.load) > BUSY:
        notes.append(
            f"the machine was busy (load {max(found.load):.1f} a core): latencies are longer than they need be"
        )
    title = f"One pass, median of {len(found.cells[0].seconds) if found.cells else 0}, {found.threads} threads, fp32"
    head = ("Model", "Tokens x batch", *names)
    return Group(
        Text(title, style="bold"), Text(), rows_table(head, rows, right=tuple(range(2, len(head)))), Text(),
        *(Text(f"- {note}", style="dim") for note in notes),
    )  # fmt: skip
