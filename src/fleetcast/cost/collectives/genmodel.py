"""GenModel: what a collective takes when fan-in has a price.

T = A alpha + B beta + C gamma + D delta + max(w - w_t, 0) B epsilon, for each step of an algorithm, added up: rounds,
bytes sent or received, bytes added, bytes read and written in memory, and incast, where more than w_t flows meet at a
port (GenModel/GenTree, arXiv 2409.04202). Many at once read and write memory less often than pairs do, and meet at
ports: the two pull apart. Without delta and epsilon it is the alpha-beta-gamma model; without gamma, Hockney's.

The paper's model has six parameters. Ours has a seventh, ``launch``, which every call pays once. Counts are those of
plans that scatter the sum and gather it again: a stage of fan-in f on a block of x bytes sends and adds (f - 1) x / f,
reads f pieces and writes one, and has f at each port. A ring is N - 1 stages of fan-in 2 that all move x / N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError

Array = NDArray[np.float64]
OPERATIONS = ("reduce_scatter", "all_gather", "all_reduce")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What GenModel knows of machines and links.

    Attributes:
        alpha: s a round.
        beta: s/B sent.
        gamma: s/B added.
        delta: s/B read from or written to memory.
        epsilon: s/B and flow beyond the threshold.
        threshold: flows into one port, a host's own data counted, that do no harm.
        launch: s of a call.
    """

    alpha: float
    beta: float
    gamma: float = 0.0
    delta: float = 0.0
    epsilon: float = 0.0
    threshold: float = 2.0
    launch: float = 0.0

    def __post_init__(self) -> None:
        """Refuses negative ones.

        Raises:
            SpecError: names the parameter.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(value) or value < 0:
                raise SpecError(field.name, "cannot be", value=value, limit="a finite number, at least 0")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one stage does, per rank.

    Attributes:
        rounds: A.
        sent: B, bytes.
        added: C, bytes.
        moved: D, bytes read or written.
        width: w, flows into a port, own data counted.
    """

    rounds: float
    sent: float
    added: float
    moved: float
    width: float


def stages(algorithm: str, ranks: int, size: float, operation: str = "all_reduce") -> list[Counts]:
    """Returns the stages of an algorithm on one switch.

    Args:
        algorithm: "ring", "rhd" (halving and doubling), "cps" (co-located parameter servers), "central" (one server),
            or the fan-in of each stage, e.g. "4x3" (hierarchical parameter servers).
        ranks: how many take part.
        size: bytes of the full buffer.
        operation: one of `OPERATIONS`.

    Raises:
        SpecError: an algorithm nobody knows, stages that do not multiply to ``ranks``, or fewer than two ranks.
    """
    check(size, ranks)
    if operation not in OPERATIONS:
        raise SpecError("operation", "is not known", value=operation, limit=", ".join(OPERATIONS))
    part = size / ranks
    if algorithm == "central":
        n = float(ranks)
        down = [Counts(1.0, (n - 1) * size, (n - 1) * size, (n + 1) * size, n)]
    elif algorithm == "ring":
        down = [Counts(1.0, part, part, 3.0 * part, 2.0)] * (ranks - 1)
    else:
        down, left = [], size
        folded = ranks
        factors = fan_ins(algorithm, ranks)
        if algorithm == "rhd":
            folded = 1 << (ranks.bit_length() - 1)
            if folded < ranks:  # the ranks beyond a power of two give all they have to another first
                down.append(Counts(1.0, size, size, 3.0 * size, 2.0))
        assert np.prod(factors, initial=1) == folded
        for f in factors:
            piece = left / f
            down.append(Counts(1.0, (f - 1) * piece, (f - 1) * piece, (f + 1) * piece, float(f)))
            left = piece
    up = [replace(c, added=0.0, moved=0.0) for c in reversed(down)]
    return {"reduce_scatter": down, "all_gather": up, "all_reduce": down + up}[operation]


def fan_ins(algorithm: str, ranks: int) -> tuple[int, ...]:
    """Returns the fan-in of each stage of an algorithm that has stages.

    Raises:
        SpecError: it is not known, or does not fit the ranks.
    """
    if algorithm == "cps":
        return (ranks,)
    if algorithm == "rhd":
        return (2,) * (ranks.bit_length() - 1)
    limit = 'ring, rhd, cps, central or fan-ins such as "4x3"'
    words = algorithm.split("x")
    if not all(word.isdigit() and int(word) > 1 for word in words):
        raise SpecError("algorithm", "is not known", value=algorithm, limit=limit)
    found = tuple(map(int, words))
    if int(np.prod(found)) != ranks:
        limit = f"fan-ins whose product is {ranks}"
        raise SpecError("algorithm", "does not fit the ranks", value=algorithm, limit=limit)
    return found


def check(size: float, ranks: int) -> None:
    """Refuses a collective of nothing or of one.

    Raises:
        SpecError: names the size or the ranks.
    """
    if not np.isfinite(size) or size <= 0:
        raise SpecError("size", "cannot be", value=size, limit="bytes above 0")
    if ranks < 2:
        raise SpecError("ranks", "are too few", value=ranks, limit="at least 2 take part in a collective")


def stage_time(counts: Counts, p: Parameters) -> float:
    """Returns the seconds of one stage."""
    congested = p.beta + max(counts.width - p.threshold, 0.0) * p.epsilon
    return counts.rounds * p.alpha + counts.sent * congested + counts.added * p.gamma + counts.moved * p.delta


def time(algorithm: str, ranks: int, size: float, p: Parameters, operation: str = "all_reduce") -> float:
    """Returns the seconds of an operation on one switch; the arguments are those of `stages`.

    Example:
        >>> round(time("ring", 4, 8e6, Parameters(alpha=1e-5, beta=1e-10)), 9)  # 6 rounds, 12 MB
        0.00126
    """
    return p.launch + sum(stage_time(c, p) for c in stages(algorithm, ranks, size, operation))


def fastest(algorithms: Sequence[str], ranks: int, size: float, p: Parameters) -> str:
    """Returns the algorithm that takes least for an all-reduce, the first of equals."""
    return min(algorithms, key=lambda algorithm: time(algorithm, ranks, size, p))


def factorisations(number: int) -> list[tuple[int, ...]]:
    """Returns every way to write a number as an ordered product of factors above 1.

    Example:
        >>> factorisations(8)
        [(8,), (2, 4), (2, 2, 2), (4, 2)]
    """
    if number == 1:
        return [()]
    found: list[tuple[int, ...]] = [(number,)]
    for f in range(2, number // 2 + 1):
        if number % f == 0:
            found += [(f, *rest) for rest in factorisations(number // f)]
    return found
