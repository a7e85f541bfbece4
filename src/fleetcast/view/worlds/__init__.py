"""Which world answers a verb, one file for each kind of workload."""

from fleetcast.view.worlds import multitask, serving, training

__all__ = ["multitask", "serving", "training"]
