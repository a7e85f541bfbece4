"""Which devices each job gets, all at once, as an integer program: Sia (Jayaram Subramanya et al., SOSP 2023).

A *configuration* is n devices of one kind: 1, 2, 4, ... up to a node, then whole nodes. Job i's goodput on each, over
the smallest it has on any, is g_ic; whatever is not what the job runs on now is worth only r_i of it,

    r_i = (age - restarts S) / (age + S)                              S = s that a restart takes; 1 while the job is
    younger

    minimise   sum_ic x_ic (r_i g_ic)^p + lambda (jobs - sum_ic x_ic)        p < 0, each job at most one configuration,
                                                                       each kind no more devices than there are

A job grows to at most ``growth`` times the most it has had (Sia knows no speed there yet), and stays as it is while
it restarts.

Solved to a gap of 1e-4 by HiGHS. Configurations that cost at least as much as a smaller one of the same kind, or as
nothing at all, are left out first; what reduced costs prove to be in no solution better than a rounded one is left
out next. Neither moves the optimum by more than the gap.
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
        table = [(kind, n) for kind, of in enumerate(board.kinds) for n in configurations(of)]
        cost, row, column = [], [], []
        for i, job in enumerate(board.jobs):
            for c, value in self._costs(board, job, table):
                row.append(i)
                column.append(c)
                cost.append(value - self.idle)  # against nothing at all
        if not cost:
            return
        kinds = np.array([kind for kind, _ in table])
        sizes = np.array([n for _, n in table])
        devices = np.array([kind.total for kind in board.kinds])
        chosen = choose(np.array(cost), np.array(row), kinds[column], sizes[column], devices)
        wanted = {board.jobs[row[at]].id: dict([table[column[at]]]) for at in chosen}
        deal(board, wanted)
        for job in board.jobs:
            if not job.granted:
                continue
            self._most[job.id] = max(self._most.get(job.id, 0), sum(job.granted.values()))
            if job.granted != dict(job.held):
                self._restarts[job.id] = self._restarts.get(job.id, -1) + 1
                self._began[job.id] = board.now

    def _costs(self, board: Board, job: Job, table: list[tuple[int, int]]) -> list[tuple[int, float]]:
        """Returns configurations worth considering, with their costs."""
        now = next(iter(job.held.items())) if len(job.held) == 1 else None
        if now in table and board.now - self._began.get(job.id, -np.inf) < self.restart:
            return [(table.index(now), self.idle - 1e6)]  # it restarts: nothing else is better
        most = (
            min(job.most, max(self.growth * self._most.get(job.id, 0), job.least)) if self.growth < np.inf else job.most
        )
        reach = {c: board.rate(job, dict([config])) for c, config in enumerate(table) if job.least <= config[1] <= most}
        reach = {c: rate for c, rate in reach.items() if rate > 0}
        if not reach:  # its fewest devices are no configuration of any kind, or more than it may have yet
            least = min((n for _, n in table if n >= job.least), default=0)
            reach = {c: board.rate(job, {kind: n}) for c, (kind, n) in enumerate(table) if n == least <= job.most}
            reach = {c: rate for c, rate in reach.items() if rate > 0}
        if not reach:
            return []
        smallest = min(reach.values())
        age = board.now - job.arrival
        again = (age - self._restarts.get(job.id, 0) * self.restart) / (age + self.restart)
        factor = max(again, 1e-3) if now is not None and age >= self.restart else 1.0
        kept, last, best = [], -1, np.inf
        for c, rate in reach.items():  # by kind, ascending in devices
            kind = table[c][0]
            if kind != last:
                last, best = kind, np.inf
            value = (rate / smallest * (1.0 if table[c] == now else factor)) ** self.power
            if value < min(best, self.idle):
                kept.append((c, value))
                best = value
        return kept


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
    # By duality no solution with a choice in it costs less than the relaxation's optimum plus the choice's reduced
    # cost.
    left = np.flatnonzero(relaxed.fun + relaxed.lower.marginals < least - GAP * abs(least))
    if not len(left):
        return incumbent
    matrix, most = _limits(job[left], kind[left], size[left], devices, job.max() + 1)
    found = scipy.optimize.milp(
        cost[left], integrality=np.ones(len(left)), bounds=scipy.optimize.Bounds(0, 1),
        constraints=scipy.optimize.LinearConstraint(matrix, -np.inf, most),
        options={"mip_rel_gap": GAP, "presolve": False},
    )  # fmt: skip
    better = [int(at) for at in left[found.x > 0.5]] if found.x is not None else []
    return better if cost[better].sum() < least else incumbent


def _limits(
    job: Ints, kind: Ints, size: Ints, devices: Ints, jobs: int | None = None
) -> tuple[scipy.sparse.csc_array, Floats]:  # fmt: skip
    count = int(job.max()) + 1 if jobs is None else jobs
    at = np.arange(len(job))
    data = np.concatenate([np.ones(len(job)), size.astype(float)])
    where = (np.concatenate([job, count + kind]), np.concatenate([at, at]))
    matrix = scipy.sparse.csc_array((data, where), shape=(count + len(devices), len(job)))
    return matrix, np.concatenate([np.ones(count), devices.astype(float)])


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
