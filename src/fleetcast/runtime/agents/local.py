"""Agents of this machine: processes that are started for a run and ended after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fleetcast.base.errors import FleetcastError, Unsupported
from fleetcast.runtime.agents.agent import BACKOFF, TOKEN, Agent, serve
from fleetcast.runtime.agents.allowed import read
from fleetcast.runtime.agents.orchestrator import Orchestrator

MOST_LOCAL: Final = 64
"""Agents that are started on this machine: each is two processes."""
READY: Final = 60.0
"""s in which they must have registered."""


class Local:
    """Agents that run here, by name; the process of each is in ``processes``."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._watching: list[asyncio.Task[None]] = []

    async def start(
        self, names: Sequence[str], *, allow: Path | None = None, url: str = "",
        slots: Mapping[str, int] | None = None, backoff: float = 1.0,
    ) -> None:  # fmt: skip
        """Starts agents and waits until they have registered.

        Args:
            names: one an agent.
            slots: attempts at once of those that differ from the list's.
            allow: their allow-list.
            url: of the orchestrator, where it is not its own.
            backoff: s before the first of three tries to come back.

        Raises:
            SpecError: the allow-list cannot be read.
            Unsupported: too many of them, or one does not register.
        """
        if len(self.processes) + len(names) > MOST_LOCAL:
            raise Unsupported(
                f"{len(names)} agents on one machine, at most {MOST_LOCAL} are started here",
                "Start them where the devices are: fleetcast agent URL",
            )
        read(allow)  # what is wrong with it is said once, here
        env = os.environ | {TOKEN: self._orchestrator.token}
        for name in names:
            words = (
                url or self._orchestrator.url, name, str(allow or ""), str((slots or {}).get(name, 0)), str(backoff)
            )  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fleetcast.runtime.agents.local", *words, env=env,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            self.processes[name] = process
            self._watching.append(asyncio.create_task(self._watch(name, process)))
        until = asyncio.get_running_loop().time() + READY
        while not all((peer := self._orchestrator.peers.get(n)) and peer.up and peer.ready for n in names):
            ended = [n for n in names if self.processes[n].returncode is not None]
            if ended or asyncio.get_running_loop().time() > until:
                raise Unsupported(f"agent {(ended or names)[0]!r} did not register", "Its own message says why")
            await asyncio.sleep(0.01)

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._orchestrator.ended(name)

    async def stop(self) -> None:
        """Ends what still runs, by force after a while."""
        for process in self.processes.values():
            _send(process, signal.SIGTERM)
        waiting = [asyncio.create_task(p.wait()) for p in self.processes.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=5.0)
        for process in self.processes.values():
            _send(process, signal.SIGKILL)
        await asyncio.gather(*waiting, *self._watching, return_exceptions=True)


def _send(process: asyncio.subprocess.Process, sign: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, sign)  # asyncio's own way would take the exit code from who waits for it


@contextlib.asynccontextmanager
async def started(
    names: Sequence[str], *, allow: Path | None = None, slots: Mapping[str, int] | None = None, pulse: float = 1.0,
    lease: float = 4.0, backoff: float = 1.0,
) -> AsyncIterator[tuple[Orchestrator, Local]]:  # fmt: skip
    """An orchestrator on loopback with agents of this machine, as long as the context lasts.

    Args:
        names: of the agents.
        allow: their allow-list.
        slots: attempts at once of those that differ from the list's.
        pulse: s between signs of life.
        lease: s without one.
        backoff: as `Local.start`.

    Raises:
        Unsupported: as `Local.start`.
    """
    orchestrator = Orchestrator(pulse=pulse, lease=lease)
    local = Local(orchestrator)
    await orchestrator.start()
    try:
        await local.start(names, allow=allow, slots=slots, backoff=backoff)
        yield orchestrator, local
    finally:
        await orchestrator.stop()
        await local.stop()


def main(words: Sequence[str]) -> int:
    """Runs one agent: the orchestrator's URL, its name, its allow-list or "", its slots or 0, s of back-off."""
    url, name, allow, slots, backoff = words
    token, waits = os.environ.pop(TOKEN, ""), tuple(float(backoff) * wait for wait in BACKOFF[:3])
    try:
        agent = Agent(url, name, token, allow=Path(allow) if allow else None, slots=int(slots), backoff=waits)
        asyncio.run(serve(agent))
    except FleetcastError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
