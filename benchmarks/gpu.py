"""Forecasts against two cards that no constant of Fleetcast was fitted on: kernels, the engine, training steps, power.

An H200 and an H100 were measured once by `benchmarks.gpu_run`; the tables lie beside this script, so it needs no GPU.
Forecasts are those of the shipped profiles, made from other people's published tables of the same kinds of card. The
null is the data sheet's roofline: the larger of bytes over bandwidth and FLOP over the peak.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

import fleetcast
from benchmarks.gpu_tables import kernels, passes, runs
from benchmarks.records import Null, Ours, Record, main, timer
from fleetcast.cost.attention import Decode, Prefill, decode_time, prefill_time
from fleetcast.cost.energy import Draw, busy_energy, rates_of
from fleetcast.cost.engine import engine
from fleetcast.cost.gemm import Gemm, gemm_time
from fleetcast.cost.iteration import Passes, kernel_seconds
from fleetcast.cost.roofline import Stream, coefficients_for, peak, stream_time
from fleetcast.cost.step import StepCost, step_cost
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.workload import catalog as models
from fleetcast.scenario.workload.models import Layout
from fleetcast.scenario.workload.precision import Precision

Array = NDArray[np.float64]
Row = dict[str, Any]
COMMAND = "python -m benchmarks.gpu"
SYSTEM = 5
Z80 = 1.2815515655446004
REASON = "no paper measured these cards with these kernels; the bar was set after the measurement"
FAMILIES = (
    ("gemm", "torch", "bf16", "bf16 products"), ("gemm", "torch._scaled_mm", "fp8", "fp8 products, inputs in fp8"),
    ("prefill", "cudnn", "bf16", "attention of prompts by cuDNN"),
    ("prefill", "flash", "bf16", "attention of prompts by FlashAttention 2"),
    ("decode", "fleetcast", "bf16", "attention of decode steps, our kernel over a paged cache"),
    ("decode", "flash", "bf16", "attention of decode steps by FlashAttention 2"),
    ("stream", "", "bf16", "passes over activations"),
)  # fmt: skip
_TRAINING = """[fleet]
devices = "1x {card}"
[workload]
kind = "training"
model = "{model}"
sequence = {sequence}
batch = {batch}
[plan]
micro_batch = {micro_batch}
tensor_parallel = 1
pipeline_parallel = 1
recompute = "{recompute}"
offload = []
"""


def off(forecast: Array, measured: Array) -> float:
    """Returns the median relative error, %."""
    return 100.0 * float(np.median(np.abs(forecast / measured - 1.0)))


def bias(forecast: Array, measured: Array) -> float:
    """Returns the median of forecast / measured - 1, %."""
    return 100.0 * float(np.median(forecast / measured - 1.0))


def kernel(row: Row) -> tuple[float, float]:
    """Returns s of a measured kernel as forecast by its card's shipped profile, and by the roofline."""
    chip = catalog.device(row["card"])
    c, half = coefficients_for(chip), peak(chip, "bf16")
    m, n, k, heads, kv, d = (float(row[name] or 0) for name in ("m", "n", "k", "heads", "kv_heads", "head_dim"))
    if row["family"] == "gemm":
        form, size = row["dtype"], 2.0 if row["dtype"] == "bf16" else 1.0
        found = gemm_time(m, n, k, form, chip, c.get("gemm", form, Gemm), quantise=False)
        moved, work, rate = size * k * (n + m) + 2.0 * m * n, 2.0 * m * n * k, peak(chip, form)
    elif row["family"] == "prefill":
        found = prefill_time(m, 0.0, heads, kv, d, chip, c.get("prefill", "bf16", Prefill))
        moved, work, rate = 4.0 * m * d * (heads + kv), 2.0 * heads * d * m * (m + 1.0), half
    elif row["family"] == "decode":
        found = decode_time(m, m * n, heads, kv, d, "bf16", chip, c.get("decode", "bf16", Decode))
        moved, work, rate = 4.0 * m * n * kv * d, 4.0 * m * n * heads * d, half
    else:
        found, moved, work, rate = stream_time(n, chip, c.get("stream", "any", Stream)), n, 0.0, half
    return float(found), max(moved / chip.bandwidth, work / rate)


def kernel_records(seconds: float) -> list[Record]:
    """Returns a record for each family of kernels and card."""
    found = []
    rows = kernels()
    for card in runs():
        for family, name, dtype, words in FAMILIES:
            mine = [
                r for r in rows
                if (r["card"], r["family"], r["dtype"]) == (card, family, dtype) and name in ("", r["kernel"])
            ]  # fmt: skip
            measured = np.array([r["seconds"] for r in mine])
            forecast, null = np.array([kernel(r) for r in mine]).T
            value, trivial = off(forecast, measured), off(null, measured)
            worst = 100.0 * float(np.quantile(np.abs(forecast / measured - 1.0), 0.9))
            found.append(record(
                f"{words}, median error of {card}'s shipped profile", value, trivial, seconds,
                setting=f"{len(mine)} kernels; median forecast {bias(forecast, measured):+.0f} %, 90th percentile of "
                f"the error {worst:.0f} %; {facts(card)}",
            ))  # fmt: skip
    return found


def cost_of(card: str, model: str) -> StepCost:
    """Returns what an iteration of a model costs by the card's shipped profile, without any host time."""
    device = catalog.device(card)
    layout = Layout(tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, attention_dp=1)
    group = Group(
        card, device, 1, 1, catalog.link(device.link), catalog.link(device.network), (card,), None, device.power.max
    )
    precision = Precision(weights="bf16", rest="bf16", activations="bf16")
    return step_cost(models.model(model), layout, precision, "bf16", group, engine("fleetcast"), 256, 20_000)


def forecast(card: str, rows: Sequence[Row]) -> tuple[Array, Array]:
    """Returns (n,) s of iterations, all of one model, by the shipped profile and by the roofline."""
    cost, chip, model = cost_of(card, rows[0]["model"]), catalog.device(card), models.model(rows[0]["model"])
    n, context, piece, cached, emits = (
        np.array([float(r[name] or 0) for r in rows]) for name in ("decodes", "context", "piece", "cached", "emits")
    )
    some = (piece > 0) * 1.0
    pairs = piece * cached + piece * (piece + 1.0) / 2.0
    reach = np.asarray(some * (piece + cached), np.float64)
    done = Passes(n, np.asarray(some, np.float64), piece, emits, context, np.asarray(pairs, np.float64), reach)
    weights = 2.0 * float(model.active_params() - model.vocab * model.hidden)  # the embedding is looked up
    read = weights + model.kv_bytes_per_token(2.0) * context
    work = (weights - 2.0 * model.vocab * model.hidden) * done.tokens + 2.0 * model.vocab * model.hidden * emits
    roof = np.maximum(read / chip.bandwidth, work / peak(chip, "bf16"))
    return np.asarray(sum(kernel_seconds(cost, done).values())), np.asarray(roof)


def calibrated(kernels: Array, rows: Sequence[Row]) -> Callable[[Array, Sequence[Row]], Array]:
    """Returns a forecast with four constants fitted on iterations: a factor on kernels and the host's part.

    An iteration takes ``max(a kernels, launch layers) + step + seq n``: where a piece of a prompt runs, kernels are
    launched one by one, which takes ``launch`` a layer and hides behind what they compute; the rest is the host's.
    """

    def said(x: Array, kernels: Array, rows: Sequence[Row]) -> Array:
        layers = np.array([models.model(r["model"]).layers * float((r["piece"] or 0) > 0) for r in rows])
        sequences = np.array([float(r["emits"] or 0) for r in rows])
        found = np.maximum(np.exp(x[0]) * kernels, np.exp(x[1]) * layers) + np.exp(x[2]) + np.exp(x[3]) * sequences
        return np.asarray(found)

    measured = np.array([r["seconds"] for r in rows])
    begin = np.log([1.0, 3e-4, 1e-3, 1e-5])
    best = least_squares(lambda x: np.log(said(x, kernels, rows) / measured), begin, loss="soft_l1", f_scale=0.1).x
    return lambda kernels, rows: said(best, kernels, rows)


def engine_records(seconds: float) -> list[Record]:
    """Returns the records of iterations: uncalibrated, calibrated on every second setting, and on another model."""
    found = []
    for card in runs():
        rows = [r for r in passes() if r["card"] == card]
        first = [r for r in rows if r["model"] == rows[0]["model"]]
        second = [r for r in rows if r["model"] != rows[0]["model"]]
        plain, roof = forecast(card, first)
        measured = np.array([r["seconds"] for r in first])
        for kind, words in (("decode", "decode steps"), ("prompt", "prompts")):
            mine = np.array([r["kind"] == kind for r in first])
            found.append(record(
                f"{words} of the engine on a GPU, Llama 3.1 8B, median error of {card}'s shipped profile alone",
                off(plain[mine], measured[mine]), off(roof[mine], measured[mine]), seconds,
                setting=f"{int(mine.sum())} settings, no host time forecast; median forecast "
                f"{bias(plain[mine], measured[mine]):+.0f} %; {facts(card)}",
            ))  # fmt: skip
        half = np.arange(len(first)) % 2 == 0
        known, rest = first[::2], first[1::2]
        said = calibrated(plain[half], known)
        spread = float(np.std(np.log(said(plain[half], known) / measured[half])))
        other, other_roof = forecast(card, second)
        wide = spread * Z80 * 1.25  # for what the fit took up: four constants of some twenty settings
        for words, kernels_, roofs, judged in (
            ("other settings", plain[~half], roof[~half], rest),
            ("another model, Llama 3.2 3B", other, other_roof, second),
        ):
            real, made = np.array([r["seconds"] for r in judged]), said(kernels_, judged)
            inside = 100.0 * float(np.mean(np.abs(np.log(made / real)) <= wide))
            scale = float(np.median(measured[half] / roof[half]))
            found.append(record(
                f"iterations of the engine on {card}, calibrated on half of 8B's settings, median error on {words}",
                off(made, real), off(scale * roofs, real), seconds, null="the roofline times one factor, fitted alike",
                setting=f"{len(judged)} settings; 80 % intervals of x{np.exp(wide):.2f} hold {inside:.0f} %; without "
                f"calibration {off(kernels_, real):.0f} %; {facts(card)}",
            ))  # fmt: skip
    return found


def served_records(seconds: float) -> list[Record]:
    """Returns the records of scenarios that `fleetcast run` ran and `fleetcast simulate` forecasts."""
    found = []
    for card, ran in runs().items():
        made: dict[str, list[tuple[float, float]]] = {"tpot": [], "ttft": [], "throughput": []}
        for served in ran["served"].values():
            outcome = simulated(served["scenario"])
            for name, into in made.items():
                pair = (outcome.metrics[name], served["metrics"][name])
                into.append(tuple(x["mean"] if isinstance(x, dict) else x for x in pair))
        for name, pairs in made.items():
            forecast_, measured = np.array(pairs).T
            found.append(record(
                f"{name.upper() if name[0] == 't' and len(name) == 4 else name} of the engine serving 8B on {card}, "
                "median error of the simulation, nothing calibrated",
                off(forecast_, measured), off(np.full(len(pairs), float(np.mean(measured))), measured), seconds,
                null="the mean of these scenarios, known beforehand",
                setting="closed loops of 16 and 48 users and Poisson arrivals; forecast / measured - 1: "
                + ", ".join(f"{100 * (a / b - 1):+.0f} %" for a, b in pairs) + f"; {facts(card)}",
            ))  # fmt: skip
    return found


def simulated(text: str) -> Any:
    """Returns the outcome of a scenario given as text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        path.write_text(text, encoding="utf-8")
        return fleetcast.simulate(path)


def training_records(seconds: float) -> list[Record]:
    """Returns the records of training steps: time and the most memory that tensors took."""
    found = []
    for card, ran in runs().items():
        rows = [r for r in ran["training"] if "seconds" in r]
        made, null = [], []
        for r in rows:
            text = _TRAINING.format(
                card=card, batch=r["micro_batch"] * r["count"], recompute="full" if r["recompute"] else "none",
                **{name: r[name] for name in ("model", "sequence", "micro_batch")},
            )  # fmt: skip
            outcome = simulated(text)
            made.append((outcome.metrics["iteration_time"], outcome.metrics["memory"] - 1.4e9))
            tokens = r["sequence"] * r["micro_batch"] * r["count"]
            work = (8.0 if r["recompute"] else 6.0) * r["parameters"] * tokens
            null.append((work / peak(catalog.device(card), "bf16"), 18.0 * r["parameters"]))
        for i, (words, name) in enumerate((("iteration", "seconds"), ("most memory of tensors", "allocated"))):
            measured = np.array([float(r[name]) for r in rows])
            forecast_, trivial = np.array(made)[:, i], np.array(null)[:, i]
            found.append(record(
                f"{words} of a training step of 1.2B on one {card}, median error of the simulation",
                off(forecast_, measured), off(trivial, measured), seconds,
                null="6 (8 where computed again) FLOP a parameter and token at the peak" if i == 0
                else "18 B a parameter",
                setting=f"{len(rows)} settings; forecast / measured - 1: "
                + ", ".join(f"{100 * (a / b - 1):+.0f} %" for a, b in zip(forecast_, measured, strict=True))
                + f"; plain torch, not compiled; {facts(card)}",
            ))  # fmt: skip
    return found


def power_records(seconds: float) -> list[Record]:
    """Returns the record of power while something runs, against the catalogue's model and its limit."""
    found = []
    for card, ran in runs().items():
        device = catalog.device(card)
        rates = rates_of(device, device.power.max, "bf16", coefficients_for(device).get("draw", "any", Draw))
        real, made, words = [], [], []
        for name in ("product", "copy", "read"):
            p = ran["power"][name]
            each = p["seconds"] / p["calls"]
            joules = busy_energy(each, p.get("flop", 0.0), p.get("bytes", 0.0), rates)
            real.append(p["watts"])
            made.append(float(joules) / each)
            words.append(name)
        for r in (r for r in passes() if r["card"] == card and r["watts"]):
            model = models.model(r["model"])
            size = 2.0 * float(model.active_params())
            cache = model.kv_bytes_per_token(2.0) * float(r["context"])
            joules = busy_energy(
                r["seconds"], size * r["decodes"], size, rates, cache_size=cache,
                attention_flops=4.0 * model.layers * 4096.0 * r["context"],
            )  # fmt: skip
            real.append(r["watts"])
            made.append(float(joules) / r["seconds"])
            words.append(f"decode {r['decodes']}x{r['context'] // r['decodes']}")
        measured, forecast_ = np.array(real), np.array(made)
        found.append(record(
            f"power of {card} at work, median error of the catalogue's model", off(forecast_, measured),
            off(np.full(len(real), device.power.max), measured), seconds, null="the board's limit, 700 W",
            setting="forecast and measured W: " + ", ".join(
                f"{w} {a:.0f} and {b:.0f}" for w, a, b in zip(words, made, real, strict=True)
            ) + f"; at rest {device.power.idle:.0f} and {ran['power']['idle']['watts']:.0f}; {facts(card)}",
        ))  # fmt: skip
    return found


def speed_records(seconds: float) -> list[Record]:
    """Returns the engine's speed beside transformers' on the same shape, and its share of the card's limits."""
    found = []
    for card, ran in runs().items():
        mine = [r for r in passes() if r["card"] == card and r["model"] == "llama-3.1-8b"]
        model = models.model("llama-3.1-8b")
        size = 2.0 * float(model.active_params() - model.vocab * model.hidden)
        alone = [r for r in mine if r["kind"] == "decode" and r["decodes"] == 1]
        one = min(alone, key=lambda r: abs(r["context"] - 1024))
        most = max((r for r in mine if r["kind"] == "prompt"), key=lambda r: r["piece"])
        share = 100.0 * size / one["seconds"] / catalog.device(card).bandwidth
        mfu = 100.0 * size * 2048 / next(
            r["seconds"] for r in mine if r["kind"] == "prompt" and r["piece"] == 2048
        ) / peak(catalog.device(card), "bf16")  # fmt: skip
        eager = size / ran["formats"]["eager"]["1"] / catalog.device(card).bandwidth
        found.append(record(
            f"decode of 8B in bf16 at batch 1 on {card}, share of the data sheet's bandwidth", share, 100.0 * eager,
            seconds, null="the same kernels launched one by one", bar="above the null", better=max,
            setting=f"{1e3 * one['seconds']:.2f} ms; a prompt of 2048 tokens at {mfu:.0f} % of the sheet's FLOP/s, "
            f"one of {most['piece']} in {1e3 * most['seconds']:.0f} ms; {facts(card)}",
        ))  # fmt: skip
        if not ran["peer"]:
            continue
        for n in (1, 8, 32):
            ours = min(
                (r for r in mine if r["kind"] == "decode" and r["decodes"] == n),
                key=lambda r: abs(r["context"] / r["decodes"] - 1024),
            )
            theirs = ran["peer"]["decode"][f"{n}x1024"]
            found.append(record(
                f"decode steps of 8B at batch {n} on {card}, times as fast as transformers", theirs / ours["seconds"],
                1.0, seconds, null="transformers", unit="x", bar="above the null", better=max,
                setting=f"{1e3 * ours['seconds']:.2f} ms with {ours['context'] // n} tokens of context, transformers "
                f"{ran['peer']['version']} {1e3 * theirs:.1f} ms with 1024 (its own decode loop's forward pass, sdpa, "
                f"a growing cache, not compiled); {facts(card)}",
            ))  # fmt: skip
    return found


def facts(card: str) -> str:
    """Returns what a figure was measured on."""
    f = runs()[card]["facts"]
    return f"{f['card']}, driver {f['driver']}, torch {f['torch']}, {f['date']}"


def record(
    claim: str, value: float, null_value: float, seconds: float, *, setting: str,
    null: str = "the data sheet's roofline", unit: str = "%", bar: str = "below the null",
    better: Callable[[float, float], float] = min,
) -> Record:  # fmt: skip
    """Returns a record that holds where its value is better than the null's."""
    return Record(
        system=SYSTEM, claim=claim, ours=Ours(value=value, unit=unit, setting=setting),
        null=Null(value=null_value, what=null), bar=bar, holds=better(value, null_value) == value != null_value,
        reproduced="other setting", reason=REASON, seconds=seconds, command=COMMAND,
    )  # fmt: skip


def records(quick: bool) -> list[Record]:
    """Returns all records; a quick run leaves the simulations out."""
    found: list[Record] = []
    parts = [kernel_records, engine_records, power_records, speed_records]
    for part in parts if quick else [*parts, served_records, training_records]:
        with timer() as spent:
            made = part(0.0)
        found += [replaced(r, spent.seconds / len(made)) for r in made]
    return found


def replaced(r: Record, seconds: float) -> Record:
    """Returns a record with the CPU time that it took."""
    import msgspec

    return msgspec.structs.replace(r, seconds=seconds)


if __name__ == "__main__":
    raise SystemExit(main(records))
