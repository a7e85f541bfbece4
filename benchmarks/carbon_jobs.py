"""How much carbon do jobs spare that wait for clean hours and go to clean zones, of what hindsight could?

Four real zones (ElectricityMaps, hourly, direct emissions) with equal devices, a SYNTHETIC and frozen stream of jobs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

ZONES = ("NO", "BR", "ES", "US-CAL-CISO")
PERIODS = ((2022, 45), (2023, 225))
"""Year and day of the year on which a stream begins; the number of the day is its seed."""
LOADS = (0.6, 0.85)
SLACKS = (12, 24, 48)
DEVICES, DAYS = 8, 4
"""Devices of a zone; days in which jobs arrive."""
TRACE = {"kind": "synthetic", "median": "4 h", "spread": 1.0, "widest": 4}
