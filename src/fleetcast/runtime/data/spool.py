"""Uploads that have begun: bytes on disk, a journal of checked chunks, and how much more may come.

An upload is three files of one identifier: ``ID.json`` what it is, ``ID.part`` its bytes, ``ID.log`` a line per chunk
whose checksum was right. The length of ``ID.part`` is the offset: whatever ends the process, the next one goes on
from there. Bytes that were written but not checked are kept; should the whole then have another hash, the journal
says from where on it is wrong, and only that comes again.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.base.files import write_atomic
from fleetcast.runtime.data.manifest import READ, check_name, check_project, check_sha

LARGEST: Final = 1 << 40
"""Bytes of the largest file that is taken unless told otherwise."""
KEPT: Final = 7 * 24 * 3600.0
"""s for which it is remembered that an upload is done, and for which one that stands still is kept."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Full(FleetcastError):
    """There is no room now: in the spool, or in a project's quota.

    Args:
        text: what is full.
        passing: whether room comes back by itself, so that the sender should wait.
    """

    def __init__(self, text: str, *, passing: bool) -> None:
        self.passing = passing
        super().__init__(text)


class Upload(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an upload is.

    Attributes:
        id: 32 hexadecimal digits.
        project: it is for.
        name: of the file within the project.
        size: bytes of the whole.
        sha256: of the whole; "" = the sender did not say.
        begun: s since 1970.
        state: "open" while bytes come, "whole" when all are there and right, "done" when they were handed on,
            "refused" when whoever they were for did not take them.
        why: it was refused.
    """

    id: str
    project: str
    name: str
    size: int
    sha256: str = ""
    begun: float = 0.0
    state: str = "open"
    why: str = ""


class Spool:
    """A folder of uploads; one process at a time uses it.

    Args:
        folder: made where it is absent.
        room: most bytes of uploads that are not done, promised ones included.
        quota: most bytes of one project among them.
        largest: most bytes of a file.

    Raises:
        SpecError: the folder cannot be used, or a limit is out of range.
    """

    def __init__(self, folder: Path, *, room: int = LARGEST, quota: int = LARGEST, largest: int = LARGEST) -> None:
        for name, value in (("room", room), ("quota", quota), ("largest", largest)):
            if value < 1:
                raise SpecError(name, "is out of range", value=value, limit="bytes from 1")
        self.folder, self.room, self.quota, self.largest = folder, room, quota, largest
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpecError(str(folder), f"cannot be used: {error.strerror}", hint="Choose another folder") from None
        self._uploads: dict[str, Upload] = {}
        for path in sorted(folder.glob("*.json")):
            upload = _read(path)
            if upload is not None and upload.id == path.stem:
                self._uploads[upload.id] = upload

    def __iter__(self) -> Iterator[Upload]:
        return iter(list(self._uploads.values()))

    def get(self, name: str) -> Upload | None:
        """Returns the upload of an identifier; None where there is none."""
        return self._uploads.get(name)

    def begin(self, project: str, name: str, size: int, sha256: str = "") -> Upload:
        """Returns a new upload, or the one that was begun for the same bytes of the same name.

        Raises:
            SpecError: a name, a size or a hash that cannot be.
            Full: there is no room.
        """
        check_project(project)
        check_name(name)
        if not 0 <= size <= self.largest:
            raise SpecError("Upload-Length", "is out of range", value=size, limit=f"0 to {self.largest} bytes")
        if sha256:
            check_sha(sha256)
            words = "\0".join((project, name, sha256, str(size)))
            found = self._uploads.get(key := hashlib.sha256(words.encode()).hexdigest()[:32])
            if found is not None and found.state != "refused":
                return found
        else:
            key = secrets.token_hex(16)
        self._check_room(project, size)
        upload = Upload(id=key, project=project, name=name, size=size, sha256=sha256, begun=time.time())
        self.part(upload).touch(mode=0o600)
        self.log(upload).unlink(missing_ok=True)
        self._keep(upload)
        return upload

    def used(self, project: str = "") -> int:
        """Returns bytes of uploads that are not done, promised ones included; of a project, or of all."""
        return sum(u.size for u in self if u.state in ("open", "whole") and project in ("", u.project))

    def offset(self, upload: Upload) -> int:
        """Returns how many bytes of an upload are there."""
        if upload.state != "open":
            return upload.size
        try:
            return min(self.part(upload).stat().st_size, upload.size)
        except FileNotFoundError:
            return 0

    def checked(self, upload: Upload, start: int, end: int, sha256: str) -> None:
        """Notes that the bytes from ``start`` to ``end`` have a hash that their sender gave."""
        with self.log(upload).open("a", encoding="ascii") as file:
            file.write(f"{start} {end} {sha256}\n")
            file.flush()
            os.fsync(file.fileno())

    def cut(self, upload: Upload, offset: int) -> None:
        """Forgets the bytes from an offset on."""
        with self.part(upload).open("r+b") as file:
            file.truncate(offset)

    def finish(self, upload: Upload) -> bool:
        """Reads an upload whose bytes are all there once more; its state is "whole" if the hash is right.

        Otherwise what cannot be right is cut off and comes again: from the first chunk on that the journal does not
        vouch for, or all of it where every chunk is as its sender said.
        """
        digest, good = hashlib.sha256(), True
        with self.part(upload).open("rb") as file:
            while data := file.read(READ):
                digest.update(data)
            os.fsync(file.fileno())
        if upload.sha256:
            good = digest.hexdigest() == upload.sha256
        else:
            upload.sha256 = digest.hexdigest()
        if good:
            upload.state = "whole"
            self._keep(upload)
        else:
            start = self._first_wrong(upload)
            self.cut(upload, start if start < upload.size else 0)
        return good

    def close(self, upload: Upload, *, refused: str = "") -> None:
        """Lets go of the bytes of an upload that was handed on, or that is "refused" with the reason."""
        upload.state, upload.why = ("refused", refused) if refused else ("done", "")
        self._keep(upload)
        for path in (self.part(upload), self.log(upload)):
            path.unlink(missing_ok=True)

    def drop(self, upload: Upload) -> None:
        """Forgets an upload."""
        self._uploads.pop(upload.id, None)
        for path in (self.part(upload), self.log(upload), self.folder / f"{upload.id}.json"):
            path.unlink(missing_ok=True)

    def sweep(self, now: float, kept: float = KEPT) -> int:
        """Forgets uploads that have been done, refused or left alone for ``kept`` s; returns how many."""
        old = [u for u in self if u.state != "whole" and self._touched(u) < now - kept]
        for upload in old:
            self.drop(upload)
        return len(old)

    def part(self, upload: Upload) -> Path:
        """Returns the file with the bytes of an upload."""
        return self.folder / f"{upload.id}.part"

    def log(self, upload: Upload) -> Path:
        """Returns the journal of an upload."""
        return self.folder / f"{upload.id}.log"

    def _touched(self, upload: Upload) -> float:
        path = self.part(upload)
        return path.stat().st_mtime if path.exists() else upload.begun

    def _check_room(self, project: str, size: int) -> None:
        for what, used, most in (
            ("the spool", self.used(), self.room), (f"project {project}", self.used(project), self.quota),
        ):  # fmt: skip
            if used + size > most:
                text = f"{what} has room for {most} bytes, {used} are taken and {size} wanted"
                raise Full(text, passing=size <= min(self.room, self.quota))

    def _keep(self, upload: Upload) -> None:
        write_atomic(self.folder / f"{upload.id}.json", msgspec.json.encode(upload))
        self._uploads[upload.id] = upload

    def _first_wrong(self, upload: Upload) -> int:
        """The offset up to which the journal, without gaps, vouches for what is on disk."""
        start = 0
        try:
            lines = self.log(upload).read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return 0
        # Read in order of place: what came twice after a cut stands twice.
        spans: dict[int, tuple[int, str]] = {}
        for line in lines:
            words = line.split(" ")
            if len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
                spans[int(words[0])] = (int(words[1]), words[2])
        with self.part(upload).open("rb") as file:
            while start in spans and spans[start][0] > start:
                end, said = spans[start]
                file.seek(start)
                digest, left = hashlib.sha256(), end - start
                while left and (data := file.read(min(READ, left))):
                    digest.update(data)
                    left -= len(data)
                if left or digest.hexdigest() != said:
                    break
                start = end
        return start


def _read(path: Path) -> Upload | None:
    """What a file says of an upload; None where a killed process or somebody else left something else."""
    try:
        upload = msgspec.json.decode(path.read_bytes(), type=Upload)
        check_name(upload.name)
        check_project(upload.project)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, SpecError):
        return None
    good = _ID.fullmatch(upload.id) and upload.size >= 0 and upload.state in ("open", "whole", "done", "refused")
    return upload if good else None
