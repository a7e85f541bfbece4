"""A link between a client and a server of this machine: bytes wait as they would on the links of a path.

Each direction has a rate and a delay: bytes leave one after the other at the rate of the slowest link, and arrive the
sum of the latencies later. All connections share the rate. The proxy runs in a thread with an event loop of its own.

Without a window, setting up a connection is not delayed, since the application keeps one open. With one, a connection
is as TCP's are on a path without loss: it opens a round trip late, begins with `INITIAL` bytes on their way, doubles
them every round trip up to the window, and so carries at most window / round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from fleetcast.scenario.fleet.links import Link

CHUNK: Final = 4096
"""Bytes that leave together."""
LARGE: Final = 16384
"""The same where there is a window: fewer wakings at high rates."""
HELD: Final = 256
"""Chunks that may be on their way; then the sender waits."""
INITIAL: Final = 14600
"""Bytes on their way when a connection begins: ten segments of 1460 (RFC 6928)."""
TICK: Final = 0.0005
"""s that timers are late on average: the system's wait in whole ms."""


class Way:
    """One direction: when bytes that come now have arrived.

    Args:
        rate: B/s.
        latency: s.
    """

    def __init__(self, rate: float, latency: float) -> None:
        self.rate, self.latency = rate, latency
        self._free = 0.0

    def arrival(self, now: float, size: int) -> float:
        """Returns when the last of ``size`` bytes that come at ``now`` arrives; they queue behind those before."""
        self._free = max(self._free, now) + size / self.rate
        return self._free + self.latency


class Window:
    """How many bytes of one direction of a connection may be on their way: slow start, then a constant.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._now, self._out = most, min(INITIAL, most), 0
        self._room = asyncio.Event()

    async def room(self) -> int:
        """Returns how many bytes may leave, at least one; waits until it is so."""
        while self._out >= self._now:
            self._room.clear()
            await self._room.wait()
        return self._now - self._out

    def left(self, size: int) -> None:
        """Bytes leave."""
        self._out += size

    def acknowledged(self, size: int) -> None:
        """The sender hears that bytes have arrived."""
        self._out -= size
        self._now = min(self._most, self._now + size)
        self._room.set()


def ways(path: Sequence[Link]) -> tuple[Way, Way]:
    """Returns the ways up and down a path of links, as `links.transfer_time` times them."""
    latency = sum(link.latency for link in path)
    return (
        Way(min(link.uplink or link.bandwidth for link in path), latency),
        Way(min(link.bandwidth for link in path), latency),
    )


@contextlib.contextmanager
def shaped(port: int, path: Sequence[Link], *, window: int = 0) -> Iterator[int]:
    """Gives a port of this machine that leads to ``port`` over the links; its own where there are none.

    Whatever ends the block, no socket and no thread is left.

    Args:
        port: of a server of this machine.
        path: the links.
        window: bytes of a connection that may be on their way; 0 = any number, and no time to open it.
    """
    if not path:
        yield port
        return
    loop = asyncio.new_event_loop()
    ready: list[int | BaseException] = []
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        up, down = ways(path)
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with contextlib.suppress(asyncio.CancelledError):  # how a connection that is still open ends
                    await _joined(reader, writer, port, up, down, window)
            finally:
                tasks.discard(task)
                if stop.is_set():
                    writer.transport.abort()
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await stop.wait()
        await asyncio.sleep(0.01)  # who was let in just now begins, or nobody would close what it has
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # sockets are closed by the loop, not by those who ask for it

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            ready.append(error)
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    if not isinstance(ready[0], int):
        thread.join()
        raise ready[0]
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _joined(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, up: Way, down: Way, window: int
) -> None:
    if window:
        await asyncio.sleep(max(0.0, up.latency + down.latency - TICK))
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return  # nobody is there: the client sees its connection end
    both = [
        asyncio.ensure_future(_carried(reader, far_writer, up, down.latency, window)),
        asyncio.ensure_future(_carried(far_reader, writer, down, up.latency, window)),
    ]
    try:
        await asyncio.wait(both)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        far_writer.close()
        with contextlib.suppress(OSError):
            await far_writer.wait_closed()


async def _carried(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, back: float, most: int
) -> None:  # fmt: skip
    """Carries one direction to its end; ``back``: s of the other one, which brings the acknowledgements."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(0 if most else HELD)
    window = Window(most) if most else None
    early, chunk = (TICK, LARGE) if most else (0.0, CHUNK)

    async def deliver() -> None:
        while True:
            due, data = await line.get()
            if (wait := due - early - loop.time()) > 0 or not most:
                await asyncio.sleep(max(0.0, wait))
            if not data:
                break
            writer.write(data)
            await writer.drain()
            if window is not None:
                loop.call_at(max(due, loop.time()) + back - early, window.acknowledged, len(data))
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()

    task = asyncio.ensure_future(deliver())
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(chunk if window is None else min(chunk, await window.room())):
                if window is not None:
                    window.left(len(data))
                await line.put((way.arrival(loop.time(), len(data)), data))
        await line.put((way.arrival(loop.time(), 0), b""))
        with contextlib.suppress(OSError):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
