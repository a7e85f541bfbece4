"""What checks of several kinds of workload have in common: resolving, the policies of a plan, prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from fleetcast.base.errors import FleetcastError, Infeasible
from fleetcast.scenario.fleet.tree import Group
from fleetcast.view.checks import Remark

State = TypeVar("State")


def checked(
    resolve: Callable[[], State], checks: Sequence[Callable[[State], Iterator[Remark]]], path: str
) -> list[Remark]:  # fmt: skip
    """Returns what every check finds, errors first; of a scenario that cannot be resolved, why.

    Args:
        resolve: looks a scenario's names up.
        checks: of what it returns.
        path: of what cannot be, where the error names none.
    """
    try:
        state = resolve()
        found = [remark for check in checks for remark in check(state)]
    except FleetcastError as error:
        where = path if isinstance(error, Infeasible) else getattr(error, "path", path)
        return [Remark("error", where, str(error))]
    return sorted(found, key=lambda remark: remark.level != "error")


def unknown(choices: Iterable[Any], make: Callable[[Any], Any], path: str) -> Iterator[Remark]:
    """Yields an error for every policy that cannot be made."""
    for choice in choices:
        try:
            make(choice)
        except FleetcastError as error:
            yield Remark("error", getattr(error, "path", path), str(error))


def unpriced(goals: Iterable[tuple[str, str, int]], groups: Iterable[Group]) -> Iterator[Remark]:
    """Yields an error where cost is minimised and a group has no price."""
    device = next((group.device.id for group in groups if group.price is None), None)
    if device is not None and any(name == "cost" for name, _, _ in goals):
        yield Remark(
            "error", "fleet.price", f"{device} has no rental price, and cost is minimised",
            f'Add price = {{ "{device}" = "1.00 $/h" }}',
        )  # fmt: skip
