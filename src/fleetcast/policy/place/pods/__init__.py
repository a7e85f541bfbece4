"""On which node each waiting pod goes, and who moves or leaves for it. The null policy is `KubeDefault`.

One protocol for the simulated cluster and for a real Kubernetes: whoever runs it shows nodes, pods that run and pods
that wait (`View`), checks the `Placement` and carries it out.

    place(view)          -> bindings, moves and evictions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fleetcast.policy.place.pods.ledger import Ledger

__all__ = [
    "GPU", "BestFit", "CpSat", "CpSatNaive", "Fgd", "KubeDefault", "Node", "Placement", "Pod", "Policy", "Restarts",
    "Rule", "Taint", "Toleration", "View",
]  # fmt: skip

GPU = "nvidia.com/gpu"
"""The resource of which a pod may take a share."""


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps pods off a node: ``effect`` is "NoSchedule", "PreferNoSchedule" or "NoExecute"."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Toleration:
    """What lets a pod onto a tainted node; "" matches any. ``operator`` is "Equal" or "Exists"."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a pod may or would rather lie: a label of a node (or of pods there) and its values.

    Attributes:
        key: of the label.
        operator: "In", "NotIn", "Exists", "DoesNotExist", "Gt" or "Lt".
        values: to compare with.
        weight: 0 = must hold; above = is preferred.
        pods: the labels are those of pods in one topology domain, not of nodes; with ``anti`` they must not be there.
        anti: see ``pods``.
        topology: of ``pods``: the node label that says what is one domain.
        also: further conditions that the same node, or the same pod, must meet (only key, operator and values count).
        either: other rules, one of which is enough instead of this one.
    """

    key: str
    operator: str = "In"
    values: tuple[str, ...] = ()
    weight: int = 0
    pods: bool = False
    anti: bool = False
    topology: str = "kubernetes.io/hostname"
    also: tuple[Rule, ...] = ()
    either: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: what it needs and where it may lie.

    Attributes:
        name: unique, "namespace/name" in a cluster.
        requests: by resource: cpu in cores, memory in bytes, whole devices, as "nvidia.com/gpu". What a node
            does not name, it has none of.
        priority: higher goes first; lower ones may be evicted for it.
        node: where it runs, "" = it waits.
        labels: its own.
        selector: labels that its node must have.
        rules: affinities, required and preferred.
        tolerations: taints that it bears.
        gpu_share: share of one ``GPU`` that it needs, above 0 and below 1; 0 = whole devices, as in ``requests``.
        gpus: the devices of its node that it has or shares; () = it waits, or has none.
        group: pods of one gang are placed together or not at all, and leave together; "" = alone.
        movable: whether it may be evicted or moved (a disruption budget, a preemption policy).
        preempts: whether others may leave for it.
        arrival: s, the order in which equals are asked.
    """

    name: str
    requests: Mapping[str, float]
    priority: int = 0
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    gpu_share: float = 0.0
    gpus: tuple[int, ...] = ()
    group: str = ""
    movable: bool = True
    preempts: bool = True
    arrival: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node: what it has, its labels and taints; ``ready`` = takes new pods."""

    name: str
    capacity: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class View:
    """A cluster at one moment.

    Attributes:
        nodes: all of them.
        running: pods that have a node.
        waiting: pods that have none, in the order of their arrival.
        budgets: name of a disruption budget -> (labels it is for, how many of those may leave or move now).
        kept: what is free, where whoever asks keeps count of it; left out it is counted. Policies read it.
    """

    nodes: tuple[Node, ...]
    running: tuple[Pod, ...]
    waiting: tuple[Pod, ...]
    budgets: Mapping[str, tuple[Mapping[str, str], int]] = field(default_factory=dict)
    kept: Ledger | None = None

    @cached_property
    def ledger(self) -> Ledger:
        """What is free on which node; a policy that writes on it takes a copy."""
        from fleetcast.policy.place.pods.ledger import Ledger

        return self.kept if self.kept is not None else Ledger.of(self)


@dataclass(frozen=True)
class Placement:
    """A decision.

    Attributes:
        bound: waiting pod -> node.
        moved: running pod -> its new node (evicted there, started here).
        evicted: running pods that leave and wait.
        gpus: pod -> the device of its new node that it shares; left out, the fullest one with room.
        reasons: waiting pod -> why it has no node, in a sentence: the resource and the shortage.
        proof: what is proven: "" nothing, "optimal", or a bound in words.
    """

    bound: Mapping[str, str]
    moved: Mapping[str, str] = field(default_factory=dict)
    evicted: tuple[str, ...] = ()
    gpus: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    proof: str = ""


class Policy(Protocol):
    """Places pods."""

    kind: str

    def place(self, view: View) -> Placement:
        """Returns who goes where; whoever asked checks it."""
        ...


from fleetcast.policy.place.pods.best_fit import BestFit  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.place.pods.cp_sat import CpSat  # noqa: E402
from fleetcast.policy.place.pods.cp_sat_naive import CpSatNaive  # noqa: E402
from fleetcast.policy.place.pods.fgd import Fgd  # noqa: E402
from fleetcast.policy.place.pods.kube_default import KubeDefault  # noqa: E402
from fleetcast.policy.place.pods.restarts import Restarts  # noqa: E402
