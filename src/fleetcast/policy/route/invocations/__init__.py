"""Which node takes an invocation. The null is `Hash`.

A route policy is asked when a request arrives, and again when something has become free for one that waits. It sees
the nodes (`View`) and returns one that has room, or None: the request waits. It keeps no state of a run and reads no
clock but ``view.now``. The world checks that the node has room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ConsistentHash", "Fill", "Greenest", "Hash", "Policy", "Rendezvous", "View"]


@dataclass(frozen=True)
class View:
    """A request and the N nodes that it may go to.

    Attributes:
        now: s.
        function: number of its function.
        name: of its function.
        memory: B of a pod.
        home: region in which it arrives.
        region: i4[N], of each node.
        room: bool[N], whether a node has a warm pod for it, or memory for another once idle pods are ended.
        warm: i8[N], idle pods of the function that live.
        free: f8[N], B that no pod holds.
        size: f8[N], B in all.
        distance: f8[N], s that the request takes to the node and back, over one that stays at home.
        carbon: f8[N], g/kWh at the node now.
        power: f8[N], W that a node draws at most.
        idle: f8[N], s for which the pod that idles longest on a node has idled; 0 = none does.
        energy: f8[N], J that a node without a grid has left, from its panels and its battery; inf on a grid.
    """

    now: float
    function: int
    name: str
    memory: float
    home: int
    region: NDArray[np.int32]
    room: NDArray[np.bool_]
    warm: NDArray[np.int64]
    free: NDArray[np.float64]
    size: NDArray[np.float64]
    distance: NDArray[np.float64]
    carbon: NDArray[np.float64]
    power: NDArray[np.float64]
    idle: NDArray[np.float64]
    energy: NDArray[np.float64]


class Policy(Protocol):
    """Decides where a request runs."""

    kind: str

    def pick(self, view: View) -> int | None:
        """Returns the node that takes the request, or None: none has room."""
        ...


# the methods need the protocol above
from fleetcast.policy.route.invocations.consistent_hash import ConsistentHash  # noqa: E402
from fleetcast.policy.route.invocations.fill import Fill  # noqa: E402
from fleetcast.policy.route.invocations.greenest import Greenest  # noqa: E402
from fleetcast.policy.route.invocations.hash import Hash  # noqa: E402
from fleetcast.policy.route.invocations.rendezvous import Rendezvous  # noqa: E402
