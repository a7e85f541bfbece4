"""Agents for tests: real processes, quick signs of life, and a wire between them that can be cut."""

import asyncio
import contextlib
import os
from pathlib import Path

from fleetcast.policy.order.tasks import Fifo
from fleetcast.runtime.agents.local import started
from fleetcast.runtime.agents.run import Run
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import Line, Task
from tests.runtime.agents.jobs import ALLOW

ROOT = Path(__file__).resolve().parents[3]
PULSE, LEASE = 0.1, 0.6


def allow(folder, slots=1):
    path = folder / "allow.toml"
    path.write_text(ALLOW.format(slots=slots), encoding="utf-8")
    return path


def constellation(tasks, lines=()):
    """Tasks as {id: table}, lines as "a b" or tables."""
    made = [Task(id=name, **table) for name, table in tasks.items()]
    return Constellation.of(made, [Line(before=line.split()[0], after=line.split()[1]) for line in lines])


@contextlib.asynccontextmanager
async def agents(count, folder, slots=1, **settings):
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    names = [f"agent{i}" for i in range(count)]
    async with started(
        names, allow=allow(folder, slots), **{"pulse": PULSE, "lease": LEASE, "backoff": 0.1} | settings
    ) as both:
        yield both


def run(orchestrator, value, **settings):
    return Run(orchestrator, value, settings.pop("policy", Fifo()), **{"patience": 5.0, "deadline": 60.0} | settings)


async def begun(path):
    """Waits until a task has written into a file that it has begun."""
    async with asyncio.timeout(20):
        while not path.exists() or not path.read_text(encoding="ascii"):
            await asyncio.sleep(0.01)


class Wire:
    """A proxy that carries bytes until it is cut: then nothing moves, and nobody is told."""

    def __init__(self, port):
        self._port, self.cut, self._tasks, self._writers = port, False, set(), []

    async def start(self):
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _client(self, reader, writer):
        onward = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, onward[1]]
        for source, target in ((reader, onward[1]), (onward[0], writer)):
            task = asyncio.create_task(self._carry(source, target))
            self._tasks.add(task)

    async def _carry(self, source, target):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                while self.cut:
                    await asyncio.sleep(0.02)
                target.write(data)
                await target.drain()
        target.close()

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, *(w.wait_closed() for w in self._writers), return_exceptions=True)
