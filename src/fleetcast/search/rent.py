"""What devices cost and draw at least over a span that a plan certainly takes: the ground of its bounds.

Prices and outages are functions of time that are known before any plan is run. No price and no idle power is negative,
so a longer span costs and draws no less, and a bound on the span bounds both.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.scenario.fleet.failures import Interval
from fleetcast.scenario.plan import Pool, one
from fleetcast.search.pace import SLACK
from fleetcast.sim.serving.failing import downtimes
from fleetcast.sim.serving.setting import Server, Setting


def least_rent(state: Setting, servers: Sequence[Server], pools: Sequence[Pool], start: float, span: float) -> float:
    """Returns dollars for all devices over ``span`` s from ``start`` on, less what is taken away; no price counts 0.

    Args:
        state: the scenario.
        servers: one per pool that serves.
        pools: those, complete.
        start: s, when the run begins.
        span: s that it takes at least.
    """
    dollars = sum(
        group.prices.mean(start, start + span) * n * one(p.replicas) * span / 3600.0
        for s, p in zip(servers, pools, strict=True) for group, n in s.takes if group.prices is not None
    )  # fmt: skip
    for s, gone in _gone(state, servers, pools, start, span):
        if s.group.prices is not None:
            dollars -= sum(s.group.prices.mean(a, b) * (b - a) for a, b in gone) * _devices(s) / 3600.0
    return dollars * SLACK


def least_idle(state: Setting, servers: Sequence[Server], pools: Sequence[Pool], start: float, span: float) -> float:
    """Returns joules that all devices draw at least, idle, over that span; arguments as above."""
    watts = sum(
        group.device.power.idle * n * one(p.replicas)
        for s, p in zip(servers, pools, strict=True) for group, n in s.takes
    )  # fmt: skip
    return watts * span - sum(
        s.group.device.power.idle * _devices(s) * sum(b - a for a, b in gone)
        for s, gone in _gone(state, servers, pools, start, span)
    )


def _gone(
    state: Setting, servers: Sequence[Server], pools: Sequence[Pool], start: float, span: float
) -> list[tuple[Server, list[Interval]]]:
    """Per replica that may be taken away, when that is: its devices are known, and so are their outages."""
    if all(s.group.outages is None or s.group.outages.billed for s in servers):
        return []
    replicas = [s for s, p in zip(servers, pools, strict=True) for _ in range(int(p.replicas or 1))]  # type: ignore[arg-type]
    return [
        (s, down.within(start, start + span))
        for s, down in zip(replicas, downtimes(state, replicas), strict=True) if down is not None and not down.billed
    ]  # fmt: skip


def _devices(server: Server) -> int:
    """Those of a replica that go with it: its own, and its drafters where these are in its group."""
    return sum(n for group, n in server.takes if group is server.group)
