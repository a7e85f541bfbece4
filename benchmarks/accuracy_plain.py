"""The measured rows as a user would write them: nominal lengths, the profile's own batch policy, nothing else told.

`accuracy_silicon` replays what the runs' published scripts did (lengths that vary, token budgets). A scenario seldom
knows that; this says how much it loses. The constants are the shipped ones, fitted on these rows as replayed, not on
these forecasts.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, data_path, main, skipped
from fleetcast.base.errors import FleetcastError
from fleetcast.scenario.load import load_serving
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

REQUESTS = 10
"""Requests per user, as the measured runs sent."""
COMMAND = "python -m benchmarks.accuracy_plain"


def errors(path: Path, every: int, **lengths: float) -> dict[str, list[tuple[float, float]]]:
    """Returns (TPOT, TTFT) errors as shares, per engine, of every ``every``-th usable row; ``lengths`` says more."""
    from benchmarks.fit.silicon import rows

    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows(path)[::every]:
        if row.unusable:
            continue
        table = {
            "fleet": {"devices": f"{row.devices}x {row.device}"},
            "workload": {
                "model": row.model,
                "arrivals": {"kind": "closed", "concurrency": row.users, "requests": REQUESTS * row.users},
                "lengths": {"kind": "fixed", "prompt": row.prompt, "output": row.output} | lengths,
            },
            "plan": {
                "replicas": 1, "tensor_parallel": row.tp, "pipeline_parallel": 1, "expert_parallel": row.ep,
                "attention_dp": row.dp, "engine": row.engine, **({"dtype": row.dtype} if row.dtype else {}),
            },
        }  # fmt: skip
        try:
            state = setting(load_serving(table))
            metrics = simulate(state, complete(state, state.scenario.plan)).metrics
        except FleetcastError:
            continue
        pair = (metrics["tpot"]["mean_per_request"] / row.tpot - 1, metrics["ttft"]["mean"] / row.ttft - 1)
        found.setdefault(row.backend, []).append(pair)
    return found


def records(quick: bool) -> list[Record]:
    """Returns a record per engine and metric."""
    path = data_path("serving", "silicon_dev.csv.gz")
    bars = {("vllm", "TPOT"): 10, ("vllm", "TTFT"): 30, ("trtllm", "TPOT"): 15, ("trtllm", "TTFT"): 35}
    names = {"vllm": "vLLM", "trtllm": "TensorRT-LLM"}

    def claim(engine: str, metric: str) -> str:
        return f"{metric} of {names[engine]} rows told only lengths and load, median error"

    if path is None:
        why = "the measured rows are absent"
        return [skipped(system=5, claim=claim(*k), bar=f"at most {b} %", why=why) for k, b in bars.items()]
    start = cpu_seconds()
    found = errors(path, 6 if quick else 1)
    equal = errors(path, 6 if quick else 1, spread=0.0)
    seconds = cpu_seconds() - start
    out = []
    for (engine, metric), bar in bars.items():
        off, step = (np.array(e[engine])[:, ("TPOT", "TTFT").index(metric)] for e in (found, equal))
        value, null = (100 * float(np.median(np.abs(x))) for x in (off, step))
        out.append(
            Record(
                system=5, claim=claim(engine, metric), paper=Paper(),
                ours=Ours(
                    value=value, unit="%", spread=f"median signed error {100 * float(np.median(off)):+.0f} %",
                    setting=f"{len(off)} rows, shipped constants, nominal lengths, the profile's batch policy",
                ),
                null=Null(value=null, what="the same with exactly equal requests (spread 0), which march in step"),
                bar=f"at most {bar} %", holds=value <= bar, reproduced="other setting",
                reason="no paper's claim: what a scenario loses that does not know the client's lengths and budgets",
                skipped=None, seconds=seconds, command=COMMAND + (" --quick" if quick else ""),
            )
        )  # fmt: skip
    return out


if __name__ == "__main__":
    sys.exit(main(records))
