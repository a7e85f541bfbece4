"""What is done against failures and slow machines: when to write checkpoints, how, whom to evict. The null is `Never`.

A recover policy sees what a checkpoint takes and how often the job fails (`View`) and returns how it goes on
(`Decision`). It keeps no state and reads no clock. The world asks at the start, after every restart, and when slow
machines have been found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Decision", "Fixed", "Never", "Policy", "TwoStage", "View", "YoungDaly"]

INF = float("inf")


@dataclass(frozen=True, kw_only=True)
class View:
    """A job and its chances.

    Attributes:
        iteration: s of one iteration without slow machines.
        direct: s that a checkpoint stops the job where all wait for the store.
        stall: s that it does where all wait for the hosts' memory alone.
        drain: s from then until the store has it.
        restart: s from a failure until work goes on.
        mtbf: s between failures of the job.
        remaining: s of work left.
        slower: by which share iterations are longer for the slow machines that were found; 0 = none.
        swap: s that it takes to replace them.
        slow: machines found slow.
        spares: machines that could take their place.
    """

    iteration: float
    direct: float
    stall: float
    drain: float
    restart: float
    mtbf: float
    remaining: float
    slower: float = 0.0
    swap: float = 0.0
    slow: int = 0
    spares: int = 0


@dataclass(frozen=True)
class Decision:
    """How the job goes on.

    Attributes:
        interval: s of work between checkpoints; infinite = only the last.
        staged: checkpoints go to the hosts' memory first, and on from there while work goes on.
        evict: slow machines are replaced at the next checkpoint.
    """

    interval: float
    staged: bool = False
    evict: bool = False


class Policy(Protocol):
    """Decides checkpoints and evictions."""

    kind: str

    def recover(self, view: View) -> Decision:
        """Returns how the job goes on."""
        ...


def worth_it(view: View) -> bool:
    """Returns whether replacing the slow machines gains more time than it takes, and there are machines for it."""
    return view.slow > 0 and view.spares >= view.slow and view.remaining * view.slower > view.swap


from fleetcast.policy.recover.fixed import Fixed  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.recover.none import Never  # noqa: E402
from fleetcast.policy.recover.two_stage import TwoStage  # noqa: E402
from fleetcast.policy.recover.young_daly import YoungDaly  # noqa: E402
