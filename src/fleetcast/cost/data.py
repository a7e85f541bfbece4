"""How long data takes to move: a stream of TCP, stripes, a copy by way of a staging place, reads where it lies.

A path has a bandwidth ``B`` (B/s), a round trip ``R`` (s) and a window ``W`` (bytes of a connection that may be
on their way). Without loss,

- a stream in steady state carries ``min(B / n, W / R)`` of ``n`` that share the path,
- it begins with ``I`` bytes in a round trip and doubles them in each (slow start), so that ``k`` round trips carry
  ``I (2^k - 1)``, until it is at its steady state,
- opening a connection takes ``R``, and so does each request that waits for its answer.

What hosts add is a constant for each request, each file and each byte: `Host`, fitted on a few measured transfers.
Nothing here reads a clock or a file; sizes and times are B and s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

INITIAL: Final = 14600.0
"""Bytes of a stream's first round trip: ten segments of 1460 (RFC 6928)."""


@dataclass(frozen=True)
class Path:
    """What lies between two places.

    Attributes:
        bandwidth: B/s, shared by all streams.
        rtt: s there and back.
        window: bytes of one connection that may be on their way.
    """

    bandwidth: float
    rtt: float
    window: float = math.inf

    def rate(self, streams: int = 1) -> float:
        """Returns the B/s that ``streams`` connections carry together in steady state."""
        return min(self.bandwidth, streams * self.window / self.rtt) if self.rtt > 0 else self.bandwidth

    def flow(self, size: float, streams: int = 1, *, warm: bool = False) -> float:
        """Returns s from the first byte to the last of ``size`` bytes over ``streams`` equal connections.

        Args:
            size: bytes in all.
            streams: connections.
            warm: they have carried enough before to be in steady state.
        """
        each, rate = size / streams, self.rate(streams) / streams
        if warm or self.rtt <= 0:
            return each / rate
        rounds = max(0, math.ceil(math.log2(max(1.0, rate * self.rtt / INITIAL))))
        grown = INITIAL * (2.0**rounds - 1)
        if each <= grown:
            last = math.ceil(math.log2(each / INITIAL + 1)) - 1 if each > 0 else 0
            rest = each - INITIAL * (2.0**last - 1)
            return max(0, last) * self.rtt + rest * streams / self.bandwidth
        return rounds * self.rtt + (each - grown) / rate


@dataclass(frozen=True)
class Host:
    """What the hosts at the ends add.

    Attributes:
        request: s of a request.
        file: s of a file that is published, opened or closed.
        byte: s of a byte that is sent, received, checked and written.
    """

    request: float = 0.0
    file: float = 0.0
    byte: float = 0.0


NOTHING: Final = Host()


@dataclass(frozen=True)
class Terms:
    """A time in parts: `wire` follows from the path, the counts are what hosts take time for."""

    wire: float
    requests: float
    files: float
    size: float

    def seconds(self, host: Host = NOTHING) -> float:
        """Returns the time on such hosts, s."""
        return self.wire + self.requests * host.request + self.files * host.file + self.size * host.byte

    def __add__(self, other: Terms) -> Terms:
        return Terms(
            self.wire + other.wire, self.requests + other.requests, self.files + other.files, self.size + other.size
        )


def copied(size: float, path: Path, *, streams: int = 1, chunk: float = 8 << 20) -> Terms:
    """Returns what a copy out of a vault takes: a manifest, then each chunk by a request of its own.

    Args:
        size: of the file.
        path: to the vault.
        streams: connections.
        chunk: bytes of a request.
    """
    parts = max(1, math.ceil(size / chunk))
    used = min(streams, parts)
    # A connection for the manifest and its request, the others all at once and their first requests.
    opening = 4 * path.rtt
    first = min(size, used * chunk)
    # From then on a connection waits a round trip between its parts. Where the path is the limit, others fill the gap.
    rest, turns = size - first, math.ceil(parts / used) - 1
    each = rest if used == 1 else min(turns * chunk, rest)
    later = max(rest / path.bandwidth, turns * path.rtt + each / path.rate(1))
    return Terms(opening + path.flow(first, used) + later, 1 + parts, 1.0, size)


def pushed(size: float, path: Path, *, chunk: float = 8 << 20) -> Terms:
    """Returns what an upload takes: it is announced, then each chunk is sent and acknowledged.

    Args:
        size: of the file.
        path: to the place that takes it.
        chunk: bytes of a request.
    """
    parts = math.ceil(size / chunk)
    return Terms(2 * path.rtt + parts * path.rtt + path.flow(size), 1 + parts, 1.0, size)


def staged(
    size: float, into: Path, out: Path, *, chunk: float = 8 << 20, streams: int = 1
) -> Terms:  # fmt: skip
    """Returns what it takes until a file can be opened by way of a staging place: a copy there, one from there.

    The second begins when the first is whole. What is read afterwards is local and takes no time here.

    Args:
        size: of the file.
        into: the path from where the data lies to the staging place.
        out: from there to the compute.
        chunk: bytes of a request.
        streams: connections of the first copy.
    """
    return copied(size, into, streams=streams, chunk=chunk) + pushed(size, out, chunk=chunk)


def mounted(size: float, path: Path, *, block: float = 1 << 20, share: float = 0.0) -> Terms:
    """Returns what it takes to open a file where it lies and to read a share of it, in order and block by block.

    Args:
        size: of the file.
        path: to where it lies.
        block: bytes of a read; one waits for the one before.
        share: of the file that is read; the first block always is.
    """
    first = min(block, size)
    wanted = max(first, share * size)
    blocks = max(1, math.ceil(wanted / block))
    # One connection, opened once; one request for the size, one for each block.
    wire = path.rtt + path.rtt + blocks * path.rtt + path.flow(wanted)
    return Terms(wire, 1 + blocks, 1.0, wanted)


def stripes(path: Path, streams: int) -> float:
    """Returns how much faster ``streams`` connections carry a large file than one: ``min(n, B R / W)``, at least 1.

    Example:
        >>> stripes(Path(bandwidth=125e6, rtt=0.05, window=1e6), 8)
        6.25
    """
    return path.rate(streams) / path.rate(1)


def largest_share(size: float, into: Path, out: Path, path: Path, gain: float, *, host: Host = NOTHING,
                  block: float = 1 << 20, chunk: float = 8 << 20) -> float:  # fmt: skip
    """Returns the largest share of a file whose reading where it lies is ``gain`` times quicker than by staging.

    Returns:
        0 to 1; -1 where even the first block is not.
    """
    limit = staged(size, into, out, chunk=chunk).seconds(host) / gain

    def quick(share: float) -> bool:
        return mounted(size, path, block=block, share=share).seconds(host) <= limit

    if not quick(0.0):
        return -1.0
    low, high = 0.0, 1.0
    if quick(1.0):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if quick(middle) else (low, middle)
    return low


def fit(terms: Sequence[Terms], seconds: Sequence[float]) -> Host:
    """Returns the host under which the terms come nearest to what was measured, in relative error; nothing is negative.

    Args:
        terms: of each transfer.
        seconds: that it took.
    """
    import numpy as np
    from scipy.optimize import nnls

    weight = 1 / np.asarray(seconds)
    matrix = np.array([(t.requests, t.files, t.size) for t in terms]) * weight[:, None]
    left = (np.asarray(seconds) - np.array([t.wire for t in terms])) * weight
    # Columns of very unlike size: scaled, or the solver's tolerance loses the small ones.
    scale = np.maximum(matrix.max(axis=0), 1e-300)
    found = nnls(matrix / scale, left)[0] / scale
    return Host(*(float(x) for x in found))
