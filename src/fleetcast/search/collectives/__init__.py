"""Plans of collectives on trees of switches: the search, what executes them, every plan of a small tree."""

from fleetcast.search.collectives.gentree import PEERS, Plan, peer, plan

__all__ = ["PEERS", "Plan", "peer", "plan"]
