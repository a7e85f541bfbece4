"""Plans that stream a model through one device: two ways to run the optimizer, each with its best share of swapping.

The share is exact, not sampled: `cost.training.streams.best` asks every point at which the time can bend.
"""

from __future__ import annotations

import msgspec

from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.world import simulate

BESIDE = ("data", "optimizer")
AFTER = ("data",)


def streams(state: Setting) -> bool:
    """Returns whether a scenario asks for plans that stream: one device with disks, or with a share to swap."""
    plan = state.scenario.plan
    if plan.swap is not None:
        return True
    open_ = all(getattr(plan, name) is None for name in ("offload", "recompute", "micro_batch", "shards"))
    return state.group.count == 1 and state.tree.ssd is not None and open_


def single(state: Setting) -> list[Outcome]:
    """Returns the plans that stream, those that fit first, quickest first.

    Raises:
        SpecError: the plan decides what does not go with streaming.
    """
    plan = state.scenario.plan
    swap = "auto" if plan.swap is None else plan.swap
    ways: list[TrainingPlan] = [msgspec.structs.replace(plan, swap=swap)]
    if plan.overlap is None:
        ways = [msgspec.structs.replace(ways[0], overlap=BESIDE), msgspec.structs.replace(ways[0], overlap=AFTER)]
    found = [simulate(state, way) for way in ways]
    return sorted(found, key=lambda o: (not o.metrics["fits"], o.metrics["iteration_time"]))
