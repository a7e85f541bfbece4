"""Whether the search of training plans finds the best one: against loops over every plan, each costed alone."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, main, timer
from fleetcast.cost.training.memory import fits
from fleetcast.cost.training.step import step
from fleetcast.search.training.space import space
from tests.search.plain_training import LARGEST, Case, apart, best, case, searched

SYSTEM = 39
COMMAND = "python -m benchmarks.optimality_training"
SPACES = 200


def by_rule(found: Case) -> float:
    """Returns s of the plan that a rule of thumb takes; infinite where none fits.

    The least model parallelism that fits, tensor before pipeline; of that the largest micro-batch, and least recompute.
    """
    q = found.question
    plans = space(q).plans(np.arange(len(space(q)), dtype=np.int64))
    held = fits(q.network, found.job, plans, found.system)
    if not held.any():
        return float("inf")
    plans = plans.take(held)
    order = np.lexsort((plans.zero, plans.recompute, -plans.micro_batch, plans.pipeline, plans.tensor * plans.pipeline))
    return float(step(q.network, found.job, plans.take(order[:1]), found.system)["total"][0])


def records(quick: bool) -> list[Record]:
    """Returns on how many random spaces search and loops agree."""
    count = 20 if quick else SPACES
    agree, rule, plans, none, largest, lost = 0, 0, 0, 0, 0.0, []
    with timer() as spent:
        for seed in range(count):
            found = case(seed)
            loops = best(found)
            off = apart(loops, searched(found))
            agree, largest = agree + (off < 1e-9), max(largest, off)
            plans += loops.plans
            if not loops.layouts:
                none += 1
                continue
            taken = by_rule(found) / loops.seconds - 1.0
            rule += taken < 1e-9
            lost.append(taken)
    return [
        Record(
            system=SYSTEM, claim="random spaces in which the search of training plans is brute force to the last plan",
            paper=Paper(value=count, unit="spaces", setting="our bar: no paper promises an optimum"),
            ours=Ours(value=agree, unit="spaces", spread=f"largest difference {largest:.1e} of a layout's best",
                      setting=f"{plans:,} plans in spaces of up to {LARGEST:,}, in {none} nothing fits; plans counted, "
                      "plans that fit, and the best of every layout, against loops with plain numbers"),
            null=Null(value=rule, what="the least model parallelism that fits, with the largest micro-batch, is best; "
                      f"it costs {100 * float(np.mean(lost)):.0f} % more on average"),
            bar=f"all {count}", holds=agree == count, reproduced="other setting",
            reason="our own bar; no paper makes the claim", seconds=round(spent.seconds, 1),
            command=COMMAND + (" --quick" if quick else ""),
        )
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
