"""The model catalogue: facts of published checkpoints.

A model is asked for by id, by repository name, or as the path of a config.json of one's own.

Each ``models/<id>.json`` holds what a published config.json says about shape and storage, its
source, the names it is also known by, and quantised variants as changes to that config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.models import Model

FOLDER: Final = Path(__file__).parent / "models"


class Variant(Spec):
    """A quantised checkpoint of a catalogue model.

    Attributes:
        id: catalogue id.
        aliases: repository names.
        config: changes to the model's config; null removes a field.
        source: where they come from.
    """

    id: str
    aliases: tuple[str, ...]
    config: dict[str, Any]
    source: str


class Entry(Spec):
    """One file of the catalogue.

    Attributes:
        id: catalogue id, the file's name.
        name: for people.
        aliases: repository names and short names; the first is the repository of ``source``.
        config: the published config.json, cut to shape and storage.
        source: address of that config.json.
        variants: quantised checkpoints of the same model.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    config: dict[str, Any]
    source: str
    variants: tuple[Variant, ...] = ()


@cache
def entries() -> Mapping[str, Entry]:
    """Returns the catalogue's files by id, in order of id."""
    found = (msgspec.json.decode(path.read_bytes(), type=Entry) for path in sorted(FOLDER.glob("*.json")))
    return {entry.id: entry for entry in found}


@cache
def aliases() -> Mapping[str, str]:
    """Returns every known name, simplified as by `simplified`, and the id it stands for.

    A repository is also known by its name without the organisation.
    """
    found: dict[str, str] = {}
    named = list(_named())
    for id, names in named:
        for name in (id, *names):
            found.setdefault(simplified(name), id)
    for id, names in named:
        for name in names:
            found.setdefault(simplified(name.rpartition("/")[2]), id)
    return found


def simplified(name: str) -> str:
    """Returns a model's name as names are compared.

    Lower case, hyphens for underscores and spaces.
    """
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def models() -> dict[str, Model]:
    """Returns all catalogue models by id, quantised variants included."""
    return {id: _built(id) for id, _ in _named()}


def model(name: str, path: str = "model") -> Model:
    """Returns a model.

    Args:
        name: a catalogue id (``llama-3.1-70b``), a repository name
            (``meta-llama/Llama-3.1-70B-Instruct``), or the path of a config.json or of a folder
            that holds one. A catalogue name wins over a file of that name.
        path: where the name stands, for errors.

    Raises:
        SpecError: no such model; names the nearest ones.
        Unsupported: a config.json of an architecture that we have no builder for.
    """
    id = aliases().get(simplified(name))
    if id is not None:
        return _built(id)
    file = Path(name)
    if name.endswith(".json") or _has_config(file):
        return from_config(file)
    near = closest(simplified(name), aliases())
    raise SpecError(
        path,
        "is not in the catalogue and no config.json is there",
        value=name,
        limit="a catalogue id, a Hugging Face name in it, or the path of a config.json",
        hint=(near + " " if near else "") + "'fleetcast catalog models' lists all",
    )


def config(name: str, path: str = "model") -> Mapping[str, Any]:
    """Returns the config.json of a catalogue model, cut to shape and storage; names as `model` takes them.

    Raises:
        SpecError: no such model.
    """
    id = aliases().get(simplified(name))
    if id is None:
        model(name, path)
        raise SpecError(path, "is a file, not a catalogue name", value=name, limit="a catalogue id")
    for entry in entries().values():
        if entry.id == id:
            return entry.config
        for variant in entry.variants:
            if variant.id == id:
                return _patched(entry.config, variant.config)
    raise AssertionError(id)


def _has_config(path: Path) -> bool:
    try:
        return path.is_file() or (path / "config.json").is_file()
    except (OSError, ValueError):
        return False


def _named() -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in entries().values():
        yield entry.id, entry.aliases
        for variant in entry.variants:
            yield variant.id, variant.aliases


@cache
def _built(id: str) -> Model:
    table = config(id)
    for entry in entries().values():
        if entry.id == id:
            built = from_config(table, id, source=entry.source)
            return msgspec.structs.replace(built, name=entry.name)
        for variant in entry.variants:
            if variant.id == id:
                built = from_config(table, id, source=variant.source)
                return msgspec.structs.replace(built, name=f"{entry.name} ({built.dtype})")
    raise AssertionError(id)


def _patched(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``table`` with ``changes`` merged in, as in RFC 7396."""
    merged = dict(table)
    for key, change in changes.items():
        if change is None:
            merged.pop(key, None)
        elif isinstance(change, Mapping):
            inner = merged.get(key)
            merged[key] = _patched(inner if isinstance(inner, Mapping) else {}, change)
        else:
            merged[key] = change
    return merged
