"""`fleetcast agent`: offers this machine to an orchestrator."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.view.terminal import DEFAULTS, Common


def agent(
    url: str,
    /,
    *,
    name: str = "",
    allow: Path | None = None,
    slots: int | None = None,
    token_env: str = "FLEETCAST_AGENT_TOKEN",
    common: Common = DEFAULTS,
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
    from fleetcast.view.graph.running import token

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
