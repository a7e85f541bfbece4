"""Gateway and vault as servers: what they take, what they hand on, what they let be read.

Reading a vault is plain HTTP: GET with ranges, ``ETag``, a page of links for a project. So any client of ranges reads
it, fsspec's among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError
from fleetcast.runtime.data.access import Access, check_host
from fleetcast.runtime.data.manifest import manifest_of, write_manifest
from fleetcast.runtime.data.push import LONGEST, Unsent, check_url, push, session
from fleetcast.runtime.data.spool import Spool, Upload
from fleetcast.runtime.data.uploads import WAIT, Refused, Uploads
from fleetcast.runtime.data.vault import Published, Vault, open_store
from fleetcast.runtime.listen import BACKLOG, bind, is_loopback, more_files

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "move") from None

PIECE: Final = 256 << 10
"""Bytes that are read from the store at once for an answer."""
SWEEP: Final = 3600.0
"""s between looks for uploads that nobody goes on with."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class VaultPlace:
    """A vault that takes uploads and answers reads.

    Args:
        vault: what it keeps.
        spool: where uploads are until they are published.
        access: who may do what.
        quota: most bytes that a project may publish.
    """

    def __init__(self, vault: Vault, spool: Spool, access: Access, *, quota: int | None = None) -> None:
        self._vault, self.spool, self._access, self._quota = vault, spool, access, quota
        self._uploads = Uploads(spool, access, self._publish, final=True)

    def routes(self) -> list[Any]:
        """Returns what an aiohttp application routes to here."""
        return [
            *self._uploads.routes(), web.get("/projects/{project}/", self._list),
            web.get("/projects/{project}/{name:.+}", self._get),
            web.get("/manifests/{project}/{name:.+}", self._manifest),
            web.route("*", "/projects/{project}/{name:.+}", self._never),
        ]  # fmt: skip

    async def start(self) -> None:
        """Publishes what was whole when the last process ended."""
        for upload in self.spool:
            with contextlib.suppress(web.HTTPException):  # refused: the upload says so to whoever asks
                await self._uploads.settle(upload)

    async def stop(self) -> None:
        """Does nothing: there is no work besides requests."""

    async def _publish(self, upload: Upload) -> None:
        def work() -> None:
            if self._quota is not None and self._vault.size(upload.project) + upload.size > self._quota:
                raise Refused(f"project {upload.project} may publish {self._quota} bytes in all; ask for more")
            path = self.spool.part(upload)
            try:
                self._vault.publish(upload.project, path, manifest_of(path, upload.name))
            except Published as error:
                raise Refused(str(error)) from None

        await asyncio.to_thread(work)
        self.spool.close(upload)

    async def _list(self, request: Any) -> Any:
        project = str(request.match_info["project"])
        self._access.check(request, "read", project)
        return await self._page(request, project, "")

    async def _page(self, request: Any, project: str, start: str) -> Any:
        """Links to what lies below a name, one level, as web servers show folders; None where nothing does."""
        names = await asyncio.to_thread(self._vault.names, project)
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response({"project": project, "names": names})
        below = [name.removeprefix(start) for name in names if name.startswith(start)]
        if start and not below:
            return None
        here = dict.fromkeys(name.partition("/")[0] + ("/" if "/" in name else "") for name in below)
        root = f"/projects/{project}/{quote(start)}"
        rows = "\n".join(f'<li><a href="{root}{quote(name)}">{html.escape(name)}</a></li>' for name in here)
        page = f"<!DOCTYPE html><html><head><title>{project}</title></head><body><ul>\n{rows}\n</ul></body></html>\n"
        return web.Response(text=page, content_type="text/html")

    async def _manifest(self, request: Any) -> Any:
        manifest = await self._found(request)
        return web.Response(body=write_manifest(manifest), content_type="application/json")

    async def _get(self, request: Any) -> Any:
        try:
            manifest = await self._found(request)
        except web.HTTPNotFound:
            start = request.match_info["name"].rstrip("/") + "/"
            page = await self._page(request, str(request.match_info["project"]), start)
            if page is None:
                raise
            return page
        tag = f'"{manifest.sha256}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        asked = request.headers.get("Range")
        if asked is not None and request.headers.get("If-Range", tag) != tag:
            asked = None
        if asked is not None and not _RANGE.fullmatch(asked.strip()):
            asked = None  # several ranges, or no range: RFC 9110 allows to answer with the whole
        start, end = _span(asked, manifest.size)
        if asked is not None and start >= end:
            raise web.HTTPRequestRangeNotSatisfiable(headers=headers | {"Content-Range": f"bytes */{manifest.size}"})
        headers["Content-Length"] = str(end - start)
        if asked is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{manifest.size}"
        answer = web.StreamResponse(status=200 if asked is None else 206, headers=headers)
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        with contextlib.suppress(ConnectionError):  # the reader has left
            while start < end:
                upto = min(end, start + PIECE)
                await answer.write(await self._vault.read(manifest, start, upto))
                start = upto
            await answer.write_eof()
        return answer

    async def _never(self, request: Any) -> Any:
        self._access.check(request, "read", str(request.match_info["project"]))
        raise web.HTTPMethodNotAllowed(
            request.method, ["GET", "HEAD"], text="what is published stays as it is; publish under another name"
        )

    async def _found(self, request: Any) -> Any:
        project = str(request.match_info["project"])
        self._access.check(request, "read", project)
        try:
            manifest = await asyncio.to_thread(self._vault.find, project, request.match_info["name"].rstrip("/"))
        except SpecError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        if manifest is None:
            raise web.HTTPNotFound(text="nothing is published under this name")
        return manifest


class GatewayPlace:
    """A gateway: takes uploads, answers when they are on its disk, and hands them on to the next place.

    Args:
        spool: where they are; when it is full, senders wait.
        access: who may write.
        url: of the next place.
        token: for it.
        tell: called with a line when something is refused.
        pause: s between tries while the next place is away.
    """

    def __init__(
        self, spool: Spool, access: Access, url: str, token: str, *, tell: Callable[[str], None] | None = None,
        pause: float = LONGEST,
    ) -> None:  # fmt: skip
        self.spool, self._url, self._token = spool, check_url(url), token
        self._tell, self._pause = tell or (lambda _: None), pause
        self._uploads = Uploads(spool, access, self._wake, final=False)
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def routes(self) -> list[Any]:
        """Returns what an aiohttp application routes to here."""
        return self._uploads.routes()

    async def start(self) -> None:
        """Begins to hand on, also what the last process left."""
        for upload in self.spool:
            await self._uploads.settle(upload)
        self._more.set()
        self._task = asyncio.create_task(self._forward())

    async def stop(self) -> None:
        """Stops; what was not handed on stays in the spool."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wake(self, upload: Upload) -> None:
        self._more.set()

    async def _forward(self) -> None:
        async with session(self._token) as client:
            while True:
                await self._more.wait()
                self._more.clear()
                for upload in self.spool:
                    if upload.state == "whole" and not await self._hand_on(client, upload):
                        self._more.set()
                        await asyncio.sleep(self._pause)
                        break

    async def _hand_on(self, client: Any, upload: Upload) -> bool:
        """Whether the next place answered; where it is away, all wait, and so do senders once the spool is full."""
        path = self.spool.part(upload)
        try:
            await push(client, self._url, upload.project, path, upload.name, sha256=upload.sha256)
            self.spool.close(upload)
        except Unsent as error:
            if not error.refused:
                self._tell(f"waiting: {error}")
                return False
            self._tell(f"not taken: {error}")
            self.spool.close(upload, refused=str(error))
        except OSError as error:
            self._tell(f"{upload.name}: {error}")
            return False
        return True


@contextlib.asynccontextmanager
async def served(
    place: VaultPlace | GatewayPlace, *, host: str = "127.0.0.1", port: int = 0, secured: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serves a place; gives its URL.

    Args:
        place: vault or gateway.
        host: to listen on.
        port: to listen on; 0 = any that is free.
        secured: of `tls`; None = plain HTTP.

    Raises:
        SpecError: the address cannot be listened on, or would show tokens to a network.
    """
    loopback = is_loopback(host)
    if not loopback and secured is None:
        hint = "Give --tls-cert and --tls-key, or listen on loopback behind a proxy that has them"
        raise SpecError("host", "would show tokens to the network", value=host, limit="TLS, or loopback", hint=hint)

    @web.middleware  # type: ignore[untyped-decorator]
    async def guard(request: Any, handler: Any) -> Any:
        check_host(request, loopback)
        try:
            return await handler(request)
        except FleetcastError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            text = "the disk is full; what came is kept"
            raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": str(WAIT)}) from None

    listening = bind(host, port)
    made = web.Application(middlewares=[guard], client_max_size=1 << 20)
    made.add_routes(place.routes())
    runner = web.AppRunner(made, access_log=None, keepalive_timeout=30.0, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listening, backlog=BACKLOG, ssl_context=secured).start()
    await place.start()
    sweep = asyncio.create_task(_sweep(place.spool))
    try:
        at, number = listening.getsockname()[:2]
        yield f"{'https' if secured else 'http'}://{f'[{at}]' if ':' in at else at}:{number}"
    finally:
        sweep.cancel()
        await place.stop()
        await runner.cleanup()


def serve(
    place: VaultPlace | GatewayPlace, ready: Callable[[str], None], *, host: str, port: int,
    secured: ssl.SSLContext | None = None,
) -> None:  # fmt: skip
    """Serves a place, as `served`, until SIGINT or SIGTERM; ``ready`` is called with its URL.

    Raises:
        SpecError: as `served`.
    """

    async def run() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(sign, over.set)
        async with served(place, host=host, port=port, secured=secured) as url:
            ready(url)
            await over.wait()

    more_files()
    asyncio.run(run())


def tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Returns what a server needs for TLS; None where no files are given.

    Raises:
        SpecError: one is missing, or they are none.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise SpecError("--tls-cert, --tls-key", "belong together", hint="Give both, or neither")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        made.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        hint = "PEM files of the certificate and of its key"
        raise SpecError("--tls-cert, --tls-key", f"cannot be used: {error}", value=str(cert), hint=hint) from None
    return made


def make_vault(root: str, access: Access, *, spool: Path, room: int, quota: int | None) -> VaultPlace:
    """Returns a vault over a folder or a store's URL, with a spool of its own."""
    return VaultPlace(Vault(open_store(root)), Spool(spool, room=room), access, quota=quota)


async def _sweep(spool: Spool) -> None:
    while True:
        spool.sweep(time.time())
        await asyncio.sleep(SWEEP)


def _span(asked: str | None, size: int) -> tuple[int, int]:
    """What a ``Range`` header asks for: from where, up to where."""
    match = _RANGE.fullmatch(asked.strip()) if asked is not None else None
    if match is None:
        return 0, size
    first, last = match[1], match[2]
    if not first:
        return (max(0, size - int(last)), size) if last and int(last) else (size, size)
    return int(first), min(size, int(last) + 1) if last else size
