"""A sensor pipeline as processes on this machine, joined by pipes: measured, and what its messages cost."""

from fleetcast.runtime.stream.costs import Costs, calibrate, calibrated
from fleetcast.runtime.stream.pipeline import run

__all__ = ["Costs", "calibrate", "calibrated", "run"]
