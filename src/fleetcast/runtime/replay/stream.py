"""A streamed completion, event by event: when tokens came, how many, and what was wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

DONE = "[DONE]"


@dataclass
class Answer:
    """What became of one request. Times are s of one clock that starts with the run.

    Attributes:
        request: its number in the traffic.
        due: when it should be sent.
        sent: when it was; NaN = never.
        first: when its first token came; NaN = none did.
        last: when its last token came.
        chunks: events that carried tokens.
        output: tokens that the server says it made; without its word, `chunks`.
        prompt: tokens that the server says the prompt had, or None.
        cached: of those the ones that it says its prefix cache held, or None.
        status: "ok", or what went wrong in a word or two: one of `KINDS` or `STOPPED`, or "HTTP 503".
        detail: what came back, shortened.
        ids: ids of the answer's tokens, where the server gives them.
        over: whether it is settled, well or not.
    """

    request: int
    due: float
    sent: float = float("nan")
    first: float = float("nan")
    last: float = float("nan")
    chunks: int = 0
    output: int = 0
    prompt: int | None = None
    cached: int | None = None
    status: str = "ok"
    detail: str = ""
    ids: list[int] = field(default_factory=list)
    over: bool = False

    @property
    def ok(self) -> bool:
        """Whether it was answered to the end."""
        return self.status == "ok"

    def fail(self, status: str, detail: str = "") -> None:
        """Says what went wrong; the first word stands."""
        if self.ok:
            self.status, self.detail = status, detail


KINDS = {
    "no connection": "the server could not be reached",
    "timeout": "no whole answer within the timeout",
    "disconnected": "the connection ended within an answer",
    "not streaming": "the answer was no stream of events",
    "malformed": "an event was not a completion",
    "error": "the server reported an error within the stream",
    "empty": "the answer had no token",
}
"""What can go wrong beside an HTTP status, in words."""
STOPPED = ("interrupted", "not sent")
"""What becomes of requests when the run is stopped: no fault of the server."""


class Stream:
    """Reads the events of one answer into it.

    Args:
        answer: what is filled in.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._ended = False
        self._closing = float("nan")  # when an event without text said that the answer was over

    def take(self, data: str, now: float) -> None:
        """Takes the data of one event that came at ``now``."""
        if data == DONE:
            self._ended = True
            return
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            self.answer.fail("malformed", data)
            return
        if not isinstance(event, dict):
            self.answer.fail("malformed", data)
        elif event.get("error"):
            self.answer.fail("error", _message(event["error"]))
        elif not isinstance(event.get("choices"), list) and not isinstance(event.get("usage"), dict):
            self.answer.fail("malformed", data)
        else:
            self._usage(event.get("usage"))
            for choice in event.get("choices") or ():
                self._choice(choice, data, now)

    def close(self) -> None:
        """The server has ended the answer: says so where it has ended too early."""
        answer = self.answer
        if not self._ended:
            answer.fail("disconnected", f"after {answer.chunks} events with tokens, none of which was the last")
        if not answer.chunks and answer.output:  # one token and no text: it came with the end
            answer.first = answer.last = self._closing
        elif not answer.chunks:
            answer.fail("empty")
        answer.output = answer.output or answer.chunks

    def _choice(self, choice: Any, data: str, now: float) -> None:
        if not isinstance(choice, dict):
            self.answer.fail("malformed", data)
            return
        said = choice.get("text") if "delta" not in choice else _spoken(choice["delta"])
        if said is not None and not isinstance(said, str):
            self.answer.fail("malformed", data)
            return
        ids, over = choice.get("token_ids"), choice.get("finish_reason") is not None
        if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
            self.answer.ids += ids
        self._ended = self._ended or over
        # A token may have no text of its own (half a character), but an event that only says "over" holds none.
        if not said and not ids and (over or said is None):
            self._closing = now
            return
        if not self.answer.chunks:
            self.answer.first = now
        self.answer.chunks += 1
        self.answer.last = now

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        answer = self.answer
        answer.output = _count(usage.get("completion_tokens")) or answer.output
        answer.prompt = _count(usage.get("prompt_tokens")) or answer.prompt
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and _count(details.get("cached_tokens")) is not None:
            answer.cached = _count(details.get("cached_tokens"))


def _spoken(delta: Any) -> Any:
    """What a chat's event says; None where it holds no token, as the one that only names who speaks."""
    if not isinstance(delta, dict):
        return False  # no text, which is malformed
    said = delta.get("content")
    if not said:  # models that think say so under another name
        said = delta.get("reasoning_content") or delta.get("reasoning") or said
    return None if said == "" and delta.get("role") else said


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _message(error: Any) -> str:
    """What an error object says."""
    found = error.get("message") if isinstance(error, dict) else error
    return str(found if found is not None else error)


def explained(body: str) -> str:
    """Returns what the body of a refusal says: the message of its error object, or itself."""
    try:
        table = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        return body
    if isinstance(table, dict):
        for key in ("error", "message", "detail"):
            if table.get(key):
                return _message(table[key])
    return body
