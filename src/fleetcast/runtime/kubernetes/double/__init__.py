"""An API server of Kubernetes in one process, for tests, benchmarks and trials without a cluster.

It speaks what a scheduler and `kubectl get` need over HTTP: list, watch with bookmarks and 410, get, create, update,
patch, delete, bindings and evictions, leases and events, with optimistic concurrency and bearer tokens. A tiny
controller makes evicted pods of ReplicaSets anew, another keeps disruption budgets. It runs no containers.
"""

from fleetcast.runtime.kubernetes.double.rules import Rules
from fleetcast.runtime.kubernetes.double.server import Double
from fleetcast.runtime.kubernetes.double.store import ApiError, Store

__all__ = ["ApiError", "Double", "Rules", "Store"]
