"""One process of a vote: it listens on the loopback interface, hears the others, decides, and says what it decided.

Synchronous: f + 1 rounds, in each of which all send all ballots that they know and wait for everyone who has not
crashed; then all know the same ballots and decide their ranking. A closed connection is a crash; a process that is
silent for ``timeout`` seconds without one is taken for crashed and reported as late, since then the run was not
synchronous.

Asynchronous: no clock decides anything. A process waits for n - f ballots, its own among them, and makes their ranking;
it sends that, waits for n - f such rankings and decides that of the lowest number. At most f + 1 numbers can be lowest
among n - f of n, so at most f + 1 rankings are decided.

Standard input: a line with the task, one with the others' ports, one for each of them that is gone before the start,
one to start. Standard output: the port, "ready", what was decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from dataclasses import dataclass
from typing import Any

from fleetcast.runtime.vote.messages import Rankings, hello, longest, message, read_hello, read_message

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Task:
    """What a process is told.

    Attributes:
        process: its number.
        processes: n.
        crashes: f.
        synchronous: which protocol.
        rule: kind of `policy.vote`.
        ballot: its ranking.
        token: that all connections of this vote begin with.
        timeout: s that a silent process is waited for.
        die_after: messages after which it kills itself with SIGKILL, for tests of crashes; None = never.
        delay: s, the longest wait before a message, for tests of orders; drawn by ``seed``.
        seed: of the delays.
    """

    process: int
    processes: int
    crashes: int
    synchronous: bool
    rule: str
    ballot: tuple[int, ...]
    token: str
    timeout: float
    die_after: int | None = None
    delay: float = 0.0
    seed: int = 0

    @property
    def rounds(self) -> int:
        """How many messages each other process is sent."""
        return self.crashes + 1 if self.synchronous else 2


class Process:
    """A process's connections and what came over them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.heard: dict[int, dict[int, Rankings]] = {r: {} for r in range(1, task.rounds + 1)}
        """Of each round, by sender, in the order in which messages came."""
        self.joined: set[int] = set()
        self.gone: set[int] = set()
        self.late: set[int] = set()
        self.first = {task.process}
        """Whose ballots it went on with after the first round."""
        self._news = asyncio.Condition()
        self._out: dict[int, asyncio.StreamWriter] = {}
        self._sent = 0
        self._random = random.Random(f"{task.seed}/{task.process}")

    async def listen(self) -> asyncio.Server:
        """Opens a port for the others."""
        limit = longest(self.task.processes, len(self.task.ballot))
        return await asyncio.start_server(self._serve, HOST, 0, limit=limit)

    async def join(self, ports: dict[int, int]) -> None:
        """Connects to each of the others; one that refuses is gone."""
        for peer, port in ports.items():
            try:
                _, writer = await asyncio.open_connection(HOST, port)
                writer.write(hello(self.task.process, self.task.token))
                await writer.drain()
                self._out[peer] = writer
            except OSError:
                await self.lose(peer)

    async def lose(self, peer: int) -> None:
        """Takes note that a process is gone."""
        async with self._news:
            self.gone.add(peer)
            self._news.notify_all()

    async def met(self, peers: set[int]) -> None:
        """Waits until each of ``peers`` has connected or is gone."""
        async with self._news:
            await self._news.wait_for(lambda: peers <= self.joined | self.gone)

    async def decide(self) -> tuple[int, ...] | None:
        """Runs the protocol; returns the ranking decided, None where too few were heard of."""
        return await (self._synchronous() if self.task.synchronous else self._asynchronous())

    async def leave(self) -> None:
        """Ends its connections once all that was sent is on its way."""
        for writer in self._out.values():
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _synchronous(self) -> tuple[int, ...]:
        known: Rankings = {self.task.process: self.task.ballot}
        for r in range(1, self.task.rounds + 1):
            await self._tell(r, known)
            await self._wait(r, lambda r=r: set(self._out) <= set(self.heard[r]) | self.gone)
            silent = set(self._out) - set(self.heard[r]) - self.gone
            self.late |= silent
            self.gone |= silent
            for rankings in self.heard[r].values():
                known = rankings | known
            if r == 1:
                self.first = set(known)
        return aggregate(self.task.rule, known)

    async def _asynchronous(self) -> tuple[int, ...] | None:
        enough = self.task.processes - self.task.crashes
        said = self.task.ballot
        for r in (1, 2):
            await self._tell(r, {self.task.process: said})
            if not await self._wait(r, lambda r=r: len(self.heard[r]) >= enough - 1):
                return None
            # The first to come, in the order in which they came, and its own.
            first = dict(list(self.heard[r].items())[: enough - 1])
            found = {peer: rankings[peer] for peer, rankings in first.items()} | {self.task.process: said}
            if r == 1:
                self.first, said = set(found), aggregate(self.task.rule, found)
            else:
                said = found[min(found)]
        return said

    async def _tell(self, r: int, rankings: Rankings) -> None:
        """Sends a round's message to each of the others in turn; may die between two of them."""
        line = message(r, rankings)
        for peer in sorted(self._out):
            if self.task.die_after is not None and self._sent >= self.task.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.task.delay:
                await asyncio.sleep(self._random.random() * self.task.delay)
            self._sent += 1
            with contextlib.suppress(OSError):
                self._out[peer].write(line)
                await self._out[peer].drain()
        if self.task.die_after is not None and self._sent >= self.task.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async def _wait(self, r: int, done: Any) -> bool:
        try:
            async with asyncio.timeout(self.task.timeout), self._news:
                await self._news.wait_for(done)
        except TimeoutError:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads one connection to its end. Whoever breaks the form of messages is as good as crashed."""
        task, peer = self.task, None
        try:
            who = read_hello(await reader.readline(), task.token, task.processes)
            if who == task.process or who in self.joined:
                return
            peer = who
            async with self._news:
                self.joined.add(peer)
                self._news.notify_all()
            while line := await reader.readline():
                r, rankings = read_message(
                    line, processes=task.processes, plans=len(task.ballot), rounds=task.rounds
                )  # fmt: skip
                if peer in self.heard[r] or (not task.synchronous and set(rankings) != {peer}):
                    return
                async with self._news:
                    self.heard[r][peer] = rankings
                    self._news.notify_all()
        except (ValueError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # not one of us, or broken, or the vote is over: the end of the connection says it all
        finally:
            writer.close()
            if peer is not None:
                await self.lose(peer)


def aggregate(rule: str, rankings: Rankings) -> tuple[int, ...]:
    """Returns the ranking of some ballots by a rule of `policy.vote`."""
    import numpy as np

    from fleetcast.base.spec import build
    from fleetcast.policy import vote

    ballots = np.array([rankings[i] for i in sorted(rankings)], dtype=np.int64)
    return tuple(int(x) for x in build(vote, rule, "rule").decide(ballots))


async def run(task: Task) -> dict[str, Any]:
    """Takes part in a vote, told by standard input; returns what is said at the end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    process = Process(task)
    server = await process.listen()
    _say({"port": server.sockets[0].getsockname()[1]})
    ports = {int(i): int(p) for i, p in (await _line(reader))["ports"].items()}
    await process.join(ports)
    ready = asyncio.create_task(process.met(set(ports)))
    ready.add_done_callback(lambda _: _say({"ready": True}))
    while "start" not in (told := await _line(reader)):
        await process.lose(int(told["gone"]))
    await ready
    decided = await process.decide()
    await process.leave()
    server.close()
    return {
        "decided": decided, "late": sorted(process.late), "heard": sorted(process.first),
    }  # fmt: skip


async def _line(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readline()
    if not line:
        raise SystemExit(0)
    found: dict[str, Any] = json.loads(line)
    return found


def _say(table: dict[str, Any]) -> None:
    print(json.dumps(table), flush=True)


def main() -> int:
    """Reads the task and takes part."""
    table = json.loads(sys.stdin.buffer.readline())
    _say(asyncio.run(run(Task(**table | {"ballot": tuple(table["ballot"])}))))
    return 0
