"""A row under a breaker: closed forms, a plain reference, the breaker kept, both forms of the hot loop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import Infeasible, PolicyError, SpecError
from fleetcast.base.rng import rng
from fleetcast.policy import power
from fleetcast.scenario.fleet.catalog import curves
from fleetcast.scenario.workload.weeks import Weeks
from fleetcast.sim.power import row as world
from fleetcast.sim.power.phases import Phases, bound_clocks
from fleetcast.sim.power.row import Breaker, Run, priorities, simulate, slowdowns

CLOCKS = bound_clocks(curves()["a100-sxm"], step_memory=0.26, step_compute=0.25)
POLICIES = (
    power.Uncapped(), power.OneThreshold(), power.CapAll(), power.Polca(), power.CapAll(threshold=0.5, clock=0.3),
    power.Polca(lower=0.6, upper=0.62, hysteresis=0.01, low_first=0.6, low_second=0.5, high_second=0.7),
)  # fmt: skip


def phases(slots: int = 3) -> Phases:
    return Phases(
        idle=600.0, host=1000.0, slots=slots, prompt_time=np.array([0.3, 1.7, 0.05]),
        prompt_power=np.array([2000.0, 3100.0, 1500.0]), tokens=np.array([1.0, 90.0, 40.0]),
        step_time=0.05 + 0.004 * np.arange(slots + 1), step_power=1400.0 + 30.0 * np.arange(slots + 1), clocks=CLOCKS,
    )  # fmt: skip


def traffic(servers: int, rate: float, duration: float, seed: int = 0) -> Weeks:
    draw = rng(seed, "test", "row")
    arrival = [np.sort(draw.random(draw.poisson(rate * duration)) * duration) for _ in range(servers)]
    count = [len(a) for a in arrival]
    lengths = np.array([1, 90, 40])
    return Weeks(
        np.concatenate(arrival), draw.integers(3, size=sum(count), dtype=np.int32),
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64), lengths, lengths, duration,
    )  # fmt: skip


class Plain:
    """One server, written for reading: a list of running requests, each with its own tokens left."""

    def __init__(self, p: Phases, requests: list[tuple[float, int, int]]) -> None:
        self.p, self.queue = p, list(requests)
        self.running: list[list[float]] = []
        self.prompt: list[float] | None = None
        self.log: list[tuple[float, float, str, float]] = []
        self.finish: dict[int, float] = {}

    def advance(self, now: float, end: float, clock: float) -> float:
        slow, share, step_slow, step_share = self.p.clocks.at(clock)
        start, drawn = now, 0.0
        while now < end - 1e-12:
            if self.prompt is None and self.queue and self.queue[0][0] <= now and len(self.running) < self.p.slots:
                _, sample, number = self.queue.pop(0)
                self.prompt = [float(self.p.prompt_time[sample]), sample, number]
            if self.prompt is not None:
                span = min(self.prompt[0] * slow, end - now)
                watts = self.p.host + max(self.p.idle, self.p.prompt_power[int(self.prompt[1])] * share)
                self.prompt[0] -= span / slow
                what = "prompt"
            else:
                arrives = self.queue[0][0] if self.queue and len(self.running) < self.p.slots else end
                span, n = min(end, max(arrives, now)) - now, len(self.running)
                if n:
                    per = self.p.step_time[n] * step_slow
                    span = min(span, min(tokens for tokens, _ in self.running) * per)
                    for item in self.running:
                        item[0] -= span / per
                watts = self.p.host + max(self.p.idle, self.p.step_power[n] * step_share if n else 0.0)
                what = "step" if n else "idle"
            self.log.append((now, span, what, watts))
            now, drawn = now + span, drawn + span * watts
            for item in [x for x in self.running if x[0] < 1e-9]:
                self.running.remove(item)
                self.finish[int(item[1])] = now
            if self.prompt is not None and self.prompt[0] < 1e-12:
                tokens = self.p.tokens[int(self.prompt[1])] - 1
                if tokens > 0:
                    self.running.append([tokens, self.prompt[2]])
                else:
                    self.finish[int(self.prompt[2])] = now
                self.prompt = None
        assert now >= start
        return drawn


def plain_row(p: Phases, weeks: Weeks, b: Breaker, policy: Any, servers: int, low: float) -> dict[str, Any]:
    """The row tick by tick, the policy asked at every reading."""
    rank = priorities(servers, low)
    ends = list(zip(weeks.first, weeks.first[1:], strict=False))
    units = [
        Plain(p, [(float(weeks.arrival[r]), int(weeks.sample[r]), r) for r in range(ends[i][0], ends[i][1])])
        for i in range(servers)
    ]
    wanted, in_force, due, watts, brakes = (1.0, 1.0), (1.0, 1.0), [], [], 0
    brake_on = release = fresh = -1
    for k in range(int(weeks.duration // b.tick)):
        if k == release:
            brake_on = release = -1
            fresh = k
        if k == brake_on:
            release = k + b.ticks(b.hold)
        braked = release > 0
        seen = k - 1 - b.ticks(b.telemetry)
        if seen >= max(0, fresh) and not braked:
            said = policy.cap(power.View(watts[seen] / b.budget, *wanted))
            if (said.low, said.high) != wanted:
                wanted = (said.low, said.high)
                due.append((k + b.ticks(b.actuation), wanted))
        while due and due[0][0] <= k:
            in_force = due.pop(0)[1]
        clocks = (b.brake_clock, b.brake_clock) if braked else in_force
        joules = sum(u.advance(k * b.tick, (k + 1) * b.tick, clocks[rank[i]]) for i, u in enumerate(units))
        watts.append(joules / b.tick)
        if watts[-1] > b.budget and brake_on < 0:
            brakes += 1
            brake_on = k + 1 + b.ticks(b.brake)
    finish = {n: t for u in units for n, t in u.finish.items()}
    return {"power": np.array(watts), "finish": finish, "brakes": brakes, "units": units}


def run(policy: Any, *, servers: int = 6, rate: float = 0.18, budget: float = 16e3, seed: int = 0, **more: Any) -> Run:
    weeks = traffic(servers, rate, 4000.0, seed)
    return simulate(phases(), weeks, Breaker(budget=budget), policy, servers=servers, low=0.5, keep=True, **more)


def test_one_server_under_a_constant_load_has_a_closed_form() -> None:
    every, count = 10.0, 50
    arrival = np.arange(count) * every
    lengths = np.array([1, 90, 40])
    weeks = Weeks(arrival, np.ones(count, np.int32), np.array([0, count]), lengths, lengths, every * count)
    p = phases()
    found = simulate(p, weeks, Breaker(budget=9e3), power.Uncapped(), servers=1, low=0.0, keep=True)
    steps = 89 * p.step_time[1]
    np.testing.assert_allclose(found.finish - arrival, 1.7 + steps, rtol=1e-12)
    joules = 1.7 * (1000 + 3100) + steps * (1000 + p.step_power[1]) + (every - 1.7 - steps) * 1600
    assert found.power.mean() == pytest.approx(joules / every, rel=1e-12)
    # at a lower clock each phase takes longer by its own rate and draws its own share
    half = simulate(
        p, weeks, Breaker(budget=9e3, actuation=0.0), power.CapAll(threshold=0.01, hysteresis=0.0, clock=0.65),
        servers=1, low=0.0, keep=True,
    )  # fmt: skip
    slow, share, step_slow, step_share = CLOCKS.at(0.65)
    np.testing.assert_allclose(half.finish[5:] - arrival[5:], 1.7 * slow + steps * step_slow, rtol=1e-9)
    joules = 1.7 * slow * (1000 + 3100 * share) + steps * step_slow * (1000 + p.step_power[1] * step_share)
    joules += (every - 1.7 * slow - steps * step_slow) * 1600
    assert half.power[100:].mean() == pytest.approx(joules / every, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.kind)
@pytest.mark.parametrize("budget", [12.5e3, 15e3])
def test_a_tiny_row_equals_the_plain_one(policy: Any, budget: float) -> None:
    weeks = traffic(4, 0.15, 1500.0, seed=3)
    b = Breaker(budget=budget)
    fast = simulate(phases(), weeks, b, policy, servers=4, low=0.5, keep=True)
    slow = plain_row(phases(), weeks, b, policy, 4, 0.5)
    np.testing.assert_allclose(fast.power, slow["power"], rtol=1e-9)
    assert fast.brakes == slow["brakes"]
    done = {i: t for i, t in enumerate(fast.finish) if np.isfinite(t)}
    assert done.keys() == slow["finish"].keys()
    np.testing.assert_allclose([done[i] for i in done], [slow["finish"][i] for i in done], rtol=1e-9)
    # energy: the sum over ticks, over phases, and over the plain row's event record are one
    record = [e for unit in slow["units"] for e in unit.log]
    for name in world.PHASES:
        assert fast.joules[name] == pytest.approx(sum(s * w for _, s, what, w in record if what == name), rel=1e-9)
        assert fast.seconds[name] == pytest.approx(sum(s for _, s, what, _ in record if what == name), rel=1e-9)
    assert fast.power.sum() * b.tick == pytest.approx(sum(fast.joules.values()), rel=1e-12)
    assert sum(fast.seconds.values()) == pytest.approx(4 * 1500.0, rel=1e-12)


@given(
    policy=st.sampled_from(POLICIES), rate=st.floats(0.02, 0.3), budget=st.floats(11.5e3, 18e3),
    seed=st.integers(0, 50), brake=st.floats(0.0, 12.0), telemetry=st.floats(0.0, 9.0), actuation=st.floats(0.0, 60.0),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_no_policy_is_above_the_budget_for_longer_than_the_brake_takes(
    policy: Any, rate: float, budget: float, seed: int, brake: float, telemetry: float, actuation: float
) -> None:
    weeks = traffic(6, rate, 900.0, seed)
    b = Breaker(budget=budget, brake=brake, telemetry=telemetry, actuation=actuation)
    found = simulate(phases(), weeks, b, policy, servers=6, low=0.5)
    assert found.longest_over <= b.longest
    assert (found.brakes > 0) == (found.peak > 1.0)
    plain = plain_row(phases(), weeks, b, policy, 6, 0.5)
    np.testing.assert_allclose(found.power, plain["power"], rtol=1e-9)


class Nagging:
    """A user's own policy: another's decisions, without its bands."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.asked = inner, 0

    def cap(self, view: power.View) -> power.Decision:
        self.asked += 1
        said = self.inner.cap(view)
        return power.Decision(said.low, said.high)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.kind)
def test_a_policy_without_bands_is_asked_at_every_reading_and_gives_the_same_run(policy: Any) -> None:
    nag = Nagging(policy)
    one, other = run(policy, budget=22e3), run(nag, budget=22e3)
    assert (one.power == other.power).all()
    assert one.commands == other.commands
    assert one.brakes or nag.asked == len(one.power) - 2


def test_more_servers_never_draw_less() -> None:
    weeks = traffic(6, 0.18, 4000.0)
    b = Breaker(budget=1e6)
    series = [simulate(phases(), weeks, b, power.Uncapped(), servers=n, low=0.5).power for n in range(1, 7)]
    for fewer, more in pairwise(series):
        assert (more >= fewer + phases().lowest - 1e-6).all()


def test_caps_slow_by_priority_and_cost_nothing_uncapped() -> None:
    weeks = traffic(6, 0.1, 4000.0)
    b = Breaker(budget=17e3)
    free = simulate(phases(), weeks, b, power.Uncapped(), servers=6, low=0.5, keep=True)
    same = slowdowns(free, free, weeks, 6, 0.5)
    assert same == {"low": {"mean": 1.0, "p99": 1.0}, "high": {"mean": 1.0, "p99": 1.0}}
    only_low = power.OneThreshold(threshold=0.3, hysteresis=0.0)
    found = slowdowns(simulate(phases(), weeks, b, only_low, servers=6, low=0.5, keep=True), free, weeks, 6, 0.5)
    assert found["low"]["mean"] > 1.03
    assert found["high"] == {"mean": 1.0, "p99": 1.0}


def test_the_actuation_delay_counts_from_the_reading() -> None:
    found = run(power.CapAll(threshold=0.2, hysteresis=0.0), budget=40e3)
    first = int(np.flatnonzero(found.power > 0.2 * 40e3)[0])
    assert found.commands[0] == ((first + 1 + 1 + 20) * 2.0, 0.926, 0.926, "cap")


def test_priorities_are_spread_and_a_longer_row_keeps_them() -> None:
    assert priorities(4, 0.5).tolist() == [1, 0, 1, 0]
    assert (priorities(7, 0.3) == priorities(40, 0.3)[:7]).all()
    assert (priorities(40, 0.3) == world.LOW).sum() == 12
    assert (priorities(5, 0.0) == world.HIGH).all()
    assert (priorities(5, 1.0) == world.LOW).all()


def test_twins_agree_to_the_last_bit(twins: Callable[[str], tuple[ModuleType, ModuleType]], monkeypatch: Any) -> None:
    found = []
    for form in twins("fleetcast.sim.power.kernel"):
        monkeypatch.setattr(world, "kernel", form)
        found.append(run(power.Polca(), servers=6, rate=0.2, budget=15e3))
    a, b = found
    assert a.brakes == b.brakes > 0
    assert (a.power == b.power).all()
    assert (a.finish == b.finish).all()
    assert (a.joules, a.seconds, a.commands) == (b.joules, b.seconds, b.commands)


def test_rows_that_cannot_be_are_refused() -> None:
    with pytest.raises(Infeasible, match=r"idle power of the servers needs 9.6 kW, have 9.*breaker"):
        run(power.Uncapped(), budget=9e3)
    with pytest.raises(Infeasible, match="power under the brake"):
        weeks = traffic(6, 0.1, 100.0)
        simulate(phases(), weeks, Breaker(budget=9.7e3, brake_clock=0.9), power.Uncapped(), servers=6, low=0.5)
    with pytest.raises(SpecError, match="servers: is out of range"):
        simulate(phases(), traffic(2, 0.1, 100.0), Breaker(budget=1e5), power.Uncapped(), servers=3, low=0.5)
    with pytest.raises(SpecError, match="low: is not a share"):
        simulate(phases(), traffic(2, 0.1, 100.0), Breaker(budget=1e5), power.Uncapped(), servers=2, low=1.5)

    class Off:
        def cap(self, view: power.View) -> power.Decision:
            return power.Decision(0.0, 1.0)

    with pytest.raises(PolicyError, match=r"Off\.cap"):
        run(Off(), budget=40e3)
