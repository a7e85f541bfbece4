"""Named random streams: one seed, one generator per name, no global state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def rng(seed: int, *names: str) -> np.random.Generator:
    """Returns the generator of the stream ``names`` under ``seed``; equal arguments, equal numbers.

    A stream's numbers do not change when another stream is added or drawn from.
    """
    import numpy as np

    key = hashlib.sha256("/".join(names).encode()).digest()
    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))
