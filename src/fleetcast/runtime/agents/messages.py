"""What an orchestrator and its agents say to each other: JSON, one tagged object a message, checked when it is read.

An agent says `Register` first and gets `Welcome` or `Refuse`. From then on the orchestrator hands it `Begin`, `Stop`
and `Withdraw`, the agent answers with `Progress` and `Done`. Each side says `Pulse` at least every few seconds. An
attempt is one try of one task: its number is never used again, so whoever hears of an attempt twice, or of one that is
given up, knows.

Leases. An agent may run attempts while its lease lasts: from when it *sent* its last pulse that was answered. The
orchestrator counts from when it *received* it, which is later, and gives an attempt to another agent only when the
lease is over and the time in which the agent ends what runs. So a task is on one device at a time even while a network
is cut.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from fleetcast.base.errors import FleetcastError
from fleetcast.base.spec import Spec
from fleetcast.scenario.workload.edits import Id, Seconds, Words

VERSION: Final = 2
"""Of what is said; both sides must have the same."""
MOST: Final = 1 << 20
"""Bytes of a message."""
DEEPEST: Final = 64
"""Levels of an argument or a result: JSON that is deeper is refused before anything walks it."""

Attempt = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


T = TypeVar("T")


class Message(Spec, tag_field="say"):
    """Any of them."""


class Register(Message, tag="register"):
    """An agent says who it is.

    Attributes:
        version: of what it speaks.
        agent: its name, unique among agents.
        session: a number drawn when the agent's process began: tells a return from another of the same name.
        kinds: what it is, for tasks that want one of a kind.
        calls: names in its allow-list.
        slots: attempts that it runs at once.
        programs: calls that take the words of a command line.
    """

    version: Count
    agent: Id
    session: Count
    kinds: Annotated[list[Id], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)
    calls: Annotated[list[Id], msgspec.Meta(max_length=10_000)] = msgspec.field(default_factory=list)
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    programs: Annotated[list[Id], msgspec.Meta(max_length=10_000)] = msgspec.field(default_factory=list)


class Pulse(Message, tag="pulse"):
    """Either side lives.

    Attributes:
        number: of an agent's pulses; the orchestrator answers with the same.
        results: how many `Done` the orchestrator has had in this connection: an agent may forget those.
    """

    number: Count = 0
    results: Count = 0


class Progress(Message, tag="progress"):
    """Part of an attempt's result, while it runs."""

    attempt: Attempt
    number: Count
    value: Any = None


class Done(Message, tag="done"):
    """An attempt has ended.

    Attributes:
        attempt: which.
        how: "ok"; "failed"; "late": it took longer than it may; "stopped": it was told to, or the agent lost its lease;
            "lost": the process that ran it died, through no fault of its own; "unbegun": it lay behind another that did
            not end well, or was withdrawn.
        value: its result.
        error: why not.
        seconds: it ran, s.
    """

    attempt: Attempt
    how: str
    value: Any = None
    error: Words = ""
    seconds: Seconds = 0.0


class Welcome(Message, tag="welcome"):
    """The orchestrator takes an agent.

    Attributes:
        pulse: s between pulses.
        lease: s.
        most: bytes of a message.
    """

    pulse: Seconds
    lease: Seconds
    most: Count


class Refuse(Message, tag="refuse"):
    """The orchestrator does not take an agent, or no longer.

    Attributes:
        reason: for people.
        final: whether trying again is of no use.
    """

    reason: Words
    final: bool = True


class Begin(Message, tag="begin"):
    """An agent shall begin an attempt.

    Attributes:
        attempt: which.
        task: its task, for people.
        call: name in the agent's allow-list.
        arguments: of the call.
        inputs: results of the tasks before, by their ids.
        timeout: s that it may take; 0 = no limit.
        after: attempt of the same agent that it begins after, without a word, if that one ends well; its result is then
            one of the inputs, where there are any. 0 = it begins at once.
    """

    attempt: Attempt
    task: Id
    call: Id
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    inputs: dict[str, Any] | None = None
    timeout: Seconds = 0.0
    after: Count = 0


class Stop(Message, tag="stop"):
    """An agent shall give an attempt up."""

    attempt: Attempt


class Withdraw(Message, tag="withdraw"):
    """An agent shall not begin an attempt that lies behind another; one that has begun goes on."""

    attempt: Attempt


class End(Message, tag="end"):
    """Either side leaves, on purpose."""

    reason: Words = ""


FromAgent = Register | Pulse | Progress | Done | End
ToAgent = Welcome | Refuse | Pulse | Begin | Stop | Withdraw | End
HOWS: Final = frozenset({"ok", "failed", "late", "stopped", "lost", "unbegun"})


GRACE: Final = 0.5
"""s that an attempt has to give up in; then, within as much again, its process is ended."""


class BadMessage(FleetcastError):
    """Bytes that are no message; the connection they came by is closed."""


_encoder = msgspec.json.Encoder()
_from_agent: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_to_agent: msgspec.json.Decoder[ToAgent] = msgspec.json.Decoder(ToAgent)


def encode(message: Message, most: int = MOST) -> bytes:
    """Returns a message as bytes.

    Raises:
        BadMessage: it holds what JSON cannot say, or is larger than ``most`` bytes.
    """
    try:
        data = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadMessage(f"is not JSON: {error}") from None
    if len(data) > most:
        raise BadMessage(f"is {len(data):,} bytes, at most {most:,}")
    return data


def from_agent(data: bytes | str, most: int = MOST) -> FromAgent:
    """Returns what an agent said.

    Raises:
        BadMessage: it is none of its messages, larger than ``most`` bytes, or nested too deeply.
    """
    found = _decode(_from_agent, data, most)
    if isinstance(found, Done):
        if found.how not in HOWS:
            raise BadMessage(f"done.how: {found.how[:40]!r} is none of {', '.join(sorted(HOWS))}")
        _refuse_deep(found.value)
    elif isinstance(found, Progress):
        _refuse_deep(found.value)
    return found


def to_agent(data: bytes | str, most: int = MOST) -> ToAgent:
    """Returns what the orchestrator said.

    Raises:
        BadMessage: as `from_agent`.
    """
    found = _decode(_to_agent, data, most)
    if isinstance(found, Begin):
        _refuse_deep(found.arguments)
        _refuse_deep(found.inputs)
    return found


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | str, most: int) -> T:
    if len(data) > most:
        raise BadMessage(f"is {len(data):,} bytes, at most {most:,}")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadMessage(str(error)[:300]) from None


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for found in level:
            if isinstance(found, dict):
                below.extend(v for v in found.values() if isinstance(v, dict | list))
            elif isinstance(found, list):
                below.extend(v for v in found if isinstance(v, dict | list))
        if not below:
            return
        level = below
    raise BadMessage(f"is nested more than {DEEPEST} levels deep")
