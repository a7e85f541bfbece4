"""What a server takes at most, and how often one address may ask."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleetcast.base.errors import SpecError

CHOICES: Final = 16
"""Most answers to one HTTP request: prompts times ``n``."""
_ADDRESSES: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes at most.

    Attributes:
        max_waiting: requests that wait for the engine; beyond it a request is refused with 503.
        max_connections: open at once; beyond it a request is refused with 503.
        max_body: bytes of a request's body.
        rate: requests per s and address, in bursts of as many as come in 2 s; 0 = any. Beyond it: 429.
        idle: s that a connection may be open without a request, and that a body may take to come.
        stall: s that a reader may leave a stream unread; then it is cut off.
        buffer: tokens of an answer that wait for a reader; then it is cut off.
        drain: s that answers under way have to end in when the server is told to stop.

    Raises:
        SpecError: a value out of range.
    """

    max_waiting: int = 256
    max_connections: int = 1024
    max_body: int = 4 << 20
    rate: float = 0.0
    idle: float = 30.0
    stall: float = 30.0
    buffer: int = 4096
    drain: float = 30.0

    def __post_init__(self) -> None:
        for name, least, limit in (
            ("max_waiting", 1, "a number from 1"), ("max_connections", 1, "a number from 1"),
            ("max_body", 1024, "bytes from 1024"),
            ("buffer", 16, "tokens from 16"), ("rate", 0, "requests per s, 0 = any"), ("drain", 0, "s from 0"),
            ("idle", 0.1, "s from 0.1"), ("stall", 0.1, "s from 0.1"),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise SpecError(name, "is out of range", value=value, limit=limit, hint="Leave it out for the default")


class Rate:
    """A token bucket per address: ``rate`` requests per s in the long run, bursts of up to twice as many.

    Args:
        rate: requests per s; 0 = any.
        clock: s.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(1.0, 2 * rate)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Takes a request of an address; returns 0, or s until it may come again, and then takes nothing."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, before = self._left.pop(address, (self._most, now))
        left = min(self._most, left + (now - before) * self._rate)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _ADDRESSES:  # those not seen for longest
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate
