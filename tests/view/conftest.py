"""Hand-made outcomes: what the view must show, without a search or a world behind it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleetcast.base.record import Record
from fleetcast.scenario.load import Scenario, load
from fleetcast.scenario.objective import Slo, judge
from fleetcast.scenario.outcome import Outcome, Requests
from fleetcast.search.ranking import Ranking, undominated

SLO = Slo(ttft_p99=2.0, tpot_p99=0.05)


def make_outcome(
    *, replicas: int = 2, tensor_parallel: int = 4, chunk: int = 2048, slow: float = 1.0, n: int = 400,
    slo: Slo = SLO, seed: int = 0, record: bool = True,
) -> Outcome:  # fmt: skip
    """An outcome with every part filled; ``slow`` scales its latencies."""
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.uniform(0, 600, n))
    output = rng.integers(1, 400, n)
    ttft = slow * rng.lognormal(-1.2, 0.5, n)
    tpot = slow * rng.normal(0.03, 0.003, n).clip(0.01)
    e2e = ttft + tpot * (output - 1)
    several = tpot[output >= 2]
    span = float((arrival + e2e).max() - arrival[0])
    devices = replicas * tensor_parallel
    tokens = float(output.sum())
    energy, cost, carbon = devices * 420.0 * span, devices * 2.5 * span / 3600, devices * 0.04 * span

    def four(values: np.ndarray) -> dict[str, float]:
        stats = {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)}
        return {"mean": float(values.mean())} | stats

    metrics: dict[str, Any] = {
        "ttft": four(ttft), "tpot": four(several) | {"mean_per_request": float(several.mean())}, "e2e": four(e2e),
        "throughput": tokens / span, "goodput": n / span, "energy": energy, "cost": cost, "carbon": carbon,
        "per_million_output_tokens": {
            "energy": energy / tokens * 1e6, "cost": cost / tokens * 1e6, "carbon": carbon / tokens * 1e6,
        },
        "mfu": 0.21, "mbu": 0.47, "makespan": span, "requests": n, "prompt_tokens": 1000 * n,
        "output_tokens": int(tokens), "preemptions": 3, "devices": devices, "power": devices * 420.0,
    }  # fmt: skip
    events = 300
    start = np.concatenate([np.linspace(0, span * 0.95, events) for _ in range(replicas)])
    level = np.concatenate([0.4 + 0.3 * np.sin(np.linspace(0, 9, events) + i) for i in range(replicas)])
    log = Record(
        time=start, duration=np.full(events * replicas, span / events * 0.6),
        resource=np.repeat(np.arange(replicas, dtype=np.int32), events),
        what=(np.arange(events * replicas) % 3).astype(np.int32),
        count=np.full(events * replicas, 7), items=np.full(events * replicas, 12), level=level,
        resources=tuple(f"replica {i}" for i in range(replicas)), whats=("decode", "prefill", "mixed"),
    )  # fmt: skip
    return Outcome(
        source="simulated", metrics=metrics,
        intervals={"ttft.p99": (0.8 * metrics["ttft"]["p99"], 1.2 * metrics["ttft"]["p99"]),
                   "tpot.p99": (0.95 * metrics["tpot"]["p99"], 1.05 * metrics["tpot"]["p99"])},
        slo=judge(metrics, slo),
        plan={
            "replicas": replicas, "tensor_parallel": tensor_parallel, "pipeline_parallel": 1,
            "expert_parallel": 1, "attention_dp": 1, "engine": "vllm-0.6", "dtype": "bf16", "kv_dtype": "bf16",
            "batch": {"kind": "chunked", "chunk": chunk, "max_batch": 256}, "order": {"kind": "fifo"},
            "memory": {"kind": "recompute"}, "route": {"kind": "least_loaded"},
        },
        breakdown={
            "time": {"gemm": 520.0, "attention": 88.0, "communication": 61.0, "experts": 0.0, "head": 9.0,
                     "pipeline": 0.0, "host": 47.0, "swap": 0.0, "idle": 410.0},
            "energy": {"idle": 0.4 * energy, "compute": 0.22 * energy, "memory": 0.33 * energy, "link": 0.05 * energy},
            "memory": {"weights": 35.3e9, "kv": 31e9, "activations": 2.1e9, "reserve": 2e9, "free": 9.6e9},
        },
        resources=tuple(
            {"name": f"replica {i}", "pool": 0, "devices": tensor_parallel, "busy": 0.6, "requests": n // replicas,
             "peak_running": 41, "kv_peak": 0.7} for i in range(replicas)
        ),
        notes=("price of h100-sxm: 2.99 $/h, catalogue",), provenance={"seed": seed, "requests": "0123abcd"},
        record=log if record else None, requests=Requests(arrival, ttft, e2e, output, *[np.zeros(n, np.int32)] * 2),
    )  # fmt: skip


def make_ranking(outcomes: list[Outcome]) -> Ranking:
    """What a search returns, from outcomes ranked by cost."""
    met = tuple(o for o in outcomes if o.slo["met"])
    axes = (("cost", "cost", 1), ("latency", "e2e.mean", 1))
    points = [[o.metrics["cost"], o.metrics["e2e"]["mean"]] for o in met]
    return Ranking(
        plans=met, frontier=tuple(met[i] for i in undominated(points)),
        misses=tuple(o for o in outcomes if not o.slo["met"]),
        rejected=(
            {"family": "TP1 bf16", "constraint": "weights per device", "need": 141e9, "have": 80e9, "unit": "B"},
        ),
        counts={"enumerated": 468, "memory_feasible": 306, "bounded": 120, "cut_short": 12, "deduplicated": 40,
                "simulated": 146},
        goals=axes[:1], axes=axes, space=("tensor_parallel 1, 2, 4, 8",),
    )  # fmt: skip


@pytest.fixture(scope="session")
def outcome() -> Outcome:
    return make_outcome()


@pytest.fixture(scope="session")
def outcomes() -> list[Outcome]:
    """Ranked as a search ranks: those that meet the SLO by cost, then the misses."""
    shapes = [(1, 8), (2, 4), (1, 4), (4, 2), (2, 2)]
    made = [
        make_outcome(replicas=r, tensor_parallel=t, chunk=c, slow=s * (1 + 8 / (r * t * t)), seed=i, record=False)
        for i, (r, t) in enumerate(shapes) for c, s in ((512, 0.8), (2048, 1.0))
    ]  # fmt: skip
    return sorted(made, key=lambda o: (not o.slo["met"], o.metrics["cost"]))


@pytest.fixture(scope="session")
def ranking(outcomes: list[Outcome]) -> Ranking:
    return make_ranking(outcomes)


@pytest.fixture(scope="session")
def make() -> Callable[..., Outcome]:
    return make_outcome


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    return load({
        "name": "quickstart", "fleet": {"devices": "8x h100-sxm"},
        "workload": {"model": "llama-3.1-70b", "trace": "azure-conv-2023"},
        "slo": {"ttft_p99": "2 s", "tpot_p99": "50 ms"}, "objective": {"minimize": "cost"},
    })  # fmt: skip
