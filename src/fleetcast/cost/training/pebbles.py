"""A device's passes forward and back as a pebble game: what a plan keeps, computes again or sends to its host.

Values are each layer's input and the rest of its activations, in parts that a plan treats alike; gradients of the
stream; weights and their gradients where they lie with the host. The moves are those of the plan. Fast memory is what
states that stay leave of the device. Computing and moving do not overlap in the game: its cost is work, not time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fleetcast.cost.pebbling.dag import Dag
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move, game

Way = Literal["kept", "again", "away"]


@dataclass(frozen=True)
class Part:
    """Some activations of a layer: B, s in which they are computed, and what becomes of them until the pass back."""

    name: str
    size: float
    seconds: float
    way: Way


@dataclass(frozen=True)
class Passes:
    """What a device computes and holds between a forward pass and the pass back, layer by layer, all alike.

    Attributes:
        layers: whose activations it holds at once: of a stage, times its micro-batches in flight.
        boundary: B of a layer's input, and of the gradient of it.
        boundary_way: "kept" or "away".
        parts: the layer's other activations.
        output: s in which its output is computed from them.
        backward: s of its pass back.
        head: s of embedding, head and loss.
        logits: B that the loss has at once.
        weights: B of a layer's weights that come from the host for each pass; 0 = they stay.
        gradients: B of a layer's gradients that go to the host; 0 = they stay.
        red: B of the device that all of this may take.
        link: B/s to and from the host.
    """

    layers: int
    boundary: float
    boundary_way: Way
    parts: tuple[Part, ...]
    output: float
    backward: float
    head: float
    logits: float
    weights: float
    gradients: float
    red: float
    link: float


def pebbles(of: Passes) -> tuple[Game, list[Move]]:
    """Returns the game and the plan's moves."""
    parents: list[tuple[int, ...]] = []
    work, size, names = [], [], []

    def node(name: str, inputs: Sequence[int], seconds: float, bytes_: float) -> int:
        parents.append(tuple(inputs))
        work.append(seconds)
        size.append(bytes_)
        names.append(name)
        return len(parents) - 1

    n = of.layers
    batch = node("batch", (), 0.0, 0.0)
    held = [node(f"weights of layer {i + 1}", (), 0.0, of.weights) for i in range(n)] if of.weights else []
    inputs, kept = [node("input of layer 1", (batch,), 0.0, of.boundary)], []
    for i in range(n):
        reads = (inputs[i], *held[i : i + 1])
        kept.append([node(f"{p.name} of layer {i + 1}", reads, p.seconds, p.size) for p in of.parts])
        inputs.append(
            node(f"input of layer {i + 2}" if i < n - 1 else "output", (*reads, *kept[i]), of.output, of.boundary)
        )
    loss = node("loss", (inputs[n],), of.head, of.logits)
    back = [node("gradient of the output", (loss,), 0.0, of.boundary)]
    sent = []
    for i in reversed(range(n)):
        reads = (back[-1], inputs[i], *kept[i], *held[i : i + 1])
        if of.gradients:
            sent.append(node(f"gradients of layer {i + 1}", reads, of.backward / 2.0, of.gradients))
        share = 0.5 if of.gradients else 1.0
        back.append(node(f"pass back through layer {i + 1}", reads, share * of.backward, of.boundary if i else 0.0))
    dag = Dag(tuple(parents), tuple(work), tuple(size), tuple(names))
    made: list[Move] = [(LOAD, 0, batch), (COMPUTE, 0, inputs[0]), (DELETE, 0, batch)]

    def leave(v: int, way: Way) -> None:
        if way == "away":
            made.append((SAVE, 0, v))
        if way != "kept":
            made.append((DELETE, 0, v))

    for i in range(n):
        made.extend((LOAD, 0, w) for w in held[i : i + 1])
        made.extend((COMPUTE, 0, v) for v in (*kept[i], inputs[i + 1]))
        made.extend((DELETE, 0, w) for w in held[i : i + 1])
        for v, part in zip(kept[i], of.parts, strict=True):
            leave(v, part.way)
        leave(inputs[i], of.boundary_way)
    made += [(COMPUTE, 0, loss), (DELETE, 0, inputs[n]), (COMPUTE, 0, back[0]), (DELETE, 0, loss)]
    for step, i in enumerate(reversed(range(n))):
        made.extend((LOAD, 0, w) for w in held[i : i + 1])
        if of.boundary_way == "away":
            made.append((LOAD, 0, inputs[i]))
        made.extend((LOAD, 0, v) for v, p in zip(kept[i], of.parts, strict=True) if p.way == "away")
        made.extend((COMPUTE, 0, v) for v, p in zip(kept[i], of.parts, strict=True) if p.way == "again")
        if sent:
            made += [(COMPUTE, 0, sent[step]), (SAVE, 0, sent[step]), (DELETE, 0, sent[step])]
        made.append((COMPUTE, 0, back[step + 1]))
        made.extend((DELETE, 0, v) for v in (back[step], *kept[i], inputs[i], *held[i : i + 1]))
    made.append((SAVE, 0, back[-1]))
    return game(
        dag, red=of.red, g=1.0 / of.link, unit="s", about="activations of one device, computed and moved in turn"
    ), made
