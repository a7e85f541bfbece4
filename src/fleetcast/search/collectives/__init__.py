"""Plans of collectives on a tree of switches: the search, an interpreter that executes them, every plan of small trees."""

from fleetcast.search.collectives.gentree import PEERS, Plan, peer, plan

__all__ = ["PEERS", "Plan", "peer", "plan"]
