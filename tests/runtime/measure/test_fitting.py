"""What iterations consist of is told apart exactly where times follow the form, and forecast for models held out."""

import itertools

import numpy as np
import pytest

from fleetcast.cost.gemm import Gemm, gemm_time
from fleetcast.cost.roofline import Chip
from fleetcast.runtime.measure.engine_profile import case_of, corrected, engine_profile, products_time, sizes_of
from fleetcast.runtime.measure.fitting import ACTIVATIONS, CACHE, HOST, KNOTS, fit, forecast, hats, held_out, in_place
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.passes import LOADS, MODELS, Timed
from fleetcast.runtime.measure.products import KEPT, ROWS, SHAPES, Products, gemm_coefficients

CHIP = Chip("made-up", "cpu", 20e9, 2, {"fp32": 2e11, "bf16": 8e11})
MACHINE = Machine(name="Made-up CPU", vendor="none", cores=2, memory=16e9, own=1e6, last=16e6, clock=3e9)
TRUE = {
    "step": 3e-4, "seq": 2e-5, "token": 1e-6, "launch": 2e-5, "stream": 2e-10, "logit": 1e-9, "decode": 2e-5,
    "each": 3e-6, "read": 1e-10, "multiply": 5e-11, "piece": 5e-5, "pair": 1e-11, "passed": 5e-10,
}  # fmt: skip
LAUNCH, CACHED = 5e-6, {2e6: 1e-5, 4e6: 1e-5, 16e6: 5e-5, 32e6: 9e-5, 64e6: 1e-4}


def per_weight(m, weight, warm=False):
    """s per weight of a made-up library: reading, then multiplying."""
    return weight / 20e9 * (0.4 if warm else 1.0) + 1e-12 * weight * m + (4e-11 if m == 3 else 0.0)


def said(noise=0.0, scale=1.0, seed=0, call=0.0):
    """What the worker would say of a machine whose truth is known.

    ``scale``: products in place over those alone; ``call``: s more in place of each product of more than eight rows.
    """
    random = np.random.default_rng(seed)

    def seen(value):
        return float(value * (1.0 + noise * abs(random.standard_normal())))

    products = {}
    for name, weight in (("fp32", 4.0), ("bf16", 2.0)):
        cold = [[seen(LAUNCH + n * k * per_weight(m, weight)) for m in ROWS] for n, k in SHAPES]
        warm = [seen(LAUNCH + KEPT[0] * KEPT[1] * per_weight(m, weight, warm=True)) for m in ROWS]
        products[name] = {
            "weight": weight, "shapes": [list(s) for s in SHAPES], "rows": list(ROWS), "cold": cold, "warm": warm,
            "tiny": [LAUNCH + 1024 * per_weight(m, weight) for m in ROWS], "noise": 0.02,
        }  # fmt: skip
    cases = []
    for (name, weight), (model, config) in itertools.product((("fp32", 4.0), ("bf16", 2.0)), MODELS.items()):
        size = sizes_of(config)
        found, _ = gemm_coefficients(table(products[name]), weight, 20e9, CACHED)
        rows = []
        for load in LOADS[model]:
            timed = Timed(load.decodes, load.decodes * (load.context + 3), load.piece, load.cached,
                          load.decodes + bool(load.piece), 0.0)  # fmt: skip
            whole, fixed, more = products_time(size, [timed], name, CHIP, Gemm(**found))
            case = case_of(row_of(model, name, config, [as_table(timed)]), CHIP, {name: found})
            seconds = (
                scale * whole.sum() + fixed[0] + call * more[0] + sum(TRUE[part] * case.parts[part][0] for part in TRUE)
            )
            rows.append(as_table(timed) | {"seconds": seen(seconds)})
        cases.append(row_of(model, name, config, rows))
    return {
        "threads": 2, "streams": {"2": {"read": [20e9, 19e9], "copy": [18e9, 17e9]}}, "alone": {},
        "cached": [[k, v] for k, v in CACHED.items()], "products": products, "cases": cases,
    }  # fmt: skip


def row_of(model, name, config, timed):
    return {"model": model, "form": name, "dtype": name, "kv_dtype": name, "config": dict(config), "timed": timed}


def table(row):
    shapes = [tuple(s) for s in row["shapes"]]
    return Products(shapes, row["rows"], np.array(row["cold"]), np.array(row["warm"]), np.array(row["tiny"]))


def as_table(timed):
    return {name: getattr(timed, name) for name in Timed.__dataclass_fields__}


def cases_of(words):
    gemm = {n: gemm_coefficients(table(r), r["weight"], 20e9, CACHED)[0] for n, r in words["products"].items()}
    return [case_of(row, CHIP, gemm) for row in words["cases"]]


def test_products_are_exact_at_the_rows_that_were_measured():
    row = said()["products"]["fp32"]
    found, left = gemm_coefficients(table(row), 4.0, 20e9, CACHED)
    assert left < 0.01 and found["calls"] == pytest.approx([LAUNCH] * len(ROWS))
    times = gemm_time(ROWS, 3072, 1024, "fp32", CHIP, Gemm(**found))
    assert times == pytest.approx([LAUNCH + 3072 * 1024 * per_weight(m, 4.0) for m in ROWS], rel=0.01)
    warm = gemm_time(ROWS, 3072, 1024, "fp32", CHIP, Gemm(**found), resident=1.0)
    assert warm == pytest.approx([LAUNCH + 3072 * 1024 * per_weight(m, 4.0, warm=True) for m in ROWS], rel=0.02)


def test_what_the_cache_holds_falls_with_the_bytes_that_take_turns():
    found, _ = gemm_coefficients(table(said()["products"]["fp32"]), 4.0, 20e9, CACHED)
    c = Gemm(**found)
    shares = [c.resident(size) for size in (1e6, 2e6, 10e6, 16e6, 40e6, 64e6, 1e9)]
    assert shares[:2] == [1.0, 1.0] and shares[-2:] == [0.0, 0.0] and shares == sorted(shares, reverse=True)
    assert c.resident(16e6) == pytest.approx(5 / 9)
    flat, _ = gemm_coefficients(table(said()["products"]["fp32"]), 4.0, 20e9, dict.fromkeys(CACHED, 1e-4))
    assert not any(flat["held"]), "no cache to speak of: all weights come from memory"


def test_coefficients_come_back_where_times_follow_the_form():
    found = fit(cases_of(said()))
    for name in HOST:
        assert found["host"][name] == pytest.approx(TRUE[name], rel=1e-6, abs=1e-12)
    for dtype in ("fp32", "bf16"):
        for whose, names in ((dtype, ACTIVATIONS), (f"kv {dtype}", CACHE)):
            assert [found[whose][name] for name in names] == pytest.approx([TRUE[name] for name in names], rel=1e-6)
    assert list(found["products fp32"].values()) == pytest.approx([1.0] * len(KNOTS))
    assert found["calls fp32"]["more"] == pytest.approx(0.0, abs=1e-9)


def test_products_that_take_longer_in_place_are_noticed():
    words = said(scale=1.2)
    found = fit(cases_of(words))
    assert list(found["products fp32"].values()) == pytest.approx([1.2] * len(KNOTS), rel=0.08)
    row, _ = gemm_coefficients(table(words["products"]["fp32"]), 4.0, 20e9, CACHED)
    assert corrected(row, "fp32", found)["passes"] == pytest.approx(1.2 * np.array(row["passes"]), rel=0.08)
    assert in_place(found, "int4", np.array([1.0, 99.0])).tolist() == [1.0, 1.0], "what was not timed stays as it was"


def test_calls_that_take_longer_in_place_are_noticed():
    found = fit(cases_of(said(call=3e-5)))
    assert found["calls bf16"]["more"] == pytest.approx(3e-5, rel=1e-6)
    row, _ = gemm_coefficients(table(said()["products"]["bf16"]), 2.0, 20e9, CACHED)
    calls = corrected(row, "bf16", found)["calls"]
    assert calls[ROWS.index(8)] == pytest.approx(LAUNCH) and calls[ROWS.index(9)] == pytest.approx(LAUNCH + 3e-5)


def test_noise_of_a_twentieth_leaves_forecasts_of_models_held_out_within_a_tenth():
    cases = cases_of(said(noise=0.05))
    for errors in held_out(cases).values():
        assert np.median(np.abs(np.expm1(errors))) < 0.10
    found = fit(cases)
    assert all(np.median(np.abs(forecast(case, found) / case.seconds - 1.0)) < 0.06 for case in cases)


def test_hats_share_a_row_between_its_knots():
    found = hats(np.array([1.0, 2.0, 4.0, 1000.0]))
    assert found.sum(axis=1) == pytest.approx(np.ones(4))
    assert found[0].tolist() == [1, 0, 0, 0, 0] and found[1] == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert found[3].tolist() == [0, 0, 0, 0, 1]


def test_the_profile_forecasts_as_the_fit_does(tmp_path):
    """A model that nothing was fitted on, through the file and `cost.step`, against the made-up machine's truth."""
    from benchmarks.engine_forecast import MODELS as OTHERS
    from benchmarks.engine_forecast import cost_of, group_of
    from benchmarks.engine_forecast import forecast as through_step
    from fleetcast.scenario.fleet.spec import parse_devices

    words = said()
    profile = engine_profile(MACHINE, words)
    (tmp_path / "profile.toml").write_text(profile.toml())
    ((_, device),) = parse_devices("1x profile.toml", base=tmp_path)
    assert device.fitted is not None and device.fitted.host["fleetcast"]["seq"] == pytest.approx(2e-5, rel=1e-3)
    assert max(max(pair) for pair in profile.errors.values()) < 1e-6
    for config in OTHERS.values():
        done = [Timed(3, 300, 0, 0, 3, 0.0), Timed(20, 900, 0, 0, 20, 0.0), Timed(0, 0, 100, 50, 1, 0.0),
                Timed(5, 200, 60, 0, 6, 0.0)]  # fmt: skip
        row = row_of("x", "fp32", config, [as_table(t) for t in done])
        case = case_of(row, CHIP, {"fp32": gemm_coefficients(table(words["products"]["fp32"]), 4.0, 20e9, CACHED)[0]})
        truth = case.products.sum(axis=1) + case.fixed + sum(TRUE[part] * case.parts[part] for part in TRUE)
        assert through_step(cost_of(config, "fp32", group_of(profile)), done) == pytest.approx(truth, rel=0.01)
