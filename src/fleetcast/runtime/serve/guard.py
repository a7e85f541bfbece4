"""Who may ask: the key, the address that was asked for, how often. Refusals are errors that clients know."""

from __future__ import annotations

import hmac
import math
from typing import Any, Final

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.listen import is_loopback
from fleetcast.runtime.serve.asks import ApiError

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "serve") from None

OPEN: Final = ("/health",)
"""Paths that need no key."""


def check_host(request: Any, loopback: bool) -> None:
    """Refuses, on a loopback server, a request that was sent to another name: a web page may have made it so.

    A page can let its own name point to 127.0.0.1 and then read what a server there answers. The browser still says the
    page's name in ``Host``.

    Raises:
        ApiError: 403.
    """
    if not loopback:
        return
    said = request.headers.get("Host", "")
    name = said.rpartition(":")[0] if said.rpartition(":")[2].isdigit() else said
    if not is_loopback(name):
        text = f"Host: {said[:80]!r} is not this server; it listens on loopback, ask http://127.0.0.1 or localhost"
        raise ApiError(403, text)


def check_key(request: Any, key: str) -> None:
    """Refuses a request without the bearer token.

    Raises:
        ApiError: 401.
    """
    if not key or request.path in OPEN:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), key.encode()
    ):
        problem = "is not the server's key" if given else "is wanted: a bearer token"
        raise ApiError(
            401, f"Authorization: {problem}; send 'Authorization: Bearer KEY'", code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


def check_kind(request: Any) -> None:
    """Refuses a body that is not plain JSON: other kinds a web page may send without asking first.

    Raises:
        ApiError: 415.
    """
    if request.content_type != "application/json":
        text = f"Content-Type: {request.content_type!r} is not taken; send application/json"
        raise ApiError(415, text)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, "Content-Encoding: is not taken; send the body as it is")


def too_often(wait: float, rate: float) -> ApiError:
    """Returns the refusal of an address that asks too often."""
    text = f"too many requests: {rate:g} per second and address; wait {math.ceil(wait)} s"
    return ApiError(429, text, code="rate_limit_exceeded", headers={"Retry-After": str(math.ceil(wait))})


def busy(what: str) -> ApiError:
    """Returns the refusal of a server that has enough to do."""
    return ApiError(503, what, code="overloaded", headers={"Retry-After": "1"})


def from_http(error: Any) -> ApiError:
    """Returns aiohttp's own refusals (404, 405, 413, ...) as an API error."""
    assert isinstance(error, web.HTTPException)
    said = {
        404: "no such path; the server has /v1/completions, /v1/chat/completions, /v1/models, /metrics, /health",
        405: "this method is not taken here",
        413: "the body is larger than this server takes",
    }.get(error.status, error.reason)
    allowed = error.headers.get("Allow")
    return ApiError(error.status, said, headers={"Allow": allowed} if allowed else None)
