"""`fleetcast run --serve`: the scenario's plan, started on this machine, behind an HTTP server."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fleetcast.base.errors import SpecError

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.plan import Plan


@Parameter(name="*", group="Serving")
@dataclass(frozen=True)
class Serving:
    """Options of a server."""

    serve: Annotated[bool, Parameter(negative=())] = False
    "Serve the plan's model here, as OpenAI's API does, until Ctrl-C; --model names it, --key-env holds its key."
    host: str = "127.0.0.1"
    "Address to listen on; any but loopback needs --key-env."
    port: int = 8000
    "Port; 0 takes a free one."
    max_waiting: int = 256
    "Requests that may wait for the engine; more are refused with 503."
    max_connections: int = 1024
    "Connections at once; more are refused with 503."
    max_body: int = 4 << 20
    "Bytes of a request."
    rate: float = 0.0
    "Requests per second and address; more are refused with 429. 0 = any."
    idle: float = 30.0
    "Seconds for which a connection may be silent and a body may take to come."
    stall: float = 30.0
    "Seconds for which a stream may stay unread; then it is cut off."
    buffer: int = 4096
    "Tokens of a stream that may wait for its reader; then it is cut off."
    drain: float = 30.0
    "Seconds that answers have to end in after Ctrl-C or SIGTERM; then they end with an error."


ALONE = Serving()


def refuse_without(given: Serving) -> None:
    """Raises SpecError where an option of a server is given and none is wanted."""
    for field in fields(given):
        value = getattr(given, field.name)
        if value != field.default:
            raise SpecError(
                field.name, "is for a server", value=value, limit="only with --serve",
                hint="Add --serve, or leave it out",
            )  # fmt: skip


def refuse_beside(**others: object) -> None:
    """Raises SpecError where an option of a measurement is given to a server."""
    for name, value in others.items():
        if value:
            raise SpecError(
                name, "is for measuring, and --serve only answers", value=value, limit="left out with --serve",
                hint="Serve in one terminal, and measure in another: fleetcast run FILE --url http://127.0.0.1:8000",
            )  # fmt: skip


def serve(scenario: ServingScenario, given: Serving, *, name: str, key_env: str, device: str, as_json: bool) -> int:
    """Serves a scenario's plan until it is told to stop, and says so on stdout; returns the command's exit code.

    Args:
        scenario: its model must have weights and a tokenizer.
        given: the options.
        name: that clients ask for; "" = the model's, without its folder.
        key_env: environment variable with the key; "" = no key.
        device: "cpu", "cuda" or "auto", as `here.start` takes it.
        as_json: say it as a line of JSON.

    Returns:
        0, or 1 where requests were cut off at the end.

    Raises:
        SpecError: no weights, no tokenizer, or an address that cannot be had.
        Unsupported: what the engine cannot run.
        Infeasible: it does not fit.
        MissingExtra: torch, aiohttp or another package of the extra "serve" is not installed.
    """
    from fleetcast.runtime.replay.client import key_of
    from fleetcast.runtime.serve.limits import Limits
    from fleetcast.runtime.serve.server import Server
    from fleetcast.runtime.serve.server import serve as forever
    from fleetcast.view import here

    key = key_of(key_env) if key_env else ""
    limits = Limits(**{f.name: getattr(given, f.name) for f in fields(given) if f.name in Limits.__dataclass_fields__})
    folder = _folder(scenario)
    Server.check(given.host, given.port, key)
    started = here.start(scenario, device=device, bounded=True)
    launched = started.launched
    if not launched.real:
        raise SpecError(
            "workload.model", "has no weights to serve", value=str(folder), limit="safetensors beside config.json",
            hint="Fetch them from the model's repository",
        )  # fmt: skip
    if launched.drafts is False:
        launched.engine.close()
        raise SpecError(
            "plan.speculate.model", "has no weights to draft with", value=_drafter(started.plan),
            limit="a folder with safetensors beside config.json", hint="Fetch them, or leave speculate out",
        )  # fmt: skip
    from fleetcast.runtime.llm.text import open_text

    text = open_text(folder, launched.shape.vocab)
    served = name or named(folder)
    server = Server(launched.engine, text, served, host=given.host, port=given.port, key=key, limits=limits)

    def told(url: str) -> None:
        _say({
            "url": url, "model": served, "context": launched.shape.context, "blocks": launched.engine.blocks.count,
            "dtype": launched.dtype, "chat": text.template is not None, "key": bool(key), "notes": list(launched.notes),
        }, as_json)  # fmt: skip

    left = forever(server, told)
    if not as_json:
        print(f"stopped; {left} requests were cut off" if left else "stopped; every request was answered", flush=True)
    return 1 if left else 0


def _say(table: dict[str, Any], as_json: bool) -> None:
    """Says what is served and where, at once: whoever started it may wait for that."""
    if as_json:
        print(json.dumps(table), flush=True)
        return
    api = "completions and chats" if table["chat"] else "completions (the model has no chat template)"
    print(f"{table['model']} at {table['url']}: {api}, {table['context']:,} tokens of context, {table['dtype']}")
    print(f"{table['blocks']:,} blocks of KV cache; " + ("a key is wanted" if table["key"] else "no key is wanted"))
    for note in table["notes"]:
        print(f"note: {note}")
    print("Ctrl-C lets running answers end, and stops", flush=True)


def _drafter(plan: Plan) -> str:
    """Returns the name of the model that drafts."""
    table = plan.serving[0].speculate
    return str((table.get("model") if isinstance(table, dict) else None) or (plan.draft and plan.draft.model))


def _folder(scenario: ServingScenario) -> Path:
    """Returns the folder of the model's files.

    Raises:
        SpecError: the scenario's model is a name of the catalogue, which has no weights.
    """
    model = str(scenario.plan.serving[0].model or scenario.workload.model)
    at = Path(scenario.folder) / model
    if not at.exists():
        raise SpecError(
            "workload.model", "is no folder, so there is nothing to serve", value=model,
            limit="a folder with config.json, safetensors and tokenizer.json",
            hint="Fetch the model from its repository and name the folder; relative paths start at the scenario file",
        )  # fmt: skip
    return at if at.is_dir() else at.parent


def named(folder: Path) -> str:
    """Returns what a model's folder is called: as it was given, not what a link leads to."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name
