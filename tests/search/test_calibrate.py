"""Calibration: constants that made the iterations are found again, and a profile that was slowed forecasts so."""

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.iteration import Passes, by_format, kernel_seconds
from fleetcast.cost.roofline import coefficients_for
from fleetcast.scenario.fleet.devices import Fitted
from fleetcast.scenario.load import load
from fleetcast.search.calibrate import FACTORS, HOST, Ran, calibrate, slowed
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting

TRUE = {
    "products.bf16": 1.4, "products.fp32": 0.8, "decode.bf16": 2.0, "elementwise": 1.0, "step": 4e-4, "seq": 3e-5,
    "token": 2e-6,
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
        f"products.{form}": np.maximum(2e-3, 4e-5 * tokens), "decode.bf16": 1e-5 * sequences + 3e-8 * context,
        "elementwise": 2e-4 + 1e-6 * tokens,
    }  # fmt: skip
    exact = Ran(f"run {seed}", kernels, sequences, tokens, np.ones(count)).forecast(TRUE)
    seconds = exact * np.exp(noise * draw.normal(size=count))
    seconds[draw.random(count) < wild] *= 1 + draw.exponential(2.0)
    return Ran(f"run {seed}", kernels, sequences, tokens, seconds)


def test_the_constants_that_made_the_iterations_are_found_again():
    runs = [made(1, "bf16"), made(2, "fp32"), made(3, "bf16"), made(4, "fp32")]
    found = calibrate(runs, HOST_BEFORE)
    assert found.constants["products.bf16"] == pytest.approx(1.4, rel=0.03)
    assert found.constants["products.fp32"] == pytest.approx(0.8, rel=0.03)
    assert found.constants["decode.bf16"] == pytest.approx(2.0, rel=0.1)
    for before, after, held in found.errors.values():
        assert abs(before) > 0.05
        assert abs(after) < 0.01
        assert abs(held) < 0.02
    inside = sum(low <= TRUE[name] <= high for name, (low, high) in found.intervals.items())
    assert inside >= len(TRUE) - 3


def test_interruptions_do_not_move_the_constants():
    calm = calibrate([made(i, "bf16") for i in range(4)], HOST_BEFORE).constants
    wild = calibrate([made(i, "bf16", wild=0.03) for i in range(4)], HOST_BEFORE).constants
    assert wild["products.bf16"] == pytest.approx(calm["products.bf16"], rel=0.05)


def test_what_the_runs_say_nothing_about_stays_as_it_was():
    run = made(5, "bf16")
    silent = Ran(
        run.name, run.kernels | {"prefill.bf16": np.zeros(len(run.seconds))}, run.sequences, run.tokens, run.seconds
    )
    assert calibrate([silent, made(6, "bf16")], HOST_BEFORE).constants["prefill.bf16"] == pytest.approx(1.0)


def test_constants_stay_physical():
    run = made(7, "bf16")
    odd = Ran(run.name, run.kernels, run.sequences, run.tokens, run.seconds * 1e-3)
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


def test_a_slowed_profile_forecasts_its_factors():
    """Every kernel of the forecast from the new profile takes its factor times what it took."""
    import msgspec

    state, before = costs()
    device = state.tree.groups[0].device
    factors = {"products.bf16": 1.3, "elementwise": 0.7, "decode.bf16": 2.0, "prefill.bf16": 1.7}
    known = coefficients_for(device)
    tables = slowed(known.tables, factors)
    spread = {name: known.provenance[name].spread for name in tables}
    changed = msgspec.structs.replace(device, fitted=Fitted(source="test", spread=spread, tables=tables))
    _, after = costs(changed)
    done = Passes(*np.array([
        [1, 0, 0, 1, 40, 0, 0], [9, 0, 0, 9, 4000, 0, 0], [3, 1, 200, 4, 90, 20100, 200], [0, 2, 64, 2, 0, 1056, 64],
    ], float).T)  # fmt: skip
    old, new = (by_format(cost, done, kernel_seconds(cost, done)) for cost in (before, after))
    for name, factor in factors.items():
        if name != "elementwise":  # which holds a constant of the sampler beside its passes
            np.testing.assert_allclose(new[name], factor * old[name], rtol=1e-9, err_msg=name)
