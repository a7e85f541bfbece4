"""Specs: tables of a file become frozen values, with errors that name the path.

`convert` turns a parsed TOML or JSON table into a `Spec`, parsing quantities ("2 s") on the way. `build` turns
``{kind = "chunked", chunk = 512}`` into the policy object of that name: the module namespace is the registry, the
constructor's signature is the schema.
"""

from __future__ import annotations

import importlib
import inspect
import operator
import re
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.units import Quantity, parse

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value read from a file. Keyword-only, frozen, unknown keys refused."""


def read_toml(text: str, path: str) -> dict[str, Any]:
    """Returns the table of a TOML text.

    Raises:
        SpecError: not TOML; names line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(path, f"is not TOML: {error}", hint="Check quotes and brackets there") from None
    except RecursionError:
        raise SpecError(path, "is nested too deeply", hint="Check its brackets") from None


def dump_toml(table: Mapping[str, Any]) -> str:
    """Returns TOML text of ``table``; None values are left out."""
    import tomli_w

    return tomli_w.dumps(_without_none(table))


def to_builtins(value: object) -> Any:
    """Returns a Spec as plain dicts, lists, numbers and text, defaults left out."""
    if isinstance(value, msgspec.Struct):
        defaults = _defaults(type(value))
        return {k: to_builtins(found) for k, d in defaults.items() if (found := getattr(value, k)) != d}
    if isinstance(value, Mapping):
        return {str(k): to_builtins(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_builtins(v) for v in value]
    return value


@cache
def _defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(struct):
        made = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        found[field.name] = made
    return found


def convert(data: object, type_: type[T], path: str = "") -> T:
    """Returns ``data`` as ``type_`` (a Spec), quantities parsed and ranges checked.

    Args:
        data: a table as tomllib or json returns it.
        type_: the Spec class.
        path: prefix of the error's path, e.g. ``fleet``.

    Raises:
        SpecError: unknown key (with the nearest known one), wrong type, wrong unit, out of range.
    """
    prepared = _prepare(data, type_, path)
    try:
        return msgspec.convert(prepared, type_)
    except msgspec.ValidationError as error:
        raise _explain(str(error), path, prepared) from None


def _prepare(data: object, hint: Any, path: str) -> Any:
    """Parses quantities and checks keys, walking type and data together."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        quantity = next((a for a in args[1:] if isinstance(a, Quantity)), None)
        if quantity is None:
            return _prepare(data, args[0], path)
        if (
            quantity.named
            and isinstance(data, str)
            and (data.endswith((".csv", ".csv.gz")) or not re.match(r"\s*[-+.\d]", data))
        ):
            return data
        number = parse(data, quantity.unit, path or "value")
        if not quantity.low <= number <= quantity.high:
            bound = f"{quantity.low:g} to {quantity.high:g} {quantity.unit}"
            if quantity.high == float("inf"):
                bound = f"at least {quantity.low:g} {quantity.unit}"
            raise SpecError(path, "is out of range", value=data, limit=bound)
        return number
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        kinds = [a for a in args if a is not types.NoneType]
        structs = [a for a in kinds if isinstance(a, type) and issubclass(a, msgspec.Struct)]
        if isinstance(data, dict) and structs:
            return _prepare(data, structs[0], path)
        if isinstance(data, list):
            kinds = [a for a in kinds if typing.get_origin(a) in (list, tuple)] or kinds
        quantities = [a for a in kinds if typing.get_origin(a) is typing.Annotated]
        if quantities and not isinstance(data, list | dict) and str not in kinds:
            return _prepare(data, quantities[0], path)
        return _prepare(data, kinds[0], path) if len(kinds) == 1 or isinstance(data, list) else data
    if origin in (tuple, list) and isinstance(data, list | tuple):
        inner = args[0] if args else Any
        return [_prepare(item, inner, f"{path}[{i}]") for i, item in enumerate(data)]
    if origin is dict and isinstance(data, dict):
        return {k: _prepare(v, args[1], f"{path}.{k}".lstrip(".")) for k, v in data.items()}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(data, dict):
        known = _hints(hint)
        _refuse_unknown(data, known, path)
        return {k: _prepare(v, known[k], f"{path}.{k}".lstrip(".")) for k, v in data.items()}
    return data


def _refuse_unknown(data: Mapping[str, Any], known: Collection[str], path: str) -> None:
    for key in data:
        if key not in known:
            near = closest(str(key), known)
            raise SpecError(
                f"{path}.{key}".lstrip("."), "is not a key here",
                limit=f"known keys: {', '.join(known)}" if known else "it takes none", hint=near,
            )  # fmt: skip


@cache
def _hints(struct: type) -> dict[str, Any]:
    hints = typing.get_type_hints(struct, include_extras=True)
    names = {f.name: f.encode_name for f in msgspec.structs.fields(struct)}
    return {names[name]: hint for name, hint in hints.items() if name in names}


_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing", "date": "a date", "datetime": "a date", "time": "a time of day",
}  # fmt: skip
_BOUNDS = {">": "above", ">=": "at least", "<": "below", "<=": "at most"}
_BOUND = r"Expected `\w+` ([<>]=?) (.+)"
_WITHIN = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _explain(message: str, path: str, data: object) -> SpecError:
    """Says what msgspec says of ``data`` as our errors do: with the value, the limit and the next step."""
    where = re.search(r" - at `\$?(.*?)`$", message)
    steps = where[1] if where else ""
    text = message[: where.start()] if where else message
    if steps.endswith("[...]") and (bound := re.fullmatch(_BOUND, text)):
        steps = _entry(data, steps.removesuffix("[...]"), bound[1], float(bound[2])) or steps
    place = (path + steps).lstrip(".") or "file"
    value = _value_at(data, steps)
    if found := re.fullmatch(r"Expected `(.+?)`, got `(.+?)`", text):
        wanted = " or ".join(_WORDS.get(k, k) for k in found[1].split(" | ") if k != "null")
        return SpecError(place, f"is {_WORDS.get(found[2], found[2])}", value=value, limit=f"write {wanted}")
    if found := re.fullmatch(_BOUND, text):
        return SpecError(place, "is out of range", value=value, limit=f"{_BOUNDS[found[1]]} {float(found[2]):,g}")
    if found := re.fullmatch(r"Object missing required field `(.+)`", text):
        return SpecError(f"{place}.{found[1]}", "is missing", hint=f"Add {found[1]} to the table")
    return SpecError(place, text[0].lower() + text[1:], value=value, hint="Correct the value or leave it out")


def _entry(data: object, steps: str, sign: str, limit: float) -> str | None:
    """The path of the first number in the table at ``steps`` that is out of bounds: msgspec does not say which."""
    table = _value_at(data, steps)
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, int | float) and not _WITHIN[sign](value, limit):
            return f"{steps}.{key}"
    return None


def _value_at(data: Any, steps: str) -> object:
    """The value at the end of a path such as ``.arrivals.cv`` or ``.groups[0]``; None where it leads nowhere."""
    for key, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", steps):
        try:
            data = data[int(index)] if index else data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def build(
    namespace: ModuleType, table: object, path: str = "", beside: Collection[str] = (), methods: Collection[str] = ()
) -> Any:  # fmt: skip
    """Returns the policy that ``table`` describes.

    Args:
        namespace: the family's module, e.g. ``policy.batch``; its ``__all__`` maps kinds to classes by their
            ``kind`` attribute.
        table: ``{"kind": ..., **parameters}``, the kind alone as text, or an object (returned as it is).
        path: prefix for errors, e.g. ``plan.batch``.
        beside: keys that the table may hold and others read, for the error that lists what is known.
        methods: that the policy must have, whoever made it.

    Raises:
        SpecError: unknown kind or parameter (with the nearest known), wrong type or range, or a method is missing.
    """
    made = _made(namespace, table, path, beside)
    lacking = next((name for name in methods if not callable(getattr(made, name, None))), None)
    if lacking is not None:
        family = namespace.__name__.removeprefix("fleetcast.policy.").replace(".", " ")
        raise SpecError(
            f"{path}.kind", f"is no {family} policy: it has no method {lacking}", value=type(made).__name__,
            hint=f"See {namespace.__name__} for the protocol",
        )  # fmt: skip
    return made


def _made(namespace: ModuleType, table: object, path: str, beside: Collection[str]) -> Any:
    if isinstance(table, str):
        table = {"kind": table}
    if not isinstance(table, Mapping):
        return table
    parameters = dict(table)
    kind = parameters.pop("kind", None)
    if not isinstance(kind, str):
        raise SpecError(f"{path}.kind", "is missing", value=table, limit=f"one of {', '.join(kinds(namespace))}")
    class_ = _find(namespace, kind, path)
    schema = _schema(class_)
    _refuse_unknown(parameters, (*schema.__struct_fields__, *beside), path)
    converted = convert(parameters, schema, path)
    try:
        return class_(**{f: getattr(converted, f) for f in converted.__struct_fields__})
    except ValueError as error:
        raise SpecError(path, str(error), value=dict(table), hint="Correct a parameter or leave it out") from None


def kinds(namespace: ModuleType) -> dict[str, type]:
    """Returns the methods of a policy family: kind -> class, in the order of ``__all__``."""
    found = (getattr(namespace, name) for name in namespace.__all__)
    return {k: c for c in found if isinstance(c, type) and isinstance(k := getattr(c, "kind", None), str)}


def named(family: ModuleType, table: Mapping[str, Any], *, shown: Collection[str] = ()) -> str:
    """Returns a policy in a few words: its kind and the settings that are not its usual ones.

    Args:
        family: the package whose class names are the kinds.
        table: of the policy, with its ``kind``.
        shown: settings that are said though they are usual.
    """
    kind = str(table["kind"])
    made = kinds(family).get(kind)
    usual = {} if made is None else {name: p.default for name, p in inspect.signature(made).parameters.items()}
    said = [kind]
    for key, value in table.items():
        same = usual.get(key, ...) in (value, tuple(value) if isinstance(value, list) else value)
        if key == "kind" or (same and key not in shown):
            continue
        if isinstance(value, bool):
            said.append(key if value else f"no {key}")
        else:
            said.append(f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}")
    return " ".join(said)


def describe(policy: object) -> dict[str, Any]:
    """Returns the table that `build` would turn into this policy: kind and every parameter.

    A policy of ours is named by its kind, any other by ``module:Class``.
    """
    class_ = type(policy)
    ours = class_.__module__.startswith("fleetcast.policy.")
    kind = getattr(class_, "kind", None) if ours else None
    name = kind if isinstance(kind, str) else f"{class_.__module__}:{class_.__qualname__}"
    parameters = list(inspect.signature(class_).parameters)
    return {"kind": name} | {p: getattr(policy, p) for p in parameters if getattr(policy, p, None) is not None}


def _find(namespace: ModuleType, kind: str, path: str) -> type:
    known = kinds(namespace)
    if kind in known:
        return known[kind]
    if ":" in kind:
        module, _, name = kind.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            hint = "Install its package, or name it module:Class"
            raise SpecError(f"{path}.kind", f"cannot be imported: {error}", value=kind, hint=hint) from None
        if not isinstance(found, type):
            raise SpecError(f"{path}.kind", "is not a class", value=kind, limit="'module:Class'")
        return found
    raise SpecError(
        f"{path}.kind", "is unknown", value=kind,
        limit=f"one of {', '.join(known)}, or 'module:Class'", hint=closest(kind, known),
    )  # fmt: skip


@cache
def _schema(class_: type) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(class_.__init__, include_extras=True)  # type: ignore[misc]
    fields: list[Any] = []
    for name, p in inspect.signature(class_).parameters.items():
        field = (name, hints.get(name, Any))
        fields.append(field if p.default is p.empty else (*field, p.default))
    return msgspec.defstruct(class_.__name__, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
