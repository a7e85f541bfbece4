"""The least carbon that requests could have had, their demand being known beforehand: the bound of carbon routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.sim.functions.world import Pods


def demand(pods: Pods, joules: NDArray[np.float64], step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns f8[T] B that pods hold on average and f8[T] J that they draw, in each step.

    Args:
        pods: of a run.
        joules: f8[p], of each pod, drawn evenly over its life.
        step: s.
    """
    count = int(np.ceil(pods.trace.span / step))
    life = np.maximum(pods.death - pods.start, 1e-12)
    memory = pods.trace.memory[pods.function]
    edges = step * np.arange(count + 1)
    held, drawn = np.zeros(count), np.zeros(count)
    first, last = (pods.start // step).astype(int), np.minimum(pods.death // step, count - 1).astype(int)
    for k in range(int((last - first).max(initial=0)) + 1):  # the k-th step that each pod lives in
        at = first + k
        mine = at <= last
        inside = np.minimum(pods.death[mine], edges[at[mine] + 1]) - np.maximum(pods.start[mine], edges[at[mine]])
        held += np.bincount(at[mine], inside * memory[mine], count)
        drawn += np.bincount(at[mine], inside / life[mine] * joules[mine], count)
    return held / step, drawn


def least_carbon(
    held: NDArray[np.float64], joules: NDArray[np.float64], carbon: NDArray[np.float64], capacity: NDArray[np.float64]
) -> float:
    """Returns g of a plan that fills regions in the order of their carbon in every step.

    That is the optimum of the linear programme: minimise the sum of x[z, t] carbon[z, t] with the x of a step summing
    to its energy and x[z, t] within the region's share of memory; steps do not depend on each other.

    Args:
        held: f8[T], B that pods hold.
        joules: f8[T], J that they draw, whatever the region.
        carbon: f8[Z, T], g/kWh.
        capacity: f8[Z], B.

    Raises:
        ValueError: more is held than there is.
    """
    if (held > capacity.sum() * (1 + 1e-9)).any():
        raise ValueError(f"{held.max():.4g} B are held, and there are {capacity.sum():.4g} B")
    order = np.argsort(carbon, axis=0, kind="stable")
    room = capacity[order]
    before = np.cumsum(room, axis=0) - room
    taken = np.clip(held - before, 0.0, room)
    share = np.divide(taken, held, out=np.zeros_like(taken), where=held > 0)
    return float((share * np.take_along_axis(carbon, order, axis=0) * joules).sum() / 3.6e6)
