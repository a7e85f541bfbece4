"""Who may do what: tokens, each of one project or of all, each to read or to write. Only hashes are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Any, Final

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import read_text, write_atomic
from fleetcast.base.spec import Spec, convert, dump_toml, read_toml
from fleetcast.runtime.data.manifest import check_project, check_sha
from fleetcast.runtime.listen import is_loopback

try:
    from aiohttp import web
except ImportError:
    raise MissingExtra("aiohttp", "move") from None

ALL: Final = "*"
"""In a token's project: it is for all of them."""
RIGHTS: Final = ("read", "write")
SHORTEST: Final = 16
"""Characters of the shortest token that is taken."""


class Grant(Spec):
    """What the holder of a token may do.

    Attributes:
        sha256: of the token.
        project: that it is for, or "*".
        rights: "read", "write" or both.
        note: whose it is.
    """

    sha256: str
    project: str
    rights: tuple[str, ...]
    note: str = ""


class Grants(Spec):
    """A file of grants."""

    grants: tuple[Grant, ...] = msgspec.field(name="grant", default=())


class Access:
    """Decides by token who may do what.

    Args:
        grants: who has which rights.

    Raises:
        SpecError: no such project or right, or a hash that is none.
    """

    def __init__(self, grants: tuple[Grant, ...]) -> None:
        self._grants: dict[str, list[Grant]] = {}
        for i, grant in enumerate(grants):
            check_sha(grant.sha256, f"grant[{i}].sha256")
            if grant.project != ALL:
                check_project(grant.project, f"grant[{i}].project")
            for right in grant.rights:
                if right not in RIGHTS:
                    raise SpecError(f"grant[{i}].rights", "is unknown", value=right, limit=" or ".join(RIGHTS))
            self._grants.setdefault(grant.sha256, []).append(grant)

    def may(self, token: str, right: str, project: str) -> bool:
        """Whether the holder of a token may "read" or "write" a project."""
        # The token is looked up by its hash: how long that takes says nothing of the token.
        found = self._grants.get(hash_of(token), ())
        return any(right in grant.rights and grant.project in (ALL, project) for grant in found)

    def known(self, token: str) -> bool:
        """Whether anybody holds this token."""
        return hash_of(token) in self._grants

    def check(self, request: Any, right: str, project: str) -> None:
        """Refuses a request whose bearer token gives no such right; of other projects it does not say what they hold.

        Raises:
            web.HTTPException: 401 without a known token, 403 without the right.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.known(token.strip()):
            raise web.HTTPUnauthorized(
                text="Authorization: is wanted: send 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not self.may(token.strip(), right, project):
            raise web.HTTPForbidden(text=f"this token may not {right} there; ask who gave it for a grant")


def hash_of(token: str) -> str:
    """Returns what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_grants(path: Path) -> Access:
    """Returns the grants of a TOML file: ``[[grant]]`` tables with sha256, project, rights and note.

    Raises:
        SpecError: not such a file.
    """
    return Access(convert(read_toml(read_text(path, limit=4 << 20), str(path)), Grants, "").grants)


def grant(path: Path, project: str, rights: tuple[str, ...], note: str = "") -> str:
    """Adds a new token to a file of grants, which is made where it is absent.

    Returns:
        The token; it is kept nowhere else.

    Raises:
        SpecError: no such project or right, or the file is something else.
    """
    token = secrets.token_urlsafe(32)
    new = Grant(sha256=hash_of(token), project=project, rights=rights, note=note)
    known: tuple[Grant, ...] = ()
    if path.exists():
        known = convert(read_toml(read_text(path, limit=4 << 20), str(path)), Grants, "").grants
    Access((*known, new))
    rows = [{"sha256": g.sha256, "project": g.project, "rights": list(g.rights), "note": g.note} for g in (*known, new)]
    write_atomic(path, dump_toml({"grant": rows}))
    path.chmod(0o600)
    return token


def check_host(request: Any, loopback: bool) -> None:
    """Refuses, on loopback, a request that was sent to another name: a web page may have made its name point here.

    Raises:
        web.HTTPException: 403.
    """
    name = re.sub(r":\d+$", "", request.headers.get("Host", ""))
    if loopback and not is_loopback(name):
        raise web.HTTPForbidden(text="Host: is not this server, which listens on loopback; ask http://127.0.0.1")
