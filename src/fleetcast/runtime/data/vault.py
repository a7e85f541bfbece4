"""The vault: files are published once and stay as they are.

Bytes lie under their own SHA-256, names in an index of small manifests; both are objects of a store that obstore
reads and writes: a local folder, S3, Google's or Azure's. An index entry is written with "create, never replace",
which each of them does in one step, so a name is published whole or not at all and only once. There is no call that
deletes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError
from fleetcast.runtime.data.manifest import Manifest, check_name, check_project, read_manifest, write_manifest

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError
    from obstore.exceptions import BaseError as StoreError
    from obstore.store import LocalStore, from_url
except ImportError:
    raise MissingExtra("obstore", "move") from None


class Published(FleetcastError):
    """The name is taken, and by other bytes."""


def open_store(place: str) -> Any:
    """Returns the store of a folder or of a URL such as s3://bucket/prefix; its credentials come from the environment.

    Raises:
        SpecError: it cannot be opened.
    """
    try:
        if "://" in place:
            return from_url(place)
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return LocalStore(prefix=folder)
    except (StoreError, OSError, ValueError) as error:
        hint = "Name a folder, or s3://bucket/prefix with its credentials in the environment"
        raise SpecError(place, f"cannot be opened: {' '.join(str(error).split())[:200]}", hint=hint) from None


class Vault:
    """Projects of files that are only ever added to.

    Args:
        store: of obstore.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def publish(self, project: str, path: Path, manifest: Manifest) -> bool:
        """Publishes a file under its name; False where the very same was published before.

        Args:
            project: that it belongs to.
            path: its bytes, which have the manifest's hash.
            manifest: of it.

        Raises:
            SpecError: no such name can be.
            Published: the name has other bytes already.
        """
        entry = _entry(project, manifest.name)
        known = self.find(project, manifest.name)
        if known is None:
            place = _object(manifest.sha256)
            try:
                obstore.head(self._store, place)
            except FileNotFoundError:
                # Bytes under their own hash: whoever writes them twice writes the same.
                obstore.put(self._store, place, path)
            # The name must not outlive a power failure that the bytes do not.
            self._sync(place)
            try:
                obstore.put(self._store, entry, write_manifest(manifest), mode="create")
                self._sync(entry)
                return True
            except AlreadyExistsError:
                known = self.find(project, manifest.name)
        if known is None or known.sha256 != manifest.sha256:
            raise Published(f"{project}/{manifest.name} is published with other bytes; what is published stays")
        return False

    def _sync(self, place: str) -> None:
        """Waits until an object of a local folder is on the disk, and its name; other stores answer only then."""
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            root = Path(self._store.prefix)
            path = root / place
            for part in (path, *(folder for folder in path.parents if folder.is_relative_to(root))):
                handle = os.open(part, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def find(self, project: str, name: str) -> Manifest | None:
        """Returns what is published under a name; None where nothing is.

        Raises:
            SpecError: no such name can be, or the index holds something else than manifests.
        """
        try:
            return read_manifest(bytes(obstore.get(self._store, _entry(project, name)).bytes()), f"{project}/{name}")
        except FileNotFoundError:
            return None

    def names(self, project: str) -> list[str]:
        """Returns what a project has published, by name."""
        prefix = f"projects/{check_project(project)}/"
        rows = (row for batch in obstore.list(self._store, prefix=prefix) for row in batch)
        return sorted(unquote(row["path"].removeprefix(prefix).removesuffix(".json")) for row in rows)

    def size(self, project: str) -> int:
        """Returns the bytes that a project has published."""
        found = (self.find(project, name) for name in self.names(project))
        return sum(manifest.size for manifest in found if manifest is not None)

    async def read(self, manifest: Manifest, start: int, end: int) -> Any:
        """Returns the bytes of a file from ``start`` to ``end``."""
        return memoryview(await obstore.get_range_async(self._store, _object(manifest.sha256), start=start, end=end))


def _entry(project: str, name: str) -> str:
    # One object per name, without folders: no name can be a folder of another.
    return f"projects/{check_project(project)}/{quote(check_name(name), safe='')}.json"


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"
