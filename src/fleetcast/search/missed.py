"""Layouts that fit in memory but miss the SLO, and by how much: the answer to "why not four devices?".

A search rules most of them out without simulating them in full, and each leaves what ruled it out: the times that its
requests take at least. So a row is a simulated value, or a bound, which says "at least".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetcast.scenario.outcome import Outcome
from fleetcast.search.bounds import Floor
from fleetcast.search.candidates import Candidate

Devices = tuple[tuple[str, int], ...]
"""How many devices of which group of the fleet."""
Layout = tuple[tuple[int, ...], Devices]
"""Rows of the space, and devices: drafters apart take more than a row says."""


@dataclass(frozen=True)
class _Near:
    """The variant of a layout that is nearest to the SLO, and the limit that it exceeds most."""

    candidate: Candidate
    metric: str
    value: float
    limit: float
    tried: float

    @property
    def ratio(self) -> float:
        return self.value / self.limit


def missed(
    limits: Mapping[str, float], done: Iterable[tuple[Candidate, Outcome]],
    killed: Iterable[tuple[Candidate, Floor, float]],
) -> tuple[dict[str, Any], ...]:  # fmt: skip
    """Returns the layouts of which every variant misses the SLO, fewest devices first.

    Each is ``{layout, devices, on, batch, metric, value, limit, at_least, tried, every_layout}``: the variant nearest
    to the SLO as far as known, and the limit that it exceeds most. ``tried`` is the share of the trace that it was
    simulated on: 1 makes the value exact, below it is a bound, and the smaller the weaker. ``every_layout``: no layout
    of the same devices meets the SLO. Of the same devices those tried furthest come first, then the nearest.

    Args:
        limits: the SLO by metric, s.
        done: what was simulated.
        killed: what was ruled out, for missing a limit or for being beaten: its sharpest floor, the share tried.
    """
    if not limits:
        return ()
    may_meet: set[Layout] = set()
    found: dict[Layout, _Near] = {}
    for c, outcome in done:
        key = c.rows, _devices(c)
        if outcome.slo["met"]:
            may_meet.add(key)
            continue
        worst = max(outcome.slo["checks"], key=lambda check: check["value"] / check["limit"])
        near = _Near(c, worst["metric"], worst["value"], worst["limit"], 1.0)
        if key not in found or near.ratio < found[key].ratio:
            found[key] = near
    looked: set[int] = set()  # plans that differ in max_batch share a floor
    for c, floor, share in reversed(list(killed)):  # what fell last is the nearest as a rule: fewer percentiles
        key = c.rows, _devices(c)
        if key in may_meet or id(floor) in looked:
            continue
        looked.add(id(floor))
        known = found.get(key)
        # to see that it is further off, or no miss, takes a fraction of what percentiles take
        if known is not None and any(floor.exceeds(path, limit * known.ratio) for path, limit in limits.items()):
            continue
        if not any(floor.exceeds(path, limit) for path, limit in limits.items()):
            may_meet.add(key)
            continue
        values = {path: floor.metric(path) for path in limits}
        path = max(limits, key=lambda p: values[p] / limits[p])
        near = _Near(c, path, values[path], limits[path], share)
        if known is None or near.ratio < known.ratio:
            found[key] = near
    hopeful = {on for _, on in may_meet}
    rows = [(near, key[1]) for key, near in found.items() if key not in may_meet]
    rows.sort(key=lambda row: (row[0].candidate.devices, row[1], -row[0].tried, row[0].ratio, row[0].candidate.index))
    return tuple(_row(near, on, on not in hopeful) for near, on in rows)


def _devices(c: Candidate) -> Devices:
    count: Counter[str] = Counter()
    for group, devices in c.taken:
        count[group.name] += devices
    return tuple(count.items())


def _row(near: _Near, on: Devices, every: bool) -> dict[str, Any]:
    pools = near.candidate.plan.serving
    return {
        "layout": near.candidate.plan.label(), "devices": near.candidate.devices, "on": dict(on),
        "batch": pools[0].batch if len(pools) == 1 else [pool.batch for pool in pools],
        "metric": near.metric, "value": near.value, "limit": near.limit, "at_least": near.tried < 1,
        "tried": near.tried, "every_layout": every,
    }  # fmt: skip
