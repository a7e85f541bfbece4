"""Pipelines cross between groups, everything else stays inside one, and stages are as long as their devices are fast.

Yang and others, "Holmes: Towards Distributed Training Across Clusters with Heterogeneous NIC Environment", ICPP 2024.
Rule: the ranks of a stage share one kind of network card; a stage on a group of speed S gets layers in proportion to S.
The paper rounds shares, times 1.05. Here each layer in turn goes where an iteration then takes least: of m
micro-batches the sum of all stages, m - 1 times the longest, and what the last one needs for its gradients. With many
micro-batches the longest stage is as short as can be, with few the faster devices get more. No stage gets more than the
memory of its devices holds. The crossing comes early in the pipeline, which is ours too: under 1F1B stage i of p has
p - 1 - i micro-batches under way while it waits for a message, the last but one a single one. Another order of the
groups is taken where it saves more than that may: where devices differ, the head is better on one of them, and early
stages, which have more micro-batches in flight, on those with more memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import inf

from fleetcast.policy.place.stages import Placement, View

ORDERS = 120
"""Orders of the groups that are looked at: all of up to five groups."""
WORTH = 0.99
"""Another order than the first has to take less than this share of the first's time."""


class NicAware:
    """Each stage within one group and on its own network; layers by the group's speed (Holmes) and memory."""

    kind = "nic_aware"

    def place(self, view: View) -> Placement:
        """Returns each group's stages side by side, so that few messages cross; fewest stages first."""
        every = list(orders(view.stages))
        found = [_dealt(view, groups, _most(view, groups)) for groups in every]
        at = min(range(len(every)), key=lambda i: (found[i][1], i))
        if not found[at][1] < WORTH * found[0][1]:
            at = 0
        layers, longest = found[at]
        if longest == inf:  # nothing holds all layers: as fast as if there were room
            layers, _ = _dealt(view, every[0], [view.layers] * len(every[0]))
        return Placement(every[at], tuple(layers), own_links=True)


def orders(stages: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields the group of each stage in every order of the groups, fewest stages first in the first of them."""
    first = sorted(range(len(stages)), key=lambda group: (stages[group], group))
    for order in itertools.islice(itertools.permutations(first), ORDERS):
        yield tuple(group for group in order for _ in range(stages[group]))


def _most(view: View, groups: Sequence[int]) -> list[int]:
    if not view.most:
        return [view.layers] * len(groups)
    return [view.most[group][position] for position, group in enumerate(groups)]


def _dealt(view: View, groups: Sequence[int], most: Sequence[int]) -> tuple[list[int], float]:
    """Returns layers dealt one by one to the stage with which an iteration then takes least, and what it takes (s).

    That is inf where the stages do not hold all layers.
    """
    seconds = [view.seconds[group] for group in groups]
    after = [view.after[group] if view.after else 0.0 for group in groups]
    time = [0.0] * len(groups)
    time[0] += view.first[groups[0]]
    time[-1] += view.last[groups[-1]]
    layers = [1] * len(groups)
    time = [t + s for t, s in zip(time, seconds, strict=True)]
    late, more = list(after), view.micro_batches - 1.0
    if min(most) < 1 or sum(most) < view.layers:
        return layers, inf
    longest, latest = max(time), max(late)

    def then(i: int) -> tuple[float, float, int]:
        t = time[i] + seconds[i]
        return seconds[i] + more * max(longest, t) + max(latest, late[i] + after[i]), t, i

    for _ in range(view.layers - len(groups)):
        _, _, stage = min(then(i) for i in range(len(groups)) if layers[i] < most[i])
        layers[stage] += 1
        time[stage] += seconds[stage]
        late[stage] += after[stage]
        longest, latest = max(longest, time[stage]), max(latest, late[stage])
    return layers, sum(time) + more * longest + latest
