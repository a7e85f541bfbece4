"""Prefix caches in a plan: what a ``prefix_cache`` table says of the tiers below the devices."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, convert
from fleetcast.base.units import Bytes

TIERS = ("cpu", "ssd")
"""What ``prefix_cache`` says beside its policy: see `Tiers`."""
MOST = 1e15
"""B: more host memory or disk per device is a slip of the pen."""


class Tiers(Spec):
    """Where cached prefixes go that the devices have no room for.

    Attributes:
        cpu: host memory for them, per device.
        ssd: local disk for them, per device; ``fleet.ssd`` says how fast it is.
    """

    cpu: Bytes = 0.0
    ssd: Bytes = 0.0


def tiers_of(table: Any, path: str) -> tuple[Any, Tiers] | None:
    """Returns what a ``prefix_cache`` table says of the policy, and of the tiers; None for "off" and where it is open.

    Raises:
        SpecError: a tier below 0, or tiers beside "off".
    """
    asked = {"kind": table} if isinstance(table, str) else table
    if not isinstance(asked, dict):
        return None if asked is None else (asked, Tiers())
    found: Tiers = convert({k: v for k, v in asked.items() if k in TIERS}, Tiers, path)
    for name in TIERS:
        if not 0.0 <= getattr(found, name) <= MOST:
            raise SpecError(f"{path}.{name}", "is out of range", value=getattr(found, name), limit=f"0 to {MOST:g} B")
    rest = {k: v for k, v in asked.items() if k not in TIERS}
    if rest.get("kind") != "off":
        return rest, found
    if len(asked) > 1:
        name = next(k for k in asked if k != "kind")
        raise SpecError(f"{path}.{name}", "has nothing to say beside 'off'", value=asked[name], hint="Leave it out")
    return None
