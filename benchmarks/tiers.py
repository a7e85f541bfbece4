"""Tiers: the planner against every cascade and its nulls, the advisor on 120 pairs, AutoLife-Lite's findings forecast.

Inputs are in ``tiers_inputs.toml``, which was fixed before any result was looked at.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import ROOT, Null, Ours, Paper, Record, main, timer
from benchmarks.tiers_exhaustive import compared, same
from benchmarks.tiers_load import load_records
from fleetcast.base.errors import Infeasible
from fleetcast.base.show import show
from fleetcast.cost.engine import engine
from fleetcast.scenario.fleet.catalog import device, link
from fleetcast.scenario.fleet.links import transfer_time
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.workload.catalog import model
from fleetcast.search.advice.advisor import Option, advise
from fleetcast.search.tiers.choice import choose
from fleetcast.search.tiers.legs import METRICS, TEXT, from_text
from fleetcast.search.tiers.parts import engine_for
from fleetcast.search.tiers.planner import COLUMNS, Question, question
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

INPUTS: dict[str, Any] = tomllib.loads((ROOT / "benchmarks" / "tiers_inputs.toml").read_text(encoding="utf-8"))
CLEARLY = 0.01
"""A gain below this is called none."""
QUICK_SEEDS, QUICK_LINKS = 100, 1


def workload(name: str, part: str) -> dict[str, Any]:
    """Returns the workload of one user who sends the requests of a part of the inputs."""
    lengths = {"kind": "fixed", "prompt": INPUTS[part]["prompt"], "output": INPUTS[part]["output"]}
    return {"model": name, "arrivals": {"kind": "closed", "concurrency": 1, "requests": 1}, "lengths": lengths}


# --- 6: AI Flow


def exhaustive(count: int) -> tuple[int, int]:
    """Returns on how many random instances the planner equals trying everything, and one answer of one tier does."""
    seed = INPUTS["flow"]["random"]["seed"]
    rows = [compared(1000 * seed + i) for i in range(count)]
    return sum(same(ours, best) for ours, best, _ in rows), sum(same(plain, best) for _, best, plain in rows)


@dataclass(frozen=True)
class Gain:
    """A case: links, floor, goal, limit on the mean time of an answer; the best and each null's, in the goal's unit."""

    near: str
    far: str
    quality: float
    goal: str
    within: float
    best: float
    nulls: Mapping[str, float]
    shape: str

    @property
    def saved(self) -> float:
        """Share of the best null that the planner saves."""
        null = min(self.nulls.values())
        return 1 - self.best / null if null > 0 else 0.0

    @property
    def alone(self) -> bool:
        """Whether no null meets the limits."""
        return min(self.nulls.values()) == float("inf")


def family(near: str, far: str, price: Mapping[str, str]) -> Question:
    """Returns the frozen tiers between two links, resolved."""
    flow = INPUTS["flow"]
    places = ("phone", "edge", "cloud")
    groups = {p: {"name": p, "devices": f"1x {flow[p]['device']}"} for p in places}
    pools = [
        {"on": f"home/{p}" if p != "cloud" else p, "dtype": flow[p]["dtype"],
         "batch": {"max_batch": flow[p].get("at_once", 1)}}
        for p in places
    ]  # fmt: skip
    home = {"name": "home", "link": near, "groups": [groups["phone"], groups["edge"]]}
    scenario = {
        "fleet": {"network": far, "groups": [home, groups["cloud"]], "price": dict(price)},
        "workload": workload("qwen2.5-7b", "flow") | {"exits": flow["family"], "confidence": flow["confidence"]},
        "plan": {"pools": pools},
    }
    return question(setting(load_serving(scenario)))


def nulls(asked: Question, quality: float, goal: str, within: float) -> dict[str, float]:
    """Returns the goal under the three rules, each at its best: one tier alone, or two models that share nothing.

    The two models have the sizes and scores of two exits; the small one answers on the phone and passes on, as text,
    what it is not confident of, at whichever of the planner's thresholds does best.
    """
    problem, book, column = asked.problem, asked.costs, METRICS.index(COLUMNS[goal])
    last = problem.tiers - 1
    legs = {(t, e): from_text(book, t, e) for t in (0, last) for e in problem.exits}
    found = dict.fromkeys(("device alone", "cloud alone", "two models"), float("inf"))
    for i, exit in enumerate(problem.exits):
        if problem.judge.cascade([i], np.empty((1, 0)))[0][0] >= quality:
            for name, t in (("device alone", 0), ("cloud alone", last)):
                leg = legs[t, exit]
                if leg is not None and leg.takes[0] <= within:
                    found[name] = min(found[name], float(leg.takes[column]))
        for j in range(i + 1, len(problem.exits)):
            small, large = legs[0, exit], legs[last, problem.exits[j]]
            if small is None or large is None:
                continue
            right, reach = problem.judge.cascade([i, j], problem.thresholds[:, None])
            values = reach @ np.array([small.takes, large.takes])
            met = (right >= quality) & (values[:, 0] <= within)
            found["two models"] = min([found["two models"], *values[met, column].tolist()])
    return found


def gains(links: Sequence[tuple[str, str]], part: Mapping[str, Any]) -> Iterator[Gain]:
    """Yields every frozen case of a part of the inputs that some plan solves."""
    for near, far in links:
        asked = family(near, far, part.get("price", {}))
        for quality, goal, within in product(part["quality"], part["objectives"], part.get("e2e", [float("inf")])):
            limits = {"error": round(1 - quality, 12), "e2e": within}
            found = choose(replace(asked.problem, goals=(COLUMNS[goal],), limits=limits)).best
            if found:
                shape = ", ".join(f"{asked.costs.tiers[t].name.split('/')[-1]} {how}" for t, how, _ in found[0].shape)
                best = found[0].values[COLUMNS[goal]]
                yield Gain(near, far, quality, goal, within, best, nulls(asked, quality, goal, within), shape)


def flow_records(quick: bool, command: str) -> list[Record]:
    """Returns the records of AI Flow."""
    count = QUICK_SEEDS if quick else INPUTS["flow"]["random"]["instances"]
    with timer() as first:
        equal, plain = exhaustive(count)
    flow = INPUTS["flow"]
    made = []
    for part in (flow, flow["limited"]):
        links = [(near, far) for near in part["near"] for far in flow["far"]]
        with timer() as spent:
            cases = list(gains(links[:QUICK_LINKS] if quick else links, part))
        made.append((cases, spent.seconds))
    lengths = f"{flow['prompt']} + {flow['output']} tokens (synthetic)"
    where = (
        f"phone int4, Jetson int8, H100 shared by 16, published Ruyi-7B exits, confidence AUROC {flow['confidence']} "
        f"(synthetic), {lengths}, links {', '.join(flow['near'])} and {', '.join(flow['far'])}"
    )
    return [
        Record(
            system=6, claim="tier planner equals trying every cascade, random instances",
            paper=Paper(setting="the paper states no figure: its framework chooses tier, branch and collaboration"),
            ours=Ours(
                value=equal, unit=f"of {count}", setting="1 to 3 tiers, 2 to 3 exits, every split, 4 thresholds, up to "
                "3 answers, limits and goals drawn; the oracle is written from the definitions",
            ),
            null=Null(value=plain, what="the best single answer of one tier is as good on so many"),
            bar="all", holds=equal == count, reproduced="other setting",
            reason="the paper has no such figure; the bar is ours", seconds=first.seconds, command=command,
        ),
        gain_record("one goal, no limit on time", *made[0], where, command),
        gain_record(
            "one goal within a limit on the time of an answer", *made[1],
            f"{where}; limits {', '.join(show(t, 's') for t in flow['limited']['e2e'])}, Jetson at 0.10 $/h (assumed)",
            command,
        ),
    ]  # fmt: skip


def gain_record(what: str, cases: Sequence[Gain], seconds: float, where: str, command: str) -> Record:
    """Returns the record of the planner against its nulls at equal quality."""
    met = [c for c in cases if not c.alone]
    alone = len(cases) - len(met)
    better, worse = [c for c in met if c.saved > CLEARLY], [c for c in met if c.saved < -1e-9]
    goals = dict.fromkeys(c.goal for c in cases)
    wins = ", ".join(
        f"{g} {sum(c.alone or c.saved > CLEARLY for c in cases if c.goal == g)} of {sum(c.goal == g for c in cases)}"
        for g in goals
    )
    first = [min(c.nulls, key=lambda name: c.nulls[name]) for c in met]
    which = ", ".join(f"{name} {first.count(name)} times" for name in dict.fromkeys(first))
    said = f"by more than {CLEARLY:.0%}: {wins}"
    if better:
        most = max(better, key=lambda c: c.saved)
        said += (
            f"; median saving there {median(c.saved for c in better):.0%}, largest {most.saved:.0%} ({most.goal} at "
            f"quality {most.quality:g}, {most.near} and {most.far}: {most.shape})"
        )
    if alone:
        said += f"; in {alone} of them no null meets the limits at all"
    return Record(
        system=6, claim=f"cases in which planned tiers beat device alone, cloud alone and two models: {what}",
        paper=Paper(setting="the abstract claims that cooperation gains, without a figure"),
        ours=Ours(value=len(better) + alone, unit=f"of {len(cases)}", spread=said, setting=where),
        null=Null(value=len(met) - len(better), what=f"cases where a null is as good; the best null is {which}"),
        bar="never worse than the best null at the same quality", holds=not worse, reproduced="other setting",
        reason="the paper has no such figure. Where one tier is fast and good enough, answering there alone is best, "
        "and nothing is gained; hidden states of 7 kB a token are dearer to send up a radio link than to compute again",
        seconds=seconds, command=command,
    )  # fmt: skip


# --- 12: on-device review


def advice_records(command: str) -> list[Record]:
    """Returns the record of the advisor."""
    part = INPUTS["advice"]
    over = proposed = pairs = fit = naive = 0
    with timer() as spent:
        for name in part["models"]:
            fleet = {"devices": " + ".join(f"1x {d}" for d in part["devices"])}
            for found in advise(setting(load_serving({"fleet": fleet, "workload": workload(name, "advice")}))):
                chip = device(found.device)
                pairs += 1
                fit += bool(found.options)
                proposed += len(found.options)
                over += sum(
                    not plainly_fits(o, engine(found.engine).memory_fraction * chip.memory) for o in found.options
                )
                naive += sum(r.have > 0 and weighs(name, r.technique) < chip.memory for r in found.refused)
    return [
        Record(
            system=12, claim="plans that the deployability advisor proposes above a device's memory",
            paper=Paper(setting="a survey: it names techniques, no figure"),
            ours=Ours(
                value=over, unit=f"of {proposed}", setting=f"{pairs} pairs of {len(part['devices'])} devices and "
                f"{len(part['models'])} models, {part['prompt']} + {part['output']} tokens; something runs on {fit}",
            ),
            null=Null(value=naive, what="more that 'weights are less than the memory' would propose; none fits"),
            bar="none", holds=over == 0, reproduced="other setting",
            reason="the paper has no such figure; the bar is ours", seconds=spent.seconds, command=command,
        )
    ]  # fmt: skip


def plainly_fits(option: Option, limit: float) -> bool:
    """Whether the weights that stay, added up here, are less than the option says, and that is within the limit."""
    weights = 0.0
    if not option.technique.startswith(("exit", "prune")):
        dtype = "auto" if option.dtype == model(option.model).dtype else option.dtype
        weights = model(option.model).weight_bytes(dtype=dtype) - option.elsewhere
    return weights < option.bytes <= limit and option.have <= limit


def weighs(name: str, technique: str) -> float:
    """Returns bytes of a model's weights in the format that a technique of the advisor names, whole; else infinity."""
    formats = {"as published": "auto", "quantise-fp8": "fp8", "quantise-int8": "int8", "quantise-int4": "int4"}
    return model(name).weight_bytes(dtype=formats[technique]) if technique in formats else float("inf")


# --- 19: AutoLife-Lite


@cache
def answer_time(name: str, on: str, dtype: str) -> float | None:
    """Returns seconds of one answer of the application on a device, links aside; None where it does not fit."""
    pool = {
        "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "dtype": dtype, "engine": engine_for(device(on)),
        "batch": {"max_batch": 1},
    }  # fmt: skip
    if dtype == "auto":
        del pool["dtype"]
    try:
        state = setting(
            load_serving({"fleet": {"devices": f"1x {on}"}, "workload": workload(name, "autolife"), "plan": pool})
        )
        return float(simulate(state, complete(state, state.scenario.plan)).metrics["e2e"]["mean"])
    except Infeasible:
        return None


def sending(over: str) -> float:
    """Returns seconds that prompt and answer of the application take over a link."""
    part, path = INPUTS["autolife"], (link(over),)
    return transfer_time(path, TEXT * part["prompt"], up=True) + transfer_time(path, TEXT)


def where(part: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Returns (column, device, seconds on the link) for the table: phones, edge over Wi-Fi, cloud over each link."""
    wifi = part["links"][-1]
    return (
        [(p, p, 0.0) for p in part["phones"]] + [(e, e, sending(wifi)) for e in part["edge"]]
        + [(f"{part['cloud']}, {k}", part["cloud"], sending(k)) for k in part["links"]]
    )  # fmt: skip


def autolife_table() -> str:
    """Returns the forecast of the application on every device as Markdown, seconds an answer."""
    part = INPUTS["autolife"]
    places = where(part)
    heads = ["model", "weights", *(column for column, _, _ in places)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for dtype in part["dtypes"]:
        for name in part["models"]:
            times = ((answer_time(name, on, dtype), sent) for _, on, sent in places)
            cells = (show(t + sent, "s") if t is not None else "-" for t, sent in times)
            params = f"{name}, {model(name).params() / 1e9:.1f} B"
            lines.append("| " + " | ".join([params, "as published" if dtype == "auto" else dtype, *cells]) + " |")
    return "\n".join(lines)


def autolife_records(command: str) -> list[Record]:
    """Returns the records of AutoLife-Lite's findings."""
    part = INPUTS["autolife"]
    sizes = {name: float(model(name).params()) for name in part["models"]}
    with timer() as spent:
        runs = {
            d: {n: any(answer_time(n, p, d) is not None for p in part["strong"]) for n in sizes} for d in part["dtypes"]
        }
        largest = {d: max(sizes[n] for n, ok in rows.items() if ok) for d, rows in runs.items()}
        small = {n for n, size in sizes.items() if size < part["far_below"]}
        as_claimed = {n for n, ok in runs["auto"].items() if ok} == small
        waits = {
            (p, d): max(((sizes[n], n, t) for n in sizes if (t := answer_time(n, p, d)) is not None), default=None)
            for p in part["strong"] for d in part["dtypes"]
        }  # fmt: skip
        slow = [w[2] for (_, d), w in waits.items() if w is not None and d == "auto"]
        bound = min(
            part["output"] * model(w[1]).weight_bytes() / device(p).bandwidth
            for (p, d), w in waits.items() if w is not None and d == "auto"
        )  # fmt: skip
        cloud = {
            (n, d): t + max(map(sending, part["links"]))
            for n in sizes for d in part["dtypes"] if (t := answer_time(n, part["cloud"], d)) is not None
        }  # fmt: skip
        order = list(between(part))
    said = "; ".join(f"{w[1]} {show(w[2], 's')} on {p} {name_of(d)}" for (p, d), w in waits.items() if w is not None)
    top = max(cloud, key=lambda k: cloud[k])
    inside = sum(phone > edge > far for _, phone, edge, far in order)
    fastest, far_away = max(device(p).bandwidth for p in part["strong"]), device(part["cloud"]).bandwidth
    by_bandwidth = sum(fastest < device(row[0]).bandwidth < far_away for row in order)
    each = {e: [row[2] / row[3] for row in order if row[0] == e] for e in part["edge"]}
    lengths = f"{part['prompt']} + {part['output']} tokens (synthetic), nothing measured on a phone"
    return [
        Record(
            system=19, claim="largest model that runs on a strong phone",
            paper=Paper(value=4.0, unit="B", setting="'< 4B parameters', strong phones (abstract)"),
            ours=Ours(
                value=round(largest["auto"] / 1e9, 2), unit="B",
                spread=f"as published; compressed to int4: {largest['int4'] / 1e9:.1f} B",
                setting=f"{', '.join(part['strong'])}; an app may hold three quarters of the memory; {lengths}",
            ),
            null=Null(
                value=round(max(s for n, s in sizes.items() if model(n).weight_bytes() < max(
                    device(p).memory for p in part["strong"])) / 1e9, 2),
                what="weights less than all of the phone's memory",
            ),
            bar="as published, exactly the models below 4 B run", holds=as_claimed,
            reproduced="yes" if as_claimed else "no",
            reason="" if as_claimed else "see the table: other models run, or some below 4 B do not",
            seconds=spent.seconds, command=command,
        ),
        Record(
            system=19, claim="seconds an answer on a strong phone, largest model that runs there",
            paper=Paper(value=part["phone_above"], unit="s", setting="'> 30 seconds', meaningful output (abstract)"),
            ours=Ours(value=round(min(slow), 1), unit="s", spread=said, setting=f"the fastest strong phone; {lengths}"),
            null=Null(value=round(bound, 1), what="output tokens x weights / bandwidth"),
            bar="above 30 s on both strong phones, as published", holds=min(slow) > part["phone_above"],
            reproduced="yes" if min(slow) > part["phone_above"] else "no",
            reason="" if min(slow) > part["phone_above"] else "the forecast charges no host time and no throttling on "
            "phones, and the application's lengths are ours: it is what memory and arithmetic allow at best",
            seconds=0.0, command=command,
        ),
        Record(
            system=19, claim="seconds an answer from the cloud, slowest model and link",
            paper=Paper(value=part["cloud_below"], unit="s", setting="'< 10 seconds' (abstract)"),
            ours=Ours(
                value=round(cloud[top], 2), unit="s", spread=f"{top[0]} {name_of(top[1])}; "
                f"all of {len(cloud)} from {min(cloud.values()):.2f} s",
                setting=f"one user on {part['cloud']}; {lengths}",
            ),
            null=Null(value=round(max(map(sending, part["links"])), 2), what="the network alone"),
            bar="below 10 s", holds=cloud[top] < part["cloud_below"],
            reproduced="yes" if cloud[top] < part["cloud_below"] else "no",
            reason="" if cloud[top] < part["cloud_below"] else "the largest models are slower",
            seconds=0.0, command=command,
        ),
        Record(
            system=19, claim="models for which the edge lies between phone and cloud",
            paper=Paper(setting="'edge deployments offer intermediate tradeoffs', CPU and GPU differ (abstract)"),
            ours=Ours(
                value=inside, unit=f"of {len(order)}",
                spread="times the cloud's: " + ", ".join(f"{e} {min(r):.1f} to {max(r):.1f}" for e, r in each.items()),
                setting=f"model, weights and edge device that run on the fastest strong phone too; {lengths}",
            ),
            null=Null(value=by_bandwidth, what="memory bandwidth alone puts the edge between in so many"),
            bar="all", holds=inside == len(order), reproduced="yes" if inside == len(order) else "no",
            reason="" if inside == len(order) else "some edge devices beat the cloud, or lose to the phone",
            seconds=0.0, command=command,
        ),
    ]  # fmt: skip


def between(part: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float]]:
    """Yields (edge device, fastest strong phone, edge, slowest cloud), s, for what runs on all three."""
    wifi = part["links"][-1]
    for dtype in part["dtypes"]:
        for name in part["models"]:
            phones = [t for p in part["strong"] if (t := answer_time(name, p, dtype)) is not None]
            far = answer_time(name, part["cloud"], dtype)
            for on in part["edge"]:
                edge = answer_time(name, on, dtype)
                if phones and far is not None and edge is not None:
                    yield on, min(phones), edge + sending(wifi), far + max(map(sending, part["links"]))


def name_of(dtype: str) -> str:
    """Returns a dtype for people."""
    return "as published" if dtype == "auto" else dtype


def records(quick: bool) -> list[Record]:
    """Returns the records of systems 6, 12 and 19."""
    command = "python -m benchmarks.tiers" + (" --quick" if quick else "")
    loaded = load_records(INPUTS["flow"], quick, command)
    found = [*flow_records(quick, command), *loaded, *advice_records(command), *autolife_records(command)]
    print(autolife_table())
    return found


if __name__ == "__main__":
    sys.exit(main(records))
