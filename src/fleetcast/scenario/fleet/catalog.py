"""The catalogue: devices, links and clock curves by name, read from TOML when first asked for.

Names are forgiving in the ways that people differ: case, ``_`` and blanks for ``-``, word order,
the vendor's name in front, ``80gb`` for ``80g``, ``sxm5`` for ``sxm``. An unknown name is answered
with the nearest known one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.scenario.fleet.devices import ClockSweep, Device, Fitted
from fleetcast.scenario.fleet.links import Collectives, Link

_FOLDER = Path(__file__).with_name("catalog")
_VENDORS = frozenset({"nvidia", "tesla", "geforce", "amd", "intel", "google", "qualcomm", "apple", "gpu"})
_DEVICE_FILES = ("nvidia", "accelerators", "edge")

Row = TypeVar("Row", bound=Device | Link)


class _Devices(Spec):
    device: tuple[Device, ...]


class _Profile(Spec):
    """What `fleetcast measure` writes; ``measured`` says what it rests on."""

    device: Device
    coefficients: Fitted
    measured: dict[str, Any] = msgspec.field(default_factory=dict)


class _Links(Spec):
    link: tuple[Link, ...]


class _MeasuredLink(Spec):
    """What `fleetcast measure collectives` writes; ``measured`` says what it rests on."""

    link: Link
    collectives: Collectives
    measured: dict[str, Any] = msgspec.field(default_factory=dict)


class _Curves(Spec):
    curve: tuple[ClockSweep, ...]


@cache
def devices() -> Mapping[str, Device]:
    """Returns every device of the catalogue by id, in the catalogue's order."""
    rows = (row for file in _DEVICE_FILES for row in _device_rows(file))
    return MappingProxyType({row.id: row for row in rows})


def device(name: str, path: str = "device") -> Device:
    """Returns the device called ``name``: its id or an alias, in any usual spelling.

    Args:
        name: e.g. ``h100-sxm``, ``H100_SXM``, ``a100-80gb``, ``NVIDIA H100 80GB HBM3``.
        path: where the name stands, for the error.

    Raises:
        SpecError: no such device.
    """
    key = _key(name)
    for file in _DEVICE_FILES:
        found = _device_names(file).get(key)
        if found is not None:
            return found
    raise _unknown(name, path, "device", devices().values())


def profile(file: Path, path: str = "device") -> Device:
    """Returns the device of a file that `fleetcast measure` wrote.

    Args:
        file: the profile.
        path: where its name stands, for the error.

    Raises:
        SpecError: unreadable, or not a profile.
    """
    table = read_toml(read_text(file), str(file))
    if "device" not in table:
        raise SpecError(
            path, "names a file that is no device profile", value=str(file), limit="a profile has [device]",
            hint="Write one with: fleetcast measure --out profile.toml",
        )  # fmt: skip
    found = convert(table, _Profile, str(file))
    for name in found.coefficients.tables:
        if name not in found.coefficients.spread:
            raise SpecError(
                f"{file}.coefficients.spread", f"lacks '{name}', which has a table", limit="a spread per table",
                hint="Measure the machine again: fleetcast measure --out profile.toml",
            )  # fmt: skip
    return msgspec.structs.replace(found.device, fitted=found.coefficients)


@cache
def links() -> Mapping[str, Link]:
    """Returns every link of the catalogue by id, in the catalogue's order."""
    return MappingProxyType({row.id: row for row in _link_rows()})


def link(name: str, path: str = "link", base: Path | None = None) -> Link:
    """Returns the link called ``name``: its id or an alias, in any usual spelling; or a file, if it ends in ``.toml``.

    Args:
        name: the link, or a file that `fleetcast measure collectives` wrote.
        path: where the name stands, for errors.
        base: folder that files start from; default the working directory.

    Raises:
        SpecError: no such link, or the file is none.
    """
    if name.endswith(".toml"):
        return _measured_link((base or Path()) / name, path)
    found = _link_names().get(_key(name))
    if found is None:
        raise _unknown(name, path, "link", links().values())
    return found


def _measured_link(file: Path, path: str) -> Link:
    hint = "Write one with: fleetcast measure collectives --out links.toml"
    if not file.is_file():
        raise SpecError(path, "names a link's file that is not there", value=str(file), hint=hint)
    table = read_toml(read_text(file), str(file))
    if "link" not in table or "collectives" not in table:
        limit = "a file with [link] and [collectives]"
        raise SpecError(path, "names a file that is no link", value=str(file), limit=limit, hint=hint)
    found = convert(table, _MeasuredLink, str(file))
    for operation, by_ranks in found.collectives.curves.items():
        for ranks, times in by_ranks.items():
            if len(times) != len(found.collectives.size) or not ranks.isdigit() or min(times, default=0.0) <= 0:
                where = f"{file}.collectives.curves.{operation}.{ranks}"
                limit = f"{len(found.collectives.size)} times above 0, by a number of ranks"
                raise SpecError(where, "is no curve", value=list(times), limit=limit, hint=hint)
    return msgspec.structs.replace(found.link, fitted=found.collectives)


@cache
def curves() -> Mapping[str, ClockSweep]:
    """Returns every clock curve of the catalogue by id."""
    rows = convert(_table("clocks.toml"), _Curves, "clocks").curve
    return MappingProxyType({row.id: row for row in rows})


@cache
def _device_rows(file: str) -> tuple[Device, ...]:
    return convert(_table(f"devices/{file}.toml"), _Devices, file).device


@cache
def _link_rows() -> tuple[Link, ...]:
    return convert(_table("links.toml"), _Links, "links").link


def _table(name: str) -> dict[str, object]:
    return read_toml((_FOLDER / name).read_text(encoding="utf-8"), name)


@cache
def _device_names(file: str) -> Mapping[str, Device]:
    return _names(_device_rows(file))


@cache
def _link_names() -> Mapping[str, Link]:
    return _names(_link_rows())


def _names(rows: Sequence[Row]) -> Mapping[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        found |= dict.fromkeys(map(_key, (row.id, *row.aliases)), row)
    return found


@cache
def _key(name: str) -> str:
    """Spellings that mean the same share a key: their words without vendor, sorted."""
    words = re.split(r"[\s_\-/()]+", name.strip().lower())
    plain = (re.sub(r"^(\d+)gb$", r"\1g", re.sub(r"^sxm\d$", "sxm", word)) for word in words)
    return " ".join(sorted(word for word in plain if word and word not in _VENDORS))


def _unknown(name: str, path: str, what: str, rows: Iterable[Device | Link]) -> SpecError:
    names = [n for row in rows for n in (row.id, *row.aliases)]
    spelled = "-".join(re.split(r"[\s_]+", name.strip().lower()))
    near = closest(spelled, names)
    return SpecError(
        path, f"is not a {what} of the catalogue", value=name,
        limit=f"see them with: fleetcast catalog {what}s", hint=near,
    )  # fmt: skip
