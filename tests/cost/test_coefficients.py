"""The coefficient files: complete, physical, in step with the catalogue, quick to load; and the solver behind them."""

import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fit.solve import error, fit, mean
from fleetcast.cost import roofline
from fleetcast.cost.attention import Decode, Prefill
from fleetcast.cost.energy import Draw
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.moe import Experts
from fleetcast.cost.roofline import RELATIVES, TWINS, Chip, Stream, coefficients_for, stream_time
from fleetcast.scenario.fleet.catalog import device, devices

FOLDER = Path(roofline.__file__).parent / "coefficients"
BY_ROW = ("all_reduce", "training")
"""Files whose rows are links or devices, each with a source of its own."""
FILES = sorted(
    p for p in FOLDER.glob("*.toml") if not p.name.endswith(".links.toml") and p.stem not in ("residuals", *BY_ROW)
)
KINDS = {
    "gemm": Gemm, "moe": Experts, "decode": Decode, "prefill": Prefill, "latent_decode": Decode,
    "latent_prefill": Prefill, "stream": Stream, "draw": Draw,
}  # fmt: skip
FRACTIONS = ("compute", "memory", "narrow", "pad", "wave", "spread", "efficiency", "busy")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_are_small_sourced_and_physical(path):
    assert path.stat().st_size < 8_000
    content = tomllib.loads(path.read_text())
    assert content["source"]
    for family, rows in content["tables"].items():
        assert 0 < content["spread"][family] < 2
        for row in rows.values():
            KINDS[family](**row)
            for name, value in row.items():
                assert value >= 0 and np.isfinite(value)
                assert family == "draw" or name not in FRACTIONS or value <= 1
            assert row.get("launch", 0.0) < 1e-3


@pytest.mark.parametrize("name", BY_ROW)
def test_rows_are_sourced_and_positive(name):
    path = FOLDER / f"{name}.toml"
    assert path.stat().st_size < 20_000
    for row, content in tomllib.loads(path.read_text()).items():
        assert content["source"], row
        numbers = [value for value in content.values() if isinstance(value, float | int)]
        assert all(value >= 0 and np.isfinite(value) for value in numbers), row


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_fractions_refer_to_the_catalogue(path):
    content = tomllib.loads(path.read_text())
    if "reference" not in content:
        return
    found = device(path.stem)
    assert content["reference"]["bandwidth"] == pytest.approx(found.bandwidth, rel=1e-3)
    assert content["reference"]["units"] == found.units
    assert content["reference"]["peak"] == pytest.approx(dict(found.peak), rel=1e-3)


@pytest.mark.parametrize("name", sorted(devices()))
def test_every_device_has_every_family(name):
    fitted = coefficients_for(device(name))
    assert set(fitted.provenance) == set(KINDS)
    for family, kind in KINDS.items():
        dtype = "any" if family in ("stream", "draw") else "bf16"
        assert isinstance(fitted.get(family, dtype, kind), kind)


def test_provenance_says_who_stood_in():
    kinds = {
        name: coefficients_for(device(name)).provenance["gemm"].kind
        for name in ("h100-sxm", "h100-pcie", "l4", "mi300x", "raspberry-pi-5")
    }
    assert kinds == {
        "h100-sxm": "measured", "h100-pcie": "twin", "l4": "architecture", "mi300x": "relative",
        "raspberry-pi-5": "generic",
    }  # fmt: skip
    a40 = coefficients_for(device("a40")).provenance
    assert (a40["gemm"].kind, a40["gemm"].origin) == ("measured", "a40")
    assert (a40["decode"].kind, a40["decode"].origin) == ("architecture", "ampere")
    strange = coefficients_for(Chip("mine", "unheard-of", 1e12, 10, {"fp16": 1e13}))
    assert {p.kind for p in strange.provenance.values()} == {"generic"}


def test_a_stand_in_is_less_certain_than_a_measurement():
    def spread(name):
        return coefficients_for(device(name)).provenance["gemm"].spread

    assert spread("h100-sxm") < spread("h100-pcie") < spread("raspberry-pi-5")


def test_stand_ins_exist():
    names = {p.stem for p in FILES}
    assert set(TWINS.values()) <= names
    assert {n for chain in RELATIVES.values() for n in chain} <= names
    assert {d.architecture for d in devices().values()} & set(RELATIVES)


def test_a_format_without_table_takes_the_nearest_and_no_path_gets_in():
    fitted = coefficients_for(device("a100-80g-sxm"))
    assert fitted.get("gemm", "int4", Gemm) == fitted.get("gemm", "bf16", Gemm)
    with pytest.raises(KeyError, match="no draw coefficients for bf16"):
        roofline.Coefficients("x", {}, {"draw": {}}).get("draw", "bf16", Draw)
    with pytest.raises(KeyError):
        fitted.get("nonsense", "bf16", Gemm)


def test_loading_is_quick():
    roofline._known.cache_clear()
    roofline._load.cache_clear()
    start = time.process_time()
    coefficients_for(device("h100-sxm"))
    assert time.process_time() - start < 0.1  # 5 ms on an idle core


def test_element_wise_kernels_are_a_launch_and_a_pass():
    chip = Chip("chip", "none", 1e12, 1, {})
    got = stream_time([0.0, 1e9], chip, Stream(launch=2e-6, memory=0.5))
    assert got.tolist() == pytest.approx([2e-6, 2e-6 + 2e-3])


def test_the_solver_recovers_what_it_is_given():
    size = np.geomspace(1e3, 1e9, 200)
    chip = Chip("chip", "none", 1e12, 1, {})
    true = Stream(launch=3e-6, memory=0.6)
    noise = np.exp(np.random.default_rng(7).normal(0, 0.02, size.size))
    measured = stream_time(size, chip, true) * noise
    ranges = {"launch": (1e-7, 1e-5, 1e-4), "memory": (0.05, 0.9, 1.0)}
    found = fit(lambda x: stream_time(size, chip, Stream(**x)), ranges, measured)
    assert found == pytest.approx({"launch": 3e-6, "memory": 0.6}, rel=0.02)
    record = error(stream_time(size, chip, Stream(**found)), measured)
    assert record["n"] == 200 and record["median"] < 0.03 and abs(record["bias"]) < 0.01


def test_means_are_geometric_and_keep_integers():
    assert mean([{"a": 1.0, "b": 2}, {"a": 4.0, "b": 4}]) == {"a": 2.0, "b": 3}
    assert mean([{"a": 0.0}, {"a": 0.4}]) == {"a": 0.2}
