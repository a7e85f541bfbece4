"""Request bodies: what is taken, what is refused and how it is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.runtime.serve.asks import ApiError, read
from fleetcast.runtime.serve.limits import Limits, Rate

PROMPT = {"model": "m", "prompt": "hi"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

REFUSED = {
    "not json": (b"{", None, "not JSON"),
    "empty": (b"", None, "not JSON"),
    "half a character": (b'{"model": "\xff"}', None, "not JSON"),
    "deep": (b'{"model": "m", "prompt": ' + b"[" * 100_000, None, "not JSON"),
    "a list": (b"[]", None, "expected `object`"),
    "null": (b"null", None, "expected `object`"),
    "no model": ({"prompt": "x"}, "model", "is required"),
    "no prompt": ({"model": "m"}, "prompt", "is required"),
    "model a number": (PROMPT | {"model": 3}, "model", "expected `str`"),
    "misspelt": (PROMPT | {"max_token": 3}, "max_token", "is not known"),
    "no tokens": (PROMPT | {"max_tokens": 0}, "max_tokens", ">= 1"),
    "half a token": (PROMPT | {"max_tokens": 1.5}, "max_tokens", "expected"),
    "a true token": (PROMPT | {"max_tokens": True}, "max_tokens", "expected"),
    "huge": (PROMPT | {"max_tokens": 10**30}, "max_tokens", "out of range|expected"),
    "cold": (PROMPT | {"temperature": -0.1}, "temperature", ">= 0"),
    "hot": (PROMPT | {"temperature": 2.1}, "temperature", "<= 2"),
    "no mass": (PROMPT | {"top_p": 0}, "top_p", "> 0"),
    "top_k": (PROMPT | {"top_k": -2}, "top_k", ">= -1"),
    "five stops": (PROMPT | {"stop": list("abcde")}, "stop", "<= 4"),
    "an empty stop": (PROMPT | {"stop": ["a", ""]}, "stop", "empty"),
    "stop a number": (PROMPT | {"stop": 3}, "stop", "expected"),
    "n": (PROMPT | {"n": 99}, "n", "<= 16"),
    "echo": (PROMPT | {"echo": True}, "echo", "not supported"),
    "suffix": (PROMPT | {"suffix": "x"}, "suffix", "not supported"),
    "best_of": (PROMPT | {"best_of": 3}, "best_of", "not supported"),
    "penalty": (PROMPT | {"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    "bias": (PROMPT | {"logit_bias": {"3": 1}}, "logit_bias", "not supported"),
    "logprobs": (PROMPT | {"logprobs": 21}, "logprobs", "<= 20"),
    "prompts": (PROMPT | {"prompt": []}, "prompt", "empty"),
    "a prompt of floats": (PROMPT | {"prompt": [1, 2.5]}, "prompt[0]", "text or a list of token ids"),
    "a mixed prompt": (PROMPT | {"prompt": ["a", 3]}, "prompt[1]", "text or a list of token ids"),
    "too many": (PROMPT | {"prompt": ["a"] * 9, "n": 2}, "prompt", "at most 16"),
    "options": (PROMPT | {"stream_options": {"include_usage": True}}, "stream_options", "only with stream"),
    "unknown option": (PROMPT | {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "is not known"),
    "messages": (CHAT | {"messages": []}, "messages", ">= 1"),
    "no content": (CHAT | {"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
    "a tool": (CHAT | {"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "invalid enum"),
    "an image": (
        CHAT | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type|messages[0].content[0].image_url", "invalid|not known",
    ),
    "tools": (CHAT | {"tools": [{"type": "function"}]}, "tools", "not supported"),
    "schema": (CHAT | {"response_format": {"type": "json_schema"}}, "response_format", "not supported"),
    "top": (CHAT | {"top_logprobs": 2}, "top_logprobs", "only with logprobs"),
    "two limits": (CHAT | {"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens", "contradicts"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_cannot_be_served_is_refused_with_its_field(case):
    body, field, said = REFUSED[case]
    chat = isinstance(body, dict) and "messages" in body
    with pytest.raises(ApiError) as found:
        read(body if isinstance(body, bytes) else json.dumps(body).encode(), chat=chat)
    error = found.value
    assert error.status == 400
    assert error.param in (field.split("|") if field else [None])
    assert any(word in error.message for word in said.split("|")), error.message
    assert set(error.table()["error"]) == {"message", "type", "param", "code"}
    assert error.table()["error"]["type"] == "invalid_request_error"


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused_and_never_fail(body, chat):
    with pytest.raises(ApiError):
        read(body, chat=chat)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)  # fmt: skip
FIELDS = ("max_tokens", "temperature", "top_p", "n", "seed", "stop", "stream", "stream_options", "logprobs", "prompt")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.booleans())
def test_any_values_are_understood_or_refused(fields, chat):
    body = json.dumps((CHAT if chat else PROMPT) | fields).encode()
    try:
        ask = read(body, chat=chat)
    except ApiError as error:
        assert error.status == 400
    else:
        assert 0 <= ask.sampling.temperature <= 2
        assert ask.count >= 1


def test_defaults_are_those_of_openai():
    ask = read(json.dumps(PROMPT).encode(), chat=False)
    assert (ask.sampling.temperature, ask.sampling.top_p, ask.sampling.top_k) == (1.0, 1.0, 0)
    assert ask.prompts == ("hi",)
    assert (ask.count, ask.limit, ask.stop, ask.ends, ask.stream, ask.logprobs) == (1, None, (), True, False, False)


def test_fields_that_change_nothing_are_taken():
    neutral = {
        "user": "me", "metadata": {"a": 1}, "echo": False, "suffix": None, "best_of": 1, "logit_bias": {},
        "presence_penalty": 0, "top_k": -1, "seed": -5,
    }  # fmt: skip
    ask = read(json.dumps(PROMPT | neutral).encode(), chat=False)
    assert ask.sampling.top_k == 0
    assert ask.sampling.seed == 2**64 - 5
    again = CHAT["messages"] + [
        {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    fields = {"messages": again, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none"}
    ask = read(json.dumps(CHAT | fields).encode(), chat=True)
    assert ask.messages[1:] == ({"role": "assistant", "content": "x"}, {"role": "system", "content": "ab"})


@pytest.mark.parametrize("prompt, found", [
    ("a", ("a",)), (["a"], ("a",)), ([1, 2], ([1, 2],)), ([[1, 2]], ([1, 2],)), (["a", "b"], ("a", "b")),
])  # fmt: skip
def test_prompts_are_texts_or_tokens_or_lists_of_them(prompt, found):
    assert read(json.dumps(PROMPT | {"prompt": prompt}).encode(), chat=False).prompts == found


def test_an_address_has_its_rate_and_a_burst_and_no_other_address_pays_for_it():
    now = [0.0]
    rate = Rate(4.0, lambda: now[0])
    taken = sum(rate.wait("a") == 0 for _ in range(50))
    assert taken == 8
    assert rate.wait("a") == 0.25
    assert rate.wait("b") == 0
    for _ in range(80):  # in the long run: 4 a second
        now[0] += 0.125
        taken += rate.wait("a") == 0
    assert taken == 8 + 40
    for i in range(20_000):
        rate.wait(str(i))
    assert len(rate._left) <= 10_000
    assert Rate(0, lambda: 0.0).wait("a") == 0


@pytest.mark.parametrize("name, value", [
    ("max_waiting", 0), ("max_connections", 0), ("max_body", 10), ("rate", -1), ("drain", -1), ("stall", 0),
    ("buffer", 1),
    ("rate", float("nan")), ("idle", float("inf")),
])  # fmt: skip
def test_limits_out_of_range_are_refused(name, value):
    with pytest.raises(SpecError, match=f"{name}: is out of range") as found:
        Limits(**{name: value})
    assert found.value.limit
    assert found.value.hint
