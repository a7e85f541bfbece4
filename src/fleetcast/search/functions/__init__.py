"""Which scale policy keeps functions warm best: each is played, its price or its keep-alive set to the budget."""

from fleetcast.search.functions.ranking import search

__all__ = ["search"]
