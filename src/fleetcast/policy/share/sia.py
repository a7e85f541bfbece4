"""Which devices each job gets, all at once, as an integer program: Sia (Jayaram Subramanya et al., SOSP 2023).

A *configuration* is n devices of one kind: 1, 2, 4, ... up to a node, then whole nodes. Job i's goodput on each, over
the smallest it has on any, is g_ic; whatever is not what the job runs on now is worth only r_i of it,

    r_i = (age - restarts S) / (age + S)         S = s that a restart takes; 1 while the job is younger

    minimise   sum_ic x_ic (r_i g_ic)^p + lambda (jobs - sum_ic x_ic)
               p < 0, each job at most one configuration, of each kind no more devices than there are

A job grows to at most ``growth`` times the most it has had (Sia knows no speed there yet), and stays as it is while it
restarts.

Configurations that cost at least as much as a smaller one of the same kind, or as nothing at all, are left out first.
HiGHS relaxes the program; what reduced costs prove to be in no solution better than a rounded one is left out next.
What remains is counted exactly (how many devices of each kind are used), or branched by HiGHS where there are too
many devices to count. The result is within a gap of 1e-4 of the optimum.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from fleetcast.policy.share.board import Board, DeviceKind, Job
from fleetcast.policy.share.dealing import deal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
GAP = 1e-4
COUNTED = 3e7  # states times choices up to which counting is quicker than branching


class Sia:
    """Trades goodput against fairness over configurations.

    Args:
        power: p, below 0; nearer to 0 is less fair.
        idle: lambda, what a job that waits costs; above 1, the cost of the smallest configuration.
        restart: s, S.
        growth: largest growth over what a job has had; inf = any.
    """

    kind = "sia"

    def __init__(self, *, power: float = -0.5, idle: float = 1.1, restart: float = 30.0, growth: float = 2.0) -> None:
        self.power = power
        self.idle = idle
        self.restart = restart
        self.growth = growth
        self._most: dict[int, int] = {}
        self._restarts: dict[int, int] = {}
        self._began: dict[int, float] = {}

    def share(self, board: Board) -> None:
        """Solves the program anew and grants what it chose."""
        table = _table(board)
        devices = np.array([kind.total for kind in board.kinds])
        wanted: dict[int, dict[int, int]] = {}
        for job in board.jobs:
            if job.held and board.now - self._began.get(job.id, -np.inf) < self.restart:
                wanted[job.id] = dict(job.held)  # it restarts: it stays
                devices[list(job.held)] -= list(job.held.values())
        cost, row, column = [], [], []
        for i, job in enumerate(board.jobs):
            for c, value in [] if job.id in wanted else self._costs(board, job, table):
                row.append(i)
                column.append(c)
                cost.append(value - self.idle)  # against nothing at all
        if cost:
            kinds, sizes, _ = (np.array(part)[column] for part in zip(*table, strict=True))
            for at in choose(np.array(cost), np.array(row), kinds, sizes, np.maximum(devices, 0)):
                kind, n, _ = table[column[at]]
                wanted[board.jobs[row[at]].id] = {kind: n}
        deal(board, wanted)
        for job in board.jobs:
            if not job.granted:
                continue
            self._most[job.id] = max(self._most.get(job.id, 0), sum(job.granted.values()))
            if job.granted != dict(job.held):
                self._restarts[job.id] = self._restarts.get(job.id, -1) + 1
                self._began[job.id] = board.now

    def _costs(self, board: Board, job: Job, table: list[tuple[int, int, bool]]) -> list[tuple[int, float]]:
        """Returns configurations worth considering, with their costs."""
        now = next(iter(job.held.items())) if len(job.held) == 1 else None
        suits = [
            (c, kind, n)
            for c, (kind, n, usual) in enumerate(table)
            if job.least <= n <= job.most and (usual or n == job.least)
        ]
        smallest = min((n for _, _, n in suits), default=0)
        most = max(self.growth * self._most.get(job.id, 0), smallest) if self.growth < np.inf else job.most
        reach = {c: board.rate(job, {kind: n}) for c, kind, n in suits if n <= most}
        reach = {c: rate for c, rate in reach.items() if rate > 0}
        if not reach:
            return []
        slowest = min(reach.values())
        age = board.now - job.arrival
        again = (age - self._restarts.get(job.id, 0) * self.restart) / (age + self.restart)
        factor = max(again, 1e-3) if now is not None and age >= self.restart else 1.0
        kept, last, best = [], -1, np.inf
        for c, rate in reach.items():  # by kind, ascending in devices
            kind = table[c][0]
            if kind != last:
                last, best = kind, np.inf
            value = (rate / slowest * (1.0 if table[c][:2] == now else factor)) ** self.power
            if value < min(best, self.idle):
                kept.append((c, value))
                best = value
        return kept


def _table(board: Board) -> list[tuple[int, int, bool]]:
    """Returns (kind, devices, whether for all): a job that no configuration suits has one of its fewest devices."""
    table = []
    for kind, of in enumerate(board.kinds):
        usual = configurations(of)
        own = {job.least for job in board.jobs if not any(job.least <= n <= job.most for n in usual)}
        table += [(kind, n, n in usual) for n in sorted(own.union(usual)) if n <= of.total]
    return table


def configurations(kind: DeviceKind) -> list[int]:
    """Returns numbers of devices: powers of two within a node, the whole node, then whole nodes."""
    within = [1 << bit for bit in range(kind.node.bit_length()) if 1 << bit < kind.node]
    return [n for n in within if n <= kind.total] + list(range(kind.node, kind.total + 1, kind.node))


def choose(cost: Floats, job: Ints, kind: Ints, size: Ints, devices: Ints) -> list[int]:
    """Returns the choices of least cost in all: at most one a job, no kind beyond its devices; nothing costs 0.

    Args:
        cost: f8[choices].
        job: of each choice, i8[choices], ascending.
        kind: of each choice.
        size: devices of each choice.
        devices: of each kind.
    """
    _, job = np.unique(job, return_inverse=True)  # numbers without gaps
    matrix, most = _limits(job, kind, size, devices)
    relaxed = scipy.optimize.linprog(cost, A_ub=matrix, b_ub=most, bounds=(0, None), method="highs-ds")
    incumbent = _rounded(relaxed.x, cost, job, kind, size, devices)
    least = float(cost[incumbent].sum())
    # By duality no solution with a choice in it costs less than the relaxation's plus the choice's reduced cost.
    left = np.flatnonzero(relaxed.fun + relaxed.lower.marginals < least - GAP * abs(least))
    if not len(left):
        return incumbent
    states = float(np.prod(devices + 1.0)) * len(left)
    solve = _counted if states <= COUNTED else _branched
    better = [int(at) for at in left[solve(cost[left], job[left], kind[left], size[left], devices)]]
    return better if cost[better].sum() < least else incumbent


def _counted(cost: Floats, job: Ints, kind: Ints, size: Ints, devices: Ints) -> list[int]:
    """Returns the best choices by dynamic programming over how many devices of each kind are used."""
    best = np.zeros(tuple(devices + 1))  # least cost with at most so many devices
    picks = []
    for j in np.unique(job):
        after, pick = best.copy(), np.full(best.shape, -1, np.int32)
        for at in np.flatnonzero((job == j) & (size <= devices[kind])):
            to, back = [slice(None)] * len(devices), [slice(None)] * len(devices)
            to[kind[at]], back[kind[at]] = slice(int(size[at]), None), slice(0, int(devices[kind[at]] + 1 - size[at]))
            with_it = best[tuple(back)] + cost[at]
            better = with_it < after[tuple(to)]
            np.copyto(after[tuple(to)], with_it, where=better)
            np.copyto(pick[tuple(to)], at, where=better)
        picks.append(pick)
        best = after
    left, chosen = devices.astype(int).copy(), list[int]()
    for pick in reversed(picks):
        taken = int(pick[tuple(left)])
        if taken >= 0:
            chosen.append(taken)
            left[kind[taken]] -= size[taken]
    return chosen


def _branched(cost: Floats, job: Ints, kind: Ints, size: Ints, devices: Ints) -> list[int]:
    """Returns the best choices by branch and cut, where there are too many devices to count."""
    matrix, most = _limits(job, kind, size, devices)
    found = scipy.optimize.milp(
        cost, integrality=np.ones(len(job)), bounds=scipy.optimize.Bounds(0, 1),
        constraints=scipy.optimize.LinearConstraint(matrix, -np.inf, most), options={"mip_rel_gap": GAP},
    )  # fmt: skip
    return [] if found.x is None else [int(at) for at in np.flatnonzero(found.x > 0.5)]


def _limits(job: Ints, kind: Ints, size: Ints, devices: Ints) -> tuple[scipy.sparse.csc_array, Floats]:
    _, job = np.unique(job, return_inverse=True)
    count, at = int(job.max()) + 1, np.arange(len(job))
    # Rows of shares, not of devices: a choice that is whole but for the solver's tolerance then breaks none of them.
    data = np.concatenate([np.ones(len(job)), size / np.maximum(devices, 1)[kind]])
    where = (np.concatenate([job, count + kind]), np.concatenate([at, at]))
    matrix = scipy.sparse.csc_array((data, where), shape=(count + len(devices), len(job)))
    return matrix, np.concatenate([np.ones(count), np.minimum(devices, 1).astype(float)])


def _rounded(x: Floats, cost: Floats, job: Ints, kind: Ints, size: Ints, devices: Ints) -> list[int]:
    """Returns a solution near a relaxed one: its whole choices, the rest by cost, then every exchange that pays."""
    free = devices.astype(int).copy()
    chosen = {}
    for at in np.flatnonzero(x > 1 - 1e-6):
        chosen[int(job[at])] = int(at)
        free[kind[at]] -= size[at]
    starts = np.searchsorted(job, np.arange(job.max() + 2))
    improved = True
    while improved:
        improved = False
        for j in range(len(starts) - 1):
            had = chosen.get(j)
            if had is not None:
                free[kind[had]] += size[had]
            mine = np.arange(starts[j], starts[j + 1])
            mine = mine[size[mine] <= free[kind[mine]]]
            best = int(mine[cost[mine].argmin()]) if len(mine) else None
            now = 0.0 if had is None else cost[had]
            if best is not None and cost[best] < now - 1e-12:
                chosen[j], improved = best, True
            if j in chosen:
                free[kind[chosen[j]]] -= size[chosen[j]]
    return list(chosen.values())
