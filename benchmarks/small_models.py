"""Small language models trained on the text that the project itself is: its pages, its sources, its tables.

    python -m benchmarks.small_models [NAME] [DOMAIN]      trains one, or finds it trained, and prints its folder

A trained folder is kept in the temporary folder under a hash of everything that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.files import write_atomic
from fleetcast.runtime.training.tokens import BYTES, as_bytes, byte_tokenizer, encode, train_tokenizer

ROOT: Final = Path(__file__).resolve().parent.parent
DOMAINS: Final = {
    "prose": ("README.md", "docs/*.md"),
    "code": ("src/fleetcast/**/*.py", "benchmarks/*.py"),
    "data": ("src/fleetcast/**/*.toml", "src/fleetcast/**/*.csv", "examples/*.toml"),
}
"""Files of each kind of text, by pattern."""
HELD: Final = 10
"""Every so many-th piece of a text is kept back from training."""
TRAINING: Final = ("steps", "batch", "length", "seed", "rate")
PIECE: Final = 2048
"""Characters of a piece."""
MODELS: Final[dict[str, dict[str, Any]]] = {
    "nano": {
        "shape": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "width": 192, "tied": True},
        "steps": 150, "batch": 16, "length": 96,
    },
    "small": {
        "shape": {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "width": 384},
        "steps": 200, "batch": 16, "length": 128,
    },
    "medium": {
        "shape": {"hidden": 256, "layers": 6, "heads": 8, "kv_heads": 4, "width": 704},
        "steps": 400, "batch": 16, "length": 128,
    },
    "words": {
        "shape": {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "width": 384, "vocab": 1024, "tied": True},
        "steps": 200, "batch": 16, "length": 64,
    },
}  # fmt: skip
"""By name: a shape and how it is trained. A vocabulary above the bytes' is byte-level BPE learnt on the same text."""


@cache
def text(domain: str) -> tuple[str, str]:
    """Returns (training, held-out) text of a domain, or of all of them in turn for "mixed".

    Every tenth piece of 2,048 characters is held out, so both cover all files.
    """
    if domain == "mixed":
        both = [text(name) for name in DOMAINS]
        least = min(len(a) for a, _ in both)
        few = min(len(b) for _, b in both)
        return "".join(a[:least] for a, _ in both), "".join(b[:few] for _, b in both)
    paths = sorted({path for pattern in DOMAINS[domain] for path in ROOT.glob(pattern)})
    whole = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    pieces = [whole[i : i + PIECE] for i in range(0, len(whole), PIECE)]
    held = pieces[HELD - 1 :: HELD]
    return "".join(p for i, p in enumerate(pieces) if (i + 1) % HELD), "".join(held)


def corpus(domain: str, tokenizer: str = "") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (training, held-out) ids of a domain.

    Args:
        domain: "prose", "code", "data" or "mixed".
        tokenizer: content of a tokenizer.json; "" = one id a byte.
    """
    train, held = text(domain)
    if not tokenizer:
        return as_bytes(train), as_bytes(held)
    return encode(tokenizer, train), encode(tokenizer, held)


def trained(name: str = "small", domain: str = "mixed", **changes: Any) -> Path:
    """Returns the folder of a trained model, with its ``training.json``: losses, seconds and the held-out score.

    Args:
        name: of `MODELS`.
        domain: as for `corpus`.
        changes: of the training: steps, batch, length, seed, rate; or of the shape.
    """
    from fleetcast.runtime.training.folder import config, save
    from fleetcast.runtime.training.lm import train

    recipe = dict(MODELS[name])
    shape = recipe.pop("shape")
    shape = shape | {key: value for key, value in changes.items() if key not in TRAINING}
    recipe |= {key: value for key, value in changes.items() if key in TRAINING}
    sources = [
        ROOT / f"src/fleetcast/runtime/training/{part}.py" for part in ("forward", "lm", "muon", "tokens", "folder")
    ]
    depends = [json.dumps([domain, shape, recipe], sort_keys=True), *text(domain), *(p.read_text() for p in sources)]
    mark = hashlib.sha256("\0".join(depends).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "fleetcast-small-models" / f"{name}-{domain}-{mark}"
    if (folder / "training.json").is_file():
        return folder
    learnt = shape.get("vocab", BYTES) > BYTES
    tokenizer = train_tokenizer([text(domain)[0]], shape["vocab"]) if learnt else byte_tokenizer()
    table = config(**shape) if not learnt else config(**shape, begin=0, end=1)
    tokens, held = corpus(domain, tokenizer if learnt else "")
    from fleetcast.runtime.llm.shape import read_shape

    found = train(read_shape(table), tokens, held=held[: 200 * recipe["length"]], **recipe)
    save(folder, table, found.weights, tokenizer=tokenizer)
    scored = found.held
    assert scored is not None
    said = {
        "domain": domain, "recipe": recipe, "steps": found.steps, "seconds": found.seconds,
        "losses": found.losses, "held": {"loss": scored.loss, "accuracy": scored.accuracy, "tokens": scored.tokens},
    }  # fmt: skip
    write_atomic(folder / "training.json", json.dumps(said) + "\n")
    return folder


if __name__ == "__main__":
    place = trained(*sys.argv[1:3])
    said = json.loads((place / "training.json").read_text())
    print(f"{place}\n{said['steps']} steps in {said['seconds']:.1f} s; held out: {said['held']}")
