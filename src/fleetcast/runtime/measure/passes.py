"""Iterations of the engine on small random models: what beside products takes time, and how much.

Everything is timed through `Engine.step`, so that what is measured is what runs: scheduling, forward pass, sampling.
The models differ in what costs are told apart by (heads, layers, vocabulary), and the iterations in sequences, context
and pieces of prompts. `fitting` turns the times into coefficients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetcast.policy.batch import Batch, Rule, View, fill
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import blocks_of

Clock = Callable[[], float]

_COMMON = {
    "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0, "tie_word_embeddings": False, "torch_dtype": "float32",
}  # fmt: skip


def config(
    hidden: int, heads: int, kv_heads: int, head_dim: int, width: int, layers: int, vocab: int
) -> dict[str, Any]:  # fmt: skip
    """Returns the config.json of a model of the Llama family."""
    return _COMMON | {
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "intermediate_size": width, "num_hidden_layers": layers, "vocab_size": vocab,
    }  # fmt: skip


MODELS: Mapping[str, Mapping[str, Any]] = {
    "narrow": config(64, 2, 2, 32, 128, 12, 256),
    "heads": config(128, 8, 8, 64, 128, 4, 512),
    "grouped": config(256, 8, 2, 64, 512, 6, 8192),
    "square": config(512, 8, 8, 64, 1408, 8, 1024),
    "wide": config(768, 12, 4, 64, 2048, 2, 4096),
}
"""Models that costs are measured on; synthetic, random weights."""


@dataclass(frozen=True, slots=True)
class Load:
    """An iteration to time: ``decodes`` sequences of ``context`` tokens each, and a piece of a prompt.

    Attributes:
        decodes: sequences.
        context: tokens of each, before the iteration.
        piece: tokens of the prompt that runs beside them; 0 = none.
        cached: tokens of that prompt that earlier pieces cached.
    """

    decodes: int
    context: int = 0
    piece: int = 0
    cached: int = 0


SHORT: Sequence[Load] = (
    Load(1, 16), Load(2, 16), Load(4, 16), Load(8, 16), Load(16, 16), Load(32, 16),
    Load(0, 0, 16), Load(0, 0, 64), Load(0, 0, 256), Load(4, 64, 60), Load(8, 64, 200),
)  # fmt: skip
"""Iterations that are timed on every model."""
LONG: Sequence[Load] = (
    Load(1, 640), Load(4, 640), Load(8, 384), Load(16, 192),
    Load(0, 0, 512), Load(0, 0, 128, 512), Load(0, 0, 256, 256),
)  # fmt: skip
"""Those that are timed on models that attend much beside what they multiply."""
LOADS: Mapping[str, Sequence[Load]] = {
    "narrow": (*SHORT, *LONG), "heads": (*SHORT, *LONG), "grouped": (*SHORT, *LONG), "square": (*SHORT, Load(4, 256)),
    "wide": (*SHORT, Load(4, 256)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timed:
    """An iteration that was timed.

    Attributes:
        decodes: sequences that decoded.
        context: tokens that they attended to, all together.
        piece: tokens of a prompt's piece.
        cached: of that prompt, before it.
        emits: tokens that came out.
        seconds: from the end of the last iteration to the end of this one, the least of all readings.
    """

    decodes: int
    context: int
    piece: int
    cached: int
    emits: int
    seconds: float


class Budget:
    """A batch policy whose token budget may change from one iteration to the next; decodes first."""

    kind, mixed = "budget", True

    def __init__(self) -> None:
        self.chunk = 1 << 16

    def compose(self, view: View) -> Batch:
        """Returns the next iteration."""
        return fill(Rule(256, self.chunk, mixed=True, split=True, refill=True, reserve=False), view)


def time_iterations(
    engine: Engine, budget: Budget, loads: Sequence[Load], *, repeats: int = 3, steps: int = 5,
    clock: Clock = time.perf_counter, progress: Callable[[], None] | None = None,
) -> list[Timed]:  # fmt: skip
    """Returns the least time of each iteration in ``loads``.

    Args:
        engine: without requests; blocks must hold every load.
        budget: its batch policy.
        loads: what to time.
        repeats: how often each is set up.
        steps: iterations that are read each time where only decodes run.
        clock: s.
        progress: called after each round over the loads.
    """
    best: dict[int, Timed] = {}
    for _ in range(repeats):
        for i, load in enumerate(loads):
            for found in _readings(engine, budget, load, steps, clock):
                if i not in best or found.seconds < best[i].seconds:
                    best[i] = found
        if progress is not None:
            progress()
    return [best[i] for i in range(len(loads))]


def _readings(engine: Engine, budget: Budget, load: Load, steps: int, clock: Clock) -> Iterator[Timed]:
    """Yields readings of one load: sets it up with requests of its own, and runs them to their end afterwards."""
    random = _tokens(engine.model.vocab)
    rounds = 1 if load.piece else steps
    decoding = [engine.submit(random(max(1, load.context - 1)), rounds + 3) for _ in range(load.decodes)]
    if decoding:
        engine.step()
        engine.step()  # the first of its kind may set things up
    if load.piece:
        engine.submit(random(load.cached + load.piece), 1)
        if load.cached:
            budget.chunk = load.cached + load.decodes
            engine.step()
            budget.chunk = 1 << 16
    for turn in range(rounds):
        attended = sum(len(r.tokens) for r in decoding)
        begin = clock()
        engine.step()
        seconds = clock() - begin
        if turn or load.piece:
            yield Timed(load.decodes, attended, load.piece, load.cached, load.decodes + bool(load.piece), seconds)
    while engine.load:
        engine.step()
    engine.iterations.clear()


def _tokens(vocab: int) -> Callable[[int], list[int]]:
    state = time.perf_counter_ns()

    def draw(count: int) -> list[int]:
        nonlocal state
        found = []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            found.append((state >> 33) % vocab)
        return found

    return draw


def blocks_for(loads: Sequence[Load], steps: int = 5) -> int:
    """Returns cache blocks that hold every load."""
    return 8 + max(
        load.decodes * blocks_of(load.context + steps + 4) + blocks_of(load.cached + load.piece + 2) for load in loads
    )
