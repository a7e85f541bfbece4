"""How far fits of all-reduce times are from sizes and numbers of ranks that they did not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.fit.all_reduce import Curves
from fleetcast.cost.collectives.piecewise import Array, Piecewise, bandwidth_only, between, fit, hockney

MODELS: Mapping[str, Callable[[Array, Array], Piecewise]] = {
    "broken line": fit, "latency and bandwidth": hockney, "one bandwidth": bandwidth_only,
}  # fmt: skip
MIB = 1 << 20
SEVERAL = ("b200-efa-4", "four-nodes-unnamed")
"""Machines whose ranks are on four nodes."""


def errors(
    size: Array, time: Array, model: Callable[[Array, Array], Piecewise], low: float, high: float
) -> list[float]:
    """Returns relative errors at every second size, the even ones and then the odd, by a fit to the others.

    Sizes from ``low`` up to below ``high`` count, and between those that the fit has seen.
    """
    found: list[float] = []
    for parity in (0, 1):
        seen = np.arange(len(size)) % 2 == parity
        line = model(size[seen], time[seen])
        judge = ~seen & (size >= max(low, size[seen].min())) & (size < high) & (size <= size[seen].max())
        found += np.abs(line(size[judge]) / time[judge] - 1.0).tolist()
    return found


def held_out(curves: Curves, low: float = MIB, high: float = np.inf) -> dict[str, dict[str, float]]:
    """Returns where -> model -> mean relative error at sizes held out, all measurements alike.

    "node" is all curves in one node, "several nodes" those over four; each machine has its own as well.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for (name, _), (size, time) in curves.items():
        for model, fitted in MODELS.items():
            off = errors(size, time, fitted, low, high)
            for where in (name, "several nodes" if name in SEVERAL else "node"):
                found.setdefault(where, {}).setdefault(model, []).extend(off)
    return {
        where: {model: float(np.mean(off)) for model, off in rows.items()}
        for where, rows in found.items() if any(rows.values())
    }  # fmt: skip


def rank_left_out(curves: Curves, name: str) -> float:
    """Returns the mean relative error of a machine's curve for a number of ranks, from those on either side."""
    ranks = sorted(n for machine, n in curves if machine == name)
    found: list[float] = []
    for n in ranks[1:-1]:
        size, time = curves[name, n]
        low, high = ((k, fit(*curves[name, k])) for k in (n - 1, n + 1))
        found += np.abs(between(size, n, low, high) / time - 1.0).tolist()
    return float(np.mean(found))
