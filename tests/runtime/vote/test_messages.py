"""Only messages of this vote get through; anything else is refused by ValueError, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.runtime.vote.messages import hello, longest, message, read_hello, read_message

SIZE = {"processes": 3, "plans": 3, "rounds": 2}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["round", "rankings", "0", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.integers(1, 2), st.dictionaries(st.integers(0, 2), st.permutations(range(3)).map(tuple), min_size=1))
def test_what_is_sent_is_what_is_read(round_: int, rankings: dict[int, tuple[int, ...]]) -> None:
    line = message(round_, rankings)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert len(line) <= longest(3, 3)
    assert read_message(line, **SIZE) == (round_, rankings)


def test_the_longest_honest_line_fits() -> None:
    full = {i: tuple(range(200)) for i in range(64)}
    assert len(message(64, full)) <= longest(64, 200)


@given(st.binary(max_size=80) | JSON.map(lambda x: json.dumps(x).encode()))
def test_noise_is_refused_and_breaks_nothing(line: bytes) -> None:
    for read in (lambda: read_message(line, **SIZE), lambda: read_hello(line, "t", 3)):
        try:
            read()
        except ValueError:
            continue
        table = json.loads(line)
        assert set(table) in ({"round", "rankings"}, {"from", "token"})


@pytest.mark.parametrize(
    "table",
    [
        {"round": 0, "rankings": {"0": [0, 1, 2]}}, {"round": 3, "rankings": {"0": [0, 1, 2]}},
        {"round": True, "rankings": {"0": [0, 1, 2]}}, {"round": 1, "rankings": {}}, {"round": 1, "rankings": []},
        {"round": 1, "rankings": {"3": [0, 1, 2]}}, {"round": 1, "rankings": {"-1": [0, 1, 2]}},
        {"round": 1, "rankings": {"00": [0, 1, 2]}}, {"round": 1, "rankings": {"0": [0, 1, 1]}},
        {"round": 1, "rankings": {"0": [0, 1]}}, {"round": 1, "rankings": {"0": [0, 1, 3]}},
        {"round": 1, "rankings": {"0": [0, 1, 2.0]}}, {"round": 1, "rankings": {"0": [0, 1, 2]}, "more": 1},
        {"rankings": {"0": [0, 1, 2]}}, {"round": 1, "rankings": {"٣": [0, 1, 2]}}, [],
    ],
)  # fmt: skip
def test_messages_of_another_vote_are_refused(table: object) -> None:
    with pytest.raises(ValueError, match="not"):
        read_message(json.dumps(table).encode(), **SIZE)


def test_a_connection_begins_with_the_token() -> None:
    assert read_hello(hello(2, "secret"), "secret", 3) == 2
    for line in (hello(2, "other"), hello(3, "secret"), hello(-1, "secret"), b'{"from": 1, "token": null}'):
        with pytest.raises(ValueError, match=r"token|number|line"):
            read_hello(line, "secret", 3)
