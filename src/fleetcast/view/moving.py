"""`fleetcast data`: the places that data moves through, and whether to move it at all. Each command is one process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.base.units import parse
from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fleetcast.runtime.data.push import Sent

TOKEN = "FLEETCAST_DATA_TOKEN"
"""The environment variable that holds a token unless another is named."""


def app() -> App:
    """Returns the command with those below it."""
    made = App(name="data", help="Move data from instruments to where it is computed with, or the compute to the data.")
    for command in (grant, vault, gateway, push, listing, move, where):
        made.command(command, name="list" if command is listing else command.__name__)
    return made


def grant(
    project: str, /, *, tokens: Path, rights: str = "read", holder: str = "", common: Common = DEFAULTS
) -> int:  # fmt: skip
    """Make a token for a project ("*": for all) and print it, once; the file keeps only its hash.

    Parameters
    ----------
    tokens:
        File of those who may do what; made where it is absent.
    rights:
        "read", "write" or "read,write".
    holder:
        Whose it is.
    """
    from fleetcast.runtime.data.access import grant as given

    words = tuple(word.strip() for word in rights.split(",") if word.strip())
    token = given(tokens, project, words, holder)
    terminal.answer(common, {"project": project, "rights": list(words), "token": token}, lambda _: token)
    return 0


def vault(
    root: str, /, *, tokens: Path, host: str = "127.0.0.1", port: int = 8700, spool: Path | None = None,
    room: str = "1 TB", quota: str = "", tls_cert: Path | None = None, tls_key: Path | None = None,
    common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Keep files that never change: take uploads, answer reads; until Ctrl-C.

    Parameters
    ----------
    root:
        A folder, or a store such as s3://bucket/prefix.
    tokens:
        File of `fleetcast data grant`.
    host:
        Address to listen on; any but loopback needs TLS.
    port:
        0 takes a free one.
    spool:
        Folder of uploads until they are whole; default beside the root.
    room:
        Most bytes of uploads that are not published yet.
    quota:
        Most bytes that a project may publish; default any.
    tls_cert, tls_key:
        Files of the certificate and its key.
    """
    from fleetcast.runtime.data.access import read_grants
    from fleetcast.runtime.data.places import make_vault

    if spool is None:
        if "://" in root:
            raise SpecError("--spool", "is wanted beside a store", value=root, hint="Name a local folder for uploads")
        spool = Path(root).with_name(f"{Path(root).name}.uploads")
    place = make_vault(
        root, read_grants(tokens), spool=spool, room=_bytes(room, "--room"),
        quota=_bytes(quota, "--quota") if quota else None,
    )  # fmt: skip
    return _serve(place, "vault", root, host, port, tls_cert, tls_key, common)


def gateway(
    spool: Path, /, *, to: str, tokens: Path, key_env: str = TOKEN, host: str = "127.0.0.1", port: int = 8701,
    room: str = "1 TB", quota: str = "1 TB", tls_cert: Path | None = None, tls_key: Path | None = None,
    common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Take uploads near the instruments, keep them on disk, hand them on; until Ctrl-C.

    Parameters
    ----------
    spool:
        Folder of what was not handed on yet.
    to:
        The vault's URL, or the next gateway's.
    tokens:
        File of `fleetcast data grant`: who may upload.
    key_env:
        Environment variable with the token for the next place.
    host:
        Address to listen on; any but loopback needs TLS.
    port:
        0 takes a free one.
    room:
        Most bytes in the spool; senders wait when it is full.
    quota:
        Most of them of one project.
    tls_cert, tls_key:
        Files of the certificate and its key.
    """
    from fleetcast.runtime.data.access import read_grants
    from fleetcast.runtime.data.places import GatewayPlace
    from fleetcast.runtime.data.spool import Spool

    kept = Spool(spool, room=_bytes(room, "--room"), quota=_bytes(quota, "--quota"))
    place = GatewayPlace(kept, read_grants(tokens), to, _token(key_env), tell=_tell)
    return _serve(place, "gateway", str(spool), host, port, tls_cert, tls_key, common)


def push(
    folder: Path, /, *, to: str, project: str, key_env: str = TOKEN,
    watch: Annotated[bool, Parameter(negative=())] = False, settle: str = "2 s", common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Send the files of a folder; the instrument's end, which opens connections and takes none.

    Parameters
    ----------
    folder:
        What lies in it and below it is sent under its path; hidden files and links are left out.
    to:
        URL of a gateway or a vault.
    project:
        That the files belong to.
    key_env:
        Environment variable with the token.
    watch:
        Go on until Ctrl-C and send what comes.
    settle:
        How long nobody may have written to a file before it is sent.
    """
    from fleetcast.runtime.data.push import check_url, never_listen

    url, token, still = check_url(to), _token(key_env), parse(settle, "s", "--settle")
    never_listen()
    sent: list[Sent] = []
    early: list[Path] = []
    with terminal.progress("sending", common) as step:
        failed = asyncio.run(_push(folder, url, project, token, still, watch, sent, early, step, common))
    if common.json and not watch:
        terminal.print_json({"sent": [_sent(s) for s in sent], "failed": failed, "early": list(map(str, early))})
    elif early and not watch:
        _tell(f"left for the next time, written to within {settle}: {len(early)} files, {early[0]} first")
    return 1 if failed else 0


def listing(url: str, /, *, project: str, key_env: str = TOKEN, common: Common = DEFAULTS) -> int:
    """List what a project has published.

    Parameters
    ----------
    url:
        Of the vault.
    project:
        Whose files.
    key_env:
        Environment variable with the token.
    """
    from fleetcast.runtime.data.mount import mount

    mounted = mount(url, project, _token(key_env))
    _reading(url, lambda: mounted.ls("", detail=False))  # find, below, takes a vault that is away for an empty one
    rows = _reading(url, lambda: [(name, int(mounted.info(name)["size"])) for name in sorted(mounted.find(""))])
    table = {"project": project, "files": [{"name": name, "size": size} for name, size in rows]}
    cells = [(name, show(float(size), "B")) for name, size in rows]
    terminal.answer(common, table, lambda width: terminal.tables().rows_table(("File", "Size"), cells, width=width))
    return 0


def move(
    url: str, /, *, project: str, name: str, to: Path, streams: int = 4, via: tuple[str, ...] = (),
    key_env: str = TOKEN, common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Copy a file out of a vault over several connections; a copy that was cut off goes on.

    Parameters
    ----------
    url:
        Of the vault.
    project:
        That the file belongs to.
    name:
        Of the file.
    to:
        The copy.
    streams:
        Connections, over each path.
    via:
        Further URLs that lead to the same vault over other paths.
    key_env:
        Environment variable with the token.
    """
    from fleetcast.runtime.data.mover import move as moved

    with terminal.progress("parts", common) as step:
        found = asyncio.run(moved((url, *via), project, name, to, _token(key_env), streams=streams, progress=step))
    table = {
        "name": name, "size": found.manifest.size, "sha256": found.manifest.sha256, "to": str(to),
        "parts": list(found.parts), "resumed": found.resumed, "broken": found.broken,
    }  # fmt: skip
    said = f"{name}: {show(float(found.manifest.size), 'B')}, sha256 {found.manifest.sha256}"
    if common.json:
        terminal.print_json(table)
    else:
        terminal.screen().print(said)
    return 0


def where(file: Path, /, *, common: Common = DEFAULTS) -> int:
    """Say whether to move the data, to read it where it lies, or to compute where it is.

    Parameters
    ----------
    file:
        A .toml file with [fleet] as in a scenario, [data] (at, size, read) and [work] (flop, result).
    """
    from fleetcast.search.where import read_question, ways
    from fleetcast.view.placing import where_view

    question = read_question(file)
    found = ways(question)
    table = {"ways": [way.table() for way in found]}
    terminal.answer(common, table, lambda width: where_view(question, found, width))
    return 0


async def _push(
    folder: Path, url: str, project: str, token: str, settle: float, watch: bool, sent: list[Sent],
    early: list[Path], step: Callable[[int, int], None] | None, common: Common,
) -> list[dict[str, str]]:  # fmt: skip
    """Sends what there is, and with ``watch`` what comes; returns what did not arrive."""
    from fleetcast.runtime.data import push as sending

    done: dict[str, tuple[int, int]] = {}
    skipped: set[Path] = set()

    def skip(path: Path) -> None:
        if path not in skipped:
            _tell(f"left out, a link or no name that can be: {str(path)!r}")
        skipped.add(path)

    failed: dict[str, str] = {}
    async with sending.session(token) as client:
        while True:
            early.clear()
            for path, name in sending.ready(folder, settle=settle, skip=skip, early=early.append):
                told = path.stat()
                if done.get(name) == (stamp := (told.st_size, told.st_mtime_ns)):
                    continue
                try:
                    result = await sending.push(client, url, project, path, name, progress=step)
                except sending.Unsent as error:
                    if failed.get(name) != str(error):
                        _tell(str(error))
                    failed[name] = str(error)
                    if error.refused:
                        done[name] = stamp
                    continue
                failed.pop(name, None)
                done[name] = stamp
                sent.append(result)
                if not common.json:
                    print(f"sent {name}: {show(float(result.size), 'B')}", flush=True)
                elif watch:
                    print(json.dumps(_sent(result)), flush=True)
            if not watch:
                return [{"name": name, "why": why} for name, why in failed.items()]
            await asyncio.sleep(max(0.2, settle / 2))


def _sent(sent: Sent) -> dict[str, Any]:
    return {
        "name": sent.name, "size": sent.size, "sha256": sent.sha256, "resumed": sent.resumed, "broken": sent.tries
    }  # fmt: skip


def _serve(
    place: Any, what: str, at: str, host: str, port: int, cert: Path | None, key: Path | None, common: Common
) -> int:  # fmt: skip
    from fleetcast.runtime.data.places import serve, tls

    secured = tls(cert, key)

    def ready(url: str) -> None:
        if common.json:
            print(json.dumps({"url": url, what: at}), flush=True)
        else:
            print(f"{what} of {at} at {url}; Ctrl-C stops it", flush=True)

    serve(place, ready, host=host, port=port, secured=secured)
    return 0


def _reading(url: str, read: Callable[[], Iterable[Any]]) -> list[Any]:
    import aiohttp

    try:
        return list(read())
    except (aiohttp.ClientError, OSError) as error:
        raise SpecError(url, f"cannot be read: {error}", hint="Check the URL, the project and the token") from None


def _token(name: str) -> str:
    token = os.environ.get(name, "").strip()
    if not token:
        hint = f"Make one with `fleetcast data grant PROJECT --tokens FILE` and put it into {name}"
        raise SpecError("--key-env", "names an environment variable without a token", value=name, hint=hint)
    return token


def _bytes(said: str, where: str) -> int:
    return int(parse(said, "B", where))


def _tell(text: str) -> None:
    terminal.screen(stderr=True).print(text)
