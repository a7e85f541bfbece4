"""Applies techniques to a folder, one after the other, and says what was foretold and what came of it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import check_writable, read_text
from fleetcast.base.spec import build, kinds
from fleetcast.runtime import transforms
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.training.lm import Score, score, train
from fleetcast.runtime.training.tokens import as_bytes, encode
from fleetcast.runtime.transforms import Transform
from fleetcast.runtime.transforms.calibrate import LENGTH, Tokens
from fleetcast.runtime.transforms.checkpoint import STORAGE, WEIGHTS, Checkpoint, read, write

TECHNIQUES: Final[Mapping[str, Mapping[str, Any]]] = {
    "quantise-int8": {"kind": "quantise", "bits": 8, "group": 0},
    "quantise-int4": {"kind": "quantise", "bits": 4},
    "prune": {"kind": "drop_layers", "share": 0.25},
    "narrow": {"kind": "narrow"},
    "distil": {"kind": "distil"},
}
"""Short names: those of the deployability advisor (`fleetcast.search.advice.techniques`), and `narrow`."""
HELD: Final = 0.1
"""Share of the text, at its end, that is kept from the transforms to score them on."""
WINDOWS: Final = 100
"""Windows of the kept text that are scored."""
HEALING: Final = 3e-3
"""Learning rate of training after a cut."""


@dataclass(frozen=True)
class Made:
    """A folder that was made.

    Attributes:
        technique: that was applied, as asked for.
        predicted: bytes of tensors, foretold from the config.
        tensors: bytes of tensors, as they are.
        file: bytes of the weights' file: its header names every tensor.
        source: bytes of the source's tensors.
        before: score of the source on text that the transform did not see; None without text.
        after: of what was made.
    """

    technique: str
    predicted: float
    tensors: float
    file: float
    source: float
    before: Score | None
    after: Score | None

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON."""
        return asdict(self)


def parse(technique: str, seed: int = 0) -> list[tuple[str, Transform]]:
    """Returns the transforms that a text names: ``prune + quantise-int4``, ``narrow ffn=0.5 + quantise bits=8``.

    Args:
        technique: names and settings.
        seed: of each that draws and is told no other.

    Raises:
        SpecError: an unknown technique, kind or setting, or a value of the wrong type.
    """
    found = []
    for part in technique.split("+"):
        name, *settings = part.split() or [""]
        known = (*TECHNIQUES, *kinds(transforms))
        if name not in known and ":" not in name:
            limit = f"one of {', '.join(known)}, with settings as key=value, joined by +"
            raise SpecError("technique", "is unknown", value=name, limit=limit, hint=closest(name, known))
        table = dict(TECHNIQUES.get(name, {"kind": name}))
        for setting in settings:
            key, _, value = setting.partition("=")
            table[key] = _value(value)
        step = build(transforms, table, f"technique {name}")
        if "seed" not in table and hasattr(step, "seed"):
            step.seed = seed
        found.append((name, step))
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def transform(
    folder: str | Path,
    technique: str,
    out: str | Path,
    *,
    text: str = "",
    heal: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Applies ``technique`` to the model in ``folder`` and writes what comes of it to ``out``.

    Args:
        folder: a Hugging Face folder.
        technique: one or several, see `parse`.
        out: the folder to write.
        text: nine tenths are to calibrate on or to learn from, the last tenth to score on; "" = weights alone.
        heal: steps of training after each transform that leaves the matrices plain; distilled ones need none.
        seed: of what is drawn.
        progress: is told (transforms done, transforms).

    Raises:
        SpecError: a technique, setting or folder that cannot be; too little text. Unsupported: a model that is not
            transformed.
    """
    steps = parse(technique, seed)
    if heal < 0 or (heal and not text):
        problem = "needs text to train on" if heal > 0 else "cannot be"
        raise SpecError("heal", problem, value=heal, limit="steps, 0 or more, with text", hint="Give --text FILE")
    if Path(out).resolve() == Path(folder).resolve():
        raise SpecError("out", "is the source", value=str(out), limit="another folder", hint="Choose another --out")
    check_writable(Path(out) / WEIGHTS)
    current = read(folder)
    begun = _bytes(current)
    tokens, held = _split(current, text) if text else (None, None)
    before = _score(current, held)
    predicted = 0.0
    for done, (name, step) in enumerate(steps, 1):
        predicted = step.predict_bytes(current.config)
        current = step.apply(current, tokens)
        if heal and tokens is not None and STORAGE not in current.config and name != "distil":
            current = healed(current, tokens, heal, seed=seed)
        if progress is not None:
            progress(done, len(steps))
    after = _score(current, held)
    file = write(out, current)
    return Made(technique, predicted, _bytes(current), float(file), begun, before, after)


def healed(source: Checkpoint, tokens: Tokens, steps: int, *, batch: int = 16, seed: int = 0) -> Checkpoint:
    """Returns a model trained on for some steps, at a third of a first training's rate."""
    shape, dtype = read_shape(source.config), next(iter(source.tensors.values())).dtype
    found = train(
        shape, tokens, steps=steps, batch=batch, length=LENGTH, rate=HEALING, seed=seed, held=tokens[:0],
        weights=source.weights(),
    ).weights  # fmt: skip
    return Checkpoint(source.config, {name: value.to(dtype) for name, value in found.items()}, source.companions)


def text_of(path: str | Path) -> str:
    """Returns the text of a file, or of all .txt, .md and .py files of a folder.

    Raises:
        SpecError: neither, or not UTF-8.
    """
    path = Path(path)
    if not path.is_dir():
        return read_text(path)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".md", ".py"))
    if not files:
        raise SpecError(str(path), "holds no text", limit=".txt, .md or .py files", hint="Name a text file")
    return "\n".join(read_text(p) for p in files)


def _split(source: Checkpoint, text: str) -> tuple[Tokens, Tokens]:
    known = source.companions.get("tokenizer.json")
    tokens = as_bytes(text) if known is None else encode(known.decode(), text)
    cut = int(len(tokens) * (1 - HELD))
    if len(tokens) - cut <= LENGTH:
        limit = f"more than {int(LENGTH / HELD)} tokens: a tenth of them is scored"
        raise SpecError("text", "is too short", value=len(tokens), limit=limit, hint="Give more text")
    return tokens[:cut], tokens[cut:]


def _score(source: Checkpoint, held: Tokens | None) -> Score | None:
    if held is None:
        return None
    plain = {key: value for key, value in source.config.items() if key != STORAGE}
    return score(read_shape(plain), source.weights(), np.asarray(held), length=LENGTH, windows=WINDOWS)


def _bytes(source: Checkpoint) -> float:
    return float(sum(value.numel() * value.element_size() for value in source.tensors.values()))
