"""A cluster in time slots: workers and parameter servers of jobs, placed one unit after another on the emptiest node.

The world of DL2 (Peng et al., arXiv 1909.06040): at every slot the nodes are emptied and dealt out anew. A unit (a
worker, a server, or one of each: a bundle) goes to the node with the fewest used slots of all resources, ties by
number; where it finds no room the slot's dealing ends. A job with w workers and p servers then trains
``speed[type, p, w] * seconds / batches`` epochs, wherever its units lie.

A file of plain Python that Cython compiles where there is a compiler: one `Slots` is one run, and `advance` drives many
runs by actions of a network, a window of jobs a run. Rules are the list policies in the form that this loop reads. It
is longer than 400 lines as compiled classes are quick only inside one module.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
FIFO, SRTF, DRF, OPTIMUS = range(4)
FEATURES = 6
"""Of a job, as a network sees it: type, slots since arrival, work left, dominant share, workers, servers."""
PLACED, ENDED, OVER = range(3)
"""What an action led to: the slot goes on, the next slot has begun, all jobs are done."""


@cython.cclass
class Slots:
    """One run.

    Args:
        jobs: i4[n, 6] (slot of arrival ascending, type from 0, cpu and gpu of a worker, cpu and gpu of a server) and
            f8[n, 3] (epochs as estimated, epochs that it really takes, batches an epoch).
        nodes: i4[N, 2], slots of cpu and gpu.
        speed: f8[types, most + 2, most + 2], steps/s by servers and workers.
        most: workers, and servers, that a job can have.
        seconds: of a slot.
        noise: f8[k], relative errors of what slots train, read by slot and job; [0] = none.
        looks: f8[k], relative errors of speeds that Optimus weighs, read in turn: as it is, with a worker more, with a
            server more; [0] = none.
        window: jobs that a network sees, the first to arrive.
        discount: by slot, of what `act` says that units are worth; 0 = what they train in this slot.
    """

    n: cython.int
    count: cython.int
    most: cython.int
    window: cython.int
    wide: cython.int
    discount: cython.double
    seconds: cython.double
    arrival: cython.int[::1]
    type: cython.int[::1]
    worker_cpu: cython.int[::1]
    worker_gpu: cython.int[::1]
    server_cpu: cython.int[::1]
    server_gpu: cython.int[::1]
    epochs: cython.double[::1]
    real: cython.double[::1]
    batches: cython.double[::1]
    speed: cython.double[::1]
    noise: cython.double[::1]
    looks: cython.double[::1]
    looked: cython.Py_ssize_t
    has_cpu: cython.int[::1]
    has_gpu: cython.int[::1]
    used_cpu: cython.int[::1]
    used_gpu: cython.int[::1]
    heap: cython.int[::1]
    total_cpu: cython.double
    total_gpu: cython.double
    progress: cython.double[::1]
    end: cython.double[::1]
    workers: cython.int[::1]
    servers: cython.int[::1]
    node: cython.int
    live: cython.int[::1]
    lives: cython.int
    seen: cython.int[::1]
    seens: cython.int
    key: cython.double[::1]
    role: cython.int[::1]
    came: cython.int
    slot: cython.int
    done: cython.int
    failed: cython.bint
    log: cython.int[::1]
    logged: cython.Py_ssize_t
    reward: cython.double

    def __init__(
        self, whole: Any, parts: Any, nodes: Any, speed: Any, most: int, seconds: float, noise: Any, looks: Any,
        window: int = 20, discount: float = 0.0,
    ) -> None:  # fmt: skip
        n = len(whole)
        self.discount = discount
        self.n, self.count, self.most, self.window, self.seconds = n, len(nodes), most, window, seconds
        self.wide = most + 2
        self.arrival, self.type, self.worker_cpu, self.worker_gpu, self.server_cpu, self.server_gpu = (
            _column("i4", whole[:, i]) for i in range(6)
        )
        self.epochs, self.real, self.batches = (_column("f8", parts[:, i]) for i in range(3))
        self.speed, self.noise, self.looks = (_column("f8", np.ravel(a)) for a in (speed, noise, looks))
        self.has_cpu, self.has_gpu = (_column("i4", nodes[:, i]) for i in range(2))
        self.total_cpu, self.total_gpu = max(1.0, float(nodes[:, 0].sum())), max(1.0, float(nodes[:, 1].sum()))
        self.used_cpu, self.used_gpu, self.heap = (_column("i4", np.zeros(self.count)) for _ in range(3))
        self.progress, self.key = (_column("f8", np.zeros(n)) for _ in range(2))
        self.end = _column("f8", np.full(n, np.inf))
        self.workers, self.servers, self.live, self.role = (_column("i4", np.zeros(n)) for _ in range(4))
        self.seen = _column("i4", np.zeros(window))
        self.log = _column("i4", np.zeros(6 * n * most + 3))
        self.lives = self.seens = self.came = self.slot = self.done = 0
        self.looked = self.logged = 0
        self.reward = 0.0
        self.failed = False

    def begin(self) -> None:
        """Begins a slot: jobs arrive, and the nodes are empty."""
        self._begin()

    def place(self, job: int, workers: int, servers: int) -> bool:
        """Gives a job a worker, a server, or one of each on the emptiest node; returns whether there was room."""
        return bool(self._place(job, workers, servers))

    def deal(self, rule: int) -> None:
        """Deals the slot out by a list policy."""
        if rule in (FIFO, SRTF):
            self._lists(rule == SRTF)
        elif rule == DRF:
            self._drf()
        else:
            self._optimus()

    def bundles(self) -> None:
        """Gives each job a worker and a server, so that none starves."""
        self._bundles()

    def finish(self) -> float:
        """Trains for the slot and ends it; returns the sum over jobs of epochs trained by epochs estimated."""
        return float(self._finish())

    def over(self) -> bool:
        """Returns whether all jobs are done."""
        return self.done == self.n

    def now(self) -> int:
        """Returns the number of the slot."""
        return self.slot

    def window_size(self) -> int:
        """Returns how many jobs a network sees."""
        return self.window

    def there(self) -> Any:
        """Returns i4[], jobs that have arrived and are not done, in order of arrival."""
        return np.array(self.live[: self.lives], np.int32)

    def seats(self) -> Any:
        """Returns i4[], the jobs that the last observation shows."""
        return np.array(self.seen[: self.seens], np.int32)

    def columns(self) -> Any:
        """Returns progress f8[n] in epochs, end f8[n] in slots, workers i4[n] and servers i4[n]; copies."""
        return np.array(self.progress), np.array(self.end), np.array(self.workers), np.array(self.servers)

    def used(self) -> Any:
        """Returns the shares of cpu and gpu slots that are used."""
        return sum(self.used_cpu) / self.total_cpu, sum(self.used_gpu) / self.total_gpu

    def restore(self, slot: int, progress: Any, end: Any, units: Any) -> None:
        """Puts a fresh run where another one is: in a slot, before the work and after the units of that slot.

        Args:
            slot: its number.
            progress: f8[n].
            end: f8[n], inf = not done.
            units: i4[k, 3], what `decisions` said.
        """
        self.slot, self.done, self.lives, self.came = slot, 0, 0, 0
        for job in range(self.n):
            self.progress[job], self.end[job] = progress[job], end[job]
            if self.arrival[job] > slot:
                break
            self.came += 1
            if end[job] < np.inf:
                self.done += 1
            else:
                self.live[self.lives] = job
                self.lives += 1
        self._begin()
        for job, workers, servers in units:
            self._place(job, workers, servers)

    def decisions(self) -> Any:
        """Returns i4[k, 3]: job, workers and servers of each unit placed in this slot, in order."""
        return np.array(self.log[: self.logged], np.int32).reshape(-1, 3)

    def stopped(self) -> bool:
        """Returns whether a unit found no room in this slot."""
        return bool(self.failed)

    def worth(self) -> float:
        """Returns what all jobs would earn from now on, were they to keep what they have."""
        return float(self._all())

    def dominant(self, job: int) -> float:
        """Returns a job's dominant share."""
        return float(self._share(job))

    def observe(self, state: Any, mask: Any) -> None:
        """Writes what a network sees, f4[window * 6], and which actions are legal, u1[3 * window + 1]."""
        self._observe(state, mask)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _begin(self) -> cython.void:
        i: cython.int
        while self.came < self.n and self.arrival[self.came] <= self.slot:
            self.live[self.lives] = self.came
            self.lives += 1
            self.came += 1
        for i in range(self.lives):
            self.workers[self.live[i]] = 0
            self.servers[self.live[i]] = 0
        for i in range(self.count):
            self.used_cpu[i] = 0
            self.used_gpu[i] = 0
            self.heap[i] = i
        self.logged = 0
        self.failed = False

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _place(self, job: cython.int, workers: cython.int, servers: cython.int) -> cython.bint:
        node: cython.int = self.heap[0] % self.count
        cpu: cython.int = self.used_cpu[node] + workers * self.worker_cpu[job] + servers * self.server_cpu[job]
        gpu: cython.int = self.used_gpu[node] + workers * self.worker_gpu[job] + servers * self.server_gpu[job]
        key: cython.int
        at: cython.int = 0
        child: cython.int = 1
        self.node = node
        if cpu > self.has_cpu[node] or gpu > self.has_gpu[node]:
            self.failed = True
            return False
        self.used_cpu[node] = cpu
        self.used_gpu[node] = gpu
        key = (cpu + gpu) * self.count + node
        while child < self.count:
            if child + 1 < self.count and self.heap[child + 1] < self.heap[child]:
                child += 1
            if self.heap[child] >= key:
                break
            self.heap[at] = self.heap[child]
            at = child
            child = 2 * at + 1
        self.heap[at] = key
        self.workers[job] += workers
        self.servers[job] += servers
        self.log[self.logged] = job
        self.log[self.logged + 1] = workers
        self.log[self.logged + 2] = servers
        self.logged += 3
        return True

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _bundles(self) -> cython.void:
        i: cython.int
        for i in range(self.lives):
            self._place(self.live[i], 1, 1)
        # a slot goes on after this, room or not
        self.failed = False

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _share(self, job: cython.int) -> cython.double:
        cpu: cython.double = (
            self.workers[job] * self.worker_cpu[job] + self.servers[job] * self.server_cpu[job]
        ) / self.total_cpu
        gpu: cython.double = (
            self.workers[job] * self.worker_gpu[job] + self.servers[job] * self.server_gpu[job]
        ) / self.total_gpu
        return cpu if cpu > gpu else gpu

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _pace(self, job: cython.int) -> cython.double:
        """Epochs that a job is expected to train in a slot with what it has, were it long enough."""
        w: cython.int = self.workers[job]
        p: cython.int = self.servers[job]
        if w == 0 or p == 0:
            return 0.0
        return self.speed[(self.type[job] * self.wide + p) * self.wide + w] * self.seconds / self.batches[job]

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _trains(self, job: cython.int) -> cython.double:
        """Epochs that it trains in this slot."""
        at: cython.Py_ssize_t = (cython.cast(cython.Py_ssize_t, self.slot) * self.n + job) % len(self.noise)
        return (1.0 + self.noise[at]) * self._pace(job)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _finish(self) -> cython.double:
        i: cython.int
        job: cython.int
        kept: cython.int = 0
        made: cython.double
        ran: cython.double
        total: cython.double = 0.0
        for i in range(self.lives):
            job = self.live[i]
            made = self._trains(job)
            ran = 1.0
            if made > 0.0 and self.progress[job] + made > self.real[job]:
                ran = (self.real[job] - self.progress[job]) / made
                made = self.real[job] - self.progress[job]
                self.progress[job] = self.real[job]
            else:
                self.progress[job] += made
            total += made / self.epochs[job]
            if self.progress[job] >= self.real[job]:
                self.end[job] = self.slot + ran
                self.done += 1
            else:
                self.live[kept] = job
                kept += 1
        self.lives = kept
        self.slot += 1
        self.reward = total
        return total

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _lists(self, shortest: cython.bint) -> cython.void:
        i: cython.int
        _k: cython.int
        job: cython.int
        best: cython.int
        for i in range(self.lives):
            job = self.live[i]
            self.key[job] = 1.0 - self.progress[job] / self.epochs[job] if shortest else 0.0
            self.role[job] = 0
        for _ in range(self.lives):
            best = -1
            for i in range(self.lives):
                job = self.live[i]
                if self.role[job] == 0 and (best < 0 or self.key[job] < self.key[best]):
                    best = job
            self.role[best] = 1
            for _k in range(self.most):
                if not self._place(best, 1, 1):
                    return

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _drf(self) -> cython.void:
        i: cython.int
        job: cython.int
        best: cython.int
        for i in range(self.lives):
            self.key[self.live[i]] = 0.0
        while True:
            best = -1
            for i in range(self.lives):
                job = self.live[i]
                if self.workers[job] < self.most and (best < 0 or self.key[job] < self.key[best]):
                    best = job
            if best < 0 or not self._place(best, 1, 1):
                return
            self.key[best] = self._share(best)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _look(self) -> cython.double:
        error: cython.double = self.looks[self.looked]
        self.looked = (self.looked + 1) % len(self.looks)
        return 1.0 + error

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _gain(self, job: cython.int) -> cython.void:
        left: cython.double
        now: cython.double
        worker: cython.double
        server: cython.double
        if self.workers[job] == 0 or self.servers[job] == 0:
            self.key[job] = -2147483647.0
            self.role[job] = 0 if self.workers[job] == 0 else 1
            return
        left = self.epochs[job] - self.progress[job]
        if left <= 0.0:
            # It runs longer than estimated. The authors' simulator goes on with a negative rest, in which harm is gain.
            left = 0.01 * self.epochs[job]
        now = left / _not_zero(self._pace(job) * self._look())
        self.workers[job] += 1
        worker = now - left / _not_zero(self._pace(job) * self._look())
        self.workers[job] -= 1
        self.servers[job] += 1
        server = now - left / _not_zero(self._pace(job) * self._look())
        self.servers[job] -= 1
        self.key[job] = -server if server >= worker else -worker
        self.role[job] = 1 if server >= worker else 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _optimus(self) -> cython.void:
        i: cython.int
        job: cython.int
        best: cython.int
        for i in range(self.lives):
            self._gain(self.live[i])
        while True:
            best = -1
            for i in range(self.lives):
                job = self.live[i]
                if self.role[job] >= 0 and (best < 0 or self.key[job] < self.key[best]):
                    best = job
            if best < 0 or not self.key[best] < 0.0:
                return
            if (self.servers[best] if self.role[best] else self.workers[best]) >= self.most:
                self.role[best] = -1
                continue
            if not self._place(best, 1 - self.role[best], self.role[best]):
                return
            self._gain(best)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _observe(self, state: cython.float[::1], mask: cython.uchar[::1]) -> cython.void:
        left: cython.double
        i: cython.int
        k: cython.int
        job: cython.int
        at: cython.int = 0
        for i in range(self.window * FEATURES):
            state[i] = 0.0
        for i in range(3 * self.window):
            mask[i] = 0
        mask[3 * self.window] = 1
        for i in range(self.lives):
            if at == self.window:
                break
            job = self.live[i]
            if self.workers[job] >= self.most and self.servers[job] >= self.most:
                continue
            self.seen[at] = job
            k = 6 * at
            state[k] = self.type[job] + 1
            state[k + 1] = self.slot - self.arrival[job]
            left = 1.0 - self.progress[job] / self.epochs[job]
            state[k + 2] = left if left > 0.0 else 0.0
            state[k + 3] = self._share(job)
            state[k + 4] = self.workers[job]
            state[k + 5] = self.servers[job]
            mask[3 * at] = self.workers[job] < self.most
            mask[3 * at + 1] = self.servers[job] < self.most
            mask[3 * at + 2] = self.workers[job] < self.most and self.servers[job] < self.most
            at += 1
        self.seens = at

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _act(self, action: cython.int) -> cython.int:
        """Does what a network says of the last observation; ``reward`` is what it adds to the worth of its job."""
        job: cython.int = -1
        before: cython.double
        if action < 3 * self.seens:
            job = self.seen[action // 3]
            before = self._worth(job)
            if self._place(job, 0 if action % 3 == 1 else 1, 0 if action % 3 == 0 else 1):
                self.reward = self._worth(job) - before
                return 0
        self._finish()
        self.reward = 0.0
        if self.done == self.n:
            return 2
        self._next()
        return 1

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _worth(self, job: cython.int) -> cython.double:
        """What a job would earn from now on, were it to keep what it has: its progress, discounted by slot."""
        made: cython.double = self._pace(job)
        left: cython.double = self.epochs[job] - self.progress[job]
        if left < 0.0:
            left = 0.0
        if made >= left:
            return left / self.epochs[job]
        if made <= 0.0:
            return 0.0
        if self.discount == 0.0:
            return made / self.epochs[job]
        return made * (1.0 - exp(left / made * log(self.discount))) / ((1.0 - self.discount) * self.epochs[job])

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _next(self) -> cython.void:
        self._begin()
        # slots in which no job is there are no decisions
        while self.lives == 0:
            self.slot += 1
            self._begin()
        self._bundles()
        self.reward = 0.0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _all(self) -> cython.double:
        i: cython.int
        total: cython.double = 0.0
        for i in range(self.lives):
            total += self._worth(self.live[i])
        return total

    def open(self) -> None:
        """Begins the first slot in which there is a job and gives the bundles, for `act`."""
        self._next()

    def act(self, action: int) -> tuple[int, float]:
        """Does what a network says of the last observation; returns what it led to and its reward."""
        came = self._act(action)
        return came, self.reward


@cython.cfunc
@cython.inline
def _not_zero(x: cython.double) -> cython.double:
    # A measured speed of nothing: never worth a unit, and no division by zero.
    return x if x != 0.0 else 1e-300


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def advance(
    runs: list, actions: cython.int[::1], states: cython.float[:, ::1], masks: cython.uchar[:, ::1],
    rewards: cython.double[::1], came: cython.int[::1],
) -> None:  # fmt: skip
    """Does an action in each of many runs and observes; runs that are over stay as they are.

    Args:
        runs: of `Slots`, opened.
        actions: i4[B].
        states: f4[B, window * 6], written.
        masks: u1[B, 3 * window + 1], written.
        rewards: f8[B], written: what the action added to the worth of its job; 0 where it ended the slot.
        came: i4[B], written: `PLACED`, `ENDED`, `OVER`; a run at `OVER` before is left alone.
    """
    b: cython.Py_ssize_t
    run: Slots
    for b in range(len(runs)):
        if came[b] == 2:
            rewards[b] = 0.0
            continue
        run = runs[b]
        came[b] = run._act(actions[b])
        rewards[b] = run.reward
        if came[b] != 2:
            run._observe(states[b], masks[b])


def _column(code: str, values: Any) -> Any:
    return np.ascontiguousarray(values, dtype=code)
