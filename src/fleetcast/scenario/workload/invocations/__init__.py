"""Invocations of functions over time: columns, readers of published traces, and a generator."""

from fleetcast.scenario.workload.invocations.trace import COMPONENTS, Invocations, assemble

__all__ = ["COMPONENTS", "Invocations", "assemble"]
