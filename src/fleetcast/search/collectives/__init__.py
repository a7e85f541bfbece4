"""Plans of collectives on trees of switches: the search, an interpreter that executes them, all plans of small trees."""

from fleetcast.search.collectives.gentree import PEERS, Plan, peer, plan

__all__ = ["PEERS", "Plan", "peer", "plan"]
