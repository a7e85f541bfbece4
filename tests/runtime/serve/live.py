"""A server in a thread, with a tiny model that speaks, or one that takes its time."""

import asyncio
import contextlib
import threading
import time

from fleetcast.policy import batch
from fleetcast.runtime.llm import Engine, open_engine
from fleetcast.runtime.llm.text import open_text
from fleetcast.runtime.serve.limits import Limits
from fleetcast.runtime.serve.server import Server
from tests.runtime.llm.echo import Echo
from tests.runtime.llm.words import VOCAB

MODEL = "tiny"


class Slow(Echo):
    """`Echo`, with a pause before each iteration; long contexts."""

    def __init__(self, blocks, pause=0.0, context=100_000):
        super().__init__(blocks, VOCAB + 16, context)
        self.pause, self.failing = pause, False

    def forward(self, pieces):
        self.passes.clear()
        if self.failing:
            raise RuntimeError("no such pass")
        time.sleep(self.pause)
        return super().forward(pieces)


def slow_engine(pause=0.0, blocks=4096, policy=None, **settings):
    return Engine(Slow(blocks, pause), blocks=blocks, batch=policy or batch.Chunked(), **settings)


def real_engine(folder, blocks=512, **settings):
    import torch

    torch.set_num_threads(1)
    return open_engine(folder, blocks=blocks, **settings)


class Live:
    """A server that runs, as its test sees it."""

    def __init__(self, server, engine, url, loop):
        self.server, self.engine, self.url, self.loop = server, engine, url, loop
        self.root = url.removesuffix("/v1")

    def rest(self, timeout=10.0):
        """Waits until nothing is under way, and checks that nothing is held."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if not self.engine.load and not self.server._api.active and not self.engine.blocks.used:
                return
            time.sleep(0.01)
        held = self.engine.load, self.server._api.active, self.engine.blocks.used
        raise AssertionError(f"still there: {held[0]} requests, {held[1]} HTTP requests, {held[2]} blocks")

    def stop(self, timeout=20.0):
        """Stops the server; returns the requests that did not end by themselves."""
        return asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop).result(timeout)

    def metric(self, name, **labels):
        found = self.server._api._metrics.registry.get_sample_value(f"fleetcast:{name}", {"model_name": MODEL} | labels)
        return found or 0.0


@contextlib.contextmanager
def serving(engine, folder, *, stop=True, **settings):
    """Serves an engine with a folder's tokenizer for as long as the context lasts."""
    limits = Limits(**{name: settings.pop(name) for name in list(settings) if name in Limits.__annotations__})
    server = Server(engine, open_text(folder, engine.model.vocab), MODEL, port=0, limits=limits, **settings)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        url = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        live = Live(server, engine, url, loop)
        yield live
        if stop:
            live.rest()
            live.stop()
    finally:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(server._runner.cleanup(), loop).result(10)
            server._worker.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
