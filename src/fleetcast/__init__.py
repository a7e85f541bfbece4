"""Fleetcast forecasts, plans and runs AI workloads on any fleet, from phones to GPU clusters.

    >>> import fleetcast
    >>> scenario = fleetcast.load("quickstart")
    >>> scenario.workload.model
    'llama-3.1-70b'

The verbs load what they need when they are called, so that importing this costs nothing.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "advise", "best_pools", "check", "compare", "devices_needed", "learn", "load", "max_rate", "max_users",
    "measure", "plan", "prove", "run", "servers_under", "simulate", "transform", "watch_starts", "watch_train",
    "whatif",
]  # fmt: skip

_HOMES = {
    "advise": "fleetcast.view.verbs",
    "best_pools": "fleetcast.view.sizing",
    "check": "fleetcast.view.verbs",
    "compare": "fleetcast.view.compare",
    "devices_needed": "fleetcast.view.sizing",
    "learn": "fleetcast.view.verbs",
    "load": "fleetcast.view.verbs",
    "max_rate": "fleetcast.view.sizing",
    "max_users": "fleetcast.view.sizing",
    "measure": "fleetcast.view.verbs",
    "plan": "fleetcast.view.verbs",
    "prove": "fleetcast.view.verbs",
    "run": "fleetcast.view.verbs",
    "servers_under": "fleetcast.view.sizing",
    "simulate": "fleetcast.view.verbs",
    "transform": "fleetcast.view.transforming",
    "watch_starts": "fleetcast.view.starts",
    "watch_train": "fleetcast.view.watched",
    "whatif": "fleetcast.view.whatif",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("fleetcast")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fleetcast' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
