"""A pipeline's iteration as events: every pass starts when its stage is free and what it needs has arrived.

The closed forms of `cost.training.schedule` are held to this world, which knows none of them: it takes the passes of
`sim.training.orders` one after another. Stages may differ in speed, and messages between stages take time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.sim.training.orders import Order, Pass

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    """Seconds of one micro-batch on one piece of a stage.

    Attributes:
        forward: a forward pass.
        backward: a whole backward pass.
        weights: the part of it that makes the weights' gradients.
        both: a forward and a backward pass at once; None = one after the other.
    """

    forward: float
    backward: float
    weights: float = 0.0
    both: float | None = None


@dataclass(frozen=True)
class Event:
    """One entry of a stage's order: passes, start and end (s)."""

    stage: int
    passes: tuple[Pass, ...]
    start: float
    end: float


@dataclass(frozen=True)
class Iteration:
    """What happened.

    Attributes:
        events: in order of their start.
        time: s from the first pass to the last.
        busy: s that each stage worked.
        held: most pieces of micro-batches whose activations each stage held at once.
    """

    events: tuple[Event, ...]
    time: float
    busy: tuple[float, ...]
    held: tuple[int, ...]

    @property
    def bubble(self) -> tuple[float, ...]:
        """S that each stage idled."""
        return tuple(self.time - busy for busy in self.busy)


def run(orders: Sequence[Order], stages: Sequence[Stage], message: float | Sequence[float] = 0.0) -> Iteration:
    """Returns an iteration.

    Args:
        orders: of each stage, from `orders`.
        stages: their speeds.
        message: s between the end of a pass and the start of the next on another stage; or of each boundary, in order.

    Raises:
        ValueError: stages wait for each other: an order that no pipeline can follow.
    """
    between = [float(message)] * len(orders) if isinstance(message, int | float) else [*message, 0.0]
    last = 1 + max(one.piece for order in orders for passes in order for one in passes)
    done: dict[tuple[str, int, int, int], tuple[float, int]] = {}
    free, at = [0.0] * len(orders), [0] * len(orders)
    events: list[Event] = []
    moved = True
    while moved:
        moved = False
        for stage, order in enumerate(orders):
            while at[stage] < len(order):
                passes = order[at[stage]]
                start = _ready(passes, stage, done, last, between)
                if start is None:
                    break
                start = max(start, free[stage])
                free[stage] = start + _length(passes, stages[stage])
                for one in passes:
                    done[one.kind, one.copy, one.micro, one.piece] = free[stage], stage
                events.append(Event(stage, passes, start, free[stage]))
                at[stage] += 1
                moved = True
    if any(place < len(order) for place, order in zip(at, orders, strict=True)):
        raise ValueError("the stages wait for each other: no pipeline can follow this order")
    events.sort(key=lambda event: (event.start, event.stage))
    busy = tuple(sum(e.end - e.start for e in events if e.stage == stage) for stage in range(len(orders)))
    return Iteration(tuple(events), max(free), busy, tuple(_held(events, stage) for stage in range(len(orders))))


def lengths(orders: Sequence[Order], forward: Array, backward: Array, between: Array) -> Array:
    """Returns the time of many pipelines that follow one order, plan by plan as `run` has it.

    Args:
        orders: of each stage, a pass at a time.
        forward: f8[plans, stages], s of a forward pass.
        backward: likewise, of a backward pass.
        between: f8[plans, stages - 1], s of a message over each boundary.

    Raises:
        ValueError: stages wait for each other.
    """
    plans, stages = forward.shape
    last = 1 + max(one.piece for order in orders for passes in order for one in passes)
    done: dict[tuple[str, int, int], Array] = {}
    free, at = [np.zeros(plans) for _ in orders], [0] * stages
    moved = True
    while moved:
        moved = False
        for stage, order in enumerate(orders):
            while at[stage] < len(order):
                (one,) = order[at[stage]]
                needs = _needs(one, last)
                if any((kind, one.micro, piece) not in done for kind, piece in needs):
                    break
                start = free[stage]
                for kind, piece in needs:
                    came, home = done[kind, one.micro, piece], piece % stages
                    hop = between[:, min(home, stage)] if home != stage else 0.0
                    start = np.maximum(start, came + hop)
                free[stage] = done[one.kind, one.micro, one.piece] = start + (
                    forward[:, stage] if one.kind == "F" else backward[:, stage]
                )
                at[stage] += 1
                moved = True
    if any(place < len(order) for place, order in zip(at, orders, strict=True)):
        raise ValueError("the stages wait for each other: no pipeline can follow this order")
    return np.asarray(np.max(free, axis=0))


def _ready(
    passes: tuple[Pass, ...], stage: int, done: dict[tuple[str, int, int, int], tuple[float, int]], last: int,
    between: Sequence[float],
) -> float | None:  # fmt: skip
    """Returns when everything that the passes need has arrived, or None where some of it is not known yet."""
    latest = 0.0
    for one in passes:
        for kind, piece in _needs(one, last):
            found = done.get((kind, one.copy, one.micro, piece))
            if found is None:
                return None
            latest = max(latest, found[0] + (between[min(found[1], stage)] if found[1] != stage else 0.0))
    return latest


def _needs(one: Pass, last: int) -> list[tuple[str, int]]:
    if one.kind == "F":
        return [("F", one.piece - 1)] if one.piece else []
    if one.kind == "W":
        return [("B", one.piece)]
    return [("F", one.piece), *([("B", one.piece + 1)] if one.piece < last - 1 else [])]


def _length(passes: tuple[Pass, ...], stage: Stage) -> float:
    if len(passes) > 1 and stage.both is not None:
        return stage.both
    seconds = 0.0
    for one in passes:
        if one.kind == "F":
            seconds += stage.forward
        elif one.kind == "W":
            seconds += stage.weights
        else:
            seconds += stage.backward if one.whole else stage.backward - stage.weights
    return seconds


def _held(events: Sequence[Event], stage: int) -> int:
    """Returns the most micro-batches of pieces between the start of a forward pass and the end of the last pass."""
    changes = []
    for event in events:
        if event.stage == stage:
            for one in event.passes:
                if one.kind == "F":
                    changes.append((event.start, 1, 1))
                elif one.kind == "W" or one.whole:
                    changes.append((event.end, 0, -1))
    held = most = 0
    for _, _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most
