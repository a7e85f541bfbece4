"""What an orchestrator makes of an agent that says things twice, late, for others, or nothing that makes sense."""

import asyncio
import contextlib
import random

import pytest

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")

import aiohttp

from fleetcast.runtime.agents.messages import (
    VERSION,
    BadMessage,
    Begin,
    Done,
    End,
    Progress,
    Pulse,
    Register,
    Welcome,
    encode,
    to_agent,
)
from fleetcast.runtime.agents.orchestrator import Orchestrator
from fleetcast.scenario.workload.edits import State
from tests.runtime.agents.fleet import constellation, run


class Puppet:
    """An agent that says what a test makes it say."""

    def __init__(self, orchestrator, name="puppet", session=1, kept=()):
        self._orchestrator, self.name, self._session, self._kept = orchestrator, name, session, kept

    async def __aenter__(self):
        self._http = aiohttp.ClientSession()
        self.socket = await self._http.ws_connect(
            self._orchestrator.url, headers={"Authorization": f"Bearer {self._orchestrator.token}"}
        )
        await self.say(Register(version=VERSION, agent=self.name, session=self._session, calls=["sleep"]))
        assert isinstance(await self.hear(), Welcome)
        for message in (*self._kept, Pulse(number=1)):
            await self.say(message)
        return self

    async def __aexit__(self, *error):
        await self.socket.close()
        await self._http.close()

    async def say(self, message):
        await self.socket.send_bytes(message if isinstance(message, bytes) else encode(message))

    async def hear(self, kind=None):
        async with asyncio.timeout(5):
            while True:
                message = await self.socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    return None
                said = to_agent(message.data)
                if kind is None or isinstance(said, kind):
                    return said


@contextlib.asynccontextmanager
async def orchestrated(**settings):
    orchestrator = Orchestrator(**{"pulse": 0.1, "lease": 2.0} | settings)
    await orchestrator.start()
    try:
        yield orchestrator
    finally:
        await orchestrator.stop()


def test_duplicates_strangers_and_late_words_change_nothing():
    async def go():
        async with (
            orchestrated() as orchestrator,
            Puppet(orchestrator) as puppet,
            Puppet(orchestrator, "other") as other,
        ):
            heard = []
            tasks = {"a": {"device": "puppet"}, "b": {"device": "puppet"}}
            first = run(orchestrator, constellation(tasks, ["a b"]), watch=lambda *said: heard.append(said))
            result = asyncio.create_task(first.result())
            begin = await puppet.hear(Begin)
            assert begin.task == "a"
            await other.say(Done(attempt=begin.attempt, how="ok", value="forged"))
            await puppet.say(Done(attempt=begin.attempt + 999, how="ok", value="unknown"))
            for number in (1, 2, 2, 1):
                await puppet.say(Progress(attempt=begin.attempt, number=number, value=number))
            await other.say(Progress(attempt=begin.attempt, number=9, value="forged"))
            await puppet.say(Done(attempt=begin.attempt, how="ok", value="right"))
            await puppet.say(Done(attempt=begin.attempt, how="failed", error="twice"))
            second = await puppet.hear(Begin)
            await puppet.say(Done(attempt=begin.attempt, how="ok", value="late"))
            await puppet.say(Done(attempt=second.attempt, how="ok", value=2))
            value = await result
            return value, first, heard, second.attempt != begin.attempt

    value, first, heard, fresh = asyncio.run(go())
    assert value.results == {"a": "right", "b": 2}
    assert [v for event, _, v in heard if event == "progress"] == [1, 2]
    assert (first.strays, fresh, len(first.attempts)) == (7, True, 2)


def test_what_reached_an_agent_never_is_sent_again_once_it_is_back():
    """A connection ends with a task on its way: who returns and does not speak of it never had it."""

    async def go():
        async with orchestrated(lease=30.0) as orchestrator:
            first = run(orchestrator, constellation({"a": {}}))
            result = asyncio.create_task(first.result())
            async with Puppet(orchestrator) as puppet:
                lost = await puppet.hear(Begin)
            async with Puppet(orchestrator) as puppet:
                again = await puppet.hear(Begin)
                await puppet.say(Done(attempt=again.attempt, how="ok", value=1))
                return await result, [a.how for a in first.attempts], lost.attempt != again.attempt

    value, hows, fresh = asyncio.run(go())
    assert (value.state, hows, fresh) == (State.COMPLETED, ["gone", "ok"], True)


def test_a_result_of_an_earlier_connection_counts():
    async def go():
        async with orchestrated(lease=30.0) as orchestrator:
            first = run(orchestrator, constellation({"a": {}}))
            result = asyncio.create_task(first.result())
            async with Puppet(orchestrator) as puppet:
                begin = await puppet.hear(Begin)
            kept = [Done(attempt=begin.attempt, how="ok", value="kept")]
            async with Puppet(orchestrator, kept=kept) as back:
                pulse = await back.hear(Pulse)
                return await result, [a.how for a in first.attempts], pulse

    value, hows, pulse = asyncio.run(go())
    assert (value.results, hows, pulse.results) == ({"a": "kept"}, ["ok"], 1)


def test_another_process_of_the_same_name_waits_for_the_lease_of_the_first():
    async def go():
        async with orchestrated(lease=0.5) as orchestrator:
            loop = asyncio.get_running_loop()
            first = run(orchestrator, constellation({"a": {}}))
            result = asyncio.create_task(first.result())
            async with Puppet(orchestrator, session=1) as puppet:
                await puppet.hear(Begin)
            gone = loop.time()
            async with Puppet(orchestrator, session=2) as puppet:
                beating = asyncio.create_task(beat(puppet))
                again = await puppet.hear(Begin)
                waited = loop.time() - gone
                await puppet.say(Done(attempt=again.attempt, how="ok", value=1))
                beating.cancel()
                return await result, waited

    async def beat(puppet):
        for number in range(2, 100):
            await puppet.say(Pulse(number=number))
            await asyncio.sleep(0.1)

    value, waited = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert 0.4 < waited < 3.0


def test_a_silent_agent_is_let_go():
    async def go():
        async with orchestrated(lease=0.3) as orchestrator, Puppet(orchestrator):
            first = run(orchestrator, constellation({"a": {}}), patience=0.2)
            value = await first.result()
            return value, orchestrator.peers["puppet"].up

    value, up = asyncio.run(go())
    assert (value.state, up) == (State.FAILED, False)


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_end_their_connection_and_no_other(seed):
    draw = random.Random(seed)
    noise = [
        draw.randbytes(draw.randrange(1, 200)), b"{}", b'{"say": "begin"}', b"[" * 100_000, b"x" * 999_999,
        encode(Register(version=VERSION, agent="puppet", session=1)), b'{"say": "done", "attempt": 1, "how": "so"}',
    ]  # fmt: skip

    async def go():
        async with orchestrated() as orchestrator, Puppet(orchestrator, "good") as good:
            for data in noise:
                async with Puppet(orchestrator, session=draw.randrange(1 << 40)) as puppet:
                    await puppet.say(data)
                    assert await puppet.hear(End) is None, data[:40]
            first = run(orchestrator, constellation({"a": {}}))
            result = asyncio.create_task(first.result())
            begin = await good.hear(Begin)
            await good.say(Done(attempt=begin.attempt, how="ok"))
            return (await result).state, orchestrator.refused

    state, refused = asyncio.run(go())
    assert (state, refused) == (State.COMPLETED, len(noise))


def test_first_words_must_be_a_registration():
    async def go():
        async with orchestrated() as orchestrator, aiohttp.ClientSession() as http:
            head = {"Authorization": f"Bearer {orchestrator.token}"}
            for data in (b"x", encode(Pulse(number=1)), encode(Register(version=99, agent="a", session=1))):
                async with http.ws_connect(orchestrator.url, headers=head) as socket:
                    await socket.send_bytes(data)
                    while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                        with contextlib.suppress(BadMessage):
                            assert type(to_agent(message.data)).__name__ == "Refuse"
            assert orchestrator.peers == {}
            return orchestrator.refused

    assert asyncio.run(go()) == 3
