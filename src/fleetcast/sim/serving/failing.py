"""Replicas that fail and come back: what is lost is routed anew, or waits until a replica is up.

A replica that fails loses every request it holds, waiting or running. At that instant each goes back to the route, in
order of number, and is computed from its prompt again by a replica that is up; where none is up, it waits. What a user
has seen stays seen: the first token keeps its time, the last one comes from the attempt that ends. The iteration under
way counts as work and gives nothing. A replica that comes back is empty.

At equal times repairs come first, then failures, then arrivals, then an iteration's end. `reference` says the same in
its own words.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.policy import route as routes
from fleetcast.scenario.fleet.failures import Downtime
from fleetcast.sim.serving.kernel import INF
from fleetcast.sim.serving.routing import Lost, Run, checked_choice
from fleetcast.sim.serving.setting import Server, Setting

MOST = 10_000
"""Times that one request may be started again before a run is given up."""


def downtimes(state: Setting, servers: Sequence[Server]) -> list[Downtime | None]:
    """Returns when each replica is down, None where its group has no failures; empty where no replica's has.

    Args:
        state: the scenario, resolved.
        servers: one per replica, in the plan's order.
    """
    if all(s.group.outages is None for s in servers):
        return []
    found: list[Downtime | None] = []
    for server, places in zip(servers, placed(servers), strict=True):
        outages = server.group.outages
        if outages is None:
            found.append(None)
            continue
        units = tuple(sorted({place // outages.unit for place in places}))
        key = server.group.name, units
        if key not in state.downtimes:
            state.downtimes[key] = Downtime(outages, units, state.scenario.seed)
        found.append(state.downtimes[key])
    return found


def placed(servers: Sequence[Server]) -> list[list[int]]:
    """Returns the devices of each replica, as numbers within its group.

    Sets of tensor x attention-DP ranks are placed one after the other, on the first node with room for all of one;
    where no node has, on the first free devices. Drafters are a set of their own.
    """
    free: dict[str, list[int]] = {}
    found = []
    for server in servers:
        group, layout = server.group, server.layout
        left = free.setdefault(group.name, list(range(group.count)))
        span = layout.tensor_parallel * layout.attention_dp
        places: list[int] = []
        apart = server.drafters.devices if server.drafters is not None and server.drafters.group is group else 0
        for size in (*[span] * layout.pipeline_parallel, apart):
            taken = _room(left, size, group.node)
            places += taken
            for place in taken:
                left.remove(place)
        found.append(places)
    return found


def _room(left: Sequence[int], size: int, node: int) -> list[int]:
    """The first ``size`` free devices of one node; of whole nodes or of any where one does not hold them."""
    per_node: dict[int, list[int]] = {}
    for place in left:
        per_node.setdefault(place // node, []).append(place)
    for places in per_node.values():
        if len(places) >= size:
            return places[:size]
    whole = [place for places in per_node.values() if len(places) == node for place in places]
    return whole[:size] if len(whole) >= size else list(left[:size])


class Bookkeeping:
    """What was lost, and what a user keeps of it."""

    def __init__(self, servers: Sequence[Server], count: int) -> None:
        """Takes one server per replica, and the number of requests."""
        self.queries = [s.cost.work.get("queries", 1.0) if s.speculation is not None else 1.0 for s in servers]
        self.tokens, self.firsts = np.zeros(len(servers)), np.zeros(len(servers), dtype=np.int64)
        self.tries = np.zeros(count, dtype=np.int64)
        self.began = np.full(count, -1, dtype=np.int32)

    def lose(self, r: int, replica: int, passes: int, first: bool) -> None:
        """Request ``r`` is lost on a replica after some passes; ``first``: its first token ever came out there.

        Raises:
            SpecError: it has been started again too often.
        """
        self.tries[r] += 1
        if self.tries[r] > MOST:
            raise SpecError(
                "fleet.failures", f"start request {r} again for ever", value=f"{MOST:,} times",
                limit="an up time in which the longest request can be served", hint="Raise mtbf, or add devices",
            )  # fmt: skip
        if passes:
            self.tokens[replica] += 1.0 + (passes - 1) * self.queries[replica]
            self.firsts[replica] += 1
        if first and self.began[r] < 0:
            self.began[r] = replica

    def done(self, where: Any) -> tuple[Any, Lost]:
        """Returns the replica of each request's first token, and what was lost, given where each one ended."""
        began = np.where(self.began >= 0, self.began, where).astype(np.int32)
        moved = began != where  # the attempt that ended made a first token, too: count it there
        for column in (self.tokens, self.firsts):
            np.add.at(column, where[moved], 1)
            np.subtract.at(column, began[moved], 1)
        return began, Lost(self.tokens, self.firsts, self.tries)


def drive(
    state: Setting, policy: Any, servers: Sequence[Server], replicas: Sequence[Any], weights: Sequence[float],
    downs: Sequence[Downtime | None], shared: Any,
) -> Run:  # fmt: skip
    """Runs compiled replicas through their outages; requests arrive by the clock.

    Args:
        state: the scenario, resolved.
        policy: the route; it sees the replicas that are up.
        servers: one per replica.
        replicas: of `kernel`.
        weights: relative speed of each.
        downs: when each is down.
        shared: the replicas' `kernel.Requests`.
    """
    q = state.requests
    n, count = len(q), len(replicas)
    stream = rng(state.scenario.seed, "route")
    session = q.session if q.session is not None else np.full(n, -1)
    rows = list(zip(q.arrival.tolist(), q.prompt.tolist(), session.tolist(), strict=True))
    arrivals, first, _ = shared.times()
    kept = np.full(n, -1.0)
    book = Bookkeeping(servers, n)
    where = np.zeros(n, dtype=np.int32)
    up, waiting = list(range(count)), list[int]()
    turns = [0] * count
    events: list[tuple[float, int, int]] = []
    for i, down in enumerate(downs):
        if down is not None and (coming := down.after(0)) is not None:
            heapq.heappush(events, (coming[0], 1, i))

    def bring(time: float) -> None:
        for replica in replicas:
            while replica.state()[0] < time:
                replica.commit()

    def send(r: int, time: float) -> None:
        _, prompt, own = rows[r]
        view = routes.View(load=[replicas[i].state()[1] for i in up], weight=[weights[i] for i in up], number=tuple(up))
        choice = checked_choice(policy.choose(routes.Arrival(r, time, prompt, own), view, stream), len(up), policy)
        where[r] = up[choice]
        replicas[up[choice]].push(r, time)

    r = 0
    while True:
        arrival = arrivals[r] if r < n else INF
        event = events[0][0] if events else INF
        time = min(arrival, event)
        bring(time)
        if r == n and not waiting and all(replica.state()[0] == INF for replica in replicas):
            break
        if event <= arrival:
            _, fails, i = heapq.heappop(events)
            outage = downs[i].after(turns[i])  # type: ignore[union-attr]
            assert outage is not None
            if fails:
                up.remove(i)
                heapq.heappush(events, (outage[1], 0, i))
                for lost, passes in replicas[i].fail(time):
                    if first[lost] >= 0 and kept[lost] < 0:
                        kept[lost] = first[lost]
                    book.lose(lost, i, passes, first[lost] >= 0)
                    waiting.append(lost)
                waiting.sort()
            else:
                up = sorted((*up, i))
                turns[i] += 1
                if (coming := downs[i].after(turns[i])) is not None:  # type: ignore[union-attr]
                    heapq.heappush(events, (coming[0], 1, i))
            if events and events[0][0] == time:
                continue  # all that happens at one instant happens before anything is routed
        else:
            waiting.append(r)
            r += 1
        if up:
            for ready in waiting:
                send(ready, time)
            waiting = []
    began, lost_work = book.done(where)
    first_seen = np.where(kept >= 0, kept, np.array(first, dtype=np.float64))
    arrival_, _, finish = (np.array(c, dtype=np.float64) for c in shared.times())
    return Run(arrival_, first_seen, finish, where, began, [x.report() for x in replicas], lost_work)
