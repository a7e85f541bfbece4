"""The null table: each device adds the factor of its kind, wherever it lies and whatever runs."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.cost.jobs import Lying


class Linear:
    """Perfect scaling.

    Args:
        kinds: names.
        factors: of each kind, work a second on one device; () = 1 each.
        models: names of what runs; all alike.
    """

    source = "perfect scaling"

    def __init__(self, kinds: Sequence[str], factors: Sequence[float] = (), models: Sequence[str] = ("",)) -> None:
        self.kinds = tuple(kinds)
        self.factors = tuple(factors) or (1.0,) * len(self.kinds)
        self.models = tuple(models)

    def rate(self, model: int, lying: tuple[Lying, ...], phase: int = 0) -> float:
        """Returns the sum of the devices' factors."""
        return sum(self.factors[part.kind] * part.devices for part in lying)

    def phases(self, model: int) -> tuple[float, ...]:
        """Returns one phase."""
        return (0.0,)

    def whole(self, model: int) -> float:
        """Returns 0: how much work a job is is its trace's affair."""
        return 0.0
