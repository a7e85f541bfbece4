"""A drafter in a process of its own: it drafts for one half of the batch while the target checks the other.

What travels is token ids: what is new of each context there, the draft back. A drafter that dies, fails or says nothing
for too long is given up, with a warning, and decoding goes on without drafts.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.draft.protocol import Ask, Drafter


class Pipelined:
    """Sends asks to another process and fetches what it drafted.

    Attributes: ``failure`` says why it was given up, "" = it runs.

    Args:
        make: builds the drafter, over there: a function or a `functools.partial` that can be pickled.
        patience: s that a draft may take before the drafter is given up.
        start: s that building it may take.

    Raises:
        SpecError: the drafter cannot be built; with its error.
    """

    def __init__(self, make: Callable[[], Drafter], *, patience: float = 10.0, start: float = 120.0) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self.patience, self.failure = patience, ""
        self._told: dict[int, int] = {}
        self._asked: dict[int, int] = {}
        self._drafts: dict[int, tuple[int, list[int]]] = {}
        self._asks = 0
        self._process.start()
        theirs.close()
        said = self._receive(start)
        if said is None or said[0] != "ready":
            why = self.failure if said is None else said[1]
            self._stop()
            raise SpecError(
                "drafter", f"cannot be built in its process: {why}",
                hint='Correct that; a script that starts processes does so under if __name__ == "__main__"',
            )  # fmt: skip
        self.drafters, self.vocab = said[1]

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns None: what the drafter has is known once it has said it."""
        return None

    def send(self, asked: Sequence[Ask]) -> None:
        """Asks for drafts and returns at once."""
        news = []
        for ask in asked:
            self._asks += 1
            self._asked[ask.request] = self._asks
            known = self._told.get(ask.request, 0)
            self._told[ask.request] = len(ask.tokens)
            news.append((self._asks, ask._replace(tokens=list(ask.tokens[known:])), known))
        if news:
            self._say(("draft", news))

    def fetch(self, requests: Sequence[int]) -> list[list[int]]:
        """Returns what was drafted for requests that were asked for; waits for it."""
        deadline = time.monotonic() + self.patience
        for request in requests:
            while (
                request in self._asked
                and not self.failure
                and self._drafts.get(request, (-1, []))[0] != self._asked[request]
            ):
                said = self._receive(deadline - time.monotonic())
                if said is None:
                    break
                if said[0] == "failed":
                    self._lose(said[1])
                else:
                    for number, ask, draft in said[1]:
                        self._drafts[ask] = number, draft
        return [
            draft if number == self._asked.get(request) else []
            for request in requests for number, draft in (self._drafts.get(request, (-1, [])),)
        ]  # fmt: skip

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Asks and waits."""
        self.send(asked)
        return self.fetch([ask.request for ask in asked])

    def forget(self, request: int) -> None:
        """Drops what is kept of a request, there too."""
        for known in (self._told, self._asked, self._drafts):
            known.pop(request, None)
        self._say(("forget", request))

    def close(self) -> None:
        """Ends the process; it is given a second to end by itself."""
        self._say(None)
        self._stop(1.0)

    def _say(self, message: object) -> None:
        if self.failure:
            return
        try:
            self._pipe.send(message)
        except OSError as error:
            self._lose(f"it is gone: {type(error).__name__}")

    def _receive(self, seconds: float) -> Any:
        """Returns the next message, or None where there is none: the drafter is given up then."""
        try:
            if self._pipe.poll(max(0.0, seconds)):
                return self._pipe.recv()
            self._lose("it said nothing in time")
        except (EOFError, OSError) as error:
            self._lose(f"it is gone: {type(error).__name__}")
        return None

    def _lose(self, why: str) -> None:
        if self.failure:
            return
        self.failure = why
        self._stop()
        warnings.warn(f"the drafter is given up ({why}); decoding goes on without drafts", RuntimeWarning, stacklevel=4)

    def _stop(self, seconds: float = 0.0) -> None:
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self.failure = self.failure or "it was closed"


def _serve(pipe: Connection, make: Callable[[], Drafter]) -> None:
    """Drafts until told to end, or until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts the engine ends this through the pipe
    contexts: dict[int, list[int]] = {}
    try:
        drafter = make()
        pipe.send(("ready", (drafter.drafters, drafter.vocab)))
        while (said := pipe.recv()) is not None:
            what, value = said
            if what == "forget":
                contexts.pop(value, None)
                drafter.forget(value)
                continue
            asks = []
            for _, ask, known in value:
                context = contexts.setdefault(ask.request, [])
                context[known:] = ask.tokens
                asks.append(ask._replace(tokens=context))
            drafts = drafter.draft(asks)
            pipe.send(("drafts", [(n, ask.request, d) for (n, ask, _), d in zip(value, drafts, strict=True)]))
        drafter.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
