"""How training plans rank here and in calculon, on 2,000 plans of its own search, and which conventions set them apart.

Calculon's verdicts and times come from its own runs (22 billion parameters, 64 A100s, batch 64). Each plan is costed
here with the links that calculon gives it: every kind of parallelism on the node's links or between nodes. Then each
convention in which the two differ is switched to calculon's, one by one and all together. No number was fitted; which
messages and transfers it counts, and behind what they hide, was read off its own terms for these same plans.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau

from benchmarks.records import Null, Ours, Paper, Record, data_path, main, skipped, timer
from fleetcast.cost.collectives import Curve, Fabric
from fleetcast.cost.gemm import gemm_time
from fleetcast.cost.training import memory as memories
from fleetcast.cost.training import network as networks
from fleetcast.cost.training import step as steps
from fleetcast.cost.training import system as systems
from fleetcast.cost.training import work
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans, plans
from fleetcast.cost.training.system import Practice, System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload.training import Shape

SYSTEM = 39
COMMAND = "python -m benchmarks.rival_calculon"
Array = NDArray[np.float64]
BATCH, SEQUENCE, DEVICES, NODE = 64, 2048, 64, 8
SIZES = np.logspace(2, 13, 400)
OPERATIONS = ("all_reduce", "reduce_scatter", "all_gather")
FEASIBLE = "plans of calculon's search on which both say alike whether they fit"
RANKED = "Kendall tau of iteration times with calculon's, plans that both accept"
ALIKE = "Kendall tau of iteration times with calculon's, its named conventions taken over"
CONVENTIONS = {
    "once": "between nodes a collective's bytes count once, as if switches added up",
    "half": "gradients travel as 2 B",
    "states": "states of an off-loaded optimizer are moved once for each micro-batch",
    "body": "no embedding, head, host, gaps, stragglers or factors fitted on measurements",
    "links": "bandwidths, efficiencies and latencies of its links",
    "rates": "its rates of products and of memory, which add up",
    "beside": "hidden messages slow no work",
    "kept": "as many tensor-parallel messages as its own link times hold",
    "next": "a hidden message has the product next to it to hide behind, as a pipe half of it and not the first part",
    "fused": "a fused activation's output is not kept",
    "apart": "what moves to the host or back hides behind its own pass, both ways at once",
}


@dataclass(frozen=True)
class Sample:
    """Calculon's plans and what it says of them.

    Attributes:
        plans: as columns.
        far: of tensor, pipeline and data parallelism, which plans have it between nodes.
        words: columns of text.
        accepts: plans that calculon takes; ``placed`` those it does not refuse for their links.
        seconds: its iteration; nan = refused.
        sized: devices that each plan puts on the node's links.
    """

    plans: Plans
    far: Mapping[str, NDArray[np.bool_]]
    words: Mapping[str, NDArray[np.str_]]
    accepts: NDArray[np.bool_]
    placed: NDArray[np.bool_]
    seconds: Array
    sized: NDArray[np.int64]
    file: Mapping[str, Any] = field(repr=False)


@lru_cache(maxsize=1)
def sample() -> Sample | None:
    """Returns the plans, or None where the data is absent."""
    path = data_path("training", "reference", "calculon", "search_22b_64gpu_sample2000.csv")
    if path is None:
        return None
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def number(name: str) -> NDArray[np.int64]:
        return np.asarray(words[name].astype(np.int64))

    def flag(name: str) -> NDArray[np.int64]:
        return np.asarray((words[name] == "True").astype(np.int64))

    overlap = (words["tensor_par_overlap"] != "none") * 1 | flag("data_par_overlap") * 4
    pieces, kind = number("pipeline_interleaving"), words["tensor_par_comm_type"]
    recompute = np.array([("none", "attn_only", "full").index(w) for w in words["activation_recompute"]])
    table = plans(
        tensor=number("tensor_par"), pipeline=number("pipeline_par"), data=number("data_par"), interleave=pieces,
        micro_batch=number("microbatch_size"), schedule=np.where(pieces > 1, 2, 1), recompute=recompute,
        sequence_parallel=(kind == "rs_ag") * 1, zero=flag("optimizer_sharding"), overlap=overlap,
        offload=flag("weight_offload") | flag("activations_offload") * 2 | flag("optimizer_offload") * 4,
        tensor_messages=(kind == "rs_ag") * 1, fused=0,
    )  # fmt: skip
    far = {name: number(f"{name}_par_net") == 1 for name in ("tensor", "pipeline", "data")}
    sized = np.ones(len(rows), dtype=np.int64)
    for name, there in far.items():
        sized *= np.where(there, 1, number(f"{name}_par"))
    return Sample(
        table, far, words, words["status"] != "infeasible", words["reason_code"] != "net_too_small",
        np.array([float(w) if w else np.nan for w in words["total_time"]]), sized,
        json.loads((path.parent / "inputs.json").read_text(encoding="utf-8")),
    )  # fmt: skip


@lru_cache(maxsize=1)
def setting() -> tuple[Network, System]:
    """Returns calculon's model and machine as they are here; its host has 512 GiB for each device."""
    net = networks.of(Shape(layers=48, hidden=6144, heads=64).model(SEQUENCE))
    machine = systems.of(resolve(Fleet(devices=f"{DEVICES}x a100-80g-sxm")).groups[0])
    return net, replace(machine, host_memory=512 * 2.0**30)


def fused(net: Network) -> Network:
    """Returns the model whose activation function keeps its input alone: half of the inner elements."""
    return replace(net, layers=tuple(replace(layer, ffn=layer.ffn // 2) for layer in net.layers))


def drawn(fabric: Fabric, row: dict[str, Any] | None) -> Fabric:
    """Returns a fabric whose reductions and gathers follow calculon: its own rates, or ours with bytes counted once."""
    curves: dict[str, dict[int, Curve]] = {}
    affine = dict(fabric.affine)
    if row is not None:
        rate = row["bandwidth"] * 1e9 * row["efficiency"]
        for name, (scale, offset) in row["ops"].items():
            key = "send" if name == "p2p" else name
            curves[key] = {
                n: Curve(SIZES, row["latency"] + SIZES * (scale * (1.0 if offset is None else (n + offset) / n) / rate))
                for n in range(2, DEVICES + 1)
            }
    else:
        for key in OPERATIONS:
            c = affine[key]
            curves[key] = {
                n: Curve(SIZES, c.launch + c.hop * (n - 1) + SIZES / (float(c.reached(n)) * fabric.bandwidth))
                for n in range(2, DEVICES + 1)
            }
    return replace(fabric, curves=curves, affine=affine, reference=fabric.bandwidth, rounds="")


def efficiency(flop: Array, steps_of: list[list[float]]) -> Array:
    """Returns the share of a peak that calculon gives an operation of so many FLOP: steps by GFLOP."""
    found = np.full(np.shape(flop), steps_of[-1][1])
    for least, share in reversed(steps_of):
        found = np.where(flop / 1e9 >= least, share, found)
    return found


@contextmanager
def products(on: bool, chip: Mapping[str, Any]) -> Iterator[None]:
    """Lets products of the layers take what calculon's table says while the block runs."""
    known = gemm_time

    def timed(m: ArrayLike, n: ArrayLike, k: ArrayLike, *_: Any, **__: Any) -> Array:
        a, b, c = (np.asarray(x, dtype=np.float64) for x in (m, n, k))
        flop, row = 2.0 * a * b * c, chip["matrix"]["float16"]
        size = 2.0 * (a * b + b * c + a * c)
        mem = chip["mem1"]
        share = efficiency(size * 1e3, mem["MB_efficiency"])  # its steps are of MB
        busy = flop / (row["tflops"] * 1e12 * efficiency(flop, row["gflops_efficiency"]))
        return np.asarray(busy + size / (mem["GBps"] * 1e9 * share))

    if on:
        setattr(work, "gemm_time", timed)  # noqa: B010
    try:
        yield
    finally:
        setattr(work, "gemm_time", known)  # noqa: B010


def counted(found: Sample, parts: steps.Parts, net: Network, table: Plans, base: System) -> steps.Parts:
    """Returns parts whose tensor-parallel messages are as many as calculon's own link times hold.

    Per layer and micro-batch four all-reduces, or as many scatters and gathers; two gathers more where they are redone,
    else one for attention that is recomputed. P2p_rs_ag scatters and gathers in the layers at the ends of a piece.
    """
    size, ones = (
        np.asarray(table.micro_batch * (2.0 * SEQUENCE * net.hidden), dtype=np.float64),
        np.ones_like(table.tensor),
    )
    held = np.ceil(net.depth / table.pipeline)

    def taken(operation: str) -> Array:
        near, away = (
            work.spread_time(operation, size, table.tensor, ones, replace(base, node=n)) for n in (DEVICES, 1)
        )
        return np.where(found.far["tensor"], away, near)

    gather, scatter, whole = (taken(name) for name in ("all_gather", "reduce_scatter", "all_reduce"))
    kind, redo = found.words["tensor_par_comm_type"], found.words["seq_par_ag_redo"] == "True"
    shared, ends = kind == "rs_ag", pieces_ends(found)
    each = np.where(shared, gather + scatter, whole + ends * (gather + scatter - whole)) * held
    selective = np.where(table.recompute == 1, gather * held, 0.0) * np.where(shared & ~redo, 1.0, ends)
    return replace(
        parts, forward=parts.forward | {"tensor_comm": 2.0 * each},
        backward=parts.backward | {"tensor_comm": 2.0 * each + np.where(shared & redo, 2.0 * gather * held, 0.0)},
        again=parts.again | {"tensor_comm": np.where(table.recompute == 2, 2.0 * each, selective)},
    )  # fmt: skip


def costed(found: Sample, on: frozenset[str] | set[str]) -> dict[str, Array]:
    """Returns seconds by term and ``total`` of every plan, with these of ``CONVENTIONS`` taken over."""
    net, machine = setting()
    net = fused(net) if "fused" in on else net
    net = replace(net, table_params=0, first_params=0, last_params=0) if "body" in on else net
    chip = found.file["a100_80g"]
    near, far = chip["networks"]
    outer = machine.outer
    if "links" in on:  # its links; but for "once", our rings
        rings = {name: [2.0 if name == "all_reduce" else 1.0, None if name == "p2p" else -1] for name in far["ops"]}
        outer = drawn(outer, far if "once" in on else far | {"ops": rings})
    elif "once" in on:
        outer = drawn(outer, None)
    inner = drawn(machine.inner, near) if "links" in on else machine.inner
    practice = machine.practice
    if "body" in on:
        practice = Practice(gap=0.0, kernel=0.0, pace=0.0, iteration=0.0, slow=0.0, head=0.0)
    link = chip["mem2"]["GBps"] * 1e9 * chip["mem2"]["MB_efficiency"][0][1] if "links" in on else machine.host_link
    fitted = machine.fitted
    if "rates" in on:
        share = chip["mem1"]["MB_efficiency"][0][1] * chip["mem1"]["GBps"] * 1e9 / machine.chip.bandwidth
        tables = dict(fitted.tables) | {"stream": {"any": {"launch": 0.0, "memory": share}}}
        fitted = replace(fitted, tables=tables)
    base = replace(machine, inner=inner, outer=outer, practice=practice, host_link=link, fitted=fitted)
    job = Job(SEQUENCE, BATCH, message=2.0 if "half" in on else 0.0)
    table, contention = found.plans, work.CONTENTION
    if "states" in on:
        table = replace(table, offload=np.asarray(table.offload & 3, dtype=np.int32))
    if "next" in on:
        table = replace(table, overlap=np.asarray(table.overlap & ~1, dtype=np.int32))
    try:
        work.CONTENTION = 1.0 if "beside" in on else contention
        with products("rates" in on, chip):
            ends = [steps.parts(net, job, table, replace(base, node=n)) for n in (DEVICES, 1)]
            mixed = placed(ends, found)
            if "kept" in on:
                mixed = counted(found, mixed, net, table, base)
            if "next" in on:
                mixed = next_product(found, mixed)
            ahead, back = (size / link for size in over_link(net, job, table))
            if "states" in on:
                moved = found.plans.offloads("optimizer") * mixed.micro
                copies = np.where(table.zero > 0, table.data, 1)
                size = np.maximum.reduce(memories.stage_params(net, table)[0]) * (job.optimizer / copies)
                mixed = replace(mixed, transfer=mixed.transfer + moved * size / link)
                back = back + found.plans.offloads("optimizer") * size / link
            if "apart" in on:
                mixed = replace(mixed, transfer=hidden_apart(mixed, practice, ahead, back))
            return steps.settle(mixed, table, practice)
    finally:
        work.CONTENTION = contention


def split(found: Sample, table: Plans) -> Plans:
    """Returns plans of which those that scatter messages between stages keep activations in shares, about as there."""
    shared = (found.words["tensor_par_comm_type"] != "ar").astype(np.int32)
    return replace(table, sequence_parallel=shared)


def next_product(found: Sample, parts: steps.Parts) -> steps.Parts:
    """Returns parts whose tensor-parallel messages hide as in calculon, read off its own figures.

    An all-reduce follows the products that end a layer's halves, 5 of 12 parts of them forward and 7 backward; a
    scatter or a gather has a product of its own. A pipe hides half as much, and never its first part.
    """
    kind, redo = found.words["tensor_par_overlap"], found.words["seq_par_ag_redo"] == "True"
    pipe, first = kind == "pipe", np.where(kind == "pipe", 1.0 / found.plans.tensor, 0.0)
    apart = np.where(found.words["tensor_par_comm_type"] == "rs_ag", 1.0, pieces_ends(found))

    def left(part: dict[str, Array], products: Array, share: float, more: Array | float = 0.0) -> dict[str, Array]:
        window = (products * (share + (1.0 - share) * apart) + more) * np.where(pipe, 0.5, 1.0)
        told = part["tensor_comm"]
        hidden = np.where(kind == "none", 0.0, np.minimum(told * (1.0 - first), window))
        return part | {"tensor_comm": told - hidden}

    inputs = parts.backward["gemm"] - parts.weights
    selective = np.where(found.plans.recompute == 1, parts.forward["gemm"] * 0.25 * apart, 0.0)  # queries, keys, values
    return replace(
        parts, forward=left(parts.forward, parts.forward["gemm"], 5 / 12),
        backward=left(parts.backward, inputs, 7 / 12, np.where(redo, parts.weights * 7 / 12, 0.0)),
        again=left(parts.again, parts.again["gemm"], 5 / 12, selective),
    )  # fmt: skip


def pieces_ends(found: Sample) -> Array:
    """Returns the share of layers at the end of a piece of a stage, of plans that scatter and gather there alone.

    Where messages hide, calculon exposes no more of such plans than of those that add up everywhere: none.
    """
    layers = np.maximum(np.ceil(setting()[0].depth / found.plans.pipeline) // found.plans.interleave, 1.0)
    there = (found.words["tensor_par_comm_type"] == "p2p_rs_ag") & (found.words["tensor_par_overlap"] == "none")
    return np.asarray(np.where(there, 1.0 / layers, 0.0))


def over_link(net: Network, job: Job, table: Plans) -> tuple[Array, Array]:
    """Returns B that hold up a micro-batch's pass forward, both ways at once, and its pass back, all one way."""
    held = np.maximum.reduce(memories.stage_params(net, table)[0])
    kept = memories.kept_activations(net, job, table) * np.ceil(net.depth / table.pipeline)
    weights = table.offloads("weights") * 2.0 * held
    activations = table.offloads("activations") * kept
    return np.maximum(weights, activations), weights + activations


def hidden_apart(parts: steps.Parts, practice: Practice, ahead: Array, back: Array) -> Array:
    """Returns transfers that hold up a micro-batch by what each direction's own work does not hide."""
    factor = {name: float(getattr(practice, steps._FACTORS[name])) for name in work.TERMS}

    def taken(part: Mapping[str, Array]) -> Array:
        return np.asarray(sum(factor[name] * part[name] for name in work.TERMS))

    forward, backward = taken(parts.forward), taken(parts.backward) + taken(parts.again)
    late = np.maximum(ahead - forward, 0.0) + np.maximum(back - backward, 0.0)
    device = forward + backward + practice.gap * parts.launch
    return np.asarray(np.where(late > 0, (late + device) * parts.micro, 0.0))


def placed(ends: list[steps.Parts], found: Sample) -> steps.Parts:
    """Returns parts with each kind of parallelism on its own links: those of a node, or those between nodes."""
    near, away = ends
    _, machine = setting()
    tensor, pipeline, data = (found.far[name] for name in ("tensor", "pipeline", "data"))

    def pick(there: NDArray[np.bool_], a: Array, b: Array) -> Array:
        return np.where(there, b, a)

    def terms(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, Array]:
        return {name: pick(tensor, a[name], b[name]) for name in a}

    return replace(
        near, forward=terms(near.forward, away.forward), backward=terms(near.backward, away.backward),
        again=terms(near.again, away.again), head=pick(tensor, near.head, away.head),
        hop=pick(pipeline, near.hop, away.hop), reduce=pick(data, near.reduce, away.reduce),
        gather=pick(data, near.gather, away.gather),
        slowest=np.full(len(tensor), float(machine.practice.slowest(DEVICES / NODE))),
    )  # fmt: skip


def verdicts(found: Sample) -> tuple[NDArray[np.bool_], NDArray[np.bool_], dict[str, Array]]:
    """Returns which plans fit here, which keep whole rounds of micro-batches, and their bytes by term."""
    net, machine = setting()
    held = memories.memory(net, Job(SEQUENCE, BATCH), found.plans, machine)
    fits = (held["total"] <= machine.memory) & (held["host"] <= machine.host_memory)
    p = found.plans
    rounds = (p.interleave == 1) | (
        (p.micro_batches(BATCH) % p.pipeline == 0) & (net.depth % (p.pipeline * p.interleave) == 0)
    )
    return np.asarray(fits), np.asarray(rounds), held


def tau(ours: Array, theirs: Array) -> float:
    """Returns Kendall's tau-b."""
    return float(kendalltau(ours, theirs)[0])


THEIRS = {
    "off-loading": (("fw_offload_exposed_time", "bw_offload_exposed_time"), ("offload",)),
    "work and messages of tensor parallelism": (
        ("fw_time", "bw_time", "recompute_time", "tp_comm_exposed_time", "recomm_exposed_time"),
        ("gemm", "attention", "vector", "recompute", "tensor_comm"),
    ),
    "bubble": (("bubble_time",), ("bubble",)),
    "gradients and weights between copies": (("dp_comm_exposed_time",), ("data_comm", "weight_gather")),
    "messages between stages": (("pp_comm_exposed_time",), ("pipeline_comm",)),
}  # fmt: skip
"""Terms of calculon and of ours that stand for one thing, in the order in which they carry what is left."""


def attributed(found: Sample, ours: Mapping[str, Array], both: NDArray[np.bool_]) -> str:
    """Returns tau as one term after the other is replaced by calculon's own seconds, in words."""
    total, said = ours["total"].copy(), []
    for name, (theirs, terms) in THEIRS.items():
        for column in theirs:
            total = total + np.array([float(w) if w else np.nan for w in found.words[column]])
        total = total - sum(ours[term] for term in terms)
        said.append(f"{name} {tau(total[both], found.seconds[both]):.3f}")
    return ", ".join(said)


def lenient(found: Sample) -> NDArray[np.bool_]:
    """Returns which plans fit as calculon counts: gradients of 2 B, its activations, no reserve, no embedding."""
    net, machine = setting()
    bare = replace(fused(net), table_params=0, first_params=0, last_params=0, vocab=1)
    held = memories.memory(bare, Job(SEQUENCE, BATCH, gradient=2.0), split(found, found.plans), machine)
    return np.asarray(
        (held["total"] - held["reserve"] <= machine.memory) & (held["host"] <= machine.host_memory)
    )  # fmt: skip


def records(quick: bool) -> list[Record]:
    """Returns agreement on what fits, and tau as it is and with calculon's conventions."""
    command, found = COMMAND + (" --quick" if quick else ""), sample()
    if found is None:
        why = "calculon's plans are absent: set FLEETCAST_DATA"
        return [skipped(system=SYSTEM, claim=claim, bar="see the documentation", why=why, command=command)
                for claim in (FEASIBLE, RANKED, ALIKE)]  # fmt: skip
    with timer() as spent:
        fits, rounds, held = verdicts(found)
        both = fits & found.accepts & rounds & found.placed
        alike = int(((fits == found.accepts) & found.placed).sum())
        stricter, looser = (found.placed & (fits != found.accepts) & (fits == flag) for flag in (False, True))
        named = int((stricter & lenient(found)).sum())
        net, machine = setting()
        _, layer = memories.layer_activations(net, net.layers[0], Job(SEQUENCE, BATCH), found.plans)
        grown = looser & (held["total"] + layer > machine.memory)
        large, ragged = int(grown.sum()), int((looser & ~grown & ~rounds).sum())
        theirs = found.seconds[both]

        def ranked(on: set[str]) -> float:
            return tau(costed(found, on)["total"][both], theirs)

        plain = ranked(set())
        single = {name: ranked({name}) for name in ([] if quick else CONVENTIONS)}
        growing, steps_up = set[str](), []
        for name in [] if quick else CONVENTIONS:
            growing.add(name)
            steps_up.append(f"+ {name} {ranked(growing):.3f}")
        every = costed(found, set(CONVENTIONS))
        together = tau(every["total"][both], theirs)
        left = attributed(found, every, both)
        bare = both & (found.plans.offload == 0) & (found.words["tensor_par_overlap"] == "none")
        simple = tau(every["total"][bare], found.seconds[bare])
        flops = tau((found.plans.interleave / found.plans.pipeline)[both] * -1.0, theirs)
    refused = Counter(found.words["reason_code"][~found.accepts])
    exact = bool(((found.sized > NODE) == ~found.placed).all())
    count, seconds = int(found.placed.sum()), round(spent.seconds / 3, 2)
    ours = "its tool, not measurements: our bar"
    return [
        Record(
            system=SYSTEM, claim=FEASIBLE, paper=Paper(value=count, unit="plans", setting="that its links can place"),
            ours=Ours(value=alike, unit="plans",
                      spread=f"{int(stricter.sum())} refused here alone: {named} of them for gradients of 4 B, the "
                      "activation's output, the reserve, the embedding, or activations of which its "
                      "p2p_rs_ag keeps fewer: calculon lacks these; "
                      f"{int(looser.sum())} refused there alone: {large} for gradients as large as a layer's "
                      f"activations, which calculon holds, {ragged} for micro-batches in no whole rounds",
                      setting=f"2,000 plans; calculon refuses {refused['net_too_small']} where degrees on a node's "
                      f"links exceed it: degrees say so exactly: {'yes' if exact else 'no'}; "
                      f"{int((fits & found.accepts & found.placed & ~rounds).sum())} that both hold we refuse: "
                      "interleaved, micro-batches no whole rounds of stages"),
            null=Null(value=int((found.accepts & found.placed).sum()), what="everything placed fits"),
            bar="at least 95 %, every other one named", holds=bool(
                alike >= 0.95 * count and exact and named + large + ragged == stricter.sum() + looser.sum()
            ), reproduced="other setting", reason=ours, seconds=seconds, command=command,
        ),
        Record(
            system=SYSTEM, claim=RANKED, paper=Paper(value=None, setting="calculon's own times"),
            ours=Ours(value=round(plain, 3), spread="each convention alone: " + ", ".join(
                f"{CONVENTIONS[name]} {value:.3f}" for name, value in single.items()),
                      setting=f"{int(both.sum())} plans, our measured links and rates"),
            null=Null(value=round(flops, 3), what="by pipeline stages over pieces, fewest first"),
            bar="at least 0.95", holds=plain >= 0.95, reproduced="no" if plain < 0.95 else "yes",
            reason="conventions differ, see the next record; ours are held to measurements, not to calculon",
            seconds=seconds, command=command,
        ),
        Record(
            system=SYSTEM, claim=ALIKE, paper=Paper(value=None, setting="calculon's own times"),
            ours=Ours(value=round(together, 3), spread=f"one after the other: {', '.join(steps_up)}",
                      setting=f"what is left, our terms replaced by calculon's seconds one by one: {left}. "
                      f"Without off-loading and hidden messages ({int(bare.sum())} plans) {simple:.3f}"),
            null=Null(value=round(plain, 3), what="no convention taken over"),
            bar="at least 0.95, no number fitted", holds=together >= 0.95,
            reproduced="no" if together < 0.95 else "yes",
            reason="that products cut up for a pipe are slower, and what hidden gradients wait for, is not rebuilt",
            seconds=seconds, command=command,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
