"""One streamed completion over HTTP, and how a server that cannot give one is told apart.

A failed request is an `Answer` that says so, never an exception: only what concerns every request (nobody listens, the
key or the model is unknown, nothing is streamed) is raised, once, by the first requests.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError, closest
from fleetcast.runtime.replay.stream import Answer, Stream, explained

KEY = "OPENAI_API_KEY"
PROMPTS = ("tokens", "text", "chat")
"""How prompts are sent: as token ids, as text, or as the one message of a conversation."""
SHOWN, READ = 200, 4096
"""Characters of what a server said that are shown, and bytes of a refusal that are read."""
_CONNECT = 10.0
_KEEP = 1.0  # s that an idle connection is kept: less than servers do, or one closes as it is used again


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server.

    Attributes:
        url: with its version, e.g. ``http://127.0.0.1:8000/v1``.
        model: name that it serves.
        key: sent as a bearer token; never shown.
        timeout: s for a whole answer.
        prompts: how they are sent: one of `PROMPTS`.
        extra: further fields of every request.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    timeout: float = 600.0
    prompts: str = "tokens"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """What is appended to the URL."""
        return "/chat/completions" if self.prompts == "chat" else "/completions"

    def body(self, prompt: str | list[int], output: int) -> bytes:
        """Returns the JSON of a request for ``output`` tokens."""
        chat = self.prompts == "chat"
        asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        wanted = {"model": self.model, **asked, "max_tokens": output, "stream": True, "temperature": 0.0}
        return msgspec.json.encode(wanted | {"stream_options": {"include_usage": True}} | self.extra)

    def clean(self, said: object) -> str:
        """Returns what a server said in one printable line, shortened, without the key."""
        line = " ".join(str(said).split())
        if self.key:
            line = line.replace(self.key, "***")
        line = "".join(c if c.isprintable() else "?" for c in line)
        return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def address(url: str) -> str:
    """Returns the URL that ``/completions`` or ``/chat/completions`` is appended to.

    Raises:
        SpecError: not http or https, no host, or with credentials, a query or a fragment.
    """
    example = "Write e.g. --url http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise SpecError("url", "is not a URL", limit="http://HOST:PORT", hint=example) from None
    if "@" in parts.netloc or parts.query or parts.fragment:  # the value may hold a secret, so it is not repeated
        raise SpecError(
            "url", "holds credentials, a query or a fragment", limit="http(s)://HOST:PORT/PATH",
            hint=f"Put the key into the environment variable {KEY}, or name another: --key-env NAME",
        )  # fmt: skip
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise SpecError("url", "is not the address of a server", value=url, limit="http or https", hint=example)
    path = parts.path.rstrip("/").removesuffix("/completions").removesuffix("/chat")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"


def key_of(variable: str) -> str:
    """Returns the key in an environment variable, by default `KEY`; "" where that is not set.

    Raises:
        SpecError: a variable that was named is not set, or what it holds cannot be sent.
    """
    key = os.environ.get(variable or KEY, "").strip()
    if variable and not key:
        raise SpecError("key_env", "names a variable that is not set", value=variable, hint=f"export {variable}=...")
    if not (key.isascii() and key.isprintable()):
        raise SpecError(
            "key_env", "names a variable that holds no key", value=variable or KEY, limit="printable ASCII",
            hint="Check how it was set",
        )  # fmt: skip
    return key


def client(server: Server) -> Any:
    """Returns the HTTP client, an asynchronous context.

    Proxies and ``.netrc`` of the environment are not used: what is measured is the way to the address that was named.

    Raises:
        MissingExtra: httpx is absent.
    """
    httpx = _httpx()
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=_CONNECT), trust_env=False, follow_redirects=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEP),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"}
        | ({"Authorization": f"Bearer {server.key}"} if server.key else {}),
    )  # fmt: skip


async def ask(http: Any, server: Server, body: bytes, answer: Answer, clock: Callable[[], float]) -> Answer:
    """Sends a request and fills in what becomes of it; only a cancellation is raised, after it is noted.

    Args:
        http: from `client`.
        server: whom to ask.
        body: from `Server.body`.
        answer: with its number and due time.
        clock: s, of the run.
    """
    httpx = _httpx()
    answer.sent = clock()
    try:
        async with asyncio.timeout(server.timeout):
            await _read(http, server, body, answer, clock)
    except TimeoutError:
        answer.fail("timeout", f"after {server.timeout:g} s and {answer.chunks} events with tokens")
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        answer.fail("no connection", str(error) or type(error).__name__)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        answer.fail("disconnected", f"{str(error) or type(error).__name__} after {answer.chunks} events with tokens")
    except asyncio.CancelledError:
        answer.fail("interrupted")
        raise
    finally:
        answer.over = True
        answer.detail = server.clean(answer.detail)
    return answer


async def _read(http: Any, server: Server, body: bytes, answer: Answer, clock: Callable[[], float]) -> None:
    async with http.stream("POST", server.url + server.path, content=body) as response:
        if response.status_code != 200:
            answer.fail(f"HTTP {response.status_code}", explained(await _beginning(response)))
            return
        kind = response.headers.get("content-type", "")
        if "text/event-stream" not in kind.lower():
            answer.fail("not streaming", f"{kind or 'no content type'}: {await _beginning(response)}")
            return
        stream = Stream(answer)
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                stream.take(line[5:].strip(), clock())
        stream.close()


async def _beginning(response: Any) -> str:
    """The first bytes of a body: a refusal may be of any length."""
    found = b""
    async for part in response.aiter_bytes():
        found += part
        if len(found) >= READ:
            break
    return found[:READ].decode("utf-8", "replace")


async def models(http: Any, server: Server) -> list[str]:
    """Returns the models that the server lists; none where it keeps no list."""
    httpx = _httpx()
    try:
        response = await http.get(f"{server.url}/models", timeout=_CONNECT)
        rows = msgspec.json.decode(response.content)["data"] if response.status_code == 200 else []
        return [row["id"] for row in rows if isinstance(row["id"], str) and row["id"].isprintable()]
    except (httpx.HTTPError, msgspec.DecodeError, KeyError, TypeError):
        return []


def chosen(wanted: str, served: list[str], url: str, scenario: str) -> str:
    """Returns the model to ask for: the one that was named, the only one served, or the scenario's.

    Raises:
        SpecError: one that is not served, or several are and none was named.
    """
    if not served:
        return wanted or scenario
    if wanted in served or (not wanted and scenario in served):
        return wanted or scenario
    if not wanted and len(served) == 1:
        return served[0]
    shown = ", ".join(served[:8]) + (", ..." if len(served) > 8 else "")
    raise SpecError(
        "model", f"is not served at {url}" if wanted else f"is to be chosen: {url} serves several",
        value=wanted or None, limit=f"one of {shown}",
        hint=(closest(wanted, served) if wanted else "") or "Name one: --model NAME",
    )  # fmt: skip


def refusal(answer: Answer, server: Server) -> FleetcastError:
    """Returns the error for a first request that failed: what concerns every other one too."""
    status, said = answer.status, answer.detail
    came = f": {said}" if said else ""
    where = "url"
    value: str = server.url
    problem, hint = f"gave no answer to measure, {status}{came}", "Try the server by hand, or see its log"
    if status == "no connection":
        problem, hint = f"is not listening{came}", "Start the server, or check host and port"
    elif status == "timeout":
        problem, hint = f"did not answer in time{came}", "Is the model loaded? Raise --timeout"
    elif status in ("HTTP 401", "HTTP 403"):
        where, value = "key_env", server.url
        problem = f"holds no key that the server takes, {status}{came}" if server.key else f"is wanted, {status}{came}"
        hint = f"Set the key: export {KEY}=..., or name its variable: --key-env NAME"
    elif status == "HTTP 404" and "model" in said.lower():
        where, value = "model", server.model
        problem, hint = f"is not served at {server.url}{came}", f"Name one that {server.url}/models lists: --model NAME"
    elif status == "HTTP 404":
        problem, hint = (
            f"has no {server.path}{came}",
            f"Check the path: an OpenAI-compatible server has /v1{server.path}",
        )
        hint += "; one that has chats only takes --prompts chat" if server.prompts != "chat" else ""
    elif status in ("HTTP 400", "HTTP 422"):
        problem = f"does not take such requests, {status}{came}"
        hint = (
            "Where it takes no token ids: --prompts text" if server.prompts == "tokens" else "See the server's message"
        )
    elif status == "not streaming":
        problem, hint = f"does not stream, it answered {said}", "Times of tokens need a server that knows stream = true"
    elif status == "malformed":
        problem, hint = f"streams what is no completion{came}", f"Is it OpenAI-compatible at /v1{server.path}?"
    elif status.startswith("HTTP 3"):
        problem, hint = f"sends elsewhere, {status}{came}", "Name the address itself; redirects are not followed"
    return SpecError(where, problem, value=value, limit="an OpenAI-compatible server that streams", hint=hint)


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingExtra("httpx", "run") from None
    return httpx
