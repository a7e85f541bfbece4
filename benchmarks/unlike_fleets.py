"""Fleets whose links differ: Holmes' placement, Frontier's shards by level, islands that train apart.

Holmes (ICPP 2024) measured GPT-3.6B on four nodes of eight A100s over InfiniBand, RoCE and Ethernet; its figures here
are recalled. Frontier's paper (arXiv 2501.04266) gives ratios of 20B on 384 dies. Nothing is fitted to either, but for
one share of a line rate in a spread that says so. Shards are also carried out, by ranks of one process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import msgspec
import numpy as np
from scipy.optimize import brentq

from benchmarks.placements import CASES, excess
from benchmarks.records import Null, Ours, Paper, Record, main, timer
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.sharding import Sharding, traffic
from fleetcast.policy.place.stages import Blind
from fleetcast.runtime.training.sharded import Sharded
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.load import load_training
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.training.setting import Setting, as_one, setting
from fleetcast.sim.training.world import simulate

COMMAND = "python -m benchmarks.unlike_fleets"
HOLMES = {"layers": 30, "hidden": 3072, "heads": 32}
"""GPT-3.6B, as in SC 2021's Table 1."""
RECALLED = {"infiniband-hdr": 99.2, "roce-200g": 80.5, "ethernet-25g": 61.3}
"""Sequences a second of the paper on 200, 200 and 25 Gb/s a node, recalled."""
FRONTIER = {"layers": 44, "hidden": 6144, "heads": 64}
"""20B parameters; the paper's own shape was not at hand."""
SHARDS: dict[str, dict[str, Any]] = {
    "ZeRO-3": {"weights": 384, "gradients": 384},
    "ZeRO++": {
        "weights": 384, "gradients": 384, "second": 8, "weight_format": "int8", "gradient_format": "int4",
    },
    "three levels": {"weights": 2, "gradients": 8, "weight_format": "int8", "gradient_format": "int4"},
    "three levels, bf16": {"weights": 2, "gradients": 8},
}  # fmt: skip


def outcome(table: dict[str, Any], change: Callable[[Link], Link] | None = None) -> Outcome:
    """Returns the outcome of a training scenario, every link between nodes changed first."""
    scenario = load_training(table)
    state = setting(scenario)
    return simulate(state if change is None else relinked(state, change))


def relinked(state: Setting, change: Callable[[Link], Link]) -> Setting:
    """Returns a setting whose links between nodes and groups are others than the catalogue's."""
    groups = tuple(replace(group, network=change(group.network)) for group in state.tree.groups)
    joins = {path: change(link) for path, link in state.tree.joins.items()}
    tree = replace(state.tree, groups=groups, joins=joins)
    group, notes = as_one(tree)
    return replace(state, tree=tree, group=group, notes=notes, system=systems.of(group))


def cards(roce: float = 1.0) -> Callable[[Link], Link]:
    """Returns what each of eight devices has of a node's only card; of RoCE a share of the line rate."""
    return lambda link: msgspec.structs.replace(
        link, bandwidth=link.bandwidth / 8 * (roce if link.kind == "roce" else 1.0)
    )


def rate(fleet: dict[str, Any], place: str = "nic_aware", *, batch: int = 768, roce: float = 1.0) -> float:
    """Returns sequences a second of GPT-3.6B, at the micro-batch that suits the fleet best."""
    found = [
        outcome({
            "fleet": fleet, "workload": {"kind": "training", "model": HOLMES, "batch": batch},
            "plan": {
                "pipeline_parallel": 2, "tensor_parallel": 1, "micro_batch": micro, "place": place,
                "overlap": ["data", "pipeline"],  # what crosses groups never holds a stage up: the same for one network
            },
        }, cards(roce))
        for micro in (1, 2, 4, 8)
    ]  # fmt: skip
    return max(float(o.metrics["throughput"]) for o in found if o.metrics["fits"]) / 2048.0


def one(network: str, **more: Any) -> float:
    """Returns the same on four nodes of one network."""
    return rate({"devices": "32x a100-80g-sxm", "network": network}, **more)


def clusters(place: str, **more: Any) -> float:
    """Returns the same on two clusters of two nodes, whose cards only Ethernet joins."""
    node = {"count": 2, "devices": "8x a100-80g-sxm", "link": "nvlink-3"}
    names = ("infiniband-hdr", "roce-200g")
    groups = [{"name": name[:4], "link": name, "groups": [node]} for name in names]
    return rate({"network": "ethernet-25g", "groups": groups}, place, **more)


def frontier(shards: dict[str, Any], share: float = 1.0, **more: Any) -> Outcome:
    """Returns an iteration on 384 dies, their network at ``share`` of its line rate."""
    return outcome({
        "fleet": {"devices": "384x mi250x-gcd", "links": {"inter": 12.5e9 * share}},
        "workload": {"kind": "training", "model": FRONTIER, "batch": more.get("batch", 1536)},
        "plan": {"micro_batch": 1, "recompute": "full", "overlap": [], "shards": shards},
    })  # fmt: skip


def taken(name: str, share: float = 1.0, **more: Any) -> float:
    """Returns seconds of an iteration."""
    return float(frontier(SHARDS[name], share, **more).metrics["iteration_time"])


def records(quick: bool = False) -> list[Record]:
    """Returns what is claimed of the three systems."""
    return [*holmes(), *placed(quick), *levels(), *carried_out(), *islands()]


def holmes() -> list[Record]:
    """Returns what a slow network costs, and what placement by network saves of it."""
    with timer() as spent:
        alone = {name: one(name) for name in RECALLED}
        hybrid, blind = clusters("nic_aware"), clusters("blind")
        fast, roce, slow = alone.values()
        lower = RECALLED["roce-200g"] / RECALLED["infiniband-hdr"]
        share = float(brentq(lambda x: one("roce-200g", roce=x) / fast - lower, 0.02, 1.0, xtol=1e-4))
        mixed = clusters("nic_aware", roce=share) / fast
        larger = [one("ethernet-25g", batch=n) / one("infiniband-hdr", batch=n) for n in (1536, 3072)]
    state = _a100s(32)
    peak = state.group.count * state.group.device.peak["bf16"] / (simulate(state).metrics["flops"] / 32)
    told = f"InfiniBand {fast:.1f}, hybrid {hybrid:.1f}, RoCE {roce:.1f}, Ethernet {slow:.1f} sequences/s"
    setting = (
        "GPT-3.6B, 4 nodes of 8 A100s, one card a node, batch of 768, messages between stages beside work everywhere, "
        "nothing fitted"
    )
    ratio, paper = slow / fast, RECALLED["ethernet-25g"] / RECALLED["infiniband-hdr"]
    near, good = abs(ratio / paper - 1) <= 0.15, hybrid >= 0.9 * fast and mixed >= lower
    return [
        Record(
            system=9, claim="sequences per second of GPT-3.6B on InfiniBand of 200 Gb/s a node",
            paper=Paper(value=RECALLED["infiniband-hdr"], unit="/s", setting="recalled"),
            ours=Ours(value=round(fast, 1), unit="/s", spread=told, setting=setting),
            null=Null(value=round(peak, 1), what="the peak of the data sheet"), bar="within 15 %",
            holds=abs(fast / 99.2 - 1) <= 0.15, reproduced="yes" if abs(fast / 99.2 - 1) <= 0.15 else "no",
            reason="" if abs(fast / 99.2 - 1) <= 0.15 else "the paper's batch and plan are not at hand",
            seconds=spent.seconds, command=COMMAND,
        ),
        Record(
            system=9, claim="speed on two clusters of unlike cards that Ethernet joins, of that on InfiniBand alone",
            paper=Paper(value="near InfiniBand, not below RoCE", setting="abstract of arXiv 2312.03549"),
            ours=Ours(
                value=round(hybrid / fast, 3), unit="of it",
                spread=f"{mixed:.3f} where RoCE's share of its line rate, {share:.2f}, is fitted to the paper's "
                f"{lower:.2f} for RoCE alone",
                setting=setting,
            ),
            null=Null(value=round(blind / fast, 3), what="the placement that knows no networks: all on Ethernet"),
            bar="at least 0.9 of it, and above Ethernet alone and the null",
            holds=hybrid >= 0.9 * fast and hybrid > max(slow, blind),
            reproduced="yes" if good else "no",
            reason="" if good else "what crosses is 25 MB a device, micro-batch and way, eight devices on one card, "
            "and 1F1B has one micro-batch to work on meanwhile. The paper's micro-batch, batch and degrees are not at "
            "hand, and its TFLOP/s over its sequences a second is the FLOP with a full recompute, at which less would "
            "be lost",
            seconds=0.0, command=COMMAND,
        ),
        Record(
            system=9, claim="speed on Ethernet of 25 Gb/s a node, of that on InfiniBand of 200 Gb/s",
            paper=Paper(value=round(paper, 2), setting="recalled"),
            ours=Ours(
                value=round(ratio, 3), setting=setting,
                spread=f"{larger[0]:.2f} and {larger[1]:.2f} at batches of 1,536 and 3,072",
            ),
            null=Null(value=1.0, what="networks do not matter"), bar="within 15 %", holds=near,
            reproduced="yes" if near else "no",
            reason="" if near else "the paper's batch and plan are not at hand: a batch twice as large hides so much "
            "more that the ratio comes out",
            seconds=0.0, command=COMMAND,
        ),
    ]  # fmt: skip


def placed(quick: bool) -> list[Record]:
    """Returns how far the rule is from the best of all placements."""
    cases = CASES[:3] if quick else CASES
    with timer() as spent:
        ours = [found for case in cases if (found := excess(*case)) is not None]
        null = [found for case in cases if (found := excess(*case, policy=Blind())) is not None]
    return [
        Record(
            system=9, claim="longest iteration of the rule over the shortest of all placements, up to 16 nodes",
            paper=Paper(value=None, setting="the paper compares with no exhaustive search"),
            ours=Ours(
                value=f"{max(ours):.2%}",
                setting=f"{len(ours)} pairs of clusters of 4 to 16 nodes of 8 A100s; "
                "any node on any stage, mixed stages on the link they share"
            ),
            null=Null(value=f"{max(null):.0%}", what="equal stages, all on the link that joins the clusters"),
            bar="at most 1 %", holds=max(ours) <= 0.01, reproduced="other setting",
            reason="the comparison is ours", seconds=spent.seconds, command=COMMAND,
        ),
    ]  # fmt: skip


def levels() -> list[Record]:
    """Returns the ratios between three ways to share states out on Frontier."""
    with timer() as spent:
        found = {name: frontier(shards) for name, shards in SHARDS.items()}
        zero3, plus, three, wide = (float(o.metrics["iteration_time"]) for o in found.values())
        share = float(brentq(lambda x: taken("ZeRO-3", x) / taken("three levels", x) - 1.405 * 1.707, 0.05, 4.0))
        ends = [taken(name, share) for name in ("ZeRO-3", "ZeRO++", "three levels")]
        batches = [taken("ZeRO++", batch=n) / taken("three levels", batch=n) for n in (384, 6144)]
    lacks = 1.707 * ends[2] - ends[1]
    times = frontier(SHARDS["ZeRO++"], share).breakdown["time"]
    messages = times["data_comm"] + times["weight_gather"]
    memory = ", ".join(f"{name} {o.metrics['memory'] / 1e9:.1f} GB" for name, o in found.items())
    setting = "20B on 384 dies of MI250X, nothing overlapped, 4 micro-batches of one sequence of 2,048"
    near, ordered = abs(zero3 / plus / 1.405 - 1) <= 0.15, zero3 > plus > three
    return [
        Record(
            system=31, claim="speed of ZeRO++ over ZeRO-3, 20B on 384 dies",
            paper=Paper(value=1.405, unit="x", setting="arXiv 2501.04266"),
            ours=Ours(
                value=round(zero3 / plus, 3), unit="x", spread=f"memory of a die: {memory}",
                setting=f"{setting}, nothing fitted",
            ),
            null=Null(value=1.0, what="bytes do not matter"), bar="within 15 % of the published ratio", holds=near,
            reproduced="yes" if near else "no", reason="" if near else "see the spread", seconds=spent.seconds,
            command=COMMAND,
        ),
        Record(
            system=31, claim="speed of three levels of shards over ZeRO++, 20B on 384 dies",
            paper=Paper(value=1.707, unit="x", setting="arXiv 2501.04266"),
            ours=Ours(
                value=round(plus / three, 3), unit="x",
                spread=f"{plus / wide:.2f} with 16-bit messages; {batches[0]:.2f} to {batches[1]:.2f} at 1 to 16 "
                "micro-batches",
                setting=f"{setting}, int8 weights and int4 gradients in both, nothing fitted",
            ),
            null=Null(value=1.0, what="bytes do not matter"), bar="ordered as published, and within 15 %",
            holds=ordered and abs(plus / three / 1.707 - 1) <= 0.15,
            reproduced="yes" if ordered and abs(plus / three / 1.707 - 1) <= 0.15 else "no",
            reason=f"the order comes out, not the size. One share of the line rate, {share:.2f}, fits the published "
            f"ends, three levels over ZeRO-3 at 2.40; then ZeRO++ is {ends[0] / ends[1]:.2f} times as fast as the one, "
            f"and three levels {ends[1] / ends[2]:.2f} times as fast as ZeRO++. For the published ratios its messages "
            f"of {messages:.1f} s, narrowing included, would have to take {1 + lacks / messages:.1f} times as long "
            "while those of ZeRO-3 did not",
            seconds=0.0, command=COMMAND,
        ),
    ]  # fmt: skip


def carried_out() -> list[Record]:
    """Returns whether ranks that share states out send what the forecast counts, and stay with full-width training."""
    rng = np.random.default_rng(31)
    ranks, node, size = 16, 4, 4096
    system = replace(systems.of(_a100s(ranks).group), node=node)
    forms = {
        "ZeRO-3": Sharding(16, 16, 16), "ZeRO++": Sharding(16, 16, 16, 4, "int8", "int4"),
        "three levels": Sharding(2, 4, 16, 0, "int8", "int4"), "three levels, bf16": Sharding(2, 4, 16),
    }  # fmt: skip
    with timer() as spent:
        sent, told, off = {}, {}, {}
        truth = rng.standard_normal(size).astype(np.float32)
        exact = Sharded(truth, Sharding(1, 1, 16, 0, "fp32", "fp32"), ranks, node)
        runs = {name: Sharded(truth, form, ranks, node) for name, form in forms.items()}
        for _ in range(4):
            slopes = [rng.uniform(-1, 1, size).astype(np.float32) for _ in range(ranks)]
            for run in (exact, *runs.values()):
                for _ in range(2):
                    run.gathered()
                    run.gathered_again()
                    run.add(slopes)
                run.step(2 * ranks)
        for name, run in runs.items():
            sent[name], told[name] = run.far[0] / 4, traffic(size, forms[name], ranks, 2, system).slow
            off[name] = float(np.abs(run.gathered()[0] - exact.gathered()[0]).max())
    worst = max(float(abs(sent[name] / told[name] - 1)) for name in sent)
    ratios = ", ".join(f"{name} {sent[name] / sent['ZeRO-3']:.2f}" for name in sent)
    return [
        Record(
            system=31, claim="bytes that ranks send to other nodes, carried out in one process, of the forecast's",
            ours=Ours(
                value=f"{1 + worst:.4f}", unit="of them at worst", spread=f"of ZeRO-3's: {ratios}",
                setting="16 ranks in nodes of 4, 4 steps of 2 micro-batches, messages of int8 and int4 among them",
            ),
            null=Null(value=1.0, what="every way sends as much as ZeRO-3"), bar="equal to 1e-9", holds=worst < 1e-9,
            reproduced="other setting", reason="the paper counts none", seconds=spent.seconds, command=COMMAND,
        ),
    ]  # fmt: skip


def _a100s(count: int) -> Setting:
    scenario = load_training({
        "fleet": {"devices": f"{count}x a100-80g-sxm"}, "plan": {},
        "workload": {"kind": "training", "model": HOLMES, "batch": count},
    })  # fmt: skip
    return setting(scenario)


def islands() -> list[Record]:
    """Returns how near the break-even bandwidth is to one found by simulating the whole fleet on slower links."""
    workload = {"kind": "training", "model": "llama-3.1-8b", "sequence": 4096, "batch": 512}
    plan = {"zero": 1, "overlap": [], "micro_batch": 1, "recompute": "full", "tensor_parallel": 8}

    def whole(bandwidth: float) -> float:
        fleet = {"devices": "64x h100-sxm", "links": {"inter": bandwidth / 8}}
        return float(outcome({"fleet": fleet, "workload": workload, "plan": plan}).metrics["iteration_time"])

    with timer() as spent:
        found = outcome({
            "fleet": {"devices": "64x h100-sxm"}, "workload": workload, "plan": {**plan, "islands": 8},
        })  # fmt: skip
        stated, alone = float(found.metrics["break_even"]), float(found.metrics["iteration_time"])
        tried = float(brentq(lambda b: whole(b) - 1.05 * alone, 1e8, 1e14, xtol=1e3))
    plain = 2.0 * 7 / 8 * 4.0 * float(found.metrics["params"]) / (0.05 * alone)
    return [
        Record(
            system=26, claim="bandwidth between 8 islands below which experts apart beat one model on all",
            paper=Paper(value=None, setting="the paper trains 8 islands without any link; it states no bandwidth"),
            ours=Ours(
                value=round(stated / 1e9, 1), unit="GB/s",
                spread=f"{tried / 1e9:.1f} by simulating 64 H100s as one fleet",
                setting="Llama-3.1-8B, 8 islands of 8 H100s, tensor-parallel over 8; nothing crosses islands",
            ),
            null=Null(value=round(plain / 1e9, 1), what="the formula of line rates: gradients / 5 % of an iteration"),
            bar="within 1 % of a search over simulated iterations of the whole", holds=abs(stated / tried - 1) < 0.01,
            reproduced="other setting", reason="the paper has no such figure; the router's 5 % of the work is assumed",
            seconds=spent.seconds, command=COMMAND,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
