"""Messages: what is said is heard, and nothing else is, whatever bytes come."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.runtime.agents.messages import (
    DEEPEST,
    MOST,
    BadMessage,
    Begin,
    Done,
    End,
    Progress,
    Pulse,
    Refuse,
    Register,
    Stop,
    Welcome,
    encode,
    from_agent,
    to_agent,
)

AGENT = [
    Register(version=1, agent="a", session=3, kinds=["box"], calls=["sleep"], slots=2), Pulse(number=4, results=2),
    Progress(attempt=1, number=1, value={"x": [1, None]}), Done(attempt=1, how="ok", value="é", seconds=0.5), End(),
]  # fmt: skip
ORCHESTRATOR = [
    Welcome(pulse=1.0, lease=4.0, most=MOST), Refuse(reason="no"), Pulse(number=4, results=2),
    Begin(attempt=1, task="t", call="sleep", arguments={"seconds": 1}, inputs={"p": None}), Stop(attempt=1), End(),
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("message", AGENT + ORCHESTRATOR, ids=lambda m: type(m).__name__)
def test_what_is_said_is_heard_by_who_should_hear_it(message):
    for said, decode in ((AGENT, from_agent), (ORCHESTRATOR, to_agent)):
        if message in said:
            assert decode(encode(message)) == message
        else:
            with pytest.raises(BadMessage):
                decode(encode(message))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"3", b'"done"', b"{}", b'{"say": "hello"}', b'{"say": 3}', b"\xff\xfe", b"\x00" * 9,
        b'{"say": "done", "attempt": 0, "how": "ok"}', b'{"say": "done", "attempt": 1.5, "how": "ok"}',
        b'{"say": "done", "attempt": 9007199254740993, "how": "ok"}', b'{"say": "done", "attempt": 1, "how": "fine"}',
        b'{"say": "done", "attempt": 1, "how": "ok", "extra": 1}', b'{"say": "done", "attempt": 1, "how": "ok"} {}',
        b'{"say": "register", "version": 1, "agent": "a\\nb", "session": 1}',
        b'{"say": "register", "version": 1, "agent": "", "session": 1}',
        b'{"say": "register", "version": 1, "agent": "a", "session": 1, "slots": 0}',
        b'{"say": "register", "version": 1, "agent": "a", "session": -1}',
        b'{"say": "progress", "attempt": 1, "number": 1, "value": ' + b"[" * 100_000,
        b'{"say": "progress", "attempt": 1, "number": 1, "value": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"say": "done", "attempt": 1, "how": "ok", "seconds": NaN}',
        b'{"say": "done", "attempt": 1, "how": "ok", "seconds": 1e999}',
        b'{"say": "done", "attempt": 1, "how": "ok", "value": "' + b"x" * MOST + b'"}',
    ],
    ids=range(26),
)  # fmt: skip
def test_what_is_no_message_is_refused(data):
    with pytest.raises(BadMessage):
        from_agent(data)
    with pytest.raises(BadMessage):
        to_agent(data)


@pytest.mark.parametrize("value", [object(), {1, 2}.__iter__(), "x" * MOST], ids=["object", "iter", "long"])
def test_what_cannot_be_said_is_refused_before_it_is_sent(value):
    with pytest.raises(BadMessage):
        encode(Done(attempt=1, how="ok", value=value))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_message_or_refused(data):
    for decode in (from_agent, to_agent):
        try:
            found = decode(data)
        except BadMessage:
            continue
        assert decode(encode(found)) == found


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(AGENT + ORCHESTRATOR), st.data())
def test_messages_with_anything_anywhere_are_refused_or_whole(message, data):
    """One field replaced, dropped or added, one byte changed: heard as a message of the same kind, or refused."""
    table = json.loads(encode(message))
    key = data.draw(st.sampled_from([*table, "other"]))
    how = data.draw(st.sampled_from(["replace", "drop", "byte"]))
    if how == "replace":
        table[key] = data.draw(JSON)
    elif how == "drop":
        table.pop(key, None)
    raw = bytearray(json.dumps(table).encode())
    if how == "byte":
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for decode in (from_agent, to_agent):
        try:
            found = decode(bytes(raw))
        except BadMessage:
            continue
        assert isinstance(found, msgspec.Struct)
        assert len(encode(found)) <= MOST


def test_the_deepest_value_passes():
    value = None
    for _ in range(DEEPEST - 1):
        value = [value]
    assert from_agent(encode(Done(attempt=1, how="ok", value=value))).value == value
    with pytest.raises(BadMessage, match="levels deep"):
        from_agent(encode(Done(attempt=1, how="ok", value=[[value]])))
