"""The double's HTTP side: a thread with its own event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from fleetcast.base.errors import MissingExtra

try:
    from aiohttp import web
except ModuleNotFoundError as missing:
    raise MissingExtra("aiohttp", "kubernetes") from missing

import msgspec

from fleetcast.runtime.kubernetes.double.patching import merged, wanted
from fleetcast.runtime.kubernetes.double.rules import Rules
from fleetcast.runtime.kubernetes.double.store import RESOURCES, ApiError, Event, Resource, Store

__all__ = ["Double"]

_BOOKMARK: Final = 5.0
Grant = Mapping[str, Any]
"""A rule of a role: apiGroups, resources, verbs."""


class Double:
    """An API server on a port of this machine, as a context manager.

    Args:
        tokens: bearer token -> rules that it may act by (None = all).
        grace: s that an evicted pod takes to end.
        port: 0 = a free one.

    Attributes:
        store: the objects; tests write to it as others would through the API.
        rules: what happens to pods.
        url: where it listens.
        before: called with (verb, resource, name) before a call is answered; raises ApiError to refuse it.
        calls: (group, resource, verb) -> how often.
    """

    def __init__(
        self, tokens: Mapping[str, list[Grant] | None] | None = None, *, grace: float = 0.0, port: int = 0
    ) -> None:
        self.token = f"double-{uuid.uuid4().hex}"
        self.tokens: dict[str, list[Grant] | None] = {self.token: None, **(tokens or {})}
        self.store = Store()
        self.rules = Rules(self.store, self._later, grace)
        self.url = ""
        self.before: list[Callable[[str, str, str], None]] = []
        self.calls: dict[tuple[str, str, str], int] = {}
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._watchers: set[_Watcher] = set()
        self._thread = threading.Thread(target=self._serve, name="double", daemon=True)
        self._up = threading.Event()
        self._ended: asyncio.Event | None = None
        for name in ("default", "kube-system"):
            self.store.add("namespaces", {"metadata": {"name": name}})

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._up.wait(10.0):
            raise RuntimeError("the double did not start in 10 s")
        self.store.listeners.append(self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10.0)

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """Writes a kubeconfig of this server (YAML is JSON too); returns its path."""
        table = {
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "double", "user": {"token": token or self.token}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
        }  # fmt: skip
        path.write_text(json.dumps(table), encoding="utf-8")
        return path

    def cut(self) -> None:
        """Cuts all watches off, as a lost connection does."""
        for watcher in list(self._watchers):
            self._loop.call_soon_threadsafe(watcher.cut)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(seconds, call))

    def _tell(self, plural: str, event: Event) -> None:
        for watcher in list(self._watchers):
            if watcher.plural == plural:
                watcher.put(event)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._up.set()
        await self._ended.wait()
        for watcher in list(self._watchers):
            watcher.cut()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            words = request.path.strip("/").split("/")
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if bearer not in self.tokens:
                raise ApiError(401, "Unauthorized", "Unauthorized")
            if request.method == "GET" and (found := _discovery(words)) is not None:
                return web.json_response(found)
            resource, namespace, name, sub = _address(words)
            verb = _verb(request, name)
            self._allow(self.tokens[bearer], verb, resource, sub)
            for check in self.before:
                check(verb, resource.plural + (f"/{sub}" if sub else ""), name)
            if verb == "watch":
                return await self._watch(request, resource, namespace)
            body = await request.read()
            status, text = self._do(verb, resource, namespace, name, sub, request, body)
            return web.Response(body=text, status=status, content_type="application/json")
        except ConnectionError:
            return web.Response(status=400)  # The caller is gone, in mid-sentence.
        except ApiError as error:
            headers = {"Retry-After": str(error.after)} if error.after else {}
            return web.json_response(error.table(), status=error.status, headers=headers)

    def _allow(self, grants: list[Grant] | None, verb: str, resource: Resource, sub: str) -> None:
        named = resource.plural + (f"/{sub}" if sub else "")
        which = (resource.group, named, verb)
        self.calls[which] = self.calls.get(which, 0) + 1
        if grants is not None and not any(
            resource.group in g["apiGroups"] and named in g["resources"] and verb in g["verbs"] for g in grants
        ):
            raise ApiError(
                403,
                "Forbidden",
                f'{named} is forbidden: cannot {verb} resource "{named}" in API group "{resource.group}"',
            )

    def _do(
        self, verb: str, resource: Resource, namespace: str, name: str, sub: str, request: web.Request, body: bytes
    ) -> tuple[int, bytes]:  # fmt: skip
        plural, store = resource.plural, self.store
        if verb == "list":
            return 200, self._list(resource, namespace, request)
        if verb == "get":
            return 200, msgspec.json.encode(store.find(plural, namespace, name))
        try:
            table = msgspec.json.decode(body) if body else {}
        except msgspec.DecodeError as error:
            raise ApiError(400, "BadRequest", f"the body is no JSON: {error}") from error
        if not isinstance(table, dict):
            raise ApiError(400, "BadRequest", "the body is no object")
        done = {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}
        if (plural, sub, verb) == ("pods", "binding", "create"):
            self.rules.bind(namespace, name, table)
            return 201, msgspec.json.encode(done)
        if (plural, sub, verb) == ("pods", "eviction", "create"):
            self.rules.evict(namespace, name, table)
            return 201, msgspec.json.encode(done)
        if verb == "create":
            where = namespace or "default"
            if resource.namespaced and ("", where) not in store.objects["namespaces"]:
                raise ApiError(404, "NotFound", f'namespaces "{where}" not found')
            made = self.rules.create(table, where) if plural == "pods" else store.add(plural, table, where)
            return 201, msgspec.json.encode(made)
        if verb == "delete":
            gone = self.rules.delete(namespace, name) if plural == "pods" else store.remove(plural, namespace, name)
            return 200, msgspec.json.encode(gone)
        with store.lock:
            old = store.find(plural, namespace, name)
            if verb == "patch":
                uid = (table.get("metadata") or {}).get("uid")
                if uid and uid != old["metadata"]["uid"]:
                    raise ApiError(409, "Conflict", "the UID in the precondition does not match the UID in record")
                made = merged(old, {"status": table.get("status")} if sub == "status" else table)
                return 200, msgspec.json.encode(store.put(plural, made, checked=False))
            meta = {"namespace": namespace, "name": name} | (table.get("metadata") or {})
            made = {**old, "status": table.get("status")} if sub == "status" else {**table, "metadata": meta}
            return 200, msgspec.json.encode(store.put(plural, made))

    def _list(self, resource: Resource, namespace: str, request: web.Request) -> bytes:
        """A list, in pages where ``limit`` asks for them; a page says where the next begins."""
        with self.store.lock:
            lines = self.store.lines(resource.plural, wanted(request.query), namespace)
            meta: dict[str, Any] = {"resourceVersion": str(self.store.version)}
            limit = int(request.query.get("limit") or 0)
            version, _, start = request.query.get("continue", "").partition(":")
            if version:
                # Pages are of one moment only while nothing was written since the first.
                if version != meta["resourceVersion"] and int(version) < self.store.floor[resource.plural]:
                    raise ApiError(410, "Expired", "The provided continue parameter is too old")
                lines, meta["resourceVersion"] = lines[int(start) :], version
            if 0 < limit < len(lines):
                first = int(start or 0)
                meta |= {
                    "continue": f"{meta['resourceVersion']}:{first + limit}",
                    "remainingItemCount": len(lines) - limit,
                }
                lines = lines[:limit]
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api, "metadata": meta}
        return msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(lines) + b"]}"

    async def _watch(self, request: web.Request, resource: Resource, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        keep = wanted(request.query)

        def mine(event: Event) -> bool:
            inside = not namespace or event.table["metadata"].get("namespace") == namespace
            return inside and (keep is None or keep(event.table))

        with self.store.lock:
            try:
                asked = request.query.get("resourceVersion") or ""
                past = self.store.since(resource.plural, int(asked)) if asked not in ("", "0") else []
            except ApiError as error:
                await response.write(b'{"type":"ERROR","object":' + msgspec.json.encode(error.table()) + b"}\n")
                return response
            watcher = _Watcher(resource.plural, self._loop, deque(past))
            self._watchers.add(watcher)
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        until = self._loop.time() + float(request.query.get("timeoutSeconds") or 300)
        try:
            while not watcher.lost and self._loop.time() < until:
                lines = [event.line for event in watcher.take() if mine(event)]
                if lines:
                    await response.write(b"".join(lines))
                if not await watcher.wait(min(_BOOKMARK, until - self._loop.time())) and bookmarks:
                    with self.store.lock:
                        version = None if watcher.events else self.store.version
                    if version is not None:
                        table = {
                            "kind": resource.kind,
                            "apiVersion": resource.api,
                            "metadata": {"resourceVersion": str(version)},
                        }
                        await response.write(b'{"type":"BOOKMARK","object":' + msgspec.json.encode(table) + b"}\n")
            if watcher.lost and request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass
        finally:
            self._watchers.discard(watcher)
        return response


class _Watcher:
    """Events that one watch has not sent yet."""

    def __init__(self, plural: str, loop: asyncio.AbstractEventLoop, events: deque[Event]) -> None:
        self.plural, self.events, self.lost = plural, events, False
        self._loop, self._more = loop, asyncio.Event()
        if events:
            self._more.set()

    def put(self, event: Event) -> None:
        first = not self.events
        self.events.append(event)
        if first:
            self._loop.call_soon_threadsafe(self._more.set)

    def take(self) -> list[Event]:
        self._more.clear()
        found = []
        while self.events:
            found.append(self.events.popleft())
        return found

    async def wait(self, seconds: float) -> bool:
        if self.events or self.lost:
            return True
        try:
            await asyncio.wait_for(self._more.wait(), max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    def cut(self) -> None:
        self.lost = True
        self._more.set()


def _verb(request: web.Request, name: str) -> str:
    if request.method == "GET":
        watched = request.query.get("watch") in ("true", "1", "True")
        return "get" if name else "watch" if watched else "list"
    known = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    if request.method not in known:
        raise ApiError(405, "MethodNotAllowed", f"{request.method} is not supported")
    return known[request.method]


def _address(words: list[str]) -> tuple[Resource, str, str, str]:
    """Resource, namespace, name and subresource of a path."""
    missing = ApiError(404, "NotFound", "the server could not find the requested resource")
    if words[0] == "api" and len(words) > 2:
        group, version, rest = "", words[1], words[2:]
    elif words[0] == "apis" and len(words) > 3:
        group, version, rest = words[1], words[2], words[3:]
    else:
        raise missing
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = RESOURCES.get(rest[0])
    if resource is None or (resource.group, resource.version) != (group, version) or len(rest) > 3:
        raise missing
    return resource, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""


def _discovery(words: list[str]) -> dict[str, Any] | None:
    """What clients such as kubectl ask first: which groups and resources there are."""
    groups = sorted({(r.group, r.version) for r in RESOURCES.values() if r.group})
    match words:
        case ["version"]:
            return {"major": "1", "minor": "32", "gitVersion": "v1.32.0-fleetcast-double"}
        case ["healthz" | "readyz" | "livez"]:
            return {"status": "ok"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            made = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in groups]
            rows = [
                {"name": g, "versions": [version], "preferredVersion": version}
                for (g, _), version in zip(groups, made, strict=True)
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis", group, version] if (group, version) in groups:
            return _resources(group, version)
        case _:
            return None


def _resources(group: str, version: str) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    rows = [
        {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs}
        for r in RESOURCES.values() if (r.group, r.version) == (group, version)
    ]  # fmt: skip
    api = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": rows}
