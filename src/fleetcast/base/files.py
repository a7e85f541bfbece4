"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fleetcast.base.errors import SpecError


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Writes ``content`` to ``path`` through a temporary file in the same folder, then renames it.

    A killed run leaves either the old file or the new one, never a half.

    Raises:
        SpecError: the folder cannot be made or written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SpecError(str(path), f"cannot be written: {error.strerror}", hint="Choose another --out") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def read_text(path: str | Path, *, limit: int = 64 << 20) -> str:
    """Returns the text of a user's file.

    Args:
        path: the file.
        limit: largest size accepted, bytes.

    Raises:
        SpecError: absent, unreadable, too large, or not UTF-8.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise SpecError(
                str(path),
                "is not a file",
                hint="Check the path; relative paths start at the scenario file",
            )
        size = path.stat().st_size
        if size > limit:
            raise SpecError(str(path), "is too large", value=size, limit=f"at most {limit} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8") from None
    except OSError as error:
        raise SpecError(str(path), f"cannot be read: {error.strerror}", hint="Check its permissions") from None
