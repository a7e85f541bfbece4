"""Measured rows: how their columns are decoded, how constants come back, how widths are scored. Small, made-up rows."""

import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")

from benchmarks.fit import engines
from benchmarks.fit.replay import case
from benchmarks.fit.silicon import rows
from benchmarks.fit.widths import fit_widths, score
from fleetcast.cost.engine import Host
from fleetcast.cost.intervals import FEATURES

HEAD = (
    "silicon_data_source,backend,backend_version,model_path,system,mode,isl,osl,gemm_quant_mode,batch_size,tp_size,"
    "attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms"
)
GAP = "source_file=aic-auto-gap-analysis/x.csv; silicon_concurrency={0}"
FLAGS = "source_file=2026-04-06.csv; model=M; silicon_concurrency={0}; measured=2026-03-28"


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress("\n".join((HEAD, *lines)).encode()))
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (FLAGS.format(4) + ",trtllm,1,openai/gpt-oss-120b,h200_sxm,agg,1024,1024,nvfp4,4,64,1,8,8,9,5", (8, 1, 8, 4)),
        (FLAGS.format(99) + ",trtllm,1,deepseek-ai/DeepSeek-V3,h200_sxm,agg,1024,99,fp8,2,1,64,8,8,9,9", (1, 8, 8, 99)),
        (FLAGS.format(16) + ",vllm,0.18,MiniMaxAI/MiniMax-M2.5,h100_sxm,agg,1024,99,fp8,4,4,4,1,16,9,9", (4, 1, 4, 16)),
        (FLAGS.format(16) + ",vllm,0.18,MiniMaxAI/MiniMax-M2.5,h200_sxm,agg,1024,99,fp8,16,8,1,8,1,9,9", (8, 1, 8, 16)),
        (GAP.format(9) + ",vllm,0.12.0,Qwen/Qwen3-235B-A22B-FP8,h200_sxm,agg,2000,500,fp8,9,1,,2,1,90,9", (1, 2, 1, 9)),
        (GAP.format(8) + ",vllm,0.12.0,Qwen/Qwen3-32B,h100_sxm,agg,1024,128,,8,4,,1,1,90,9", (4, 1, 1, 8)),
    ],
)  # fmt: skip
def test_layouts_are_decoded(tmp_path: Path, line: str, expected: tuple[int, int, int, int]) -> None:
    (row,) = rows(table(tmp_path, line))
    assert (row.tp, row.dp, row.ep, row.users) == expected
    assert row.unusable == ""


@pytest.mark.parametrize(
    "line",
    [
        GAP.format(384) + ",trtllm,1.3,openai/gpt-oss-120b,h100_sxm,agg,4000,1000,fp8,96,4,,4,1,1288,49",
        FLAGS.format(512) + ",vllm,0.11.2,openai/gpt-oss-120b,h100_sxm,agg,1024,1024,nvfp4,512,2,1,2,1,23793,5.6",
        FLAGS.format(8) + ",vllm,0.18.0,openai/gpt-oss-120b,h200_sxm,agg,1024,1024,nvfp4,8,2,1,8,1,90,5",
    ],
)
def test_rows_that_contradict_themselves_are_named(tmp_path: Path, line: str) -> None:
    (row,) = rows(table(tmp_path, line))
    assert "contradicts itself" in row.unusable
    assert case(row).why == row.unusable


def test_a_load_beyond_the_devices_peak_is_refused(tmp_path: Path) -> None:
    line = GAP.format(64) + ",vllm,0.12.0,nvidia/Llama-3.1-8B-Instruct-FP8,h200_sxm,agg,2000,100,fp8,64,1,,1,1,9,1"
    assert "peak FLOP/s" in case(rows(table(tmp_path, line))[0]).why


def test_random_sources_draw_the_same_lengths_for_every_layout(tmp_path: Path) -> None:
    lines = [
        FLAGS.format(8) + f",vllm,0.18.0,openai/gpt-oss-120b,h200_sxm,agg,1024,1024,nvfp4,8,{tp},1,{tp},1,90,5"
        for tp in (1, 2)
    ]
    one, two = (row.lengths(80) for row in rows(table(tmp_path, *lines)))
    np.testing.assert_array_equal(one, two)
    assert one[0].min() >= 819
    assert one[0].max() <= 1024


def test_planted_host_constants_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PRIOR", 0.1)  # the planted rows are exact: they need less of a pull than real ones
    truth = Host(step=1e-3, gap=1.5e-3, api=1.5e-2, eager=engines.EAGER)
    shapes = [(u, tp, i, o) for u in (4, 16) for tp in (1, 4) for i, o in ((1024, 256), (4096, 128))]
    line = (FLAGS + ",vllm,0.18.0,meta-llama/Llama-3.1-70B,h200_sxm,agg,{2},{3},fp8,{0},{1},1,{1},1,").format
    timed = []
    for shape in shapes:
        ttft, tpot = case(rows(table(tmp_path, line(*shape) + "90000,900"))[0], 2).run(truth)
        timed.append(line(*shape) + f"{ttft * 1e3},{tpot * 1e3}")
    cases = [case(row, 2) for row in rows(table(tmp_path, *timed))]
    found = engines.fit_host(cases, kernels=False)
    start = engines.host_of({name: row[1] for name, row in engines.RANGES.items()})

    def miss(host: Host) -> float:
        measured = [(c.row.ttft, c.row.tpot) for c in cases]
        return float(np.max(np.abs(np.log([c.run(host) for c in cases]) - np.log(measured))))

    assert abs(found.gap - truth.gap) < 0.6 * abs(start.gap - truth.gap)
    assert miss(found) < 0.6 * miss(start)


def test_widths_follow_what_widens(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rate = rng.uniform(0.0, 2.0, 2000)
    off = rng.normal(0.0, 0.1 + 0.2 * rate)
    found = [dict.fromkeys(FEATURES, 0.0) | {"base": 1.0, "rate": float(r)} for r in rate]
    fitted = fit_widths(found, off, np.ones(2000), ("base", "rate"))
    wide = fitted["base"] + fitted["rate"] * rate
    assert fitted["rate"] == pytest.approx(0.256, rel=0.2)
    assert np.mean(np.abs(off) <= wide) == pytest.approx(0.8, abs=0.03)
    assert score(off, wide).mean() < score(off, np.full(2000, np.quantile(np.abs(off), 0.8))).mean()
