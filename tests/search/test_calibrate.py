"""Calibration: constants that made the iterations are found again, and a profile that was slowed forecasts so."""

import msgspec
import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.iteration import Passes, by_constant, kernel_seconds
from fleetcast.cost.roofline import coefficients_for
from fleetcast.scenario.fleet.devices import Fitted
from fleetcast.scenario.load import load
from fleetcast.search.calibrate import FACTORS, HOST, Ran, calibrate, slowed
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting

TRUE = {
    "memory.bf16": 1.4, "memory.fp32": 0.8, "decode": 1.3, "elementwise": 1.0, "sampling": 1.5, "step": 4e-4,
    "seq": 3e-5, "token": 2e-6,
}  # fmt: skip
HOST_BEFORE = {"step": 1e-4, "seq": 0.0, "token": 0.0}


def made(seed, form, noise=0.02, count=400, wild=0.0):
    """A run whose iterations take what TRUE says, but for noise; a share of them twice as long or more."""
    draw = np.random.default_rng(seed)
    sequences, prompts = (
        draw.integers(1, 30, count).astype(float),
        draw.integers(0, 2, count) * draw.integers(8, 300, count),
    )
    tokens = sequences + prompts
    context = sequences * draw.integers(50, 900, count)
    kernels = {
        f"memory.{form}": np.maximum(2e-3, 4e-5 * tokens), "decode": 1e-5 * sequences + 3e-8 * context,
        "elementwise": 2e-4 + 1e-6 * tokens, "sampling": 8e-5 * sequences * draw.uniform(0.5, 2.0, count),
    }  # fmt: skip
    model = sum(TRUE[name] * seconds for name, seconds in kernels.items() if name != "sampling")
    rest = 1.5 * kernels["sampling"] + 4e-4 + 3e-5 * sequences + 2e-6 * tokens
    model, rest = (part * np.exp(noise * draw.normal(size=count)) for part in (model, rest))
    model[draw.random(count) < wild] *= 1 + draw.exponential(2.0)
    return Ran(f"run {seed}", kernels, sequences, tokens, model + rest, model)


def test_the_constants_that_made_the_iterations_are_found_again():
    runs = [made(1, "bf16"), made(2, "fp32"), made(3, "bf16"), made(4, "fp32")]
    found = calibrate(runs, HOST_BEFORE)
    assert found.constants["memory.bf16"] == pytest.approx(1.4, rel=0.06)  # held to 1 a little
    assert found.constants["memory.fp32"] == pytest.approx(0.8, rel=0.06)
    assert found.constants["decode"] == pytest.approx(1.3, rel=0.15)
    assert found.constants["step"] == pytest.approx(4e-4, rel=0.2)
    for before, after, held in found.errors.values():
        assert abs(before) > 0.05
        assert abs(after) < 0.02
        assert abs(held) < 0.04
    inside = sum(low <= TRUE[name] <= high for name, (low, high) in found.intervals.items())
    assert inside >= len(TRUE) - 2


def test_interruptions_do_not_move_the_constants():
    calm = calibrate([made(i, "bf16") for i in range(4)], HOST_BEFORE).constants
    wild = calibrate([made(i, "bf16", wild=0.03) for i in range(4)], HOST_BEFORE).constants
    assert wild["memory.bf16"] == pytest.approx(calm["memory.bf16"], rel=0.05)


def test_what_the_runs_say_nothing_about_stays_as_it_was():
    run = made(5, "bf16")
    kernels = run.kernels | {"prefill": np.zeros(len(run.seconds))}
    silent = Ran(run.name, kernels, run.sequences, run.tokens, run.seconds, run.model)
    assert calibrate([silent, made(6, "bf16")], HOST_BEFORE).constants["prefill"] == pytest.approx(1.0)


def test_constants_stay_physical():
    run = made(7, "bf16")
    odd = Ran(run.name, run.kernels, run.sequences, run.tokens, run.seconds * 1e-3, run.model * 1e-3)
    found = calibrate([odd], HOST_BEFORE).constants
    assert all(found[name] >= 0.0 for name in HOST)
    assert all(FACTORS[0] <= value <= FACTORS[1] for name, value in found.items() if name not in HOST)


def test_one_run_has_intervals_and_nothing_held_out():
    found = calibrate([made(8, "bf16")], HOST_BEFORE)
    assert np.isnan(found.errors["run 8"][2])
    assert all(
        np.isfinite(high) and low <= found.constants[name] <= high for name, (low, high) in found.intervals.items()
    )


@pytest.mark.parametrize("runs", [[], [made(9, "bf16").part(np.arange(0))]])
def test_nothing_to_fit_is_refused(runs):
    with pytest.raises(SpecError, match="hold no iterations"):
        calibrate(runs, HOST_BEFORE)


def costs(device=None):
    scenario = load({
        "fleet": {"devices": "1x l40s"},
        "workload": {"model": "llama-3.2-1b", "arrivals": {"kind": "closed", "concurrency": 1, "requests": 1},
                     "lengths": {"kind": "fixed", "prompt": 8, "output": 2}},
        "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "fleetcast", "dtype": "bf16"},
    })  # fmt: skip
    state = setting(scenario)
    if device is not None:
        object.__setattr__(state.tree.groups[0], "device", device)
    return state, state.servers(complete(state, scenario.plan))[0].cost


MEASURED = {
    "launch": 1e-5, "compute": 1.0, "memory": 1.0, "sharp": 1, "rows": [1.0, 8.0, 64.0, 512.0],
    "passes": [1.0, 1.5, 5.0, 35.0], "kept": [0.5, 0.9, 4.5, 34.0], "footprint": [1e6, 1e10], "held": [1.0, 0.2],
}  # fmt: skip


@pytest.mark.parametrize(("gemm", "near"), [(MEASURED, 1e-9), (None, 0.05)], ids=["measured rows", "closed form"])
def test_a_slowed_profile_forecasts_its_factors(gemm, near):
    """Every kernel of the forecast from the new profile takes its factor times what it took.

    Exactly so but for products whose two roofs overlap, of which neither alone is a part of the time.
    """
    state, _ = costs()
    plain = state.tree.groups[0].device

    def with_tables(tables):
        spread = dict.fromkeys(tables, 0.1)
        return msgspec.structs.replace(plain, fitted=Fitted(source="test", spread=spread, tables=tables))

    tables = {name: dict(rows) for name, rows in coefficients_for(plain).tables.items()}
    if gemm is not None:
        tables["gemm"] = {"bf16": gemm}
    factors = {"memory.bf16": 1.3, "compute.bf16": 0.8, "elementwise": 0.7, "decode": 2.0, "prefill": 1.7}
    _, before = costs(with_tables(tables))
    _, after = costs(with_tables(slowed(tables, factors)))
    done = Passes(*np.array([
        [1, 0, 0, 1, 40, 0, 0], [9, 0, 0, 9, 4000, 0, 0], [3, 1, 200, 4, 90, 20100, 200], [0, 2, 64, 2, 0, 1056, 64],
    ], float).T)  # fmt: skip
    old, new = (by_constant(cost, done, kernel_seconds(cost, done)) for cost in (before, after))
    for name, factor in factors.items():
        rtol, atol = (near, 0.0) if "." in name else (1e-9, 0.0)
        atol = near * float(old["memory.bf16"].max()) if name.startswith("compute") else atol
        np.testing.assert_allclose(new[name], factor * old[name], rtol=rtol, atol=atol, err_msg=name)
    assert sum(new.values()) == pytest.approx(sum(kernel_seconds(after, done).values()))
