"""Operators to forecast: 200 of the kinds that `fleetcast measure` knows, drawn with a seed. Synthetic.

Shapes are log-uniform within ranges that transformer inference on a CPU meets. ``draw(SEED)`` is the population that
forecasts are judged on; anything tried while the forecast was made used other seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fleetcast.runtime.measure import operators as op
from fleetcast.runtime.measure.operators import Operator

SEED = 2026
MOST_FLOPS = 5e8
COUNTS = {
    "product": 60, "vector": 20, "elementwise": 50, "reduction": 20, "gather": 15,
    "softmax": 10, "normalise": 8, "feed-forward": 8, "attention": 6, "embedding": 3,
}  # fmt: skip


def draw(seed: int) -> list[Operator]:
    """Returns the 200 operators of a seed."""
    random = np.random.default_rng(seed)

    def size(low: float, high: float) -> int:
        return round(float(np.exp(random.uniform(np.log(low), np.log(high)))))

    def dtype() -> str:
        return str(random.choice(["float32", "float64"]))

    def product() -> Operator:
        while True:
            m, k, n = size(8, 1024), size(16, 2048), size(16, 2048)
            batch = size(2, 32) if random.random() < 0.25 else 1
            if 2.0 * m * k * n * batch <= MOST_FLOPS:
                return op.product(m, k, n, dtype(), batch)

    def elementwise() -> Operator:
        return op.elementwise(str(random.choice(["copy", "add", "multiply", "exp"])), size(1e3, 4e6), dtype())

    def reduction() -> Operator:
        return op.reduction(str(random.choice(["sum", "max"])), size(16, 1024), size(64, 4096), dtype())

    make: dict[str, Callable[[], Operator]] = {
        "product": product,
        "vector": lambda: op.product(1, size(128, 4096), size(128, 4096), dtype()),
        "elementwise": elementwise,
        "reduction": reduction,
        "gather": lambda: op.gather(size(1e3, 3e5), size(8, 256), size(100, 1e4), dtype()),
        "softmax": lambda: op.softmax(size(16, 512), size(128, 4096), dtype()),
        "normalise": lambda: op.normalise(size(16, 512), size(128, 4096), dtype()),
        "feed-forward": lambda: op.feed_forward(size(8, 64), size(128, 512), size(256, 1536), dtype()),
        "attention": lambda: op.attention(size(2, 8), size(16, 128), size(64, 512), int(random.choice([64, 128]))),
        "embedding": lambda: op.embedding(size(1e4, 1e5), size(64, 512), size(32, 1024), dtype()),
    }
    return [make[kind]() for kind, count in COUNTS.items() for _ in range(count)]
