"""The thread that owns the engine: takes requests, steps, makes tokens into text and hands it to the event loop.

The engine is for one thread, HTTP is for another. They meet in two queues: what to do (submit, cancel), taken between
iterations, and what came of it, handed over once an iteration. The second holds one iteration: where the event loop
does not keep up, the engine waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from fleetcast.base.errors import FleetcastError, PolicyError
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.requests import Request, Token
from fleetcast.runtime.llm.sampling import Choice, Sampling
from fleetcast.runtime.llm.text import Writer
from fleetcast.runtime.serve.metrics import Metrics

AHEAD: Final = 1
"""Iterations whose tokens may wait for the event loop: one, so that each token has an event of its own."""
PATIENCE: Final = 2.0
"""s for which a policy may run nothing though requests are here."""
_log = logging.getLogger(__name__)


class Delta(NamedTuple):
    """What came of a job: a token with the text that it makes sayable, its end, or an error, which ends it too."""

    choice: Choice | None
    text: str
    finish: str
    error: Exception | None = None


class Mailbox:
    """What came of the jobs of one HTTP request, by job. Belongs to the event loop.

    Args:
        most: deltas that may wait; more mean that the reader is too slow.
        overflow: called once when there are more.
    """

    def __init__(self, most: int, overflow: Callable[[], None]) -> None:
        self._most, self._overflow = most, overflow
        self._waiting: deque[tuple[int, Delta]] = deque()
        self._came = asyncio.Event()
        self.full = False

    def put(self, index: int, delta: Delta) -> None:
        """Adds what came of job ``index``."""
        if self.full:
            return
        self._waiting.append((index, delta))
        if len(self._waiting) > self._most:
            self.full = True
            self._waiting.clear()
            self._overflow()
        self._came.set()

    async def take(self) -> list[tuple[int, Delta]]:
        """Returns all that waits, at least one; nothing where it was too much."""
        await self._came.wait()
        self._came.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found


@dataclass(eq=False)
class Job:
    """One answer to be made. From ``request`` on, what is known of it belongs to the worker.

    Attributes:
        prompt: token ids.
        limit: most tokens.
        sampling: how they are chosen.
        writer: makes them into text.
        box: where they go.
        index: of this job in it.
        salt: the prefix cache shares its blocks with jobs of the same salt only.
        born: when it was asked for, s of ``time.perf_counter``.
        count: tokens that were handed over.
        caches: whether the engine keeps a prefix cache.
    """

    prompt: Sequence[int]
    limit: int
    sampling: Sampling
    writer: Writer
    box: Mailbox
    index: int
    salt: str = ""
    born: float = field(default_factory=time.perf_counter)
    request: Request | None = None
    last: float = 0.0
    count: int = 0
    caches: bool = False
    over: bool = False

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that the prefix cache held; None where none is kept."""
        return self.request.cached if self.caches and self.request is not None else None


class Worker:
    """Runs an engine in a thread of its own.

    Args:
        engine: belongs to the thread from `start` on.
        loop: where answers are read.
        metrics: counts.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
        self.engine, self._loop, self._metrics = engine, loop, metrics
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(AHEAD)
        self._jobs: dict[int, Job] = {}
        self._out: list[tuple[Job, Delta]] = []
        self._stopping = False
        self._idle_since = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine, about: it is asked from another thread."""
        line = self.engine.schedule
        return len(line.waiting) + len(line.resumed) + self._orders.qsize()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hands jobs to the engine. Each one's last delta has a finish or an error."""
        self._orders.put(partial(self._submit, jobs))

    def cancel(self, jobs: Sequence[Job], reason: str) -> None:
        """Ends jobs that nobody waits for any more; no delta comes of it. Those that are over are left alone."""
        self._orders.put(partial(self._cancel, jobs, reason))

    def end_all(self, error: Exception, reason: str) -> None:
        """Ends all jobs with an error."""
        self._orders.put(partial(self._end_all, error, reason))

    def stop(self) -> None:
        """Lets the thread end after what it was told before; `join` waits for it."""
        self._orders.put(self._stop)

    def join(self, timeout: float) -> bool:
        """Waits for the thread's end; the event loop must run meanwhile. Returns whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._obey()
                if self.engine.load:
                    self._step()
                else:
                    self._idle_since = 0.0
                self._hand_over()
        except Exception as error:  # a fault of ours: nobody may wait for ever for what will not come
            _log.exception("the engine's thread ends")
            self._stopping = True
            self._out += [(job, Delta(None, "", "", error)) for job in self._jobs.values()]
            self._hand_over()
        finally:
            self.engine.close()

    def _obey(self) -> None:
        """Does what it was told; waits for something where there is nothing else to do."""
        wait: float | None = 0.0 if self.engine.load else None
        if self._idle_since:
            wait = max(0.0, self._idle_since + PATIENCE - time.perf_counter())
        while True:
            try:
                order = self._orders.get(block=wait != 0.0, timeout=wait)
            except queue.Empty:
                return
            wait = 0.0
            order()

    def _submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                made = self.engine.submit(job.prompt, job.limit, job.sampling, partial(self._token, job), job.salt)
            except Exception as error:
                self._end(job, "refused", error)
                continue
            job.request, job.last, job.caches = made, job.born, self.engine.schedule.prefixes is not None
            self._jobs[made.id] = job

    def _cancel(self, jobs: Sequence[Job], reason: str) -> None:
        for job in jobs:
            if not job.over:
                self._end(job, reason, None)

    def _end_all(self, error: Exception, reason: str) -> None:
        for job in list(self._jobs.values()):
            self._end(job, reason, error)

    def _stop(self) -> None:
        self._stopping = True

    def _step(self) -> None:
        try:
            found = self.engine.step()
        except Exception as error:
            if not isinstance(error, FleetcastError):
                _log.exception("an iteration failed")
            self._end_all(error, "engine")
            return
        if found is not None:
            self._idle_since = 0.0
            self._metrics.iteration(found)
            self.engine.iterations.clear()  # a server runs for months
        elif not self._idle_since:
            self._idle_since = time.perf_counter()
        elif time.perf_counter() - self._idle_since > PATIENCE:
            self._idle_since = 0.0
            kind = type(self.engine.schedule.batch).__name__
            self._end_all(PolicyError(f"{kind}.compose runs nothing, with {self.engine.load} requests here"), "engine")

    def _token(self, job: Job, token: Token) -> None:
        """Makes a token into text; ends the job at a stop string."""
        if job.over:  # at a token before, of the same iteration
            return
        try:
            text, stopped = job.writer.feed(token.choice.token, bool(token.finish))
        except Exception as error:
            _log.exception("a token could not be made into text")
            self._end(job, "engine", error)
            return
        now = time.perf_counter()
        request = job.request
        assert request is not None  # its tokens come after it
        self._metrics.token(None if job.count else now - job.born, now - job.last)
        job.last, job.count = now, job.count + 1
        finish = "stop" if stopped else token.finish
        self._out.append((job, Delta(token.choice, text, finish)))
        if finish:
            self._close(job)
            self._metrics.ended(finish, request, job.count, job.cached, job.born, now)

    def _end(self, job: Job, reason: str, error: Exception | None) -> None:
        """Ends a job before its time."""
        self._close(job)
        self._metrics.failed(reason)
        if error is not None:
            self._out.append((job, Delta(None, "", "", error)))

    def _close(self, job: Job) -> None:
        job.over = True
        if job.request is not None:
            self.engine.cancel(job.request)
            self._jobs.pop(job.request.id, None)

    def _hand_over(self) -> None:
        if not self._out:
            return
        out, self._out = self._out, []
        self._room.acquire()
        try:
            self._loop.call_soon_threadsafe(self._spread, out)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._room.release()

    def _spread(self, out: Sequence[tuple[Job, Delta]]) -> None:
        """Puts what came where it belongs; runs in the event loop."""
        self._room.release()
        for job, delta in out:
            job.box.put(job.index, delta)
