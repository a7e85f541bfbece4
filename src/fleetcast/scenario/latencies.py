"""Latencies of answered requests, simulated or measured: means, percentiles, and how many met every limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.objective import Slo
from fleetcast.scenario.outcome import Requests as Served

Floats = NDArray[np.float64]


def latency(served: Served) -> dict[str, dict[str, float]]:
    """Returns mean, p50, p90 and p99 of TTFT, E2E and TPOT, s.

    Percentiles of TPOT are over requests with at least 2 output tokens; ``tpot.mean`` is (sum of E2E - sum of TTFT)
    / (sum of output tokens), ``tpot.mean_per_request`` the mean of the per-request values.
    """
    decode = served.e2e - served.ttft
    many = served.output >= 2
    each = decode[many] / (served.output[many] - 1)
    tpot = _statistics(each) if len(each) else dict.fromkeys(("mean", "p50", "p90", "p99"), 0.0)
    tpot |= {"mean_per_request": tpot["mean"], "mean": float(decode.sum() / served.output.sum())}
    return {"ttft": _statistics(served.ttft), "tpot": tpot, "e2e": _statistics(served.e2e)}


def _statistics(values: Floats) -> dict[str, float]:
    """Mean and percentiles; linear between order statistics, as numpy's default, without its overhead."""
    found = {"mean": float(values.mean())}
    last = len(values) - 1
    places = [(name, last * q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))]
    ranks = sorted({r for _, at in places for r in (int(at), min(int(at) + 1, last))})
    order_ = np.partition(values, ranks)
    for name, at in places:
        low, high = float(order_[int(at)]), float(order_[min(int(at) + 1, last)])
        found[name] = low + (high - low) * (at - int(at))
    return found


def goodput(served: Served, slo: Slo) -> int:
    """Returns how many requests met every limit of ``slo``, each limit taken per request."""
    met = np.ones(len(served.arrival), dtype=bool)
    for metric, limit in slo.per_request().items():
        if metric == "tpot":
            met &= served.e2e - served.ttft <= limit * np.maximum(served.output - 1, 1)
        else:
            met &= (served.ttft if metric == "ttft" else served.e2e) <= limit
    return int(met.sum())
