"""What a server draws and how long it takes in each phase, at each clock: condensed tables the row reads.

A server is idle, works on a prompt, or makes a step (one token for each running request). Devices' power is given at
the top clock; `Clocks` says which share of it is left, and which share of the speed, at a lower one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost import energy
from fleetcast.scenario.fleet.devices import ClockSweep
from fleetcast.scenario.workload.requests import Requests

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clocks:
    """Power and speed of both phases by clock, all as shares of the top clock's; float64[n], growing, the last 1.

    Attributes:
        clock: of the top clock.
        prompt_power: devices' power in a prompt.
        prompt_rate: speed of a prompt.
        step_power: devices' power in a step.
        step_rate: speed of a step.
    """

    clock: Floats
    prompt_power: Floats
    prompt_rate: Floats
    step_power: Floats
    step_rate: Floats

    def at(self, share: float) -> tuple[float, float, float, float]:
        """Returns (prompt slower by, prompt power, step slower by, step power) at ``share`` of the top clock.

        Below the lowest point each phase goes on as `cost.energy.extended` says: the voltage is at its floor.
        """
        found: list[float] = []
        for power, rate in ((self.prompt_power, self.prompt_rate), (self.step_power, self.step_rate)):
            curve = energy.extended(energy.ClockCurve(self.clock, power, rate), share)
            watts, speed = (float(np.interp(share, curve.clock, column)) for column in (curve.power, curve.rate))
            found += [1.0 / speed, max(0.0, watts)]
        return found[0], found[1], found[2], found[3]


@dataclass(frozen=True, eq=False)
class Phases:
    """A server of a row.

    Attributes:
        idle: W of its devices when nothing runs.
        host: W of the rest of the server, always.
        slots: requests it runs at once.
        prompt_time: s of each sample's prompt, float64[samples].
        prompt_power: W of the devices meanwhile, float64[samples].
        tokens: output tokens of each sample, float64[samples].
        step_time: s of a step by running requests, float64[slots + 1].
        step_power: W of the devices meanwhile, float64[slots + 1].
        clocks: how all this follows the clock.
        notes: where it is from.
    """

    idle: float
    host: float
    slots: int
    prompt_time: Floats
    prompt_power: Floats
    tokens: Floats
    step_time: Floats
    step_power: Floats
    clocks: Clocks
    notes: tuple[str, ...] = field(default=())

    def highest(self, share: float = 1.0) -> float:
        """Returns the most that a server can draw (W) at ``share`` of the top clock."""
        _, prompt, _, step = self.clocks.at(share)
        devices = max(float(self.prompt_power.max()) * prompt, float(self.step_power[1:].max()) * step)
        return self.host + max(self.idle, devices)

    @property
    def lowest(self) -> float:
        """What an idle server draws, W."""
        return self.host + self.idle


def bound_clocks(curve: ClockSweep, *, step_memory: float, step_compute: float) -> Clocks:
    """Returns the stated model of two phases: a prompt follows a curve of compute-bound work, a step does in part.

    Args:
        curve: of compute-bound work.
        step_memory: share of a step's power that does not follow the clock (memory has a clock of its own).
        step_compute: share of a step's time that follows the clock.
    """
    top = curve.points[-1].clock
    clock, power, rate = (np.array([getattr(p, name) for p in curve.points]) for name in ("clock", "power", "rate"))
    return Clocks(
        clock / top, power, rate, step_memory + (1.0 - step_memory) * power,
        1.0 / (1.0 - step_compute + step_compute / rate),
    )  # fmt: skip


def measured(
    rows: Mapping[str, Sequence[float]], hour: Requests, clocks: Clocks, *, limit: float, idle: float, host: float,
    slots: int,
) -> Phases:  # fmt: skip
    """Returns a server from measured rows, linear between them; longer prompts go on along the last two.

    Args:
        rows: ``prompt_tokens``, ``prompt_time`` (s), ``prompt_power`` (share of ``limit``); ``step_batch``,
            ``step_time`` (s), ``step_power``.
        hour: its requests are the samples.
        clocks: how both phases follow the clock.
        limit: W of all devices together, what the shares refer to.
        idle: W of all devices together when nothing runs.
        host: W of the rest of the server.
        slots: requests at once; steps of more than were measured take what the largest did.
    """
    size = hour.prompt.astype(np.float64)
    tokens, time = np.asarray(rows["prompt_tokens"], float), np.asarray(rows["prompt_time"], float)
    slope = (time[-1] - time[-2]) / (tokens[-1] - tokens[-2])
    batch = np.arange(slots + 1, dtype=np.float64)
    return Phases(
        idle=idle, host=host, slots=slots,
        prompt_time=np.interp(size, tokens, time) + slope * np.maximum(0.0, size - tokens[-1]),
        prompt_power=limit * np.interp(size, tokens, rows["prompt_power"]),
        tokens=hour.output.astype(np.float64),
        step_time=np.interp(batch, rows["step_batch"], rows["step_time"]),
        step_power=limit * np.interp(batch, rows["step_batch"], rows["step_power"]), clocks=clocks,
    )  # fmt: skip


def columns(phases: Phases) -> dict[str, Any]:
    """Returns what the hot loop reads."""
    return {
        name: getattr(phases, name)
        for name in ("idle", "host", "slots", "prompt_time", "prompt_power", "tokens", "step_time", "step_power")
    }
