"""A link with a window: what one connection carries is the window over the round trip, several carry more."""

import asyncio
import contextlib
import time

import pytest

from fleetcast.cost.data import Path
from fleetcast.runtime.measure.trial.link import INITIAL, Window, shaped
from fleetcast.scenario.fleet.links import Link

SIZE = 400_000


@contextlib.asynccontextmanager
async def sender():
    """A server that answers a byte with `SIZE` bytes."""

    async def answer(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(1)
            writer.write(bytes(SIZE))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def fetch(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert len(await reader.read(-1)) == SIZE
    writer.close()
    await writer.wait_closed()


def seconds(path: Path, streams: int) -> float:
    link = Link(id="x", name="x", kind="wan", bandwidth=path.bandwidth, latency=path.rtt / 2, source="a test")

    async def run() -> float:
        async with sender() as port:
            with shaped(port, [link], window=int(path.window)) as mine:
                start = time.perf_counter()
                await asyncio.gather(*(fetch(mine) for _ in range(streams)))
                return time.perf_counter() - start

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "streams"),
    [(Path(4e7, 0.04, 40_000), 1), (Path(4e7, 0.04, 40_000), 4),
     (Path(2e6, 0.02, 400_000), 1), (Path(2e6, 0.02, 400_000), 3)],
)  # fmt: skip
def test_what_connections_carry_is_what_the_model_says(path, streams):
    """The best of three, as others use this machine too: never faster than the model, and near it once."""
    want = 2 * path.rtt + path.flow(streams * SIZE, streams)  # opened, asked, answered
    found = min(seconds(path, streams) for _ in range(3))
    assert 0.93 * want < found < 1.35 * want + 0.02


def test_a_window_doubles_up_to_its_limit():
    async def run() -> list[int]:
        window, rooms = Window(100_000), []
        for _ in range(5):
            rooms.append(room := await window.room())
            window.left(room)
            window.acknowledged(room)
        window.left(100_000)
        waiting = asyncio.ensure_future(window.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        window.acknowledged(10)
        assert await waiting == 10
        return rooms

    assert asyncio.run(run()) == [INITIAL, 2 * INITIAL, 4 * INITIAL, 100_000, 100_000]
