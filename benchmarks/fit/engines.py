"""Fits the host constants of serving engines on measured servers: per engine and device, none per model.

``python -m benchmarks.fit.engines [--write]`` prints the constants, and with ``--write`` puts them into
``src/fleetcast/cost/engines``. Every constant has a unit and a physical range that the fit never leaves. The loss is
soft-L1 of log(forecast / measured), time per token counted twice as much as time to first token, and a weak pull
towards the start of each range, so that a constant the rows say nothing about stays plausible.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from benchmarks.fit.replay import Case, case
from benchmarks.fit.silicon import ENGINES, FILE, rows
from benchmarks.records import ROOT, data_path
from fleetcast.cost.engine import Host

FOLDER = ROOT / "src" / "fleetcast" / "cost" / "engines"
RANGES: Mapping[str, tuple[float, float, float]] = {
    "step": (0.0, 1e-3, 8e-3),
    "seq": (0.0, 5e-6, 1e-4),
    "token": (0.0, 2e-7, 1e-5),
    "gap": (0.0, 4e-4, 2e-3),
    "api": (0.0, 1e-2, 2e-2),
    "api_token": (0.0, 1e-6, 2e-5),
}
"""Low, start, high; s. ``kernels`` (a ratio) joins them for engines whose kernels were not measured."""
KERNELS = (0.75, 1.0, 1.3)
MEASURED = ("vllm",)
"""Engines whose own kernels the tables hold."""
EAGER = 6e-5
"""s to launch a kernel outside a captured graph, Python included: one for all engines and devices.

Left free per device it takes up whatever else delays prompts there, and a device left out is forecast worse (TTFT of
TensorRT-LLM 27 % becomes 47 %)."""
PRIOR = 0.3
"""How strongly a constant that the rows say little about stays at its start; in units of a row's residual."""
MOST = 80
"""Rows of one fit, at most."""


def host_of(values: Mapping[str, float]) -> Host:
    """Returns the constants as an engine holds them."""
    return Host(**({"eager": EAGER} | {k: float(v) for k, v in values.items()}))


def fit_host(cases: Sequence[Case], *, kernels: bool) -> Host:
    """Returns the constants that fit the cases best.

    Args:
        cases: rows of one engine, ready to run.
        kernels: fit the speed of the engine's kernels too.
    """
    ranges = dict(RANGES) | ({"kernels": KERNELS} if kernels else {})
    names = list(ranges)
    low, start, high = (np.array([ranges[n][i] for n in names]) for i in range(3))
    goal = np.log([[c.row.ttft, c.row.tpot] for c in cases])
    weight = np.array([0.5, 1.0])

    def residual(y: np.ndarray) -> np.ndarray:
        host = host_of(dict(zip(names, low + (high - low) * y**2, strict=True)))
        found = np.log([c.run(host) for c in cases])
        return np.concatenate([((found - goal) * weight).ravel(), PRIOR * np.sqrt(len(cases)) * (y - begin)])

    begin = np.sqrt((start - low) / (high - low))
    found = least_squares(
        residual, begin, bounds=(0.0, 1.0), loss="soft_l1", f_scale=0.1, diff_step=0.02, max_nfev=12, x_scale=0.1
    )
    return host_of(dict(zip(names, low + (high - low) * found.x**2, strict=True)))


def thin(cases: Sequence[Case], most: int = MOST) -> list[Case]:
    """Returns at most ``most`` cases, every model and load represented: every k-th in a fixed order."""
    ordered = sorted(cases, key=lambda c: (c.row.model, c.row.tp, c.row.prompt, c.row.output, c.row.users))
    step = max(1, -(-len(ordered) // most))
    return ordered[::step]


def prepared(path: Path, backends: tuple[str, ...], waves: int = 10) -> list[Case]:
    """Returns the usable rows of the file, ready to run."""
    return [c for c in (case(row, waves) for row in rows(path, backends)) if c.server is not None]


def text(host: Host) -> str:
    """Returns the lines of a ``[host.*]`` table."""
    lines = []
    for name in (*RANGES, "eager", "kernels"):
        value = float(f"{getattr(host, name):.3g}")
        if name == "kernels":
            lines += [f"kernels = {value:.3f}"] if abs(value - 1.0) > 1e-9 else []
        elif value >= 1e-3:
            lines.append(f'{name} = "{value * 1e3:.3g} ms"')
        elif value < 1e-10:
            lines.append(f"{name} = 0")
        else:
            lines.append(f'{name} = "{value * 1e6:.3g} us"')
    return "\n".join(lines)


def main(write: bool) -> int:
    """Fits and prints, or writes, the constants of every engine."""
    path = data_path(*FILE)
    if path is None:
        print("the measured rows are not here: set FLEETCAST_DATA", file=sys.stderr)
        return 1
    for backend, profile in ENGINES.items():
        cases = prepared(path, (backend,))
        devices = sorted({c.row.device for c in cases})
        free = backend not in MEASURED
        tables = {"default": fit_host(thin(cases), kernels=free)}
        tables |= {d: fit_host(thin([c for c in cases if c.row.device == d]), kernels=free) for d in devices}
        body = "\n\n".join(f"[host.{name}]\n{text(host)}" for name, host in tables.items())
        print(f"# {profile}: {len(cases)} rows\n{body}\n")
        if write:
            file = FOLDER / f"{profile}.toml"
            head = re.split(r"^\[host\.", file.read_text(encoding="utf-8"), maxsplit=1, flags=re.M)[0]
            file.write_text(head + body + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
