"""A link between a client and a server of this machine: bytes wait as they would on the links of a path.

Each direction has a rate and a delay: bytes leave one after the other at the rate of the slowest link, and arrive the
sum of the latencies later. The proxy runs in a thread with an event loop of its own; setting up a connection is not
delayed, since the application keeps one open.
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
HELD: Final = 256
"""Chunks that may be on their way; then the sender waits."""


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


def ways(path: Sequence[Link]) -> tuple[Way, Way]:
    """Returns the ways up and down a path of links, as `links.transfer_time` times them."""
    latency = sum(link.latency for link in path)
    return (
        Way(min(link.uplink or link.bandwidth for link in path), latency),
        Way(min(link.bandwidth for link in path), latency),
    )


@contextlib.contextmanager
def shaped(port: int, path: Sequence[Link]) -> Iterator[int]:
    """Gives a port of this machine that leads to ``port`` over the links; its own where there are none.

    Whatever ends the block, no socket and no thread is left.
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
                    await _joined(reader, writer, port, up, down)
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
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, up: Way, down: Way
) -> None:  # fmt: skip
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return  # nobody is there: the client sees its connection end
    both = [
        asyncio.ensure_future(_carried(reader, far_writer, up)),
        asyncio.ensure_future(_carried(far_reader, writer, down)),
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


async def _carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
    """Carries one direction to its end."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD)

    async def deliver() -> None:
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()

    task = asyncio.ensure_future(deliver())
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await line.put((way.arrival(loop.time(), len(data)), data))
        await line.put((way.arrival(loop.time(), 0), b""))
        with contextlib.suppress(OSError):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
