"""Executes the steps of a plan on arrays: what every host holds at the end is what the plan really computes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives.steps import Step
from fleetcast.search.collectives.gentree import Plan

Integers = NDArray[np.int64]


def execute(plan: Plan, data: Integers) -> Integers:
    """Returns what each host holds after the plan.

    Args:
        plan: an all-reduce.
        data: (hosts, elements) what each has at the start; left as it is.

    Raises:
        SpecError: not one row for each host.
    """
    if data.ndim != 2 or len(data) != plan.topology.hosts:
        limit = f"{plan.topology.hosts} rows, one for each host"
        raise SpecError("data", "does not fit the plan", value=str(data.shape), limit=limit)
    return run(plan.block.all_reduce(), data, plan.cells)


def run(steps: Iterable[Step], data: Integers, cells: int) -> Integers:
    """Returns (hosts, elements) after steps; all transfers of a step read what stood there before it."""
    held = data.copy()
    elements = data.shape[1]
    for step in steps:
        starts = (step.start * elements // cells).tolist()
        stops = (step.stop * elements // cells).tolist()
        pairs = list(zip(step.source.tolist(), step.target.tolist(), starts, stops, strict=True))
        sent = [held[source, start:stop].copy() for source, _, start, stop in pairs]
        for (_, target, start, stop), piece in zip(pairs, sent, strict=True):
            if step.reduce:
                held[target, start:stop] += piece
            else:
                held[target, start:stop] = piece
    return held
