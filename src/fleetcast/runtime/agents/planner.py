"""Who edits a constellation while it runs: a function, a rule of a file, or a language model behind OpenAI's API.

A planner is told what happened since it was last asked and answers with edits. What it says is checked as any edit is:
a planner cannot break an invariant, however wrong it is, and where it fails or is late the run goes on without its
edits.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError
from fleetcast.base.spec import Spec, convert
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import Edit, Task

MOST_ANSWER: Final = 1 << 20
"""Bytes of a model's answer that are read."""
MOST_EDITS: Final = 1000
"""Edits of one answer."""


@dataclass(frozen=True)
class Event:
    """What happened: "completed" or "failed" of a task; "joined" or "left" of an agent."""

    kind: str
    task: str = ""
    agent: str = ""
    result: Any = None
    reason: str = ""


class PlannerError(FleetcastError):
    """A planner did not answer, or not with edits."""


class Planner(Protocol):
    """Edits a constellation as events come."""

    async def edits(self, value: Constellation, events: Sequence[Event]) -> Sequence[Edit]:
        """Returns what to edit.

        Args:
            value: the constellation now; nothing begins until the answer.
            events: since the last call, at least one.

        Raises:
            PlannerError: it has no answer.
        """
        ...


class Function:
    """A planner that is a function of the constellation and the events; a coroutine where it takes its time."""

    def __init__(
        self, function: Callable[[Constellation, Sequence[Event]], Sequence[Edit] | Awaitable[Sequence[Edit]]]
    ) -> None:
        self._function = function

    async def edits(self, value: Constellation, events: Sequence[Event]) -> Sequence[Edit]:
        """Returns what the function returns.

        Raises:
            PlannerError: it raised something.
        """
        try:
            found = self._function(value, events)
            return await found if inspect.isawaitable(found) else found
        except Exception as error:
            raise PlannerError(f"the planner failed: {type(error).__name__}: {error}") from error


class Rule(Spec):
    """What is done about events of a kind, a number of times.

    Attributes:
        on: kind of event.
        task: which tasks, as file names are matched: ``fetch-*``.
        edits: what is done; ``{task}`` in them stands for the task.
        times: for how many events.
    """

    on: Literal["completed", "failed", "joined", "left"]
    edits: list[dict[str, Any]]
    task: str = "*"
    times: Annotated[int, msgspec.Meta(ge=1)] = 1


class Script:
    """A planner that follows rules: the same events, the same edits.

    Args:
        rules: tables as `Rule` has them.

    Raises:
        SpecError: a rule makes no sense, or its edits are none.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._rules = [convert(rule, Rule, f"rules[{i}]") for i, rule in enumerate(rules)]
        self._left = [rule.times for rule in self._rules]
        for i, rule in enumerate(self._rules):
            try:
                _filled(rule, "task")
            except msgspec.ValidationError as error:
                raise SpecError(f"rules[{i}].edits", str(error), hint="See `scenario.workload.edits`") from None

    async def edits(self, value: Constellation, events: Sequence[Event]) -> Sequence[Edit]:
        """Returns the edits of the rules that match, in order of events."""
        found: list[Edit] = []
        for event in events:
            for i, rule in enumerate(self._rules):
                if self._left[i] and rule.on == event.kind and fnmatch.fnmatchcase(event.task, rule.task):
                    self._left[i] -= 1
                    found += _filled(rule, event.task)
        return found


def _filled(rule: Rule, task: str) -> list[Edit]:
    """Returns a rule's edits for a task."""
    name = msgspec.json.encode(task).decode()[1:-1]
    return msgspec.json.decode(msgspec.json.encode(rule.edits).decode().replace("{task}", name), type=list[Edit])


class Endpoint:
    """A planner that is a language model behind OpenAI's chat completions.

    Args:
        url: of the API, e.g. "http://127.0.0.1:8000/v1".
        model: its name.
        key: bearer token; "" = none.
        goal: what the constellation is for, in words.
        timeout: s for an answer.
        tries: answers that are asked for until one holds edits; the model is told what was wrong with the last.
    """

    def __init__(
        self, url: str, model: str, *, key: str = "", goal: str = "", timeout: float = 30.0, tries: int = 2
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", "agents") from None
        self._httpx = httpx
        self._url = url.rstrip("/") + "/chat/completions"
        self._model, self._goal, self._timeout, self._tries = model, goal, timeout, tries
        self._head = {"Authorization": f"Bearer {key}"} if key else {}

    async def edits(self, value: Constellation, events: Sequence[Event]) -> Sequence[Edit]:
        """Returns the edits that the model wants, those that can be made.

        Raises:
            PlannerError: no answer, or none that holds edits, after all tries.
        """
        told = {"goal": self._goal, "events": [asdict(e) for e in events], "constellation": value.table()}
        messages = [
            {"role": "system", "content": _TASK},
            {"role": "user", "content": msgspec.json.encode(told).decode()},
        ]
        wrong = ""
        async with self._httpx.AsyncClient(timeout=self._timeout) as http:
            for _ in range(self._tries):
                answer = await self._ask(http, messages)
                try:
                    found = read_edits(answer)
                    value.apply(found)  # so that the model, not the run, hears what is wrong
                except FleetcastError as error:
                    wrong = str(error)
                    messages += [
                        {"role": "assistant", "content": answer},
                        {"role": "user", "content": f"Nothing was edited: {wrong}. Answer with edits again."},
                    ]
                else:
                    return found
        raise PlannerError(f"{self._model} gave no edits that can be made: {wrong}")

    async def _ask(self, http: Any, messages: Sequence[Mapping[str, str]]) -> str:
        body = {"model": self._model, "messages": list(messages), "temperature": 0}
        try:
            async with http.stream("POST", self._url, json=body, headers=self._head) as answer:
                data = b""
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MOST_ANSWER:
                        raise PlannerError(f"{self._url} answers with more than {MOST_ANSWER:,} bytes")
                if answer.status_code != 200:
                    said = data[:200].decode("utf-8", "replace")
                    raise PlannerError(f"{self._url} answers {answer.status_code}: {said}")
        except self._httpx.HTTPError as error:
            raise PlannerError(f"{self._url} does not answer: {error or type(error).__name__}") from None
        try:
            return msgspec.json.decode(data, type=_Completion).choices[0].message.content
        except (msgspec.DecodeError, UnicodeError, IndexError, RecursionError) as error:
            raise PlannerError(f"{self._url} answers with no chat completion: {error}") from None


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def read_edits(text: str) -> list[Edit]:
    """Returns the edits in a model's answer: a JSON list, alone or in a fenced block.

    Raises:
        PlannerError: there is none, or it holds something else.
    """
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.DOTALL)
    try:
        found = msgspec.json.decode((fenced[1] if fenced else text).strip(), type=list[Edit])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PlannerError(f"the answer is no list of edits: {error}") from None
    if len(found) > MOST_EDITS:
        raise PlannerError(f"the answer holds {len(found):,} edits, at most {MOST_EDITS:,} are made at once")
    return found


_TASK: Final = f"""You edit a graph of tasks while it runs on several devices. You are told its goal, what just
happened, and the graph. Answer with a JSON list of edits and nothing else; [] where nothing needs to change. Only tasks
that are waiting or pending may change, and lines into such tasks; lines must not close a circle. Edits:
{{"edit": "add_task", "task": {{"id": ..., "call": ..., "arguments": {{}}, "description": ...}}}}
{{"edit": "change_task", "id": ..., and what changes}}
{{"edit": "remove_task", "id": ...}}
{{"edit": "add_line", "line": {{"before": ..., "after": ..., "kind": ...}}}}
{{"edit": "change_line", "line": {{...}}}}
{{"edit": "remove_line", "before": ..., "after": ...}}
A task has {", ".join(Task.__struct_fields__)}. The kind of a line is unconditional, success_only, completion_only or
conditional; a conditional one has "when": {{"part": ..., "is": ">=", "value": ...}}."""
