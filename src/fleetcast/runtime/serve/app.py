"""The HTTP side: routes, the life of a request, streams."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fleetcast.base.errors import MissingExtra, closest
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.text import Text, Writer
from fleetcast.runtime.serve import guard
from fleetcast.runtime.serve.answers import Answer, error_event
from fleetcast.runtime.serve.asks import COMPLETION_TOKENS, ApiError, Ask, read, refused
from fleetcast.runtime.serve.limits import Limits, Rate
from fleetcast.runtime.serve.metrics import CONTENT_TYPE, Metrics
from fleetcast.runtime.serve.worker import Job, Mailbox, Worker

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "serve") from None

INLINE: Final = 4096
"""Characters of a prompt up to which it is encoded at once; longer ones in a thread, so that others go on."""
GRACE: Final = 1.0
"""s that a reader who is cut off has to hear why."""
_log = logging.getLogger(__name__)
Handler = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Served:
    """What is served, and how.

    Attributes:
        model: its name.
        text: its tokenizer.
        key: that clients must send; "" = none.
        loopback: whether the server listens on this machine only.
        limits: what it takes.
    """

    model: str
    text: Text
    key: str
    loopback: bool
    limits: Limits


class Api:
    """The handlers of one server.

    Attributes:
        active: HTTP requests whose answers are under way.
        draining: whether the server takes no new ones.
    """

    def __init__(self, served: Served, worker: Worker, metrics: Metrics, connections: Callable[[], int]) -> None:
        self._served, self._worker, self._metrics, self._connections = served, worker, metrics, connections
        self._rate = Rate(served.limits.rate, time.monotonic)
        self._created = int(time.time())
        self.active, self.draining = 0, False

    def app(self) -> Any:
        """Returns the application."""
        app = web.Application(client_max_size=self._served.limits.max_body, middlewares=[self._middleware()])
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_get("/metrics", self._read_metrics)
        app.router.add_get("/health", self._health)
        return app

    def _middleware(self) -> Any:
        @web.middleware  # type: ignore[untyped-decorator]
        async def guarded(request: Any, handler: Handler) -> Any:
            try:
                self._admit(request)
                return await handler(request)
            except web.HTTPException as error:
                found = guard.from_http(error)
            except ApiError as error:
                found = error
            except ConnectionError:  # the reader has left, which is no fault to be logged; nobody reads this
                return web.Response(status=499)
            except Exception as error:
                found = refused(error)
                if found.status >= 500:
                    _log.exception("a request failed")
            self._metrics.refused(found.status)
            return _json(found.table(), found.status, found.headers)

        return guarded

    def _admit(self, request: Any) -> None:
        """Refuses who may not ask, or not now."""
        guard.check_host(request, self._served.loopback)
        guard.check_key(request, self._served.key)
        if request.method != "POST":
            return
        if self.draining:
            raise guard.busy("the server is shutting down")
        if not self._worker.alive:
            raise ApiError(503, "the engine's thread has ended; restart the server")
        if self._connections() > self._served.limits.max_connections:
            raise guard.busy(f"the server has {self._served.limits.max_connections} connections, as many as it takes")
        if wait := self._rate.wait(str(request.remote)):
            raise guard.too_often(wait, self._served.limits.rate)
        guard.check_kind(request)

    async def _completions(self, request: Any) -> Any:
        return await self._answer(request, chat=False)

    async def _chat(self, request: Any) -> Any:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Any, *, chat: bool) -> Any:
        self.active += 1
        try:
            ask = await self._ask(request, chat)
            jobs, box = await self._jobs(ask)
            if self.draining:
                raise guard.busy("the server is shutting down")
            if self._worker.waiting + len(jobs) > self._served.limits.max_waiting:
                raise guard.busy(f"{self._served.limits.max_waiting} requests wait, as many as the server takes")
            self._worker.submit(jobs)
            reason = "cancelled"
            try:
                answer = Answer(ask, jobs, self._served.text)
                if ask.stream:
                    return await self._stream(request, answer, box, len(jobs))
                return await self._at_once(answer, box, len(jobs))
            except TimeoutError:  # of `_send`
                reason = "slow_reader"
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the reader was too slow") from None
            finally:
                self._worker.cancel(jobs, reason)
        finally:
            self.active -= 1

    async def _ask(self, request: Any, chat: bool) -> Ask:
        """Reads what is asked, within the limits of size and time."""
        try:
            async with asyncio.timeout(self._served.limits.idle):
                body = await request.read()
        except TimeoutError:
            text = f"the body took longer than {self._served.limits.idle:g} s to come"
            raise ApiError(408, text) from None
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is larger than {self._served.limits.max_body} bytes"
            raise ApiError(413, text) from None
        ask = read(body, chat=chat)
        self._known(ask.model)
        return ask

    def _known(self, name: str) -> None:
        model = self._served.model
        if name != model:
            hint = closest(name, [model]) or f"It serves {model!r}"
            text = f"model: {name[:80]!r} is not served here. {hint}"
            raise ApiError(404, text, param="model", code="model_not_found")

    async def _jobs(self, ask: Ask) -> tuple[list[Job], Mailbox]:
        jobs: list[Job] = []
        most = self._served.limits.buffer * ask.count * max(1, len(ask.prompts)) if ask.stream else 1 << 40
        box = Mailbox(most, lambda: self._worker.cancel(jobs, "slow_reader"))
        ends = self._served.text.ends if ask.ends else ()
        for tokens in await self._prompts(ask):
            limit = self._room(tokens, ask)
            self._check(tokens)
            for n in range(ask.count):
                s = ask.sampling
                # each answer to a prompt has a stream of its own; the first has the one that was named
                seed = None if s.seed is None else (s.seed + n) % 2**64
                writer = Writer(self._served.text, tokens, ask.stop, ends)
                sampling = replace(s, stop=(*s.stop, *ends), seed=seed)
                jobs.append(Job(tokens, limit, sampling, writer, box, len(jobs), ask.salt))
        return jobs, box

    async def _prompts(self, ask: Ask) -> list[list[int]]:
        text = self._served.text

        def encode() -> list[list[int]]:
            if ask.chat:
                return [text.chat(ask.messages, ask.words)]
            return [text.encode(p) if isinstance(p, str) else p for p in ask.prompts]

        parts: Sequence[Any] = [m["content"] for m in ask.messages] if ask.chat else ask.prompts
        size = sum(64 + len(part) for part in parts if isinstance(part, str))
        return encode() if size <= INLINE else await asyncio.to_thread(encode)

    def _check(self, tokens: Sequence[int]) -> None:
        """Refuses what is no token, before its text is asked for."""
        vocab = self._worker.engine.model.vocab
        for i, token in enumerate(tokens):
            if not 0 <= token < vocab:
                text = f"prompt[{i}]: is not a token (got {str(token)[:40]}); ids from 0 to {vocab - 1}"
                raise ApiError(400, text, param=f"prompt[{i}]")

    def _room(self, tokens: Sequence[int], ask: Ask) -> int:
        """Returns the most tokens of an answer: as asked for, or what context and cache leave."""
        engine = self._worker.engine
        most = min(engine.model.context, engine.blocks.count * BLOCK)
        room = most - len(tokens)
        wanted = ask.limit or max(1, room if ask.chat else min(room, COMPLETION_TOKENS))
        if wanted > room:
            text = f"the prompt has {len(tokens)} tokens and max_tokens is {wanted}; at most {most} together"
            name = "messages" if ask.chat else "prompt"
            raise ApiError(400, text, param=name, code="context_length_exceeded")
        return wanted

    async def _at_once(self, answer: Answer, box: Mailbox, many: int) -> Any:
        found = []
        left = many
        while left:
            for index, delta in await box.take():
                if delta.error is not None:
                    raise refused(delta.error)
                found.append((index, delta))
                left -= bool(delta.finish)
        return web.Response(body=answer.whole(found), content_type="application/json")

    async def _stream(self, request: Any, answer: Answer, box: Mailbox, many: int) -> Any:
        """Sends events as tokens come. Nothing is sent before the first, so that a refusal has its own status."""
        found = await box.take()
        for _, delta in found:
            if delta.error is not None:
                raise refused(delta.error)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        await self._send(response.prepare(request))
        while True:
            failed = next((delta.error for _, delta in found if delta.error is not None), None)
            if failed is not None:
                await self._send(response.write(error_event(refused(failed).table())))
                break
            if box.full:
                await self._cut_off(request, response)
            await self._send(response.write(answer.event(found)))
            if len(answer.finished) == many:
                await self._send(response.write(answer.last()))
                break
            found = await box.take()
        await self._send(response.write_eof())
        return response

    async def _send(self, sending: Awaitable[Any]) -> None:
        async with asyncio.timeout(self._served.limits.stall):
            await sending

    async def _cut_off(self, request: Any, response: Any) -> None:
        """Tells a reader who is too slow, as far as there is room, and closes the connection."""
        text = f"the stream was not read: {self._served.limits.buffer} tokens wait; read faster or ask for fewer"
        try:
            async with asyncio.timeout(GRACE):
                await response.write(error_event(ApiError(503, text, code="slow_reader").table()))
                await response.write_eof()
        finally:
            if request.transport is not None:
                request.transport.abort()
        raise ConnectionResetError("the reader was too slow")

    async def _models(self, _: Any) -> Any:
        return _json({"object": "list", "data": [self._row()]})

    async def _model(self, request: Any) -> Any:
        self._known(request.match_info["name"])
        return _json(self._row())

    def _row(self) -> dict[str, Any]:
        context = self._worker.engine.model.context
        return {
            "id": self._served.model, "object": "model", "created": self._created, "owned_by": "fleetcast",
            "max_model_len": context,
        }  # fmt: skip

    async def _read_metrics(self, _: Any) -> Any:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _: Any) -> Any:
        if self.draining:
            raise guard.busy("the server is shutting down")
        if not self._worker.alive:
            raise ApiError(503, "the engine's thread has ended; restart the server")
        return _json({"status": "ok"})


def _json(table: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    body = msgspec.json.encode(table)
    found = web.Response(body=body, status=status, content_type="application/json", headers=headers)
    if status in (408, 413):  # the rest of the body may still come
        found.force_close()
    return found
