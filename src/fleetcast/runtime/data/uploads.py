"""Taking uploads by tus 1.0, the open protocol of resumable uploads (tus.io): core, creation, checksum, termination.

An interrupted PATCH keeps the bytes that came, so an upload goes on from any byte. Besides the protocol, an upload
whose ``Upload-Metadata`` names its ``sha256`` is found again by whoever asks for the same one: its sender need not
remember a URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.data.access import Access
from fleetcast.runtime.data.spool import Full, Spool, Upload

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "move") from None

TUS: Final = {
    "Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation,checksum,termination",
    "Tus-Checksum-Algorithm": "sha256,sha1", "Cache-Control": "no-store",
}  # fmt: skip
KIND: Final = "application/offset+octet-stream"
WAIT: Final = 5
"""s after which a sender should ask again whether there is room."""
MISMATCH: Final = 460
"""The protocol's own status: a checksum is wrong."""


class Refused(Exception):
    """Whoever an upload was for does not take it."""


class Uploads:
    """The handlers of one place that takes uploads.

    Args:
        spool: where they are kept.
        access: who may write to which project.
        whole: called when the bytes of an upload are there and right; raises `Refused` where they are not wanted. It
            runs before the last PATCH is answered.
        final: an upload is done only when ``whole`` has returned, so that it is called again where it failed.
        stall: s that a body may take to go on.
    """

    def __init__(
        self, spool: Spool, access: Access, whole: Callable[[Upload], Awaitable[None]], *, final: bool,
        stall: float = 30.0,
    ) -> None:  # fmt: skip
        self.spool, self._access, self._whole, self._final, self._stall = spool, access, whole, final, stall
        self._busy: set[str] = set()

    def routes(self) -> list[Any]:
        """Returns what an aiohttp application routes to here."""
        return [
            web.options("/uploads/{project}", self._options), web.post("/uploads/{project}", self._post),
            web.head("/uploads/{project}/{id}", self._head), web.patch("/uploads/{project}/{id}", self._patch),
            web.delete("/uploads/{project}/{id}", self._delete),
        ]  # fmt: skip

    async def _options(self, request: Any) -> Any:
        return web.Response(status=204, headers=TUS | {"Tus-Max-Size": str(self.spool.largest)})

    async def _post(self, request: Any) -> Any:
        project = self._allowed(request)
        size = _number(request, "Upload-Length")
        told = _metadata(request.headers.get("Upload-Metadata", ""))
        if size > self.spool.largest:
            raise web.HTTPRequestEntityTooLarge(self.spool.largest, size, headers=TUS)
        try:
            upload = self.spool.begin(
                project, told.get("filename") or told.get("name", ""), size, told.get("sha256", "")
            )
        except SpecError as error:
            raise web.HTTPBadRequest(text=str(error), headers=TUS) from None
        except Full as error:
            kind = web.HTTPServiceUnavailable if error.passing else web.HTTPInsufficientStorage
            raise kind(text=str(error), headers=TUS | {"Retry-After": str(WAIT)}) from None
        await self.settle(upload)
        place = f"{request.url.origin()}/uploads/{project}/{upload.id}"
        headers = {"Location": place, "Upload-State": upload.state, "Upload-Offset": str(self.spool.offset(upload))}
        return web.Response(status=201, headers=TUS | headers)

    async def _head(self, request: Any) -> Any:
        upload = self._found(request)
        await self.settle(upload)
        told = {"filename": upload.name, "sha256": upload.sha256}
        words = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in told.items() if v)
        headers = {
            "Upload-Offset": str(self.spool.offset(upload)), "Upload-Length": str(upload.size),
            "Upload-Metadata": words, "Upload-State": upload.state,
        }  # fmt: skip
        return web.Response(status=200, headers=TUS | headers)

    async def _patch(self, request: Any) -> Any:
        upload = self._found(request)
        if request.content_type != KIND:
            raise web.HTTPUnsupportedMediaType(text=f"Content-Type: send {KIND}", headers=TUS)
        start, checksum = _number(request, "Upload-Offset"), _checksum(request)
        if upload.id in self._busy:
            raise web.HTTPConflict(text="another request writes to this upload; ask for its offset", headers=TUS)
        with self._alone(upload):
            offset = self.spool.offset(upload)
            if upload.state != "open" or start != offset:
                raise web.HTTPConflict(text=f"Upload-Offset: is {start}, the upload is at {offset}", headers=TUS)
            end, right = await self._take(request, upload, start, checksum)
            if not right:
                self.spool.cut(upload, start)
                return _mismatch("Upload-Checksum: is not that of the body")
            if end == upload.size and not await self._finish(upload):
                return _mismatch("the whole has another SHA-256 than was said; ask for the offset, send the rest again")
        return web.Response(status=204, headers=TUS | {"Upload-Offset": str(end)})

    async def _delete(self, request: Any) -> Any:
        upload = self._found(request)
        if upload.state == "whole" or upload.id in self._busy:
            raise web.HTTPConflict(text="the upload is being handed on", headers=TUS)
        self.spool.drop(upload)
        return web.Response(status=204, headers=TUS)

    async def _take(
        self, request: Any, upload: Upload, start: int, checksum: tuple[str, bytes] | None
    ) -> tuple[int, bool]:
        """Writes a body behind what is there; returns where it ends and whether its checksum is right.

        Raises:
            web.HTTPException: the body is too long, or ended early: what came is kept.
        """
        told = hashlib.new(checksum[0]) if checksum else None
        own, end, short = hashlib.sha256(), start, True
        with self.spool.part(upload).open("r+b") as file:
            file.seek(start)
            with contextlib.suppress(ConnectionError, TimeoutError, web.RequestPayloadError):
                while True:
                    data = await asyncio.wait_for(request.content.readany(), self._stall)
                    if not data:
                        short = not request.content.is_eof() or request.content.exception() is not None
                        break
                    if end + len(data) > upload.size:
                        file.truncate(start)
                        raise web.HTTPRequestEntityTooLarge(upload.size - start, end + len(data) - start, headers=TUS)
                    file.write(data)
                    own.update(data)
                    if told is not None and checksum is not None and checksum[0] != "sha256":
                        told.update(data)
                    end += len(data)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        length = request.content_length
        if short or (length is not None and end - start != length):
            raise web.HTTPBadRequest(text=f"the body ended early; {end} bytes are kept", headers=TUS)
        if checksum is None or told is None:
            return end, True
        right = (own if checksum[0] == "sha256" else told).digest() == checksum[1]
        if right and end > start:
            self.spool.checked(upload, start, end, own.hexdigest())
        return end, right

    async def settle(self, upload: Upload) -> None:
        """Finishes an upload whose bytes are all there although nobody did: the process ended just then, or failed.

        Raises:
            web.HTTPException: it is refused.
        """
        if upload.id in self._busy:  # somebody is at it
            return
        with self._alone(upload):
            full = upload.state == "open" and self.spool.offset(upload) == upload.size
            if full or (upload.state == "whole" and self._final):
                await self._finish(upload)

    @contextlib.contextmanager
    def _alone(self, upload: Upload) -> Iterator[None]:
        self._busy.add(upload.id)
        try:
            yield
        finally:
            self._busy.discard(upload.id)

    async def _finish(self, upload: Upload) -> bool:
        if upload.state == "open" and not await asyncio.to_thread(self.spool.finish, upload):
            return False
        try:
            await self._whole(upload)
        except Refused as error:
            self.spool.close(upload, refused=str(error))
            raise web.HTTPUnprocessableEntity(text=str(error), headers=TUS) from None
        return True

    def _allowed(self, request: Any) -> str:
        project = str(request.match_info["project"])
        self._access.check(request, "write", project)
        if request.headers.get("Tus-Resumable") != "1.0.0":
            raise web.HTTPPreconditionFailed(text="Tus-Resumable: send 1.0.0", headers=TUS)
        return project

    def _found(self, request: Any) -> Upload:
        project = self._allowed(request)
        upload = self.spool.get(request.match_info["id"])
        if upload is None or upload.project != project:
            raise web.HTTPNotFound(text="no such upload; begin it with POST", headers=TUS)
        return upload


def _mismatch(text: str) -> Any:
    return web.Response(status=MISMATCH, reason="Checksum Mismatch", text=text, headers=TUS)


def _number(request: Any, name: str) -> int:
    said = request.headers.get(name, "")
    if not (said.isascii() and said.isdecimal() and len(said) <= 18):
        raise web.HTTPBadRequest(text=f"{name}: send a whole number of bytes", headers=TUS)
    return int(said)


def _metadata(text: str) -> dict[str, str]:
    """Reads ``Upload-Metadata``: pairs of a key and a base64 value."""
    found = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            raise web.HTTPBadRequest(
                text=f"Upload-Metadata: {key[:40]!r} is not base64 of UTF-8", headers=TUS
            ) from None
    return found


def _checksum(request: Any) -> tuple[str, bytes] | None:
    said = request.headers.get("Upload-Checksum")
    if said is None:
        return None
    algorithm, _, value = said.partition(" ")
    if algorithm not in TUS["Tus-Checksum-Algorithm"].split(","):
        raise web.HTTPBadRequest(text=f"Upload-Checksum: one of {TUS['Tus-Checksum-Algorithm']}", headers=TUS)
    try:
        return algorithm, base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise web.HTTPBadRequest(text="Upload-Checksum: is not base64", headers=TUS) from None
