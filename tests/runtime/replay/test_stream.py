"""A streamed answer, event by event."""

import json

import pytest

from fleetcast.runtime.replay.stream import Answer, Stream, explained


def read(*events, done=True):
    """The answer to events that came one second after each other."""
    answer = Answer(0, 0.0, sent=0.0)
    stream = Stream(answer)
    for at, event in enumerate((*events, "[DONE]") if done else events, 1):
        stream.take(event if isinstance(event, str) else json.dumps(event), float(at))
    stream.close()
    return answer


def token(text="a", over=None, **more):
    return {"choices": [{"text": text, "finish_reason": over} | more]}


OVER = token("", "length")


def usage(n, prompt=5, **more):
    return {"choices": [], "usage": {"completion_tokens": n, "prompt_tokens": prompt} | more}


def test_times_are_those_of_the_first_and_the_last_token():
    answer = read(token(), token(), token(), OVER, usage(3))
    assert (answer.first, answer.last, answer.output, answer.chunks, answer.prompt) == (1.0, 3.0, 3, 3, 5)
    assert answer.ok


def test_tokens_are_those_the_server_counts_or_else_events():
    assert read(token(), OVER, usage(4)).output == 4, "several tokens in an event, as speculation gives them"
    assert read(token(), token(), OVER).output == 2
    assert read(token(), token("b", "stop"), usage(2)).chunks == 2, "the last event may hold a token"


def test_a_token_without_text_is_one():
    answer = read(token(""), token("é"), OVER, usage(2))
    assert (answer.first, answer.last, answer.chunks) == (1.0, 2.0, 2)
    alone = read(OVER, usage(1))
    assert (alone.ok, alone.first, alone.output) == (True, 1.0, 1), "the only token came with the end"


def test_token_ids_and_cached_tokens_are_read_where_they_are_given():
    details = {"prompt_tokens_details": {"cached_tokens": 0}}
    answer = read(token(token_ids=[7]), token(token_ids=[8, 9]), OVER, usage(3, **details))
    assert (answer.ids, answer.cached) == ([7, 8, 9], 0)
    assert read(token(), OVER, usage(1, prompt_tokens_details=None)).cached is None


def test_the_end_may_be_said_either_way():
    assert read(token(), OVER, done=False).ok
    assert read(token(), token()).ok


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([token(), "{not JSON"], "malformed"),
        ([token(), "[1, 2]"], "malformed"),
        ([token(), {"object": "something"}], "malformed"),
        ([{"choices": ["text"]}], "malformed"),
        ([{"choices": [{"text": 5}]}], "malformed"),
        ([{"choices": "text"}], "malformed"),
        ([token(), {"error": {"message": "out of memory"}}], "error"),
        ([{"error": "out of memory"}], "error"),
        ([OVER], "empty"),
        ([], "empty"),
    ],
)
def test_what_is_wrong_is_said(events, status):
    assert read(*events).status == status


def test_the_first_fault_stands_and_an_early_end_is_one():
    answer = read(token(), {"error": {"message": "out of memory"}}, "{not JSON", done=False)
    assert (answer.status, answer.detail) == ("error", "out of memory")
    assert read(token(), done=False).status == "disconnected"


def test_counts_that_are_none_are_not_believed():
    answer = read(token(), OVER, {"choices": [], "usage": {"completion_tokens": -3, "prompt_tokens": "many"}})
    assert (answer.output, answer.prompt) == (1, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "no such model"}}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"object": "error", "message": "too long"}', "too long"),
        ("<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        ("[1]", "[1]"),
    ],
)
def test_refusals_are_explained_in_the_servers_words(body, said):
    assert explained(body) == said


def spoken(content, over=None, **more):
    return {"choices": [{"delta": {"content": content} | more, "finish_reason": over}]}


def test_a_chat_is_read_as_a_completion_is():
    first = spoken("", role="assistant")
    answer = read(first, spoken("a"), spoken("b"), {"choices": [{"delta": {}, "finish_reason": "stop"}]}, usage(2))
    assert (answer.ok, answer.first, answer.last, answer.chunks, answer.output) == (True, 2.0, 3.0, 2, 2)
    assert read(spoken("a", role="assistant"), spoken("", "length"), usage(1)).first == 1.0, "both at once"
    assert read(spoken(""), spoken("é", "stop"), usage(2)).chunks == 2, "half a character is a token too"
    assert read(spoken(None, reasoning_content="hm"), spoken("a", "stop"), usage(2)).chunks == 2
    assert read(first, spoken(None, "stop")).status == "empty"


@pytest.mark.parametrize("delta", [5, "text", {"content": 5}])
def test_a_chat_that_is_none_is_said_to_be(delta):
    assert read({"choices": [{"delta": delta, "finish_reason": None}]}).status == "malformed"
