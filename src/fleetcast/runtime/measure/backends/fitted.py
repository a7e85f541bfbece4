"""A device profile from a backend's latencies: what the planner needs, read off whole passes.

    t = layers * call + products / peak + attention / attended + weights / bandwidth

Four non-negative costs by least squares over relative errors: a pass's products and its weights run one after the other
at worst, and that is what small batches show. Williams, Waterman and Patterson, "Roofline", 2009, is the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import dump_toml
from fleetcast.runtime.measure.backends import Cell, Comparison
from fleetcast.runtime.measure.backends.shapes import Shape
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.operators import elementwise, ready
from fleetcast.runtime.measure.timing import fastest

COSTS = ("call", "product", "attention", "byte")
"""s per layer, per operation of products, per operation of attention, per byte of weights."""
_KERNELS = 12
"""Kernels of a layer that a planner launches, among which ``call`` is divided."""


def counts(shape: Shape, sequence: int, batch: int) -> list[float]:
    """Returns how much of each of `COSTS` a pass has."""
    products, attention = shape.flops(sequence, batch)
    return [float(shape.layers), products, attention, shape.read()]


def fit(found: Comparison, backend: str, shapes: Sequence[str] = ()) -> dict[str, float]:
    """Returns each of `COSTS` for a backend, s.

    Args:
        found: the benchmark.
        backend: of it.
        shapes: names of those to learn from; () = all.

    Raises:
        SpecError: the backend was not run, or not on enough points.
    """
    from scipy.optimize import nnls

    known = {s.name: s for s in found.shapes}
    cells = [c for c in found.cells if c.backend == backend and (not shapes or c.shape in shapes)]
    if len(cells) < len(COSTS):
        limit = f"at least {len(COSTS)} cells; it ran {', '.join(found.backends)}"
        raise SpecError("backend", "has too few", value=backend, limit=limit, hint=closest(backend, found.backends))
    rows = np.array([counts(known[c.shape], c.sequence, c.batch) for c in cells])
    seconds = np.array([c.median for c in cells])
    scale = rows.max(axis=0)
    costs, _ = nnls(rows / scale / seconds[:, None], np.ones(len(cells)))
    return dict(zip(COSTS, (costs / scale).tolist(), strict=True))


def forecast(costs: Mapping[str, float], shape: Shape, cell: Cell) -> float:
    """Returns the seconds of a cell's pass that ``costs`` say."""
    return sum(costs[name] * n for name, n in zip(COSTS, counts(shape, cell.sequence, cell.batch), strict=True))


def profile(found: Comparison, backend: str, machine: Machine, bandwidth: float) -> dict[str, Any]:
    """Returns the device profile that a scenario names, as a table.

    Args:
        found: the benchmark.
        backend: whose passes it describes.
        machine: that they ran on.
        bandwidth: B/s of its memory, for what no pass shows.
    """
    costs = fit(found, backend)
    peak = 1.0 / max(costs["product"], 1e-15)
    share = 1.0 if costs["byte"] <= 0 else min(1.0 / (costs["byte"] * bandwidth), 1.0)
    attended = 1.0 if costs["attention"] <= 0 else min(1.0 / (costs["attention"] * peak), 1.0)
    launch = costs["call"] / _KERNELS
    rows = {
        "gemm": {"launch": launch, "depth": 0.0, "compute": 1.0, "memory": share, "sharp": 1},
        "stream": {"launch": launch, "memory": 1.0},
        "decode": {"launch": launch, "head": 0.0, "base": 0.0, "memory": share, "compute": attended},
        "prefill": {"launch": launch, "token": 1.0, "window": 0.0, "compute": attended, "narrow": attended},
    }
    known = {s.name: s for s in found.shapes}
    errors = [forecast(costs, known[c.shape], c) / c.median - 1 for c in found.cells if c.backend == backend]
    spread = max(float(np.sqrt(np.mean(np.square(errors)))), 0.02)
    source = f"fleetcast measure model: {len(errors)} latencies of whole passes under {backend}, fp32"
    return {
        "device": {
            "id": f"{machine.id}-{backend.replace('.', '-')}", "name": f"{machine.name} under {backend}",
            "vendor": machine.vendor, "kind": "cpu", "architecture": "cpu", "memory": machine.memory,
            "bandwidth": bandwidth, "peak": {"fp32": peak}, "l2": machine.last, "units": machine.cores,
            "clock": machine.clock, "power": {"idle": 1.0, "max": 10.0, "source": "not measured; write what you know"},
            "node": 1, "link": "on-package", "network": "ethernet-10g", "host_link": "on-package",
            "measured": "products, weights and attention of whole passes", "source": source,
        },
        "coefficients": {
            "source": "fleetcast measure model", "spread": dict.fromkeys(rows, spread),
            "tables": {name: {"any" if name == "stream" else "bf16": row} for name, row in rows.items()},
        },
        "measured": {"backend": backend, "threads": found.threads, "load": list(found.load), "costs": costs},
    }  # fmt: skip


def stream() -> float:
    """Returns the bytes per second that a copy of 64 MB reads and writes, on one core."""
    copy = elementwise("copy", 16_000_000)
    return copy.bytes() / float(fastest([ready(copy)], 5)[0])


def profile_toml(table: Mapping[str, Any]) -> str:
    """Returns the text of a profile's file."""
    head = '# Written by fleetcast measure model. A scenario names this file: devices = "1x ./profile.toml"'
    return f"{head}\n{dump_toml(table)}"
