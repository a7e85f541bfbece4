"""Pods and nodes as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pods:
    """Pods, columns of length n, in order of arrival.

    Attributes:
        names: unique.
        cpu: f8[n], cores.
        memory: f8[n], bytes.
        devices: i4[n], whole devices; 0 where it shares one.
        share: f8[n], share of one device, 0 = whole ones.
        priority: i4[n], higher goes first.
        arrival: f8[n], s.
        departure: f8[n], s, inf = it stays.
        models: of each, names of the devices that it takes; () = any.
        labels: of each; () = none has any. Values are text.
        selector: of each, labels that its node must have; () = none has any.
        tolerations: of each, keys of taints that it bears; () = none has any.
        group: of each, the gang that it is of, "" = none; () = none is.
        apart: of each, the node label of which no two pods with its label "app" may share a value, "" = none;
            () = none has any.
        source: where they are from.
    """

    names: tuple[str, ...]
    cpu: NDArray[np.float64]
    memory: NDArray[np.float64]
    devices: NDArray[np.int32]
    share: NDArray[np.float64]
    priority: NDArray[np.int32]
    arrival: NDArray[np.float64]
    departure: NDArray[np.float64]
    models: tuple[tuple[str, ...], ...] = ()
    labels: tuple[dict[str, str], ...] = ()
    selector: tuple[dict[str, str], ...] = ()
    tolerations: tuple[tuple[str, ...], ...] = ()
    group: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        """Number of pods."""
        return len(self.names)


@dataclass(frozen=True)
class Nodes:
    """Nodes, columns of length n.

    Attributes:
        names: unique.
        cpu: f8[n], cores.
        memory: f8[n], bytes.
        devices: i4[n].
        models: of each, the name of its devices, "" = it has none.
        labels: of each; () = none has any.
        taints: of each, keys; () = none has any.
        down: (s from, s until) of each, when it is not there; () = always there.
        source: where they are from.
    """

    names: tuple[str, ...]
    cpu: NDArray[np.float64]
    memory: NDArray[np.float64]
    devices: NDArray[np.int32]
    models: tuple[str, ...]
    labels: tuple[dict[str, str], ...] = ()
    taints: tuple[tuple[str, ...], ...] = ()
    down: tuple[tuple[float, float], ...] = ()
    source: str = ""

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.names)
