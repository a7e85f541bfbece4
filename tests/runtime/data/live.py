"""A vault and a gateway of this process, for tests; the caller has looked for the packages that they need."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast.runtime.data.access import Access, grant, read_grants
from fleetcast.runtime.data.places import GatewayPlace, VaultPlace, make_vault, served
from fleetcast.runtime.data.push import push, session
from fleetcast.runtime.data.spool import Spool


@dataclass
class Live:
    """What a test asks: URLs, tokens by what they give, and the places themselves."""

    folder: Path
    url: str
    tokens: dict[str, str]
    place: VaultPlace
    access: Access

    async def put(self, name: str, data: bytes, project: str = "alpha", url: str = "") -> Any:
        """Sends bytes under a name."""
        path = self.folder / f"sent-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        path.write_bytes(data)
        async with session(self.tokens["all"]) as client:
            return await push(client, url or self.url, project, path, name)

    def get(self, name: str, project: str = "alpha") -> Any:
        """What the vault has published under a name."""
        return self.place._vault.find(project, name)

    async def until(self, name: str, seconds: float = 10.0) -> Any:
        """Waits until a name is published."""
        for _ in range(int(seconds / 0.02)):
            if (found := await asyncio.to_thread(self.get, name)) is not None:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} was not published in {seconds} s")


def grants(folder: Path) -> tuple[Access, dict[str, str]]:
    """Tokens: "all", "read" and "write" of alpha, "beta" for both of another project."""
    path = folder / "tokens.toml"
    tokens = {
        "all": grant(path, "*", ("read", "write")), "read": grant(path, "alpha", ("read",)),
        "write": grant(path, "alpha", ("write",)), "beta": grant(path, "beta", ("read", "write")),
    }  # fmt: skip
    return read_grants(path), tokens


@contextlib.asynccontextmanager
async def live(folder: Path, *, quota: int | None = None, **limits: int) -> AsyncIterator[Live]:
    """Serves a vault over a folder."""
    access, tokens = grants(folder)
    place = make_vault(str(folder / "vault"), access, spool=folder / "spool", room=1 << 30, quota=quota)
    if limits:
        place.spool.room = limits.get("room", place.spool.room)
        place.spool.largest = limits.get("largest", place.spool.largest)
    async with served(place) as url:
        yield Live(folder, url, tokens, place, access)


@contextlib.asynccontextmanager
async def gateway(at: Live, url: str, *, room: int = 1 << 30) -> AsyncIterator[tuple[str, GatewayPlace]]:
    """Serves a gateway that hands on to ``url``; gives its URL and itself."""
    spool = Spool(at.folder / "gateway", room=room)
    place = GatewayPlace(spool, at.access, url, at.tokens["all"], pause=0.05)
    async with served(place) as mine:
        yield mine, place
