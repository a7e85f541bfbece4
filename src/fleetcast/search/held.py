"""What pools were found to hold, as values: under one set of limits, and under each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.serving.provision import Taken


@dataclass(frozen=True)
class Held:
    """The largest load that some pools hold.

    Attributes:
        factor: times the scenario's own load.
        rate: requests a second.
        missed: the least load above that was tried, as a factor; None = every load is held.
        outcome: under it.
        taken: power and price.
    """

    factor: float
    rate: float
    missed: float | None
    outcome: Outcome
    taken: Taken

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "factor": self.factor, "rate": self.rate, "missed": self.missed, "power": self.taken.power,
            "price": self.taken.price, "plan": self.outcome.plan,
        }  # fmt: skip


@dataclass(frozen=True)
class Equal:
    """What holds most where some things are equal.

    Attributes:
        equal: "power", "cost" or both.
        nulls: by kind, what it holds alone with its phases together; None = no load that was tried.
        together: of pools that all take both phases, on one kind or several, the best.
        best: of everything; None = nothing holds any load.
        counts: shapes, enumerated sizes within the limits, full (no room for more), tried, bounded (of these tries:
            settled without simulating).
    """

    equal: tuple[str, ...]
    nulls: dict[str, Held | None]
    together: Held | None
    best: Held | None
    counts: dict[str, int]

    @property
    def null(self) -> Held | None:
        """The kind that holds most alone."""
        return max((h for h in self.nulls.values() if h is not None), key=lambda h: h.factor, default=None)

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "equal": list(self.equal), "best": self.best.table() if self.best is not None else None,
            "together": self.together.table() if self.together is not None else None,
            "nulls": {kind: held.table() if held is not None else None for kind, held in self.nulls.items()},
            "counts": dict(self.counts),
        }  # fmt: skip


@dataclass(frozen=True)
class Sizing:
    """The answers, one per set of limits.

    Attributes:
        rows: power, cost, both, as far as the fleet says how much.
        space: in sentences.
        notes: what makes an answer doubtful.
    """

    rows: tuple[Equal, ...]
    space: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON."""
        return {
            "equal": [row.table() for row in self.rows], "space": list(self.space), "notes": list(self.notes),
        }  # fmt: skip
