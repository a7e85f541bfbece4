"""A vote among processes of this machine that may crash: starts them, gathers decisions, holds them to the promise.

The one that starts them takes no part in the vote: it hands out ports and the word to begin, and reads decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.runtime.vote.process import Task

MOST = 64
"""Processes that a vote may have here."""
STARTING = 60.0
"""s until all processes listen."""
TIMEOUT = 10.0
"""s that a silent process is waited for."""


@dataclass(frozen=True)
class Faults:
    """What is done to the processes of a vote, for tests of crashes.

    Attributes:
        die_after: by process, messages after which it kills itself with SIGKILL.
        kill_at: by process, s after the start at which it is killed from outside.
        delay: s, the longest wait before a message.
        seed: of the waits.
    """

    die_after: Mapping[int, int] = field(default_factory=dict)
    kill_at: Mapping[int, float] = field(default_factory=dict)
    delay: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Vote:
    """What the processes decided.

    Attributes:
        ballots: by process.
        decided: by process; None = it crashed, or heard of too few.
        crashed: processes that ended without a word.
        late: processes that some process took for crashed without a sign of it: the run was not synchronous.
        heard: by process, whose ballots it went on with after the first round.
        promised: different rankings at most.
        rounds: of messages.
    """

    ballots: tuple[tuple[int, ...], ...]
    decided: tuple[tuple[int, ...] | None, ...]
    crashed: tuple[int, ...]
    late: tuple[int, ...]
    heard: tuple[tuple[int, ...], ...]
    promised: int
    rounds: int

    @property
    def different(self) -> int:
        """How many different rankings were decided."""
        return len({d for d in self.decided if d is not None})

    def parted(self) -> list[tuple[int, int, int]]:
        """Returns (process, a, b) for each decision that ranks b above a though every ballot ranks a above b."""
        return [
            (i, a, b)
            for i, ranking in enumerate(self.decided) if ranking is not None
            for a, b in agreed(self.ballots) if ranking.index(a) > ranking.index(b)
        ]  # fmt: skip

    @property
    def kept(self) -> bool:
        """Whether every process that did not crash decided, as few rankings as promised, and unanimity held."""
        all_decided = all(d is not None for i, d in enumerate(self.decided) if i not in self.crashed)
        return all_decided and self.different <= self.promised and not self.parted()


def agreed(ballots: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Returns the pairs (a, b) that every ballot ranks a above b.

    Example:
        >>> agreed([(0, 1, 2), (1, 0, 2)])
        [(0, 2), (1, 2)]
    """
    plans = range(len(ballots[0]))
    return [(a, b) for a in plans for b in plans if all(v.index(a) < v.index(b) for v in ballots) and a != b]


def promised(crashes: int, *, synchronous: bool) -> int:
    """Returns how many different rankings the protocol decides at most, while no more than ``crashes`` crash."""
    return 1 if synchronous else crashes + 1


def hold(
    ballots: Sequence[Sequence[int]], *, crashes: int, synchronous: bool = True, rule: str = "kemeny",
    faults: Faults | None = None, timeout: float = TIMEOUT,
) -> Vote:  # fmt: skip
    """Lets a process for each ballot vote.

    Args:
        ballots: rankings of the same plans, by their numbers, best first.
        crashes: that the protocol bears.
        synchronous: whether silence for ``timeout`` seconds counts as a crash; otherwise no clock decides anything.
        rule: kind of `policy.vote`.
        faults: what is done to them.
        timeout: s.

    Raises:
        SpecError: too many processes or crashes; they do not start.
    """
    if not 1 <= len(ballots) <= MOST:
        raise SpecError("ballots", "make as many processes", value=len(ballots), limit=f"1 to {MOST}")
    if not 0 <= crashes < len(ballots):
        raise SpecError(
            "--crashes", "leaves no process that decides", value=crashes, limit=f"0 to {len(ballots) - 1}",
            hint="Bear fewer crashes, or let more vote",
        )  # fmt: skip
    given = faults or Faults()
    token = secrets.token_hex(16)
    tasks = [
        Task(
            i, len(ballots), crashes, synchronous, rule, tuple(int(x) for x in ballot), token, timeout,
            given.die_after.get(i), given.delay, given.seed,
        )
        for i, ballot in enumerate(ballots)
    ]  # fmt: skip
    return asyncio.run(_conduct(tasks, given))


async def _conduct(tasks: list[Task], faults: Faults) -> Vote:
    program = (sys.executable, "-m", "fleetcast.runtime.vote")
    pipe = asyncio.subprocess.PIPE
    one = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = []
    try:
        for _ in tasks:
            started.append(await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, env=one))
        for process, task in zip(started, tasks, strict=True):
            await _tell(process, asdict(task))
        async with asyncio.timeout(STARTING):
            found = await asyncio.gather(*(_hear(p) for p in started))
            ports = {i: said["port"] for i, said in enumerate(found) if said is not None}
            for i in ports:
                await _tell(started[i], {"ports": {j: port for j, port in ports.items() if j != i}})
            await _ready(started, set(ports))
        for process in started:
            await _tell(process, {"start": True})
    except TimeoutError:
        for process in started:
            _kill(process)
        raise SpecError(
            "ballots", f"make processes that did not start within {STARTING:.0f} s", value=len(tasks),
            hint="Let fewer vote, or wait until the machine is less busy",
        ) from None  # fmt: skip
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(at, _kill, started[i]) for i, at in faults.kill_at.items()]
    # Rounds wait for each other, so that a vote takes at most this long.
    limit = (tasks[0].timeout + faults.delay * len(tasks)) * (tasks[0].rounds + 1)
    said: list[dict[str, Any] | None] = [None] * len(started)
    try:
        said = list(await asyncio.gather(*(_last(process, limit) for process in started)))
    finally:
        for timer in timers:
            timer.cancel()
        for process in started:
            _kill(process)
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
    decided = tuple(None if s is None or s["decided"] is None else tuple(s["decided"]) for s in said)
    return Vote(
        tuple(task.ballot for task in tasks), decided, tuple(i for i, s in enumerate(said) if s is None),
        tuple(sorted({i for s in said if s is not None for i in s["late"]})),
        tuple(() if s is None else tuple(s["heard"]) for s in said),
        promised(tasks[0].crashes, synchronous=tasks[0].synchronous), tasks[0].rounds,
    )  # fmt: skip


async def _ready(started: list[asyncio.subprocess.Process], alive: set[int]) -> None:
    """Waits until all are connected, and tells the others of each that goes before."""
    waiting = {asyncio.create_task(_hear(started[i])): i for i in alive}
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            i = waiting.pop(task)
            if task.result() is None:
                for j in alive - {i}:
                    await _tell(started[j], {"gone": i})


async def _last(process: asyncio.subprocess.Process, limit: float) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(limit):
            return await _hear(process)
    except TimeoutError:
        return None


async def _hear(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """Returns what a process says next; None = it has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    found: dict[str, Any] = json.loads(line)
    return found


async def _tell(process: asyncio.subprocess.Process, table: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it is gone: its silence says so
        process.stdin.write(json.dumps(table).encode() + b"\n")
        await process.stdin.drain()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
