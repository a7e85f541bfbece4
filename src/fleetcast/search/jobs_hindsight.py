"""The least carbon that jobs could have had, all being known beforehand: the bound of deferral and relocation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.sim.cluster.fast import rates
from fleetcast.sim.cluster.grids import JOULES_PER_KWH, mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fleetcast.scenario.fleet.signals import Signal
    from fleetcast.sim.cluster.setting import Setting

HOUR = 3600.0


def bound(state: Setting, until: NDArray[np.float64], step: float = HOUR) -> float:
    """Returns g of work, above idle devices and without the facility, that no policy goes below.

    Args:
        state: a scenario of jobs that are not elastic.
        until: f8[n], s by which each job has ended: its deadline, or when it did end where that is later.
        step: s, of the slots; grids are taken at their mean, so that it should divide their own.

    Raises:
        ValueError: an elastic job.
        Infeasible: not all jobs can end in time.
    """
    jobs = state.jobs
    if not ((jobs.least == jobs.demand) & (jobs.most == jobs.demand)).all():
        raise ValueError("the bound is of jobs that run on all the devices that they ask for, or not at all")
    kinds = state.nodes.kinds
    first, last = np.floor(jobs.arrival[0] / step), np.ceil(until.max() / step)
    edges = step * np.arange(first, last + 1)
    return least_carbon(
        jobs.arrival, until, jobs.demand, rates(jobs, state.nodes, state.pace), edges, means(state.grids.true, edges),
        [kind.total for kind in kinds], [kind.power for kind in kinds],
    )  # fmt: skip


def means(grids: Sequence[Signal], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns f8[K, S], g/kWh of each kind in each slot."""
    return np.array([mean(grid, edges[:-1], edges[1:]) for grid in grids])


def least_carbon(
    arrival: NDArray[np.float64], until: NDArray[np.float64], demand: NDArray[np.int32], rate: NDArray[np.float64],
    edges: NDArray[np.float64], carbon: NDArray[np.float64], total: Sequence[int], power: Sequence[float],
) -> float:  # fmt: skip
    """Returns g of the linear programme over jobs, slots and kinds; jobs stop and move for nothing.

    The seconds x[j, k, s] that job j runs on kind k in slot s minimise the sum of x demand power carbon. All work is
    done; a job runs in one place at a time, after its arrival and before its end; no more devices of a kind are at
    work than there are. Devices are averaged over a slot, which only lowers the bound.

    Args:
        arrival: f8[n], s; ``until``: f8[n], s; ``demand``: i4[n], devices.
        until: see ``arrival``.
        demand: see ``arrival``.
        rate: f8[n, K], share of a job done in a second; 0 = not there.
        edges: f8[S + 1], s, of slots.
        carbon: f8[K, S], g/kWh.
        total: of each kind, devices; ``power``: W that work adds to one.
        power: see ``total``.

    Raises:
        Infeasible: not all jobs can end in time.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    inside = np.minimum(edges[1:], until[:, None]) - np.maximum(edges[:-1], arrival[:, None])
    job, slot = np.nonzero(inside > 1e-9)
    pairs, kinds = len(job), len(total)
    able = (rate[job] > 0) & (demand[job][:, None] <= np.array(total))
    pair, kind = np.nonzero(able)
    who, when = job[pair], slot[pair]
    hours = np.diff(edges)
    cost = demand[who] * np.array(power)[kind] * carbon[kind, when] / JOULES_PER_KWH
    column = np.arange(len(pair))
    rows = np.r_[pair, pairs + kind * len(hours) + when]
    limits = coo_array(
        (np.r_[np.ones(len(pair)), demand[who].astype(float)], (rows, np.r_[column, column])),
        shape=(pairs + kinds * len(hours), len(pair)),
    ).tocsr()  # fmt: skip
    most = np.r_[inside[job, slot], np.outer(np.array(total, float), hours).ravel()]
    work = coo_array((rate[who, kind], (who, column)), shape=(len(arrival), len(pair))).tocsr()
    found = linprog(cost, A_ub=limits, b_ub=most, A_eq=work, b_eq=np.ones(len(arrival)), method="highs")
    if found.status == 2:
        need = float((demand / rate.max(axis=1)).sum())
        raise Infeasible(
            "all jobs by their deadlines", need=need, have=float(np.sum(total) * (edges[-1] - edges[0])),
            unit="device-seconds", hint="Give more slack, or bound the jobs by when they did end",
        )  # fmt: skip
    if found.status != 0:
        raise ArithmeticError(f"HiGHS: {found.message}")
    return float(found.fun)
