"""What was measured on two GPUs is possible, and the records say what the tables say."""

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu_tables import kernels, passes, runs


def test_no_kernel_is_faster_than_the_data_sheet():
    """A table whose kernels found their data in a cache, or did nothing, would show here."""
    for row in kernels():
        # a query may find its keys in the cache, and what a step writes may stay there: reading weights may not
        if row["dtype"] != "int8" and (row["family"] == "gemm" or row["n"] == "" or row["seconds"] > 2e-5):
            assert gpu.kernel(row)[1] < 1.05 * row["seconds"], row


def test_no_iteration_is_faster_than_the_data_sheet():
    for card in runs():
        for model in {row["model"] for row in passes()}:
            rows = [row for row in passes() if (row["card"], row["model"]) == (card, model)]
            _, roof = gpu.forecast(card, rows)
            assert (roof < [row["seconds"] for row in rows]).all()


def test_calibrating_finds_the_constants_that_made_the_times():
    rows = [{"model": "llama-3.1-8b", "piece": p, "emits": n} for p in (0, 64, 2048) for n in (1, 8, 64)]
    device = np.array([0.004 + 2e-5 * r["piece"] + 1e-5 * r["emits"] for r in rows])
    launched = np.array([32 * 4e-4 * (r["piece"] > 0) for r in rows])
    seconds = np.maximum(1.1 * device, launched) + 1e-3 + 2e-5 * np.array([r["emits"] for r in rows])
    made = [row | {"seconds": float(s)} for row, s in zip(rows, seconds, strict=True)]
    assert gpu.calibrated(device, made)(device, rows) == pytest.approx(seconds, rel=1e-3)


def test_products_are_forecast_to_a_tenth_on_both_cards():
    found = {r.claim: r for r in gpu.kernel_records(0.0)}
    for card in runs():
        record = found[f"bf16 products, median error of {card}'s shipped profile"]
        assert record.ours.value < 10 < record.null.value
