"""Selectors and taints of Kubernetes: labels that must be, may not be, or are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetcast.base.errors import SpecError

__all__ = [
    "Requirement", "Selector", "Term", "read_requirements", "read_selector", "read_table", "read_term",
    "read_terms", "rows",
]  # fmt: skip

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a selector; ``field`` = of the object's name, not of a label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()
    field: bool = False

    def met(self, labels: Mapping[str, str], name: str = "") -> bool:
        """Returns whether labels (or the name) meet it."""
        found = name if self.field else labels.get(self.key)
        match self.operator:
            case "In":
                return found in self.values
            case "NotIn":
                return found not in self.values
            case "Exists":
                return found is not None
            case "DoesNotExist":
                return found is None
            case _:
                try:
                    have, bound = int(found or ""), int(self.values[0])
                except (ValueError, IndexError):
                    return False
                return have > bound if self.operator == "Gt" else have < bound


Selector = tuple[Requirement, ...]
"""All must be met; () is met by all, None by none."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a node's affinity: all its lines must be met; one without lines is met by no node."""

    lines: Selector
    weight: int = 0

    def met(self, labels: Mapping[str, str], name: str) -> bool:
        """Returns whether a node meets it."""
        return bool(self.lines) and all(line.met(labels, name) for line in self.lines)


def read_table(value: Any, path: str) -> Mapping[str, Any]:
    """Returns a table; {} for nothing.

    Raises:
        SpecError: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(path, "is no table", value=value, limit="a table")
    return value


def rows(value: Any, path: str) -> list[Any]:
    """Returns a list; [] for nothing.

    Raises:
        SpecError: it is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(path, "is no list", value=value, limit="a list")
    return value


def read_requirements(value: Any, path: str, *, field: bool = False) -> Selector:
    """Reads ``matchExpressions`` (or ``matchFields``)."""
    made = []
    for k, row in enumerate(rows(value, path)):
        here = f"{path}[{k}]"
        row = read_table(row, here)
        operator = row.get("operator")
        if operator not in _OPERATORS:
            raise SpecError(f"{here}.operator", "is unknown", value=operator, limit=f"one of {', '.join(_OPERATORS)}")
        values = tuple(str(v) for v in rows(row.get("values"), f"{here}.values"))
        made.append(Requirement(str(row.get("key", "")), operator, values, field))
    return tuple(made)


def read_selector(value: Any, path: str) -> Selector | None:
    """Reads a label selector; None stays None."""
    if value is None:
        return None
    value = read_table(value, path)
    labels = read_table(value.get("matchLabels"), f"{path}.matchLabels")
    lines = [Requirement(str(k), "In", (str(v),)) for k, v in sorted(labels.items())]
    return (*lines, *read_requirements(value.get("matchExpressions"), f"{path}.matchExpressions"))


def read_term(value: Any, path: str, weight: int = 0) -> Term:
    """Reads a node selector's term."""
    value = read_table(value, path)
    lines = read_requirements(value.get("matchExpressions"), f"{path}.matchExpressions")
    return Term((*lines, *read_requirements(value.get("matchFields"), f"{path}.matchFields", field=True)), weight)


def read_terms(value: Any, path: str) -> tuple[Term, ...] | None:
    """Reads a node selector: any of its terms must be met; None = all nodes."""
    if value is None:
        return None
    found = rows(read_table(value, path).get("nodeSelectorTerms"), f"{path}.nodeSelectorTerms")
    return tuple(read_term(row, f"{path}.nodeSelectorTerms[{k}]") for k, row in enumerate(found))
