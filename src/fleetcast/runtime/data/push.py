"""The sending end: files go out over connections that this end opens, and nothing here ever listens.

An instrument runs `watch` over the folder into which it writes; a gateway uses `push` to hand on what it holds. Where
an upload broke off, the receiving end says how many bytes it has, so the sender remembers nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError
from fleetcast.runtime.data.manifest import CHUNK, READ, check_name, check_project, manifest_of
from fleetcast.runtime.data.uploads import KIND, MISMATCH
from fleetcast.runtime.listen import is_loopback

try:
    import aiohttp
except ImportError:
    raise MissingExtra("aiohttp", "move") from None

TRIES: Final = 8
"""Times in a row that a place may fail before it is given up; waits double from `FIRST` to `LONGEST` s."""
FIRST, LONGEST = 0.25, 15.0
FRAME: Final = 256 << 10
"""Bytes that are handed to a connection at once."""


class Unsent(FleetcastError):
    """A file did not arrive. ``refused``: it was not wanted, so that it will not be the next time either."""

    exit_code = 1

    def __init__(self, text: str, *, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(text)


@dataclass(frozen=True)
class Sent:
    """What became of a file.

    Attributes:
        name: within its project.
        size: bytes.
        sha256: of it.
        resumed: bytes that were there already.
        tries: connections that broke.
    """

    name: str
    size: int
    sha256: str
    resumed: int = 0
    tries: int = 0


def check_url(url: str, where: str = "--to") -> str:
    """Returns a place's URL without its last slash.

    Raises:
        SpecError: it is no http or https URL, or it sends tokens over a network without TLS.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise SpecError(where, "is no address", value=url, limit="e.g. https://gateway.example:8443")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        hint = "Use https, or a tunnel whose end is on loopback"
        raise SpecError(where, "would show the token to the network", value=url, limit="https, or loopback", hint=hint)
    return url.rstrip("/")


@asynccontextmanager
async def session(token: str, *, connections: int = 1, stall: float = 60.0) -> AsyncIterator[Any]:
    """Opens a client that sends a token; ``stall``: s that a connection may stand still."""
    limits = aiohttp.ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(headers=headers, timeout=limits, connector=connector) as client:
        yield client


async def push(
    client: Any, url: str, project: str, path: Path, name: str, *, sha256: str = "", tries: int = TRIES,
    chunk: int = CHUNK, progress: Callable[[int, int], None] | None = None,
) -> Sent:  # fmt: skip
    """Sends a file; goes on where an earlier attempt broke off.

    Args:
        client: of `session`.
        url: of a gateway or a vault.
        project: that the file belongs to.
        path: the file; nobody may write to it meanwhile.
        name: within the project.
        sha256: of the file; "" = it is read for that.
        tries: times in a row that the place may fail.
        chunk: bytes of a request, each with its checksum.
        progress: called with bytes that are there, and bytes in all.

    Raises:
        Unsent: the place refuses the file, or failed too often.
    """
    check_project(project)
    check_name(name)
    before = await asyncio.to_thread(_stamp, path)
    digest = sha256 or (await asyncio.to_thread(manifest_of, path, name)).sha256
    size, tus = before[0], {"Tus-Resumable": "1.0.0"}
    told = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in (("filename", name), ("sha256", digest)))
    failed, broke, resumed, place, offset = 0, 0, -1, "", -1
    while True:
        try:
            if not place:
                create = {**tus, "Upload-Length": str(size), "Upload-Metadata": told}
                async with client.post(f"{url}/uploads/{project}", headers=create) as answer:
                    await _check(answer, name)
                    place = _beside(url, answer.headers.get("Location", ""), project)
                    offset = _offset(answer, size)
            if offset < 0:
                async with client.head(place, headers=tus) as answer:
                    if answer.status == 404:  # the place forgot the upload
                        place = ""
                        continue
                    await _check(answer, name)
                    if (offset := _offset(answer, size)) < 0:
                        raise _Later(FIRST)
            resumed = offset if resumed < 0 else resumed
            if progress is not None:
                progress(offset, size)
            if offset >= size:
                return Sent(name, size, digest, min(resumed, size), broke)
            start, end, offset = offset, min(size, (offset // chunk + 1) * chunk), -1
            check = await asyncio.to_thread(_digest, path, start, end)
            headers = {
                **tus, "Content-Type": KIND, "Upload-Offset": str(start), "Content-Length": str(end - start),
                "Upload-Checksum": "sha256 " + base64.b64encode(check).decode(),
            }  # fmt: skip
            async with client.patch(place, headers=headers, data=_body(path, start, end)) as answer:
                if answer.status not in (MISMATCH, 409):
                    await _check(answer, name)
                    offset, failed = _offset(answer, size), 0
                    continue
                if await asyncio.to_thread(_stamp, path) != before:
                    raise Unsent(f"{name}: changed while it was sent; send it again when its writer is done")
                failed += 1
                if failed > tries:
                    raise Unsent(f"{name}: {await _said(answer)}")
            await asyncio.sleep(_wait(failed))
        except _Later as later:
            await asyncio.sleep(later.seconds)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            failed, broke, offset = failed + 1, broke + 1, -1
            if failed > tries:
                why = str(error) or type(error).__name__
                raise Unsent(f"{name}: {url} failed {failed} times in a row, last with: {why}") from None
            await asyncio.sleep(_wait(failed))


def ready(
    folder: Path,
    *,
    settle: float = 2.0,
    skip: Callable[[Path], None] | None = None,
    early: Callable[[Path], None] | None = None,
) -> Iterator[tuple[Path, str]]:
    """Yields files of a folder and those below it that nobody has written to for ``settle`` s, with their names.

    Links are not followed, hidden files are left out; so is what has no name that can be. ``skip`` hears of those,
    ``early`` of files that somebody wrote to just now.

    Raises:
        SpecError: no such folder.
    """
    if not folder.is_dir():
        raise SpecError(str(folder), "is no folder", hint="Name the folder that the instrument writes to")
    now = time.time()
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root) / name
            if name.startswith("."):
                continue
            try:
                told = path.lstat()
                said = check_name(path.relative_to(folder).as_posix())
            except SpecError:
                if skip is not None:
                    skip(path)
                continue
            except OSError:
                continue
            if not stat.S_ISREG(told.st_mode):
                if skip is not None:
                    skip(path)
            elif told.st_mtime <= now - settle:
                yield path, said
            elif early is not None:
                early(path)


def never_listen() -> None:
    """Makes this process refuse to bind a socket from now on: it can open connections, not accept them."""

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.bind":
            raise PermissionError("this process accepts no connections, so it binds no address")

    sys.addaudithook(check)


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _digest(path: Path, start: int, end: int) -> bytes:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (data := file.read(min(READ, end - start))):
            found.update(data)
            start += len(data)
    return found.digest()


async def _body(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (data := file.read(min(FRAME, end - start))):
            start += len(data)
            yield data


def _beside(url: str, place: str, project: str) -> str:
    """The upload's URL at the place that was named: what the answer says of the host is not followed elsewhere."""
    tail = urlsplit(place).path.rpartition("/")[2]
    if not tail or not tail.isalnum():
        raise Unsent(f"{url} answers with no upload; is it a gateway or a vault?")
    return f"{url}/uploads/{project}/{tail}"


def _wait(failed: int) -> float:
    """Returns s before the next try: doubling, with chance so that many senders do not come back together."""
    return float(min(LONGEST, FIRST * 2 ** (failed - 1))) * (0.75 + 0.5 * random.random())


class _Later(Exception):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def _offset(answer: Any, size: int) -> int:
    """How many bytes an answer says are there; -1 where that must be asked again.

    An upload with all its bytes is not done before they have been read once more: whoever let go of a file because of
    its length alone would lose it if the other end died just then.
    """
    said = answer.headers.get("Upload-Offset", "")
    found = int(said) if said.isdecimal() else -1
    return -1 if found >= size and answer.headers.get("Upload-State") == "open" else found


async def _said(answer: Any) -> str:
    return " ".join((await answer.text()).split())[:300]


async def _check(answer: Any, name: str) -> None:
    if answer.status < 300:
        if answer.headers.get("Upload-State") == "refused":
            raise Unsent(f"{name}: was refused where it was handed on to", refused=True)
        return
    text = await _said(answer)
    if answer.status == 503:
        said = answer.headers.get("Retry-After", "5")
        raise _Later(min(60.0, float(said) if said.isdecimal() else 5.0) * (0.75 + 0.5 * random.random()))
    if answer.status >= 500 and answer.status != 507:
        raise aiohttp.ClientError(f"status {answer.status} {text}")
    raise Unsent(f"{name}: refused with status {answer.status}: {text or answer.reason}", refused=True)
