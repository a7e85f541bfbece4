"""Spindle: several tasks in waves beside what is done without them, the bounds, and brute force (system 60)."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import ROOT, Null, Ours, Paper, Record, main, timer
from fleetcast.base.spec import convert
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.plans import RECOMPUTE
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload.multitask import Multitask
from fleetcast.search.waves import baselines
from fleetcast.search.waves.brute import brute
from fleetcast.search.waves.build import Built, build, memory, sync, wires_of
from fleetcast.search.waves.check import problems
from fleetcast.search.waves.curves import curve
from fleetcast.search.waves.graph import Graph, MetaOp
from fleetcast.search.waves.place import Timetable, Wires, place
from fleetcast.search.waves.planner import Planned, best
from fleetcast.search.waves.schedule import level_waves

NAMES = {"clip": "Multitask-CLIP, 10 tasks", "ofasys": "OFASys, 7 tasks", "qwen-val": "QWen-VAL, 3 tasks"}
DEVICE = "a100-80g-sxm"
DEVICES = (8, 16, 32, 64)
FRESH = 1000
"""First seed of the random graphs; the search was tuned on those below."""
RIVALS = {
    "one module at a time on all devices": baselines.sequential, "one task at a time": baselines.decoupled,
    "devices dealt to tasks": baselines.by_task,
}  # fmt: skip
OTHER = "a forecast on A100s of shapes that are ours; the paper measured its own on A800s"


@dataclass(frozen=True)
class Case:
    """One workload on so many devices.

    Attributes:
        built: its graph.
        planned: waves.
        seconds: an iteration in waves, gradients added up.
        others: the same without waves, by rule.
        levels: the paper's own way alone, gradients added up.
        fits: whether the fullest device holds it.
        took: CPU s of planning.
        wrong: what the checker finds in any of the timetables.
        moved: B that change devices, and what they are where devices are numbered from 0 in every wave.
    """

    built: Built
    planned: Planned
    seconds: float
    others: dict[str, float]
    levels: float
    fits: bool
    took: float
    wrong: int
    moved: tuple[float, float]


def workload(name: str) -> Multitask:
    """Returns one of the three frozen workloads."""
    table = tomllib.loads((ROOT / "benchmarks" / "waves_inputs.toml").read_text(encoding="utf-8"))
    found: Multitask = convert(table[name], Multitask, name)
    found.check()
    return found


@cache
def case(name: str, devices: int) -> Case:
    """Returns a workload's plans; layers are recomputed where it does not fit otherwise."""
    system = systems.of(resolve(Fleet(devices=f"{devices}x {DEVICE}")).groups[0])
    wires = wires_of(system)
    with timer() as spent:
        for code in (RECOMPUTE.index("none"), RECOMPUTE.index("full")):
            built = build(workload(name), devices, system, recompute=code)
            planned = best(built.graph, devices, wires, partial(sync, built, system))
            fits = memory(built, planned.table)[0] <= system.memory
            if fits:
                break
    graph = built.graph

    def whole(table: Timetable) -> float:
        return table.seconds + sync(built, system, table)

    others = {rule: made(graph, devices, wires) for rule, made in RIVALS.items()}
    waves = level_waves(graph, devices)
    levels = place(graph, waves, devices, wires)
    astray = place(graph, waves, devices, wires, local=False)
    wrong = sum(
        len(problems(graph, table, devices, wires)) for table in (planned.table, levels, astray, *others.values())
    )
    return Case(
        built, planned, whole(planned.table), {rule: whole(t) for rule, t in others.items()}, whole(levels), fits,
        spent.seconds, wrong, (levels.moved, astray.moved),
    )  # fmt: skip


def tiny(seed: int, ops: int, devices: int, count: int) -> Graph:
    """Returns a random graph (SYNTHETIC) of so many MetaOps of up to ``count`` operators; half stop scaling early."""
    rng = np.random.default_rng([seed, ops, count])
    made: list[MetaOp] = []
    for i in range(ops):
        alpha, beta, size = rng.uniform(0.02, 0.3), rng.uniform(0.3, 1.0), 10 ** rng.uniform(-1, 0.7)
        counts = range(1, (int(rng.integers(2, devices + 1)) if rng.random() < 0.5 else devices) + 1)
        line = curve(counts, [size * (alpha + beta / n) for n in counts])
        after = tuple(j for j in range(i) if rng.random() < min(0.5, 1.5 / ops))
        made.append(MetaOp(f"m{i}", int(rng.integers(1, count + 1)), line, after))
    return tuple(made)


def records(quick: bool) -> list[Record]:
    """Returns Spindle's claims."""
    command = "python -m benchmarks.waves" + (" --quick" if quick else "")
    names = ("clip",) if quick else tuple(NAMES)
    sizes = (8, 64) if quick else DEVICES
    cases = {(name, n): case(name, n) for name in names for n in sizes}
    return [
        *(_speed(name, {n: cases[name, n] for n in sizes}, command) for name in names), _bound(cases, command),
        _brute(6 if quick else 40, command), _random(3 if quick else 20, command), _planning(cases, command),
        _local(cases, command),
    ]  # fmt: skip


def _speed(name: str, cases: dict[int, Case], command: str) -> Record:
    first = next(iter(RIVALS))
    ratio = {n: c.others[first] / c.seconds for n, c in cases.items() if c.fits}
    most = max(ratio, key=ratio.__getitem__)
    rest = "; ".join(
        f"over {rule} " + ", ".join(f"{c.others[rule] / c.seconds:.2f}x" for c in cases.values() if c.fits)
        for rule in list(RIVALS)[1:]
    )
    left = [str(n) for n, c in cases.items() if not c.fits]
    least = min(min(c.others.values()) / c.seconds for c in cases.values() if c.fits)
    return Record(
        system=60, claim=f"an iteration in waves over one module at a time on all devices: {NAMES[name]}",
        paper=Paper(value=1.71, unit="x", setting="its largest, over Megatron-LM and DeepSpeed, 8 to 64 A800"),
        ours=Ours(
            value=round(ratio[most], 3), unit="x",
            spread=", ".join(f"{n} devices {x:.2f}x" for n, x in ratio.items()) + f"; {rest}; levels alone "
            + ", ".join(f"{c.others[first] / c.levels:.2f}x" for c in cases.values() if c.fits)
            + (f"; too large for {', '.join(left)} devices" if left else ""),
            setting=f"largest, on {most} of {DEVICE}; gradients added up after the last wave, none of it hidden",
        ),
        null=Null(value=1.0, what=first),
        bar="never slower than any of the three rules, at least 1.3x over it on 64 devices",
        holds=least >= 1 - 1e-9 and (64 not in ratio or ratio[64] >= 1.3), reproduced="other setting", reason=OTHER,
        seconds=sum(c.took for c in cases.values()), command=command,
    )  # fmt: skip


def _bound(cases: dict[tuple[str, int], Case], command: str) -> Record:
    least = {key: min(c.planned.ways.values()) for key, c in cases.items()}
    over = {key: least[key] / c.planned.level_bound for key, c in cases.items()}
    strict = {key: least[key] / c.planned.bound for key, c in cases.items()}
    null = max(
        baselines.sequential(c.built.graph, key[1], Wires()).seconds / c.planned.level_bound for key, c in cases.items()
    )
    worst = max(over, key=over.__getitem__)
    return Record(
        system=60, claim="waves over the continuous optimum of levels, three workloads on 8 to 64 devices",
        ours=Ours(
            value=round(over[worst], 3), unit="x",
            spread=f"{min(over.values()):.3f}x to {over[worst]:.3f}x; over what no schedule beats "
            f"{min(strict.values()):.3f}x to {max(strict.values()):.3f}x",
            setting=f"worst of {len(over)}: {NAMES[worst[0]]} on {worst[1]} devices; the shortest schedule, before "
            "gradients are added up; the bounds move no data",
        ),
        null=Null(value=round(null, 3), what="one module at a time on all devices, worst"),
        bar="at most 1.10x, and every timetable passes the checker",
        holds=over[worst] <= 1.10 and not any(c.wrong for c in cases.values()), reproduced="other setting",
        reason=OTHER, command=command,
    )  # fmt: skip


def _brute(seeds: int, command: str) -> Record:
    with timer() as spent:
        over, null = [], []
        for seed in range(FRESH, FRESH + seeds):
            for ops, count in ((5, 1), (3, 2)):
                graph = tiny(seed, ops, 8, count)
                if sum(op.count for op in graph) > 5:
                    continue
                least = brute(graph, 8)
                over.append(best(graph, 8, Wires()).table.seconds / least)
                null.append(baselines.sequential(graph, 8, Wires()).seconds / least)
    return Record(
        system=60, claim="waves over brute force, graphs of at most 5 operators on 8 devices",
        ours=Ours(
            value=round(max(over), 3), unit="x", spread=f"median {np.median(over):.3f}x of {len(over)} random graphs",
            setting="worst; brute force tries every order of starts and every number of devices",
        ),
        null=Null(value=round(max(null), 3), what=f"one at a time, worst; median {np.median(null):.3f}"),
        bar="at most 1.10x", holds=max(over) <= 1.10, reproduced="other setting",
        reason="the paper solves no instance exactly", seconds=spent.seconds, command=command,
    )  # fmt: skip


def _random(seeds: int, command: str) -> Record:
    with timer() as spent:
        over, levels = [], []
        for seed in range(FRESH, FRESH + seeds):
            graph = tiny(seed, 20, 16, 24)
            found = best(graph, 16, Wires())
            over.append(found.table.seconds / found.bound)
            levels.append(found.ways["levels"] / found.bound)
    return Record(
        system=60, claim="waves over what no schedule beats, random graphs of 20 MetaOps on 16 devices",
        ours=Ours(
            value=round(max(over), 3), unit="x", spread=f"median {np.median(over):.3f}x of {seeds}",
            setting="worst; deep graphs, with MetaOps of 1 to 24 operators of which half stop scaling early",
        ),
        null=Null(value=round(max(levels), 3), what=f"the paper's levels, worst; median {np.median(levels):.3f}"),
        bar="at most 1.15x", holds=max(over) <= 1.15, reproduced="other setting",
        reason="graphs are ours; levels leave devices idle where graphs are deep, so more ways of dealing are tried",
        seconds=spent.seconds, command=command,
    )  # fmt: skip


def _planning(cases: dict[tuple[str, int], Case], command: str) -> Record:
    took = cases["clip", 64].took
    return Record(
        system=60, claim="seconds to plan 10 tasks on 64 devices",
        ours=Ours(
            value=round(took, 2), unit="s", spread=f"others {min(c.took for c in cases.values()):.2f} to "
            f"{max(c.took for c in cases.values()):.2f} s", setting="CPU time, one core, curves included",
        ),
        null=Null(value=0.0, what="no plan: every module on all devices"), bar="below 5 s", holds=took < 5.0,
        reproduced="other setting", reason="the paper's planner runs beside its own profiler", seconds=took,
        command=command,
    )  # fmt: skip


def _local(cases: dict[tuple[str, int], Case], command: str) -> Record:
    near, far = (sum(c.moved[i] for c in cases.values()) for i in (0, 1))
    return Record(
        system=60, claim="bytes that change devices between waves, placed where data is",
        ours=Ours(
            value=round(near / far, 3), unit="of numbered from 0", spread=f"{near / 1e9:.1f} GB of {far / 1e9:.1f} GB",
            setting=f"forward activations of the levels' waves, {len(cases)} cases",
        ),
        null=Null(value=1.0, what="devices numbered from 0 in every wave"), bar="less", holds=near < far,
        reproduced="other setting", reason=OTHER, command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
