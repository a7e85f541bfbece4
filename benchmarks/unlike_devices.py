"""Fleets of unlike devices: what training on all of them gains over the better part and over the slowest pace.

Nothing here is measured and no paper is reproduced: Holmes (ICPP 2024) lets pipelines cross between clusters whose
network cards differ, its devices are alike. The pairs of groups below were chosen before any was searched.
"""

from __future__ import annotations

import itertools
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import Null, Ours, Paper, Record, main, timer
from fleetcast.policy.place.stages import NicAware, Placement
from fleetcast.scenario.load import load_training
from fleetcast.search.training.planner import search
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.mixed import follow, held_by, iterate, pace
from fleetcast.sim.training.setting import Setting, setting

COMMAND = "python -m benchmarks.unlike_devices"
PAIRS = (
    ((64, "a100-80g-sxm"), (32, "h100-sxm")), ((32, "a100-40g-sxm"), (32, "h100-sxm")),
    ((64, "v100-32g-sxm"), (64, "a100-80g-sxm")),
)  # fmt: skip
MODELS = ("llama-2-13b", "llama-2-70b")
SMALL = (
    (16, "a100-80g-sxm", 8, "h100-sxm", 3), (8, "v100-32g-sxm", 8, "a100-80g-sxm", 2),
    (8, "a100-80g-sxm", 8, "h100-sxm", 4), (16, "l40s", 8, "a100-80g-sxm", 3),
)  # fmt: skip
"""Groups and stages whose every placement is tried."""
LAYERS, BATCHES = 12, (1, 2, 4, 8)
"""Layers of the small model, and micro-batches for each stage."""


def state(devices: str, model: object, batch: int, plan: dict[str, object] | None = None) -> Setting:
    """Returns a training scenario on InfiniBand of 200 Gb/s, resolved."""
    return setting(
        load_training({
            "fleet": {"devices": devices, "network": "infiniband-hdr"},
            "workload": {"kind": "training", "model": model, "sequence": 2048, "batch": batch}, "plan": plan or {},
        })
    )  # fmt: skip


@cache
def shortest(devices: str, model: str) -> float:
    """Returns s of the best plan's iteration, the whole space searched; inf where nothing fits."""
    best = search(state(devices, model, 768), top=1).best
    return float("inf") if best is None else float(best.metrics["iteration_time"])


def gains(quick: bool) -> list[tuple[str, float, float, float]]:
    """Returns (case, speed over the better group alone, over all as the slowest, of both groups' speeds added up)."""
    found = []
    for pair, model in itertools.product(PAIRS[:1] if quick else PAIRS, MODELS[:1] if quick else MODELS):
        names = [f"{count}x {device}" for count, device in pair]
        both = shortest(" + ".join(names), model)
        alone = [shortest(name, model) for name in names]
        slow = shortest(f"{sum(count for count, _ in pair)}x {pair[0][1]}", model)
        ideal = 1.0 / sum(1.0 / time for time in alone)
        found.append((f"{' + '.join(names)}, {model}", min(alone) / both, slow / both, ideal / both))
    return found


def excess(case: tuple[int, str, int, str, int], rounds: int) -> tuple[float, float]:
    """Returns by which share the rule's iteration, and equal stages', is longer than the best of all placements.

    Args:
        case: count and kind of two groups, and stages in all.
        rounds: micro-batches for each stage.
    """
    first, one, second, other, stages = case
    data = (first + second) // stages
    model = {"layers": LAYERS, "hidden": 4096, "heads": 32, "gated": True, "tied": False, "vocab": 32000}
    dtype = "fp16" if "v100" in one else "bf16"
    s = state(f"{first}x {one} + {second}x {other}", model, data * stages * rounds,
              {"pipeline_parallel": stages, "recompute": "full", "dtype": dtype})  # fmt: skip
    rows, job = columns(complete(s, s.scenario.plan).plan), s.job(dtype)
    held = held_by(s.tree.groups, rows)
    assert held is not None
    rule = iterate(s.tree, s.network, job, rows, NicAware(), held, s.systems).time
    own = [pace(s.network, job, rows, system) for system in s.systems]

    def taken(groups: tuple[int, ...], layers: tuple[int, ...]) -> float:
        return follow(s.tree, s.network, job, rows, Placement(groups, layers, own_links=True), own, s.systems).time

    orders = sorted(set(itertools.permutations([0] * held[0] + [1] * held[1])))
    every = [
        taken(groups, tuple(b - a for a, b in itertools.pairwise((0, *cuts, LAYERS))))
        for groups in orders for cuts in itertools.combinations(range(1, LAYERS), stages - 1)
    ]  # fmt: skip
    equal = min(taken(groups, tuple([LAYERS // stages] * stages)) for groups in orders)
    return rule / min(every) - 1.0, equal / min(every) - 1.0


def records(quick: bool = False) -> list[Record]:
    """Returns what all devices gain, and how far the rule is from every placement."""
    with timer() as spent:
        found = gains(quick)
    better, slow, ideal = (min(column) for column in zip(*(row[1:] for row in found), strict=True))
    told = "; ".join(f"{name}: {b:.2f}, {s:.2f}, {i:.2f}" for name, b, s, i in found)
    with timer() as tried:
        cases = list(itertools.product(SMALL[:2] if quick else SMALL, BATCHES))
        over = {(case, rounds): excess(case, rounds) for case, rounds in cases}
    filled = max(rule for (_, rounds), (rule, _) in over.items() if rounds >= 4)
    short = max(rule for (_, rounds), (rule, _) in over.items() if rounds < 4)
    equal = max(null for _, null in over.values())
    return [
        Record(
            system=9, claim="speed on two kinds of device of both groups' own speeds added up, best plans",
            paper=Paper(value=None, setting="the paper's devices are alike"),
            ours=Ours(
                value=round(ideal, 3), unit="of it at least",
                spread=f"over the better group alone, over all as the slowest, of the sum: {told}",
                setting=f"{len(found)} pairs and models, batch of 768 x 2,048 tokens, whole spaces searched",
            ),
            null=Null(
                value=round(max(i / min(b, s) for _, b, s, i in found), 3),
                what=f"the quicker of the better group alone and all at the slowest pace, which take {better:.2f} and "
                f"{slow:.2f} times as long at least",
            ),
            bar="at least 0.85 of the sum, and faster than both nulls in every case",
            holds=ideal >= 0.85 and better > 1.0 and slow > 1.0, reproduced="other setting",
            reason="a forecast compared with forecasts", seconds=spent.seconds, command=COMMAND,
        ),
        Record(
            system=9, claim="longest iteration of the rule on unlike devices over the best of all placements",
            paper=Paper(value=None, setting="the paper compares with no exhaustive search"),
            ours=Ours(
                value=f"{filled:.1%}", spread=f"{short:.1%} with 1 or 2 micro-batches for each stage",
                setting=f"{len(over)} cases of {LAYERS} layers on 2 to 4 stages; 4 and 8 micro-batches for each stage; "
                "every order of stages and every split",
            ),
            null=Null(value=f"{equal:.0%}", what="stages of equal length, best order"), bar="at most 2 %",
            holds=filled <= 0.02, reproduced="other setting",
            reason="the comparison is ours; the rule looks at the longest stage, and few micro-batches wait for the "
            "pipeline to fill as well",
            seconds=tried.seconds, command=COMMAND,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
