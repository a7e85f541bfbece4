"""A sensor pipeline: sensors send samples through links and processors, which keep some of them, to one storage.

A sample is one event: a picture, a bunch crossing, a second of sound. Nodes form a tree with its root at the storage.
What a file says of a node may be partial (`StreamNode`): beside a system's sheet it changes the node of that name.
`pipeline.resolve` fills in and checks.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from fleetcast.base.spec import Spec
from fleetcast.base.units import Bytes, BytesPerSecond, FlopsPerSecond, Hertz, Joules, Seconds
from fleetcast.scenario.workload.scores import Classifier

GROWTH, SINCE = 0.187, 2022
"""Growth of transistor density a year (natural logarithm) and its first year: the fit of IEDM 2022's logic nodes that
the paper on HEP data collection takes (APL Mach. Learn. 2(4) 046113)."""
SENSORS = "sensors"
"""Where a filter is made: at every sensor."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class StreamLink(Spec):
    """What joins a node to the next.

    Attributes:
        energy: J for each bit that is sent.
        bandwidth: B/s; left out = as much as is sent, and sending takes no time.
        delay: s that a bit is under way.
    """

    energy: Joules | None = None
    bandwidth: BytesPerSecond | None = None
    delay: Seconds | None = None


class StreamNode(Spec):
    """A sensor, processor or storage; what is left out has its default, or what the system's sheet says.

    Attributes:
        name: unique.
        to: the node that it sends to; left out = the storage at the end.
        rate: samples a second of a sensor; left out = no sensor.
        size: bytes that it adds to a sample: a sensor's whole sample.
        compression: share of what comes in that it leaves out of every sample, 0 to below 1.
        ratio: samples that come in for each that goes on, from 1.
        classifier: by which it chooses them: a table, or the name of one under ``workload.classifiers``; left out with
            a ratio above 1 = at random.
        op_energy: J for each operation.
        complexity: operations of a sample: factors of its bytes, of their square, and so on. Default one a byte.
        speed: operations a second of a lane; left out = they take no time.
        time: s that a sample takes besides its operations.
        lanes: that work side by side; samples are given to them in turn.
        buffer: samples that can wait before it; left out = any number.
        full: what a full buffer does: "drop" the sample, or let the sender "wait".
        dead_time: s after a sample that it takes in which it takes no other.
        latency: s that a sample is under way in it without keeping it busy.
        merge: what several senders give: pieces to "assemble" to one sample, or samples to "interleave".
        link: to the next node.
    """

    name: str
    to: str | None = None
    rate: Hertz | None = None
    size: Bytes | None = None
    compression: Share | None = None
    ratio: Annotated[float, msgspec.Meta(ge=1, le=1e15)] | None = None
    classifier: str | Classifier | None = None
    op_energy: Joules | None = None
    complexity: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] | None = None
    speed: FlopsPerSecond | None = None
    time: Seconds | None = None
    lanes: Count | None = None
    buffer: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    full: Literal["drop", "wait"] | None = None
    dead_time: Seconds | None = None
    latency: Seconds | None = None
    merge: Literal["assemble", "interleave"] | None = None
    link: StreamLink | None = None


class Repair(Spec):
    """What a system's sheet lacks or calls by another name.

    Attributes:
        sheets: our name -> the workbook's, e.g. ``{ Processors = "Triggers" }``.
        columns: our name -> the sheet's, e.g. ``{ "Reduction Ratio" = "Reduction" }``.
        fill: column -> value where the sheet has no such column; ``"Detectors/Compression"`` = in that sheet alone.
    """

    sheets: dict[str, str] = msgspec.field(default_factory=dict)
    columns: dict[str, str] = msgspec.field(default_factory=dict)
    fill: dict[str, float | str] = msgspec.field(default_factory=dict)


class Filter(Spec):
    """A choice of samples that may be made at several nodes; ``plan.filter`` says where.

    Attributes:
        ratio: samples that come in for each that goes on.
        classifier: by which; as of a node.
        complexity: operations that it adds to a sample there.
    """

    ratio: Annotated[float, msgspec.Meta(gt=1, le=1e15)]
    classifier: str | Classifier
    complexity: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] = (1.0,)


class Stream(Spec):
    """What a scenario says under ``[workload]`` with ``kind = "stream"``.

    Attributes:
        kind: "stream".
        nodes: of the pipeline; beside ``system`` they change its nodes.
        system: a workbook (.xlsx) with the sheets Detectors, Processors and Global.
        repair: of that workbook.
        classifiers: name -> classifier, for nodes and the sheet's column Classifier.
        filter: a choice of samples that the plan places.
        interesting: share of a sensor's samples that are worth keeping; left out = one in the product of the ratios on
            its way, so that a perfect classifier keeps all of them and nothing else.
        arrivals: of sensors' samples: "periodic" or "poisson".
        samples: that the event form sends from each sensor.
        year: in which it is built; left out = with the efficiencies that are stated. What is saved since then is
            ``exp(growth * (year - since))``.
        growth: of efficiency a year, natural logarithm.
        since: the year of the efficiencies that are stated.
    """

    kind: Literal["stream"] = "stream"
    nodes: tuple[StreamNode, ...] = ()
    system: str = ""
    repair: Repair = Repair()
    classifiers: dict[str, Classifier] = msgspec.field(default_factory=dict)
    filter: Filter | None = None
    interesting: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    arrivals: Literal["periodic", "poisson"] = "periodic"
    samples: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000
    year: Annotated[float, msgspec.Meta(ge=1950, le=2150)] | None = None
    growth: Annotated[float, msgspec.Meta(ge=0, le=2)] = GROWTH
    since: Annotated[float, msgspec.Meta(ge=1950, le=2150)] = SINCE

    @property
    def saved(self) -> float:
        """By what the stated energies are divided."""
        return math.exp(self.growth * (self.year - self.since)) if self.year is not None else 1.0
