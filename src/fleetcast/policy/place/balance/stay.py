"""Nothing moves."""

from __future__ import annotations

from fleetcast.policy.place.balance import Moves, View


class Stay:
    """Leaves every task where it is."""

    kind = "stay"

    def balance(self, view: View) -> Moves:
        """Returns no moves."""
        return Moves()
