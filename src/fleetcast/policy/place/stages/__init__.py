"""On which group of the fleet each stage of a pipeline lies, and how many layers it holds. The null policy is `Blind`.

Groups differ in devices or in the links between their nodes (InfiniBand here, RoCE there), and are joined by a link
that is slower than both. The ranks of a stage never leave a group, so that tensor- and data-parallel messages stay on
one kind of link; what crosses groups is what stages hand on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Blind", "NicAware", "Placement", "Policy", "View"]


@dataclass(frozen=True)
class View:
    """What is placed.

    Attributes:
        stages: of each group, in the order of the fleet, how many stages it holds.
        seconds: of each group, s that a layer takes there for one micro-batch, forward and backward.
        layers: of the model.
        first: s that the first stage takes besides its layers, on each group; ``last`` the same of the last stage.
        last: see ``first``.
        most: of each group, for each place in the pipeline, layers that the memory of its devices holds there; () = any
            number. Early stages have more micro-batches in flight, so that they hold fewer.
        after: of each group, s that a layer takes after the pipeline, once: gradients, optimizer; () = none.
        micro_batches: that follow each other; unless said so many that the longest stage alone counts.
    """

    stages: tuple[int, ...]
    seconds: tuple[float, ...]
    layers: int
    first: tuple[float, ...]
    last: tuple[float, ...]
    most: tuple[tuple[int, ...], ...] = ()
    after: tuple[float, ...] = ()
    micro_batches: int = 1_000_000


@dataclass(frozen=True)
class Placement:
    """A decision.

    Attributes:
        groups: of each stage, the index of its group.
        layers: of each stage, how many.
        own_links: whether the ranks of a stage use their group's own network, or all ranks the one that joins groups.
    """

    groups: tuple[int, ...]
    layers: tuple[int, ...]
    own_links: bool


class Policy(Protocol):
    """Places the stages of a pipeline."""

    kind: str

    def place(self, view: View) -> Placement:
        """Returns where each stage lies; its world checks the counts."""
        ...


from fleetcast.policy.place.stages.blind import Blind  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.place.stages.nic_aware import NicAware  # noqa: E402
