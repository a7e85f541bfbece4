"""Attempts sent ahead: they begin without a word, once, and never where the one before did not end well."""

import asyncio
import os
import signal

import pytest

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")

from fleetcast.policy.order.tasks import Heft
from fleetcast.runtime.agents.books import message_of
from fleetcast.runtime.agents.messages import Withdraw
from fleetcast.runtime.agents.planner import Function
from fleetcast.scenario.workload.edits import AddLine, AddTask, ChangeTask, InvariantError, Line, State, Status, Task
from tests.runtime.agents.fleet import Wire, agents, allow, begun, constellation, run
from tests.runtime.agents.jobs import digest


def told(first):
    """Notes every message that a run's agents are told, as (kind, task, after)."""
    said = []
    for peer in first.orchestrator.up():
        send = peer.send

        def noted(message, send=send):
            said.append((type(message).__name__, getattr(message, "task", ""), getattr(message, "after", 0)))
            send(message)

        peer.send = noted
    return said


def chain(count, call="digest", seconds=0.03):
    made = {f"t{i}": {"call": call, "arguments": {"name": f"t{i}", "seconds": seconds}, "inputs": True,
                      "seconds": seconds} for i in range(count)}  # fmt: skip
    return constellation(made, [f"t{i} t{i + 1}" for i in range(count - 1)])


def files(count, seconds=0.4):
    made = {f"t{i}": {"call": "write", "arguments": {"at": f"log{i}", "seconds": seconds}, "seconds": seconds}
            for i in range(count)}  # fmt: skip
    return constellation(made, [f"t{i} t{i + 1}" for i in range(count - 1)])


def lines(path):
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


async def laid(first, name):
    """Waits until a task lies behind another at its agent."""
    async with asyncio.timeout(20):
        while name not in [a.task for a in first._ahead]:
            await asyncio.sleep(0.005)


def test_a_chain_goes_on_without_a_word_and_with_the_results_before(tmp_path):
    async def go():
        async with agents(2, tmp_path) as (orchestrator, _):
            first = run(orchestrator, chain(6), policy=Heft())
            said = told(first)
            return await first.result(), first, said

    value, first, said = asyncio.run(go())
    expected = {}
    for i in range(6):
        before = {f"t{i - 1}": expected[f"t{i - 1}"]} if i else {}
        expected[f"t{i}"] = digest(f"t{i}", 0.0, inputs=before, stopped=lambda wait: False)
    assert value.results == expected
    begins = [(task, after > 0) for kind, task, after in said if kind == "Begin"]
    assert begins == [("t0", False), *((f"t{i}", True) for i in range(1, 6))]
    assert len(first.attempts) == 6
    assert first.strays == 0
    for one, other in zip(first.attempts, first.attempts[1:], strict=False):
        assert one.ended <= other.begun
        assert one.worker == other.worker


def test_what_lies_behind_a_task_that_fails_never_begins(tmp_path):
    async def go():
        made = {
            "a": {"call": "fail", "arguments": {"times": 1, "at": "count"}, "retries": 1, "seconds": 0.1},
            "b": {"call": "write", "arguments": {"at": "log", "seconds": 0.01}, "seconds": 0.1},
            "c": {"call": "fail", "arguments": {"times": 9, "at": "other"}, "seconds": 0.1},
            "d": {"call": "write", "arguments": {"at": "never", "seconds": 0.01}, "seconds": 0.1},
        }
        async with agents(2, tmp_path) as (orchestrator, _):
            first = run(orchestrator, constellation(made, ["a b", "c d"]), policy=Heft())
            said = told(first)
            return await first.result(), first, said

    value, first, said = asyncio.run(go())
    assert [value.status[name] for name in "abcd"] == [
        Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.CANCELLED,
    ]  # fmt: skip
    assert {task for kind, task, after in said if kind == "Begin" and after} == {"b", "d"}
    assert lines(tmp_path / "log") == ["begin", "end"]
    assert not (tmp_path / "never").exists()
    assert first.strays == 0


def test_edits_reach_what_was_sent_ahead_and_not_what_runs(tmp_path):
    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            first = run(orchestrator, files(3), policy=Heft())
            said = told(first)
            result = asyncio.create_task(first.result())
            await laid(first, "t1")
            await first.edit([
                ChangeTask(id="t1", arguments={"at": "changed", "seconds": 0.01}),
                AddTask(task=Task(id="own", call="write", arguments={"at": "own", "seconds": 0.01})),
                AddLine(line=Line(before="own", after="t1")),
            ])  # fmt: skip
            with pytest.raises(InvariantError):
                await first.edit([ChangeTask(id="t0", priority=1)])
            return await result, first, said

    value, first, said = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert ("Withdraw", "", 0) in said
    assert lines(tmp_path / "log1") == []
    assert lines(tmp_path / "changed") == ["begin", "end"]
    at = {a.task: a for a in first.attempts}
    assert sorted(at) == ["own", "t0", "t1", "t2"]
    assert len(first.attempts) == 4
    assert at["own"].ended <= at["t1"].begun
    assert first.strays == 0


def test_killing_an_agent_takes_what_lay_behind_with_it(tmp_path):
    async def go():
        async with agents(2, tmp_path) as (orchestrator, local):
            first = run(orchestrator, files(4), policy=Heft())
            result = asyncio.create_task(first.result())
            await laid(first, "t2")
            victim = next(iter(first._ahead)).peer.name
            await begun(tmp_path / "log1")
            os.kill(local.processes[victim].pid, signal.SIGKILL)
            return await result, first

    value, first = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert [a.task for a in first.attempts] == ["t0", "t1", "t1", "t2", "t3"]
    for i in (0, 2, 3):
        assert lines(tmp_path / f"log{i}") == ["begin", "end"]
    assert [e for e in lines(tmp_path / "log1") if e != "stop"] == ["begin", "begin", "end"]


def test_a_cut_network_never_lets_what_was_sent_ahead_run_twice_at_once(tmp_path):
    """The first task ends behind the cut and the next begins there unseen; both run again, and only after that."""

    async def go():
        async with agents(0, tmp_path) as (orchestrator, local):
            wire = Wire(int(orchestrator.url.split(":")[2].split("/")[0]))
            port = await wire.start()
            await local.start(["far"], allow=allow(tmp_path), url=f"ws://127.0.0.1:{port}/agents")
            await local.start(["near"], allow=allow(tmp_path))
            first = run(orchestrator, files(2, 0.4), policy=Heft(), patience=10.0)
            result = asyncio.create_task(first.result())
            await laid(first, "t1")
            at = first.attempts[0].peer.name
            await begun(tmp_path / "log0")
            wire.cut = at == "far"
            value = await result
            await wire.stop()
            return value, first, at

    value, _, at = asyncio.run(go())
    assert at == "far"
    assert value.state is State.COMPLETED
    events = [(float(line.split()[2]), line.split()[0]) for line in (tmp_path / "log1").read_text().splitlines()]
    names = [name for _, name in sorted(events)]
    assert names in (["begin", "stop", "begin", "end"], ["begin", "end", "begin", "end"])


def test_a_planner_is_asked_before_anything_begins(tmp_path):
    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            first = run(orchestrator, chain(3), policy=Heft(), planner=Function(lambda value, events: []))
            said = told(first)
            await first.result()
            return said

    assert all(after == 0 for kind, _, after in asyncio.run(go()) if kind == "Begin")


def test_an_attempt_that_came_too_late_begins_the_usual_way(tmp_path):
    """Its predecessor is no longer known to the worker: it says so, and the task runs once."""

    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            first = run(orchestrator, files(2, 0.2), policy=Heft())
            result = asyncio.create_task(first.result())
            await laid(first, "t1")
            lying = next(iter(first._ahead))
            lying.peer.send(Withdraw(attempt=lying.number))
            lying.peer.send(message_of(first.value, lying, after=123))
            return await result, first

    value, first = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert lines(tmp_path / "log1") == ["begin", "end"]
    assert [a.how for a in first.attempts] == ["ok", "ok"]
