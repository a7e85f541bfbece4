"""The order in which each stage of a pipeline works through its micro-batches, one function per schedule.

A `Pass` is a forward ("F"), a backward ("B", the gradient of the input; of the weights too unless a "W" follows) or a
weight pass ("W") of one micro-batch on one piece of the model. Pieces are numbered along the model: with v pieces per
stage and p stages, piece k lies on stage k mod p; DualPipe's second copy of the model runs the other way.

GPipe: Huang and others, NeurIPS 2019. 1F1B: Narayanan and others, ICML 2021 (PipeDream-Flush). Interleaved: Narayanan
and others, SC 2021. Zero-bubble H1: Qi and others, ICLR 2024. DualPipe: DeepSeek-V3, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One pass of one micro-batch.

    Attributes:
        kind: "F", "B" or "W".
        micro: the micro-batch.
        piece: the piece of the model, 0 = the first.
        copy: the model's copy, 1 = DualPipe's, which runs from the last stage to the first.
        whole: a "B" that makes the weights' gradients too.
    """

    kind: str
    micro: int
    piece: int
    copy: int = 0
    whole: bool = True


Order = list[tuple[Pass, ...]]
"""What a stage does, in turn; two passes in one entry run at once."""


def gpipe(stages: int, micro_batches: int) -> list[Order]:
    """Returns all forward passes, then all backward passes."""
    passes = [("F", m) for m in range(micro_batches)] + [("B", m) for m in reversed(range(micro_batches))]
    return [[(Pass(kind, m, stage),) for kind, m in passes] for stage in range(stages)]


def one_forward_one_backward(stages: int, micro_batches: int) -> list[Order]:
    """Returns 1F1B: a stage holds no more micro-batches than there are stages from it to the last."""
    return [_alternating(stages - 1 - stage, micro_batches, stage) for stage in range(stages)]


def _alternating(ahead: int, micro_batches: int, piece: int) -> Order:
    order: Order = [(Pass("F", m, piece),) for m in range(min(ahead, micro_batches))]
    for m in range(micro_batches):
        if m + ahead < micro_batches:
            order.append((Pass("F", m + ahead, piece),))
        order.append((Pass("B", m, piece),))
    return order


def interleaved(stages: int, micro_batches: int, pieces: int) -> list[Order]:
    """Returns interleaved 1F1B: stages take turns on pieces, in rounds of as many micro-batches as there are stages.

    Raises:
        ValueError: micro-batches are not whole rounds.
    """
    if micro_batches % stages:
        raise ValueError(f"{micro_batches} micro-batches are no whole rounds of {stages} stages")
    total = micro_batches * pieces

    def turn(number: int, stage: int, kind: str) -> Pass:
        turns, within = divmod(number, stages * pieces)
        chunk = within // stages
        if kind == "B":
            chunk = pieces - 1 - chunk
        return Pass(kind, turns * stages + within % stages, chunk * stages + stage)

    orders = []
    for stage in range(stages):
        warm = total if micro_batches == stages else min(total, 2 * (stages - stage - 1) + (pieces - 1) * stages)
        order: Order = [(turn(n, stage, "F"),) for n in range(warm)]
        for n in range(total):
            if n + warm < total:
                order.append((turn(n + warm, stage, "F"),))
            order.append((turn(n, stage, "B"),))
        orders.append(order)
    return orders


def zero_bubble(stages: int, micro_batches: int) -> list[Order]:
    """Returns ZB-H1: 1F1B whose weight passes wait, on each stage as many as stages before it, and fill its drain.

    A stage holds no more activations than 1F1B's first stage does.
    """
    orders = []
    for stage in range(stages):
        order: Order = []
        waiting: list[Pass] = []
        for passes in _alternating(stages - 1 - stage, micro_batches, stage):
            (one,) = passes
            if one.kind == "F":
                order.append(passes)
                continue
            order.append((Pass("B", one.micro, stage, whole=False),))
            waiting.append(Pass("W", one.micro, stage))
            draining = one.micro >= micro_batches - (stages - 1 - stage)
            if len(waiting) > stage or (draining and waiting):
                order.append((waiting.pop(0),))
        orders.append(order + [(one,) for one in waiting])
    return orders


def dual(stages: int, micro_batches: int) -> list[Order]:
    """Returns DualPipe: two copies of the model in opposite directions, each with half of the micro-batches.

    Raises:
        ValueError: an odd number of stages, or too few micro-batches, or an odd number of them.
    """
    if stages % 2 or micro_batches % 2 or micro_batches < 2 * stages:
        raise ValueError(f"{stages} stages must be even, and {micro_batches} micro-batches even and twice as many")
    return [_Both(stage, stages, micro_batches // 2).order() for stage in range(stages)]


class _Both:
    """One stage of DualPipe: direction 0 is the one whose model begins nearer to this stage."""

    def __init__(self, stage: int, stages: int, each: int) -> None:
        self.stage, self.stages, self.each = stage, stages, each
        self.near = 0 if stage < stages // 2 else 1
        self.done = {(kind, side): 0 for kind in "FB" for side in (0, 1)}
        self.waiting: list[Pass] = []
        self.made: Order = []

    def next(self, kind: str, side: int, *, split: bool = False) -> Pass:
        """Returns the next pass of a direction, and remembers its weight pass where that waits."""
        copy = side if self.near == 0 else 1 - side
        piece = self.stage if copy == 0 else self.stages - 1 - self.stage
        micro = self.done[kind, side]
        self.done[kind, side] += 1
        if split:
            self.waiting.append(Pass("W", micro, piece, copy))
        return Pass(kind, micro, piece, copy, whole=not split)

    def weights(self) -> None:
        """Adds the weight pass that has waited longest."""
        if self.waiting:
            self.made.append((self.waiting.pop(0),))

    def order(self) -> Order:
        """Returns what the stage does."""
        half = self.stages // 2
        place = min(self.stage, self.stages - 1 - self.stage)
        outer, add = half - place - 1, self.made.append
        for _ in range(2 * outer):
            add((self.next("F", 0),))
        for _ in range(place + 1):
            add((self.next("F", 0),))
            add((self.next("F", 1),))
        for _ in range(outer):
            add((self.next("B", 1, split=True),))
            self.weights()
            add((self.next("F", 1),))
        for _ in range(self.each - self.stages + place + 1):
            add((self.next("F", 0), self.next("B", 1)))
            add((self.next("F", 1), self.next("B", 0)))
        for _ in range(outer):
            add((self.next("B", 1),))
            add((self.next("F", 1), self.next("B", 0)))
        for turn in range(place + 1):
            late = turn >= (place + 1) // 2
            add((self.next("B", 1, split=late),))
            add((self.next("B", 0, split=late or (place % 2 == 0 and turn == place // 2)),))
        for _ in range(outer):
            self.weights()
            add((self.next("B", 0, split=True),))
        while self.waiting:
            self.weights()
        return self.made
