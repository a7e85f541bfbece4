"""Three sizes of the application's model: Llamas trained on synthetic logs, each kept under a hash of what made it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.base.files import write_atomic
from fleetcast.runtime.llm.shape import Shape, read_shape
from fleetcast.runtime.measure.trial import contexts

VOCAB: Final = 512
CONTEXT: Final = 256
TRAINED: Final = 3000
"""Logs to train on."""
SEEDS: Final = (1, 2)
"""Of the logs to train on, and of the ones that are asked."""
LENGTH: Final = 160
"""Tokens of a training window: a log and its story, about."""
QUIET: Final = 0.02
"""Weight of a log's own tokens in the loss, by a story's: numbers drawn at random cannot be foreseen."""
END: Final = 1
"""Id of the token that ends a story."""
_SOURCES: Final = ("trial/contexts.py", "trial/small.py", "../training/lm.py", "../training/muon.py",
                   "../training/tokens.py", "../training/forward.py")  # fmt: skip


@dataclass(frozen=True)
class Size:
    """One size.

    Attributes:
        name: of the model.
        hidden: elements of the residual stream.
        layers: of the model.
        heads: query heads, as many for keys and values.
        steps: of training.
        batch: windows a step.
        rate: highest learning rate.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    steps: int
    batch: int = 8
    rate: float = 1e-2


SIZES: Final = (Size("small", 32, 1, 2, 100), Size("medium", 160, 3, 5, 200), Size("large", 320, 5, 5, 150))
"""Of about 0.03, 1 and 6 million parameters."""
QUICK: Final = (Size("small", 32, 1, 2, 20), Size("medium", 160, 3, 5, 4), Size("large", 320, 5, 5, 2))
"""The same with almost no training, to see whether all runs."""


def trained(size: Size, folder: Path | None = None, progress: Callable[[int, float], None] | None = None) -> Path:
    """Returns the folder of a trained model, trained now unless one of the same hash is there.

    Args:
        size: what to train.
        folder: keeps the models; None = one in the temporary folder.
        progress: is told (step, loss).

    Raises:
        MissingExtra: torch, safetensors or tokenizers is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("tokenizers", "torch") from None
    from fleetcast.runtime.training.folder import config, save
    from fleetcast.runtime.training.lm import train
    from fleetcast.runtime.training.tokens import train_tokenizer

    here = Path(__file__).resolve().parent.parent
    depends = [json.dumps(asdict(size)), *((here / name).read_text(encoding="utf-8") for name in _SOURCES)]
    mark = hashlib.sha256("\0".join(depends).encode()).hexdigest()[:16]
    place = (folder or Path(tempfile.gettempdir()) / "fleetcast-trial") / f"{size.name}-{mark}"
    if (place / "training.json").is_file():
        return place
    logs = contexts.logs(TRAINED, SEEDS[0])
    tokenizer = train_tokenizer([log.text() + log.story for log in logs], VOCAB)
    words = tokenizers.Tokenizer.from_str(tokenizer)
    texts, stories = (words.encode_batch(part) for part in ([g.text() for g in logs], [g.story for g in logs]))
    stream = np.array([i for log, story in zip(texts, stories, strict=True) for i in (*log.ids, *story.ids, END)])
    table = config(
        hidden=size.hidden, layers=size.layers, heads=size.heads, vocab=VOCAB, context=CONTEXT, tied=True, begin=0,
        end=END,
    )  # fmt: skip
    found = train(
        read_shape(table), stream, steps=size.steps, batch=size.batch, length=LENGTH, rate=size.rate, held=stream[:1],
        loss=_stories(texts[0].ids[-1]), progress=progress,
    )  # fmt: skip
    save(place, table, found.weights, tokenizer=tokenizer)
    said = {"size": asdict(size), "seconds": found.seconds, "losses": found.losses}
    write_atomic(place / "training.json", json.dumps(said) + "\n")
    return place


def _stories(arrow: int) -> Callable[[Shape, Mapping[str, Any], Any, Any], Any]:
    """Returns the loss that counts the tokens after ``arrow`` up to the end, and others by `QUIET`."""
    import torch
    from torch.nn import functional

    from fleetcast.runtime.training.forward import forward

    def loss(shape: Shape, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Any:
        at = torch.arange(inputs.shape[1]).expand_as(inputs)
        begun = torch.where(inputs == arrow, at, -1).cummax(1).values
        ended = torch.where(inputs == END, at, -1).cummax(1).values
        weight = torch.where(begun > ended, 1.0, QUIET).flatten()
        each = functional.cross_entropy(
            forward(shape, weights, inputs).flatten(0, 1).float(), targets.flatten(), reduction="none"
        )
        return (each * weight).sum() / weight.sum()

    return loss
