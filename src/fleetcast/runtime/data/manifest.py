"""What a file is: its size, the SHA-256 of the whole and of each chunk; and which names may be."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fleetcast.base.errors import SpecError

CHUNK: Final = 8 << 20
"""Bytes of a chunk of most files."""
CHUNKS: Final = 1 << 16
"""Most chunks of a manifest; the chunks of larger files are larger."""
TEXT: Final = 8 << 20
"""Most bytes of a manifest's text."""
READ: Final = 1 << 20
"""Bytes that are read at once."""
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHA: Final = re.compile(r"[0-9a-f]{64}")
_LIMIT: Final = "parts between '/' of 1 to 200 bytes, 16 of them at most, no '..', no control characters, no backslash"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file, chunk by chunk.

    Attributes:
        name: within its project, parts joined by "/".
        size: bytes.
        sha256: of the whole, hexadecimal.
        chunk: bytes of each chunk but the last.
        chunks: SHA-256 of each chunk.
    """

    name: str
    size: int
    sha256: str
    chunk: int
    chunks: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuses what no file can be.

        Raises:
            SpecError: names the field.
        """
        check_name(self.name)
        if self.size < 0:
            raise SpecError("size", "is out of range", value=self.size, limit="bytes from 0")
        if not 1 <= self.chunk <= 1 << 40:
            raise SpecError("chunk", "is out of range", value=self.chunk, limit="bytes from 1 to 2^40")
        if len(self.chunks) != -(-self.size // self.chunk):
            limit = f"{-(-self.size // self.chunk)}: size over chunk, rounded up"
            raise SpecError("chunks", "have another number", value=len(self.chunks), limit=limit)
        for where, value in (("sha256", self.sha256), *(("chunks", c) for c in self.chunks)):
            check_sha(value, where)

    def span(self, part: int) -> tuple[int, int]:
        """Returns where a chunk starts and ends, bytes."""
        return part * self.chunk, min(self.size, (part + 1) * self.chunk)


def check_sha(value: str, where: str = "sha256") -> str:
    """Returns a SHA-256 in hexadecimal.

    Raises:
        SpecError: it is something else.
    """
    if not _SHA.fullmatch(value):
        raise SpecError(where, "is not a SHA-256", value=value, limit="64 digits, 0 to 9 and a to f")
    return value


def check_name(name: str, where: str = "name") -> str:
    """Returns a file's name within its project if it can lead nowhere else.

    Raises:
        SpecError: absolute, "..", control characters, a backslash, too long, or not in Unicode's normal form C.
    """
    parts = name.split("/")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise SpecError(where, "cannot be written as UTF-8", value=name, limit=_LIMIT) from None
    bad = (
        len(parts) > 16
        or not all(1 <= length <= 200 for length in lengths)
        or any(part in (".", "..") or part != part.strip() for part in parts)
        or any(c == "\\" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name)
        or unicodedata.normalize("NFC", name) != name
    )
    if bad:
        raise SpecError(where, "is no name of a file", value=name, limit=_LIMIT)
    return name


def check_project(name: str, where: str = "project") -> str:
    """Returns a project's name.

    Raises:
        SpecError: it is none.
    """
    if not _PROJECT.fullmatch(name):
        limit = "1 to 63 of a to z, 0 to 9, '-' and '_', the first a letter or digit"
        raise SpecError(where, "is no name of a project", value=name, limit=limit)
    return name


def chunk_for(size: int, least: int = CHUNK) -> int:
    """Returns bytes of a chunk: ``least`` times a power of two, so that the chunks are not too many."""
    while -(-size // least) > CHUNKS:
        least *= 2
    return least


def manifest_of(path: Path, name: str, *, chunk: int = 0, progress: Callable[[int], None] | None = None) -> Manifest:
    """Returns the manifest of a file that nobody writes to; it is read once.

    Args:
        path: the file.
        name: within its project.
        chunk: bytes of a chunk; 0 = as `chunk_for` says.
        progress: called with bytes as they are read.
    """
    whole, chunks, size = hashlib.sha256(), [], 0
    chunk = chunk or chunk_for(path.stat().st_size)
    with path.open("rb") as file:
        while True:
            one, left = hashlib.sha256(), chunk
            while left and (data := file.read(min(READ, left))):
                whole.update(data)
                one.update(data)
                left -= len(data)
                if progress is not None:
                    progress(len(data))
            if left == chunk:
                break
            size += chunk - left
            chunks.append(one.hexdigest())
    return Manifest(name=name, size=size, sha256=whole.hexdigest(), chunk=chunk, chunks=tuple(chunks))


def write_manifest(manifest: Manifest) -> bytes:
    """Returns a manifest as JSON."""
    return msgspec.json.encode(manifest)


def read_manifest(text: bytes, where: str = "manifest") -> Manifest:
    """Returns the manifest of a JSON text, whoever wrote it.

    Raises:
        SpecError: too long, not JSON, or something that no file can be.
    """
    if len(text) > TEXT:
        raise SpecError(where, "is too long", value=len(text), limit=f"at most {TEXT} bytes")
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(where, f"is not one: {error}", hint="Ask the vault that holds the file for it") from None
