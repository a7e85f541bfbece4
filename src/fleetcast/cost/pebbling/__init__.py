"""The red-blue pebble game on several processors: legal moves, their cost, and bounds that no schedule beats.

A *red* pebble says that a value lies in a processor's fast memory, a *blue* one that slow memory holds it. Every plan
that moves data between two memories is a list of moves (offloading, recomputing, swapping a cache, a task graph on
devices of limited memory), so that one checker proves them all: `check.prove` says legal, cost, lower bound and gap.

Hong, Kung, "I/O complexity: the red-blue pebble game", STOC 1981; Böhnlein, Papp, Yzelman, "Red-blue pebbling with
multiple processors", SIROCCO 2025 (arXiv 2409.03898).
"""
