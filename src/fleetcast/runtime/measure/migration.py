"""A process that keeps writing its memory is moved over a socket, by pre-copy; what it takes is counted.

The process (`_write`) writes pages at random from its own clock. The mover knows nothing of it but its memory: before
each round it takes a picture and compares it with the one before, page by page, which is what a kernel's dirty bits
tell; it sends what differs through a shaped TCP connection; when little is left the process stops, and the rest
follows. The other side keeps a copy, whose digest must be that of the stopped process.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context, shared_memory
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.cost.migration import PAGE, PROGRESS, ROUNDS, Migration

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TICK = 0.002
_HEAD = struct.Struct("<qq")  # pages that follow; -1 = that was all, and the digest follows
_CHUNK = 64  # pages sent between two looks at the clock
_WAIT = 30.0


@dataclass(frozen=True)
class Moved:
    """What was measured.

    Attributes:
        taken: bytes by round, seconds, seconds with the process stopped.
        writes: that the process made a second.
        overhead: s of a picture and its comparison, the mean.
        equal: whether the copy is what the process had when it stopped.
    """

    taken: Migration
    writes: float
    overhead: float
    equal: bool


def move(
    memory: int, rate: float, hot: int, bandwidth: float, *, stop: int = 0, most: int = ROUNDS, seed: int = 0
) -> Moved:
    """Returns what moving a process took.

    Args:
        memory: pages that it has.
        rate: writes a second, each to a page drawn among the first ``hot``.
        hot: see ``rate``; at most ``memory``.
        bandwidth: B/s that the mover sends.
        stop: pages left at which the process is stopped.
        most: rounds after which it is.
        seed: of the writes.

    Raises:
        FleetcastError: the process or the other side ended before its time.
    """
    context = get_context("spawn")
    with _block(memory * PAGE) as shared, socket.create_server(("127.0.0.1", 0)) as server:
        ours, theirs = context.Pipe()
        result, results = context.Pipe()
        writer = context.Process(target=_write, args=(shared.name, rate, hot, seed, theirs), daemon=True)
        reader = context.Process(target=_read, args=(server.getsockname()[1], memory, results), daemon=True)
        writer.start()
        reader.start()
        try:
            server.settimeout(_WAIT)
            link = server.accept()[0]
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with link:
                _told(ours, "the process")
                return _move(_pages(shared).reshape(memory, PAGE), link, ours, result, bandwidth,
                             stop, most)  # fmt: skip
        finally:
            for process in (writer, reader):
                process.kill()
                process.join()


def _move(
    pages: NDArray[np.uint8], link: socket.socket, process: Connection, result: Connection, bandwidth: float,
    stop: int, most: int,
) -> Moved:  # fmt: skip
    began = time.perf_counter()
    before = pages.copy()
    dirty = np.arange(len(pages))
    rounds: list[float] = []
    looks: list[float] = []
    process.send("count")
    start = _told(process, "the process")
    while True:
        slow = bool(rounds) and len(dirty) * PAGE > (1 - PROGRESS) * rounds[-1]
        last = slow or len(dirty) <= stop or len(rounds) >= most - 1
        if last:
            stopped = time.perf_counter()
            process.send("stop")
            end = _told(process, "the process")
            dirty = np.union1d(dirty, _differ(before, pages))
        _send(link, pages, dirty, bandwidth)
        rounds.append(float(len(dirty) * PAGE))
        if last:
            break
        looked = time.perf_counter()
        now = pages.copy()
        dirty = _differ(before, now)
        before = now
        looks.append(time.perf_counter() - looked)
    link.sendall(_HEAD.pack(-1, 0))
    digest = _told(result, "the other side")
    finished = time.perf_counter()
    taken = Migration(sum(rounds), tuple(rounds), finished - began, finished - stopped)
    made, spent = end[0] - start[0], end[1] - start[1]
    return Moved(taken, made / spent if spent else 0.0, float(np.mean(looks)) if looks else 0.0,
                 digest == hashlib.sha256(pages.data).hexdigest())  # fmt: skip


def _pages(shared: shared_memory.SharedMemory) -> NDArray[np.uint8]:
    assert shared.buf is not None  # it is open
    return np.frombuffer(shared.buf, np.uint8)


def _differ(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.flatnonzero((before.view(np.uint64) != now.view(np.uint64)).any(axis=1))


def _send(link: socket.socket, pages: NDArray[np.uint8], which: NDArray[np.int64], bandwidth: float) -> None:
    began, sent = time.perf_counter(), 0
    for first in range(0, len(which), _CHUNK):
        part = which[first : first + _CHUNK]
        link.sendall(_HEAD.pack(len(part), 0) + part.astype("<i8").tobytes() + pages[part].tobytes())
        sent += len(part) * PAGE
        early = sent / bandwidth - (time.perf_counter() - began)
        if early > 0:
            time.sleep(early)


def _write(name: str, rate: float, hot: int, seed: int, ours: Connection) -> None:
    """The process that is moved: writes until it is told to stop."""
    shared = shared_memory.SharedMemory(name=name)
    pages = _pages(shared).view(np.uint64).reshape(-1, PAGE // 8)
    random = np.random.default_rng(seed)
    made, began = 0, time.perf_counter()
    ours.send("ready")
    while True:
        due = int((time.perf_counter() - began) * rate) - made
        if due > 0:
            which = random.integers(0, hot, due)
            pages[which, random.integers(0, PAGE // 8, due)] = np.arange(made + 1, made + due + 1, dtype=np.uint64)
            made += due
        if ours.poll(_TICK):
            asked = ours.recv()
            ours.send((made, time.perf_counter() - began))
            if asked == "stop":
                break
    while True:  # stands still, its memory as it is, until it is ended
        time.sleep(_WAIT)


def _read(port: int, memory: int, results: Connection) -> None:
    """The other side: keeps what comes."""
    copy = np.zeros((memory, PAGE), np.uint8)
    with socket.create_connection(("127.0.0.1", port)) as link, link.makefile("rb") as stream:
        while (count := _HEAD.unpack(stream.read(_HEAD.size))[0]) >= 0:
            which = np.frombuffer(stream.read(8 * count), "<i8")
            copy[which] = np.frombuffer(stream.read(PAGE * count), np.uint8).reshape(count, PAGE)
    results.send(hashlib.sha256(copy.data).hexdigest())


@contextlib.contextmanager
def _block(size: int) -> Iterator[shared_memory.SharedMemory]:
    shared = shared_memory.SharedMemory(create=True, size=size)
    try:
        yield shared
    finally:
        shared.unlink()
        with contextlib.suppress(BufferError):  # a view of it is still alive: it goes with the process
            shared.close()


def _told(pipe: Connection, who: str) -> Any:
    if not pipe.poll(_WAIT):
        raise FleetcastError(f"{who} of the migration said nothing for {_WAIT:.0f} s")
    return pipe.recv()
