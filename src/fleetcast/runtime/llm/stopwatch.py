"""Where a forward pass's time goes, by the terms of a forecast: products, attention, experts, the head and the rest.

Every `EVERY`-th pass of a kind is timed part by part, the others whole, so that timing costs next to nothing; what was
timed in parts is scaled to all passes of its kind (those with a piece of a prompt, and those of decode steps alone).
Calls on a processor return when their work is done, so a clock around them says what they take. On a GPU they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Final

EVERY: Final = 8
"""Of the passes of a kind, one in so many is timed part by part."""
TERMS: Final = ("gemm", "attention", "experts", "head", "elementwise")


@dataclass
class Stopwatch:
    """Times parts of a model's passes, a part without the parts inside it.

    Attributes:
        clock: s.
        on: whether this pass is timed part by part.
        parts: s by kind of pass and term, of those passes.
        sampled: s of those passes as a whole, by kind.
        whole: s of all passes, by kind.
        passes: how many there were, by kind.
    """

    clock: Callable[[], float]
    on: bool = False
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    sampled: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    def begin(self, kind: str) -> None:
        """A pass of a kind begins."""
        count = self.passes.get(kind, 0)
        self.on, self.passes[kind] = count % EVERY == 0, count + 1
        self._seconds = {}

    def end(self, kind: str, seconds: float) -> None:
        """It has ended and took ``seconds``."""
        self.whole[kind] = self.whole.get(kind, 0.0) + seconds
        if not self.on:
            return
        self.on = False
        self.sampled[kind] = self.sampled.get(kind, 0.0) + seconds
        into = self.parts.setdefault(kind, {})
        for term, part in self._seconds.items():
            into[term] = into.get(term, 0.0) + part

    def reset(self) -> None:
        """Forgets what was timed."""
        for table in (self.parts, self.sampled, self.whole, self.passes):
            table.clear()

    def wrap(self, term: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``call``, timed as a part of ``term``."""

        def timed(*args: Any, **named: Any) -> Any:
            if not self.on:
                return call(*args, **named)
            begun = self.clock()
            self._inside.append(0.0)
            try:
                return call(*args, **named)
            finally:
                took, inside = self.clock() - begun, self._inside.pop()
                self._seconds[term] = self._seconds.get(term, 0.0) + took - inside
                if self._inside:
                    self._inside[-1] += took

        return timed

    def terms(self) -> dict[str, float]:
        """Returns s of all passes by term; they add up to all that passes took."""
        found: dict[str, float] = {}
        for kind, whole in self.whole.items():
            scale = whole / self.sampled[kind] if self.sampled.get(kind) else 0.0
            for term, seconds in self.parts.get(kind, {}).items():
                found[term] = found.get(term, 0.0) + seconds * scale
        rest = sum(self.whole.values()) - sum(found.values())
        return {term: found.get(term, 0.0) for term in TERMS[:-1] if term in found} | {"elementwise": max(0.0, rest)}


class Timed:
    """Something that is called and has attributes, whose calls are timed."""

    def __init__(self, inner: Any, call: Callable[..., Any]) -> None:
        self._inner, self._call = inner, call

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Calls it."""
        return self._call(*args, **named)

    def __getattr__(self, name: str) -> Any:
        """Returns what it has."""
        return getattr(self._inner, name)


def watch(model: Any, clock: Callable[[], float]) -> Stopwatch | None:
    """Returns a stopwatch in a model's parts, or None where it has none that are known; `unwatch` takes it out again.

    Args:
        model: a `model.Transformer`.
        clock: s.
    """
    layers = getattr(model, "layers", None)
    if not layers or not all(is_dataclass(layer) and hasattr(layer, "ffn") for layer in layers):
        return None
    if model.device.type != "cpu":
        return None  # calls return before their work is done, and captured steps have no parts
    found = Stopwatch(clock)

    def timed(term: str, inner: Any) -> Timed:
        return Timed(inner, found.wrap(term, inner))

    def ffn(inner: Any) -> Any:
        if hasattr(inner, "experts"):
            return timed("experts", inner)
        names = [name for name in ("gate_up", "up", "down") if hasattr(inner, name)]
        return replace(inner, **{name: timed("gemm", getattr(inner, name)) for name in names})

    model.unwatched = (list(layers), model.head)
    model.layers = [
        replace(layer, qkv=timed("gemm", layer.qkv), out=timed("gemm", layer.out), ffn=ffn(layer.ffn))
        for layer in layers
    ]
    model.head = timed("head", model.head)
    model._attend = found.wrap("attention", type(model)._attend.__get__(model))  # the products inside it are its parts
    return found


def unwatch(model: Any) -> None:
    """Takes a stopwatch out of a model."""
    model.layers, model.head = model.unwatched
    del model.unwatched, model._attend
