"""The columnar loop of list policies: what `world` does, for gangs of a fixed number of devices.

Jobs that may be asked stand in one array in the order of the rule's key: without pre-emption those that wait, with it
all. The front alone is touched: a decision walks it until no device is free, and what has left it is closed up towards
the front. Fair shares are of users: who has nothing goes first, in the order of that array, the others by a heap of
shares. Ends lie in a heap; one that belongs to a span which is over is dropped when it comes up. A span's nodes are
written once, where the event record later finds them.

Plain Python that Cython compiles where there is a compiler. It is longer than 400 lines, as what calls each other at C
speed has to stand in one file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
INF = float("inf")
CROSSED = 1e-6


def column(code: str, values: Any) -> Any:
    """Returns a column the loop can index, compiled or not."""
    array: Any = np.array(values, dtype={"d": "f8", "q": "i8"}[code]).ravel()
    if not len(array):
        array = np.zeros(1, array.dtype)  # a buffer of no length has no address
    return memoryview(array)


def run(numbers: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the columns of a `Run`, or None where jobs would wait for ever.

    Args:
        numbers: key (0 arrival, 1 remaining, 2 service, 3 attained, 4 share), preempt, fill (0 none, 1 free, 2
            reserve), place (0 best fit, 1 spread), round and restart (s), apart and racks (factors).
        columns: arrival f8[n], demand i8[n], rate and told f8[n, kinds] (1/s), queues f8[q], first i8[kinds + 1],
            size and near i8[nodes], whole i8[kinds]; of key 4 who i8[n], each job's user from 0, and weight f8[n].
    """
    loop = Loop(numbers, columns)
    if not loop.play():
        return None
    return loop.out()


@cython.cclass
class Loop:
    """A trace on its way."""

    n: cython.Py_ssize_t
    kinds: cython.Py_ssize_t
    key: cython.int
    preempt: cython.bint
    fill: cython.int
    place: cython.int
    levels: cython.Py_ssize_t
    round: cython.double
    restart: cython.double
    apart: cython.double
    racks: cython.double
    now: cython.double
    alarm: cython.double
    lo: cython.Py_ssize_t
    hi: cython.Py_ssize_t
    edge: cython.Py_ssize_t
    heap: cython.Py_ssize_t
    spans: cython.Py_ssize_t
    places: cython.Py_ssize_t
    runs: cython.Py_ssize_t
    decisions: cython.longlong
    arrival: cython.double[::1]
    demand: cython.longlong[::1]
    rate: cython.double[::1]
    told: cython.double[::1]
    best: cython.double[::1]
    pref: cython.longlong[::1]
    queues: cython.double[::1]
    first: cython.longlong[::1]
    near: cython.longlong[::1]
    whole: cython.longlong[::1]
    free: cython.longlong[::1]
    spare: cython.longlong[::1]
    room: cython.longlong[::1]
    line: cython.longlong[::1]
    value: cython.double[::1]
    mark: cython.longlong[::1]
    chosen: cython.longlong[::1]
    onto: cython.longlong[::1]
    heap_time: cython.double[::1]
    heap_span: cython.longlong[::1]
    running: cython.longlong[::1]
    slot: cython.longlong[::1]
    soon: cython.double[::1]
    whose: cython.longlong[::1]
    who: cython.longlong[::1]
    follows: cython.longlong[::1]
    head: cython.longlong[::1]
    ordered: cython.longlong[::1]
    has: cython.longlong[::1]
    out_of: cython.longlong[::1]
    share: cython.double[::1]
    weight: cython.double[::1]
    unit: cython.double
    left: cython.double[::1]
    since: cython.double[::1]
    takes: cython.double[::1]
    had: cython.double[::1]
    idle: cython.double[::1]
    current: cython.longlong[::1]
    start: cython.double[::1]
    finish: cython.double[::1]
    held: cython.double[::1]
    lost: cython.double[::1]
    waited: cython.double[::1]
    preempted: cython.longlong[::1]
    moved: cython.longlong[::1]
    span_job: cython.longlong[::1]
    span_kind: cython.longlong[::1]
    span_begin: cython.double[::1]
    span_end: cython.double[::1]
    span_from: cython.longlong[::1]
    place_node: cython.longlong[::1]
    place_count: cython.longlong[::1]

    def __init__(self, numbers: dict[str, Any], columns: dict[str, Any]) -> None:
        n, kinds = len(columns["arrival"]), len(columns["whole"])
        self.n, self.kinds, self.levels = n, kinds, len(columns["queues"])
        self.key, self.preempt, self.fill, self.place = (numbers[k] for k in ("key", "preempt", "fill", "place"))
        self.round, self.restart, self.apart, self.racks = (
            numbers[k] for k in ("round", "restart", "apart", "racks")
        )  # fmt: skip
        self.now, self.alarm, self.lo, self.hi, self.edge = 0.0, INF, 0, 0, 0
        self.heap = self.spans = self.places = self.runs = self.decisions = 0
        told = np.asarray(columns["told"])
        with np.errstate(divide="ignore"):
            best = 1.0 / told.max(axis=1)
        self.arrival, self.demand = column("d", columns["arrival"]), column("q", columns["demand"])
        self.rate, self.told = column("d", columns["rate"]), column("d", told)
        self.queues, self.first = column("d", columns["queues"]), column("q", columns["first"])
        self.near, self.whole = column("q", columns["near"]), column("q", columns["whole"])
        self.best, self.pref = column("d", best), column("q", np.argsort(-told, axis=1, kind="stable"))
        first, size = columns["first"], columns["size"]
        total = [int(np.sum(size[first[k] : first[k + 1]])) for k in range(kinds)]
        nodes, devices = len(size), sum(total)
        self.free, self.spare, self.room = column("q", size), column("q", total), column("q", np.zeros(kinds))
        self.line, self.value = column("q", np.zeros(n)), column("d", np.zeros(n))
        self.mark, self.current = column("q", np.zeros(n)), column("q", np.full(n, -1))
        self.chosen, self.onto = column("q", np.zeros(n)), column("q", np.zeros(n))
        self.running, self.slot = column("q", np.zeros(devices + 1)), column("q", np.zeros(n))
        self.soon, self.whose = column("d", np.zeros(devices + 1)), column("q", np.zeros(devices + 1))
        who = np.asarray(columns["who"])
        users = int(who.max(initial=-1)) + 1
        self.who, self.weight = column("q", who), column("d", columns["weight"])
        self.head, self.follows = column("q", np.full(users, -1)), column("q", np.full(n, -1))
        for job in range(len(who) - 1, -1, -1):
            self.follows[job], self.head[who[job]] = self.head[who[job]], job
        self.has, self.out_of = column("q", np.zeros(users)), column("q", np.zeros(users))
        self.share, self.ordered = column("d", np.zeros(users)), column("q", np.zeros(devices + 1))
        self.unit = 1.0 / max(devices, 1)
        self.left, self.since, self.takes = (
            column("d", np.ones(n)),
            column("d", np.zeros(n)),
            column("d", np.full(n, INF)),
        )
        self.had, self.idle = column("d", np.zeros(n)), column("d", columns["arrival"])
        self.start, self.finish = column("d", np.full(n, np.nan)), column("d", np.full(n, np.nan))
        self.held, self.lost, self.waited = (column("d", np.zeros(n)) for _ in range(3))
        self.preempted, self.moved = column("q", np.zeros(n)), column("q", np.zeros(n))
        spans, places = 2 * n + 16, 4 * n + 2 * nodes + 16
        self.heap_time, self.heap_span = column("d", np.zeros(spans)), column("q", np.zeros(spans))
        self.span_job, self.span_kind, self.span_from = (column("q", np.zeros(spans)) for _ in range(3))
        self.span_begin, self.span_end = column("d", np.zeros(spans)), column("d", np.zeros(spans))
        self.place_node, self.place_count = column("q", np.zeros(places)), column("q", np.zeros(places))

    def out(self) -> dict[str, Any]:
        """Returns the columns of a `Run`; spans in the order in which they began."""
        spans, places, n = self.spans, self.places, self.n
        since = np.asarray(self.span_from)[:spans]
        count = np.diff(np.r_[since, places])
        whole = np.asarray(self.span_job)[:spans]
        found: dict[str, Any] = {
            "start": np.asarray(self.start), "finish": np.asarray(self.finish), "held": np.asarray(self.held),
            "lost": np.asarray(self.lost), "waited": np.asarray(self.waited),
        }  # fmt: skip
        found = {key: value[:n] for key, value in found.items()}
        found["preempted"] = np.asarray(self.preempted)[:n].astype(np.int32)
        found["moved"] = np.asarray(self.moved)[:n].astype(np.int32)
        found["failed"] = np.zeros(n, np.int32)
        found |= {
            "job": whole.astype(np.int32), "kind": np.asarray(self.span_kind)[:spans].astype(np.int32),
            "devices": np.asarray(self.demand)[whole].astype(np.int32),
            "begin": np.asarray(self.span_begin)[:spans], "end": np.asarray(self.span_end)[:spans],
            "span": np.repeat(np.arange(spans, dtype=np.int32), count),
            "node": np.asarray(self.place_node)[:places].astype(np.int32),
            "share": np.asarray(self.place_count)[:places].astype(np.int32), "decisions": int(self.decisions),
        }  # fmt: skip
        return found

    @cython.ccall
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def play(self) -> cython.bint:
        """Plays the trace to its end; returns whether every job ended."""
        coming: cython.Py_ssize_t = 0
        left: cython.Py_ssize_t = self.n
        there: cython.Py_ssize_t = 0
        changed: cython.bint
        at: cython.double
        tick: cython.double
        low: cython.double
        last: cython.double = -1.0
        span: cython.Py_ssize_t
        job: cython.Py_ssize_t
        while left > 0:
            while self.heap > 0 and self.current[self.span_job[self.heap_span[0]]] != self.heap_span[0]:
                self._pop()
            at = self.heap_time[0] if self.heap > 0 else INF
            tick = INF
            if self.round > 0.0 and (there > 0 or coming == self.n):
                low = _up(self.now / self.round)
                if last >= 0.0 and _down(last / self.round + 0.5) + 1.0 > low:
                    low = _down(last / self.round + 0.5) + 1.0
                tick = self.round * low
            if tick < at:
                at = tick
            if self.alarm < at:
                at = self.alarm
            if coming < self.n and self.arrival[coming] < at:
                at = self.arrival[coming]
            if at == INF:
                return False
            self.now = at
            changed = False
            while self.heap > 0 and self.heap_time[0] <= at:
                span = self.heap_span[0]
                job = self.span_job[span]
                self._pop()
                if self.current[job] == span:
                    self._stop(job)
                    self.finish[job] = at
                    self.mark[job] = -1
                    left -= 1
                    there -= 1
                    changed = True
            while coming < self.n and self.arrival[coming] <= at:
                self._enter(coming)
                coming += 1
                there += 1
                changed = True
            if self.alarm <= at:
                self.alarm = INF
                changed = True
            if self.round > 0.0:
                if tick <= at:
                    last = at
                    self._decide()
                    if there > 0 and self.runs == 0 and coming == self.n:
                        return False
            elif changed and there > 0:
                self._decide()
        return True

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _remains(self, job: cython.Py_ssize_t) -> cython.double:
        """Share of a job's work that is left now."""
        found: cython.double
        if self.takes[job] == INF or self.now <= self.since[job]:
            return self.left[job]
        found = self.left[job] - (self.now - self.since[job]) / self.takes[job]
        return found if found > 0.0 else 0.0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _had(self, job: cython.Py_ssize_t) -> cython.double:
        """Device-seconds that a job has had by now."""
        if self.current[job] < 0:
            return self.had[job]
        return self.had[job] + self.demand[job] * (self.now - self.span_begin[self.current[job]])

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _value(self, job: cython.Py_ssize_t) -> cython.double:
        """The rule's key."""
        level: cython.double = 0.0
        i: cython.Py_ssize_t
        had: cython.double
        if self.key == 1:
            return self._remains(job) * self.best[job]
        if self.key == 2:
            return self._remains(job) * self.best[job] * self.demand[job]
        if self.key == 3:
            had = self._had(job)
            for i in range(self.levels):
                if had >= self.queues[i] - CROSSED:
                    level += 1.0
        return level

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _enter(self, job: cython.Py_ssize_t) -> cython.int:
        """Puts a job that has arrived in its place in the line."""
        i: cython.Py_ssize_t
        v: cython.double = self._value(job)
        self.value[job] = v
        i = self.hi
        while i > self.lo and self.key != 0 and self.value[self.line[i - 1]] > v:
            self.line[i] = self.line[i - 1]
            i -= 1
        self.line[i] = job
        self.hi += 1
        if i < self.edge:
            self.edge += 1
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _decide(self) -> cython.int:
        """Who runs by counts, then who stops, then where who starts lies."""
        k: cython.Py_ssize_t
        i: cython.Py_ssize_t
        job: cython.Py_ssize_t
        picked: cython.Py_ssize_t = 0
        stays: cython.Py_ssize_t = 0
        total: cython.longlong = 0
        d: cython.longlong
        found: cython.Py_ssize_t
        at: cython.double
        self.decisions += 1
        self.alarm = INF
        if self.fill == 2:
            self._reserve()
            return 0
        if self.key == 4:
            self._fair()
            return 0
        if self.preempt:
            self._refresh()
        for k in range(self.kinds):
            self.room[k] = self.spare[k]
            total += self.spare[k]
        if self.preempt:
            for i in range(self.runs):
                job = self.running[i]
                self.room[self.span_kind[self.current[job]]] += self.demand[job]
                total += self.demand[job]
        i = self.lo
        self.edge = self.lo
        while i < self.hi and total > 0:
            job = self.line[i]
            d = self.demand[job]
            found = -1
            if self.current[job] >= 0 and self.room[self.span_kind[self.current[job]]] >= d:
                found = self.span_kind[self.current[job]]
                self.mark[job] = self.decisions
                stays += 1
            else:
                found = self._kind(job, d)
                if found >= 0:
                    self.chosen[picked] = job
                    self.onto[picked] = found
                    picked += 1
                elif self.fill == 0:
                    break
            i += 1
            if found >= 0:
                self.room[found] -= d
                total -= d
                self.edge = i
        for k in range(picked):
            job = self.chosen[k]
            if self.current[job] >= 0:  # it goes on with another kind
                self.moved[job] += 1
                self._stop(job)
        if self.preempt and stays < self.runs:
            for k in range(self.runs - 1, -1, -1):
                job = self.running[k]
                if self.mark[job] != self.decisions:
                    self.preempted[job] += 1
                    self._stop(job)
        for k in range(picked):
            self._begin(self.chosen[k], self.onto[k])
        if not self.preempt and picked > 0:
            self._drop()
        if self.key == 3 and self.round == 0.0:
            for i in range(self.runs):
                job = self.running[i]
                at = self._had(job)
                for k in range(self.levels):
                    if at < self.queues[k] - CROSSED:
                        at = self.now + (self.queues[k] - at) / self.demand[job]
                        if self.now < at < self.alarm:
                            self.alarm = at
                        break
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _kind(self, job: cython.Py_ssize_t, d: cython.longlong) -> cython.Py_ssize_t:
        """The quickest kind of device with room for a job, -1 = none."""
        i: cython.Py_ssize_t
        k: cython.Py_ssize_t
        for i in range(self.kinds):
            k = self.pref[job * self.kinds + i]
            if self.room[k] >= d and (self.kinds == 1 or self.told[job * self.kinds + k] > 0.0):
                return k
        return -1

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _refresh(self) -> cython.int:
        """Drops jobs that have ended from the front of the line, and puts the rest in order of their keys of now."""
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        w: cython.Py_ssize_t = self.edge
        top: cython.Py_ssize_t
        job: cython.longlong
        v: cython.double
        changed: cython.bint = False
        i = self.edge - 1
        while i >= self.lo:
            if self.mark[self.line[i]] >= 0:
                w -= 1
                self.line[w] = self.line[i]
            i -= 1
        self.lo = w
        if self.key == 0:
            return 0
        for i in range(self.lo, self.edge):
            job = self.line[i]
            if self.current[job] >= 0:
                v = self._value(job)
                changed = changed or v != self.value[job]
                self.value[job] = v
        if not changed:
            return 0
        top = self.hi if self.key == 3 else self.edge  # attained service pushes a job back, work done draws it on
        for i in range(self.lo + 1, top):
            job = self.line[i]
            v = self.value[job]
            j = i
            while j > self.lo and (
                self.value[self.line[j - 1]] > v or (self.value[self.line[j - 1]] == v and self.line[j - 1] > job)
            ):
                self.line[j] = self.line[j - 1]
                j -= 1
            self.line[j] = job
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _drop(self) -> cython.int:
        """Closes up the line where jobs that wait no more have left it."""
        i: cython.Py_ssize_t = self.edge - 1
        w: cython.Py_ssize_t = self.edge
        while i >= self.lo:
            if self.current[self.line[i]] < 0:
                w -= 1
                self.line[w] = self.line[i]
            i -= 1
        self.lo = w
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _fair(self) -> cython.int:
        """Dominant resource fairness: the user with the smallest share gets its next job, until that finds no room."""
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        k: cython.Py_ssize_t
        job: cython.Py_ssize_t
        u: cython.Py_ssize_t
        count: cython.Py_ssize_t = 0
        total: cython.longlong = 0
        began: cython.bint = False
        for k in range(self.kinds):
            self.room[k] = self.spare[k]
            total += self.spare[k]
        if total == 0:
            return 0
        for i in range(self.runs):
            job = self.ordered[i]
            u = self.who[job]
            if self.has[u] != self.decisions:
                self.has[u] = self.decisions
                self.share[u] = 0.0
            self.share[u] += self.demand[job] * self.unit / self.weight[job]
        self.edge = self.lo
        i = self.lo
        while i < self.hi and total > 0:  # who has nothing
            job = self.line[i]
            i += 1
            u = self.who[job]
            if self.has[u] == self.decisions or self.out_of[u] == self.decisions:
                continue
            k = self._kind(job, self.demand[job])
            if k < 0:
                self.out_of[u] = self.decisions
                continue
            self.has[u] = self.decisions
            self.share[u] = 0.0
            self._serve(job, k)
            total -= self.demand[job]
            began = True
            self.edge = i
        if total > 0:
            for i in range(self.runs):
                u = self.who[self.ordered[i]]
                job = self.head[u]
                if job >= 0 and self.out_of[u] != self.decisions and self.arrival[job] <= self.now:
                    self.out_of[u] = self.decisions  # it is in the heap now, once
                    count = self._bid(self.share[u], job, count)
        while count > 0 and total > 0:
            job = self.whose[0]
            count -= 1
            _sink(self.soon, self.whose, count)
            k = self._kind(job, self.demand[job])
            if k < 0:
                continue
            u = self.who[job]
            self._serve(job, k)
            total -= self.demand[job]
            began = True
            i = self.lo  # its place in the line, which is in order of arrival
            j = self.hi
            while i < j:
                k = (i + j) // 2
                if self.line[k] < job:
                    i = k + 1
                else:
                    j = k
            if i + 1 > self.edge:
                self.edge = i + 1
            if self.head[u] >= 0 and self.arrival[self.head[u]] <= self.now:
                count = self._bid(self.share[u], self.head[u], count)
        if began:
            self._drop()
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _serve(self, job: cython.Py_ssize_t, kind: cython.Py_ssize_t) -> cython.int:
        """Starts the next job of a user, and counts it."""
        u: cython.Py_ssize_t = self.who[job]
        self._begin(job, kind)
        self.room[kind] = self.spare[kind]
        self.share[u] += self.demand[job] * self.unit / self.weight[job]
        self.head[u] = self.follows[job]
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _bid(self, key: cython.double, job: cython.Py_ssize_t, count: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Puts a job into the heap of `soon` and `whose`, the smallest key on top; returns its size."""
        j: cython.Py_ssize_t = count
        while j > 0 and _before(key, job, self.soon[(j - 1) // 2], self.whose[(j - 1) // 2]):
            self.soon[j] = self.soon[(j - 1) // 2]
            self.whose[j] = self.whose[(j - 1) // 2]
            j = (j - 1) // 2
        self.soon[j] = key
        self.whose[j] = job
        return count + 1

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _reserve(self) -> cython.int:
        """EASY: grants in order without delaying the first that finds no room."""
        i: cython.Py_ssize_t
        k: cython.Py_ssize_t
        x: cython.Py_ssize_t
        job: cython.Py_ssize_t
        d: cython.longlong
        head: cython.bint = False
        kept: cython.Py_ssize_t = -1
        shadow: cython.double = 0.0
        extra: cython.longlong = 0
        total: cython.longlong = 0
        ends: cython.double
        spare: cython.bint
        for k in range(self.kinds):
            total += self.spare[k]
        self.edge = self.lo
        i = self.lo
        while i < self.hi and (total > 0 or not head):
            job = self.line[i]
            d = self.demand[job]
            i += 1
            for x in range(self.kinds):
                k = self.pref[job * self.kinds + x]
                if self.spare[k] < d or (self.kinds > 1 and self.told[job * self.kinds + k] <= 0.0):
                    continue
                spare = False
                if head and k == kept:
                    ends = self.now + self.left[job] / self.told[job * self.kinds + k]
                    spare = ends > shadow
                    if spare and d > extra:
                        continue
                self._begin(job, k)
                total -= d
                if spare:
                    extra -= d
                self.edge = i
                break
            if not head and self.current[job] < 0:
                head = True
                if total == 0:
                    break
                kept = self._reservation(job)
                if kept >= 0:
                    shadow = self.soon[0]
                    extra = self.whose[0]
                else:
                    shadow = INF
        self._drop()
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _reservation(self, job: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The kind on which a job can start first; when, and how many devices are then left over, in soon and whose."""
        x: cython.Py_ssize_t
        k: cython.Py_ssize_t
        i: cython.Py_ssize_t
        count: cython.Py_ssize_t
        other: cython.longlong
        kept: cython.Py_ssize_t = -1
        best: cython.double = INF
        over: cython.longlong = 0
        free: cython.longlong
        at: cython.double
        for x in range(self.kinds):
            k = self.pref[job * self.kinds + x]
            if self.kinds > 1 and self.told[job * self.kinds + k] <= 0.0:
                continue
            count = 0
            for i in range(self.runs):  # a heap of ends, the first on top
                other = self.running[i]
                if self.span_kind[self.current[other]] != k:
                    continue
                at = self.now + self._remains(other) / self.told[other * self.kinds + k]
                count = self._bid(at, other, count)
            free = self.spare[k]
            while count > 0:
                at = self.soon[0]
                free += self.demand[self.whose[0]]
                if free >= self.demand[job]:
                    if at < best:
                        kept = k
                        best = at
                        over = free - self.demand[job]
                    break
                count -= 1
                _sink(self.soon, self.whose, count)
        self.soon[0] = best
        self.whose[0] = over
        return kept

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _begin(self, job: cython.Py_ssize_t, kind: cython.Py_ssize_t) -> cython.int:
        """Places a job and starts its span."""
        d: cython.longlong = self.demand[job]
        left: cython.longlong = d
        low: cython.Py_ssize_t = self.first[kind]
        high: cython.Py_ssize_t = self.first[kind + 1]
        node: cython.Py_ssize_t
        best: cython.Py_ssize_t
        took: cython.longlong
        i: cython.Py_ssize_t
        span: cython.Py_ssize_t = self.spans
        begin: cython.Py_ssize_t = self.places
        factor: cython.double = 1.0
        rate: cython.double
        delay: cython.double = 0.0
        if self.places + d + 1 >= self.place_node.shape[0]:
            self._grow(d)
        if self.spans + 1 >= self.span_job.shape[0] or self.heap + 1 >= self.heap_time.shape[0]:
            self._grow(d)
        while left > 0:
            best = -1
            if self.place == 0:
                for node in range(low, high):  # the fullest that holds all of it
                    if self.free[node] >= left and (best < 0 or self.free[node] < self.free[best]):
                        best = node
                        if self.free[node] == left:
                            break
            if best < 0:
                for node in range(low, high):
                    if best < 0 or self.free[node] > self.free[best]:
                        best = node
            took = 1 if self.place == 1 else (left if self.free[best] > left else self.free[best])
            self.free[best] -= took
            left -= took
            i = begin
            while i < self.places and self.place_node[i] != best:
                i += 1
            if i == self.places:
                self.place_node[i] = best
                self.place_count[i] = 0
                self.places += 1
            self.place_count[i] += took
        self.spare[kind] -= d
        if self.places - begin > (d + self.whole[kind] - 1) // self.whole[kind]:
            factor *= self.apart
        for i in range(begin + 1, self.places):
            if self.near[self.place_node[i]] != self.near[self.place_node[begin]]:
                factor *= self.racks
                break
        rate = self.rate[job * self.kinds + kind] * factor
        self.takes[job] = 1.0 / rate if rate > 0.0 else INF
        self.waited[job] += self.now - self.idle[job]
        if self.start[job] == self.start[job]:
            delay = self.restart
            self.lost[job] += delay * d
        else:
            self.start[job] = self.now
        self.since[job] = self.now + delay
        self.span_job[span] = job
        self.span_kind[span] = kind
        self.span_begin[span] = self.now
        self.span_from[span] = begin
        self.current[job] = span
        self.spans += 1
        self.slot[job] = self.runs
        self.running[self.runs] = job
        if self.key == 4:
            i = self.runs
            while i > 0 and self.ordered[i - 1] > job:
                self.ordered[i] = self.ordered[i - 1]
                i -= 1
            self.ordered[i] = job
        self.runs += 1
        self._push(self.since[job] + self.left[job] * self.takes[job], span)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _stop(self, job: cython.Py_ssize_t) -> cython.int:
        """Ends a job's span; what it has done stays done."""
        span: cython.Py_ssize_t = self.current[job]
        d: cython.longlong = self.demand[job]
        spent: cython.double
        i: cython.Py_ssize_t
        given: cython.longlong = 0
        self.left[job] = self._remains(job)
        if self.now < self.since[job]:
            self.lost[job] -= (self.since[job] - self.now) * d
        spent = d * (self.now - self.span_begin[span])
        self.had[job] += spent
        self.held[job] += spent
        self.span_end[span] = self.now
        i = self.span_from[span]
        while given < d:
            self.free[self.place_node[i]] += self.place_count[i]
            given += self.place_count[i]
            i += 1
        self.spare[self.span_kind[span]] += d
        self.current[job] = -1
        self.takes[job] = INF
        self.idle[job] = self.now
        self.runs -= 1
        if self.key == 4:
            i = 0
            while self.ordered[i] != job:
                i += 1
            while i < self.runs:
                self.ordered[i] = self.ordered[i + 1]
                i += 1
        i = self.slot[job]
        self.running[i] = self.running[self.runs]
        self.slot[self.running[i]] = i
        return 0

    @cython.cfunc
    def _grow(self, d: cython.longlong) -> cython.int:
        """Doubles the columns of spans and places."""
        n: cython.Py_ssize_t = self.span_job.shape[0]
        m: cython.Py_ssize_t = self.place_node.shape[0] + d
        self.span_job, self.span_kind = _wider("q", self.span_job, n), _wider("q", self.span_kind, n)
        self.span_from, self.heap_span = _wider("q", self.span_from, n), _wider("q", self.heap_span, n)
        self.span_begin, self.span_end = _wider("d", self.span_begin, n), _wider("d", self.span_end, n)
        self.heap_time = _wider("d", self.heap_time, n)
        self.place_node, self.place_count = _wider("q", self.place_node, m), _wider("q", self.place_count, m)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _push(self, at: cython.double, span: cython.Py_ssize_t) -> cython.int:
        i: cython.Py_ssize_t = self.heap
        up: cython.Py_ssize_t
        self.heap += 1
        while i > 0:
            up = (i - 1) // 2
            if not _before(at, span, self.heap_time[up], self.heap_span[up]):
                break
            self.heap_time[i] = self.heap_time[up]
            self.heap_span[i] = self.heap_span[up]
            i = up
        self.heap_time[i] = at
        self.heap_span[i] = span
        return 0

    @cython.cfunc
    def _pop(self) -> cython.int:
        self.heap -= 1
        _sink(self.heap_time, self.heap_span, self.heap)
        return 0


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
def _sink(key: cython.double[::1], item: cython.longlong[::1], size: cython.Py_ssize_t) -> cython.int:
    """Puts the last entry of a heap, at ``size``, where the first was, and lets it sink."""
    k: cython.double = key[size]
    w: cython.longlong = item[size]
    i: cython.Py_ssize_t = 0
    child: cython.Py_ssize_t
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and _before(key[child + 1], item[child + 1], key[child], item[child]):
            child += 1
        if not _before(key[child], item[child], k, w):
            break
        key[i] = key[child]
        item[i] = item[child]
        i = child
    key[i] = k
    item[i] = w
    return 0


@cython.cfunc
@cython.inline
def _before(a: cython.double, i: cython.longlong, b: cython.double, j: cython.longlong) -> cython.bint:
    return a < b or (a == b and i < j)


@cython.cfunc
def _up(x: cython.double) -> cython.double:
    n: cython.longlong = int(x)
    return n + 1.0 if n < x else float(n)


@cython.cfunc
def _down(x: cython.double) -> cython.double:
    n: cython.longlong = int(x)
    return n - 1.0 if n > x else float(n)


def _wider(code: str, values: Any, more: int) -> Any:
    """Returns a column with so many more rows."""
    return column(code, np.r_[np.asarray(values), np.zeros(more, {"d": "f8", "q": "i8"}[code])])
