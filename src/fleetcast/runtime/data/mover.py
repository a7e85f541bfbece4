"""Copying a file out of a vault over several connections, and over several paths where there are some.

The chunks of the manifest are the parts: whoever is free takes the next, so that a faster path carries more of them.
Each part is checked as it comes and noted in a journal; a copy that was killed goes on with the parts that are
missing. Memory is one piece per connection, whatever the file's size.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.data.manifest import READ, Manifest, check_name, check_project, read_manifest
from fleetcast.runtime.data.push import FRAME, Unsent, check_url, session

try:
    import aiohttp
except ImportError:
    raise MissingExtra("aiohttp", "move") from None

MOST: Final = 64
"""Connections of a copy, at most."""
TRIES: Final = 5
"""Times in a row that a connection may fail before it is given up."""


@dataclass(frozen=True)
class Moved:
    """What a copy did.

    Attributes:
        manifest: of the file.
        parts: that each path carried, in the order of the paths.
        resumed: parts that were there already.
        broken: connections that failed, and parts that came wrong.
    """

    manifest: Manifest
    parts: tuple[int, ...]
    resumed: int
    broken: int


async def move(
    urls: Sequence[str], project: str, name: str, to: Path, token: str, *, streams: int = 4,
    progress: Callable[[int, int], None] | None = None, pause: float = 0.25,
) -> Moved:  # fmt: skip
    """Copies a file of a vault to a local one, which appears when it is whole.

    Args:
        urls: the vault's; several lead to it over different paths.
        project: that the file belongs to.
        name: of it.
        to: the copy; beside it lie ``.part`` and ``.done`` until it is whole.
        token: that may read the project.
        streams: connections over each path.
        progress: called with parts that are there, and parts in all.
        pause: s before a connection that failed tries again; doubles each time.

    Raises:
        SpecError: an argument that cannot be, or a file that is not there.
        Unsent: every path failed.
    """
    if not 1 <= streams * len(urls) <= MOST:
        raise SpecError("--streams", "is out of range", value=streams, limit=f"1 to {MOST} connections in all")
    places = [check_url(url, "URL") for url in urls]
    path = f"{check_project(project)}/{quote(check_name(name))}"
    manifest = await _manifest(places, path, token, pause)
    part, done = to.with_name(f"{to.name}.part"), to.with_name(f"{to.name}.done")
    to.parent.mkdir(parents=True, exist_ok=True)
    there = _known(done, manifest, part)
    parts = [i for i in range(len(manifest.chunks)) if i not in there]
    copy = _Copy(manifest, parts, progress, len(there), pause)
    with part.open("r+b" if part.exists() else "w+b") as file, done.open("a", encoding="ascii") as journal:
        if not there:
            journal.truncate(0)
            journal.write(f"{manifest.sha256}\n")
        file.truncate(manifest.size)
        tasks = [
            asyncio.create_task(copy.carry(i, f"{place}/projects/{path}", token, file, journal))
            for i, place in enumerate(places)
            for _ in range(streams)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if copy.left:
            raise Unsent(f"{name}: every path failed, last with: {copy.why}; what came is kept, ask again")
        file.flush()
        os.fsync(file.fileno())
    if await asyncio.to_thread(_hash, part) != manifest.sha256:
        done.unlink(missing_ok=True)
        raise Unsent(f"{name}: is not on the disk as it came; check the disk and ask again")
    part.replace(to)
    done.unlink(missing_ok=True)
    return Moved(manifest, tuple(copy.carried.get(i, 0) for i in range(len(places))), len(there), copy.broken)


class _Copy:
    """The parts that are missing, shared by all connections of one copy."""

    def __init__(
        self, manifest: Manifest, parts: list[int], progress: Callable[[int, int], None] | None, there: int,
        pause: float,
    ) -> None:  # fmt: skip
        self._manifest, self._parts, self._progress, self._pause = manifest, parts[::-1], progress, pause
        self._there, self.left = there, len(parts)
        self.carried: dict[int, int] = {}
        self.broken, self.why = 0, ""

    async def carry(self, path: int, url: str, token: str, file: Any, journal: Any) -> None:
        """Takes parts until none is left, or this connection has failed too often."""
        failed = 0
        async with session(token) as client:
            while self.left and failed <= TRIES:
                if not self._parts:
                    # Others hold the last parts; should they fail, they come back.
                    await asyncio.sleep(0.02)
                    continue
                part = self._parts.pop()
                try:
                    await self._fetch(client, url, part, file)
                except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                    self._parts.append(part)
                    failed, self.broken, self.why = failed + 1, self.broken + 1, str(error) or type(error).__name__
                    await asyncio.sleep(self._pause * 2 ** (failed - 1))
                    continue
                except BaseException:
                    self._parts.append(part)
                    raise
                failed, self.left, self._there = 0, self.left - 1, self._there + 1
                self.carried[path] = self.carried.get(path, 0) + 1
                # The bytes go to the system before the line that vouches for them.
                file.flush()
                journal.write(f"{part}\n")
                journal.flush()
                if self._progress is not None:
                    self._progress(self._there, len(self._manifest.chunks))

    async def _fetch(self, client: Any, url: str, part: int, file: Any) -> None:
        start, end = self._manifest.span(part)
        headers = {"Range": f"bytes={start}-{end - 1}", "If-Range": f'"{self._manifest.sha256}"'}
        digest, at = hashlib.sha256(), start
        async with client.get(url, headers=headers) as answer:
            if answer.status != 206:
                raise aiohttp.ClientError(f"status {answer.status} where a part was asked for")
            async for data in answer.content.iter_chunked(FRAME):
                if at + len(data) > end:
                    raise aiohttp.ClientError("more bytes than were asked for")
                os.pwrite(file.fileno(), data, at)
                digest.update(data)
                at += len(data)
        if digest.hexdigest() != self._manifest.chunks[part]:
            raise aiohttp.ClientError(f"part {part} came with another SHA-256")


async def _manifest(places: Sequence[str], path: str, token: str, pause: float) -> Manifest:
    why = ""
    async with session(token) as client:
        for i in range(TRIES * len(places)):
            place = places[i % len(places)]
            try:
                async with client.get(f"{place}/manifests/{path}") as answer:
                    if answer.status >= 500:
                        raise aiohttp.ClientError(f"status {answer.status}")
                    text = await answer.read()
                    if answer.status >= 400:
                        said = text.decode("utf-8", "replace")[:200]
                        raise SpecError(f"{place}/projects/{path}", f"status {answer.status}", hint=said or "Check it")
                    return read_manifest(text, path)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                await asyncio.sleep(pause)
    raise Unsent(f"{path}: no path leads to the vault: {why}")


def _known(journal: Path, manifest: Manifest, part: Path) -> set[int]:
    """The parts that an earlier copy of the same bytes has; a torn last line counts for nothing."""
    try:
        lines = journal.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        if not lines or lines[0] != manifest.sha256 or part.stat().st_size != manifest.size:
            return set()
    except OSError:
        return set()
    found = {int(line) for line in lines[1:] if line.isdecimal() and int(line) < len(manifest.chunks)}
    with part.open("rb") as file:
        return {i for i in found if _right(file, manifest, i)}


def _right(file: Any, manifest: Manifest, part: int) -> bool:
    start, end = manifest.span(part)
    file.seek(start)
    digest = hashlib.sha256()
    while start < end and (data := file.read(min(READ, end - start))):
        digest.update(data)
        start += len(data)
    return digest.hexdigest() == manifest.chunks[part]


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ):
            digest.update(data)
    return digest.hexdigest()
