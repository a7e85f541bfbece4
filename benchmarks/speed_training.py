"""How fast training plans are checked, timed and searched: CPU time of all processes, beside other tools' rates.

The space is GPT-3's: 175 billion parameters on 1,024 A100s of 80 GB, 1,536 sequences of 2,048 tokens, as calculon's own
example has it. Every plan is asked; the rates of memory and of time are counted apart, each in a fresh process. Plans
that differ in nothing that memory depends on share a verdict: the rate is also given where each is computed for itself.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import Null, Ours, Paper, Record, child, main

SYSTEM = 39
COMMAND = "python -m benchmarks.speed_training"
LEAST = 11_700_000
"""Plans of calculon's space of the same model, fleet and batch, counted in our study of it."""
READ = "read from our study of the tools, run there on one core of a like machine: calculon 133 to 205 plans per CPU-s"
OTHER = "our bar, not the paper's claim: speed depends on machine and tool"
OVERLAPS = ((), ("tensor",), ("pipeline",), ("data",), ("tensor", "pipeline"), ("tensor", "data"),
            ("pipeline", "data"), ("tensor", "pipeline", "data"))  # fmt: skip
AXES = (
    "schedule, interleave, micro-batch, recompute, sequence parallelism, ZeRO, off-load, messages, fusion, 8 overlaps"
)


def measured(name: str, *arguments: Any) -> dict[str, float]:
    """Returns what a function of this script returns, with the most that its process held, ``peak`` (B)."""
    found: dict[str, float] = globals()[name](*arguments)
    return found | {"peak": peak()}


def apart(function: Callable[..., Any], *arguments: Any) -> dict[str, float]:
    """Returns the same from a fresh interpreter, with the CPU seconds of all its processes, ``cpu``."""
    found, used = child("speed_training", measured, function.__name__, *arguments)
    return dict(found) | {"cpu": used}


def peak() -> float:
    """Returns the most that this process held, B."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def case(quick: bool) -> tuple[Any, Any, Any, Any]:
    """Returns (space, network, job, system) of 175B on 1,024 A100s; of 128 of them where ``quick``."""
    from fleetcast.cost.training import network, system
    from fleetcast.scenario.fleet.spec import Fleet
    from fleetcast.scenario.fleet.tree import resolve
    from fleetcast.scenario.training_plan import TrainingPlan
    from fleetcast.scenario.workload import catalog
    from fleetcast.search.training.space import Question, space

    devices = 128 if quick else 1024
    model = network.of(catalog.model("gpt3-175b"))
    plan = TrainingPlan(
        schedule=("gpipe", "1f1b", "interleaved", "zero-bubble"), overlap=OVERLAPS,
        tensor_messages=("all_reduce", "scatter_gather"), fused_attention=(False, True),
    )  # fmt: skip
    job = network.Job(2048, 1536)
    every = space(Question(model, job.sequence, job.batch, devices, plan))
    return every, model, job, system.of(resolve(Fleet(devices=f"{devices}x a100-80g-sxm")).groups[0])


def searched(quick: bool) -> dict[str, float]:
    """Returns what a search of the whole space found, and the seconds of its best plan."""
    from fleetcast.search.training.exhaust import exhaust

    every, model, job, system = case(quick)
    start = time.process_time()
    found = exhaust(every, model, job, system)
    used = time.process_time() - start
    return {"plans": found.checked, "fits": found.fits, "best": float(found.value.min()), "seconds": used}


def checked(quick: bool) -> dict[str, float]:
    """Returns CPU seconds of asking every plan for its memory: on devices of one byte, so that none is timed."""
    from dataclasses import replace

    from fleetcast.search.training.exhaust import exhaust

    every, model, job, system = case(quick)
    start = time.process_time()
    found = exhaust(every, model, job, replace(system, memory=1.0))
    return {"plans": found.checked, "fits": found.fits, "seconds": time.process_time() - start}


def each(quick: bool) -> dict[str, float]:
    """Returns CPU seconds of memory computed for every plan by itself, and of time for every plan that fits."""
    import numpy as np

    from fleetcast.cost.training.memory import fits
    from fleetcast.cost.training.step import step
    from fleetcast.search.training.exhaust import CHUNK

    every, model, job, system = case(quick)
    start = time.process_time()
    kept = []
    for first in range(0, len(every), CHUNK):
        numbers = np.arange(first, min(first + CHUNK, len(every)), dtype=np.int64)
        kept.append(numbers[fits(model, job, every.plans(numbers), system)])
    feasible = np.concatenate(kept)
    asked, best = time.process_time() - start, np.inf
    start = time.process_time()
    for first in range(0, len(feasible), CHUNK):
        best = min(best, float(step(model, job, every.plans(feasible[first : first + CHUNK]), system)["total"].min()))
    return {
        "plans": len(every), "fits": len(feasible), "best": best, "memory": asked, "time": time.process_time() - start,
    }  # fmt: skip


def alone(count: int) -> dict[str, float]:
    """Returns plans per CPU second where each is a column of one: the same code with nothing shared at all."""
    import numpy as np

    from fleetcast.cost.training.memory import memory
    from fleetcast.cost.training.step import step

    every, model, job, system = case(True)
    start = time.process_time()
    for number in np.random.default_rng(0).integers(0, len(every), count):
        plan = every.plans(np.array([number]))
        memory(model, job, plan, system)
        step(model, job, plan, system)
    return {"rate": count / (time.process_time() - start)}


def records(quick: bool) -> list[Record]:
    """Returns the rates of checking and timing plans, and what a search of the whole space takes."""
    command = COMMAND + (" --quick" if quick else "")
    whole, lone = apart(searched, quick), apart(alone, 100 if quick else 1000)
    memory, single = apart(checked, quick), apart(each, quick)
    assert single["fits"] == whole["fits"]
    assert single["best"] == whole["best"]
    assert memory["plans"] == whole["plans"]
    plans, fits = int(whole["plans"]), int(whole["fits"])
    setting = f"{plans:,} plans of GPT-3 on {'128' if quick else '1,024'} A100s, {fits:,} fit; {AXES}"
    rate = memory["plans"] / memory["seconds"]
    unshared, timed = single["plans"] / single["memory"], single["fits"] / single["time"]
    anchor = Paper(value=None, setting=READ + ", llm-analysis 2,940")
    one = Null(value=round(lone["rate"]), what="plans per CPU-s, memory and time, where each is a column of one")
    return [
        Record(
            claim="training plans whose memory is checked per CPU-second",
            ours=Ours(value=round(rate), unit="plans per CPU-s", setting=setting,
                      spread=f"{unshared / 1e6:.2f} million where no two plans share a verdict"),
            null=one, bar="at least 5 million, verdicts shared by plans that memory does not tell apart",
            holds=rate >= 5e6, seconds=round(memory["cpu"], 2), system=SYSTEM, paper=anchor, reproduced="other setting",
            reason=OTHER, command=command,
        ),
        Record(
            claim="training plans that fit and are fully timed per CPU-second",
            ours=Ours(value=round(timed), unit="plans per CPU-s", setting=setting), null=one,
            bar="at least 1 million", holds=timed >= 1e6, seconds=round(single["cpu"], 2), system=SYSTEM, paper=anchor,
            reproduced="other setting", reason=OTHER, command=command,
        ),
        Record(
            claim="CPU seconds of searching all training plans of 175B on 1,024 GPUs, all processes",
            ours=Ours(value=round(whole["cpu"], 2), unit="s", setting=setting + "; start-up and imports included; "
                      f"best {whole['best']:.2f} s an iteration", spread=f"peak memory {whole['peak'] / 1e6:.0f} MB"),
            null=Null(value=round(plans / lone["rate"]), what="s, one plan at a time at the rate of columns of one"),
            bar="at most 6 s and under 1 GB on at least 11.7 million plans",
            holds=bool(whole["cpu"] <= 6 and whole["peak"] < 1e9 and plans >= LEAST), seconds=round(whole["cpu"], 2),
            system=SYSTEM, paper=anchor, reproduced="other setting", reason=OTHER, command=command,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
