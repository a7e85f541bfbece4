"""A server from its start to its end: it listens, and when told to stop it ends what is under way first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.listen import BACKLOG, bind, check_address, is_loopback, more_files
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.text import Text
from fleetcast.runtime.serve.app import GRACE, Api, Served
from fleetcast.runtime.serve.asks import ApiError
from fleetcast.runtime.serve.limits import Limits
from fleetcast.runtime.serve.metrics import Metrics
from fleetcast.runtime.serve.worker import Worker

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "serve") from None

SEND_BUFFER: Final = 64 << 10
"""Bytes that the system keeps of a stream which is not read, about; beyond them the server notices."""
SWITCH: Final = 0.001
"""s after which the engine's thread lets the event loop's run, and the other way round; Python's default is 0.005."""


class Server:
    """An engine that is served. Its methods run in one event loop.

    Args:
        engine: nobody else may use it from `start` on.
        text: its tokenizer.
        model: the name that clients ask for.
        host: to listen on.
        port: to listen on; 0 = any that is free.
        key: that clients must send as a bearer token; "" = none.
        limits: what it takes.

    Raises:
        SpecError: as `check`.
    """

    def __init__(
        self, engine: Engine, text: Text, model: str, *, host: str = "127.0.0.1", port: int = 8000, key: str = "",
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.check(host, port, key)
        self._engine, self._host, self._port = engine, host, port
        self._served = Served(model, text, key, is_loopback(host), limits or Limits())
        self._runner: Any = None
        self._site: Any = None
        self._worker: Worker
        self._api: Api
        self.url = ""

    @staticmethod
    def check(host: str, port: int, key: str) -> None:
        """Refuses an address before any long work.

        Raises:
            SpecError: it would be open to others without a key, or the port is out of range.
        """
        check_address(host, port, key)

    async def start(self) -> str:
        """Listens; returns the URL of the API.

        Raises:
            SpecError: the address cannot be listened on.
        """
        limits = self._served.limits
        listening = bind(self._host, self._port, send_buffer=SEND_BUFFER)
        metrics = Metrics(self._served.model, self._engine)
        self._worker = Worker(self._engine, asyncio.get_running_loop(), metrics)
        self._api = Api(self._served, self._worker, metrics, lambda: len(self._runner.server.connections))
        self._runner = web.AppRunner(
            self._api.app(), handler_cancellation=True, access_log=None, keepalive_timeout=limits.idle,
            lingering_time=1.0, shutdown_timeout=GRACE,
        )  # fmt: skip
        await self._runner.setup()
        self._site = web.SockSite(self._runner, listening, backlog=BACKLOG)
        await self._site.start()
        self._worker.start()
        host, port = listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        return self.url

    async def stop(self, hurry: asyncio.Event | None = None) -> int:
        """Takes no new requests, lets those under way end within the limit, then ends the rest with an error.

        Args:
            hurry: when set, the rest is ended at once.

        Returns:
            HTTP requests that did not end by themselves.
        """
        self._api.draining = True
        await self._site.stop()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._served.limits.drain
        while self._api.active and loop.time() < until and not (hurry is not None and hurry.is_set()):
            await asyncio.sleep(0.02)
        left = self._api.active
        if left:
            self._worker.end_all(ApiError(503, "the server is shutting down", code="shutdown"), "shutdown")
            until = loop.time() + 2 * GRACE
            while self._api.active and loop.time() < until:
                await asyncio.sleep(0.02)
        await self._runner.cleanup()
        self._worker.stop()
        await asyncio.to_thread(self._worker.join, 10.0)
        return left


def serve(server: Server, ready: Callable[[str], None]) -> int:
    """Serves until SIGINT or SIGTERM; a second one ends what is under way at once.

    Args:
        server: not started.
        ready: called with the URL when requests are taken.

    Returns:
        HTTP requests that were under way and did not end by themselves.

    Raises:
        SpecError: the address cannot be listened on.
    """
    more_files()
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        return asyncio.run(_serve(server, ready))
    finally:
        sys.setswitchinterval(before)


async def _serve(server: Server, ready: Callable[[str], None]) -> int:
    over, hurry = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (hurry if over.is_set() else over).set()

    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # an event loop without signals: Ctrl-C then ends it at once
            loop.add_signal_handler(sign, told)
    url = await server.start()
    ready(url)
    await over.wait()
    return await server.stop(hurry)
