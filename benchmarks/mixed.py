"""Mixed fleets: load split by speed over unlike devices, and spot devices beside kept ones when they fail.

Inputs are frozen in mixed_inputs.toml: real traffic, sourced prices, a synthetic failure process.
"""

from __future__ import annotations

import itertools
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import msgspec
import numpy as np

from benchmarks.records import ROOT, Null, Ours, Paper, Record, cpu_seconds, main
from fleetcast.policy.route import Arrival, View
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan
from fleetcast.search.capacity import max_rate
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

COMMAND = "python -m benchmarks.mixed"


class Shortest:
    """The shortest line, whatever the speed of its replica: least_loaded without weights."""

    kind = "shortest"
    static = False

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the replica with the fewest requests."""
        return min(range(len(view.load)), key=lambda i: view.load[i])


@cache
def inputs() -> Mapping[str, Any]:
    """Returns the frozen inputs."""
    return tomllib.loads((ROOT / "benchmarks" / "mixed_inputs.toml").read_text(encoding="utf-8"))


def scenario(fleet: Any, slo: Any, pools: Sequence[Any], workload: Mapping[str, Any], **plan: Any) -> dict[str, Any]:
    """Returns the table of a scenario on the frozen traffic."""
    given = inputs()
    pools = [{"tensor_parallel": 1, "pipeline_parallel": 1, "batch": given["batch"], **pool} for pool in pools]
    return {
        "fleet": fleet, "slo": slo, "plan": {"pools": pools} | plan,
        "workload": {"model": given["model"], "trace": given["trace"], **workload},
    }  # fmt: skip


def by_speed(quick: bool) -> Record:
    """The load that old and new devices carry together under one SLO, by how it is split."""
    start = cpu_seconds()
    given = inputs()["kinds"]
    pools = [{"on": on, "replicas": 2} for on in ("h100-sxm", "a100-80g-sxm")]
    requests = 2000 if quick else 8000
    found = {}
    for name, kind in (
        ("least loaded by speed", "least_loaded"), ("drawn by speed", "random"), ("round robin", "round_robin"),
        ("shortest line", f"{__package__ or 'benchmarks'}.mixed:Shortest"),
    ):  # fmt: skip
        table = scenario({"devices": given["devices"]}, given["slo"], pools, {"requests": requests},
                         route={"kind": kind})  # fmt: skip
        found[name] = max_rate(load_serving(table)).rate
    null, ours = found["round robin"], found["least loaded by speed"]
    said = "; ".join(f"{name} {rate:.1f} requests/s" for name, rate in found.items())
    return Record(
        system=5, claim="load that two H100 and two A100 carry together when it is split by speed",
        paper=Paper(setting="no paper; our bar"),
        ours=Ours(
            value=ours / null, unit="x", spread=f"shortest line without speeds {found['shortest line'] / null:.2f} x",
            setting=f"{requests:,} requests of chat, drawn together until the SLO is missed (within 2 %); {said}",
        ),
        null=Null(value=1.0, what="round robin: equal shares"), bar="at least 1.1 x", holds=ours >= 1.1 * null,
        reproduced="other setting", reason="no published figure for this fleet",
        seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


def places(kept: int, spot: int, mtbf: str, seed: int, requests: int | None) -> Setting:
    """Returns the scenario of a fleet of kept and spot devices; without ``mtbf`` none fails."""
    given = inputs()["spot"]
    failures = {"mtbf": mtbf, "repair": given["repair"], "per": "device", "billed": False}
    groups = [
        {"name": "kept", "devices": f"{given['most']}x {given['device']}"},
        {"name": "spot", "devices": f"{given['most']}x {given['device']}", "price": "spot"}
        | ({"failures": failures} if mtbf else {}),
    ]
    pools = [{"on": on, "replicas": n} for on, n in (("kept", kept), ("spot", spot)) if n]
    workload = {"speed_up": given["speed_up"]} | ({"requests": requests} if requests else {})
    return setting(load_serving(scenario({"groups": groups}, given["slo"], pools, workload) | {"seed": seed}))


class Mixes:
    """Outcomes of every mix, each simulated once; the traffic is read once."""

    def __init__(self, requests: int | None) -> None:
        """Takes how many requests; None = the whole hour."""
        self.requests = requests
        self.known: dict[Any, Outcome] = {}
        self.base: Setting | None = None

    def outcome(self, kept: int, spot: int, mtbf: str, seed: int) -> Outcome:
        """Returns the outcome of a plan of so many replicas."""
        key = kept, spot, mtbf if spot else "", seed if spot and mtbf else 0
        if key not in self.known:
            state = places(*key, self.requests)
            self.base = self.base or state
            state = replace(state, requests=self.base.requests)
            plan: Plan = complete(state, state.scenario.plan)
            self.known[key] = simulate(state, plan)
        return self.known[key]

    def cheapest(self, mixes: Sequence[tuple[int, int]], mtbf: str) -> tuple[float, tuple[int, int]] | None:
        """Returns the cheapest of some mixes that meets the SLO under every seed, with its mean cost."""
        found = []
        for kept, spot in mixes:
            seeds = inputs()["spot"]["seeds"] if spot else [0]
            outcomes = []
            for seed in seeds:
                outcomes.append(self.outcome(kept, spot, mtbf, seed))
                if not outcomes[-1].slo["met"]:
                    break
            else:
                found.append((float(np.mean([o.metrics["cost"] for o in outcomes])), (kept, spot)))
        return min(found, default=None)


def late(outcome: Outcome) -> float:
    """Returns the share of requests that miss a limit of the SLO, each taken per request."""
    served, given = outcome.requests, inputs()["spot"]["slo"]
    assert served is not None
    limits = {name: float(text.split()[0]) * (1e-3 if text.endswith("ms") else 1.0) for name, text in given.items()}
    gap = (served.e2e - served.ttft) / np.maximum(served.output - 1, 1)
    return float(((served.ttft > limits["ttft_p99"]) | (gap > limits["tpot_p99"])).mean())


def spot(quick: bool) -> list[Record]:
    """What spot devices save under the same SLO when they fail, and what their failures do to requests."""
    start = cpu_seconds()
    given = inputs()["spot"]
    mixes = Mixes(4000 if quick else None)
    most = given["most"]
    alone = mixes.cheapest([(n, 0) for n in range(1, most + 1)], "")
    assert alone is not None
    rows, ratios, shares = [], {}, {}
    for mtbf in given["mtbf"]:
        every = [(k, s) for k, s in itertools.product(range(most + 1), range(1, most + 1)) if k + s <= most]
        best = mixes.cheapest(every, mtbf)
        only = mixes.cheapest([(0, n) for n in range(1, most + 1)], mtbf)
        assert best is not None
        (_, (kept, taken)) = best
        ratios[mtbf] = best[0] / alone[0]
        bare = min((k, s) for k, s in every if mixes.outcome(k, s, "", 0).slo["met"] and k == 0)
        with_ = [late(mixes.outcome(*bare, mtbf, seed)) for seed in given["seeds"]]
        without = late(mixes.outcome(*bare, "", 0))
        up = np.mean([mixes.outcome(*bare, mtbf, seed).metrics["availability"] for seed in given["seeds"]])
        shares[mtbf] = (float(np.mean(with_)), without, bare, float(up))
        alone_spot = (
            "no number of spot alone" if only is None else f"{only[1][1]} spot alone {only[0] / alone[0]:.2f} x"
        )
        rows.append(f"mtbf {mtbf}: {kept} kept + {taken} spot {ratios[mtbf]:.2f} x, {alone_spot}")
    said = f"cheapest without spot: {alone[1][0]} kept; " + "; ".join(rows)
    first = given["mtbf"][0]
    late_, without, bare, up = shares[first]
    seconds = cpu_seconds() - start
    many = len(given["seeds"])
    synthetic = "synthetic failures: no preemption trace of these devices was at hand"
    size = len(mixes.base.requests) if mixes.base is not None else 0
    return [
        Record(
            system=5, claim="cost of kept and spot devices under an SLO, spot failing, over kept devices alone",
            paper=Paper(setting="no paper; our bar"),
            ours=Ours(
                value=ratios[first], unit="x",
                spread=f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f} over mtbf {', '.join(ratios)}",
                setting=f"{size:,} requests of chat; repair {given['repair']}; SLO met under each of {many} seeds; "
                f"prices 2.95 and 1.25 $/h; {said}",
            ),
            null=Null(value=1.0, what=f"{alone[1][0]} kept devices, the cheapest without spot"),
            bar="below 1 x at every mtbf", holds=max(ratios.values()) < 1.0, reproduced="other setting",
            reason=synthetic, seconds=seconds, command=COMMAND,
        ),
        Record(
            system=5, claim="share of late requests that failures cause on spot devices alone",
            paper=Paper(setting="no paper; a measurement"),
            ours=Ours(
                value=(late_ - without) / late_ if late_ else 0.0, unit="of late requests",
                spread="; ".join(
                    f"mtbf {m}: {a:.2%} late with failures, {b:.2%} without, up {u:.1%}"
                    for m, (a, b, _, u) in shares.items()
                ),
                setting=f"{bare[1]} spot devices, the fewest that meet the SLO where none fails; mtbf {first}; the "
                f"same requests with and without failures, mean of {many} seeds",
            ),
            null=Null(value=0.0, what="the same devices, never failing"),
            bar="failures make some requests late", holds=late_ > without, reproduced="other setting",
            reason=synthetic, seconds=seconds, command=COMMAND,
        ),
    ]  # fmt: skip


def records(quick: bool) -> list[Record]:
    """Returns what mixed fleets gain and cost."""
    command = COMMAND + (" --quick" if quick else "")
    return [msgspec.structs.replace(r, command=command) for r in (by_speed(quick), *spot(quick))]


if __name__ == "__main__":
    sys.exit(main(records))
