"""Matrix products and element-wise kernels out of whole-layer profiles: Vidur, LLMServingSim, APEX.

They add devices that the big kernel tables lack (A40, A6000, RTX 3090/4090, TPU v6e, V100) and, for
A100, H100 and RTX PRO 6000, a second laboratory: coefficients fitted on one set are tried on the
other.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.fit.tables import Measured

VIDUR = {"a100-80g-sxm": "a100", "h100-sxm": "h100", "a40": "a40"}
LAYERS = {"rtx-4090": "RTX4090", "rtx-pro-6000-server": "RTXPRO6000"}
OLD = {"rtx-3090": "RTX3090", "rtx-a6000": "A6000", "h100-sxm": "H100", "tpu-v6e": "TPU-v6e-1"}
# Llama-3.1 shapes: hidden, heads, kv heads, head width, mlp width, vocabulary.
SHAPES = {
    "Llama-3.1-8B": (4096, 32, 8, 128, 14336, 128256),
    "Llama-3.1-70B": (8192, 64, 8, 128, 28672, 128256),
    "Qwen3-32B": (5120, 64, 8, 128, 25600, 151936),
}
LAYER_DEVICES = (
    "a40", "rtx-a6000", "rtx-3090", "rtx-4090", "tpu-v6e", "v100-pcie-16g",
)  # fmt: skip
SMALL: dict[str, Measured] = {name: Measured(name, "", {}) for name in LAYER_DEVICES}


def products_of(data: Path, device: str) -> pd.DataFrame | None:
    """Returns 16-bit products of a device: m tokens, n out, k in, seconds, source."""
    frames = [*_vidur(data, device), *_layers(data, device), *_old(data, device)]
    if device == "v100-pcie-16g":
        frames.append(_v100(data))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    return rows[(rows["time"] > 0) & (rows["n"] >= 512) & (rows["k"] >= 512)]


def streams_of(data: Path, device: str) -> pd.DataFrame | None:
    """Returns element-wise kernels: bytes moved and seconds; old unfused norms are left out."""
    frames = []
    if device in VIDUR:
        for name, frame in _members(data / "serving/vidur/compute_mlp.tar.xz", f"/{VIDUR[device]}/"):
            if not name.endswith("mlp.csv"):
                continue
            tp, tokens = frame["num_tensor_parallel_workers"], frame["num_tokens"]
            wide = frame["n_expanded_embd"] / tp * np.where(frame["use_gated_mlp"], 6.0, 4.0)
            frames.append(_pair(tokens * wide, frame["time_stats.mlp_act.median"] * 1e-3))
            frames.append(_pair(tokens * frame["n_embd"] * 6.0, frame["time_stats.add.median"] * 1e-3))
    if device in LAYERS:
        for name, frame in _members(data / "serving/llmservingsim/perf_vllm.tar.xz", LAYERS[device]):
            shape = next((s for model, s in SHAPES.items() if model in name), None)
            if shape is None or not name.endswith("tp1/dense.csv"):
                continue
            part = frame[frame["layer"] == "act_fn"]
            frames.append(_pair(part["tokens"] * shape[4] * 6.0, part["time_us"] * 1e-6))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True).dropna()
    return rows[rows["time"] > 0]


def _pair(size: pd.Series, time: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"size": size.to_numpy(float), "time": time.to_numpy(float)})


def _members(path: Path, part: str) -> Iterator[tuple[str, pd.DataFrame]]:
    if not path.is_file():
        return
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if part in f"/{member.name}" and member.name.endswith(".csv"):
                handle = archive.extractfile(member)
                assert handle is not None
                yield member.name, pd.read_csv(io.BytesIO(handle.read()))


def _vidur(data: Path, device: str) -> Iterator[pd.DataFrame]:
    if device not in VIDUR:
        return
    for name, frame in _members(data / "serving/vidur/compute_mlp.tar.xz", f"/{VIDUR[device]}/"):
        tp, width = frame["num_tensor_parallel_workers"], frame["n_embd"]
        head = width / frame["n_head"]
        up = frame["n_expanded_embd"] * np.where(frame["use_gated_mlp"], 2, 1) / tp
        kv = np.maximum(frame["n_kv_head"] / tp, 1)
        shapes = {
            "attn_pre_proj": ((frame["n_head"] / tp + 2 * kv) * head, width),
            "attn_post_proj": (width, frame["n_head"] / tp * head),
            "mlp_up_proj": (up, width),
            "mlp_down_proj": (width, frame["n_expanded_embd"] / tp),
        }
        for op, (n, k) in shapes.items():
            yield _rows(frame["num_tokens"], n, k, frame[f"time_stats.{op}.median"] * 1e-3, f"vidur {name}")


def _layers(data: Path, device: str) -> Iterator[pd.DataFrame]:
    if device not in LAYERS:
        return
    for name, frame in _members(data / "serving/llmservingsim/perf_vllm.tar.xz", LAYERS[device]):
        model = next((m for m in SHAPES if m in name), None)
        if model is None or not name.endswith("tp1/dense.csv"):
            continue
        hidden, heads, kv, head, mlp, _ = SHAPES[model]
        shapes = {"qkv_proj": ((heads + 2 * kv) * head, hidden), "o_proj": (hidden, heads * head),
                  "gate_up_proj": (2 * mlp, hidden), "down_proj": (hidden, mlp)}  # fmt: skip
        for op, (n, k) in shapes.items():
            part = frame[frame["layer"] == op]
            yield _rows(part["tokens"], n, k, part["time_us"] * 1e-6, f"llmservingsim {name}")


def _old(data: Path, device: str) -> Iterator[pd.DataFrame]:
    if device not in OLD:
        return
    for name, frame in _members(data / "serving/llmservingsim/v0_perf_models.tar.xz", f"/{OLD[device]}/"):
        model = next((m for m in SHAPES if m in name), None)
        if model is None or not name.endswith("layers.csv"):
            continue
        hidden, heads, kv, head, mlp, vocabulary = SHAPES[model]
        shapes = {"q_proj": (heads * head, hidden), "k_proj": (kv * head, hidden),
                  "o_proj": (hidden, heads * head), "gate_proj": (mlp, hidden),
                  "down_proj": (hidden, mlp), "lm_head": (vocabulary, hidden)}  # fmt: skip
        frame = frame[(frame["kv_cache"] == 0) & (frame["input"].isin(_sample(frame["input"])))]
        for op, (n, k) in shapes.items():
            part = frame[frame["layer_name"] == op]
            cut_k = op in ("o_proj", "down_proj")
            tp = part["tp_size"]
            yield _rows(part["input"], n if cut_k else n / tp, k / tp if cut_k else k,
                        part["latency(ns)"] * 1e-9, f"llmservingsim v0 {name}")  # fmt: skip


def _sample(values: pd.Series) -> list[int]:
    top = int(values.max())
    return sorted({round(2 ** (i / 4)) for i in range(int(4 * np.log2(top)) + 1)} | {top})


def _v100(data: Path) -> pd.DataFrame:
    frame = pd.read_csv(data / "serving/apex/V100-PCIE-16GB_gemm_0.csv.xz")
    frame = frame[frame["n"].isin(_sample(frame["n"]) + [64 * i for i in range(1, 65, 4)])]
    return _rows(frame["n"], frame["m"], frame["k"], frame["time(us)"] * 1e-6, "apex V100-PCIE-16GB gemm_0")


def _rows(m: pd.Series, n: pd.Series | float, k: pd.Series | float, time: pd.Series, source: str) -> pd.DataFrame:
    frame = pd.DataFrame({"m": m.to_numpy(float)})
    frame["n"] = n.to_numpy(float) if isinstance(n, pd.Series) else float(n)
    frame["k"] = k.to_numpy(float) if isinstance(k, pd.Series) else float(k)
    frame["time"] = time.to_numpy(float)
    frame["source"] = source
    return frame.dropna()
