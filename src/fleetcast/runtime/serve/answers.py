"""What a client gets: OpenAI's response objects and the events of its streams."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from fleetcast.runtime.llm.sampling import Choice
from fleetcast.runtime.llm.text import Text
from fleetcast.runtime.serve.asks import Ask
from fleetcast.runtime.serve.worker import Delta, Job

DONE: Final = b"data: [DONE]\n\n"


@dataclass
class Part:
    """What came of one answer since it was last sent: everything, where it is sent at once."""

    text: str = ""
    choices: list[Choice] = field(default_factory=list)
    finish: str = ""

    def add(self, delta: Delta) -> None:
        """Adds what came."""
        self.text += delta.text
        self.finish = delta.finish
        if delta.choice is not None:
            self.choices.append(delta.choice)


class Answer:
    """The answer to one HTTP request.

    Args:
        ask: what was asked.
        jobs: its answers, by index.
        text: the tokenizer.
    """

    def __init__(self, ask: Ask, jobs: Sequence[Job], text: Text) -> None:
        self._ask, self._jobs, self._text = ask, jobs, text
        kind = "chat.completion" if ask.chat else "text_completion"
        self._head = {
            "id": ("chatcmpl-" if ask.chat else "cmpl-") + uuid.uuid4().hex,
            "object": kind + (".chunk" if ask.chat and ask.stream else ""), "created": int(time.time()),
            "model": ask.model,
        }  # fmt: skip
        self._begun: set[int] = set()
        self._offset = [0] * len(jobs)
        self.finished: set[int] = set()

    def event(self, found: Iterable[tuple[int, Delta]]) -> bytes:
        """Returns the events of a stream for what came: one an answer."""
        parts = _by_index(found)
        return b"".join(_event(self._head | {"choices": [self._choice(i, part)]}) for i, part in parts.items())

    def whole(self, found: Iterable[tuple[int, Delta]]) -> bytes:
        """Returns the body of an answer that is sent at once."""
        parts = _by_index(found)
        table: dict[str, Any] = self._head | {"choices": [self._choice(i, parts[i]) for i in sorted(parts)]}
        if self._ask.chat and self._ask.ids:
            table["prompt_token_ids"] = list(self._jobs[0].prompt)
        return msgspec.json.encode(table | {"usage": self.usage()})

    def last(self) -> bytes:
        """Returns the end of a stream."""
        usage = _event(self._head | {"choices": [], "usage": self.usage()}) if self._ask.usage else b""
        return usage + DONE

    def usage(self) -> dict[str, Any]:
        """Returns the counts of tokens. A prompt counts once, however many answers it gets."""
        prompts = self._jobs[:: self._ask.count]
        prompt = sum(len(job.prompt) for job in prompts)
        output = sum(job.count for job in self._jobs)
        table: dict[str, Any] = {
            "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
        }  # fmt: skip
        cached = [job.cached for job in prompts if job.cached is not None]
        if cached:
            table["prompt_tokens_details"] = {"cached_tokens": sum(cached)}
        return table

    def _choice(self, index: int, part: Part) -> dict[str, Any]:
        ask = self._ask
        table: dict[str, Any] = {"index": index, "finish_reason": part.finish or None, "logprobs": None}
        if part.finish:
            self.finished.add(index)
        if ask.chat:
            said = {"content": part.text}
            if not ask.stream or index not in self._begun:
                said = {"role": "assistant"} | said
            table["delta" if ask.stream else "message"] = said
            if ask.logprobs:
                table["logprobs"] = {"content": [self._told(c) for c in part.choices]}
        else:
            table["text"] = part.text
            if ask.logprobs:
                table["logprobs"] = self._listed(index, part.choices)
        if ask.ids:
            table["token_ids"] = [c.token for c in part.choices]
            if not ask.chat and index not in self._begun:
                table["prompt_token_ids"] = list(self._jobs[index].prompt)
        self._begun.add(index)
        return table

    def _told(self, choice: Choice) -> dict[str, Any]:
        """Returns a token as chat completions report it."""

        def row(token: int, logprob: float) -> dict[str, Any]:
            name, raw = self._name(token)
            return {"token": name, "logprob": logprob, "bytes": [] if token in self._text.special else list(raw)}

        return row(choice.token, choice.logprob) | {"top_logprobs": [row(*pair) for pair in choice.top]}

    def _listed(self, index: int, choices: Sequence[Choice]) -> dict[str, Any]:
        """Returns tokens as completions report them: lists beside each other."""
        names = [self._name(c.token)[0] for c in choices]
        offsets = []
        for c in choices:
            offsets.append(self._offset[index])
            self._offset[index] += 0 if c.token in self._text.special else len(self._text.piece(c.token)[0])
        tops = [
            {self._name(token)[0]: logprob for token, logprob in (*c.top, (c.token, c.logprob))} for c in choices
        ]  # fmt: skip
        return {
            "tokens": names, "token_logprobs": [c.logprob for c in choices], "top_logprobs": tops,
            "text_offset": offsets,
        }  # fmt: skip

    def _name(self, token: int) -> tuple[str, bytes]:
        r"""Returns a token's text and bytes; as OpenAI writes it, ``bytes:\xe4`` where they are no whole character."""
        text, raw = self._text.piece(token)
        if raw != text.encode():
            text = "bytes:" + "".join(f"\\x{b:02x}" for b in raw)
        return text, raw


def error_event(table: dict[str, Any]) -> bytes:
    """Returns the event that ends a stream which cannot go on."""
    return _event(table)


def _event(table: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(table) + b"\n\n"


def _by_index(found: Iterable[tuple[int, Delta]]) -> dict[int, Part]:
    parts: dict[int, Part] = {}
    for index, delta in found:
        parts.setdefault(index, Part()).add(delta)
    return parts
