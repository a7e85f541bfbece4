"""How fast the servers of a row may clock while its power is near the breaker. The null policy is `Uncapped`.

A power policy sees the row's last power reading and the caps in force (`View`) and returns the caps it wants
(`Decision`), for servers of low and of high priority. It keeps no state and reads no clock: what it did last stands in
the view. The band of a decision says between which readings it would be the same, so that nobody need ask again. What
telemetry, capping and the breaker's brake take is the world's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta

__all__ = ["CapAll", "Decision", "OneThreshold", "Polca", "Policy", "Step", "Uncapped", "View"]

Share = Annotated[float, Meta(gt=0, le=1)]
Band = Annotated[float, Meta(ge=0, lt=1)]
INF = float("inf")


@dataclass(frozen=True)
class View:
    """A reading, and what was last commanded.

    Attributes:
        power: of the row, as a share of its budget; may exceed 1.
        low: cap of the low-priority servers' clock, as a share of the top clock.
        high: that of the high-priority servers.
    """

    power: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """The caps from now on, as shares of the top clock.

    Attributes:
        low: for low-priority servers.
        high: for high-priority servers.
        below: the decision is the same for readings from here ...
        above: ... to here; by default for none, so that the policy is asked at every reading.
    """

    low: float
    high: float
    below: float = INF
    above: float = -INF


class Policy(Protocol):
    """Decides the caps."""

    kind: str

    def cap(self, view: View) -> Decision:
        """Returns the caps that the row should have after this reading."""
        ...


class Step(NamedTuple):
    """One step of a staircase: taken when power is above ``above``, left when it is under ``below``."""

    above: float
    below: float
    low: float
    high: float


def climb(steps: Sequence[Step], view: View) -> Decision:
    """Returns the decision of a staircase with hysteresis, the one walk that all built-in policies share.

    The step it stands on is the last whose caps are those in the view. It goes to the highest step that power is
    above, or that it stands on (or above) and has not fallen under.

    Args:
        steps: lowest first, ``above`` and ``below`` both growing, no two with equal caps.
        view: reading and caps.
    """
    stands = max((i for i, s in enumerate(steps, 1) if (s.low, s.high) == (view.low, view.high)), default=0)
    level = max(
        (i for i, s in enumerate(steps, 1) if view.power > s.above or (i <= stands and view.power >= s.below)),
        default=0,
    )
    above = steps[level].above if level < len(steps) else INF
    if level == 0:
        return Decision(1.0, 1.0, -INF, above)
    step = steps[level - 1]
    return Decision(step.low, step.high, step.below, above)


from fleetcast.policy.power.cap_all import CapAll  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.power.one_threshold import OneThreshold  # noqa: E402
from fleetcast.policy.power.polca import Polca  # noqa: E402
from fleetcast.policy.power.uncapped import Uncapped  # noqa: E402
