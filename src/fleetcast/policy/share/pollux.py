"""Devices by goodput, searched for genetically: Pollux (Qiao et al., OSDI 2021).

Job i on n devices speeds up by s_i(n) = goodput(n) / goodput(its equal share); one that would restart counts r_i s_i,
r_i = (age - restarts S) / (age + S). The fitness of an allocation is the power mean

    ((1 / J) sum_i s_i^p)^(1 / p)          p < 0: the less fair, the nearer to 0; -1 as the authors'

Selection by tournament, crossing over at one job, mutation that sets counts back to what jobs have, to 0 or to a
random count, and a repair that keeps allocations within what there is. The best of the last round start the next.

Differences from the paper: an allocation is a count a job, not a count a job and node; which nodes is left to the
gangs' policy, which packs close. Kinds are not told apart (Pollux knows none): speeds are means over kinds, and each
job is on the kind that its genes say. The budget is generations of a population, from one seed: no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast.policy.share.board import Board, Job
from fleetcast.policy.share.dealing import deal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Pollux:
    """Searches allocations for the best power mean of speed-ups.

    Args:
        power: p.
        restart: s, S.
        population: allocations kept.
        generations: of the search, in each decision.
        seed: of the search.
    """

    kind = "pollux"

    def __init__(
        self, *, power: float = -1.0, restart: float = 30.0, population: int = 100, generations: int = 100,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.power = power
        self.restart = restart
        self.population = population
        self.generations = generations
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self._restarts: dict[int, int] = {}
        self._kept: dict[int, tuple[Ints, Ints]] = {}

    def share(self, board: Board) -> None:
        """Evolves allocations from those of the last round and grants the fittest."""
        jobs, devices = board.jobs, np.array([kind.total for kind in board.kinds])
        if not jobs or not devices.sum():
            return
        problem = self._problem(board)
        counts, kinds = self._start(jobs, problem)
        counts, kinds = problem.evolve(counts, kinds, self.generations)
        self._kept = {job.id: (counts[:, i], kinds[:, i]) for i, job in enumerate(jobs)}
        deal(board, {job.id: {int(kinds[0, i]): int(counts[0, i])} for i, job in enumerate(jobs)})
        for job in jobs:
            if job.granted and job.granted != dict(job.held):
                self._restarts[job.id] = self._restarts.get(job.id, -1) + 1

    def _problem(self, board: Board) -> Problem:
        jobs = board.jobs
        devices = np.array([kind.total for kind in board.kinds])
        most = np.array([min(job.most, devices.max()) for job in jobs])
        rates = np.zeros((len(jobs), int(most.max()) + 1))
        for i, job in enumerate(jobs):
            for n in range(job.least, int(most[i]) + 1):
                known = [board.rate(job, {kind: n}) for kind in range(len(devices)) if n <= devices[kind]]
                runs = [rate for rate in known if rate > 0]
                rates[i, n] = sum(runs) / len(runs) if runs else 0.0
        equal = max(1, round(int(devices.sum()) / len(jobs)))
        fair = np.array([rates[i, min(max(equal, jobs[i].least), most[i])] for i in range(len(jobs))])
        speed = rates / np.where(fair > 0, fair, rates.max(axis=1).clip(1e-300))[:, None]
        age = np.array([board.now - job.arrival for job in jobs])
        lost = np.array([self._restarts.get(job.id, 0) for job in jobs]) * self.restart
        factor = np.where(age > 0, np.maximum(age - lost, 0.0) / (age + self.restart), 1.0)
        held = [max(job.held.items(), key=lambda item: item[1], default=(0, 0)) for job in jobs]
        counts, kinds = np.array([n for _, n in held]), np.array([k for k, _ in held])
        return Problem(speed, factor, devices, counts, kinds, self.power, self._random)

    def _start(self, jobs: Sequence[Job], problem: Problem) -> tuple[Ints, Ints]:
        counts = np.tile(problem.counts, (self.population, 1))
        kinds = np.tile(problem.kinds, (self.population, 1))
        for i, job in enumerate(jobs):
            if job.id in self._kept:
                counts[1:, i], kinds[1:, i] = (gene[: self.population][1:] for gene in self._kept[job.id])
        return problem.repair(counts, kinds)


class Problem:
    """One decision: how fit allocations are and how they change.

    Args:
        speed: f8[jobs, most + 1], speed-up by count.
        factor: f8[jobs], of what restarts.
        devices: of each kind.
        counts: i8[jobs], that jobs have.
        kinds: i8[jobs], on which.
        power: of the mean.
        random: where chance comes from.
    """

    def __init__(
        self, speed: Floats, factor: Floats, devices: Ints, counts: Ints, kinds: Ints, power: float,
        random: np.random.Generator,
    ) -> None:  # fmt: skip
        self.speed, self.factor, self.devices = speed, factor, devices
        self.counts, self.kinds, self.power, self.random = counts, kinds, power, random
        self.jobs = np.arange(len(factor))
        # Of each job and count, the next count on which it runs, 0 if there is none.
        runs = np.where(speed > 0, np.arange(speed.shape[1]), speed.shape[1])
        above = np.minimum.accumulate(runs[:, ::-1], axis=1)[:, ::-1]
        self.next = np.where(above < speed.shape[1], above, 0)

    def fitness(self, counts: Ints, kinds: Ints) -> Floats:
        """Returns the power mean of each allocation, f8[allocations]."""
        speed = self.speed[self.jobs, counts]
        moved = (counts != self.counts) | (kinds != self.kinds)
        speed = np.where(moved, speed * self.factor, speed) + 1e-3  # as the authors', so that nobody's 0 hides the rest
        if self.power == 0:
            return np.asarray(np.exp(np.log(speed).mean(axis=1)))
        return np.asarray((speed**self.power).mean(axis=1) ** (1.0 / self.power))

    def repair(self, counts: Ints, kinds: Ints) -> tuple[Ints, Ints]:
        """Cuts allocations down to what there is, jobs in an order of chance; counts that run nothing become 0."""
        counts = np.where(self.speed[self.jobs, counts] > 0, counts, 0)
        order = self.random.random(counts.shape).argsort(axis=1)
        dealt = np.take_along_axis(counts, order, axis=1)
        on = np.take_along_axis(kinds, order, axis=1)
        for kind, total in enumerate(self.devices):
            mine = np.where(on == kind, dealt, 0)
            before = np.minimum(np.cumsum(mine, axis=1), total)
            dealt = np.where(on == kind, np.diff(before, axis=1, prepend=0), dealt)
        cut = np.empty_like(counts)
        np.put_along_axis(cut, order, dealt, axis=1)
        return np.where(self.speed[self.jobs, cut] > 0, cut, 0), kinds

    def evolve(self, counts: Ints, kinds: Ints, generations: int) -> tuple[Ints, Ints]:
        """Returns the population after some generations, fittest first."""
        fit = self.fitness(counts, kinds)
        for _ in range(generations):
            new = self.repair(*self.mutate(*self.cross(counts, kinds, fit)))
            counts, kinds = np.concatenate([counts, new[0]]), np.concatenate([kinds, new[1]])
            fit = np.concatenate([fit, self.fitness(*new)])
            best = np.argsort(-fit, kind="stable")[: len(counts) // 2]
            counts, kinds, fit = counts[best], kinds[best], fit[best]
        best = np.argsort(-fit, kind="stable")
        return counts[best], kinds[best]

    def cross(self, counts: Ints, kinds: Ints, fit: Floats) -> tuple[Ints, Ints]:
        """Returns children of winners of tournaments of two, crossed at one job."""
        size = len(counts)
        pairs = self.random.integers(size, size=(2, 2, size))
        mothers, fathers = (np.where(fit[a] >= fit[b], a, b) for a, b in pairs)
        first = self.jobs < self.random.integers(len(self.jobs) + 1, size=(size, 1))
        return np.where(first, counts[mothers], counts[fathers]), np.where(first, kinds[mothers], kinds[fathers])

    def mutate(self, counts: Ints, kinds: Ints) -> tuple[Ints, Ints]:
        """Sets some counts back, some to 0, some at random, more of them where devices are free."""
        shape = counts.shape
        back = self.random.random(shape) < 0.1
        counts, kinds = np.where(back, self.counts, counts), np.where(back, self.kinds, kinds)
        rare = self.random.random((shape[0], 1)) < 0.1
        counts = np.where(rare & (self.random.random(shape) < 0.1), 0, counts)
        free = self.devices.sum() - counts.sum(axis=1, keepdims=True)
        grown = self.random.random(shape) < np.where(free > 0, 2.0, 1.0) / len(self.jobs)
        reach = np.clip(counts + np.maximum(free, 0), counts, self.speed.shape[1] - 1)
        chance = self.next[self.jobs, self.random.integers(counts, reach + 1)]
        elsewhere = grown & (self.random.random(shape) < 0.5)
        kinds = np.where(elsewhere, self.random.integers(len(self.devices), size=shape), kinds)
        return np.where(grown, chance, counts), kinds
