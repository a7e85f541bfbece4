"""How far rankings are apart: pairs in another order (Kendall tau), and places moved (Spearman's footrule).

A ranking is a row of alternatives 0 to m - 1, best first. Both distances are metrics, and K <= F <= 2 K (Diaconis and
Graham 1977, recalled). K is at most m (m - 1) / 2, F at most floor(m^2 / 2). Rankings that differ
are at least 1 and 2 apart.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Orders = NDArray[np.int64]
"""Rankings int[..., m]: alternatives, best first."""


def places(orders: ArrayLike) -> Orders:
    """Returns the place of each alternative, from 0: the inverse of each row.

    Example:
        >>> places([2, 0, 1]).tolist()
        [1, 2, 0]
    """
    return np.argsort(np.asarray(orders, dtype=np.int64), axis=-1)


def kendall(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """Returns the number of pairs that two rankings order differently, row by row.

    Args:
        a: int[..., m].
        b: int[..., m]; leading axes broadcast.

    Example:
        >>> int(kendall([0, 1, 2], [2, 1, 0])), kendall([[0, 1, 2], [1, 0, 2]], [0, 1, 2]).tolist()
        (3, [0, 1])
    """
    p, q = places(a), places(b)
    one, other = np.triu_indices(p.shape[-1], 1)
    differ = (p[..., one] < p[..., other]) != (q[..., one] < q[..., other])
    return np.asarray(differ.sum(axis=-1), dtype=np.int64)


def footrule(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """Returns the sum over alternatives of the places between them in two rankings, row by row.

    Example:
        >>> int(footrule([0, 1, 2], [2, 1, 0])), int(footrule([0, 1, 2], [1, 0, 2]))
        (4, 2)
    """
    return np.asarray(np.abs(places(a) - places(b)).sum(axis=-1), dtype=np.int64)


METRICS = {"kendall": kendall, "footrule": footrule}
"""The distances by name."""


def diameter(metric: str, m: int) -> int:
    """Returns the largest distance between two rankings of m alternatives."""
    return m * (m - 1) // 2 if metric == "kendall" else m * m // 2


def preferred(ballots: ArrayLike) -> Orders:
    """Returns int[m, m]: how many ballots rank the row's alternative above the column's.

    Example:
        >>> preferred([[0, 1], [0, 1], [1, 0]]).tolist()
        [[0, 2], [1, 0]]
    """
    p = places(ballots).reshape(-1, np.asarray(ballots).shape[-1])
    above = p[:, :, None] < p[:, None, :]
    return np.asarray(above.sum(axis=0), dtype=np.int64)


def all_orders(m: int) -> Orders:
    """Returns every ranking of m alternatives, int[m!, m], in the order of the alphabet."""
    return np.array(list(permutations(range(m))), dtype=np.int64).reshape(-1, m)
