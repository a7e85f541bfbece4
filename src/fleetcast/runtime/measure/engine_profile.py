"""A device profile from what the engine's own operators and iterations took: roofs, kernels, and the host's part.

The device is the whole processor as one, as in `profile`. Products are tables by rows, since no two roofs hold one row,
a few and many at once (`cost.gemm`); everything else is what whole iterations leave beside them (`fitting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.spec import dump_toml
from fleetcast.cost.gemm import Gemm, call_time, gemm_time
from fleetcast.cost.roofline import Chip, format_of, peak
from fleetcast.cost.step import SAMPLING_LAUNCH
from fleetcast.runtime.measure.fitting import Case, Found, Sizes, called, features, fit, hats, held_out, in_place
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.passes import Timed
from fleetcast.runtime.measure.probes import Z80
from fleetcast.runtime.measure.products import FEW, Products, gemm_coefficients
from fleetcast.runtime.measure.profile import device_of, rounded

Array = NDArray[np.float64]
ENGINE = "fleetcast"
"""The engine profile that the host's constants are of."""
SOURCE = "fleetcast measure"
_TINY = 1e-18  # s per unit where none was found: a share of the roof that is as good as infinite


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """A measured device and how the engine runs on it.

    Attributes:
        machine: what the operating system says.
        threads: that products used.
        load: how many processes per core wanted to run before and after, the larger.
        device: figures as the catalogue has them, SI.
        coefficients: what `cost.roofline` and `cost.engine` read for the device.
        roofs: what is shown: streams (most and median), products by rows, on all threads and on one, and by format the
            standard deviation of log(time) that shapes of one number of rows leave.
        errors: by format: median and 90th percentile of the error of iterations, their models held out of the fit.
        noise: by format: by how much a median reading of a product exceeds the least, as a share.
    """

    machine: Machine
    threads: int
    load: float
    device: Mapping[str, Any]
    coefficients: Mapping[str, Any]
    roofs: Mapping[str, Any]
    errors: Mapping[str, tuple[float, float]]
    noise: Mapping[str, float]

    @property
    def busy(self) -> bool:
        """Whether other work ran, so that roofs are understated."""
        return self.load > 0.5

    def table(self) -> dict[str, Any]:
        """Returns the profile as a file has it: what scenarios read, and what it rests on."""
        measured = {
            "threads": self.threads, "load": self.load, "roofs": dict(self.roofs), "noise": dict(self.noise),
            "held_out": {d: {"median": m, "p90": p} for d, (m, p) in self.errors.items()},
        }  # fmt: skip
        found: dict[str, Any] = rounded(
            {"device": dict(self.device), "coefficients": dict(self.coefficients), "measured": measured}
        )
        return found

    def toml(self) -> str:
        """Returns the text of the profile's file."""
        head = '# Written by fleetcast measure. A scenario names this file: devices = "1x ./profile.toml"'
        return f"{head}\n{dump_toml(self.table())}"


def engine_profile(machine: Machine, said: Mapping[str, Any], load: float = 0.0) -> EngineProfile:
    """Returns the profile that follows from what the worker said.

    Args:
        machine: what the operating system says.
        said: the worker's last line: threads, streams, cached, products, cases.
        load: processes per core that wanted to run.
    """
    threads = int(said["threads"])
    streams = said["streams"][str(threads)]
    bandwidth = float(streams["read"][0])
    cached = {float(size): float(seconds) for size, seconds in said["cached"]}
    gemm: dict[str, dict[str, Any]] = {}
    left: dict[str, float] = {}
    rates, noise = {}, {}
    for name, row in said["products"].items():
        shapes = [(int(n), int(k)) for n, k in row["shapes"]]
        found = Products(shapes, row["rows"], np.array(row["cold"]), np.array(row["warm"]), np.array(row["tiny"]))
        weight = format_of(name).weight
        gemm[name], left[name] = gemm_coefficients(found, weight, bandwidth, cached)
        rates[name] = rate(found)
        noise[name] = float(row["noise"])
    peaks = {name: float(max(by_rows.values())) for name, by_rows in rates.items()}
    chip = Chip(machine.id, "cpu", bandwidth, threads, peaks)
    cases = [case_of(row, chip, gemm) for row in said["cases"]]
    known, errors = fit(cases), held_out(cases)
    # so that intervals of 80 % hold four of five iterations of models that were held out
    spread = float(np.quantile(np.abs(np.concatenate(list(errors.values()))), 0.8)) / Z80
    tables: dict[str, dict[str, Any]] = {"gemm": {form: corrected(row, form, known) for form, row in gemm.items()}}
    for whose in known:
        for family, row in kernels(known, whose, chip).items():
            tables.setdefault(family, {})[whose.removeprefix("kv ")] = row
    host = dict(known["host"])
    host["step"] = max(0.0, host["step"] - SAMPLING_LAUNCH)  # which `cost.step` adds on any device
    device = device_of(machine, bandwidth, peaks) | {
        "measured": "peaks, bandwidth, kernels and the host's part, by fleetcast measure",
        "source": f"fleetcast measure: the engine on torch, {threads} thread{'s' * (threads > 1)}; memory and caches "
        "from the operating system",
    }
    coefficients = {
        "source": SOURCE,
        "spread": dict.fromkeys(tables, spread),
        "tables": tables, "host": {ENGINE: host},
    }  # fmt: skip
    errs = {
        d: (float(np.median(np.abs(np.expm1(e)))), float(np.quantile(np.abs(np.expm1(e)), 0.9)))
        for d, e in errors.items()
    }
    roofs = {
        "streams": said["streams"], "products": {n: {str(m): r for m, r in by.items()} for n, by in rates.items()},
        "alone": said.get("alone", {}), "shapes": left,
    }  # fmt: skip
    return EngineProfile(machine, threads, load, device, coefficients, roofs, errs, noise)


def rate(found: Products) -> dict[int, float]:
    """Returns the FLOP/s of the fastest shape by rows, weights from memory."""
    work = 2.0 * np.array([float(n * k) for n, k in found.shapes])[:, None] * np.array(found.rows, dtype=np.float64)
    return dict(zip(found.rows, (work / found.cold).max(axis=0).tolist(), strict=True))


def case_of(row: Mapping[str, Any], chip: Chip, gemm: Mapping[str, Mapping[str, Any]]) -> Case:
    """Returns a model's timed iterations, their products forecast from their own measurement.

    Args:
        row: model, form, dtype, kv_dtype, config and timed, as the worker said them.
        chip: the machine.
        gemm: coefficients by format.
    """
    timed = [Timed(**t) for t in row["timed"]]
    size, form = sizes_of(row["config"]), str(row["form"])
    products, fixed, calls = products_time(size, timed, form, chip, Gemm(**gemm[form]))
    parts = features(size, timed, format_of(row["kv_dtype"]).weight)
    seconds = np.array([t.seconds for t in timed])
    return Case(
        str(row["model"]), form, str(row["dtype"]), str(row["kv_dtype"]), seconds, products, fixed, calls, parts
    )


def sizes_of(config: Mapping[str, Any]) -> Sizes:
    """Returns what of a config.json the time depends on."""
    return Sizes(
        layers=config["num_hidden_layers"], hidden=config["hidden_size"], heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"], head_dim=config["head_dim"], width=config["intermediate_size"],
        vocab=config["vocab_size"],
    )  # fmt: skip


def products_time(size: Sizes, timed: Sequence[Timed], dtype: str, chip: Chip, c: Gemm) -> tuple[Array, Array, Array]:
    """Returns what all products of the iterations take.

    (n, knots) s by the knots of `fitting`; (n,) s of calls; (n,) how many of these have more than `FEW` rows.
    """
    tokens = np.array([t.decodes + t.piece for t in timed], dtype=np.float64)
    emits = np.array([t.emits for t in timed], dtype=np.float64)
    wide, kv = size.heads * size.head_dim, size.kv_heads * size.head_dim
    matrices = (
        (wide + 2 * kv, size.hidden), (size.hidden, wide), (2 * size.width, size.hidden), (size.hidden, size.width),
    )  # fmt: skip
    weights = size.layers * sum(n * k for n, k in matrices) + size.vocab * size.hidden
    resident = c.resident(weights * format_of(dtype).weight)
    call = call_time(tokens, c)
    layer = sum(gemm_time(tokens, n, k, dtype, chip, c, resident=resident) - call for n, k in matrices)
    head = gemm_time(emits, size.vocab, size.hidden, dtype, chip, c, resident=resident) - call_time(emits, c)
    found = size.layers * hats(tokens) * np.asarray(layer)[:, None] + hats(emits) * np.asarray(head)[:, None]
    layers = 4.0 * size.layers
    more = np.asarray(layers * (tokens > FEW) + (emits > FEW), dtype=np.float64)
    return found, layers * call + call_time(emits, c), more


def corrected(row: Mapping[str, Any], form: str, known: Found) -> dict[str, Any]:
    """Returns a format's product coefficients with what the engine's products take in place."""
    rows = np.array(row["rows"])
    scale, calls = in_place(known, form, rows), np.array(row["calls"]) + called(known, form, rows)
    found = {name: (scale * row[name]).tolist() for name in ("passes", "kept")}
    return dict(row) | found | {"calls": calls.tolist(), "launch": float(calls[0])}


def kernels(known: Found, whose: str, chip: Chip) -> dict[str, dict[str, Any]]:
    """Returns the kernels beside products of a dtype of activations or of the cache, as shares of the roofs."""

    def share(seconds: float, roof: float) -> float:
        return 1.0 / (max(seconds, _TINY) * roof)

    found, most = known[whose], peak(chip, "bf16")  # what attention's share of the peak is counted against
    if whose.startswith("kv "):
        return {"decode": {
            "launch": 0.0, "head": 0.0, "base": found["decode"], "each": found["each"], "adds": 1.0,
            "memory": share(found["read"], chip.bandwidth), "compute": share(found["multiply"], most),
        }}  # fmt: skip
    if whose == "host" or whose.startswith(("products ", "calls ")):
        return {}
    reached = share(found["pair"], most)
    return {
        "stream": {"launch": found["launch"], "memory": share(found["stream"], chip.bandwidth)},
        "sample": {"launch": 0.0, "memory": share(found["logit"], chip.bandwidth)},
        "prefill": {
            "launch": found["piece"], "compute": reached, "narrow": reached, "window": 0.0,
            "token": found["passed"] * chip.bandwidth,
        },
    }  # fmt: skip
