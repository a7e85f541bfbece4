"""When it pays to train experts apart: no message between islands, against gradients added up over the link of all.

McAllister and others, "Decentralized Diffusion Models", CVPR 2025: the data is cut into K clusters, one expert trains
on each, alone on its island, and a router joins them; at equal FLOP the ensemble is as good. Then islands lose only
what the router and its training take, a share r of the work; data parallelism over the islands loses what of its
all-reduce nothing hides. With G bytes of gradients, a window of h seconds behind which they may hide and T seconds of
an island's iteration, both take as long where each island sends

    B = 2 (K-1)/K G / (h + r T)
"""

from __future__ import annotations

ROUTER = 0.05
"""Share of the work that the router takes; assumed: the paper's is a small model that is trained once."""


def joined_time(alone: float, gradients: float, islands: int, bandwidth: float, hidden: float = 0.0) -> float:
    """Returns seconds of an iteration that adds gradients up over all islands.

    Args:
        alone: s of an island's own iteration.
        gradients: B of one copy's gradients.
        islands: how many.
        bandwidth: B/s that an island sends to the others.
        hidden: s of computation behind which gradients may travel.
    """
    return alone + max(2.0 * (islands - 1) / islands * gradients / bandwidth - hidden, 0.0)


def break_even(alone: float, gradients: float, islands: int, hidden: float = 0.0, router: float = ROUTER) -> float:
    """Returns B/s between islands below which they pay; arguments as `joined_time`, ``router`` a share of the work.

    Raises:
        ValueError: neither a window nor a router: any finite bandwidth is too little then.
    """
    spare = hidden + router * alone
    if spare <= 0:
        raise ValueError("with nothing to hide behind and no router, islands pay at every bandwidth")
    return 2.0 * (islands - 1) / islands * gradients / spare
