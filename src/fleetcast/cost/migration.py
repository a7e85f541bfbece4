"""What moving a running task costs: the traffic of a live migration by pre-copy.

All memory is sent once while the task runs; what it wrote meanwhile is sent again, and so on, until little is left;
then it stops and the rest follows (Clark et al., "Live migration of virtual machines", NSDI 2005). Sliwko and Getov
("Transfer cost of virtual machine live migration in cloud systems", 2017) report a formula of it within 11 % of virtual
machines; their text was not at hand, and this one is ours. With w writes a second, spread evenly over W pages, a round
of t seconds dirties

    D(t) = W (1 - exp(-w t / W))

pages at least once: for small t that is w t, the geometric series M (1 + d/b + (d/b)^2 + ...) that spreadsheets use;
but a page that is written twice travels once, so that traffic stays finite where that series does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

PAGE = 4096
"""Bytes of a page."""
ROUNDS = 30
"""After so many rounds a migration stops the task, as QEMU and Xen do (Xen: 29)."""


PROGRESS = 0.1
"""A round must leave at least this share less than it sent, else the task is stopped: more rounds would only cost."""


class Writes(NamedTuple):
    """Writes that hit part of a task's memory.

    Attributes:
        rate: a second, each into one page, chosen evenly.
        pages: that they hit.
    """

    rate: float
    pages: float

    def dirty(self, seconds: float) -> float:
        """Returns how many pages are written at least once in that time, on average."""
        return self.pages * -math.expm1(-self.rate * seconds / self.pages) if self.pages else 0.0


class Migration(NamedTuple):
    """What a migration takes.

    Attributes:
        sent: B, all rounds together.
        rounds: B of each, the last with the task stopped.
        seconds: from its begin to its end.
        downtime: s in which the task stands still.
    """

    sent: float
    rounds: tuple[float, ...]
    seconds: float
    downtime: float


def migration(
    memory: float, writes: Sequence[Writes], bandwidth: float, *, stop: float = 0.0, most: int = ROUNDS,
    page: float = PAGE, overhead: float = 0.0,
) -> Migration:  # fmt: skip
    """Returns what a live migration sends and how long it takes.

    Args:
        memory: B of the task.
        writes: what dirties its pages, parts of memory that do not overlap.
        bandwidth: B/s of the link.
        stop: B: once so little is left the task stops.
        most: rounds after which it stops whatever is left; it also stops where a round gains less than `PROGRESS`.
        page: B of a page.
        overhead: s between two rounds in which pages are looked through; what is written meanwhile counts.

    Raises:
        ValueError: a negative memory, or a bandwidth that is not positive.
    """
    if memory < 0 or bandwidth <= 0:
        raise ValueError(f"a migration of {memory} B at {bandwidth} B/s is none")
    rounds, left, seconds = [], memory, 0.0
    for _ in range(max(most - 1, 0)):
        if left <= stop:
            break
        spent = left / bandwidth + overhead
        rounds.append(left)
        seconds += spent
        dirty = page * math.fsum(part.dirty(spent) for part in writes)
        gained, left = left - dirty, dirty
        if gained < PROGRESS * rounds[-1]:
            break
    rounds.append(left)
    downtime = left / bandwidth
    return Migration(math.fsum(rounds), tuple(rounds), seconds + downtime, downtime)


def geometric(memory: float, writes: Sequence[Writes], bandwidth: float, *, rounds: int = ROUNDS) -> float:
    """Returns B of the series that knows no page twice: the null of `migration`."""
    ratio = PAGE * sum(part.rate for part in writes) / bandwidth
    return memory * (rounds if ratio == 1 else (1 - ratio**rounds) / (1 - ratio))
