"""As few nodes as can be: whole nodes first, the rest where it leaves the least free (best fit)."""

from __future__ import annotations

from collections.abc import Mapping

from fleetcast.policy.place.gangs import View


class BestFit:
    """Packs a gang close, and leaves whole nodes whole."""

    kind = "best_fit"

    def place(self, view: View, devices: int) -> Mapping[int, int] | None:
        """Returns the fullest single node that holds the gang, else the emptiest nodes until it is held."""
        free = view.free
        if sum(free) < devices:
            return None
        single = min((f for f in free if f >= devices), default=0)
        if single:
            return {free.index(single): devices}
        chosen: dict[int, int] = {}
        left = devices
        for node in sorted(range(len(free)), key=lambda n: (-free[n], n)):
            if free[node] >= left:  # what is left goes where it fits best
                last = min((f for n, f in enumerate(free) if f >= left and n not in chosen), default=0)
                return chosen | {next(n for n, f in enumerate(free) if f == last and n not in chosen): left}
            chosen[node] = free[node]
            left -= free[node]
        return None
