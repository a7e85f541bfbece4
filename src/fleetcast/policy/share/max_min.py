"""Max-min fairness over unlike devices, in rounds: Gavel (Narayanan et al., OSDI 2020).

X_ij is what share of the time job i of s_i devices runs on kind j, which has n_j. With r_ij its rate there, an equal
split of every kind would give it r_i. = sum_j r_ij n_j / n, and

    maximise min_i  s_i / (w_i r_i.) sum_j r_ij X_ij       subject to  sum_i s_i X_ij <= n_j,  sum_j X_ij <= 1,  X >= 0

Rounds make shares true: on each kind, jobs go first that have had least of what X promises, as long as they fit.

Optima are not unique. Ours is the same for jobs that are alike in rate, devices and weight (so that the program has a
column for each class of jobs and kind, not for each job), and of the fairest the one of most throughput. ``aware =
False`` takes all kinds for equal, as Gavel's baseline of that name: then shares are known in closed form and spread
over kinds as these are large.

What a job does beside another on the same device (Gavel's packing) is left out.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from fleetcast.policy.share.board import Board, Job
from fleetcast.policy.share.dealing import deal

Floats = NDArray[np.float64]


class MaxMin:
    """Gives each job the largest equal share of what an equal split would do for it.

    Args:
        aware: whether kinds of devices are told apart.
        reset: s for which shares stand although jobs come and go; 0 as the paper, 1,920 in the authors' simulator.
    """

    kind = "max_min"

    def __init__(self, *, aware: bool = True, reset: float = 0.0) -> None:
        self.aware = aware
        self.reset = reset
        self._shares: dict[int, Floats] = {}
        self._had: dict[int, Floats] = {}
        self._owed: dict[int, Floats] = {}
        self._ran: dict[int, int] = {}
        self._all: Floats = np.zeros(0)
        self._seen = 0.0
        self._last = -np.inf
        self._turn = 0
        self._changed = False

    def share(self, board: Board) -> None:
        """Runs in this round the jobs that are furthest behind their shares."""
        half = 0.5 * (board.round if np.isfinite(board.round) else 360.0)
        self._account(board, half)
        if not board.jobs or not any(kind.total for kind in board.kinds):
            return
        kinds = range(len(board.kinds))
        order = list(kinds)
        if not self.aware:  # whoever knows no kinds fills none of them first
            self._turn += 1
            order = order[self._turn % len(order) :] + order[: self._turn % len(order)]
        free = [kind.total for kind in board.kinds]
        wanted: dict[int, dict[int, int]] = {}
        for kind in order:
            for job in sorted(board.jobs, key=lambda j: self._urgency(j, kind), reverse=True):
                if free[kind] <= 0:
                    break
                if job.id in wanted or job.demand > free[kind] or board.rate(job, {kind: job.demand}) <= 0:
                    continue
                free[kind] -= job.demand
                wanted[job.id] = {kind: job.demand}
        deal(board, wanted)
        self._ran = {job.id: kind for job in board.jobs for kind in job.granted}

    def _account(self, board: Board, half: float) -> None:
        """Adds what ran since, and begins anew where jobs have changed and shares have stood long enough."""
        jobs, passed = board.jobs, board.now - self._seen
        if len(self._all) != len(board.kinds):
            self._all = np.zeros(len(board.kinds))
        for number, kind in self._ran.items():
            self._all[kind] += passed
            if number in self._had:
                self._had[number][kind] += passed
        self._seen = board.now
        there = {job.id for job in jobs}
        changed = there != self._had.keys()
        for number in self._had.keys() - there:
            del self._had[number], self._owed[number]
        for number in there - self._had.keys():
            self._had[number] = np.full(len(board.kinds), half)
            self._owed[number] = np.zeros(len(board.kinds))
            self._all += half
        self._changed = self._changed or changed
        if jobs and any(kind.total for kind in board.kinds) and self._changed and board.now - self._last >= self.reset:
            elapsed = board.now - self._last if np.isfinite(self._last) else 0.0
            for job in jobs:
                self._owed[job.id] += self._shares.get(job.id, 0.0) * elapsed - (self._had[job.id] - half)
                self._had[job.id][:] = half
            self._all[:] = half * len(jobs)
            self._shares = self._solve(board)
            self._last, self._changed = board.now, False

    def _urgency(self, job: Job, kind: int) -> tuple[float, float, float]:
        shares = self._shares.get(job.id)
        if shares is None:
            return 0.0, 0.0, 0.0
        return shares[kind] * self._all[kind] / self._had[job.id][kind], self._owed[job.id][kind], shares[kind]

    def _solve(self, board: Board) -> dict[int, Floats]:
        devices = np.array([kind.total for kind in board.kinds], float)
        demand = np.array([job.demand for job in board.jobs], float)
        weight = np.array([job.weight for job in board.jobs])
        if self.aware:
            rates = np.array([self._rates(board, job) for job in board.jobs])
            rows = shares(rates, demand, weight, devices)
        else:
            rows = alike(demand, weight, devices)
        return {job.id: row for job, row in zip(board.jobs, rows, strict=True)}

    def _rates(self, board: Board, job: Job) -> list[float]:
        fits = (kind.total >= job.demand for kind in board.kinds)
        return [board.rate(job, {kind: job.demand}) if fit else 0.0 for kind, fit in enumerate(fits)]


def alike(demand: Floats, weight: Floats, devices: Floats) -> Floats:
    """Returns the fairest shares f8[jobs, kinds] if all kinds are equal: the level to which all jobs rise together."""
    total = devices.sum()
    level = weight / demand  # X_i = min(1, t w_i / s_i), with t so that sum_i s_i X_i = n
    order = np.argsort(-level, kind="stable")  # jobs that reach 1 first
    full = np.concatenate([[0.0], np.cumsum(demand[order])])[:-1]
    rest = weight.sum() - np.concatenate([[0.0], np.cumsum(weight[order])])[:-1]
    heights = (total - full) / rest
    at = int(np.argmax((heights * level[order] <= 1.0) | (np.arange(len(order)) == len(order) - 1)))
    times = np.minimum(1.0, np.maximum(heights[at], 0.0) * level)
    return np.outer(times, devices / total)


def shares(rates: Floats, demand: Floats, weight: Floats, devices: Floats) -> Floats:
    """Returns the fairest shares f8[jobs, kinds] of most throughput, equal for jobs that are alike.

    Args:
        rates: f8[jobs, kinds], work a second on all that a job demands.
        demand: f8[jobs], devices.
        weight: f8[jobs].
        devices: f8[kinds].
    """
    # Rates of one model differ by how much work a job is: what counts is their ratio to the equal split.
    fair = rates @ (devices / devices.sum())
    worth = rates * (demand / weight)[:, None] / np.where(fair > 0, fair, 1.0)[:, None]
    classes, of, members = np.unique(
        np.round(np.column_stack([worth, demand]), 12), axis=0, return_inverse=True, return_counts=True
    )  # fmt: skip
    value, size = classes[:, :-1], classes[:, -1]
    runs = np.flatnonzero(value.max(axis=1) > 0)
    if not len(runs):
        return np.zeros_like(rates)
    value, size, count = value[runs], size[runs], members[runs].astype(float)
    c, k = value.shape
    columns = c * k + 1
    at = np.arange(c * k)
    rows = np.concatenate([at // k, np.arange(c), c + at % k, c + k + at // k])
    cols = np.concatenate([at, np.full(c, c * k), at, at])
    data = np.concatenate([-value.ravel(), np.ones(c), np.repeat(count * size, k), np.ones(c * k)])
    matrix = scipy.sparse.csc_array((data, (rows, cols)), shape=(2 * c + k, columns))
    most = np.concatenate([np.zeros(c), devices, np.ones(c)])
    upper = np.append(np.where(value.ravel() > 0, 1.0, 0.0), np.inf)
    fairest = np.zeros(columns)
    fairest[-1] = -1.0
    found = _program(fairest, matrix, most, np.zeros(columns), upper)
    lower = np.zeros(columns)
    lower[-1] = found[-1] * (1.0 - 1e-9)
    fastest = np.append(-(value * count[:, None]).ravel(), 0.0)
    found = _program(fastest, matrix, most, lower, upper)
    result = np.zeros((len(classes), k))
    result[runs] = np.clip(found[:-1].reshape(c, k), 0.0, 1.0)
    return np.asarray(result[of.ravel()])


def _program(cost: Floats, matrix: scipy.sparse.csc_array, most: Floats, lower: Floats, upper: Floats) -> Floats:
    """Solves a linear program by HiGHS; around the solver, `milp` with no integer column costs less than `linprog`."""
    limits = scipy.optimize.LinearConstraint(matrix, -np.inf, most)
    found = scipy.optimize.milp(cost, constraints=limits, bounds=scipy.optimize.Bounds(lower, upper))
    if found.x is None:
        raise AssertionError(f"X = 0 is feasible, yet HiGHS says: {found.message}")
    return np.asarray(found.x, float)
