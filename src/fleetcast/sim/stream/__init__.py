"""Sensor pipelines: long-run rates in closed form, and sample by sample where something takes time."""

from fleetcast.sim.stream.world import simulate

__all__ = ["simulate"]
