"""Agents on the command line: the options of a run on them, and `fleetcast agent`, which offers this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import read_toml

if TYPE_CHECKING:
    from fleetcast.runtime.agents.planner import Planner


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
    planner: str = ""
    "A graph: who edits it while it runs: FILE.py:FUNCTION, FILE.toml of rules, or a URL of OpenAI's API with --model."
    goal: str = ""
    "A graph: what it is for, in words, for a --planner that is a language model."
    model: Annotated[str, Parameter(parse=False)] = ""
    key_env: Annotated[str, Parameter(parse=False)] = ""


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


def planner_of(options: Agents) -> Planner | None:
    """Returns who edits the graph while it runs, None for nobody.

    Raises:
        SpecError: no such file or function, rules that make no sense, or options that the planner has no use for.
        MissingExtra: httpx is absent, which a URL needs.
    """
    asked = options.planner
    remote = asked.startswith(("http://", "https://"))
    for name in ("model", "goal", "key_env"):
        if (value := getattr(options, name)) and not remote:
            raise SpecError(
                f"--{name.replace('_', '-')}", "is for a planner that is a language model", value=value,
                limit="--planner http://HOST:PORT/v1", hint="Leave it out",
            )  # fmt: skip
    if not asked:
        return None
    from fleetcast.runtime.agents import planner

    if remote:
        if not options.model:
            raise SpecError(
                "--model", "is missing", limit="the name of a model at the URL", hint="E.g. --model qwen3-8b"
            )
        key = os.environ.get(options.key_env or "OPENAI_API_KEY", "")
        if options.key_env and not key:
            raise SpecError(
                "--key-env", "is not set", value=options.key_env, limit="an environment variable with the key"
            )
        return planner.Endpoint(asked, options.model, key=key, goal=options.goal)
    if asked.endswith(".toml"):
        table = read_toml(read_text(asked), asked)
        if list(table) != ["rules"] or not isinstance(table["rules"], list):
            raise SpecError(
                asked, "is no file of rules", value=", ".join(table) or None, limit="tables [[rules]] alone"
            )
        return planner.Script(table["rules"])
    return planner.Function(_function(asked))


def _function(asked: str) -> Callable[..., Any]:
    """Returns the function of "FILE.py:FUNCTION"."""
    file, _, name = asked.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise SpecError(
            "--planner", "is no planner", value=asked, limit="FILE.py:FUNCTION, FILE.toml or http://HOST:PORT/v1",
            hint="See docs/agents.md",
        )  # fmt: skip
    read_text(file)  # says what is wrong with a file that is not there
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SpecError(
            "--planner", f"cannot be read: {type(error).__name__}: {error}", value=file, hint="Correct it"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SpecError("--planner", f"is no function of {file}", value=name, hint=closest(name, known))
    made: Callable[..., Any] = found
    return made


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
