"""The orchestrator's side of the network: who is connected, who lives, what they say. It decides nothing.

It listens on loopback unless told otherwise, and takes only agents that send its token in ``Authorization``, a header
that no web page can set. What is no message, or too large, ends the connection it came by.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.agents.messages import (
    GRACE,
    MOST,
    VERSION,
    BadMessage,
    Done,
    End,
    Message,
    Progress,
    Pulse,
    Refuse,
    Register,
    Welcome,
    encode,
    from_agent,
)
from fleetcast.runtime.listen import BACKLOG, bind, check_address, more_files

try:
    from aiohttp import WSMsgType, web
except ImportError:
    raise MissingExtra("aiohttp", "agents") from None

WAITING: Final = 20_000
"""Messages that may wait for an agent to read them; then it is cut off."""
MOST_AGENTS: Final = 1000
_FIRST: Final = 10.0
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Peer:
    """An agent as the orchestrator knows it.

    Attributes:
        name: its name.
        session: of its process.
        kinds: what it is.
        calls: what it can run.
        slots: attempts at once.
        programs: calls that take the words of a command line.
        up: whether it is connected.
        sure: monotonic s until which it may still run what it was given, however silent it is.
        returned: whether all that it ran in earlier connections is over, and said.
        ready: whether it has given its first sign of life.
        results: `Done` that came by this connection.
        heard: monotonic s of its last message.
        out: what waits to be sent.
        socket: the connection.
    """

    name: str
    session: int
    kinds: frozenset[str]
    calls: frozenset[str]
    slots: int
    programs: frozenset[str] = frozenset()
    up: bool = True
    sure: float = 0.0
    returned: bool = True
    ready: bool = False
    results: int = 0
    heard: float = 0.0
    out: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    socket: Any = None

    def send(self, message: Message) -> None:
        """Sends a message, unless the connection has ended: then it is lost, as on any network.

        Raises:
            BadMessage: it is larger than a message may be.
        """
        data = encode(message, MOST)
        if self.up:
            self.out.put_nowait(data)


class Listener(Protocol):
    """Who is told what happens; its methods return at once."""

    def joined(self, peer: Peer) -> None:
        """An agent is there, for the first time or again."""

    def left(self, peer: Peer) -> None:
        """An agent's connection has ended; what it ran may run until ``peer.sure``."""

    def settled(self, peer: Peer) -> None:
        """What an agent ran in earlier connections is over, and what came of it has been said."""

    def done(self, peer: Peer, done: Done) -> None:
        """An attempt has ended."""

    def progress(self, peer: Peer, progress: Progress) -> None:
        """Part of a result has come."""

    def broke(self, error: Exception) -> None:
        """One of the others has raised this."""


class Orchestrator:
    """Listens for agents.

    Args:
        host: to listen on.
        port: to listen on; 0 = any that is free.
        token: that agents must send; "" = one is drawn.
        pulse: s between signs of life.
        lease: s without a sign of life after which an agent stops its work; UFO3 has no such thing.

    Raises:
        SpecError: the address would be open to others without a token.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, token: str = "", pulse: float = 1.0, lease: float = 4.0
    ) -> None:
        check_address(host, port, token)
        self._host, self._port = host, port
        self.token = token or secrets.token_urlsafe(32)
        self.pulse, self.lease = pulse, lease
        self.peers: dict[str, Peer] = {}
        self.listener: Listener | None = None
        self.refused = 0
        # drawn, because agents outlive orchestrators and know the attempts of the last
        self.numbers = itertools.count(1 + secrets.randbits(52))
        self.url = ""
        self._runner: Any = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listens; returns the URL for agents.

        Raises:
            SpecError: the address cannot be listened on.
        """
        more_files()
        listening = bind(self._host, self._port)
        app = web.Application()
        app.router.add_get("/agents", self._agent)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening, backlog=BACKLOG).start()
        host, port = listening.getsockname()[:2]
        self.url = f"ws://{f'[{host}]' if ':' in host else host}:{port}/agents"
        self._watch = asyncio.create_task(self._watching())
        return self.url

    async def stop(self, reason: str = "") -> None:
        """Tells the agents that all is done, and ends every connection."""
        if self._watch is not None:
            self._watch.cancel()
        for peer in self.peers.values():
            if peer.up:
                peer.send(End(reason=reason))
                peer.out.put_nowait(None)
        until = time.monotonic() + 1.0
        while any(peer.up for peer in self.peers.values()) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._runner is not None:
            await self._runner.cleanup()

    def up(self) -> Iterable[Peer]:
        """Yields the agents that are connected."""
        return (peer for peer in self.peers.values() if peer.up)

    def drop(self, peer: Peer, why: str) -> None:
        """Ends an agent's connection."""
        self._down(peer, why)

    def ended(self, name: str) -> None:
        """Notes that an agent's process is known to have ended: it runs nothing any more, whatever its lease."""
        if (peer := self.peers.get(name)) is not None:
            self._down(peer, "ended")
            peer.sure = min(peer.sure, time.monotonic() + GRACE)

    async def _watching(self) -> None:
        """Ends connections that have been silent for as long as a lease."""
        while True:
            await asyncio.sleep(self.pulse / 2)
            now = time.monotonic()
            for peer in list(self.up()):
                if now - peer.heard > self.lease:
                    self._down(peer, "silent")

    def _authorised(self, request: Any) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self.token.encode()
        )

    async def _agent(self, request: Any) -> Any:
        if not self._authorised(request):
            self.refused += 1
            raise web.HTTPUnauthorized(text="the token is not the orchestrator's")
        socket = web.WebSocketResponse(max_msg_size=MOST, timeout=1.0, compress=False)
        await socket.prepare(request)
        peer: Peer | None = None
        try:
            async with asyncio.timeout(_FIRST):
                first = await socket.receive()
            if first.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return socket
            peer = await self._register(socket, from_agent(first.data, MOST))
            if peer is None:
                return socket
            sender = asyncio.create_task(self._sending(peer, socket))
            try:
                await self._hear(peer, socket)
            finally:
                if peer.socket is socket:
                    self._down(peer, "closed")
                sender.cancel()
        except (BadMessage, TimeoutError) as error:
            self.refused += 1
            _log.warning("%s: %s", peer.name if peer else request.remote, error)
            with contextlib.suppress(ConnectionError, RuntimeError):
                await socket.close(code=1008, message=str(error).encode()[:100])
        return socket

    async def _register(self, socket: Any, said: Any) -> Peer | None:
        """Takes an agent or refuses it."""
        why, final = "", True
        known = self.peers.get(said.agent) if isinstance(said, Register) else None
        if not isinstance(said, Register):
            why = "an agent registers first"
        elif said.version != VERSION:
            why = f"it speaks version {said.version}, and this orchestrator {VERSION}"
        elif known is not None and known.up and known.session != said.session:
            why, final = f"another agent is called {said.agent!r}", False  # it may be gone without a word
        elif known is None and len(self.peers) >= MOST_AGENTS:
            why, final = f"{MOST_AGENTS} agents, as many as it takes", False
        if why:
            self.refused += 1
            await socket.send_bytes(encode(Refuse(reason=why, final=final)))
            await socket.close()
            return None
        if known is not None and known.up:
            self._down(known, "replaced")
        now = time.monotonic()
        peer = Peer(
            said.agent, said.session, frozenset(said.kinds), frozenset(said.calls), said.slots, frozenset(said.programs)
        )
        peer.socket, peer.heard, peer.sure = socket, now, self._until(now)
        if known is not None:
            # of another process nobody says that it has ended; its lease does
            peer.returned = known.session != said.session
        self.peers[said.agent] = peer
        await socket.send_bytes(encode(Welcome(pulse=self.pulse, lease=self.lease, most=MOST)))
        self._tell("joined", peer)
        return peer

    def _until(self, now: float) -> float:
        """Until when an agent heard at ``now`` may run what it has: its lease, and the time it takes to stop."""
        return now + self.lease + 2 * GRACE + 0.2

    async def _hear(self, peer: Peer, socket: Any) -> None:
        async for message in socket:
            if peer.socket is not socket or not peer.up:
                return
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return
            said = from_agent(message.data, MOST)
            now = peer.heard = time.monotonic()
            if isinstance(said, Done):
                peer.results += 1
                self._tell("done", peer, said)
            elif isinstance(said, Progress):
                self._tell("progress", peer, said)
            elif isinstance(said, Pulse):
                peer.sure, peer.ready = self._until(now), True
                peer.send(Pulse(number=said.number, results=peer.results))
                if not peer.returned:
                    peer.returned = True
                    self._tell("settled", peer)
            elif isinstance(said, End):
                return
            else:
                raise BadMessage("registers twice")

    async def _sending(self, peer: Peer, socket: Any) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            while (data := await peer.out.get()) is not None:
                if peer.out.qsize() > WAITING:
                    self._down(peer, "does not read")
                    return
                await socket.send_bytes(data)
            await socket.close()

    def _down(self, peer: Peer, why: str) -> None:
        if not peer.up:
            return
        peer.up = False
        peer.out.put_nowait(None)
        if why not in ("closed", "replaced") and (transport := peer.socket._req.transport) is not None:
            transport.abort()
        _log.info("%s left: %s", peer.name, why)
        if self.peers.get(peer.name) is peer:
            self._tell("left", peer)

    def _tell(self, what: str, *said: Any) -> None:
        """Tells the listener; what goes wrong there is the run's to report, no fault of the agent's connection."""
        if self.listener is not None:
            try:
                getattr(self.listener, what)(*said)
            except Exception as error:
                self.listener.broke(error)
