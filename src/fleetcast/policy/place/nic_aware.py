"""Pipelines cross between groups, everything else stays inside one, and stages are as long as their devices are fast.

Yang and others, "Holmes: Towards Distributed Training Across Clusters with Heterogeneous NIC Environment", ICPP 2024.
Rule: the ranks of a stage share one kind of network card; a stage on a group of speed S gets layers in proportion to S.
Here the split is the exact one: each layer goes where the fullest stage then takes least, which is optimal for stages
that add up (the paper rounds shares, times 1.05). The crossing comes early in the pipeline, which is ours too: under
1F1B stage i of p has p - 1 - i micro-batches under way while it waits for a message, the last but one a single one.
"""

from __future__ import annotations

from fleetcast.policy.place import Placement, View


class NicAware:
    """Each stage within one group and on its own network; layers by the group's speed (Holmes)."""

    kind = "nic_aware"

    def place(self, view: View) -> Placement:
        """Returns each group's stages side by side, so that few messages cross; fewest stages first."""
        order = sorted(range(len(view.stages)), key=lambda group: (view.stages[group], group))
        groups = tuple(group for group in order for _ in range(view.stages[group]))
        seconds = [view.seconds[group] for group in groups]
        time = [0.0] * len(groups)
        time[0] += view.first[groups[0]]
        time[-1] += view.last[groups[-1]]
        layers = [1] * len(groups)
        time = [t + s for t, s in zip(time, seconds, strict=True)]
        for _ in range(view.layers - len(groups)):
            stage = min(range(len(groups)), key=lambda i: (time[i] + seconds[i], i))
            layers[stage] += 1
            time[stage] += seconds[stage]
        return Placement(groups, tuple(layers), own_links=True)
