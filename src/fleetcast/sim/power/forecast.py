"""A server's phases out of the serving world: prompts and steps of known size are simulated and condensed to tables.

Each figure is the time and energy of a few requests that the serving world runs by itself: a prompt of so many tokens
alone; a batch of so many requests with short and with slightly longer outputs, whose difference is steps at the full
batch. The same at every clock of the device's curve gives how both phases follow the clock.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.cost.clocks import clock_curve
from fleetcast.scenario.plan import LOWEST_CLOCK, Plan, Pool, clock_of
from fleetcast.scenario.plan import replace as with_choice
from fleetcast.scenario.workload.requests import requests
from fleetcast.sim.power.phases import Clocks, Phases
from fleetcast.sim.serving.setting import Setting, sizes
from fleetcast.sim.serving.world import simulate

STEPS = 32
"""Steps that a batch's longer outputs have more."""


def forecast(state: Setting, pool: Pool, host: float) -> Phases:
    """Returns the phases of one replica; its samples are the scenario's requests.

    Args:
        state: the scenario, resolved.
        pool: complete, at the top clock.
        host: W of a server besides its devices.

    Raises:
        SpecError: the pool sets a clock, which is what a power policy decides.
    """
    if clock_of(pool) < 1.0:
        raise SpecError(
            "plan.clock", "stands beside a power policy", value=pool.clock, limit="the policy sets the clocks",
            hint="Leave plan.clock out",
        )  # fmt: skip
    probe = _Probe(state, pool)
    hour, device = state.requests, probe.server.group.device
    top = float(max(hour.prompt.max(), 128))
    size = np.unique(np.round(np.geomspace(64, top, 1 + int(np.ceil(np.log2(top / 64))))))
    time, watts = np.array([probe.prompt(int(s)) for s in size]).T
    batch = np.unique(np.round(np.geomspace(1, probe.slots, 1 + int(np.ceil(np.log2(probe.slots))))))
    step_time, step_watts = np.array([probe.step(int(b)) for b in batch]).T
    prompts, steps = hour.prompt.astype(np.float64), np.arange(probe.slots + 1, dtype=np.float64)
    return Phases(
        idle=probe.devices * device.power.idle, host=host * probe.devices / probe.server.group.node, slots=probe.slots,
        prompt_time=np.interp(prompts, size, time), prompt_power=np.interp(prompts, size, watts),
        tokens=hour.output.astype(np.float64), step_time=np.interp(steps, batch, step_time),
        step_power=np.interp(steps, batch, step_watts), clocks=_clocks(state, pool, probe),
    )  # fmt: skip


def _clocks(state: Setting, pool: Pool, probe: _Probe) -> Clocks:
    curve, _, _ = clock_curve(probe.server.group.device)
    shares = [float(c) for c in curve.clock if LOWEST_CLOCK <= c < 1.0]
    size, batch = probe.mean, max(1, min(8, probe.slots))
    rows = []
    for share in (*shares, 1.0):
        at = _Probe(state, with_choice(pool, clock=share))
        rows.append((*at.prompt(size), *at.step(batch)))
    time, watts, step_time, step_watts = np.array(rows).T
    return Clocks(
        np.array([*shares, 1.0]), watts / watts[-1], time[-1] / time, step_watts / step_watts[-1],
        step_time[-1] / step_time,
    )  # fmt: skip


class _Probe:
    """One replica asked for the time and power of work of a known size."""

    def __init__(self, state: Setting, pool: Pool) -> None:
        self.state = state
        self.plan = Plan(pools=(with_choice(pool, replicas=1),), route={"kind": "round_robin"})
        self.server = state.server(self.plan.pools[0])
        self.devices = self.server.cost.devices
        most, self.budget = sizes(self.server.batch)
        hour = state.requests
        self.mean = max(1, round(float(hour.prompt.mean())))
        whole = float((hour.prompt + hour.output).mean()) + STEPS
        self.slots = int(max(1, min(most, self.server.room.tokens // (whole + self._ramp(most)))))

    def _ramp(self, batch: int) -> int:
        """Steps after which a whole batch runs."""
        return 8 + int(np.ceil(batch * max(self.mean / self.budget, 1.0)))

    def _run(self, prompt: int, output: int, batch: int = 1) -> tuple[float, float]:
        """Returns s and J of the devices until ``batch`` requests that arrive together are done."""
        work = requests(np.zeros(batch), np.full(batch, prompt), np.full(batch, output))
        found = simulate(replace(self.state, requests=work), self.plan).metrics
        return float(found["makespan"]), float(found["energy"]) / self.state.tree.pue

    def prompt(self, tokens: int) -> tuple[float, float]:
        """Returns s and W of the devices of a prompt."""
        seconds, joules = self._run(tokens, 1)
        return seconds, joules / seconds

    def step(self, batch: int) -> tuple[float, float]:
        """Returns s and W of the devices of a step of ``batch`` requests with prompts of the mean length."""
        output = self._ramp(batch)
        short, long = self._run(self.mean, output, batch), self._run(self.mean, output + STEPS, batch)
        seconds = (long[0] - short[0]) / STEPS
        return seconds, (long[1] - short[1]) / STEPS / seconds
