"""Where a server listens: loopback unless told otherwise, and then only with a key."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Final

from fleetcast.base.errors import SpecError

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_address(host: str, port: int, key: str) -> None:
    """Refuses an address before any long work.

    Raises:
        SpecError: it would be open to others without a key, or the port is out of range.
    """
    if not is_loopback(host) and not key:
        raise SpecError(
            "host", "would let anyone in who reaches it", value=host, limit="a key, or loopback: 127.0.0.1",
            hint="Put a key into an environment variable and name it: --key-env NAME",
        )  # fmt: skip
    if not 0 <= port < 1 << 16:
        raise SpecError("port", "is out of range", value=port, limit="0 (any free one) to 65535")


def bind(host: str, port: int, *, send_buffer: int = 0) -> socket.socket:
    """Returns a socket that listens.

    Args:
        host: name or address of this machine.
        port: 0 = any that is free.
        send_buffer: bytes that the system keeps of what is not read, about; connections take it over. 0 = its own.

    Raises:
        SpecError: the host or the port cannot be had.
    """
    try:
        rows = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        hint = "127.0.0.1 is this machine only, 0.0.0.0 all its addresses"
        raise SpecError(
            "host", "is not known", value=host, limit="a name or address of this machine", hint=hint
        ) from None
    family, kind, protocol, _, address = rows[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        found.bind(address)
        # two servers may bind one address; only one of them may listen
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        said = (error.strerror or str(error)).lower()
        where = "port" if "use" in said or "permission" in said else "host"
        raise SpecError(
            where, f"cannot be listened on: {said}", value=port if where == "port" else host,
            limit="a free port from 1024" if where == "port" else "an address of this machine",
            hint="Choose another --port; 0 takes a free one" if where == "port" else "Choose another --host",
        ) from None  # fmt: skip
    found.setblocking(False)
    return found


def more_files() -> None:
    """Lets the process open as many files as the system allows it: each connection is one."""
    try:
        import resource
    except ImportError:  # no POSIX
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1 << 16) if hard != resource.RLIM_INFINITY else 1 << 16
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
