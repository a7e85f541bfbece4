"""Published measurements of training as runs: model, batch, plan and devices beside the seconds that an iteration took.

What a table does not print is decided here, once, before anything is compared: see each reader.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import data_path
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.fit import join
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import Plans, plans
from fleetcast.cost.training.step import Parts, parts
from fleetcast.cost.training.system import Practice, System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.training import Shape

Array = NDArray[np.float64]
A100, H100 = "a100-80g-sxm", "h100-sxm"
SETTINGS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("training_inputs.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Run:
    """One measured iteration.

    ``group`` says what it is left out with (a hidden size, a model), ``tags`` what else a reader wants to split by.
    """

    label: str
    network: Network
    job: Job
    plan: Plans
    device: str
    seconds: float
    group: str
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def devices(self) -> int:
        """How many devices."""
        return int(self.plan.devices[0])

    @property
    def flops(self) -> float:
        """FLOP of the iteration, recomputed ones included, per device."""
        model = self.network.flops(self.job.sequence) * self.job.batch * self.job.sequence
        return model * (4.0 / 3.0 if self.plan.recompute[0] == 2 else 1.0) / self.devices


@cache
def network(name: str, *, dropout: bool = True) -> Network:
    """Returns a catalogue model as training sees it."""
    return _dropping(of(catalog.model(name)), dropout)


@cache
def shape(
    layers: int, hidden: int, heads: int, sequence: int, vocab: int = 51200, *, dropout: bool = True
) -> Network:  # fmt: skip
    """Returns a GPT that no catalogue names."""
    written = Shape(layers=layers, hidden=hidden, heads=heads, vocab=vocab)
    return _dropping(of(written.model(sequence)), dropout)


def _dropping(found: Network, dropout: bool) -> Network:
    return replace(found, layers=tuple(replace(x, dropout=x.dropout and dropout) for x in found.layers))


@cache
def system(device: str, count: int, practice: Practice | None = None) -> System:
    """Returns so many devices of the catalogue, joined as the catalogue joins them."""
    return systems.of(resolve(Fleet(devices=f"{count}x {device}")).groups[0], practice=practice)


def costed(runs: Sequence[Run], practice: Practice | None = None) -> tuple[Parts, Plans]:
    """Returns the terms of runs as one table, in their order."""
    return join([
        (parts(r.network, r.job, r.plan, system(r.device, r.devices, practice)), r.plan) for r in runs
    ])  # fmt: skip


def seconds(runs: Sequence[Run]) -> Array:
    """Returns what was measured."""
    return np.array([r.seconds for r in runs])


def rows(*path: str) -> list[dict[str, str]]:
    """Returns the rows of a file of measurements, none where it is absent."""
    found = data_path("training", *path)
    if found is None:
        return []
    with found.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def sc21() -> list[Run]:
    """Returns Table 1 of Narayanan and others (SC 2021): 1.7B to 1T on 32 to 3,072 A100s.

    The table prints no micro-batch and no interleaving: both are those of the authors' own script for this table
    (`training_inputs.toml`). Everything is recomputed, as the paper's FLOP count says; attention is not fused; one
    stage overlaps its all-reduce (torch's DDP, says the script), several do not.
    """
    found = []
    for r in rows("megatron_sc21_table1_weak_scaling.csv"):
        name, chosen = f"megatron-{_size(r['params_B'])}", SETTINGS["sc21"][r["params_B"]]
        net, batch, gpus = network(name), int(r["global_batch"]), int(r["gpus"])
        tensor, pipeline, pieces = int(r["tp"]), int(r["pp"]), chosen["interleave"]
        plan = plans(
            tensor=tensor, pipeline=pipeline, data=gpus // (tensor * pipeline), micro_batch=chosen["micro_batch"],
            interleave=pieces, schedule="interleaved" if pieces > 1 else "1f1b", recompute="full", fused=0,
            overlap=("data",) if pipeline == 1 else (),
        )  # fmt: skip
        flops = 4.0 / 3.0 * net.flops(2048) * batch * 2048 - 2.0 * net.hidden * net.vocab * batch * 2048
        took = flops / gpus / (float(r["tflops_per_gpu"]) * 1e12)
        found.append(Run(name, net, Job(2048, batch, dtype="fp16"), plan, A100, took, name))
    return found


def _size(billions: str) -> str:
    number = float(billions)
    return "1t" if number > 1000 else f"{'530' if number == 529.6 else billions}b"


def recompute() -> list[Run]:
    """Returns Table 5 of Korthikanti and others (MLSys 2023), each model with full and with selective recompute."""
    found = []
    names = {"22B": "megatron-22b", "175B": "gpt3-175b", "530B": "megatron-530b", "1T": "megatron-1t"}
    for r in rows("seqsel", "table5_iteration_time.csv"):
        tensor, pipeline, pieces = int(r["tp"]), int(r["pp"]), int(r["interleave_m"])
        for kind, column in (("full", "full_recompute_s"), ("selective", "seqpar_selective_s")):
            plan = plans(
                tensor=tensor, pipeline=pipeline, data=int(r["gpus"]) // (tensor * pipeline),
                micro_batch=int(r["microbatch"]), interleave=pieces,
                schedule="interleaved" if pieces > 1 else "1f1b", recompute=kind,
                sequence_parallel=int(kind == "selective"), fused=0,
            )  # fmt: skip
            job = Job(2048, int(r["global_batch"]), dtype="fp16")
            net = network(names[r["model"]])
            found.append(Run(f"{r['model']} {kind}", net, job, plan, A100, float(r[column]), r["model"]))
    return found


def vtrain(which: str) -> list[Run]:
    """Returns vTrain's measurements on A100s, ``which`` = "multi" (51 rows) or "single" (1,440 on one node).

    They print no schedule, recompute or vocabulary: 1F1B, full recompute, unfused attention and 51,200 as in
    Megatron-DeepSpeed's examples of the time.
    """
    found = []
    for r in rows("vtrain", f"ground_truth_{which}.csv"):
        n = {k: float(v) for k, v in r.items()}
        sequence, hidden = int(n["sequence length"]), int(n["hidden size"])
        net = shape(int(n["# layers"]), hidden, int(n["attention heads"]), sequence)
        plan = plans(
            tensor=int(n["tensor parallelism"]), pipeline=int(n["pipeline parallelism"]),
            data=int(n["data parallelism"]), micro_batch=int(n["micro batch"]), recompute="full", fused=0,
        )  # fmt: skip
        job = Job(sequence, int(n["global batch"]), dtype="fp16")
        label = (
            f"h{hidden} L{int(n['# layers'])} t{plan.tensor[0]} d{plan.data[0]} p{plan.pipeline[0]} "
            f"micro-batch {plan.micro_batch[0]} batch {job.batch}"
        )
        found.append(Run(label, net, job, plan, A100, n["iteration time (ms)"] / 1e3, str(hidden)))
    return found


def megascale() -> list[Run]:
    """Returns Table 2 of MegaScale (NSDI 2024): 175B on 256 to 12,288 GPUs, Megatron-LM's rows and MegaScale's."""
    return [
        Run(
            f"{r['system']} {r['gpus']}", *megascale_plan(r["system"] == "MegaScale", int(r["gpus"]),
            int(r["global_batch"])), A100, float(r["iter_time_s"]), r["system"],
            {"batch": int(r["global_batch"]), "system": r["system"]},
        )
        for r in rows("megascale_table2_175b_strong_scaling.csv")
    ]  # fmt: skip


TOGGLES = ("parallel block", "sliding window", "tensor", "pipeline", "data")
"""What MegaScale switches on, in the order of its Table 3."""


def megascale_plan(on: bool | int, gpus: int, batch: int) -> tuple[Network, Job, Plans]:
    """Returns MegaScale's model, batch and plan; ``on``: all toggles, or the first so many of ``TOGGLES``.

    Megatron-LM with interleaving, selective recompute, sequence parallelism, fused attention and ZeRO 1 is where it
    starts from. The window is not printed: 512 of 2,048 tokens is assumed.
    """
    known, first = SETTINGS["megascale"], len(TOGGLES) if on is True else int(on)
    active = set(TOGGLES[:first])
    net = shape(known["layers"], known["hidden"], known["heads"], 2048, known["vocab"], dropout=False)
    window = known["window"] if "sliding window" in active else 0
    layers = tuple(replace(x, parallel="parallel block" in active, window=window) for x in net.layers)
    hidden = tuple(t for t in TOGGLES[2:] if t in active) + (("input", "optimizer") if on is True else ())
    plan = plans(
        tensor=8, pipeline=8, data=gpus // 64, interleave=known["interleave"], schedule="interleaved",
        recompute="selective", sequence_parallel=1, zero=1, overlap=hidden,
    )  # fmt: skip
    return replace(net, layers=layers), Job(2048, batch), plan


def foundry(wide: int = 16) -> list[Run]:
    """Returns LLM Foundry's benchmarks: MPT 125M to 70B under FSDP on A100s and H100s, products ``wide`` bits wide.

    Full shards gather weights in each pass, partial shards once an iteration; PyTorch prefetches both. "PURE" adds
    gradients up in 16 bits, "DEFAULT" in 32. Seven rows are 8 bits wide.
    """
    found = []
    device = {"a100_40gb": "a100-40g-sxm", "a100_80gb": A100, "h100_80gb": H100}
    for r in rows("llm_foundry", "mpt_fsdp_benchmarks.csv"):
        if ("fp8" in r["Precision"]) != (wide == 8):
            continue
        gpus, sequence, batch = int(r["# GPUs"]), int(r["SeqLen (T)"]), int(r["GlobalBatchSize"])
        plan = plans(
            data=gpus, micro_batch=int(r["MicroBatchSize"]), zero=3 if r["Sharding Strategy"] == "FULL_SHARD" else 2,
            recompute="full" if r["Activation Checkpointing"] == "True" else "none", overlap=("data",),
        )  # fmt: skip
        job = Job(sequence, batch, dtype="fp8" if wide == 8 else "bf16", message=2.0 if r["MP Mode"] == "PURE" else 4.0)
        net = network(f"mpt-{r['Model']}", dropout=False)
        took = batch * sequence / (float(r["Throughput (T/s/GPU)"]) * gpus)
        label = f"{r['GPU']} {r['Model']} {sequence} x {plan.micro_batch[0]} on {gpus}"
        found.append(Run(label, net, job, plan, device[r["GPU"]], took, r["Model"], {"gpu": r["GPU"][:4]}))
    return found


def all_runs() -> Iterator[tuple[str, list[Run]]]:
    """Yields every table with its name."""
    yield "SC 2021", sc21()
    yield "selective recompute", recompute()
    yield "vTrain, several nodes", vtrain("multi")
    yield "vTrain, one node", vtrain("single")
    yield "MegaScale", megascale()
    yield "LLM Foundry", foundry()
