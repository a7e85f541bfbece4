"""Who sends when: messages hold their channels, first asked first served, or in the order of a plan.

Both answer at once when a message begins and ends, so that messages need no events of their own: a channel knows until
when it is taken, and a message begins as soon as its data are made and all of its channels are free. A simulation sends
by it; a run whose agents send nothing waits by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.cost.graphs.schedule import Messages

Row = tuple[int, int, int, float, float]
"""Edge, source, target, begin, end: a row of `Messages`."""


class Channels:
    """The channels of a platform, and what has been sent.

    Attributes:
        sent: rows of messages, as they were asked for.
    """

    def __init__(self, platform: Platform) -> None:
        self._free = [0.0] * len(platform.ports)
        self._held = [
            [tuple(dict.fromkeys(c for c in pair if c >= 0)) for pair in row] for row in platform.channels.tolist()
        ]
        self._latency, self._rate = platform.latency.tolist(), platform.rate.tolist()
        self.sent: list[Row] = []

    def held(self, source: int, target: int) -> tuple[int, ...]:
        """Returns the channels between two workers."""
        return self._held[source][target]

    def send(self, edge: int, source: int, target: int, size: float, made: float) -> float:
        """Sends ``size`` bytes that are there from ``made`` s on; returns when they arrive."""
        begin = made
        channels = self._held[source][target]
        for channel in channels:
            begin = max(begin, self._free[channel])
        end: float = begin + (self._latency[source][target] + size / self._rate[source][target])
        for channel in channels:
            self._free[channel] = end
        self.sent.append((edge, source, target, begin, end))
        return end


class Planned:
    """Messages of a schedule: each leaves when its data are made and its turn has come on all of its channels.

    Args:
        channels: that carry them.
        plan: in the order decided.
        size: bytes by edge.
        arrived: told (edge, target, s) of every message that leaves.
    """

    def __init__(
        self, channels: Channels, plan: Messages, size: list[float], arrived: Callable[[int, int, float], None]
    ) -> None:
        self._channels, self._size, self._arrived = channels, size, arrived
        self._rows = list(zip(plan.edge.tolist(), plan.source.tolist(), plan.target.tolist(), strict=True))
        self._made: dict[int, float] = {}
        self._turns: dict[int, deque[int]] = {}
        self._of_edge: dict[int, list[int]] = {}
        for i, (edge, source, target) in enumerate(self._rows):
            self._of_edge.setdefault(edge, []).append(i)
            for channel in channels.held(source, target):
                self._turns.setdefault(channel, deque()).append(i)

    def made(self, edges: list[int], now: float) -> None:
        """Notes that the data of edges are there from ``now`` on; sends what that lets leave."""
        asked = [i for edge in edges for i in self._of_edge.get(edge, ())]
        for i in asked:
            self._made[i] = now
        while asked:
            i = asked.pop()
            edge, source, target = self._rows[i]
            held = self._channels.held(source, target)
            if i not in self._made or any(self._turns[channel][0] != i for channel in held):
                continue
            self._arrived(edge, target, self._channels.send(edge, source, target, self._size[edge], self._made.pop(i)))
            for channel in held:
                turns = self._turns[channel]
                turns.popleft()
                if turns:
                    asked.append(turns[0])
