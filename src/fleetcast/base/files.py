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
    handle, name = _temporary(path)
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


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a file and waits until it is on the disk; `whole_lines` reads such a file.

    A run that is killed leaves whole lines, and at most one that is cut off at its end. One file has one writer.

    Raises:
        SpecError: it cannot be written.
    """
    path = Path(path)
    data, fresh = (line + "\n").encode(), not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        if fresh and os.name == "posix":  # the folder has to know the new file as well
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise SpecError(str(path), f"cannot be written: {error.strerror}", hint="Choose another file") from None


def whole_lines(path: str | Path) -> list[str]:
    """Returns the lines of a file that `append_line` wrote; one that was cut off at the end is taken off the file.

    Raises:
        SpecError: it cannot be read, or its whole lines are not UTF-8.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(str(path), f"cannot be read: {error.strerror}", hint="Check its permissions") from None
    whole = data[: data.rfind(b"\n") + 1]  # before it is text: a cut may lie within a character
    if whole != data:
        write_atomic(path, whole)
    try:
        return whole.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 text (byte {error.start})", hint="Name another file") from None


def check_writable(path: str | Path) -> None:
    """Refuses, before any long work, a path that `write_atomic` could not write.

    Raises:
        SpecError: it is a folder, or its folder cannot be made or written.
    """
    path = Path(path)
    if path.is_dir():
        raise SpecError(str(path), "is a folder", limit="a file's name", hint=f"Write e.g. {path / 'profile.toml'}")
    handle, name = _temporary(path)
    os.close(handle)
    Path(name).unlink()


def _temporary(path: Path) -> tuple[int, str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SpecError(str(path), f"cannot be written: {error.strerror}", hint="Choose another --out") from None


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
