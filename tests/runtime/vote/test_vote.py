"""Real processes that are killed at any step: those that live decide what was promised."""

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import asdict

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.vote import Faults, Vote, agreed, hold, promised
from fleetcast.runtime.vote.messages import hello, message
from fleetcast.runtime.vote.process import Process, Task

BALLOTS = [[0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3], [0, 2, 1, 3], [1, 0, 2, 3]]
"""All rank plan 3 last; the rest is a circle."""


def check(found: Vote, crashes: int) -> None:
    assert found.kept, found
    assert len(found.crashed) <= crashes
    assert not found.late
    for i, ranking in enumerate(found.decided):
        assert (ranking is None) == (i in found.crashed)
        assert ranking is None or all(ranking.index(a) < ranking.index(b) for a, b in agreed(BALLOTS))
    assert found.different <= found.promised


def test_five_processes_without_faults_decide_the_ranking_of_all() -> None:
    found = hold(BALLOTS, crashes=2)
    check(found, 0)
    assert set(found.decided) == {(0, 1, 2, 3)}
    assert found.heard == ((0, 1, 2, 3, 4),) * 5
    assert found.rounds == 3


@pytest.mark.parametrize("seed", range(3))
def test_two_crashes_in_the_midst_of_messages_leave_one_ranking(seed: int) -> None:
    """Each of two kills itself with SIGKILL between two of its 12 messages, so that a part of the others heard it."""
    draw = random.Random(seed)
    dying = draw.sample(range(5), 2)
    found = hold(BALLOTS, crashes=2, faults=Faults({i: draw.randrange(12) for i in dying}, {}, 0.005, seed))
    check(found, 2)
    assert found.crashed == tuple(sorted(dying))
    assert found.different == 1


@pytest.mark.parametrize("seed", range(2))
def test_without_a_clock_at_most_f_plus_one_rankings_are_decided(seed: int) -> None:
    draw = random.Random(seed)
    dying = draw.sample(range(5), 2)
    found = hold(
        BALLOTS, crashes=2, synchronous=False,
        faults=Faults({dying[0]: draw.randrange(8)}, {dying[1]: draw.random() * 0.05}, 0.02, seed),
    )  # fmt: skip
    check(found, 2)
    assert found.promised == promised(2, synchronous=False) == 3
    assert dying[0] in found.crashed


def test_more_crashes_than_borne_leave_the_rest_undecided_not_wrong() -> None:
    found = hold(BALLOTS[:3], crashes=1, synchronous=False, faults=Faults({0: 0, 1: 0}), timeout=0.5)
    assert found.crashed == (0, 1)
    assert found.decided == (None, None, None)
    assert not found.kept


def test_one_process_decides_its_own_ballot() -> None:
    assert hold([[1, 0]], crashes=0).decided == ((1, 0),)


@pytest.mark.parametrize(("ballots", "crashes"), [([[0]], 1), ([[0, 1]] * 65, 1), ([[0, 1]] * 3, -1), ([], 0)])
def test_what_cannot_be_held_is_refused(ballots: list[list[int]], crashes: int) -> None:
    with pytest.raises(SpecError):
        hold(ballots, crashes=crashes)


def task(**changes: object) -> Task:
    return Task(**(asdict(Task(0, 3, 1, True, "borda", (0, 1, 2), "secret", 0.3)) | changes))


def test_strangers_and_liars_are_not_heard() -> None:
    """Another token, another process's number, noise and endless lines: none changes what is known."""

    async def play() -> Process:
        process = Process(task())
        server = await process.listen()
        port = server.sockets[0].getsockname()[1]
        good = message(1, {1: (2, 1, 0)})
        for sent in (
            hello(1, "guess") + good, hello(0, "secret") + good, b"\xff\n", b"x" * 100_000,
            hello(2, "secret") + b'{"round": 1, "rankings": {"2": [0, 0, 0]}}\n',
            hello(1, "secret") + good + message(1, {1: (0, 1, 2)}), hello(1, "secret") + message(2, {1: (0, 1, 2)}),
        ):  # fmt: skip
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        server.close()
        return process

    found = asyncio.run(play())
    assert found.heard == {1: {1: {1: (2, 1, 0)}}, 2: {}}
    assert found.joined == {1, 2}
    assert found.gone == {1, 2}


def test_a_process_that_is_told_nothing_ends() -> None:
    async def play() -> int | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fleetcast.runtime.vote", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(task())).encode() + b"\n")
        await process.stdin.drain()
        assert "port" in json.loads(await process.stdout.readline())
        process.stdin.close()
        return await asyncio.wait_for(process.wait(), 20)

    assert asyncio.run(play()) == 0
