"""An agent: it offers a device to an orchestrator, runs what its allow-list allows, and says what came of it.

It leaves nothing running for an orchestrator that it has lost: when its connection ends, or its lease (see `messages`),
it stops its attempts, then tries to come back, waiting longer each time. Results that were under way then are kept
until the orchestrator says it has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import FleetcastError, MissingExtra
from fleetcast.runtime.agents import allowed as lists
from fleetcast.runtime.agents.messages import (
    GRACE,
    MOST,
    VERSION,
    BadMessage,
    Begin,
    Done,
    End,
    FromAgent,
    Message,
    Progress,
    Pulse,
    Refuse,
    Register,
    Stop,
    Welcome,
    Withdraw,
    encode,
    from_agent,
    to_agent,
)

try:
    import aiohttp
except ImportError:
    raise MissingExtra("aiohttp", "agents") from None

TOKEN: Final = "FLEETCAST_AGENT_TOKEN"
"""Environment variable with the orchestrator's token."""
BACKOFF: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""s between tries to come back, each drawn from half of it to all of it; UFO3's."""
KNOWN: Final = 10_000
"""Attempts that an agent remembers having been told of."""
_PATIENCE: Final = 10.0
_SLOW: Final = 60.0


class Lost(FleetcastError):
    """The orchestrator cannot be reached, or does not want this agent."""

    exit_code = 1


@dataclass
class _Attempt:
    """One that runs: how long it may, when it must be over, when it was told so, and which it lies behind."""

    limit: float
    late: float
    stopped: float = 0.0
    after: int = 0


class Agent:
    """A device that runs tasks.

    Args:
        url: of the orchestrator, ws:// or wss://.
        name: unique among its agents.
        token: the orchestrator's.
        allow: file of the allow-list; None = "sleep" and "spin" only.
        slots: attempts at once, over the list's.
        backoff: s to wait before each try to come back; after the last it gives up.
        say: called with what happens, in sentences.
    """

    def __init__(
        self, url: str, name: str, token: str, *, allow: Path | None = None, slots: int | None = None,
        backoff: tuple[float, ...] = BACKOFF, say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._url, self._name, self._token, self._backoff, self._say = url, name, token, backoff, say
        self._path = str(allow.resolve()) if allow is not None else ""
        self._allowed = lists.read(allow)
        self._slots = slots or self._allowed.slots
        self._session = secrets.randbits(53)
        self._running: dict[int, _Attempt] = {}
        self._known: dict[int, None] = {}
        self._kept: list[Done] = []  # results that the orchestrator may not have
        self._sent = 0  # results in this connection, those forgotten since included
        self._through = False  # whether all that was kept has been sent
        self._number = 0
        self._pulses: dict[int, float] = {}
        self._answered = 0.0
        self._most = MOST
        self._socket: Any = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: list[bytes] = []  # for the next worker
        self._there, self._able = asyncio.Event(), False  # whether the first worker was ever heard of, and well
        self._over = asyncio.Event()

    def leave(self) -> None:
        """Ends the agent: it says so and stops what it runs."""
        self._over.set()
        if self._socket is not None and not self._socket.closed:
            asyncio.get_running_loop().create_task(self._goodbye())

    async def serve(self) -> None:
        """Serves until told to leave, or told by the orchestrator that all is done.

        Raises:
            Lost: it is refused, or cannot come back.
        """
        tries = 0
        await self._start()
        try:
            async with asyncio.timeout(_SLOW):
                await self._there.wait()  # the first task is not to wait for it
            if not self._able:
                raise Lost("the process that is to run tasks ended at once")
            async with aiohttp.ClientSession() as http:
                while not self._over.is_set():
                    try:
                        if await self._connected(http):
                            return
                        tries, why = 0, "the connection ended"
                    except (aiohttp.ClientError, OSError, TimeoutError) as error:
                        why = str(error) or type(error).__name__
                        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
                            raise Lost(f"{self._url} refuses this agent: {error.status}, {error.message}") from None
                    if self._over.is_set():
                        return
                    if tries >= len(self._backoff):
                        raise Lost(f"{self._url} is lost after {tries} tries: {why}")
                    wait = self._backoff[tries] * random.uniform(0.5, 1.0)
                    tries += 1
                    self._say(f"{why}; trying again in {wait:.1f} s")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._over.wait(), wait)
        finally:
            await self._end_worker()

    async def _connected(self, http: Any) -> bool:
        """One connection from its begin to its end; returns whether the orchestrator has ended it on purpose."""
        head = {"Authorization": f"Bearer {self._token}"}
        self._pulses, self._number, self._sent = {}, 0, 0
        begun = time.monotonic()
        timeout = aiohttp.ClientWSTimeout(ws_close=1.0)
        async with asyncio.timeout(_PATIENCE):
            socket = await http.ws_connect(self._url, headers=head, max_msg_size=MOST, timeout=timeout, autoping=True)
        self._socket = socket
        try:
            await self._send(self._hello())
            async with asyncio.timeout(_PATIENCE):
                welcome = await self._next()
            if isinstance(welcome, Refuse):
                raise Lost(f"{self._url}: {welcome.reason}") if welcome.final else aiohttp.ClientError(welcome.reason)
            if not isinstance(welcome, Welcome):
                return False
            self._most, self._answered = min(MOST, welcome.most), begun
            self._say(f"connected to {self._url} as {self._name}")
            while self._sent < len(self._kept):  # what ends meanwhile joins the end of the row
                self._sent += 1
                await self._send(self._kept[self._sent - 1])
            self._through = True
            hear, live = asyncio.create_task(self._hear()), asyncio.create_task(self._live(welcome))
            try:
                await asyncio.wait({hear, live}, return_when=asyncio.FIRST_COMPLETED)
                return hear.result() if hear.done() else False
            finally:
                for task in (hear, live):
                    task.cancel()
                await asyncio.gather(hear, live, return_exceptions=True)
        except BadMessage as error:
            raise Lost(f"{self._url} says what is no message: {error}") from None
        finally:
            self._socket, self._through = None, False
            await self._stop_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await socket.close()

    def _hello(self) -> Register:
        return Register(
            version=VERSION, agent=self._name, session=self._session, kinds=list(self._allowed.kinds),
            calls=lists.names(self._allowed), slots=self._slots, programs=lists.programs(self._allowed),
        )  # fmt: skip

    async def _next(self) -> Any:
        message = await self._socket.receive()
        if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            return None
        return to_agent(message.data, MOST)

    async def _hear(self) -> bool:
        while (message := await self._next()) is not None:
            if isinstance(message, Begin):
                self._begin(message)
            elif isinstance(message, Pulse):
                self._answered = max(self._answered, self._pulses.pop(message.number, 0.0))
                if message.results:
                    had = min(message.results, self._sent)
                    del self._kept[: max(0, had - (self._sent - len(self._kept)))]
            elif isinstance(message, Stop):
                self._stop(message.attempt)
            elif isinstance(message, Withdraw):
                self._tell(message)
            elif isinstance(message, End):
                self._say(f"the orchestrator has ended: {message.reason}" if message.reason else "done")
                return True
            elif isinstance(message, Refuse):
                raise Lost(f"{self._url}: {message.reason}")
        return False

    async def _live(self, welcome: Welcome) -> None:
        """Says that it lives, ends attempts that take too long, and the connection when the lease is over."""
        beat, last = welcome.pulse, 0.0
        tick = min(beat / 2, 0.1)
        while True:
            now = time.monotonic()
            if now - last >= beat:
                last, self._number = now, self._number + 1
                self._pulses[self._number] = now
                while len(self._pulses) > 1000:
                    del self._pulses[next(iter(self._pulses))]
                # a full network must not keep this loop from seeing that the lease is over
                asyncio.get_running_loop().create_task(self._send(Pulse(number=self._number)))
            if now - self._answered > welcome.lease:
                self._say("the orchestrator does not answer")
                return
            self._end_late(now)
            await asyncio.sleep(tick)

    def _end_late(self, now: float) -> None:
        for attempt, running in list(self._running.items()):
            if running.stopped and now > running.stopped + GRACE:
                self._kill()
                return
            if not running.stopped and now > running.late:
                self._stop(attempt)

    def _begin(self, begin: Begin) -> None:
        if begin.attempt in self._known:
            return  # said twice; its result is kept until the orchestrator has it
        self._known[begin.attempt] = None
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        call = self._allowed.calls.get(begin.call)
        own = call.timeout if call is not None and call.timeout is not None else 0.0
        limits = [t for t in (begin.timeout, own) if t]
        limit = min(limits) if limits else float("inf")
        after = begin.after if begin.after in self._running else 0
        late = float("inf") if after else time.monotonic() + limit
        self._running[begin.attempt] = _Attempt(limit, late, after=after)
        self._tell(begin)

    def _stop(self, attempt: int) -> None:
        if (running := self._running.get(attempt)) is not None and not running.stopped:
            running.stopped = time.monotonic()
            self._tell(Stop(attempt=attempt))

    async def _stop_all(self) -> None:
        """Stops every attempt, by force after a while."""
        for attempt in list(self._running):
            self._stop(attempt)
        until = time.monotonic() + GRACE
        while self._running and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._running:
            self._kill()

    def _tell(self, message: Message) -> None:
        """Says something to the worker; while one is started it waits."""
        line = encode(message, 2 * MOST) + b"\n"
        process = self._process
        if process is None:
            self._waiting.append(line)
        elif process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(line)

    async def _start(self) -> None:
        env = {k: v for k, v in os.environ.items() if k != TOKEN}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fleetcast.runtime.agents.worker", self._path, str(MOST), env=env, limit=4 * MOST,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._process = process
        assert process.stdin is not None
        process.stdin.writelines(self._waiting)
        self._waiting.clear()
        self._reader = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hands on what the worker says; when it dies, so have its attempts, and another is started."""
        assert process.stdout is not None
        with contextlib.suppress(ValueError, BadMessage, ConnectionError):
            while line := await process.stdout.readline():
                await self._heard(from_agent(line, 2 * MOST))
        _by_force(process)
        lost, self._process = list(self._running.items()), None
        await process.wait()
        self._there.set()
        for attempt, running in lost:
            died = Done(attempt=attempt, how="lost", error="the process that ran it died")
            await self._done(_stopped(attempt, running) if running.stopped else died)
        if not self._over.is_set() and self._able:
            await self._start()

    async def _heard(self, message: FromAgent) -> None:
        if isinstance(message, Pulse):
            self._able = True
            self._there.set()
        elif isinstance(message, Progress) and message.attempt in self._running:
            await self._send(message)
        elif isinstance(message, Done) and (running := self._running.get(message.attempt)) is not None:
            await self._done(_stopped(message.attempt, running) if message.how == "stopped" else message)

    async def _done(self, done: Done) -> None:
        self._running.pop(done.attempt, None)
        for running in self._running.values():
            if running.after == done.attempt:
                running.after, running.late = 0, time.monotonic() + running.limit
        self._kept.append(done)
        if self._through:
            self._sent += 1
            await self._send(done)

    async def _send(self, message: FromAgent) -> None:
        if self._socket is not None and not self._socket.closed:
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._socket.send_bytes(encode(message, MOST))

    async def _goodbye(self) -> None:
        await self._send(End(reason="leaves"))
        if self._socket is not None:
            await self._socket.close()

    def _kill(self) -> None:
        """Ends the worker; another is started when its end has been noticed."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.close()  # it ends its commands, then itself
            asyncio.get_running_loop().call_later(GRACE, _by_force, process)

    async def _end_worker(self) -> None:
        self._over.set()
        self._kill()
        if self._reader is not None:
            await self._reader


def _stopped(attempt: int, running: _Attempt) -> Done:
    """What is said of an attempt that was stopped: why."""
    if running.stopped < running.late:
        return Done(attempt=attempt, how="stopped")
    return Done(attempt=attempt, how="late", error=f"took longer than {running.limit:g} s", seconds=running.limit)


def _by_force(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def serve(agent: Agent) -> None:
    """Serves an agent until it is done, or SIGINT or SIGTERM ends it.

    Raises:
        Lost: as `Agent.serve`.
    """
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(sign, agent.leave)
    await agent.serve()
