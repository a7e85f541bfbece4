"""Do advised sizes multiply faster? Products on this processor, each advised size beside naive neighbours.

The sizes are drawn from `sizing_inputs.toml`, committed before any was timed. A GPU's tiles are not measured here.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Record, main, timer
from fleetcast.runtime.measure.shapes import Shape, rates
from fleetcast.search.shape.tiles import fit, tiling

COMMAND = "python -m benchmarks.sizing"
INPUTS = Path(__file__).with_name("sizing_inputs.toml")
NOISE = 0.02
"""Two readings of one product differ by about this much here."""


def cases(said: dict[str, Any], name: str, quick: bool) -> list[tuple[Shape, list[Shape]]]:
    """Returns advised products, each with its naive neighbours: as many rows and sums, other columns."""
    random = np.random.default_rng(said["seed"])
    how = tiling("cpu", 1)
    low, high = said[name]
    found = []
    for rows in said["tokens"]:
        for _ in range(4 if quick else said["cases"]):
            k, drawn = (round(float(np.exp(random.uniform(np.log(low), np.log(high))))) for _ in range(2))
            near = range(max(8, drawn - said["reach"]), drawn + said["reach"] + 1)
            best = max(fit(rows, n, 16, how).share for n in near)
            advised = min((n for n in near if fit(rows, n, 16, how).share == best), key=lambda n: abs(n - drawn))
            naive = [n for n in near if fit(rows, n, 16, how).share < best]
            beside = random.choice(naive, said["neighbours"], replace=False)
            found.append(((rows, advised, k), [(rows, int(n), k) for n in beside]))
    return found


def records(quick: bool = False) -> list[Record]:
    """Returns, for small and large layers, how often an advised size is at least as fast as a neighbour."""
    said = tomllib.loads(INPUTS.read_text())
    found = []
    for name in ("small", "large"):
        with timer() as spent:
            table = cases(said, name, quick)
            flat = [shape for advised, beside in table for shape in (advised, *beside)]
            measured = rates(flat, 5 if quick else 40).reshape(len(table), -1)
            again = rates([advised for advised, _ in table], 5 if quick else 40)
        ratio = measured[:, :1] / measured[:, 1:]
        foretold = np.array([
            [fit(*shape, tiling("cpu", 1)).share for shape in (advised, *beside)] for advised, beside in table
        ])  # fmt: skip
        gain = foretold[:, :1] / foretold[:, 1:]
        wins, level = float((ratio >= 1.0).mean()), float((ratio >= 1.0 - NOISE).mean())
        same = float((again >= measured[:, 0]).mean())
        found.append(Record(
            system=10, claim=f"advised sizes at least as fast as naive neighbours on this processor, {name} layers",
            ours=Ours(
                value=round(wins, 3), unit="share",
                spread=f"{level:.0%} within {NOISE:.0%}; measured gain median {np.median(ratio) - 1:+.1%}, "
                f"90th percentile {np.quantile(ratio, 0.9) - 1:+.1%}; foretold median {np.median(gain) - 1:+.1%}",
                setting=f"{ratio.size} pairs, {said[name][0]} to {said[name][1]} elements, fp32, one thread",
            ),
            null=Null(value=round(same, 3), what="the same product read twice: the second reading at least as fast"),
            bar="at least 90 % of pairs", holds=wins >= 0.9, reproduced="other setting",
            reason="the paper sizes for one make of GPU, and none is at hand: only a processor is measured",
            seconds=spent.seconds, command=COMMAND,
        ))  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(records))
