"""A stream sample by sample: labels, choices, queues, losses and latencies, in the order of the tree.

What is drawn: which samples are interesting, when they come (``poisson``), and which a node lets pass, each with the
shares that `cost.streams.flow` solved. So the long-run rates are its limit, which tests hold it to; what it adds is how
long samples wait and how many find no room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.record import Record
from fleetcast.base.rng import rng
from fleetcast.cost.streams.flow import At, Flow
from fleetcast.scenario.workload.pipeline import System
from fleetcast.sim.stream.queues import Stage, begins, line, station

SHOWN = 400
"""Samples of each sensor that a record shows."""

Floats = NDArray[np.float64]


@dataclass
class _Batch:
    """Samples on their way: event number, when they came, when they were made, whether they are interesting."""

    event: NDArray[np.int64]
    time: Floats
    born: Floats
    label: NDArray[np.bool_]

    def only(self, kept: NDArray[np.bool_]) -> _Batch:
        return _Batch(self.event[kept], self.time[kept], self.born[kept], self.label[kept])


@dataclass(frozen=True)
class Events:
    """What happened to the samples.

    Attributes:
        sent: samples that sensors made (pieces of one sample count once).
        lost: of each node, share of what came in that it had no room for, in the second half of the run.
        came: of each node, samples that came.
        counts: tn, fn, fp, tp; samples that were lost count as rejected. They add up to ``sent``.
        latency: f8[m], s of each stored sample from its sensor, in the order of storing.
        rate: stored samples a second; NaN where fewer than two were stored.
        made: of each sensor, samples a second that it made, by its node's place: fewer than its rate where it waits.
        record: the event log, or None.
    """

    sent: int
    lost: tuple[float, ...]
    came: tuple[int, ...]
    counts: tuple[int, int, int, int]
    latency: Floats
    rate: float
    made: dict[int, float]
    record: Record | None


def waits(system: System) -> bool:
    """Whether senders wait somewhere."""
    return any(node.full == "wait" and node.buffer is not None for node in system.nodes)


def timed(system: System, found: Flow) -> bool:
    """Whether anything takes time that keeps a node busy, or loses samples."""
    return any(
        at.service > 0 or at.sending > 0 or node.dead_time > 0 or node.buffer is not None
        for at, node in zip(found.nodes, system.nodes, strict=True)
    )


def groups(system: System) -> list[int]:
    """Returns, of each node, the node whose samples are whole there: senders of pieces of one sample share it."""
    found = list(range(len(system.nodes)))
    for i in reversed(range(len(system.nodes))):
        for k in system.inputs[i]:
            if len(system.inputs[i]) == 1 or system.nodes[i].merge == "assemble":
                found[k] = found[i]
    return found


def run(
    system: System, found: Flow, *, samples: int, seed: int, poisson: bool = False, interesting: list[float],
    record: bool = False,
) -> Events:  # fmt: skip
    """Returns what happens to ``samples`` of each sensor.

    Args:
        system: the pipeline.
        found: its long-run flow, without losses.
        samples: from each sensor.
        seed: of every draw.
        poisson: samples come at random instead of by the clock.
        interesting: of each node, the share of a sensor's samples that is interesting; others' are not read.
        record: keep the first samples' spans.
    """
    group = groups(system)
    spans = _Spans(system) if record else None
    if waits(system):
        return _waiting(system, found, samples, seed, poisson, interesting, spans)
    after: list[_Batch] = []
    lost: list[float] = []
    came: list[int] = []
    counts = [0, 0, 0, 0]
    sent = 0
    whole: set[int] = set()
    for i, (node, at) in enumerate(zip(system.nodes, found.nodes, strict=True)):
        if node.rate is not None:
            batch = _made(node.rate, group[i], samples, seed, poisson, interesting[i])
            if group[i] not in whole:
                whole.add(group[i])
                sent += samples
        else:
            batch, broken = _joined([after[k] for k in system.inputs[i]], node.merge)
            for label in broken:
                counts[1 if label else 0] += 1
        begin, kept = station(
            batch.time, at.service, lanes=node.lanes, buffer=node.buffer, dead_time=node.dead_time
        )  # fmt: skip
        half = len(kept) // 2
        lost.append(float(1.0 - kept[half:].mean()) if len(kept) else 0.0)
        came.append(len(kept))
        if not (node.rate is not None and _piece(system, i)):
            # a piece that is lost is counted where its sample would have been whole
            gone = batch.label[~kept]
            counts[1] += int(gone.sum())
            counts[0] += int((~gone).sum())
        batch, begin = batch.only(kept), begin[kept]
        passed = _passing(at, batch.label, seed, node.name)
        if spans is not None:
            spans.add(i, begin, at.service, passed, batch.event)
        gone = batch.label[~passed]
        counts[1] += int(gone.sum())
        counts[0] += int((~gone).sum())
        batch, begin = batch.only(passed), begin[passed]
        leave = begin + at.service + node.latency
        if at.sending > 0 or node.link.delay > 0:
            leave = begins(leave, at.sending) + at.sending + node.link.delay
        batch.time = leave
        after.append(batch)
    stored = after[-1]
    counts[3] += int(stored.label.sum())
    counts[2] += int((~stored.label).sum())
    made = {i: float(node.rate) for i, node in enumerate(system.nodes) if node.rate is not None}
    return Events(
        sent, tuple(lost), tuple(came), (counts[0], counts[1], counts[2], counts[3]), stored.time - stored.born,
        _rate(stored.time), made, spans.record() if spans is not None else None,
    )  # fmt: skip


def _rate(times: Floats) -> float:
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else float("nan")


def _piece(system: System, i: int) -> bool:
    """Whether what a sensor sends is a piece of a sample, which other senders complete."""
    names = {node.name: k for k, node in enumerate(system.nodes)}
    while system.nodes[i].to:
        i = names[system.nodes[i].to]
        if len(system.inputs[i]) > 1:
            return system.nodes[i].merge == "assemble"
    return False


def _made(rate: float, group: int, samples: int, seed: int, poisson: bool, share: float) -> _Batch:
    number = np.arange(samples, dtype=np.int64)
    if poisson:
        time = np.cumsum(rng(seed, "stream", "arrivals", str(group)).exponential(1.0 / rate, samples))
    else:
        time = number / rate
    label = rng(seed, "stream", "labels", str(group)).random(samples) < share
    return _Batch(number, time, time.copy(), label)


def _joined(senders: list[_Batch], merge: str) -> tuple[_Batch, list[bool]]:
    """Returns what comes to a node, and the labels of samples of which a piece is missing."""
    if len(senders) == 1:
        return senders[0], []
    if merge == "interleave":
        time = np.concatenate([b.time for b in senders])
        order = np.argsort(time, kind="stable")
        parts = (np.concatenate([getattr(b, name) for b in senders])[order] for name in ("event", "born", "label"))
        event, born, label = parts
        return _Batch(event, time[order], born, label), []
    every = senders[0].event
    for b in senders[1:]:
        every = np.intersect1d(every, b.event, assume_unique=True)
    known: dict[int, bool] = {}
    for b in senders:
        if len(b.event) > len(every):
            extra = ~np.isin(b.event, every, assume_unique=True)
            known.update(zip(b.event[extra].tolist(), b.label[extra].tolist(), strict=True))
    rows = [np.searchsorted(b.event, every) for b in senders]
    time = np.max([b.time[row] for b, row in zip(senders, rows, strict=True)], axis=0)
    born = np.min([b.born[row] for b, row in zip(senders, rows, strict=True)], axis=0)
    # queues keep the order of events, so the latest piece of each is in order as well
    return _Batch(every, np.maximum.accumulate(time), born, senders[0].label[rows[0]]), list(known.values())


def _passing(at: At, label: NDArray[np.bool_], seed: int, name: str) -> NDArray[np.bool_]:
    """Draws which samples pass, with the shares of the node's long run."""
    shares = [
        at.rejected[k] / taken if (taken := at.rejected[k] + at.passed[k]) > 0 else 0.0 for k in (0, 1)
    ]  # fmt: skip
    if max(shares) == 0.0:
        return np.ones(len(label), dtype=bool)
    drawn = rng(seed, "stream", "choices", name).random(len(label))
    found: NDArray[np.bool_] = drawn >= np.where(label, shares[1], shares[0])
    return found


def _waiting(
    system: System, found: Flow, samples: int, seed: int, poisson: bool, interesting: list[float],
    spans: _Spans | None,
) -> Events:  # fmt: skip
    """A line in which senders wait: nothing is lost, the sensor slows down."""
    first = system.nodes[0]
    assert first.rate is not None
    batch = _made(first.rate, groups(system)[0], samples, seed, poisson, interesting[0])
    stages = [
        Stage(
            at.service, node.lanes, node.buffer if node.full == "wait" else None, node.latency, at.sending,
            node.link.delay,
        )
        for node, at in zip(system.nodes, found.nodes, strict=True)
    ]  # fmt: skip
    passes = [_passing(at, batch.label, seed, n.name) for n, at in zip(system.nodes, found.nodes, strict=True)]
    begun, ended = line(batch.time, stages, passes)
    reached = np.ones(samples, dtype=bool)
    came = []
    for i, column in enumerate(passes):
        came.append(int(reached.sum()))
        if spans is not None:
            spans.add(i, begun[i][reached], stages[i].service, column[reached], batch.event[reached])
        reached &= column
    tp = int((reached & batch.label).sum())
    fp = int((reached & ~batch.label).sum())
    total = int(batch.label.sum())
    start = begun[0]
    return Events(
        samples, (0.0,) * len(came), tuple(came), (samples - total - fp, total - tp, fp, tp),
        (ended - start)[reached], _rate(ended[reached]), {0: _rate(start)},
        spans.record() if spans is not None else None,
    )  # fmt: skip


class _Spans:
    """Collects the spans of the first samples."""

    def __init__(self, system: System) -> None:
        self.names = tuple(node.name for node in system.nodes)
        self.rows: list[tuple[Floats, float, int, NDArray[np.bool_], NDArray[np.int64]]] = []

    def add(
        self, i: int, begin: Floats, service: float, passed: NDArray[np.bool_], event: NDArray[np.int64]
    ) -> None:  # fmt: skip
        """Adds the spans of node ``i``: when begun, how long, whether it went on."""
        shown = event < SHOWN
        self.rows.append((begin[shown], service, i, passed[shown], event[shown]))

    def record(self) -> Record:
        """Returns the log, in order of time."""
        time = np.concatenate([row[0] for row in self.rows])
        counts = [len(row[0]) for row in self.rows]
        resource = np.repeat(np.asarray([row[2] for row in self.rows], dtype=np.int32), counts)
        duration = np.repeat(np.asarray([row[1] for row in self.rows]), counts)
        what = np.concatenate([~row[3] for row in self.rows]).astype(np.int32)
        order = np.lexsort((resource, time))
        ones = np.ones(len(time), dtype=np.int64)
        return Record(
            time[order], duration[order], resource[order], what[order], ones, ones.copy(), np.zeros(len(time)),
            self.names, ("passes on", "rejects"),
        )  # fmt: skip
