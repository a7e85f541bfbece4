"""Measures the CUDA device at hand: kernels, the engine, a peer, training, power. Writes a JSON file for each part.

    python -m benchmarks.gpu_run OUT [--quick] [--parts kernels engine peer house training power checks]

A part that fails says so in its file, and the others go on. `benchmarks.gpu` reads what this has written.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("checks", "power", "kernels", "engine", "house", "training", "peer")


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="few sizes, small models")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    begun = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begun:6.1f}] {text}", flush=True)

    import torch

    from benchmarks import gpu_engine, gpu_kernels, gpu_power, gpu_training

    torch.randn(1, device="cuda")
    meter = gpu_power.Meter()
    card = torch.cuda.get_device_properties(0)
    facts = meter.facts() | {
        "card": card.name, "memory": card.total_memory, "units": card.multi_processor_count, "l2": card.L2_cache_size,
        "torch": torch.__version__, "cuda": torch.version.cuda, "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "energy_counter": meter.nvml is not None,
    }  # fmt: skip
    say(str(facts))
    options.out.mkdir(parents=True, exist_ok=True)
    quick = options.quick
    measures: dict[str, Callable[[], Any]] = {
        "checks": lambda: gpu_engine.checks(say, quick),
        "power": lambda: gpu_power.phases(meter, 0.5 if quick else 2.0),
        "kernels": lambda: gpu_kernels.measure(quick, say),
        "engine": lambda: gpu_engine.speed(say, meter, quick),
        "house": lambda: gpu_engine.house(options.out, say, quick),
        "training": lambda: gpu_training.measure(say, meter, quick),
        "peer": lambda: gpu_engine.peer(say, quick),
    }
    failed = False
    for part in options.parts:
        try:
            found: Any = measures[part]()
        except Exception as error:
            traceback.print_exc()
            found, failed = {"failed": f"{type(error).__name__}: {error}"}, True
        text = json.dumps({"facts": facts, "quick": quick, part: found}, indent=1)
        (options.out / f"{part}.json").write_text(text, encoding="utf-8")
        torch.cuda.empty_cache()
        say(f"{part} done")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
