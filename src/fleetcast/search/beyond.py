"""Plans that fit on the fleet and take more power or money than it allows: counted, and the least of each kind told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.sim.serving.provision import excess, limited, taken
from fleetcast.sim.serving.setting import Server, Setting

Kind = tuple[tuple[tuple[str, str], ...], str]
"""Where the pools of a plan run and in which role, and the constraint that it breaks."""


class Beyond:
    """What a search refuses for ``fleet.budget`` or ``fleet.spend``.

    Attributes:
        count: plans refused.
    """

    def __init__(self, state: Setting) -> None:
        """Starts with nothing refused.

        Args:
            state: the scenario, resolved.
        """
        self.tree, self.capped = state.tree, state.scenario.plan.power is not None
        self.count = 0
        self._least: dict[Kind, tuple[Sequence[Pool], Infeasible, int]] = {}

    def why(self, servers: Sequence[Server], pools: Sequence[Pool]) -> Infeasible | None:
        """Returns why complete pools take too much, or None."""
        if not limited(self.tree):
            return None
        serving = [pool for pool in pools if pool.role != "draft"]
        found = taken(self.tree, list(zip(servers, serving, strict=True)))
        return excess(self.tree, found, capped=self.capped)

    def refuses(self, servers: Sequence[Server], pools: Sequence[Pool]) -> bool:
        """Whether complete pools take too much.

        Args:
            servers: what the replicas of each pool that serves run.
            pools: with their replicas, a draft pool among them.
        """
        why = self.why(servers, pools)
        if why is None:
            return False
        self.count += 1
        kind = tuple((str(p.on), p.role) for p in pools), why.constraint
        known = self._least.get(kind)
        least = known[:2] if known is not None and known[1].need <= why.need else (pools, why)
        self._least[kind] = (*least, 1 + (known[2] if known is not None else 0))
        return True

    def rows(self) -> Iterator[tuple[str, Infeasible]]:
        """Yields, for each kind of plan, the one that takes least of what is short, and how many more take too much."""
        for pools, why, count in self._least.values():
            more = f" and {count - 1:,} more" if count > 1 else ""
            yield f"{Plan(pools=tuple(pools)).label()}{more}", why
