"""Weighted rendezvous hashing: a function's nodes in an order that greener nodes head more often. GreenWhisk's own.

Node i costs a function f

    -ln(1 - d(f, i)) E / E_i,      E = sum of E_j

with d a hash in (0, 1) and E_i how green the node is (`green.weights`); the cheapest with room takes it. So node i
takes the share E_i / E of functions, and as greenness changes no more functions move than must (Schindelhauer and
Schomaker, 2005). GreenWhisk (IC2E 2024) walks on from the cheapest in steps coprime to the number of nodes; here the
walk goes on by cost. Its published simulator divides by what grows with emissions; E_i here falls with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations.green import places, weights

if TYPE_CHECKING:
    from fleetcast.policy.route.invocations import View


class Rendezvous:
    """Nodes by weighted rendezvous hashing.

    Args:
        power: that greenness is raised to: 1 as published; more sends more to the greenest.
    """

    kind = "rendezvous"

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power

    def pick(self, view: View) -> int | None:
        """Returns the cheapest node that has room."""
        share = weights(view) ** self.power
        share = share / max(float(share.max(initial=0.0)), 1e-300)
        with np.errstate(divide="ignore"):
            cost = np.where(share > 0, -np.log1p(-places(view.name, len(share))) / share, np.inf)
        cost[~view.room] = np.inf
        best = int(np.argmin(cost)) if len(cost) else 0
        if len(cost) and cost[best] < np.inf:
            return best
        found = np.flatnonzero(view.room)  # nothing green has room
        return int(found[0]) if len(found) else None
