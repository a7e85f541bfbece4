"""A toy that answers as an OpenAI-compatible server does, after known delays: no model, no text worth reading.

``python -m benchmarks.toy_server --port 8000`` lets `fleetcast run` be tried without a GPU. A request's first token
comes `first` seconds after it was asked for, the others `gap` seconds after each other, however many requests there
are: what it is good for is to show that a replay measures what is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Writer = asyncio.StreamWriter


@dataclass
class Toy:
    """What the toy does and has seen.

    Attributes:
        first: s until the first token.
        gap: s between tokens.
        models: that it lists; empty = it keeps no list.
        fault: body of a request -> what to do wrong, see `FAULTS`, or "".
        key: that it wants; "" = none.
        paths: that it answers at.
        seen: bodies of the requests, in order.
        now: requests under way.
        most: most that were under way at once.
    """

    first: float = 0.05
    gap: float = 0.01
    models: tuple[str, ...] = ("toy",)
    fault: Callable[[dict[str, Any]], str] = lambda _: ""
    key: str = ""
    paths: tuple[str, ...] = ("/v1/completions", "/v1/chat/completions")
    seen: list[dict[str, Any]] = field(default_factory=list)
    now: int = 0
    most: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """Answers the requests of one connection."""
        try:
            while line := await reader.readline():
                head: dict[str, str] = {}
                while (row := (await reader.readline()).strip()) != b"":
                    name, _, value = row.decode().partition(":")
                    head[name.strip().lower()] = value.strip()
                body = await reader.readexactly(int(head.get("content-length", 0)))
                if not await self._one(line.decode().split()[1], head, body, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, path: str, head: dict[str, str], body: bytes, writer: Writer) -> bool:
        """Answers a request; returns whether the connection stays."""
        if self.key and head.get("authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key provided: {head.get('authorization', 'none')}"
            return await _plain(writer, 401, {"error": {"message": said}})
        if path.endswith("/models"):
            rows = [{"id": name} for name in self.models]
            return await _plain(writer, 200 if rows else 404, {"data": rows})
        if path not in self.paths:
            return await _plain(writer, 404, {"detail": "Not Found"})
        asked = json.loads(body)
        self.seen.append(asked)
        fault = self.fault(asked)
        if fault.isdigit():
            return await _plain(writer, int(fault), {"error": {"message": f"toy fault {fault}"}})
        if fault == "no model":
            return await _plain(writer, 404, {"error": {"message": "The model does not exist"}})
        if fault == "no stream":
            return await _plain(writer, 200, {"choices": [{"text": "all at once"}]})
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._stream(asked, fault, writer, chat="chat" in path)
        finally:
            self.now -= 1

    async def _stream(self, asked: dict[str, Any], fault: str, writer: Writer, *, chat: bool) -> bool:
        n = int(asked["max_tokens"])
        said = asked["messages"][-1]["content"] if chat else asked["prompt"]
        begun = asyncio.get_running_loop().time()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if chat:  # as servers do: who speaks is said before a token is there
            await _event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for i in range(n):
            due = begun + self.first + self.gap * i
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if fault == "hang":
                await asyncio.sleep(3600)
            if fault == "cut" and i == n // 2:
                await writer.drain()
                return False
            if fault == "error" and i == n // 2:
                await _event(writer, {"error": {"message": "toy out of memory", "code": 500}})
            if fault == "garbage" and i == n // 2:
                await _event(writer, "{not JSON")
            if fault != "empty":
                choice = {"finish_reason": None} | ({"delta": {"content": " a"}} if chat else {"text": " a"})
                ids = {"token_ids": [40_000 + i]} if asked.get("return_token_ids") else {}
                await _event(writer, {"choices": [choice | ids]}, dribble=fault == "dribble")
        if fault == "quiet end":  # the stream ends well-formed, but nobody says that the answer is over
            n = 0
        else:
            last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
            await _event(writer, {"choices": [last | {"finish_reason": "length"}]})
            prompt = len(said if isinstance(said, list) else said.split())
            if asked.get("stream_options", {}).get("include_usage") and fault not in ("no usage", "empty"):
                await _event(writer, {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": n}})
            await _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


FAULTS = (
    "cut", "hang", "error", "garbage", "empty", "quiet end", "no usage", "dribble", "no stream", "no model",
    "401", "404", "429", "503",
)  # fmt: skip
"""What `Toy.fault` may say; a number is an HTTP status."""


async def _event(writer: Writer, data: Any, *, dribble: bool = False) -> None:
    text = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
    for part in [text[i : i + 7] for i in range(0, len(text), 7)] if dribble else [text]:
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await writer.drain()
        if dribble:
            await asyncio.sleep(0)


async def _plain(writer: Writer, status: int, table: Any) -> bool:
    text = json.dumps(table).encode()
    head = f"HTTP/1.1 {status} Toy\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + text)
    await writer.drain()
    return True


@contextmanager
def serving(toy: Toy) -> Iterator[str]:
    """Runs the toy in a thread for as long as the context lasts, and gives its URL."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        found["loop"], found["over"] = asyncio.get_running_loop(), asyncio.Event()
        async with _listening(toy, 0) as (server, tasks):
            found["port"] = server.sockets[0].getsockname()[1]
            ready.set()
            await found["over"].wait()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{found['port']}"
    finally:
        found["loop"].call_soon_threadsafe(found["over"].set)
        thread.join()


class _listening:
    """A server whose connections are tasks that can be ended."""

    def __init__(self, toy: Toy, port: int) -> None:
        self.toy, self.port = toy, port
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> tuple[asyncio.Server, set[asyncio.Task[None]]]:
        async def connected(reader: asyncio.StreamReader, writer: Writer) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await self.toy.answer(reader, writer)

        self.server = await asyncio.start_server(connected, "127.0.0.1", self.port, limit=1 << 20)
        return self.server, self.tasks

    async def __aexit__(self, *_: object) -> None:
        self.server.close()


async def _forever(toy: Toy, port: int) -> None:
    async with _listening(toy, port) as (server, _):
        await server.serve_forever()


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--first", type=float, default=0.05, help="s until the first token")
    parser.add_argument("--gap", type=float, default=0.01, help="s between tokens")
    given = parser.parse_args()
    try:
        asyncio.run(_forever(Toy(first=given.first, gap=given.gap), given.port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
