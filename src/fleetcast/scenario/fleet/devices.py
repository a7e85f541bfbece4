"""What is known about a kind of device: peaks, memory, power, price, and the source of each."""

from __future__ import annotations

import bisect
from typing import Any, Literal

import msgspec

from fleetcast.base.errors import Unsupported
from fleetcast.base.spec import Spec
from fleetcast.base.units import (
    Bytes,
    BytesPerSecond,
    DollarsPerHour,
    FlopsPerSecond,
    Hertz,
    Watts,
)

Kind = Literal["gpu", "tpu", "accelerator", "cpu", "soc", "phone"]


class ClockPoint(Spec):
    """One clock of a sweep. ``power`` and ``rate`` are shares of what the top clock gives."""

    clock: Hertz
    power: float
    rate: float


class ClockSweep(Spec):
    """How busy power and the rate of compute-bound work follow the core clock.

    Measured on the device named in ``source``, or modelled; ``kind`` says which. Points ascend in
    clock and end at the top clock with shares of one. Work bound by memory does not follow the core
    clock.
    """

    id: str
    kind: Literal["measured", "modelled"]
    points: tuple[ClockPoint, ...]
    source: str

    def at(self, clock: float) -> ClockPoint:
        """Returns the point at ``clock`` (Hz), linear between points, held at the ends."""
        clocks = [point.clock for point in self.points]
        i = bisect.bisect_left(clocks, clock)
        if i == 0:
            return self.points[0]
        if i == len(clocks):
            return self.points[-1]
        low, high = self.points[i - 1], self.points[i]
        w = (clock - low.clock) / (high.clock - low.clock)
        return ClockPoint(
            clock=clock,
            power=low.power + w * (high.power - low.power),
            rate=low.rate + w * (high.rate - low.rate),
        )


class Power(Spec):
    """Power of one device (W).

    ``idle``: an engine is loaded, no kernel runs. ``max``: the board's limit. ``curve``: id of a
    `ClockSweep`, if there is one.
    """

    idle: Watts
    max: Watts
    source: str
    curve: str = ""


class Fitted(Spec):
    """Kernel coefficients that a measured device brings along; `cost.roofline` reads them.

    Attributes:
        source: what measured them.
        spread: standard deviation of log(time) by kernel family.
        tables: coefficients by family and number format.
        host: constants of an engine's host on this device, by engine, as `cost.engine.Host` names them.
    """

    source: str
    spread: dict[str, float]
    tables: dict[str, dict[str, dict[str, Any]]]
    host: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)


class Device(Spec):
    """One kind of device.

    Attributes:
        memory: what its driver reports (B).
        bandwidth: of that memory, peak (B/s).
        peak: dense FLOP/s (OP/s) by number format, only those that the silicon multiplies.
        l2: last-level cache shared by the whole device (B).
        units: SMs, compute units or cores.
        clock: the clock at which ``peak`` is stated (Hz).
        price: on demand, $/h for one device, or None where nobody rents it; with source and date.
        spot_price: of capacity that the provider may take back, $/h, likewise.
        node: how many of them share ``link``; more are several nodes on ``network``.
        link: id of the link between the devices of a node.
        network: id of the link between nodes.
        host_link: id of the link to host memory.
        measured: which of its figures rest on measured tables.
        fitted: coefficients of a device that `fleetcast measure` profiled; the catalogue's lie in `cost`.
    """

    id: str
    name: str
    vendor: str
    kind: Kind
    architecture: str
    memory: Bytes
    bandwidth: BytesPerSecond
    peak: dict[str, FlopsPerSecond]
    l2: Bytes
    units: int
    clock: Hertz
    power: Power
    node: int
    link: str
    network: str
    host_link: str
    measured: str
    source: str
    price: DollarsPerHour | None = None
    price_source: str = ""
    price_date: str = ""
    spot_price: DollarsPerHour | None = None
    spot_source: str = ""
    spot_date: str = ""
    aliases: tuple[str, ...] = ()
    fitted: Fitted | None = None

    def rate(self, dtype: str) -> float:
        """Returns the dense peak (FLOP/s) for ``dtype``.

        Raises:
            Unsupported: the silicon does not multiply that format.
        """
        found = self.peak.get(dtype)
        if found is None:
            has = ", ".join(self.peak)
            raise Unsupported(f"{self.id} does not multiply {dtype}", f"It has {has}")
        return found
