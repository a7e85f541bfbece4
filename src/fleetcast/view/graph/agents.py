"""Agents on the command line: the options of a run on them, and `fleetcast agent`, which offers this machine."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from fleetcast.base.errors import SpecError


@Parameter(name="*", group="Agents")
@dataclass(frozen=True)
class Agents:
    """Options of a run on agents."""

    allow: Path | None = None
    "A graph: allow-list of the agents that are started here; tasks of a kernel that it names run that."
    emulate: Literal["sleep", "spin"] = "sleep"
    "A graph: what all other tasks do for their seconds; spin keeps a core busy."
    listen: str = ""
    "A graph: start no agents here; wait at HOST:PORT for those that `fleetcast agent` starts, named as the devices."
    token_env: str = "FLEETCAST_AGENT_TOKEN"
    "A graph: environment variable with the token that agents must send; needed with --listen."
    wait: float = 60.0
    "A graph: seconds that a task, and the start, wait for agents."
    deadline: float = 86_400.0
    "A graph: seconds in which all must have ended."


LOCAL = Agents()


def agent(
    url: str,
    /,
    *,
    name: str = "",
    allow: Path | None = None,
    slots: int | None = None,
    token_env: str = "FLEETCAST_AGENT_TOKEN",
) -> int:
    """Offer this machine to an orchestrator: run what the allow-list allows until it is done.

    Parameters
    ----------
    url:
        Of the orchestrator: ws://HOST:PORT/agents, as `fleetcast run FILE --listen` says it.
    name:
        Unique among its agents; a graph's are named as the fleet's devices. Default the host's name.
    allow:
        The allow-list, a TOML file; without one the agent only emulates work (sleep, spin).
    slots:
        Tasks at once, over the list's.
    token_env:
        Environment variable with the orchestrator's token.
    """
    import asyncio

    from fleetcast.runtime.agents.agent import Agent, serve

    if not url.startswith(("ws://", "wss://")):
        raise SpecError("url", "is no orchestrator's", value=url, limit="ws://HOST:PORT/agents or wss://")
    if slots is not None and not 1 <= slots <= 10_000:
        raise SpecError("--slots", "is out of range", value=slots, limit="1 to 10,000")
    secret = token(token_env)
    os.environ.pop(token_env, None)  # what the agent starts has no need of it

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    made = Agent(url, name or socket.gethostname(), secret, allow=allow, slots=slots, say=say)
    asyncio.run(serve(made))
    return 0


def address(listen: str) -> tuple[str, int]:
    """Returns host and port of "HOST:PORT".

    Raises:
        SpecError: it is none.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) >= 1 << 16:
        raise SpecError("--listen", "is no address", value=listen, limit="HOST:PORT, e.g. 127.0.0.1:8700")
    return host, int(port)


def token(name: str) -> str:
    """Returns the token of an environment variable.

    Raises:
        SpecError: it is not set, or too short to keep anyone out.
    """
    found = os.environ.get(name, "")
    if len(found) < 16:
        problem = "holds too short a token" if found else "is not set"
        raise SpecError(
            "--token-env", f"{problem}: the environment variable {name}", limit="at least 16 characters",
            hint="The same token for the orchestrator and its agents: openssl rand -hex 32",
        )  # fmt: skip
    return found
