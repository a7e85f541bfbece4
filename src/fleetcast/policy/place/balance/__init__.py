"""Which running tasks leave their node for another, so that no node has more to do than it can. The null is `Stay`.

A node is *stable* while its tasks use no more of any resource than it has; a move costs what it sends (Sliwko and
Getov's stable utilisation and migration cost). A policy looks at one reading of what is used and answers with moves; it
keeps nothing between readings. A move may never overload the node that it goes to: the world refuses it.

`Agents` decide node by node from what neighbours answer; the others see the whole cluster at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Agents", "Annealing", "Genetic", "Greedy", "Moves", "Policy", "Stay", "Tabu", "View"]


def none() -> NDArray[np.int64]:
    """Returns no numbers."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class View:
    """A cluster at one reading; n nodes, t tasks, r resources.

    Attributes:
        capacity: f8[n, r].
        use: f8[t, r], what each task uses now.
        node: i8[t], where each lies.
        cost: f8[t], of moving it (B).
        seed: of this reading; equal views, equal moves.
    """

    capacity: NDArray[np.float64]
    use: NDArray[np.float64]
    node: NDArray[np.int64]
    cost: NDArray[np.float64]
    seed: int = 0

    def load(self) -> NDArray[np.float64]:
        """Returns f8[n, r], what is used of each node."""
        n = len(self.capacity)
        return np.stack([np.bincount(self.node, column, minlength=n) for column in self.use.T], axis=1)


@dataclass(frozen=True)
class Moves:
    """A decision: ``task[i]`` goes to ``node[i]``, in this order.

    Attributes:
        task: i8[m]; each at most once.
        node: i8[m].
        asked: nodes that decided for themselves; 0 where one decided for all.
        messages: that they sent each other.
    """

    task: NDArray[np.int64] = field(default_factory=none)
    node: NDArray[np.int64] = field(default_factory=none)
    asked: int = 0
    messages: int = 0


class Policy(Protocol):
    """Chooses moves."""

    kind: str

    def balance(self, view: View) -> Moves:
        """Returns the moves of this reading; its world checks them."""
        ...


from fleetcast.policy.place.balance.agents import Agents  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.place.balance.annealing import Annealing  # noqa: E402
from fleetcast.policy.place.balance.genetic import Genetic  # noqa: E402
from fleetcast.policy.place.balance.greedy import Greedy  # noqa: E402
from fleetcast.policy.place.balance.stay import Stay  # noqa: E402
from fleetcast.policy.place.balance.tabu import Tabu  # noqa: E402
