"""A row of servers under a breaker's budget, run under a power policy for weeks at the resolution of its telemetry.

The row's power is the mean of each tick. A reading reaches the policy after the telemetry's delay, a cap takes effect
after the actuation's. Power above the budget makes the breaker's brake act, after its own delay: every server drops to
the brake's clock and is held there. A decision's band tells how long nobody need be asked, so quiet hours cost
nothing beyond the servers' own events.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, PolicyError, SpecError
from fleetcast.policy.power import Decision, View
from fleetcast.scenario.workload.weeks import Weeks
from fleetcast.sim.power import kernel
from fleetcast.sim.power.phases import Floats, Phases, columns

INF = float("inf")
PHASES = ("idle", "prompt", "step")
LOW, HIGH = 0, 1


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """A power budget and what it takes to keep it; delays as recalled from POLCA (ASPLOS 2024), not verified.

    Attributes:
        budget: W of the row.
        tick: s, the telemetry's resolution.
        telemetry: s from the end of a tick until the policy knows its power.
        actuation: s until a commanded cap is in force: out-of-band capping takes up to that long, here always.
        brake: s from the end of a tick above the budget until the brake acts.
        brake_clock: share of the top clock under the brake (288 of 1410 MHz).
        hold: s that the brake stays on; stated.
    """

    budget: float
    tick: float = 2.0
    telemetry: float = 2.0
    actuation: float = 40.0
    brake: float = 5.0
    brake_clock: float = 0.2043
    hold: float = 60.0

    def ticks(self, seconds: float) -> int:
        """Returns how many ticks ``seconds`` take, rounded up."""
        return math.ceil(seconds / self.tick - 1e-9)

    @property
    def longest(self) -> float:
        """The longest that a row may be above the budget, s: the tick in which it is seen, and the brake's delay."""
        return (1 + self.ticks(self.brake)) * self.tick


@dataclass(frozen=True, eq=False)
class Run:
    """What happened.

    Attributes:
        power: W by tick, as far as it was run.
        tick: s.
        budget: W.
        brakes: how often the brake acted (or was bound to).
        commands: (s when in force, clock of low priority, of high priority, "cap", "brake" or "release").
        finish: s when each request ended, inf = not yet; of no length unless asked for.
        joules: by phase.
        seconds: server-seconds by phase.
    """

    power: Floats
    tick: float
    budget: float
    brakes: int
    commands: tuple[tuple[float, float, float, str], ...]
    finish: Floats
    joules: dict[str, float]
    seconds: dict[str, float]

    @property
    def peak(self) -> float:
        """The highest tick, as a share of the budget."""
        return float(self.power.max()) / self.budget

    @property
    def mean(self) -> float:
        """Mean power, as a share of the budget."""
        return float(self.power.mean()) / self.budget

    @property
    def longest_over(self) -> float:
        """The longest that power was above the budget without a break, s."""
        over = np.concatenate([[0], (self.power > self.budget).astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(over))
        return float((edges[1::2] - edges[::2]).max(initial=0)) * self.tick

    def capped(self) -> tuple[float, float]:
        """Returns the share of the time that low- and high-priority servers were below the top clock."""
        end = len(self.power) * self.tick
        found = []
        for clocks in ([c[1] for c in self.commands], [c[2] for c in self.commands]):
            times = [*(c[0] for c in self.commands), end]
            spans = zip(clocks, pairwise(times), strict=True)
            found.append(sum(b - a for clock, (a, b) in spans if clock < 1.0) / end)
        return found[0], found[1]


def priorities(servers: int, low: float) -> NDArray[np.int32]:
    """Returns each server's priority (`LOW` or `HIGH`), the share ``low`` of them low and spread evenly.

    A longer row keeps the priorities of the shorter one.
    """
    steps = np.floor(np.arange(servers + 1) * low + 1e-9)
    return np.where(np.diff(steps) > 0, LOW, HIGH).astype(np.int32)


def simulate(
    phases: Phases, weeks: Weeks, breaker: Breaker, policy: Any, *, servers: int, low: float, keep: bool = False,
    stop_at_brake: bool = False,
) -> Run:  # fmt: skip
    """Runs the first ``servers`` servers of the traffic under a policy.

    Args:
        phases: what a server draws and takes.
        weeks: traffic of at least so many servers.
        breaker: budget and delays.
        policy: of `policy.power`.
        servers: of the row.
        low: share of them that serve low-priority load.
        keep: keep when each request ended.
        stop_at_brake: end where the budget is first exceeded.

    Raises:
        SpecError: no servers, more than the traffic has, or a share outside 0 to 1.
        Infeasible: the row exceeds its budget idle, or even under the brake.
        PolicyError: a cap outside 0 (exclusive) to 1.
    """
    _check(phases, weeks, breaker, servers, low)
    ticks = int(weeks.duration // breaker.tick)
    traffic = {"arrival": weeks.arrival, "sample": weeks.sample, "first": weeks.first}
    finish, power = np.full(int(weeks.first[servers]) if keep else 0, INF), np.zeros(ticks)
    joules, seconds = np.zeros(len(PHASES)), np.zeros(len(PHASES))
    out = {"finish": finish, "power": power, "joules": joules, "seconds": seconds}
    row = kernel.Servers(traffic, columns(phases), priorities(servers, low), out)
    control = _Control(phases, breaker, policy, row, power)
    ran = control.drive(stop_at_brake)
    return Run(
        power=power[:ran], tick=breaker.tick, budget=breaker.budget, brakes=control.brakes,
        commands=tuple(control.commands), finish=finish,
        joules=dict(zip(PHASES, joules.tolist(), strict=True)),
        seconds=dict(zip(PHASES, seconds.tolist(), strict=True)),
    )  # fmt: skip


def _check(phases: Phases, weeks: Weeks, breaker: Breaker, servers: int, low: float) -> None:
    if not 1 <= servers <= weeks.servers:
        raise SpecError("servers", "is out of range", value=servers, limit=f"1 to {weeks.servers}, those with traffic")
    if not 0.0 <= low <= 1.0:
        raise SpecError("low", "is not a share", value=low, limit="0 to 1")
    if servers * phases.lowest > breaker.budget:
        raise Infeasible(
            "idle power of the servers", need=servers * phases.lowest, have=breaker.budget, unit="W",
            hint="Raise the breaker's budget, or take fewer servers",
        )  # fmt: skip
    braked = servers * phases.highest(breaker.brake_clock)
    if braked > breaker.budget:
        raise Infeasible(
            "power under the brake", need=braked, have=breaker.budget, unit="W",
            hint="Even the brake would not save the breaker: take fewer servers",
        )  # fmt: skip


class _Control:
    """The row's controller: readings in, commands out, each after its delay."""

    def __init__(self, phases: Phases, breaker: Breaker, policy: Any, row: Any, power: Floats) -> None:
        self.phases, self.breaker, self.policy, self.row = phases, breaker, policy, row
        self.power, self.ticks = power, len(power)
        self.decision = Decision(1.0, 1.0)
        self.due: deque[tuple[int, float, float]] = deque()
        self.in_force = (1.0, 1.0)
        self.brakes = 0
        self.brake_on = self.release = -1
        self.commands: list[tuple[float, float, float, str]] = []
        self.seen = 0

    def drive(self, stop_at_brake: bool) -> int:
        """Runs to the end, or to the first tick above the budget; returns how many ticks were run."""
        b = self.breaker
        tick = 0
        while tick < self.ticks:
            self._fall_due(tick)
            target = self._read(tick)
            if target <= tick:
                continue
            waits = [t for t in (self.brake_on, self.release) if t > tick]
            stop = min([target, self.ticks, *waits, *(d[0] for d in list(self.due)[:1])])
            braking = self.brake_on >= 0
            low, high = -INF, INF
            if self.release < 0 and target == self.ticks:  # else nobody is asked before then
                low, high = self.decision.below * b.budget, self.decision.above * b.budget
            tick = int(self.row.run(tick, stop, b.tick, low, high if braking else min(high, b.budget)))
            if not braking and self.power[tick - 1] > b.budget:
                self.brakes += 1
                if stop_at_brake:
                    return tick
                self.brake_on = tick + b.ticks(b.brake)
        return tick

    def _fall_due(self, tick: int) -> None:
        while self.due and self.due[0][0] <= tick:
            _, *caps = self.due.popleft()
            self.in_force = (caps[0], caps[1])
            if self.release < 0:
                self._clock(tick, *self.in_force, "cap")
        if tick == self.brake_on:
            self._clock(tick, self.breaker.brake_clock, self.breaker.brake_clock, "brake")
            self.release = tick + max(1, self.breaker.ticks(self.breaker.hold))
        if tick == self.release:
            self.brake_on = self.release = -1
            self.seen = tick  # what was read under the brake says nothing
            self._clock(tick, *self.in_force, "release")

    def _read(self, tick: int) -> int:
        """Asks the policy where a reading calls for it; returns the tick at which it is to be asked next.

        ``tick`` itself means that it was just asked, the last tick that no reading at hand calls for it.
        """
        if self.release >= 0:
            self.seen = tick
            return self.ticks
        low, high = self.decision.below * self.breaker.budget, self.decision.above * self.breaker.budget
        while self.seen < tick and low <= self.power[self.seen] <= high:
            self.seen += 1
        if self.seen == tick:
            return self.ticks
        known = self.seen + 1 + self.breaker.ticks(self.breaker.telemetry)
        if known > tick:
            return known
        self._ask(tick, self.power[self.seen] / self.breaker.budget)
        self.seen += 1
        return tick

    def _ask(self, tick: int, reading: float) -> None:
        before = self.decision
        found = self.policy.cap(View(reading, before.low, before.high))
        if not (0.0 < found.low <= 1.0 and 0.0 < found.high <= 1.0):
            raise PolicyError(f"{type(self.policy).__name__}.cap gave {found}: caps must be above 0, at most 1")
        self.decision = found
        if (found.low, found.high) != (before.low, before.high):
            self.due.append((tick + self.breaker.ticks(self.breaker.actuation), found.low, found.high))

    def _clock(self, tick: int, low: float, high: float, why: str) -> None:
        for rank, share in ((LOW, low), (HIGH, high)):
            prompt_slow, prompt_power, step_slow, step_power = self.phases.clocks.at(share)
            self.row.clock(rank, prompt_slow, prompt_power, step_slow, step_power)
        self.commands.append((tick * self.breaker.tick, low, high, why))


def slowdowns(run: Run, free: Run, weeks: Weeks, servers: int, low: float) -> dict[str, dict[str, float]]:
    """Returns mean and p99 of each request's time over its time in ``free``, by priority; 1 = not slower.

    Both runs need ``keep``, the same traffic and as many servers; requests that ended in both count.
    """
    count = int(weeks.first[servers])
    arrival = weeks.arrival[:count]
    rank = np.repeat(priorities(servers, low), np.diff(weeks.first[: servers + 1]))
    done = np.isfinite(run.finish[:count]) & np.isfinite(free.finish[:count])
    found = {}
    for name, which in (("low", LOW), ("high", HIGH)):
        mine = done & (rank == which)
        if mine.any():
            ratio = (run.finish[:count][mine] - arrival[mine]) / (free.finish[:count][mine] - arrival[mine])
            found[name] = {"mean": float(ratio.mean()), "p99": float(np.percentile(ratio, 99))}
    return found
