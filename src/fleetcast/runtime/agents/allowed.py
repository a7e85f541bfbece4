"""What an agent will run: its allow-list, a TOML file of its own machine. Nothing else runs, whoever asks.

A call is a Python callable or a command line. Its arguments are checked against what the list says of them; a command
line is a list of words, which no shell reads, and an argument never becomes an option or leaves the folder.
"""

from __future__ import annotations

import importlib
import inspect
import re
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import FleetcastError, SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.scenario.workload.edits import Id, Seconds

Kind = Literal["text", "whole", "number", "yes_no", "path", "json", "words"]
GIVEN = ("inputs", "progress", "stopped")
"""Keywords that a callable is given where it takes them: results of the tasks before; a function to call with parts of
its result; a function that says whether it shall give up."""
_PLACE = re.compile(r"\{(\w+)\}")
_LONGEST = 4096
_EARLY = 2e-4
"""s before its end that an emulated task wakes up."""


class Argument(Spec):
    """What an argument may be.

    Attributes:
        kind: "text", "whole" (number), "number", "yes_no", "path" (below the agent's folder), "json" (anything) or
            "words": any number of a command's, none unless given.
        least: of a number.
        most: of a number; of a text its length, and of each of several words.
        pattern: that the whole text, or each word, must match.
        choices: of a text.
        default: where it is left out; without one it must be given.
        options: whether words may be options of the program.
    """

    kind: Kind
    least: float | None = None
    most: float | None = None
    pattern: str = ""
    choices: tuple[str, ...] = ()
    default: str | int | float | bool | None = None
    options: bool = False


class Call(Spec):
    """A thing that an agent runs.

    Attributes:
        python: "module:function".
        command: or the words of a command line; ``{name}`` stands for an argument. The words that a workflow's file has
            after the program are the argument ``words``.
        arguments: by name: what they may be, or the kind alone.
        timeout: s that it may take, whatever the orchestrator allows.
        codes: exit codes of a command that mean it did well.
    """

    python: str = ""
    command: tuple[str, ...] = ()
    arguments: dict[str, Argument | Kind] = msgspec.field(default_factory=dict)
    timeout: Seconds | None = None
    codes: tuple[int, ...] = (0,)


class Allowed(Spec):
    """An agent's allow-list.

    Attributes:
        calls: by name.
        kinds: what the agent is, for tasks that want one of a kind.
        slots: attempts that it runs at once.
        folder: where commands run and below which paths lie; relative to the file.
    """

    calls: dict[str, Call] = msgspec.field(default_factory=dict)
    kinds: tuple[Id, ...] = ()
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    folder: str = "."


class Refused(FleetcastError):
    """A call that the list does not allow, or not so."""


_SECONDS = Argument(kind="number", least=0.0, most=86_400.0)
_OWN = {
    "sleep": Call(python=f"{__name__}:sleep", arguments={"seconds": _SECONDS}),
    "spin": Call(python=f"{__name__}:spin", arguments={"seconds": _SECONDS}),
}
"""Everyone's: emulated work, which takes time and does nothing."""


def sleep(seconds: float, *, stopped: Callable[[float], bool]) -> None:
    """Takes ``seconds`` and, but for the last moment, no processor: stands for work on a device."""
    end = time.perf_counter() + seconds
    if not stopped(max(0.0, seconds - _EARLY)):
        while time.perf_counter() < end:  # a sleeper wakes up late, and late by how busy the machine is
            pass


def spin(seconds: float, *, stopped: Callable[[float], bool]) -> None:
    """Takes ``seconds`` of a processor."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not stopped(0.0):
        sum(range(2000))


def read(path: Path | None) -> Allowed:
    """Returns the allow-list of a file; None = nothing but "sleep" and "spin".

    Raises:
        SpecError: it cannot be read, or says what cannot be.
    """
    if path is None:
        return Allowed()
    found = convert(read_toml(read_text(path), str(path)), Allowed, path.name)
    for name, call in found.calls.items():
        _check(name, call, f"{path.name}: calls.{name}")
    return msgspec.structs.replace(found, folder=str((path.parent / found.folder).resolve()))


def _check(name: str, call: Call, path: str) -> None:
    if name in _OWN:
        raise SpecError(path, "is everyone's already", value=name, limit="another name", hint="Rename the call")
    if bool(call.python) == bool(call.command):
        raise SpecError(path, "is neither or both of python and command", limit="one of the two")
    if call.python and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", call.python):
        raise SpecError(f"{path}.python", "names no function", value=call.python, limit="'module:function'")
    places = {place for word in call.command for place in _PLACE.findall(word)}
    if call.command and _PLACE.search(call.command[0]):
        raise SpecError(f"{path}.command[0]", "is not fixed", value=call.command[0], limit="the program itself")
    for key in places ^ set(call.arguments) if call.command else ():
        near = closest(key, places | set(call.arguments))
        problem = "stands in no word of the command" if key in call.arguments else "is said nothing of"
        raise SpecError(f"{path}.arguments.{key}", problem, limit="an argument stands as {name}", hint=near)
    for key, said in call.arguments.items():
        several = _kind(said) == "words"
        if several and not all(word == f"{{{key}}}" or f"{{{key}}}" not in word for word in call.command):
            raise SpecError(f"{path}.arguments.{key}", "is several words inside one", limit=f'"{{{key}}}" by itself')
        if several and call.python:
            raise SpecError(f"{path}.arguments.{key}", "is words, and no command takes them", limit="json")
    for key, argument in call.arguments.items():
        if key in GIVEN and call.python:
            raise SpecError(f"{path}.arguments.{key}", "is given by the agent", limit="another name")
        if isinstance(argument, Argument):
            try:
                re.compile(argument.pattern)
            except re.error as error:
                raise SpecError(f"{path}.arguments.{key}.pattern", f"is no pattern: {error}", limit="see re") from None


def call_of(allowed: Allowed, name: str) -> Call:
    """Returns the call of that name.

    Raises:
        Refused: the list has none.
    """
    found = _OWN.get(name) or allowed.calls.get(name)
    if found is None:
        known = [*_OWN, *allowed.calls]
        raise Refused(f"call {name!r} is not in this agent's allow-list: {', '.join(known[:12])}")
    return found


def names(allowed: Allowed) -> list[str]:
    """Returns the names of all calls."""
    return [*_OWN, *allowed.calls]


def programs(allowed: Allowed) -> list[str]:
    """Returns the names of calls that take the words which a workflow's file has after a program."""
    return [name for name, call in allowed.calls.items() if _kind(call.arguments.get("words", "text")) == "words"]


def _kind(said: Argument | Kind) -> Kind:
    return said.kind if isinstance(said, Argument) else said


def checked(call: Call, arguments: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Returns the arguments of a call, checked, defaults put in; paths are absolute.

    Raises:
        Refused: one is unknown, missing, or not what the list says.
    """
    for name in arguments:
        if name not in call.arguments:
            raise Refused(f"argument {name!r} is not one of {', '.join(call.arguments) or 'none'}")
    found = {}
    for name, said in call.arguments.items():
        argument = said if isinstance(said, Argument) else Argument(kind=said)
        value = arguments.get(name, [] if argument.kind == "words" else argument.default)
        if value is None and argument.kind != "json":
            raise Refused(f"argument {name!r} is missing")
        found[name] = _value(argument, value, name, folder)
    return found


def _value(argument: Argument, value: Any, name: str, folder: str) -> Any:
    kind = argument.kind
    if kind == "json":
        return value
    if kind == "yes_no":
        if not isinstance(value, bool):
            raise Refused(f"argument {name!r} is neither true nor false")
        return value
    if kind in ("whole", "number"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "whole" else int | float):
            raise Refused(f"argument {name!r} is not a {'whole ' if kind == 'whole' else ''}number")
        low, high = argument.least, argument.most
        if (low is not None and value < low) or (high is not None and value > high):
            raise Refused(f"argument {name!r} is {value:g}, and may be {low} to {high}")
        return value
    if kind == "words":
        if not isinstance(value, list):
            raise Refused(f"argument {name!r} is not a list of words")
        return [_word(argument, word, name, folder) for word in value]
    if not isinstance(value, str) or "\0" in value:
        raise Refused(f"argument {name!r} is not text")
    if len(value) > (argument.most or _LONGEST):
        raise Refused(f"argument {name!r} is too long")
    if argument.pattern and not re.fullmatch(argument.pattern, value):
        raise Refused(f"argument {name!r} does not match {argument.pattern}")
    if argument.choices and value not in argument.choices:
        raise Refused(f"argument {name!r} is none of {', '.join(argument.choices)}")
    return _path(value, name, folder) if kind == "path" else value


def _word(argument: Argument, value: Any, name: str, folder: str) -> str:
    """Returns one of several words: no option unless they may be, and no path that leaves the folder."""
    word = _value(msgspec.structs.replace(argument, kind="text"), value, name, folder)
    if word.startswith("-") and not argument.options:
        raise Refused(f"{word[:40]!r} would be read as an option")
    for part in re.split(r"[=:,]", word):
        _path(part, name, folder)
    return str(word)


def _path(value: str, name: str, folder: str) -> str:
    root = Path(folder).resolve()
    try:
        found = (root / value).resolve()
    except (OSError, RuntimeError):
        raise Refused(f"argument {name!r} is no path") from None
    if not found.is_relative_to(root):
        raise Refused(f"argument {name!r} leaves the agent's folder")
    return str(found)


def words(call: Call, arguments: Mapping[str, Any]) -> list[str]:
    """Returns the words of a command line, arguments put in.

    Raises:
        Refused: an argument would be read as an option.
    """
    found: list[str] = []
    for word in call.command:
        if (place := _PLACE.fullmatch(word)) and isinstance(several := arguments[place[1]], list) and (
            _kind(call.arguments[place[1]]) == "words"
        ):  # fmt: skip
            found += several
            continue
        made = _PLACE.sub(lambda place: _text(arguments[place[1]]), word)
        if made.startswith("-") and not word.startswith("-"):
            raise Refused(f"{made[:40]!r} would be read as an option")
        found.append(made)
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@cache
def function(python: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """Returns a call's Python function, and the keywords of `GIVEN` that it takes.

    Raises:
        Refused: it cannot be imported.
    """
    module, _, name = python.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Refused(f"{python} cannot be imported: {error}") from None
    if not callable(found):
        raise Refused(f"{python} is no function")
    return found, frozenset(inspect.signature(found).parameters) & frozenset(GIVEN)
