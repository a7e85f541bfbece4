"""Fits power shares on the kernel tables with watts; checks them on other boards and servers.

Watts in those tables are averages over a window that also sees the kernel before and the pause
after, so a single reading is off by up to a factor of two either way. The fit therefore uses
medians over cells of (arithmetic use, memory use), at least 20 readings each, per kernel family.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from benchmarks.fit.solve import error, mean, rounded
from benchmarks.fit.tables import AIC, DEVICES, DTYPE, columns
from fleetcast.cost.energy import Draw, busy_energy, rates_of
from fleetcast.cost.moe import distinct_experts
from fleetcast.cost.roofline import format_of, peak

BOARDS = {"h200-sxm": 700.0, "b200-sxm": 1000.0, "gb200": 1200.0}
FAMILIES = ("gemm", "moe", "decode", "prefill")
SHORTEST = 3e-5  # s; shorter kernels are mostly pause


def _table(data: Path, device: str, folder: str, file: str) -> pd.DataFrame:
    path = data / AIC / DEVICES[device].folder / folder / "vllm" / "0.22.0" / f"{file}_perf.parquet"
    frame = pd.read_parquet(path)
    frame["time"] = frame["latency"] * 1e-3
    return frame[(frame["power"] > 0) & (frame["time"] > SHORTEST)]


def readings(data: Path, device: str) -> pd.DataFrame:
    """Returns one row per measured kernel: family, dtype, FLOPs, bytes, seconds, watts."""
    frames = []
    g = _table(data, device, "gemm", "gemm")
    dtype = g["gemm_dtype"].map(DTYPE)
    size = dtype.map(lambda d: format_of(d).weight)
    flops = 2.0 * g["m"] * g["n"] * g["k"]
    moved = (g["n"] + g["m"]) * g["k"] * size + 2.0 * g["m"] * g["n"]
    frames.append(_frame("gemm", dtype, flops, moved, g))
    e = _table(data, device, "moe", "moe")
    e = e[(e["moe_ep_size"] == 1) & e["moe_dtype"].isin(DTYPE)]
    dtype = e["moe_dtype"].map(DTYPE)
    shard = e["hidden_size"] * e["inter_size"] / e["moe_tp_size"]
    rows = e["num_tokens"] * e["topk"]
    seen = distinct_experts(*columns(e, "num_tokens", "num_experts", "topk"))
    moved = seen * 3.0 * shard * dtype.map(lambda d: format_of(d).weight) + rows * e["hidden_size"] * 10.0
    frames.append(_frame("moe", dtype, 6.0 * rows * shard, moved, e))
    a = _table(data, device, "attention", "generation_attention")
    a = a[a["window_size"] == 0]
    dtype = a["kv_cache_dtype"].map(DTYPE)
    context = a["batch_size"] * (a["step"] + 1.0)
    width = context * a["head_dim"]
    moved = 2.0 * a["num_key_value_heads"] * width * dtype.map(lambda d: format_of(d).weight)
    frames.append(_frame("decode", "bf16", 4.0 * a["num_heads"] * width, moved, a))
    p = _table(data, device, "attention", "context_attention")
    p = p[p["window_size"] == 0]
    pairs = p["batch_size"] * p["isl"] * (p["isl"] + 1.0) / 2.0
    both = (p["num_heads"] + p["num_key_value_heads"]) * p["head_dim"]
    moved = p["batch_size"] * p["isl"] * both * 4.0
    frames.append(_frame("prefill", "bf16", 4.0 * p["num_heads"] * p["head_dim"] * pairs, moved, p))
    return pd.concat(frames, ignore_index=True)


def _frame(family: str, dtype: pd.Series | str, flops: pd.Series, size: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"family": family, "dtype": dtype, "flops": flops, "size": size,
                         "time": table["time"], "power": table["power"]})  # fmt: skip


def cells(data: Path, device: str) -> pd.DataFrame:
    """Returns median watts over cells of arithmetic and memory use (tenths of the roofs)."""
    chip = DEVICES[device].chip
    rows = readings(data, device)
    rows["use"] = rows["flops"] / rows["time"] / rows["dtype"].map(lambda d: peak(chip, d))
    rows["stream"] = rows["size"] / rows["time"] / chip.bandwidth
    rows["narrow"] = rows["dtype"].map(lambda d: format_of(d).activation < 2)
    # Faster than memory: read from the cache. Host-launched block products: mostly pause.
    paused = (rows["dtype"] == "fp8-block") & (rows["family"] == "gemm") & (rows["use"] < 0.2)
    rows = rows[(rows["stream"] < 1.1) & ~paused]
    rows["i"], rows["j"] = (rows["use"] * 10).round(), (rows["stream"] * 10).round()
    grouped = rows.groupby(["family", "narrow", "i", "j"])
    out = grouped.agg(power=("power", "median"), count=("power", "size"), use=("use", "median"),
                      stream=("stream", "median")).reset_index()  # fmt: skip
    return out[out["count"] >= 20].reset_index(drop=True)


def _shares(frame: pd.DataFrame) -> np.ndarray:
    near = frame["family"].isin(["decode", "prefill"]).to_numpy()
    narrow = frame["narrow"].to_numpy(bool)
    use, stream = columns(frame, "use", "stream")
    one = np.ones(len(frame))
    return np.column_stack(
        [
            one,
            use * (~near & ~narrow),
            use * (~near & narrow),
            stream * ~near,
            use * near,
            stream * near,
        ]
    )


def predict(frame: pd.DataFrame, limit: float, c: Draw) -> np.ndarray:
    """Returns predicted watts of every cell."""
    share = _shares(frame) @ np.array(list(asdict(c).values()))
    return np.asarray(limit * np.minimum(share, 1.0))


def fit_draw(frame: pd.DataFrame, limit: float) -> Draw:
    """Returns power shares; every kernel family counts the same."""
    x, goal = _shares(frame), np.log(frame["power"].to_numpy() / limit)
    weight = np.sqrt(1.0 / frame.groupby("family")["power"].transform("size").to_numpy())
    weight = weight / weight.mean()

    def residual(y: np.ndarray) -> np.ndarray:
        smooth = ((x @ np.exp(y)) ** -8 + 0.985**-8) ** (-1 / 8)  # a smooth cap has a gradient
        return np.asarray(weight * (np.log(smooth) - goal))

    start = np.log([0.3, 0.9, 0.9, 0.9, 0.5, 0.3])
    found = least_squares(residual, start, loss="soft_l1", f_scale=0.1, bounds=(-7.0, 1.5))
    return Draw(**dict(zip(asdict(_ZERO), np.exp(found.x).tolist(), strict=True)))


_ZERO = Draw(busy=0, product=0, narrow=0, weights=0, attention=0, cache=0)


def splitwise(data: Path, c: Draw) -> dict[str, Any] | None:
    """Returns the error of mean power over whole runs of Splitwise's A100 servers.

    Decode reads the weights once per token at the measured speed, the prompt multiplies once;
    shares come from other boards. Null: the board limit.
    """
    path = data / "serving/splitwise/perf_model.csv"
    if not path.is_file():
        return None
    frame = pd.read_csv(path)
    frame = frame[(frame["hardware"] == "a100-80gb") & (frame["average_power"] > 0)]
    frame = frame[frame["model"].str.contains("llama2-70b")]
    chip, limit, weights = DEVICES["a100-80g-sxm"].chip, 400.0, 69e9
    rates = rates_of(chip, limit, "bf16", c)
    tp, prompt, batch, out = columns(frame, "tensor_parallel", "prompt_size", "batch_size", "token_size")
    first, each = columns(frame, "prompt_time", "token_time")
    time = (first + each * out) * 1e-3
    flops = 2.0 * weights / tp * batch * (prompt + out)
    moved = 2.0 * weights / tp * (1.0 + out)
    watts = busy_energy(time, flops, moved, rates) / time
    measured = frame["average_power"].to_numpy() * limit
    return error(watts, measured) | {"null": error(np.full(len(frame), limit), measured)}


def fit_all(data: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Returns group -> coefficients table ("any" only), and JSON-able error records."""
    frames = {d: cells(data, d) for d in BOARDS}
    fitted = {d: fit_draw(f, BOARDS[d]) for d, f in frames.items()}
    report: list[dict[str, Any]] = []
    for device, frame in frames.items():
        limit = BOARDS[device]
        other = Draw(**mean([asdict(c) for d, c in fitted.items() if d != device]))
        for family in (*FAMILIES, "all"):
            part = frame if family == "all" else frame[frame["family"] == family]
            power = part["power"].to_numpy()
            record = {"family": "power", "device": device, "kernels": family,
                      "fit": error(predict(part, limit, fitted[device]), power),
                      "device_out": error(predict(part, limit, other), power),
                      "null": error(np.full(len(part), limit), power)}  # fmt: skip
            if family != "all":
                rest = fit_draw(frame[frame["family"] != family], limit)
                record["family_out"] = error(predict(part, limit, rest), power)
            report.append(record)
    generic = Draw(**mean([asdict(c) for c in fitted.values()]))
    server = splitwise(data, generic)
    if server is not None:
        report.append({"family": "power", "device": "a100-80g-sxm", "kernels": "Splitwise servers",
                       "device_out": server, "null": server.pop("null")})  # fmt: skip
    groups = {d: {"any": rounded(asdict(c))} for d, c in fitted.items()}
    groups["hopper"] = groups["h200-sxm"]
    groups["blackwell"] = {"any": rounded(mean([asdict(fitted[d]) for d in ("b200-sxm", "gb200")]))}
    groups["generic"] = {"any": rounded(asdict(generic))}
    return groups, report


def main() -> None:
    """Prints the error table."""
    from benchmarks.fit.tables import root

    data = root()
    if data is None:
        print("FLEETCAST_DATA not found: nothing to fit")
        return
    groups, report = fit_all(data)
    for r in report:
        line = f"{r['device']:14} {r['kernels']:18}"
        for key in ("fit", "family_out", "device_out", "null"):
            if key in r:
                line += f" {key} {r[key]['median']:6.1%}/{r[key]['p90']:6.1%}"
        print(line, "bias", (r.get("fit") or r["device_out"])["bias"])
    print(groups)


if __name__ == "__main__":
    main()
