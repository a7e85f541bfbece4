"""What collective operations take, from two numbers to a flow on every link.

`fabric` is what steps of models use: curves measured on a device's links, or latency and volume over bandwidth.
`piecewise` fits such curves, latency and bandwidth by interval of sizes, and says what an all-reduce takes between
numbers of ranks. `genmodel` adds what fan-in costs, memory traffic and incast, and `fitting` finds its parameters.
`topology`, `steps` and `merging` are plans on a tree of switches, step by step, priced by the same terms.
"""

from fleetcast.cost.collectives.fabric import (
    OPERATIONS,
    Affine,
    Curve,
    Fabric,
    collective_time,
    fabric_for,
    nested_time,
    volume,
)

__all__ = ["OPERATIONS", "Affine", "Curve", "Fabric", "collective_time", "fabric_for", "nested_time", "volume"]
