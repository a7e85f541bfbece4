"""Samples through stations: when each is begun, and which find no room.

A station takes samples in the order in which they come. Its lanes are given them in turn, each lane one at a time;
``buffer`` samples can wait besides. Where nothing is lost, the beginnings are running maxima (Lindley's recursion in
closed form: begin_k = max over j <= k of arrive_j + (k - j) service, lane by lane) and cost one pass over columns;
only where a sample finds no room, samples are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
EPSILON = 1e-9
"""Share of a service by which a sample may still be in its place when the next one takes it: rounding of sums."""


def station(
    arrive: Floats, service: Floats | float, *, lanes: int = 1, buffer: int | None = None, dead_time: float = 0.0
) -> tuple[Floats, Flags]:  # fmt: skip
    """Returns when each sample is begun (s; of those that are lost NaN), and which are taken in.

    Args:
        arrive: f8[n], s, ascending.
        service: s that a lane is busy, of each sample or of all.
        lanes: side by side, given samples in turn.
        buffer: samples that can wait; None = any number.
        dead_time: s after a sample is taken in, in which no other is.
    """
    kept = np.ones(len(arrive), dtype=bool)
    if dead_time > 0:
        kept = alive(arrive, dead_time)
    begin = np.full(len(arrive), np.nan)
    times = arrive[kept]
    each = service if isinstance(service, float | int) else service[kept]
    found = begins(times, each, lanes)
    if buffer is not None and _full(times, found, each, lanes, buffer):
        found, room = _dropping(times, each, lanes, buffer)
        places = np.flatnonzero(kept)
        kept[places[~room]] = False
        found = found[room]
    begin[kept] = found
    return begin, kept


def begins(arrive: Floats, service: Floats | float, lanes: int = 1) -> Floats:
    """Returns when each sample is begun where all are taken in; arguments as `station`."""
    found = np.empty_like(arrive)
    for lane in range(min(lanes, len(arrive))):
        mine = slice(lane, None, lanes)
        times = arrive[mine]
        if isinstance(service, float | int):
            ahead = np.arange(len(times)) * float(service)
        else:
            own = service[mine]
            ahead = np.cumsum(own) - own
        found[mine] = np.maximum.accumulate(times - ahead) + ahead
    return np.maximum(found, arrive)


def alive(arrive: Floats, dead_time: float) -> Flags:
    """Returns which samples come when the node is not dead from the one before that it took in."""
    kept = np.zeros(len(arrive), dtype=bool)
    place = 0
    while place < len(arrive):
        kept[place] = True
        # a sample on the very instant is taken; equal times of a clock differ by rounding
        place = max(place + 1, int(np.searchsorted(arrive, arrive[place] + dead_time * (1 - EPSILON))))
    return kept


def _full(arrive: Floats, begin: Floats, service: Floats | float, lanes: int, buffer: int) -> bool:
    places = lanes + buffer
    if len(arrive) <= places:
        return False
    left = begin + service
    slack = EPSILON * (service if isinstance(service, float | int) else service[:-places])
    return bool((left[:-places] - slack > arrive[places:]).any())


def _dropping(arrive: Floats, service: Floats | float, lanes: int, buffer: int) -> tuple[Floats, Flags]:
    """The same one by one: a sample that finds all places taken is lost."""
    places = lanes + buffer
    left: list[float] = []
    begin, kept = np.full(len(arrive), np.nan), np.zeros(len(arrive), dtype=bool)
    often = np.broadcast_to(np.asarray(service, dtype=np.float64), arrive.shape).tolist()
    begun: list[float] = []
    taken: list[int] = []
    count = 0
    for i, (t, s) in enumerate(zip(arrive.tolist(), often, strict=True)):
        if count >= places and left[count - places] - EPSILON * s > t:
            continue
        start = left[count - lanes] if count >= lanes and left[count - lanes] > t else t
        left.append(start + s)
        begun.append(start)
        taken.append(i)
        count += 1
    begin[taken] = begun
    kept[taken] = True
    return begin, kept


@dataclass(frozen=True)
class Stage:
    """A station of a line in which senders wait.

    Attributes:
        service: s that a lane is busy with a sample.
        lanes: side by side, given samples in turn.
        places: samples that it holds besides those in its lanes; None = any number.
        latency: s until a finished sample is ready to be sent.
        sending: s that the link to the next station is busy with a sample.
        delay: s that it is under way there.
    """

    service: float
    lanes: int = 1
    places: int | None = None
    latency: float = 0.0
    sending: float = 0.0
    delay: float = 0.0


def line(ready: Floats, stages: Sequence[Stage], passes: Sequence[Flags]) -> tuple[list[Floats], Floats]:
    """Returns when each sample is begun at each station, and when it leaves the last (NaN where it got not so far).

    A sample stays on its lane until the next station has a place; so a slow station slows those before it, in the end
    the sensor, and nothing is lost.

    Args:
        ready: f8[n], s, when the sensor would begin each sample; it begins it later where its lane is not free.
        stages: from the sensor to the storage.
        passes: of each station, bool[n], whether it lets a sample go on.
    """
    n, last = len(ready), len(stages) - 1
    begun = [[float("nan")] * n for _ in stages]
    ended = [float("nan")] * n
    free: list[list[float]] = [[] for _ in stages]  # when each sample that came to a station left its lane
    started: list[list[float]] = [[] for _ in stages]  # when it was begun there
    wire = [0.0] * len(stages)
    goes = [column.tolist() for column in passes]
    for i, t in enumerate(ready.tolist()):
        for j, stage in enumerate(stages):
            lane = free[j]
            start = max(t, lane[-stage.lanes]) if len(lane) >= stage.lanes else t
            begun[j][i] = start
            started[j].append(start)
            done = start + stage.service
            if not goes[j][i] or j == last:
                lane.append(done)
                if goes[j][i]:
                    ended[i] = done + stage.latency
                break
            room = done
            places, here = stages[j + 1].places, started[j + 1]
            if places is not None and len(here) >= places:
                # the place of the sample ``places`` before is free once that one is begun
                room = max(done, here[-places]) if places else max(done, _lane_free(free[j + 1], stages[j + 1].lanes))
            lane.append(room)
            out = max(room + stage.latency, wire[j])
            wire[j] = out + stage.sending
            t = wire[j] + stage.delay
    return [np.asarray(column) for column in begun], np.asarray(ended)


def _lane_free(free: list[float], lanes: int) -> float:
    return free[-lanes] if len(free) >= lanes else 0.0
