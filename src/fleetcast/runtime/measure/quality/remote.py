"""Asking a server: OpenAI's ``/v1/completions`` for one token, with the log probabilities of the likeliest.

A letter that is not among those the server reports counts as less likely than all of them. A server that reports none
is judged by the letter that it writes, as the published harness does; one that writes none has not answered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.measure.quality.orders import Ask
from fleetcast.runtime.measure.quality.score import Scored
from fleetcast.runtime.replay import Server

LIKELIEST = 20
"""Log probabilities to ask for; servers that allow fewer are asked again."""
FEWER = (5, 0)
_CONNECT = 10.0


class Remote:
    """Scores asks by a server. Meets the `Scorer` protocol; letters only, since a server scores no texts.

    Args:
        server: its address, model, key and time limit.
        transport: of httpx, for tests.

    Raises:
        MissingExtra: httpx is absent.
    """

    def __init__(self, server: Server, transport: Any = None) -> None:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", "run") from None
        self.server, self._httpx, self._likeliest = server, httpx, LIKELIEST
        key = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        self._http = httpx.Client(
            transport=transport, timeout=httpx.Timeout(server.timeout, connect=_CONNECT), trust_env=False,
            headers={"Content-Type": "application/json"} | key,
        )  # fmt: skip

    def __enter__(self) -> Remote:
        """Returns itself; its connections are closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes its connections."""
        self._http.close()

    def models(self) -> list[str]:
        """Returns the models that the server lists; none where it keeps no list."""
        try:
            response = self._http.get(f"{self.server.url}/models")
            return [row["id"] for row in msgspec.json.decode(response.content)["data"] if isinstance(row["id"], str)]
        except (self._httpx.HTTPError, msgspec.DecodeError, KeyError, TypeError):
            return []

    def score(self, asks: Sequence[Ask]) -> Iterator[Scored]:
        """Yields what the server says of each ask, in order; seconds are those of the whole answer.

        Raises:
            SpecError: no connection, or an answer that is none.
        """
        for ask in asks:
            begun = time.perf_counter()
            choice, tokens = self._complete(ask.prompt)
            seconds = time.perf_counter() - begun
            yield Scored(letters(choice, [c.strip() for c in ask.continuations]), seconds, tokens)

    def _complete(self, prompt: str) -> tuple[dict[str, Any], int]:
        while True:
            body = {"model": self.server.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
            body |= {"logprobs": self._likeliest} if self._likeliest else {}
            try:
                response = self._http.post(f"{self.server.url}/completions", content=msgspec.json.encode(body))
            except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
                said = self.server.clean(str(error) or type(error).__name__)
                raise SpecError("url", f"gave no answer: {said}", value=self.server.url,
                                limit="an OpenAI-compatible server", hint="Is it running?") from None  # fmt: skip
            if response.status_code in (400, 422) and self._likeliest:
                self._likeliest = FEWER[0] if self._likeliest == LIKELIEST else FEWER[1]
                continue
            try:
                answer = msgspec.json.decode(response.content)
                choice = answer["choices"][0]
                if response.status_code == 200 and isinstance(choice["text"], str):
                    return choice, int((answer.get("usage") or {}).get("prompt_tokens") or 0)
            except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
                pass
            said = self.server.clean(response.text)
            raise SpecError("url", f"answered HTTP {response.status_code}: {said}", value=self.server.url,
                            limit="a completion, as of /v1/completions",
                            hint="Name the model it serves: --model NAME")  # fmt: skip


def letters(choice: dict[str, Any], names: Sequence[str]) -> tuple[float, ...]:
    """Returns the log probability of each letter as the first token of a choice; all -inf where it names none.

    Several tokens may say a letter ("A", " A"): the likeliest counts.
    """
    found = dict.fromkeys(names, -math.inf)
    said = choice.get("logprobs")
    top = said.get("top_logprobs") if isinstance(said, dict) else None
    first = top[0] if isinstance(top, list) and top and isinstance(top[0], dict) else {}
    for token, logprob in first.items():
        name = token.strip().rstrip(".):").upper()
        if name in found and isinstance(logprob, int | float):
            found[name] = max(found[name], float(logprob))
    if not any(math.isfinite(x) for x in found.values()):
        name = choice["text"].strip()[:1].upper()
        if name in found:
            found[name] = 0.0
    return tuple(found.values())
