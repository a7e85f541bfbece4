"""How much of the fleet each job gets. The null policy is `Fifo`.

A world asks at every arrival and every end, at every round where there are rounds, and when nodes come or go. A policy
answers by granting on a `Board`: the world checks each grant and places it at once, so that a gang that finds no room
is answered False, and the policy stops there (no job overtakes another) or goes on (backfill). What a job held and is
not granted anew is taken from it: it waits, and its work so far stays done, less what the restart costs.

    share(board)         grants devices to the jobs that are there, from nothing

A policy keeps no clock but ``board.now`` and draws no random numbers but from a generator it is given. Solvers get
deterministic budgets.
"""

from __future__ import annotations

from typing import Protocol

from fleetcast.policy.share.board import Board, DeviceKind, Job
from fleetcast.policy.share.rule import Rule

__all__ = [
    "Board", "DeviceKind", "Dl2", "Drf", "Easy", "EasyScale", "Edf", "Fifo", "Green", "Job", "Las", "MaxMin", "Optimus",
    "Policy", "Pollux", "Rule", "Sia", "Srtf",
]  # fmt: skip


class Policy(Protocol):
    """Deals the fleet out to jobs."""

    kind: str

    def share(self, board: Board) -> None:
        """Grants devices on the board."""
        ...


from fleetcast.policy.share.dl2 import Dl2  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.share.drf import Drf  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.share.easy import Easy  # noqa: E402
from fleetcast.policy.share.easyscale import EasyScale  # noqa: E402
from fleetcast.policy.share.edf import Edf  # noqa: E402
from fleetcast.policy.share.fifo import Fifo  # noqa: E402
from fleetcast.policy.share.green import Green  # noqa: E402
from fleetcast.policy.share.las import Las  # noqa: E402
from fleetcast.policy.share.max_min import MaxMin  # noqa: E402
from fleetcast.policy.share.optimus import Optimus  # noqa: E402
from fleetcast.policy.share.pollux import Pollux  # noqa: E402
from fleetcast.policy.share.sia import Sia  # noqa: E402
from fleetcast.policy.share.srtf import Srtf  # noqa: E402
