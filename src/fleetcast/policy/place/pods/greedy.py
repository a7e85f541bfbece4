"""What greedy policies share: the order of the queue, gangs as one, and a decision that grows pod by pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fleetcast.policy.place.pods import Placement, Pod, View
from fleetcast.policy.place.pods.check import reasons
from fleetcast.policy.place.pods.ledger import Ledger
from fleetcast.policy.place.pods.match import company

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Choose = Callable[[Ledger, Pod, "NDArray[np.bool_]"], tuple[int, tuple[int, ...] | None]]
"""Which node of those True in the mask (at least one is) a pod gets, and which devices; None: the ledger says."""


def queue(pods: Iterable[Pod]) -> list[Pod]:
    """Returns pods in the order in which they are asked: priority, arrival, place in line."""
    return sorted(pods, key=lambda pod: (-pod.priority, pod.arrival))


def units(pods: Iterable[Pod]) -> list[list[Pod]]:
    """Returns what is placed or not placed as a whole, in order: a pod alone, a gang at its first pod's place."""
    gangs: dict[str, list[Pod]] = {}
    found: list[list[Pod]] = []
    for pod in pods:
        if not pod.group:
            found.append([pod])
        elif pod.group in gangs:
            gangs[pod.group].append(pod)
        else:
            gangs[pod.group] = [pod]
            found.append(gangs[pod.group])
    return found


def lay(ledger: Ledger, unit: Sequence[Pod], choose: Choose) -> bool:
    """Lays a pod, or a gang, on nodes that ``choose`` says; returns False and changes nothing if one does not fit."""
    done: list[str] = []
    for pod in unit:
        mask = ledger.fits(pod)
        if not mask.any():
            for name in reversed(done):
                ledger.remove(name)
            return False
        node, devices = choose(ledger, pod, mask)
        ledger.place(pod, node, devices)
        done.append(pod.name)
    return True


class Turned:
    """Remembers what did not fit, so that its like is not tried again until something leaves."""

    def __init__(self) -> None:
        self.known: set[object] = set()

    def key(self, ledger: Ledger, unit: Sequence[Pod]) -> object:
        """What makes two pods alike, None = not to be remembered."""
        pod = unit[0]
        if len(unit) > 1 or company(pod):
            return None
        need = ledger.need(pod)
        return (
            need.amount.tobytes(), need.share, need.absent, pod.priority, pod.preempts, id(ledger.allowed(pod)),
            tuple(pod.labels.items()) if not ledger.plain else (),
        )  # fmt: skip


def decide(view: View, ledger: Ledger, *, proof: str = "", why: bool = True) -> Placement:
    """Returns the decision that makes of a view what a ledger says.

    Args:
        view: before.
        ledger: after; pods that lie nowhere wait or are evicted.
        proof: of the decision.
        why: whether to say why pods wait.
    """
    names = [node.name for node in view.nodes]
    bound, left = {}, []
    for pod in view.waiting:
        laid = ledger.laid.get(pod.name)
        if laid is None:
            left.append(pod)
        else:
            bound[pod.name] = names[laid.node]
    moved, evicted = {}, []
    # the view's ledger may have been touched before; only pods that run count
    for name in ledger.touched:
        was = view.ledger.laid.get(name)
        if was is None or name in bound:
            continue
        laid = ledger.laid.get(name)
        if laid is None:
            evicted.append(name)
        elif laid.node != was.node:
            moved[name] = names[laid.node]
    gpus = {}
    for name in (*bound, *moved):
        laid = ledger.laid[name]
        if laid.pod.gpu_share and laid.devices:
            gpus[name] = laid.devices[0]
    return Placement(bound, moved, tuple(evicted), gpus, reasons(ledger, left) if why and left else {}, proof)
