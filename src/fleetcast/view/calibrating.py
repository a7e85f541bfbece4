"""`fleetcast calibrate`: folders of measured runs in, a device profile with refitted constants out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.files import read_text
from fleetcast.base.show import show
from fleetcast.base.spec import dump_toml, to_builtins
from fleetcast.cost.engine import Host
from fleetcast.cost.iteration import Passes, by_constant, kernel_seconds
from fleetcast.cost.roofline import coefficients_for
from fleetcast.runtime.replay.local import STEPS
from fleetcast.scenario.fleet.spec import names_file
from fleetcast.scenario.load import ServingScenario, load_serving
from fleetcast.search.calibrate import FACTORS, HOST, Calibration, Ran, calibrate, slowed
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.view.measured import STEPS_FILE
from fleetcast.view.tables import rows_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.cost.engine import Engine
    from fleetcast.scenario.fleet.devices import Device

MEANINGS = {
    "memory": "products in {}, reading weights", "compute": "products in {}, further rows",
    "elementwise": "passes over activations", "sampling": "logits to tokens", "decode": "decode attention",
    "prefill": "prompt attention", "communication": "collectives", "step": "host, an iteration",
    "seq": "host, a sequence of it", "token": "host, a token of it",
}  # fmt: skip


@dataclass(frozen=True)
class Calibrated:
    """A device profile refitted on runs.

    Attributes:
        device: as it was before.
        engine: whose host constants were fitted.
        found: constants, intervals, errors.
        profile: the new profile's table.
    """

    device: Device
    engine: str
    found: Calibration
    profile: Mapping[str, Any]

    def toml(self) -> str:
        """Returns the text of the profile's file."""
        head = '# Written by fleetcast calibrate. A scenario names this file: devices = "1x ./calibrated.toml"'
        return f"{head}\n{dump_toml(self.profile)}"

    def table(self) -> dict[str, Any]:
        """Returns what was found, for JSON."""
        return {
            "device": self.device.id, "engine": self.engine, "constants": dict(self.found.constants),
            "intervals": {name: list(ends) for name, ends in self.found.intervals.items()},
            "errors": {
                name: dict(zip(("before", "after", "held_out"), row, strict=True))
                for name, row in self.found.errors.items()
            },
        }  # fmt: skip


def refit(folders: Sequence[Path], *, device: Path | None = None, engine: str = "") -> Calibrated:
    """Returns a device profile whose constants fit measured runs.

    Args:
        folders: of ``fleetcast run FILE --out FOLDER``, all of one device and one engine.
        device: a profile to start from, instead of the device that the runs' plan.toml names.
        engine: whose host constants they are, instead of the plan's.

    Raises:
        SpecError: a folder that holds no run, runs of several devices or engines.
        Unsupported: a run whose iterations cannot be told apart by term.
    """
    runs, seen = [], []
    for folder in folders:
        ran, profile, group = read_run(folder, device, engine)
        runs.append(ran)
        seen.append((group, profile))
    for i, name in enumerate(("device", "engine")):
        ids = list(dict.fromkeys(pair[i].id for pair in seen))
        if len(ids) > 1:
            raise SpecError("runs", f"are of more than one {name}", value=ids, limit="one", hint="Calibrate them apart")
    known, profile = seen[0]
    host = profile.host_on(known.id, known.fitted.host if known.fitted is not None else None)
    found = calibrate(runs, {name: getattr(host, name) for name in HOST})
    return Calibrated(known, profile.id, found, _profile(known, profile.id, host, found, len(runs)))


def read_run(folder: Path, device: Path | None = None, engine: str = "") -> tuple[Ran, Engine, Device]:
    """Returns the iterations of a run with what its forecast says of them, the engine's profile and the device.

    Raises:
        SpecError: the folder holds no run of the engine here.
    """
    plan = folder / "plan.toml"
    if not plan.is_file() or not (folder / STEPS_FILE).is_file():
        raise SpecError(
            str(folder), "holds no iterations to fit", limit=f"plan.toml and {STEPS_FILE}",
            hint="Write them: fleetcast run FILE --out FOLDER; a server's runs do not say what its iterations were",
        )  # fmt: skip
    scenario = load_serving(plan)
    if device is not None:
        scenario = on_device(scenario, device)
    if engine:
        pools = tuple(msgspec.structs.replace(pool, engine=engine) for pool in scenario.plan.pools)
        scenario = msgspec.structs.replace(scenario, plan=msgspec.structs.replace(scenario.plan, pools=pools))
    state = setting(scenario)
    server = state.servers(complete(state, scenario.plan))[0]
    steps = read_steps(folder / STEPS_FILE)
    first = STEPS.index("decodes")
    done = Passes(*steps[:, first:].T)
    kernels = by_constant(server.cost, done, kernel_seconds(server.cost, done))
    seconds, model = (steps[:, STEPS.index(name)] for name in ("seconds", "model_s"))
    setting_of = f"{state.requests.digest()} {scenario.plan.table()}"
    ran = Ran(str(folder), kernels, done.decodes + done.prompts, done.tokens, seconds, model, setting_of)
    return ran, server.engine, server.group.device


def on_device(scenario: ServingScenario, device: Path) -> ServingScenario:
    """Returns the scenario on one device of a profile.

    Raises:
        SpecError: no such file.
    """
    if not device.is_file() or not names_file(device.name):
        raise SpecError("device", "is no profile", value=str(device), hint="Write one: fleetcast measure --out FILE")
    fleet = type(scenario.fleet)(devices=f"1x {device.resolve().as_posix()}")
    return msgspec.structs.replace(scenario, fleet=fleet)


def read_steps(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns the rows of a steps.csv, columns as `STEPS`.

    Raises:
        SpecError: other columns, or what is no number.
    """
    rows = csv.reader(io.StringIO(read_text(path)))
    heads = tuple(next(rows, ()))
    if heads[: len(STEPS)] != STEPS:
        raise SpecError(str(path), "has other columns", value=list(heads), limit=", ".join(STEPS), hint="Run it again")
    try:
        found = np.array([[float(x) for x in row[: len(STEPS)]] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise SpecError(str(path), f"holds what is no number: {error}", hint="Run it again") from None
    return found.reshape(-1, len(STEPS))


def _profile(device: Device, engine: str, host: Host, found: Calibration, runs: int) -> dict[str, Any]:
    known = coefficients_for(device)
    factors = {name: value for name, value in found.constants.items() if name not in HOST}
    tables = slowed(known.tables, factors)
    hosts = dict(device.fitted.host) if device.fitted is not None else {}
    constants = {name: value for name, value in msgspec.structs.asdict(host).items() if value != _default(name)}
    hosts[engine] = constants | {name: found.constants[name] for name in HOST}
    return {
        "device": to_builtins(msgspec.structs.replace(device, fitted=None)),
        "coefficients": {
            "source": f"fleetcast calibrate on {runs} runs",
            "spread": {name: known.provenance[name].spread for name in tables},
            "tables": tables, "host": hosts,
        },
        "measured": {
            "constants": dict(found.constants),
            "intervals": {name: [low, min(high, 1e9)] for name, (low, high) in found.intervals.items()},
        },
    }  # fmt: skip


def _default(name: str) -> Any:
    return getattr(Host(step=0.0), name)


def meaning(constant: str) -> str:
    """Returns what a constant is, in words."""
    part, _, form = constant.partition(".")
    return MEANINGS[part].format(form)


def calibrated_view(found: Calibrated) -> RenderableType:
    """Returns the constants with their intervals, and how far each run is off before, after and held out."""
    from rich.console import Group
    from rich.text import Text

    rows = []
    for name, value in found.found.constants.items():
        low, high = found.found.intervals[name]
        unit = "s" if name in HOST else ""
        ends = f"{_shown(low, unit)} to {_shown(high, unit)}" if np.isfinite(high) else "one run: unknown"
        told = "at its limit" if not unit and not FACTORS[0] * 1.001 < value < FACTORS[1] * 0.999 else ""
        rows.append((meaning(name), _shown(value, unit), ends, told))
    errors = [(name, *(f"{x:+.1%}" if np.isfinite(x) else "" for x in row)) for name, row in found.found.errors.items()]
    return Group(
        Text(f"{found.engine} on {found.device.id}: {len(errors)} runs; factors are of the profile's seconds"), Text(),
        rows_table(("Constant", "Value", "80 % interval", ""), rows, right=(1, 2)), Text(),
        Text("Time of all iterations, forecast / measured - 1"), Text(),
        rows_table(("Run", "Before", "After", "Held out"), errors, right=(1, 2, 3)),
    )  # fmt: skip


def _shown(value: float, unit: str) -> str:
    return show(value, "s") if unit else f"{value:.3f}"
