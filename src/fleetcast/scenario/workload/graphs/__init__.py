"""Tasks with dependencies: the graph as columns, what reads it from files and what generates it."""

from fleetcast.scenario.workload.graphs.graph import Task, TaskGraph, Unit, assemble

__all__ = ["Task", "TaskGraph", "Unit", "assemble"]
