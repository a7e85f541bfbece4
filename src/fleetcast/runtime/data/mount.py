"""Reading a vault where it lies: an fsspec file system over HTTP ranges, without a local copy.

Blocks that were read stay in memory, a bounded number of them per file. numpy, pyarrow, pandas or zarr take such
files as they take local ones. fsspec's own `fsspec.fuse` puts it into the kernel's tree where libfuse and fusepy are
installed.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.data.manifest import check_name, check_project
from fleetcast.runtime.data.push import check_url

try:
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.http import HTTPFileSystem
except ImportError:
    raise MissingExtra("fsspec", "move") from None

BLOCK: Final = 1 << 20
"""Bytes of a block."""
BLOCKS: Final = 32
"""Blocks of a file that are kept."""


class Mount(DirFileSystem):  # type: ignore[misc]
    """A project of a vault; paths are names within it. What is asked to be written, the vault refuses.

    Args:
        root: URL of the project, ending in "/".
        fs: that reads it.
    """

    cachable = False  # mounts with other tokens are others

    def __init__(self, root: str, fs: Any) -> None:
        super().__init__(path=root, fs=fs)
        self._root = root

    def _join(self, path: Any) -> Any:
        if isinstance(path, str):
            name = path.strip("/")
            return self._root + (quote(check_name(name)) if name else "")
        if isinstance(path, dict):
            return {self._join(name): value for name, value in path.items()}
        return [self._join(name) for name in path]

    def _relpath(self, path: Any) -> Any:
        if isinstance(path, str):
            return unquote(path.removeprefix(self._root)).rstrip("/")
        return [self._relpath(name) for name in path]


def mount(url: str, project: str, token: str, *, block: int = BLOCK, blocks: int = BLOCKS) -> Mount:
    """Returns a project of a vault as a file system, read-only.

    Args:
        url: of the vault.
        project: to be read.
        token: that may read it.
        block: bytes that are read at once: many suit long links and reads in order, few suit scattered reads.
        blocks: of a file that are kept in memory.

    Raises:
        SpecError: an argument that cannot be.
    """
    if block < 1 or blocks < 1:
        raise SpecError("block", "is out of range", value=(block, blocks), limit="bytes and blocks from 1")
    reading = HTTPFileSystem(
        block_size=block, cache_type="blockcache", cache_options={"maxblocks": blocks}, encoded=True,
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}, skip_instance_cache=True,
    )  # fmt: skip
    return Mount(f"{check_url(url, 'url')}/projects/{check_project(project)}/", reading)
