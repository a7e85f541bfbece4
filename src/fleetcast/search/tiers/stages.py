"""What is wrong with a decided stage of a cascade, by its path in the scenario."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.plan import HANDOFFS, Stage
from fleetcast.search.tiers.legs import Leg


def check_stage(
    stage: Stage, stages: Sequence[Stage], i: int, names: Sequence[str], depths: Sequence[int], path: str
) -> None:
    """Refuses a stage that cannot be.

    Raises:
        SpecError: names it and what is wrong with it.
    """
    for name, value in (("on", stage.on), ("after", stage.after)):
        if value is not None and value not in names:
            raise SpecError(
                f"{path}.{name}", "is not a group of the fleet", value=value, limit=f"groups: {', '.join(names)}",
                hint=closest(value, names),
            )  # fmt: skip
    if stage.exit not in depths:
        deep = "is deeper than the model's exits" if stage.exit > depths[-1] else "is not an exit"
        raise SpecError(f"{path}.exit", deep, value=stage.exit, limit=f"one of {', '.join(map(str, depths))}")
    if i and stage.exit <= stages[i - 1].exit:
        raise SpecError(
            f"{path}.exit", "is not deeper than the stage before", value=stage.exit, limit=f"above {stages[i - 1].exit}"
        )
    if stage.handoff not in HANDOFFS:
        raise SpecError(
            f"{path}.handoff", "is unknown", value=stage.handoff, limit=f"one of {', '.join(HANDOFFS)}",
            hint=closest(stage.handoff, HANDOFFS),
        )  # fmt: skip
    if stage.handoff != "text" and not 1 <= stage.split < stage.exit:
        raise SpecError(f"{path}.split", "is out of range", value=stage.split, limit=f"1 to {stage.exit - 1}")
    if stage.handoff != "text" and not i and stage.after is None:
        raise SpecError(f"{path}.after", "is missing", hint=f"Name the tier of layers 1 to {stage.split}")
    if stage.handoff == "text" and stage.split:
        raise SpecError(
            f"{path}.split", "needs hidden states", value=stage.split, limit='handoff = "hidden" or "cache"'
        )
    if (stage.threshold is None) != (i == len(stages) - 1):
        problem = "passes answers on to nobody" if stage.threshold is not None else "is missing"
        raise SpecError(f"{path}.threshold", problem, limit="every stage but the last has one")
    if stage.threshold is not None and not 0.0 < stage.threshold < 1.0:
        raise SpecError(f"{path}.threshold", "is out of range", value=stage.threshold, limit="above 0, below 1")


def check_queued(stage: Stage, before: Sequence[Leg], tier: int, path: str) -> None:
    """Refuses a stage that is not simulated where requests arrive by the clock.

    Raises:
        SpecError: names it and what would be.
    """
    closed = 'arrivals = { kind = "closed", concurrency = 1, ... } has means of it'
    if stage.handoff != "text":
        raise SpecError(
            f"{path}.handoff", "holds a request on two tiers at once: not simulated under arrivals by the clock",
            value=stage.handoff, limit='"text"', hint=f"Send text; {closed}",
        )  # fmt: skip
    if before and tier <= before[-1].tier:
        raise SpecError(
            f"{path}.on", "is not further up than the stage before, which arrivals by the clock ask for",
            value=stage.on, limit="each tier answers once, in the order of the groups", hint=f"Go up; {closed}",
        )  # fmt: skip
