"""Where data lies and what is to be computed with it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.base.spec import Spec
from fleetcast.base.units import Bytes, Quantity

Flop = Annotated[float, Quantity("FLOP")]


class Dataset(Spec):
    """Data that lies at one place of a fleet.

    Attributes:
        at: the group of the fleet where it lies.
        size: B.
        read: share of it that the work reads.
        passes: how often it does.
    """

    at: str
    size: Bytes
    read: Annotated[float, Meta(ge=0, le=1)] = 1.0
    passes: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class Work(Spec):
    """What is computed with the data, by all devices of one group.

    Attributes:
        flop: in all.
        dtype: number format, which a device's peak depends on.
        efficiency: share of the peak that is reached.
        result: B that go back to where the data lies.
        environment: B of programs and weights that must be where it is computed.
        home: the group where they are already; left out = everywhere.
    """

    flop: Flop
    dtype: str = "fp32"
    efficiency: Annotated[float, Meta(gt=0, le=1)] = 0.3
    result: Bytes = 0.0
    environment: Bytes = 0.0
    home: str = ""


class Network(Spec):
    """How connections use the links between groups.

    Attributes:
        window: B of one connection that may be on their way.
        streams: connections of a copy.
        block: B of a read over a mount.
    """

    window: Annotated[float, Quantity("B", low=1.0)] = float(4 << 20)
    streams: Annotated[int, Meta(ge=1, le=64)] = 4
    block: Annotated[float, Quantity("B", low=1.0)] = float(1 << 20)
