"""What `fleetcast measure` shows of a machine and the engine on it: roofs, products by rows, the engine's own time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view.tables import rows_table

if TYPE_CHECKING:
    from fleetcast.runtime.measure import EngineProfile
    from fleetcast.runtime.measure.collectives import Collectives
    from fleetcast.runtime.measure.fan_in import FanIn

_SHOWN = ("1", "2", "4", "8", "16", "32", "64", "128", "256", "512")


def engine_view(profile: EngineProfile, kept: Path | None) -> RenderableType:
    """Returns the roofs, products by rows, how far forecasts of models held out were off, and what to do next."""
    roofs, threads = profile.roofs, profile.threads
    streams = [
        (f"{name}, {count} thread{'s' * (count != '1')}", show(best, "B/s"), show(middle, "B/s"))
        for count, found in roofs["streams"].items()
        for name, (best, middle) in found.items()
    ]
    formats = list(roofs["products"])
    products = [
        (rows, *(show(roofs["products"][name][rows], "FLOP/s") for name in formats))
        for rows in _SHOWN if rows in roofs["products"][formats[0]]
    ]  # fmt: skip
    used = f"{threads} thread{'s' * (threads > 1)}"
    off = [
        (name, f"{profile.noise[name]:.1%}", *(f"{e:.1%}" for e in profile.errors.get(name, ())))
        for name in formats
    ]  # fmt: skip
    off = [(*row, "", "")[:4] for row in off]
    host = next(iter(profile.coefficients["host"].values()))
    spent = ", ".join(f"{show(value, 's')} per {_UNIT[name]}" for name, value in host.items())
    blocks: list[RenderableType] = [
        Text(f"{profile.machine.id}: {profile.machine.name}", style="bold"), Text(),
        rows_table(("Memory", "Best", "Median"), streams, right=(1, 2)), Text(),
        rows_table(("Rows", *formats), products, right=range(1, len(formats) + 1)),
        Text(f"products, {used}: weights from memory, the fastest shape", style="dim"), Text(),
        rows_table(("Iterations of models held out", "Readings vary", "Off by", "90 %"), off, right=(1, 2, 3)),
        Text(f"the engine itself: {spent}", style="dim"), Text(),
    ]  # fmt: skip
    if profile.busy:
        load = f"load {profile.load:.1f} per core"
        blocks.append(Text(f"other work ran ({load}): measure an idle machine", style="bold yellow"))
    blocks.append(Text(profile.device["power"]["source"].replace("not measured", "power is not measured"), style="dim"))
    if kept is None:
        blocks.append(Text('keep it with --out profile.toml, then write devices = "1x ./profile.toml"', style="dim"))
    return Group(*blocks)


_UNIT = {"step": "iteration", "seq": "sequence", "token": "token"}


def collectives_view(found: Collectives, kept: Path | None) -> RenderableType:
    """Returns what processes take to talk to each other: small and large buffers, the fits and how far they are off."""
    rows = [
        (
            f"{c.operation}, {c.ranks}", show(c.best[0], "s"), show(c.best[-1], "s"),
            f"{np.median(np.array(c.median) / np.array(c.best)) - 1.0:.0%}", show(c.launch, "s"), show(c.rate, "B/s"),
            f"{c.affine_error:.0%}", f"{c.curve_error:.0%}",
        )
        for c in found.curves
    ]  # fmt: skip
    first = found.curves[0].sizes
    heads = (
        "", show(first[0], "B"), show(first[-1], "B"), "Vary", "Latency", "Bandwidth", "Off by", "Curve",
    )  # fmt: skip
    blocks: list[RenderableType] = [
        Text(f"{found.machine.id}: {found.machine.name}", style="bold"), Text(),
        rows_table(heads, rows, right=range(1, len(heads))),
        Text("2: between 2 processes; off by: latency and bandwidth, and a curve, at sizes held out", style="dim"),
        Text(),
    ]  # fmt: skip
    for operation, why in found.missing.items():
        blocks.append(Text(f"{operation} did not run: {why}", style="bold yellow"))
    if found.busy:
        blocks.append(
            Text(f"other work ran (load {found.load:.1f} per core): measure an idle machine", style="bold yellow")
        )
    if kept is None:
        blocks.append(Text("keep it with --out links.toml", style="dim"))
    return Group(*blocks)


def fan_in_view(found: FanIn, kept: Path | None) -> RenderableType:
    """Returns GenModel's parameters, and how far it and simpler models are from timings left out."""
    p = found.fits["genmodel"].parameters
    rows = [
        ("alpha, a round", show(p.alpha, "s")), ("beta, sent", f"{1e9 * p.beta:.3g} ns/B"),
        ("gamma, added", f"{1e9 * p.gamma:.3g} ns/B"), ("delta, read or written", f"{1e9 * p.delta:.3g} ns/B"),
        ("epsilon, a flow too many", f"{1e9 * p.epsilon:.3g} ns/B"), ("threshold, flows", f"{p.threshold:.2g}"),
        ("launch, a call", show(p.launch, "s")),
    ]  # fmt: skip
    names = {"size": "size", "ranks": "number of ranks", "algorithm": "algorithm"}
    off = [
        (model, *(f"{found.held_out[model][by]:.1%}" for by in names), f"{found.fits[model].error:.1%}")
        for model in found.held_out
    ]
    blocks: list[RenderableType] = [
        Text(f"{found.machine.id}: {found.machine.name}, {len(found.timings)} timings", style="bold"), Text(),
        rows_table(("GenModel", ""), rows, right=(1,)), Text(),
        rows_table(("Off by, left out:", *names.values(), "none"), off, right=range(1, 5)), Text(),
    ]  # fmt: skip
    if found.busy:
        busy = f"other work ran (load {found.load:.1f} per core): measure an idle machine"
        blocks.append(Text(busy, style="bold yellow"))
    if kept is None:
        blocks.append(Text("keep the timings with --out timings.csv", style="dim"))
    return Group(*blocks)
