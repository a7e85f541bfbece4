"""Planners: a function, a script, and a model behind OpenAI's API that says whatever it likes."""

import asyncio
import contextlib
import json

import pytest

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")
pytest.importorskip(modname="httpx", reason="the extra 'agents' is not installed")

from aiohttp import web

from fleetcast.base.errors import SpecError
from fleetcast.runtime.agents.planner import Endpoint, Event, Function, PlannerError, Script, read_edits
from fleetcast.scenario.workload.edits import AddLine, AddTask, ChangeTask, Line, RemoveLine, State, Task
from tests.runtime.agents.fleet import agents, constellation, run

SAVE = [
    AddTask(task=Task(id="plan b", call="add", arguments={"a": 1, "b": 1})), RemoveLine(before="bad", after="next"),
    AddLine(line=Line(before="plan b", after="next")),
]  # fmt: skip
TASKS = {"bad": {"call": "false"}, "next": {"call": "add", "arguments": {"a": 2, "b": 2}}}


def test_a_function_saves_what_a_failure_would_cancel(tmp_path):
    """Without a planner the second task is cancelled; with one it waits for the task that the planner adds."""
    seen = []

    def plan(value, events):
        seen.extend(events)
        return SAVE if any(e.kind == "failed" for e in events) else []

    async def go():
        async with agents(1, tmp_path) as (orchestrator, _):
            alone = await run(orchestrator, constellation(TASKS, ["bad next"])).result()
            first = run(orchestrator, constellation(TASKS, ["bad next"]), planner=Function(plan))
            return alone, await first.result(), first.notes

    alone, value, notes = asyncio.run(go())
    assert alone.status["next"] == "cancelled"
    assert value.results == {"plan b": 2, "next": 4}
    assert value.state is State.PARTIALLY_FAILED
    assert [(e.kind, e.task) for e in seen] == [("failed", "bad"), ("completed", "plan b"), ("completed", "next")]
    assert notes == []


def test_nothing_begins_while_a_planner_thinks_and_events_come_in_batches(tmp_path):
    async def go():
        batches = []
        began = []

        async def plan(value, events):
            batches.append([e.task for e in events])
            before = len(began)
            await asyncio.sleep(0.3)
            assert len(began) == before
            return []

        tasks = {f"t{i}": {"arguments": {"seconds": 0.05}} for i in range(6)}
        async with agents(3, tmp_path) as (orchestrator, _):

            def watch(event: str, task: str, value: object) -> None:
                if event == "begin":
                    began.append(task)

            first = run(orchestrator, constellation(tasks), planner=Function(plan), watch=watch)
            value = await first.result()
            return value, batches, first.batches

    value, batches, count = asyncio.run(go())
    assert value.state is State.COMPLETED
    assert sorted(name for batch in batches for name in batch) == [f"t{i}" for i in range(6)]
    assert count == len(batches) < 6


def test_planners_that_fail_or_are_late_or_wrong_change_nothing(tmp_path):
    async def late(value, events):
        await asyncio.sleep(60)

    def wrong(value, events):
        return [ChangeTask(id="a", priority=3)]  # it has run

    def broken(value, events):
        raise KeyError("oh")

    async def go():
        found = []
        async with agents(1, tmp_path) as (orchestrator, _):
            for function in (late, wrong, broken):
                value = constellation({"a": {"seconds": 0.01}, "b": {"seconds": 0.01}}, ["a b"])
                first = run(orchestrator, value, planner=Function(function), edit_timeout=0.1)
                found.append(((await first.result()).state, first.notes))
        return found

    found = asyncio.run(go())
    assert [state for state, _ in found] == [State.COMPLETED] * 3
    for (_, notes), said in zip(found, ("longer than 0.1 s", "I3", "KeyError"), strict=True):
        assert len(notes) == 2
        assert said in notes[0]


def test_a_script_follows_its_rules():
    table = {
        "on": "failed", "task": "fetch-*", "times": 2,
        "edits": [{"edit": "add_task", "task": {"id": "again {task}", "call": "add"}}],
    }  # fmt: skip
    script = Script([table])
    events = [Event("failed", task=name) for name in ("other", "fetch-1", "fetch-2", "fetch-3")]
    found = asyncio.run(script.edits(constellation({}), [*events, Event("completed", task="fetch-4")]))
    assert [e.task.id for e in found] == ["again fetch-1", "again fetch-2"]


@pytest.mark.parametrize(
    "table",
    [
        {"on": "failed", "edits": [{"edit": "jump"}]},
        {"on": "never", "edits": []},
        {"on": "failed", "edits": [], "x": 1},
    ],
)
def test_a_script_without_sense_is_refused_before_the_run(table):
    with pytest.raises(SpecError, match=r"rules\[0\]"):
        Script([table])


@pytest.mark.parametrize(
    "text", ["", "no", "{}", "null", '[{"edit": "launch"}]', '[{"edit": "remove_task"}]', "[" * 10_000, '[{"edit": 3}]',
             "```json\n[{]\n```", json.dumps([{"edit": "remove_task", "id": "a"}] * 1001)],
)  # fmt: skip
def test_what_is_no_list_of_edits_is_refused(text):
    with pytest.raises(PlannerError):
        read_edits(text)


def test_edits_are_found_alone_or_in_a_block():
    edits = [{"edit": "change_task", "id": "a", "priority": 2}]
    for text in (json.dumps(edits), f"I would do this:\n```json\n{json.dumps(edits)}\n```\nas you asked."):
        assert read_edits(text) == [ChangeTask(id="a", priority=2)]


@contextlib.asynccontextmanager
async def model(answers):
    """A server that answers as OpenAI's API does, with one after another of these."""
    asked = []

    async def complete(request):
        asked.append((request.headers.get("Authorization"), await request.json()))
        answer = answers[min(len(asked), len(answers)) - 1]
        if callable(answer):
            return await answer()
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body)
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": answer}}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    finally:
        await runner.cleanup()


def test_a_model_plans_after_being_told_what_was_wrong(tmp_path):
    from fleetcast.base.spec import to_builtins

    good = json.dumps([to_builtins(e) | {"edit": e.__struct_config__.tag} for e in SAVE])
    circle = json.dumps([{"edit": "add_line", "line": {"before": "next", "after": "next"}}])

    async def go():
        async with model([circle, f"```json\n{good}\n```", "[]"]) as (url, asked):
            planner = Endpoint(url, "m", key="secret", goal="four")
            async with agents(1, tmp_path) as (orchestrator, _):
                first = run(orchestrator, constellation(TASKS, ["bad next"]), planner=planner)
                return await first.result(), asked, first.notes

    value, asked, notes = asyncio.run(go())
    assert (value.results, notes) == ({"plan b": 2, "next": 4}, [])
    assert asked[0][0] == "Bearer secret"
    told = json.loads(asked[0][1]["messages"][1]["content"])
    assert (told["goal"], told["events"][0]["task"]) == ("four", "bad")
    assert "I2" in asked[1][1]["messages"][-1]["content"]


async def _never():
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("I'd rather not.", "no list of edits"),
        (web.Response(status=500, body=b"oops"), "answers 500: oops"),
        (web.Response(status=200, body=b"<html>"), "no chat completion"),
        (web.Response(status=200, body=b'{"choices": []}'), "no chat completion"),
        (web.Response(status=200, body=b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
        (web.Response(status=200, body=b"x" * (2 << 20)), "more than 1,048,576 bytes"),
        (_never, "does not answer"),
        (None, "does not answer"),
    ],
    ids=["prose", "error", "html", "empty", "null", "huge", "silent", "nobody"],
)
def test_a_model_that_makes_no_sense_is_an_error_that_says_so(answer, said):
    async def go():
        async with model([answer]) as (url, _):
            url = url if answer is not None else "http://127.0.0.1:9/v1"
            await Endpoint(url, "m", timeout=0.3).edits(constellation({"a": {}}), [Event("completed", task="a")])

    with pytest.raises(PlannerError, match=said):
        asyncio.run(go())
