"""The hot loop of a row of servers: who is prompting, stepping or idle, and what the row draws in every tick.

A server takes up to ``slots`` requests at once. Prompts run one after the other and hold up the steps; a step makes
one token for each running request. Between two events (an arrival, a prompt's end, a request's end, a tick) nothing
changes, so time and energy go from event to event. Tokens are counted by a clock of the server's own: a request
that starts at count c ends at c + its remaining tokens, so ends wait in a heap and need no upkeep.

Plain Python that Cython compiles where there is a compiler. It knows no policy and no budget: it stops where told.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
TOGETHER = cython.declare(cython.double, 1e-9)
"""Ends that lie so close (in tokens) are those of one step; only rounding tells them apart."""
IDLE, PROMPT, STEP = range(3)


def column(code: str, values: Any) -> Any:
    """Returns a column the loop can index, compiled or not, without a copy where the type is right."""
    array: Any = np.require(values, dtype={"d": "f8", "i": "i4", "q": "i8"}[code], requirements=("C", "W"))
    return memoryview(array)


@cython.cclass
class Servers:
    """Servers alike, each of low (0) or high (1) priority, with their requests.

    It writes into the columns it is given: ``finish``, when each request ended, s (of no length where nobody asks);
    ``power``, mean watts of every tick; ``joules`` and ``seconds`` of all servers by phase (idle, prompt, step).
    """

    count: cython.Py_ssize_t
    slots: cython.Py_ssize_t
    keep: cython.bint
    idle: cython.double
    host: cython.double
    arrival: cython.double[::1]
    sample: cython.int[::1]
    following: cython.longlong[::1]
    last: cython.longlong[::1]
    rank: cython.int[::1]
    prompt_time: cython.double[::1]
    prompt_power: cython.double[::1]
    tokens: cython.double[::1]
    step_time: cython.double[::1]
    step_power: cython.double[::1]
    prompt_slow: cython.double[::1]
    prompt_share: cython.double[::1]
    step_slow: cython.double[::1]
    step_share: cython.double[::1]
    left: cython.double[::1]
    entering: cython.longlong[::1]
    running: cython.longlong[::1]
    made: cython.double[::1]
    ends: cython.double[::1]
    who: cython.longlong[::1]
    finish: cython.double[::1]
    power: cython.double[::1]
    joules: cython.double[::1]
    seconds: cython.double[::1]

    def __init__(self, traffic: dict, phases: dict, rank: Any, out: dict) -> None:
        """Takes requests (arrival, sample, first), phases (see `sim.power.phases`), priorities, columns to fill."""
        n = len(rank)
        first = traffic["first"]
        self.count, self.slots, self.keep = n, phases["slots"], len(out["finish"]) > 0
        self.idle, self.host = phases["idle"], phases["host"]
        self.arrival, self.sample = column("d", traffic["arrival"]), column("i", traffic["sample"])
        self.following, self.last = column("q", first[:n].copy()), column("q", first[1 : n + 1].copy())
        self.rank = column("i", rank)
        self.prompt_time, self.prompt_power = column("d", phases["prompt_time"]), column("d", phases["prompt_power"])
        self.tokens = column("d", phases["tokens"])
        self.step_time, self.step_power = column("d", phases["step_time"]), column("d", phases["step_power"])
        self.prompt_slow, self.prompt_share = column("d", np.ones(2)), column("d", np.ones(2))
        self.step_slow, self.step_share = column("d", np.ones(2)), column("d", np.ones(2))
        self.left, self.made = column("d", np.zeros(n)), column("d", np.zeros(n))
        self.entering, self.running = column("q", np.zeros(n)), column("q", np.zeros(n))
        self.ends, self.who = column("d", np.zeros(n * self.slots)), column("q", np.zeros(n * self.slots))
        self.finish, self.power = column("d", out["finish"]), column("d", out["power"])
        self.joules, self.seconds = column("d", out["joules"]), column("d", out["seconds"])

    def clock(self, rank: int, prompt_slow: float, prompt_share: float, step_slow: float, step_share: float) -> None:
        """Sets how much longer the phases of one priority take from now on, and which share of their power is left."""
        self.prompt_slow[rank], self.prompt_share[rank] = prompt_slow, prompt_share
        self.step_slow[rank], self.step_share[rank] = step_slow, step_share

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def run(
        self, tick: cython.Py_ssize_t, stop: cython.Py_ssize_t, width: cython.double, below: cython.double,
        above: cython.double,
    ) -> int:  # fmt: skip
        """Runs ticks of ``width`` s up to ``stop``, or to the first whose watts lie outside ``below`` to ``above``.

        Returns:
            The next tick to run.
        """
        unit: cython.Py_ssize_t
        watts: cython.double
        while tick < stop:
            watts = 0.0
            for unit in range(self.count):
                watts += self._advance(unit, tick * width, (tick + 1) * width)
            watts = watts / width
            self.power[tick] = watts
            tick += 1
            if watts > above or watts < below:
                break
        return tick

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _advance(self, unit: cython.Py_ssize_t, now: cython.double, end: cython.double) -> cython.double:
        """Runs one server from ``now`` to ``end``; returns joules."""
        rank: cython.int = self.rank[unit]
        base: cython.Py_ssize_t = unit * self.slots
        drawn: cython.double = 0.0
        need: cython.double
        stop: cython.double
        watts: cython.double
        per: cython.double
        n: cython.longlong
        r: cython.longlong
        while now < end:
            n = self.running[unit]
            if self.left[unit] > 0.0:
                r = self.entering[unit]
                need = self.left[unit] * self.prompt_slow[rank]
                watts = self.host + max(self.idle, self.prompt_power[self.sample[r]] * self.prompt_share[rank])
                if now + need > end:
                    self.left[unit] -= (end - now) / self.prompt_slow[rank]
                    drawn += self._spend(PROMPT, end - now, watts)
                    return drawn
                drawn += self._spend(PROMPT, need, watts)
                now += need
                self.left[unit] = 0.0
                per = self.tokens[self.sample[r]] - 1.0  # the first token comes out of the prompt
                if per > 0.0:
                    self._push(base, n, self.made[unit] + per, r)
                    self.running[unit] = n + 1
                elif self.keep:
                    self.finish[r] = now
                continue
            stop = end
            r = self.following[unit]
            if r < self.last[unit] and n < self.slots:
                if self.arrival[r] <= now:
                    self.entering[unit] = r
                    self.left[unit] = self.prompt_time[self.sample[r]]
                    self.following[unit] = r + 1
                    continue
                if self.arrival[r] < end:
                    stop = self.arrival[r]
            if n == 0:
                drawn += self._spend(IDLE, stop - now, self.host + self.idle)
                now = stop
                continue
            per = self.step_time[n] * self.step_slow[rank]
            watts = self.host + max(self.idle, self.step_power[n] * self.step_share[rank])
            need = (self.ends[base] - self.made[unit]) * per
            if now + need > stop:
                self.made[unit] += (stop - now) / per
                drawn += self._spend(STEP, stop - now, watts)
                now = stop
                continue
            drawn += self._spend(STEP, need, watts)
            now += need
            self.made[unit] = self.ends[base]
            while n > 0 and self.ends[base] <= self.made[unit] + TOGETHER:
                n -= 1
                if self.keep:
                    self.finish[self.who[base]] = now
                self._pop(base, n)
            self.running[unit] = n
        return drawn

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _spend(self, phase: cython.Py_ssize_t, seconds: cython.double, watts: cython.double) -> cython.double:
        """Books time and energy under a phase; returns the joules."""
        self.joules[phase] += seconds * watts
        self.seconds[phase] += seconds
        return seconds * watts

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _push(
        self, base: cython.Py_ssize_t, size: cython.Py_ssize_t, key: cython.double, r: cython.longlong
    ) -> cython.void:
        """Adds an end to the server's heap of ``size`` ends."""
        i: cython.Py_ssize_t = size
        up: cython.Py_ssize_t
        while i > 0:
            up = (i - 1) >> 1
            if self.ends[base + up] <= key:
                break
            self.ends[base + i] = self.ends[base + up]
            self.who[base + i] = self.who[base + up]
            i = up
        self.ends[base + i] = key
        self.who[base + i] = r

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _pop(self, base: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.void:
        """Takes the earliest end off the server's heap, which keeps ``size``."""
        key: cython.double = self.ends[base + size]
        r: cython.longlong = self.who[base + size]
        i: cython.Py_ssize_t = 0
        down: cython.Py_ssize_t = 1
        while down < size:
            if down + 1 < size and self.ends[base + down + 1] < self.ends[base + down]:
                down += 1
            if key <= self.ends[base + down]:
                break
            self.ends[base + i] = self.ends[base + down]
            self.who[base + i] = self.who[base + down]
            i = down
            down = 2 * i + 1
        self.ends[base + i] = key
        self.who[base + i] = r
