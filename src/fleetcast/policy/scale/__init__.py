"""How long a function's pods are kept warm, and when they are warmed before they are asked for. The null is `Fixed`.

A scale policy is asked of one function at a time, when one of its requests arrives: it sees the requests up to that one
(`View`) and returns how its pods go on (`Decision`). It keeps no state of a run and reads no clock, so that asking it
again gives the same answer; the world never shows it what comes later.

A decision may say for how many arrivals it holds (``stands``), so that functions with millions of them are asked some
dozen times. A world that asks at every arrival must find the same decisions: the contract checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Decision", "Fixed", "Histogram", "Policy", "Priced", "Timers", "View"]

NEVER = float("inf")
FOREVER = 2**62
"""``stands`` of a decision that no later arrival changes."""


@dataclass(frozen=True)
class View:
    """A function, and its requests so far.

    Attributes:
        name: of the function.
        trigger: what invokes it, such as "TIMER-A".
        asynchronous: nobody waits for its answers.
        memory: B of a pod.
        start: s that a cold start takes on average.
        gaps: f8[k], s between its k + 1 arrivals so far, oldest first.
        lags: f8[k + 1], s of each arrival since its caller's last one; infinite where it has no caller.
        calls: arrivals of its caller so far.
    """

    name: str
    trigger: str
    asynchronous: bool
    memory: float
    start: float
    gaps: NDArray[np.float64]
    lags: NDArray[np.float64]
    calls: int

    @property
    def seen(self) -> int:
        """Arrivals so far, the present one included."""
        return len(self.gaps) + 1


@dataclass(frozen=True)
class Decision:
    """How a function's pods go on from one of its arrivals until the next.

    Attributes:
        keep: s that the pod stays warm after the request has ended.
        begin: s after the arrival at which a pod shall be warm or begin to start; infinite = none. The next arrival
            takes it back.
        end: s after the arrival until which that pod stays.
        follow: s for which a pod is warmed whenever the function's caller is invoked; 0 = not at all.
        stands: arrivals for which this holds, at least 1.
    """

    keep: float
    begin: float = NEVER
    end: float = NEVER
    follow: float = 0.0
    stands: int = 1


class Policy(Protocol):
    """Decides what is kept warm."""

    kind: str

    def decide(self, view: View) -> Decision:
        """Returns how the pods of a function go on after an arrival."""
        ...


# the methods need the protocol above
from fleetcast.policy.scale.fixed import Fixed  # noqa: E402
from fleetcast.policy.scale.histogram import Histogram  # noqa: E402
from fleetcast.policy.scale.priced import Priced  # noqa: E402
from fleetcast.policy.scale.timers import Timers  # noqa: E402
