"""Runs on real agents, each a process of its own: what is computed, what fails, and that nothing hangs."""

import asyncio
import os
import signal
import time

import pytest

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.policy.order import tasks
from fleetcast.policy.order.tasks import Fifo, Heft
from fleetcast.runtime.agents.agent import Agent, Lost
from fleetcast.runtime.agents.messages import Begin, Stop
from fleetcast.runtime.agents.orchestrator import Orchestrator
from fleetcast.scenario.workload.edits import AddLine, AddTask, InvariantError, Line, State, Task
from tests.runtime.agents.fleet import LEASE, Wire, agents, allow, begun, constellation, run
from tests.runtime.agents.jobs import digest


def test_what_comes_back_of_every_kind_of_task(tmp_path):
    """Callables, commands, results of any kind, parts of results, refusals: one run, thirteen ends."""

    async def go():
        heard = []
        tasks = {
            "add": {"call": "add", "arguments": {"a": 1, "b": 2.5}},
            "steps": {"call": "steps", "arguments": {"count": 3}},
            "say": {"call": "say", "arguments": {"word": "a b; $(c)"}},
            "option": {"call": "say", "arguments": {"word": "-n"}},
            "false": {"call": "false"},
            "retried": {"call": "fail", "arguments": {"times": 2, "at": "tries"}, "retries": 2},
            "unlucky": {"call": "fail", "arguments": {"times": 9, "at": "more"}, "retries": 1},
            "outside": {"call": "fail", "arguments": {"times": 0, "at": "../x"}},
            "argument": {"call": "add", "arguments": {"a": "1", "b": 2}},
            "nobody": {"call": "unheard of"},
            "elsewhere": {"call": "add", "arguments": {"a": 1, "b": 1}, "device": "phone"},
            "kind": {"call": "add", "arguments": {"a": 1, "b": 1}, "device": "box"},
            "huge": {"call": "huge"},
            "strange": {"call": "strange"},
            "late": {"call": "wait", "arguments": {"seconds": 60}, "timeout": 0.2},
            "deaf": {"call": "deaf", "arguments": {"seconds": 60}, "timeout": 0.2},
            "after": {"call": "add", "arguments": {"a": 2, "b": 2}},
            "big": {"call": "big"},
            "bigger": {"call": "big"},
            "both": {"call": "digest", "arguments": {"name": "both"}, "inputs": True},
        }
        async with agents(2, tmp_path) as (orchestrator, _):
            value = constellation(tasks, ["deaf after", "add kind", "big both", "bigger both"])
            run_ = run(orchestrator, value, patience=0.5, watch=lambda *said: heard.append(said))
            return await run_.result(), heard

    value, heard = asyncio.run(go())
    assert value.state is State.PARTIALLY_FAILED
    assert {name: r for name, r in value.results.items() if "big" not in name} == {
        "add": 3.5, "steps": 3, "say": {"code": 0, "output": "a b; $(c)\n"}, "retried": 3, "kind": 2,
    }  # fmt: skip
    assert [v for event, task, v in heard if event == "progress" and task == "steps"] == [{"step": i} for i in range(3)]
    for name, said in {
        "option": "would be read as an option", "false": "ended with code 1", "unlucky": "RuntimeError: no luck 2",
        "outside": "leaves the agent's folder", "argument": "is not a number", "nobody": "no connected agent runs",
        "elsewhere": "no connected agent of kind phone", "huge": "the result is 2,",
        "strange": "the result is not JSON",
        "late": "longer than 0.2 s", "deaf": "longer than 0.2 s", "both": "its message is 1,2", "after": "deaf failed",
    }.items():  # fmt: skip
        assert said in value.reasons[name], name


def test_results_are_those_of_running_one_after_another(tmp_path):
    """Each task makes a digest of those before it: equal only if order and what was handed on are right."""
    lines = [f"t{a} t{b}" for b in range(1, 30) for a in {b // 2, b // 3, (b * 7) % b} if a < b]
    tasks = {f"t{i}": {"call": "digest", "arguments": {"name": f"t{i}"}, "inputs": True} for i in range(30)}
    expected = {}
    for i in range(30):
        before = [line.split()[0] for line in lines if line.split()[1] == f"t{i}"]
        given = {b: expected[b] for b in before}
        expected[f"t{i}"] = digest(f"t{i}", 0.0, inputs=given, stopped=lambda wait: False)

    async def go():
        async with agents(3, tmp_path) as (orchestrator, _):
            first = run(orchestrator, constellation(tasks, set(lines)))
            return await first.result(), first.attempts

    value, attempts = asyncio.run(go())
    assert value.results == expected
    assert len({a.peer.name for a in attempts}) == 3
    ends = {a.task: a for a in attempts}
    for line in lines:
        before, after = line.split()
        assert ends[before].ended <= ends[after].begun


def test_killing_an_agent_moves_its_task(tmp_path):
    async def go():
        tasks = {f"t{i}": {"call": "write", "arguments": {"at": f"log{i}", "seconds": 0.5}} for i in range(4)}
        async with agents(2, tmp_path) as (orchestrator, local):
            first = run(orchestrator, constellation(tasks))
            result = asyncio.create_task(first.result())
            while not (victim := next((a for a in first.attempts if a.peer.name == "agent0"), None)):
                await asyncio.sleep(0.01)
            await begun(tmp_path / f"log{victim.task[1:]}")
            os.kill(local.processes["agent0"].pid, signal.SIGKILL)
            killed = time.monotonic()
            value = await result
            return value, first.attempts, time.monotonic() - killed

    value, attempts, seconds = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert [a.how for a in attempts].count("gone") == 1
    assert seconds < 10.0
    moved = next(a.task for a in attempts if a.how == "gone")
    events = [line.split() for line in (tmp_path / f"log{moved[1:]}").read_text().splitlines()]
    assert [e[0] for e in events if e[0] != "stop"] == ["begin", "begin", "end"]
    assert len({e[1] for e in events}) == 2
    time.sleep(0.4)  # no orphan goes on to its end
    assert (tmp_path / f"log{moved[1:]}").read_text().count("end") == 1


def test_all_agents_lost_is_an_honest_failure_and_no_hang(tmp_path):
    async def go():
        tasks = {"a": {"arguments": {"seconds": 60}}, "b": {}, "c": {}}
        async with agents(1, tmp_path) as (orchestrator, local):
            result = asyncio.create_task(run(orchestrator, constellation(tasks, ["a b"]), patience=0.3).result())
            await asyncio.sleep(0.2)
            os.kill(local.processes["agent0"].pid, signal.SIGKILL)
            return await result

    value = asyncio.run(go())
    assert value.state is State.FAILED
    assert value.reasons == {
        "a": "no connected agent runs sleep", "c": "no connected agent runs sleep", "b": "a failed",
    }  # fmt: skip


def test_a_task_that_ends_its_process_is_given_up_after_a_while(tmp_path):
    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            first = run(orchestrator, constellation({"die": {"call": "die"}, "add": {"seconds": 0.01}}), losses=2)
            return await first.result(), first.attempts

    value, attempts = asyncio.run(go())
    assert value.reasons["die"].startswith("3 agents went away")
    assert value.status["add"] == "completed"
    assert [a.how for a in attempts if a.task == "die"] == ["lost"] * 3


def test_a_cut_network_never_lets_a_task_run_twice_at_once(tmp_path):
    """The agent behind the cut hears nothing: its lease ends, then the task runs elsewhere; then it comes back."""

    async def go():
        tasks = {"t": {"call": "write", "arguments": {"at": "log", "seconds": 4.0}}}
        async with agents(0, tmp_path) as (orchestrator, local):
            wire = Wire(int(orchestrator.url.split(":")[2].split("/")[0]))
            port = await wire.start()
            await local.start(["far"], allow=allow(tmp_path), url=f"ws://127.0.0.1:{port}/agents")
            await local.start(["near"], allow=allow(tmp_path))
            first = run(orchestrator, constellation(tasks), patience=10.0)
            result = asyncio.create_task(first.result())
            await begun(tmp_path / "log")
            wire.cut = True
            value = await result
            wire.cut = False
            until = time.monotonic() + 15.0
            while not orchestrator.peers["far"].up and time.monotonic() < until:
                await asyncio.sleep(0.05)
            back = orchestrator.peers["far"].up
            await wire.stop()
            return value, first.attempts, back

    value, attempts, back = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert [(a.peer.name, a.how) for a in attempts] == [("far", "gone"), ("near", "ok")]
    assert back
    events = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [e[0] for e in events] == ["begin", "stop", "begin", "end"]
    assert LEASE - 0.2 < float(events[2][2]) - float(events[0][2]) < LEASE + 6.0


def test_results_that_a_cut_held_up_are_not_computed_again(tmp_path):
    async def go():
        tasks = {"t": {"call": "write", "arguments": {"at": "log", "seconds": 0.3}}}
        async with agents(0, tmp_path, lease=3.0) as (orchestrator, local):
            wire = Wire(int(orchestrator.url.split(":")[2].split("/")[0]))
            port = await wire.start()
            await local.start(["far"], allow=allow(tmp_path), url=f"ws://127.0.0.1:{port}/agents")
            first = run(orchestrator, constellation(tasks))
            result = asyncio.create_task(first.result())
            await begun(tmp_path / "log")
            wire.cut = True
            await asyncio.sleep(0.7)
            wire.cut = False
            value = await result
            await wire.stop()
            return value, first.attempts

    value, attempts = asyncio.run(go())
    assert value.results == {"t": "done"}
    assert [a.how for a in attempts] == ["ok"]


def test_an_agent_told_twice_runs_once(tmp_path):
    class Ear:
        def __init__(self):
            self.heard, self.over = [], asyncio.Event()

        def done(self, peer, done):
            self.heard.append(done)
            if len(self.heard) == 2:
                self.over.set()

        def broke(self, error):
            raise error

    async def go():
        async with agents(1, tmp_path, slots=4) as (orchestrator, _):
            ear = orchestrator.listener = Ear()
            peer = orchestrator.peers["agent0"]
            log = {"at": "log", "seconds": 0.1}
            for _ in range(3):
                peer.send(Begin(attempt=1, task="t", call="write", arguments=log))
            peer.send(Stop(attempt=99))
            peer.send(Begin(attempt=2, task="u", call="write", arguments=log | {"seconds": 60}))
            await begun(tmp_path / "log")
            peer.send(Stop(attempt=2))
            peer.send(Stop(attempt=2))
            async with asyncio.timeout(10):
                await ear.over.wait()
            peer.send(Begin(attempt=1, task="t", call="write", arguments=log))
            await asyncio.sleep(0.3)
            orchestrator.listener = None
            return sorted((d.attempt, d.how) for d in ear.heard)

    assert asyncio.run(go()) == [(1, "ok"), (2, "stopped")]
    events = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert (events.count("begin") <= 2, events.count("end")) == (True, 1)


def test_a_thousand_tasks_at_once(tmp_path):
    async def go():
        tasks = {f"t{i}": {"arguments": {"seconds": 1.0}} for i in range(1000)}
        async with agents(5, tmp_path, slots=200, pulse=0.5, lease=5.0) as (orchestrator, _):
            first = run(orchestrator, constellation(tasks))
            begun = time.monotonic()
            return await first.result(), first.attempts, time.monotonic() - begun

    value, attempts, seconds = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert len(attempts) == 1000
    # all of them had begun before the first ended
    assert max(a.begun for a in attempts) < min(a.ended for a in attempts)
    assert seconds < 15.0


@pytest.mark.parametrize("policy", [Fifo, Heft])
def test_edits_of_many_hands_while_it_runs(tmp_path, policy):
    """Twenty editors add a task behind whatever is still open, some against the invariants; all that was taken runs."""

    async def go():
        tasks = {f"t{i}": {"arguments": {"seconds": 0.02}} for i in range(20)}
        async with agents(2, tmp_path) as (orchestrator, _):
            first = run(orchestrator, constellation(tasks, [f"t{i} t{i + 1}" for i in range(19)]), policy=policy())
            result = asyncio.create_task(first.result())
            taken, refused = [], []

            async def hand(i):
                await asyncio.sleep(0.02 * i)
                own = f"own{i}"
                edits = [
                    AddTask(task=Task(id=own, arguments={"seconds": 0.01})),
                    AddLine(line=Line(before=own, after=f"t{i}")),
                    AddLine(line=Line(before=f"t{(i * 7) % 20}", after=own)),
                ]
                try:
                    await first.edit(edits)
                    taken.append(own)
                except InvariantError as error:
                    refused.append(error.invariant)

            await asyncio.gather(*(hand(i) for i in range(20)))
            return await result, first.attempts, taken, refused

    value, attempts, taken, refused = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert {"I2", "I3"} >= set(refused)
    assert taken
    assert refused
    ends = {a.task: a for a in attempts}
    assert set(ends) == set(value.tasks) == {f"t{i}" for i in range(20)} | set(taken)
    for before, after in value.lines:
        assert ends[before].ended <= ends[after].begun
    assert len(attempts) == len(ends)


def test_a_policy_that_decides_what_cannot_be_ends_the_run(tmp_path):
    class Wrong:
        kind = "wrong"

        def start(self, view):
            pass

        def push(self, task, view):
            return None

        def pop(self, worker, view):
            return 1

    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            with pytest.raises(PolicyError, match="not ready"):
                await run(orchestrator, constellation({"a": {}, "b": {}}, ["a b"]), policy=Wrong()).result()

    asyncio.run(go())


def test_a_policy_that_begins_nothing_ends_the_run(tmp_path):
    class Idle:
        kind = "idle"

        def start(self, view):
            pass

        def push(self, task, view):
            return None

        def pop(self, worker, view):
            return None

    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            with pytest.raises(PolicyError, match="Idle begins nothing"):
                await run(orchestrator, constellation({"a": {}}), policy=Idle(), patience=0.2).result()

    asyncio.run(go())


def test_any_order_policy_runs_a_graph_while_an_agent_goes_and_comes_back(tmp_path):
    """The same objects as in a simulation, on a clock that nobody can stop."""
    lines = [f"t{i // 2} t{i}" for i in range(1, 16)]
    made = {f"t{i}": {"seconds": 0.05, "priority": i % 3} for i in range(16)} | {"odd": {"call": "unheard of"}}

    async def go():
        found = {}
        async with agents(2, tmp_path) as (orchestrator, _):
            for policy in [c() for n in tasks.__all__ if (c := getattr(tasks, n)) and hasattr(c, "kind")]:
                first = run(orchestrator, constellation(made, lines), policy=policy, patience=0.2)
                result = asyncio.create_task(first.result())
                await asyncio.sleep(0.12)
                orchestrator.drop(orchestrator.peers["agent1"], "for the test")
                found[policy.kind] = await result, first.attempts
                while not orchestrator.peers["agent1"].ready or not orchestrator.peers["agent1"].up:
                    await asyncio.sleep(0.02)
        return found

    found = asyncio.run(go())
    assert len(found) >= 8
    for kind, (value, attempts) in found.items():
        assert set(value.reasons) == {"odd"}, kind
        ends = {a.task: a for a in attempts if a.how == "ok"}
        assert len(ends) == sum(a.how == "ok" for a in attempts) == 16, kind
        for before, after in value.lines:
            assert ends[before].ended <= ends[after].begun, kind


def test_a_run_has_a_deadline(tmp_path):
    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            value = constellation({"a": {"arguments": {"seconds": 60}}, "b": {}}, ["a b"])
            first = await run(orchestrator, value, deadline=0.3).result()
            again = await run(orchestrator, constellation({"c": {"seconds": 0.01}})).result()
            return first, again

    first, again = asyncio.run(go())
    assert first.reasons == dict.fromkeys("ab", "the run's deadline of 0.3 s has passed")
    assert again.state is State.COMPLETED


def test_who_may_join():
    async def go():
        with pytest.raises(SpecError, match="would let anyone in"):
            Orchestrator("0.0.0.0")
        orchestrator = Orchestrator(pulse=0.1)
        url = await orchestrator.start()
        try:
            with pytest.raises(Lost, match="401"):
                await Agent(url, "a", "wrong").serve()
            first = Agent(url, "a", orchestrator.token)
            task = asyncio.create_task(first.serve())
            while "a" not in orchestrator.peers:
                await asyncio.sleep(0.01)
            with pytest.raises(Lost, match="another agent is called 'a'"):
                await Agent(url, "a", orchestrator.token, backoff=(0.01,)).serve()
            first.leave()
            await task
            assert not orchestrator.peers["a"].up
            assert orchestrator.refused == 3
        finally:
            await orchestrator.stop()
        with pytest.raises(Lost, match="is lost after 2 tries"):
            await Agent(url, "a", orchestrator.token, backoff=(0.01, 0.02)).serve()

    asyncio.run(go())
