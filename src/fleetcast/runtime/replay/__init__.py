"""Replaying traffic against a server that runs: any that streams OpenAI's completions, or chats.

`prompts` makes what is sent, `pace` says when, `client` sends it, `stream` reads what comes back, `account` turns that
into an Outcome. The server is not started, and what it runs is not known: only what it answers is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.runtime.replay import account, client, pace
from fleetcast.runtime.replay.client import PROMPTS, Server, address, key_of
from fleetcast.runtime.replay.prompts import Prompts, text, unlike
from fleetcast.runtime.replay.stream import Answer
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.requests import Requests

__all__ = ["PROMPTS", "Replay", "Server", "address", "key_of", "replay"]

WARM = 16
"""Most tokens that a request for warming up asks for."""
MOST_WARM = 1000


@dataclass(frozen=True)
class Replay:
    """A replay that is over.

    Attributes:
        outcome: of the requests that were answered.
        rows: per request of the traffic its `account.COLUMNS`, failed ones too.
        interrupted: whether it was stopped before its end.
        steps: what each of an engine's own iterations was, see `local.STEPS`; None of a server's.
    """

    outcome: Outcome
    rows: tuple[tuple[Any, ...], ...]
    interrupted: bool
    steps: tuple[tuple[float, ...], ...] | None = None


def replay(
    requests: Requests, server: Server, *, slo: Slo, plan: Mapping[str, Any], model: str, speed: float = 1.0,
    warmup: int = 3, seed: int = 0, progress: Callable[[int, int], None] | None = None,
) -> Replay:  # fmt: skip
    """Sends the requests to a server and measures its answers; Ctrl-C ends it with what was measured until then.

    Args:
        requests: the traffic: by the clock, or users of a closed loop.
        server: whom to ask; its model may be open.
        slo: the limits.
        plan: what the scenario says about the plan.
        model: the scenario's, asked for where the server does not say what it serves.
        speed: 2 = arrivals come twice as fast, and pauses are half as long.
        warmup: requests before those that count; the first find out whether the server can be measured.
        seed: of prompts and pauses.
        progress: called with (requests settled, requests).

    Raises:
        SpecError: the server cannot be measured, or a value is out of range.
        MissingExtra: httpx is absent.
        Unsupported: no request was answered, or it is called within an event loop.
    """
    check("warmup", warmup, 1 <= warmup <= MOST_WARM, f"1 to {MOST_WARM}: the first also tries the server")
    if server.prompts not in PROMPTS:
        raise SpecError("prompts", "cannot be", value=server.prompts, limit=f"one of {', '.join(PROMPTS)}")
    check("timeout", server.timeout, 0 < server.timeout < float("inf"), "above 0 s")
    requests = sped(requests, speed)
    _refuse_nesting()
    run = _Run(requests, server, Prompts(requests, seed), seed, progress)
    interrupted = False
    try:
        asyncio.run(run.go(model, warmup))
    except KeyboardInterrupt:
        if not any(a.ok and a.over for a in run.answers):
            raise  # nothing was measured
        interrupted = True
    answers = settled(requests, run.answers)
    provenance = {
        "seed": seed, "requests": requests.digest(), "url": run.server.url, "model": run.server.model,
        "started": run.started, "speed": speed, "warmup": warmup, "prompts": server.prompts,
        "interrupted": interrupted, "lag": sum(run.lags) / len(run.lags) if run.lags else 0.0,
    }  # fmt: skip
    found = account.outcome(requests, answers, slo, plan, run.server.url, run.prompts, provenance)
    return Replay(found, tuple(account.row(a, requests) for a in answers), interrupted)


def sped(requests: Requests, speed: float) -> Requests:
    """Returns the traffic as it comes ``speed`` times as fast, with a note that says so.

    Raises:
        SpecError: out of range.
    """
    check("speed", speed, 0 < speed < float("inf"), "above 0")
    if speed == 1:
        return requests
    requests = replace(requests.speed_up(speed), ramp=requests.ramp / speed, think=requests.think / speed)
    note = f"replayed {speed:g} times as fast as the scenario says: another load than the scenario's"
    return replace(requests, notes=(*requests.notes, note))


def settled(requests: Requests, answers: Iterable[Answer]) -> list[Answer]:
    """Returns an answer per request, in order; of those never sent, one that says so."""
    found = {a.request: a for a in answers}
    for i in range(len(requests)):
        answer = found.setdefault(i, Answer(i, float(requests.arrival[i] - requests.arrival[0])))
        if answer.sent != answer.sent:
            answer.fail("not sent")
        elif not answer.over:
            answer.fail("interrupted")
    return [found[i] for i in range(len(requests))]


def check(name: str, value: float, good: bool, limit: str) -> None:
    """Raises SpecError where a setting is not good."""
    if not good:
        raise SpecError(name, "is out of range", value=value, limit=limit, hint="Leave it out for the default")


class _Run:
    """One replay under way: what it has sent and heard so far."""

    def __init__(
        self, requests: Requests, server: Server, prompts: Prompts, seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:  # fmt: skip
        self.requests, self.server, self.prompts, self.seed = requests, server, prompts, seed
        self.answers: list[Answer] = []
        self.lags: list[float] = []
        self.started = ""
        self._progress, self._done, self._start = progress, 0, 0.0
        self._http: Any = None

    async def go(self, model: str, warmup: int) -> None:
        """Warms up, then sends everything."""
        async with client.client(self.server) as http:
            self._http = http
            served = await client.models(http, self.server)
            name = client.chosen(self.server.model, served, self.server.url, model)
            self.server = replace(self.server, model=name)
            await self._warm(warmup)
            self.started = datetime.now(UTC).isoformat(timespec="seconds")
            self._start = time.perf_counter()
            watching = asyncio.create_task(pace.watch(self.lags, self._clock))
            try:
                await self._pace()
            finally:
                watching.cancel()

    async def _pace(self) -> None:
        if self.requests.concurrency:
            await pace.by_users(self.requests, self._send, self.answers, self._clock, self.seed)
        else:
            await pace.by_clock(self.requests, self._send, self.answers, self._clock)

    def _clock(self) -> float:
        return time.perf_counter() - self._start

    async def _warm(self, count: int) -> None:
        """Sends requests that do not count, one after the other.

        Raises:
            SpecError: one of them failed, so the others would too.
        """
        for i in range(count):
            k = i % len(self.requests)
            tokens = unlike(self.seed, i, int(self.requests.prompt[k]))
            body = self._body(tokens, min(WARM, int(self.requests.output[k])))
            answer = await client.ask(self._http, self.server, body, Answer(k, 0.0), self._clock)
            if not answer.ok:
                raise client.refusal(answer, self.server)

    async def _send(self, answer: Answer) -> None:
        i = answer.request
        body = self._body(self.prompts.tokens(i), int(self.requests.output[i]))
        await client.ask(self._http, self.server, body, answer, self._clock)
        if answer.ids:
            self.prompts.hear(i, answer.ids)
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self.requests))

    def _body(self, tokens: np.ndarray[Any, Any], output: int) -> bytes:
        return self.server.body(tokens.tolist() if self.server.prompts == "tokens" else text(tokens), output)


def _refuse_nesting() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise Unsupported("an event loop runs here already", "Write: await asyncio.to_thread(fleetcast.run, ...)")
