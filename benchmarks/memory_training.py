"""How far the forecast of a training step's memory is off formulas and profiles, and which plans it says fit."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks import training_data as data
from benchmarks.accuracy_training import ABSENT, SYSTEM, made, mean, timed, worst
from benchmarks.records import Null, Ours, Paper, Record, data_path, main, skipped
from benchmarks.training_data import A100, network, rows, system
from fleetcast.cost.training.memory import layer_activations, memory, stage_params
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.schedule import in_flight

COMMAND = "python -m benchmarks.memory_training"


def records(quick: bool) -> list[Record]:
    """Returns memory against published formulas, a measured profile, and plans that ran."""
    command = COMMAND + (" --quick" if quick else "")
    if data_path("training") is None:
        return [skipped(system=SYSTEM, claim="memory of training steps forecast", bar="see the documentation",
                        why=ABSENT, command=command)]  # fmt: skip
    return timed(lambda fast: [figure_1(), galvatron(), feasible(fast)], quick, command)


def figure_1() -> Record:
    """Returns how far layers' memory is from the formulas behind Figure 1 of selective recompute."""
    names = {"22B": "megatron-22b", "175B": "gpt3-175b", "530B": "megatron-530b", "1T": "megatron-1t"}
    plan_of = {r.group: r for r in data.recompute()}
    off = []
    for r in rows("seqsel", "fig1_memory_gib_per_gpu.csv"):
        net, run = network(names[r["model"]]), plan_of[r["model"]]
        on = r["mode"] == "seqsel"
        plan = plans(
            tensor=run.plan.tensor, pipeline=run.plan.pipeline, micro_batch=run.plan.micro_batch,
            interleave=run.plan.interleave, schedule=run.plan.schedule, recompute="selective" if on else "none",
            sequence_parallel=int(on), fused=0,
        )  # fmt: skip
        kept, _ = layer_activations(net, net.layers[0], run.job, plan)
        flying = in_flight(plan.schedule, plan.pipeline, plan.interleave, plan.micro_batches(run.job.batch))
        stage = net.depth / plan.pipeline
        activations = float((kept * stage * flying)[0])
        ends, _ = stage_params(net, plan)
        layers = 18.0 * float((ends[0] - net.table_params / plan.tensor - net.first_params)[0])
        if int(plan.pipeline[0]) == 1:
            layers -= 18.0 * net.last_params
        off += [activations / 2**30 / float(r["activations_gib"]) - 1.0]
        off += [layers / 2**30 / float(r["params_opt_gib"]) - 1.0]
    errors = np.array(off)
    return made(
        claim="memory of Figure 1 of selective recompute: a test of formulas, not of measurements",
        paper=Paper(value=None, setting="34 and 10 + 24/t + 5as/(ht) per token and hidden element, 18 B per parameter"),
        ours=Ours(value=round(100 * float(np.abs(errors).max()), 3), unit="%", setting="worst of eight bars' parts"),
        null=Null(value=None, what="none: an identity"), bar="equal within 0.1 %",
        holds=bool(np.abs(errors).max() <= 1e-3),
    )  # fmt: skip


def galvatron() -> Record:
    """Returns peak memory of Galvatron's profile of Llama-2-7B's first layers, on 8 A100s."""
    path = data_path("training", "galvatron", "memory_profiling_bf16_llama2-7b_all.json")
    assert path is not None
    base, off, plain, labels = network("llama-2-7b"), [], [], []
    for name, values in json.loads(path.read_text(encoding="utf-8")).items():
        words = name.split("_")
        if not words[0].isdigit():
            continue
        pipeline, tensor, data = (int(n) for n in words[:3])
        for depth in (1, 2, 4):
            key = f"layernum[{depth}]_bsz8_seq2048_rank"
            if f"{key}0_ms" not in values:
                continue
            net = replace(base, layers=(replace(base.layers[0], count=depth),))
            plan = plans(
                tensor=tensor, pipeline=pipeline, data=data, micro_batch=8 // data, sequence_parallel=1, zero=3,
                recompute="full" if "c" in words[3:] else "none",
            )  # fmt: skip
            found = memory(net, Job(2048, 8, gradient=2.0, element=4.0), plan, system(A100, 8))
            measured = max(values[f"{key}{r}_ms"] + values[f"{key}{r}_act_peak"] for r in (0, 7)) * 2**20
            off.append(float(found["total"][0] - found["reserve"][0]) / measured - 1.0)
            plain.append(net.params * 16.0 / 8 / measured - 1.0)
            labels.append(f"{name} {depth}")
    errors = np.array(off)
    several = np.array([label[0] != "1" for label in labels])
    said = ", ".join(f"{n} {100 * e:+.0f}" for n, e in zip(labels, errors, strict=True))
    return made(
        claim="peak memory of Llama-2-7B's first layers as Galvatron profiled it on 8 GPUs",
        paper=Paper(value=None, setting=f"{len(off)} points: model states and the peak of activations, fuller stage"),
        ours=Ours(value=mean(errors), unit="%", spread=f"worst {worst(errors)} %: {said}",
                  setting="16 B per parameter, 4 B per kept element (its checkpointed layers keep that much of their "
                  "input); what a layer's pass back gathers was read off its layouts of one stage, those of several "
                  f"were not looked at: mean {mean(errors[several])} %"),
        null=Null(value=mean(np.array(plain)), what="16 B per parameter over the devices, no activations"),
        bar="within 10 % on every point", holds=worst(errors) <= 10,
    )  # fmt: skip


def feasible(quick: bool) -> Record:
    """Returns how many published plans, all of which ran, the forecast says fit."""
    fits, count, refused, tried, missed = 0, 0, 0, 0, []
    for name, runs in data.all_runs():
        for r in runs[:: 40 if quick and len(runs) > 200 else 1]:
            device = system(r.device, r.devices)
            taken = float(memory(r.network, r.job, r.plan, device)["total"][0])
            fits += taken <= device.memory
            count += 1
            if taken > device.memory:
                missed.append(f"{name} {r.label}: {taken / device.memory:.2f}")
            if r.network.params * 16 > device.memory and name != "LLM Foundry":
                whole = plans(data=r.devices, micro_batch=1, recompute="full", fused=0)
                tried += 1
                refused += float(memory(r.network, r.job, whole, device)["total"][0]) > device.memory
    return made(
        claim="published plans that ran and are said to fit",
        paper=Paper(value=count, unit="plans", setting="all five tables"),
        ours=Ours(value=fits, unit="plans", spread="; ".join(missed[:12]) or "none refused",
                  setting=f"{refused} of the {tried} whose parameters alone exceed a device are refused without "
                  "model parallelism"),
        null=Null(value=count, what="everything fits: refuses nothing"),
        bar="every plan that ran is accepted, every one that cannot is refused",
        holds=fits == count and refused == tried,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
