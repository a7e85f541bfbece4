"""Search of black boxes that are too large, or too dear, to try out: a predictor learns from what was tried."""

from fleetcast.search.learned.knobs import Knob, Knobs
from fleetcast.search.learned.minimise import Found, Round, minimise

__all__ = ["Found", "Knob", "Knobs", "Round", "minimise"]
