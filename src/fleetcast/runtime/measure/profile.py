"""A device profile from what the probes said: a catalogue device, its kernels' coefficients, and how sure each is.

The device is the whole processor as one: peaks and bandwidth are what all its cores reach together, so kernels reach
nearly all of them (``compute``, ``memory`` near 1). Power is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from fleetcast.base.spec import dump_toml
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.operators import Caches
from fleetcast.runtime.measure.probes import FORM, PROBES, Z80, Core, place
from fleetcast.scenario.fleet.catalog import devices

Interval = tuple[float, float]
_FAMILIES = ("gemm", "stream", "decode", "prefill")


@dataclass(frozen=True, slots=True)
class Readings:
    """What the probes said.

    Attributes:
        seconds: of each of ``PROBES`` on one core.
        scaling: how many cores' worth all cores do together: "product" and "copy", 1 to their number.
        half: FLOP/s of one core's bf16 products in torch, 0 = not measured.
        load: how many processes per core wanted to run before the probes did.
    """

    seconds: tuple[float, ...]
    scaling: Mapping[str, float]
    half: float = 0.0
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A measured device.

    Attributes:
        machine: what the operating system says.
        readings: what the probes said.
        core: one core's costs.
        device: figures as the catalogue has them, SI.
        intervals: 80 % intervals of the measured figures, e.g. of "peak.fp32".
        coefficients: what `cost.roofline` reads for the device.
    """

    machine: Machine
    readings: Readings
    core: Core
    device: Mapping[str, Any]
    intervals: Mapping[str, Interval]
    coefficients: Mapping[str, Any]

    @property
    def busy(self) -> bool:
        """Whether other work ran, so that what all cores do together is understated."""
        return self.readings.load > 0.5

    @property
    def doubted(self) -> list[str]:
        """Names of the probes that fit the others so badly that they were probably disturbed."""
        return [probe.name for probe, doubt in zip(PROBES, self.core.device.doubt, strict=True) if doubt > 0.5]

    def table(self) -> dict[str, Any]:
        """Returns the profile as a file has it: what scenarios read, and what it rests on."""
        sure = self.core.intervals
        probes = zip(PROBES, self.readings.seconds, self.core.device.doubt, strict=True)
        table: dict[str, Any] = rounded({
            "device": dict(self.device),
            "coefficients": dict(self.coefficients),
            "measured": {
                "scaling": dict(self.readings.scaling), "noise": self.core.device.noise,
                "load": self.readings.load,
                "intervals": {name: list(ends) for name, ends in self.intervals.items()},
                "costs": {n: {"seconds": c, "low": sure[n][0], "high": sure[n][1]} for n, c in self.core.costs.items()},
                "probes": [{"name": p.name, "seconds": s, "disturbed": float(d)} for p, s, d in probes],
            },
        })  # fmt: skip
        return table

    def toml(self) -> str:
        """Returns the text of the profile's file."""
        head = '# Written by fleetcast measure. A scenario names this file: devices = "1x ./profile.toml"'
        return f"{head}\n{dump_toml(self.table())}"


def profile(machine: Machine, readings: Readings) -> Profile:
    """Returns the profile that follows from the readings."""
    core = place(readings.seconds, Caches(machine.own, machine.last))
    cost, sure = core.costs, core.intervals
    product, copy = readings.scaling["product"], readings.scaling["copy"]

    def over(name: str, factor: float) -> Interval:
        low, high = sure[name]
        return factor / high, factor / low

    peak = {"fp32": product / cost["flop32"], "fp64": product / cost["flop64"]}
    intervals = {
        "peak.fp32": over("flop32", product), "peak.fp64": over("flop64", product), "bandwidth": over("far", copy),
    }  # fmt: skip
    half = product * readings.half
    if half > peak["fp32"]:  # slower ones are emulated: products then run in fp32
        wide = exp(Z80 * core.device.noise)
        peak["bf16"], intervals["peak.bf16"] = half, (half / wide, half * wide)
    bandwidth = copy / cost["far"]
    device = device_of(machine, bandwidth, peak) | {
        "measured": "peaks, bandwidth and the kernels of gemm, stream, decode and prefill, by fleetcast measure",
        "source": "fleetcast measure: ten probes in numpy; memory and caches from the operating system",
    }
    attended = peak.get("bf16", peak["fp32"])  # what attention's share of the peak is counted against
    coefficients = _coefficients(cost, attended, bandwidth, product, core.device.noise)
    return Profile(machine, readings, core, device, intervals, coefficients)


def device_of(machine: Machine, bandwidth: float, peak: Mapping[str, float]) -> dict[str, Any]:
    """Returns a measured processor as the catalogue has devices, but for ``measured`` and ``source``.

    Args:
        machine: what the operating system says.
        bandwidth: of all cores together, B/s.
        peak: FLOP/s of all cores together by format.
    """
    watts, source = assumed_power(machine.cores)
    return {
        "id": machine.id, "name": machine.name, "vendor": machine.vendor, "kind": "cpu", "architecture": "cpu",
        "memory": machine.memory, "bandwidth": bandwidth, "peak": dict(peak), "l2": machine.last,
        "units": machine.cores, "clock": machine.clock,
        "power": {"idle": watts[0], "max": watts[1], "source": source},
        "node": 1, "link": "on-package", "network": "ethernet-10g", "host_link": "on-package",
    }  # fmt: skip


def _coefficients(
    cost: Mapping[str, float], peak: float, bandwidth: float, cores: float, noise: float
) -> dict[str, Any]:
    """Returns kernel coefficients as shares of the measured roofs; units that one core pays are split over all."""
    call = cost["call"] + cost["product"]
    read = 1.0 / bandwidth + cost["vector"] / cores  # of a byte of weights: from memory, then into the product
    # A weight of a softmax is read and written by each of three calls, compared, exponentiated and added up.
    weight = (cost["exp"] + 2 * cost["sum"] + 16.0 * cost["along"]) / cores
    rows = {
        "gemm": {
            "launch": call, "depth": 0.0, "compute": 1.0, "memory": 1.0 / (bandwidth * read), "sharp": 1,
        },
        "stream": {"launch": cost["call"], "memory": 1.0},
        "decode": {
            "launch": 5.0 * cost["call"] + 2.0 * call, "head": cost["product"], "base": 0.0,
            "memory": 1.0 / (bandwidth * read), "compute": 0.5 / cost["vector"] * cores / peak,
        },
        "prefill": {
            "launch": 5.0 * cost["call"] + 2.0 * call, "token": 1.0, "window": 0.0,
            "compute": _attended(128, peak, weight), "narrow": _attended(64, peak, weight),
        },
    }  # fmt: skip
    spread = (noise**2 + FORM**2) ** 0.5
    return {
        "source": "fleetcast measure",
        "spread": dict.fromkeys(_FAMILIES, spread),
        "tables": {name: {"any" if name == "stream" else "bf16": rows[name]} for name in _FAMILIES},
    }


def rounded(value: Any) -> Any:
    """Returns ``value`` with its floats at five significant digits: more would claim more than was measured."""
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _attended(width: int, peak: float, weight: float) -> float:
    """Returns the share of the peak that attention over heads of ``width`` reaches, its softmax included."""
    multiply = 4.0 * width / peak
    return multiply / (multiply + weight)


def assumed_power(cores: int) -> tuple[tuple[float, float], str]:
    """Returns (idle, max) watts: the catalogue's processors, scaled by cores."""
    known = [row for row in devices().values() if row.kind == "cpu" and row.units >= 16]
    idle, top = (sum(getattr(row.power, end) / row.units for row in known) / len(known) for end in ("idle", "max"))
    source = f"not measured: watts per core of {', '.join(row.id for row in known)}; write what you know"
    return (idle * cores, top * cores), source
