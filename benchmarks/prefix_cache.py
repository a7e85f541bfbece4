"""What prefix caches buy, by tier, by rule of eviction and by route, on synthetic conversations.

The traffic is that of ``examples/prefixes.toml``, written down before anything was run on it; only the plan varies, and
for the routes the fleet and the rate, four times as large. No measured trace with prefixes is packaged: a user's own
(``session`` and ``prefix_tokens``, or ``hash_ids`` as Mooncake's and Qwen-Bailian's have them) is read like any other.
"""

from __future__ import annotations

import statistics
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, data_path, main, skipped
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import read_plan
from fleetcast.scenario.workload.prefixes import shared_tokens
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

FILE = Path(__file__).resolve().parent.parent / "examples" / "prefixes.toml"
COMMAND = "python -m benchmarks.prefix_cache"
DEPTHS: dict[str, Any] = {
    "off": "off", "devices": "lru", "host memory": {"kind": "lru", "cpu": "50 GB"},
    "disk": {"kind": "lru", "cpu": "50 GB", "ssd": "500 GB"},
}  # fmt: skip
RULES = ("fifo", "lfu", "lru", "belady")
REPLICAS, RATE = 4, 12.0
CACHED = "nvidia/Llama-3.1-8B-Instruct-FP8"
"""Whose prompts cannot all have been computed at the loads that its rows on H200 under vLLM 0.12 state."""
SMALL = 1500
"""Requests of a quick run."""


@cache
def scenario(quick: bool, replicas: int = 1) -> Setting:
    """Returns the example's scenario, resolved once; for several replicas with as many times the load."""
    table = tomllib.loads(FILE.read_text(encoding="utf-8"))
    arrivals = table["workload"]["arrivals"]
    if quick:
        arrivals["requests"] = SMALL
    if replicas > 1:
        table["fleet"]["devices"] = f"{4 * replicas}x h100-sxm"
        arrivals["rate"] = RATE
    return setting(load_serving(table))


def run(quick: bool, caching: Any, replicas: int = 1, route: str = "least_loaded") -> tuple[Outcome, float]:
    """Returns the outcome of the example's plan under a prefix cache, and the CPU time it took, s."""
    state = scenario(quick, replicas)
    pool = {
        "replicas": replicas, "tensor_parallel": 4, "pipeline_parallel": 1, "prefix_cache": caching, "route": route,
        "batch": {"kind": "chunked", "chunk": 2048, "max_batch": 256},
    }  # fmt: skip
    plan = complete(state, read_plan(pool))
    start = cpu_seconds()
    return simulate(state, plan), cpu_seconds() - start


def told(outcome: Outcome) -> str:
    """Returns the share of prompt tokens found, mean TTFT and energy of an outcome."""
    m = outcome.metrics
    return f"{m.get('cached', 0.0):.1%} found, TTFT {m['ttft']['mean'] * 1e3:.0f} ms, {m['energy'] / 3.6e6:.2f} kWh"


def records(quick: bool) -> list[Record]:
    """Returns what caches buy by depth, rule and route, and what simulating them costs."""
    return [depths(quick), *rules(quick), routes(quick), measured(), cost(quick)]


def depths(quick: bool) -> Record:
    """How far down the cache reaches."""
    start = cpu_seconds()
    found = {name: run(quick, caching)[0] for name, caching in DEPTHS.items()}
    share = {name: o.metrics.get("cached", 0.0) for name, o in found.items()}
    most = everything(quick)
    return Record(
        system=5,
        claim="prompt tokens found in a prefix cache that reaches down to host memory",
        paper=Paper(setting="vLLM and SGLang cache prefixes on the device by default; tiers by LMCache, HiCache"),
        ours=Ours(
            value=share["host memory"], unit="of prompt tokens",
            spread="; ".join(f"{name}: {told(o)}" for name, o in found.items()) + f"; room for all: {most:.1%}",
            setting="synthetic conversations of 6 turns, 60 s apart, Llama-3.1-70B on 4 H100, 3 requests/s, of which "
            "the fleet without a cache holds less",
        ),
        null=Null(value=round(share["devices"], 3), what="the devices' memory alone"),
        bar="above the null, at most what room for all would find",
        holds=share["devices"] < share["host memory"] <= most + 1e-9,
        reproduced="other setting", reason="no measured trace with prefixes is packaged", skipped=None,
        seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


def everything(quick: bool) -> float:
    """Returns the share of prompt tokens that a cache without bounds would find."""
    requests = scenario(quick).requests
    return float(shared_tokens(requests, 16).sum() / requests.prompt.sum())


def rules(quick: bool) -> list[Record]:
    """What is given up first, where only the devices keep prefixes."""
    start = cpu_seconds()
    found = {rule: run(quick, rule)[0].metrics["cached"] for rule in RULES}
    return [
        Record(
            system=5,
            claim="prompt tokens found under least recently used, over those under Belady's rule, which looks ahead",
            paper=Paper(setting="Belady (1966): no rule finds more where blocks cost the same"),
            ours=Ours(
                value=found["lru"] / found["belady"], unit="x",
                spread=", ".join(f"{rule} {share:.1%}" for rule, share in found.items())
                + f" of prompt tokens; {everything(quick):.1%} with room for all",
                setting="as above, the devices' memory alone",
            ),
            null=Null(value=round(found["fifo"] / found["belady"], 3), what="first in, first out"),
            bar="at most 1", holds=found["lru"] <= found["belady"] + 1e-9, reproduced="other setting",
            reason="conversations that think for a minute each: the null does as well; Belady's is a bound in order of "
            "arrival, and who is served when moves with the rule",
            skipped=None, seconds=cpu_seconds() - start, command=COMMAND,
        )
    ]  # fmt: skip


def routes(quick: bool) -> Record:
    """Where a conversation's requests go."""
    start = cpu_seconds()
    found = {r: run(quick, "lru", REPLICAS, r)[0] for r in ("least_loaded", "round_robin", "prefix_hash")}
    ttft = {name: o.metrics["ttft"]["mean"] for name, o in found.items()}
    return Record(
        system=5,
        claim="mean time to first token of session-sticky routing over least loaded, prefix caches on",
        paper=Paper(setting="session affinity of production routers (vLLM, SGLang)"),
        ours=Ours(
            value=ttft["prefix_hash"] / ttft["least_loaded"], unit="x",
            spread="; ".join(f"{name}: {told(o)}" for name, o in found.items()),
            setting=f"as above on {REPLICAS} replicas, {RATE:g} requests/s",
        ),
        null=Null(value=1.0, what="least loaded"), bar="below 1", holds=ttft["prefix_hash"] < ttft["least_loaded"],
        reproduced="other setting", reason="no measured trace with prefixes is packaged", skipped=None,
        seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


def measured() -> Record:
    """Rows whose prompts must have been found, forecast as if all were; nothing is fitted."""
    from benchmarks.fit.silicon import rows

    start, path = cpu_seconds(), data_path("serving", "silicon_dev.csv.gz")
    claim = "time per token of 12 measured vLLM 0.12 rows if every prompt is found, median error"
    bar = "at most 15 %, and below half of the null's"
    if path is None:
        return skipped(system=5, claim=claim, bar=bar, why="the measured rows are absent", command=COMMAND)
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for row in rows(path):
        if row.unusable or (row.model, row.device, row.backend) != (CACHED, "h200-sxm", "vllm"):
            continue
        for warm, pairs in found.items():
            table = {
                "fleet": {"devices": f"{row.devices}x {row.device}"},
                "workload": {
                    "model": row.model,
                    "arrivals": {"kind": "closed", "concurrency": row.users, "requests": 10 * row.users},
                    "lengths": {"kind": "fixed", "prompt": row.prompt, "output": row.output},
                    **({"sessions": {"system": row.prompt}} if warm else {}),
                },
                "plan": {
                    "replicas": 1, "tensor_parallel": row.tp, "pipeline_parallel": 1, "engine": row.engine,
                    **({"dtype": row.dtype} if row.dtype else {}),
                },
            }  # fmt: skip
            state = setting(load_serving(table))
            m = simulate(state, complete(state, state.scenario.plan)).metrics
            pairs.append((m["tpot"]["mean_per_request"] / row.tpot - 1, m["ttft"]["mean"] / row.ttft - 1))
    tpot = {warm: 100 * statistics.median(abs(a) for a, _ in pairs) for warm, pairs in found.items()}
    ttft = {warm: 100 * statistics.median(b for _, b in pairs) for warm, pairs in found.items()}
    worst = 100 * max(abs(a) for a, _ in found[True])
    return Record(
        system=5, claim=claim, paper=Paper(setting="silicon rows of Llama-3.1-8B in FP8 on one H200"),
        ours=Ours(
            value=tpot[True], unit="%",
            spread=f"worst {worst:.0f} %; median TTFT {ttft[True]:+.0f} %, without a cache {ttft[False]:+.0f} %: "
            "some prompts were computed",
            setting=f"{len(found[True])} rows, shipped constants, nominal lengths, one prompt for all",
        ),
        null=Null(value=round(tpot[False], 1), what="every prompt computed"), bar=bar,
        holds=tpot[True] <= 15 and tpot[True] < tpot[False] / 2, reproduced="other setting",
        reason="that prompts were found is inferred: computing them at the stated loads takes more than a second of "
        "measured kernels a second", skipped=None, seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


def cost(quick: bool) -> Record:
    """What it takes to simulate the caches: best of alternating runs."""
    start = cpu_seconds()
    plain, cached = [], []
    for _ in range(5):
        plain.append(run(quick, "off")[1])
        cached.append(run(quick, DEPTHS["disk"])[1])
    count = len(scenario(quick).requests)
    return Record(
        system=5,
        claim="CPU time per request of simulating three tiers of prefix cache",
        paper=Paper(value=30.0, unit="ms", setting="LLMServingSim 2.0 with prefix caches, per request (its PR 67)"),
        ours=Ours(
            value=min(cached) / count * 1e3, unit="ms",
            spread=f"runs {min(cached):.2f} to {max(cached):.2f} s",
            setting=f"{count:,} requests as above, best of 5",
        ),
        null=Null(value=round(min(plain) / count * 1e3, 4), what="no prefix cache"), bar="below 1 ms a request",
        holds=min(cached) / count < 1e-3, reproduced="other setting",
        reason="LLMServingSim's figure is its own, on another machine and other traffic", skipped=None,
        seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
