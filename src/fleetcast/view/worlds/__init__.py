"""Which world answers a verb, one file for each kind of workload."""

from fleetcast.view.worlds import serving, training

__all__ = ["serving", "training"]
