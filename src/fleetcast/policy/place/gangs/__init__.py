"""On which nodes the devices of one job lie. The null policy is `Spread`.

All devices of a gang are placed or none. Job and node are equal in kind: a world asks once for each kind of device.

    place(view, devices)  -> devices by node, or None: no room
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BestFit", "Policy", "Spread", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """The nodes of one kind.

    Attributes:
        free: of each node, devices that nobody has; 0 where it is down.
        size: devices of a node.
        near: of each node, the number of its rack or switch; () = all alike.
    """

    free: Sequence[int]
    size: int
    near: Sequence[int] = ()


class Policy(Protocol):
    """Chooses nodes."""

    kind: str

    def place(self, view: View, devices: int) -> Mapping[int, int] | None:
        """Returns how many devices on which node, or None where there is no room; its world checks."""
        ...


from fleetcast.policy.place.gangs.best_fit import BestFit  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.place.gangs.spread import Spread  # noqa: E402
