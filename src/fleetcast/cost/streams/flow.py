"""Rates, choices and power of a pipeline in the long run, node by node from the sensors to the storage.

Of a node with samples of ``b`` bytes that come at rate ``r`` and leave at rate ``q``:

- bytes        b = (1 - compression) * (what comes in) + size
- operations   o = c1 b + c2 b^2 + ..., power  op_energy * o * r
- its link     power  8 b * q * energy, seconds  b / bandwidth + delay
- its choice   rejects 1 - 1/ratio of what comes in, by score; of dull samples that is right, of interesting ones wrong

Rejected dull samples are true negatives, rejected or lost interesting ones false negatives, what is stored is true or
false positive; the four add up to what the sensors send. Productivity is F1 x stored rate / power, in samples a joule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetcast.base.errors import SpecError
from fleetcast.cost.streams.scores import Scores, scores
from fleetcast.scenario.workload.pipeline import Node, System

CLOSE = 1e-9
"""Rates that differ by less are the same."""


@dataclass(frozen=True)
class At:
    """What a node does in the long run.

    Attributes:
        dull: samples a second that come in and are not worth keeping.
        interesting: the others that come in.
        lost: share of what comes in that it has no room for.
        rejected: (dull, interesting) a second.
        passed: (dull, interesting) a second.
        size: bytes of a sample.
        ops: operations of a sample.
        op_power: W.
        link_power: W of the link to the next node.
        service: s that a lane is busy with a sample.
        sending: s that the link is busy with one.
        wait: s that a sample is under way in it and on its link, without queues.
        busy: share of its lanes that is busy; above 1 = it cannot follow.
    """

    dull: float
    interesting: float
    lost: float
    rejected: tuple[float, float]
    passed: tuple[float, float]
    size: float
    ops: float
    op_power: float
    link_power: float
    service: float
    sending: float
    wait: float
    busy: float

    @property
    def rate(self) -> float:
        """Samples a second that come in."""
        return self.dull + self.interesting

    @property
    def out(self) -> float:
        """Samples a second that go on."""
        return sum(self.passed)


@dataclass(frozen=True)
class Flow:
    """What a pipeline does in the long run.

    Attributes:
        nodes: as the system has them.
        tn: dull samples a second that are rejected, or lost.
        fn: interesting samples a second that are rejected or lost.
        fp: dull samples a second that are stored.
        tp: interesting samples a second that are stored.
        latency: s from a sensor to the storage, without queues, on the slowest way.
        way: the nodes of that way, from the sensor on.
    """

    nodes: tuple[At, ...]
    tn: float
    fn: float
    fp: float
    tp: float
    latency: float
    way: tuple[int, ...] = field(default=())

    @property
    def op_power(self) -> float:
        """W of all operations."""
        return math.fsum(at.op_power for at in self.nodes)

    @property
    def link_power(self) -> float:
        """W of all links."""
        return math.fsum(at.link_power for at in self.nodes)

    @property
    def stored(self) -> float:
        """Samples a second that are stored."""
        return self.tp + self.fp

    @property
    def precision(self) -> float:
        """Share of what is stored that is interesting; 0 where nothing is stored."""
        return self.tp / self.stored if self.stored > 0 else 0.0

    @property
    def recall(self) -> float:
        """Share of what is interesting that is stored; 0 where nothing is."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn > 0 else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return f1(self.tp, self.fp, self.fn)

    @property
    def accuracy(self) -> float:
        """Share of all samples that end where they should."""
        return (self.tp + self.tn) / (self.tp + self.tn + self.fp + self.fn)


def f1(tp: float, fp: float, fn: float) -> float:
    """Returns 2 tp / (2 tp + fp + fn); 0 where nothing is interesting and nothing stored."""
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn > 0 else 0.0


def productivity(found: Flow, power: float) -> float:
    """Returns F1 x stored rate / power, samples a joule; 0 where no power is drawn.

    Args:
        found: the flow.
        power: W.
    """
    return found.f1 * found.stored / power if power > 0 else 0.0


def operations(complexity: tuple[float, ...], size: float) -> float:
    """Returns c1 b + c2 b^2 + ... of a sample of ``size`` bytes."""
    total = 0.0
    for factor in reversed(complexity):
        total = (total + factor) * size
    return total


def goal_ratio(system: System) -> list[float]:
    """Returns, of each node, the product of the ratios from it to the storage."""
    found = [1.0] * len(system.nodes)
    names = {node.name: i for i, node in enumerate(system.nodes)}
    for i in reversed(range(len(system.nodes))):
        node = system.nodes[i]
        found[i] = node.ratio * (found[names[node.to]] if node.to else 1.0)
    return found


def choosers(system: System) -> tuple[Scores, ...]:
    """Returns the scores by which each node chooses.

    Raises:
        SpecError: a classifier's file that cannot be read.
    """
    return tuple(
        scores(node.classifier, system.folder, f"workload.nodes: {node.name}.classifier") for node in system.nodes
    )


def flow(
    system: System, *, interesting: float | None = None, lost: Mapping[int, float] | None = None,
    chosen: tuple[Scores, ...] | None = None,
) -> Flow:  # fmt: skip
    """Returns what a pipeline does in the long run.

    Args:
        system: the pipeline.
        interesting: share of a sensor's samples that are worth keeping; None = 1 / product of ratios on its way.
        lost: share of what comes to a node that is lost there, by the node's place, for want of room.
        chosen: what `choosers` returns, where the same classifiers are asked often.

    Raises:
        SpecError: pieces that are to be assembled come at different rates.
    """
    chosen = chosen or choosers(system)
    ratios = goal_ratio(system)
    found: list[At] = []
    for i, node in enumerate(system.nodes):
        senders = [found[k] for k in system.inputs[i]]
        if node.rate is not None:
            share = 1.0 / ratios[i] if interesting is None else interesting
            came, size, ops_in = (node.rate * (1 - share), node.rate * share), node.size, None
        else:
            came, size, ops_in = _merged(system, i, senders)
        found.append(_at(node, chosen[i], came, size, ops_in, (lost or {}).get(i, 0.0)))
    ends = [_end(system, found, i) for i in range(len(found))]
    longest, way = _longest(system, found)
    tn, fn = (math.fsum(end[k] for end in ends) for k in range(2))
    fp, tp = found[-1].passed
    return Flow(tuple(found), tn, fn, fp, tp, longest, way)


def _merged(system: System, i: int, senders: list[At]) -> tuple[tuple[float, float], float, float | None]:
    """Returns what comes to a node: rates, bytes of a sample, and the operations of one where samples differ."""
    node = system.nodes[i]

    def size_of(incoming: float) -> float:
        return (1.0 - node.compression) * incoming + node.size

    if node.merge == "interleave":
        rates = [at.out for at in senders]
        total = math.fsum(rates)
        came = (math.fsum(at.passed[0] for at in senders), math.fsum(at.passed[1] for at in senders))
        if total <= 0:
            return came, size_of(0.0), None
        mean = math.fsum(r * at.size for r, at in zip(rates, senders, strict=True)) / total
        ops = math.fsum(
            r * operations(node.complexity, size_of(at.size)) for r, at in zip(rates, senders, strict=True)
        ) / total  # fmt: skip
        return came, size_of(mean), ops
    first = senders[0].passed
    for k, at in zip(system.inputs[i], senders, strict=True):
        if any(not math.isclose(a, b, rel_tol=1e-6, abs_tol=CLOSE) for a, b in zip(at.passed, first, strict=True)):
            raise SpecError(
                f"workload.nodes: {node.name}.merge", "assembles pieces that come at different rates",
                value=f"{system.nodes[k].name} {at.out:.6g} Hz, {system.nodes[system.inputs[i][0]].name} "
                f"{sum(first):.6g} Hz", limit="equal rates, and no choice before pieces are assembled",
                hint='Write merge = "interleave" where each is a sample of its own',
            )  # fmt: skip
    if len(senders) > 1 and _chosen_before(system, i):
        raise SpecError(
            f"workload.nodes: {node.name}.merge", "assembles pieces of which some were rejected before",
            value="assemble", limit="ratio 1 on every way to it",
            hint='Choose at this node or after it, or write merge = "interleave"',
        )  # fmt: skip
    return first, size_of(math.fsum(at.size for at in senders)), None


def _chosen_before(system: System, i: int) -> bool:
    """Whether a node on a way to node ``i`` rejects samples."""
    waiting = list(system.inputs[i])
    while waiting:
        k = waiting.pop()
        if system.nodes[k].ratio > 1:
            return True
        waiting += system.inputs[k]
    return False


def _at(node: Node, chosen: Scores, came: tuple[float, float], size: float, ops: float | None, lost: float) -> At:
    if node.rate is not None:
        size = (1.0 - node.compression) * size
    ops = operations(node.complexity, size) if ops is None else ops
    dull, interesting = ((1.0 - lost) * part for part in came)
    taken = dull + interesting
    tn = fn = 0.0
    if node.ratio > 1 and taken > 0:
        tn, fn = chosen.rejected(1.0 - 1.0 / node.ratio, dull, interesting)
    passed = (dull * (1.0 - tn), interesting * (1.0 - fn))
    service = node.time + (ops / node.speed if node.speed is not None else 0.0)
    sending = size / node.link.bandwidth if node.link.bandwidth is not None and node.to else 0.0
    return At(
        came[0], came[1], lost, (dull * tn, interesting * fn), passed, size, ops,
        op_power=node.op_energy * ops * taken,
        link_power=8.0 * node.link.energy * size * sum(passed) if node.to else 0.0,
        service=service, sending=sending, wait=service + node.latency + sending + (node.link.delay if node.to else 0.0),
        busy=sum(came) * service / node.lanes,
    )  # fmt: skip


def _end(system: System, found: list[At], i: int) -> tuple[float, float]:
    """Returns samples a second, dull and interesting, that end at a node: rejected or lost there.

    A piece that is lost before pieces are assembled costs the whole sample, which counts once: where they meet.
    """
    at = found[i]
    return at.rejected[0] + at.lost * at.dull, at.rejected[1] + at.lost * at.interesting


def _longest(system: System, found: list[At]) -> tuple[float, tuple[int, ...]]:
    """Returns the time of the slowest way to the storage, and its nodes."""
    reached: list[float] = []
    before: list[int | None] = []
    for i, at in enumerate(found):
        last = max(system.inputs[i], key=lambda k: reached[k], default=None)
        before.append(last)
        reached.append((reached[last] if last is not None else 0.0) + at.wait)
    way = [len(found) - 1]
    while (last := before[way[-1]]) is not None:
        way.append(last)
    return reached[-1], tuple(reversed(way))
