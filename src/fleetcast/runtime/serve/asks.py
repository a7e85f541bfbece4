"""What a client asks for: OpenAI's request bodies, read strictly.

A field that would change the answer and is not supported is refused, not ignored. Fields that change nothing here
(``user``, ``metadata``, ...) are taken and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from fleetcast.base.errors import FleetcastError, Infeasible, MissingExtra, SpecError, Unsupported
from fleetcast.runtime.llm.sampling import Sampling
from fleetcast.runtime.serve.limits import CHOICES

COMPLETION_TOKENS: Final = 16
"""Tokens of a completion that names no number: OpenAI's default."""
TOP: Final = 20
"""Most alternatives that are reported beside a token."""


class ApiError(Exception):
    """An error as clients of the API know it.

    Args:
        status: of HTTP.
        message: for people: the field, its value, the limit.
        param: the field.
        code: for programs.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def table(self) -> dict[str, Any]:
        """Returns the body of the response."""
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
        said = kind.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": said, "param": self.param, "code": self.code}}


def refused(error: Exception) -> ApiError:
    """Returns what a client is told of an error: what it can mend is a 400 with the field, the rest a 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, SpecError):
        code = "context_length_exceeded" if error.path == "max_tokens" else None
        return ApiError(400, str(error), param=error.path.removeprefix("sampling."), code=code)
    if isinstance(error, Infeasible):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, Unsupported):
        return ApiError(400, str(error))
    if isinstance(error, FleetcastError) and not isinstance(error, MissingExtra):
        return ApiError(500, str(error))
    return ApiError(500, "the server failed; its log says why")


class _Options(Struct, forbid_unknown_fields=True):
    include_usage: bool = False


class _Common(Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    max_tokens: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    n: Annotated[int, Meta(ge=1, le=CHOICES)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(max_length=64)] | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    # what changes the answer and is not supported, but for the value that changes nothing
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    logit_bias: dict[str, Any] | None = None
    # what changes nothing here
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class _Completion(_Common, kw_only=True):
    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=0, le=TOP)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class _Part(Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _Message(Struct, forbid_unknown_fields=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None
    # what clients send back with an assistant's message
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None
    annotations: list[Any] | None = None


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    response_format: Any = None
    modalities: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    reasoning_effort: Any = None
    audio: Any = None
    prediction: Any = None


_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,), "min_p": (0,), "min_tokens": (0,),
    "logit_bias": ({},), "echo": (False,), "suffix": ("",), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "functions": ([],), "function_call": ("none", "auto"), "reasoning_effort": (), "audio": (), "prediction": (),
}  # fmt: skip
"""Fields that are not supported, with the values that change nothing."""


@dataclass(frozen=True)
class Ask:
    """A request as it was understood.

    Attributes:
        chat: whether it is a conversation.
        model: asked for.
        prompts: of completions: texts or token ids.
        messages: of a conversation.
        words: further names for the chat template.
        count: answers wanted per prompt.
        limit: most tokens; None = `COMPLETION_TOKENS`, and for a conversation as many as there is room for.
        sampling: how tokens are chosen, end tokens left out.
        stop: strings that end an answer.
        ends: whether the model's own end tokens end an answer.
        logprobs: whether log probabilities are wanted.
        stream: whether tokens are wanted as they come.
        usage: whether a stream is to end with the counts of tokens.
        ids: whether token ids are wanted.
        salt: the prefix cache shares blocks only among requests of the same.
    """

    chat: bool
    model: str
    prompts: tuple[str | list[int], ...]
    messages: tuple[Mapping[str, Any], ...]
    words: Mapping[str, Any]
    count: int
    limit: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    ends: bool
    logprobs: bool
    stream: bool
    usage: bool
    ids: bool
    salt: str


def read(body: bytes, *, chat: bool) -> Ask:
    """Returns what a body asks for.

    Raises:
        ApiError: 400; it is not JSON, or a field is missing, unknown, of the wrong type, out of range or not supported.
    """
    try:
        b: Any = msgspec.json.decode(body, type=_Chat if chat else _Completion)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    for name, values in _NEUTRAL.items():
        value = getattr(b, name, None)
        if value is not None and value not in values:
            allowed = " or ".join(msgspec.json.encode(v).decode() for v in values)
            raise ApiError(
                400, f"{name}: is not supported; leave it out" + (f" or send {allowed}" if allowed else ""), param=name
            )
    stop = (b.stop,) if isinstance(b.stop, str) else tuple(b.stop or ())
    if not all(stop):
        raise ApiError(400, "stop: a stop string is empty; at least one character each", param="stop")
    count = b.n or 1
    prompts = () if chat else _prompts(b.prompt)
    if len(prompts) * count > CHOICES:
        text = f"prompt: {len(prompts)} prompts with n = {count} are too many; at most {CHOICES} answers a request"
        raise ApiError(400, text, param="prompt")
    if b.stream_options is not None and not b.stream:
        raise ApiError(400, "stream_options: only with stream = true", param="stream_options")
    if chat:
        limit, logprobs, top = _chat_fields(b)
    else:
        limit, logprobs, top = b.max_tokens, b.logprobs is not None, b.logprobs or 0
        if b.best_of not in (None, count):
            raise ApiError(400, "best_of: is not supported; leave it out", param="best_of")
    sampling = Sampling(
        temperature=1.0 if b.temperature is None else b.temperature, top_p=1.0 if b.top_p is None else b.top_p,
        top_k=max(0, b.top_k or 0), stop=tuple(b.stop_token_ids or ()), logprobs=top,
        seed=None if b.seed is None else b.seed % 2**64,
    )  # fmt: skip
    return Ask(
        chat=chat, model=b.model, prompts=prompts, messages=tuple(map(_plain, b.messages)) if chat else (),
        words=dict(b.chat_template_kwargs or {}) if chat else {}, count=count, limit=limit, sampling=sampling,
        stop=stop, ends=not b.ignore_eos, logprobs=logprobs, stream=bool(b.stream),
        usage=bool(b.stream_options and b.stream_options.include_usage), ids=bool(b.return_token_ids),
        salt=b.cache_salt or "",
    )  # fmt: skip


def _chat_fields(b: Any) -> tuple[int | None, bool, int]:
    if b.max_tokens and b.max_completion_tokens and b.max_tokens != b.max_completion_tokens:
        text = f"max_tokens: {b.max_tokens} contradicts max_completion_tokens = {b.max_completion_tokens}; send one"
        raise ApiError(400, text, param="max_tokens")
    if b.top_logprobs is not None and not b.logprobs:
        raise ApiError(400, "top_logprobs: only with logprobs = true", param="top_logprobs")
    return b.max_completion_tokens or b.max_tokens, bool(b.logprobs), b.top_logprobs or 0


def _prompts(prompt: str | list[Any]) -> tuple[str | list[int], ...]:
    """Returns the prompts: a text, token ids, or a list of either."""
    if isinstance(prompt, str):
        return (prompt,)
    if not prompt:
        raise ApiError(400, "prompt: is empty; at least one token", param="prompt")
    if all(_is_id(t) for t in prompt):
        return (prompt,)
    for i, item in enumerate(prompt):
        if not isinstance(item, str) and not (isinstance(item, list) and all(_is_id(t) for t in item)):
            text = f"prompt[{i}]: must be a text or a list of token ids"
            raise ApiError(400, text, param=f"prompt[{i}]")
    return tuple(prompt)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(message: _Message) -> dict[str, Any]:
    """Returns a message as chat templates read it: parts joined, OpenAI's later name for "system" taken back."""
    said = message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": said} | ({"name": message.name} if message.name else {})


def _invalid(said: str) -> ApiError:
    """Returns the error for what msgspec says: "Expected `int`, got `str` - at `$.max_tokens`"."""
    text, _, at = said.partition(" - at `$")
    place = at.rstrip("`").lstrip(".")
    known = re.search(r"field `([^`]+)`", text)
    if known:
        name = ".".join(filter(None, (place, known[1])))
        what = "is required" if "missing" in text else "is not known; leave it out"
        return ApiError(400, f"{name}: {what}", param=name)
    return ApiError(400, f"{place or 'the body'}: {text[:1].lower()}{text[1:]}", param=place or None)
