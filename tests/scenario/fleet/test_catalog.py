"""The catalogue: every row is sourced and sane, every usual spelling finds its row."""

import csv
import gzip

import pytest

from benchmarks.records import data_root
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.fleet import catalog

DEVICES = list(catalog.devices().values())
LINKS = list(catalog.links().values())
# A format with half the bits multiplies at least as fast, where the silicon has both.
FASTER = [
    ("fp32", "tf32"), ("tf32", "bf16"), ("fp32", "fp16"), ("bf16", "fp8"), ("int8", "int4"),
    ("fp8", "nvfp4"),
]  # fmt: skip


def ids(rows):
    return [row.id for row in rows]


def test_the_issue_s_devices_are_there():
    wanted = """v100-pcie-16g v100-sxm2-32g a100-40g-sxm a100-80g-sxm a100-40g-pcie a100-80g-pcie
    a40 l4 l40s rtx-4090 rtx-3090 rtx-a6000 rtx-pro-6000-server h100-sxm h100-pcie h200-sxm b200-sxm
    b300-sxm gb200 gb300 mi300x tpu-v5e tpu-v6e gaudi-3 b60 m2-ultra m4-max snapdragon-8-gen-3
    a17-pro snapdragon-865 jetson-agx-orin xeon-8480 epyc-9654 raspberry-pi-5"""
    assert set(wanted.split()) <= set(ids(DEVICES))


@pytest.mark.parametrize("device", DEVICES, ids=ids(DEVICES))
def test_device_is_sane_and_sourced(device):
    assert len(device.source) > 15 and any(year in device.source for year in map(str, range(2015, 2027)))
    assert device.measured and device.power.source
    assert 4e9 <= device.memory <= 1.1e12
    assert 1e10 <= device.bandwidth <= 1e13
    assert device.memory / device.bandwidth < 2, "reads its whole memory within two seconds"
    assert 0 < device.power.idle < device.power.max <= 1500
    assert device.power.idle <= 0.5 * device.power.max
    assert 5e8 <= device.clock <= 5e9 and device.units >= 1 and device.node >= 1
    assert 1e6 <= device.l2 <= 4e8
    for slow, fast in FASTER:
        if slow in device.peak and fast in device.peak and device.id not in ("gaudi-3", "l40s"):
            assert device.peak[fast] >= device.peak[slow], (slow, fast)
    assert all(1e11 <= rate <= 2e16 for rate in device.peak.values())
    ridge = max(device.peak.values()) / device.bandwidth
    assert 5 <= ridge <= 3000, "FLOP per byte at the roof's corner"


@pytest.mark.parametrize("device", DEVICES, ids=ids(DEVICES))
def test_device_names_links_and_curves_of_the_catalogue(device):
    inside, outside = catalog.link(device.link), catalog.link(device.network)
    assert {inside.id, outside.id, device.host_link} <= set(catalog.links())
    if device.node > 1:
        assert inside.bandwidth >= outside.bandwidth or inside.kind == "pcie"
        assert inside.latency <= outside.latency
    if device.power.curve:
        curve = catalog.curves()[device.power.curve]
        assert curve.points[-1].clock >= 0.99 * device.clock


@pytest.mark.parametrize("device", DEVICES, ids=ids(DEVICES))
def test_price_has_source_and_date(device):
    assert (device.price is None) == (device.price_source == "") == (device.price_date == "")
    if device.price is not None:
        assert 0.05 < device.price < 20


@pytest.mark.parametrize("link", LINKS, ids=ids(LINKS))
def test_link_is_sane_and_sourced(link):
    assert len(link.source) > 10
    assert 1e6 <= link.bandwidth <= 1e12
    assert 1e-8 <= link.latency <= 0.1


def test_faster_generations_are_faster():
    order = "nvlink-2 nvlink-3 nvlink-4 nvlink-5", "pcie-3 pcie-4 pcie-5", "wifi-5 wifi-6"
    for line in order:
        speeds = [catalog.link(name).bandwidth for name in line.split()]
        assert speeds == sorted(speeds) and len(set(speeds)) == len(speeds)
    assert catalog.link("infiniband-ndr").bandwidth == 2 * catalog.link("infiniband-hdr").bandwidth


@pytest.mark.parametrize("rows", [DEVICES, LINKS], ids=["devices", "links"])
def test_no_name_means_two_rows(rows):
    keys = [(catalog._key(name), row.id) for row in rows for name in {row.id, *row.aliases}]
    owner = {}
    for key, id_ in keys:
        assert owner.setdefault(key, id_) == id_, f"{key} is {owner[key]} and {id_}"


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("h100_sxm", "h100-sxm"), ("H100-SXM", "h100-sxm"), ("h100-sxm-80gb", "h100-sxm"),
        ("h100", "h100-sxm"), ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("H100-SXM-80GB", "h100-sxm"),
        ("h100 sxm5", "h100-sxm"), ("a100-80g", "a100-80g-sxm"), ("a100-80gb", "a100-80g-sxm"),
        ("a100_sxm", "a100-80g-sxm"), ("a100_pcie", "a100-80g-pcie"), ("a30", "a30"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g-sxm"), ("b200_sxm", "b200-sxm"),
        ("b300_sxm", "b300-sxm"), ("gb200", "gb200"), ("gb300", "gb300"),
        ("h100_pcie", "h100-pcie"), ("h200_sxm", "h200-sxm"),
        ("H200-SXM-141GB", "h200-sxm"), ("l4", "l4"), ("l40s", "l40s"), ("b60", "b60"),
        ("rtx_pro_6000_server", "rtx-pro-6000-server"), ("RTXPRO6000", "rtx-pro-6000-server"),
        ("RTX4090", "rtx-4090"), ("RTX3090", "rtx-3090"), ("A6000", "rtx-a6000"),
        ("V100-PCIE-16GB", "v100-pcie-16g"), ("TPU-v6e-1", "tpu-v6e"), ("mi300x", "mi300x"),
    ],
)  # fmt: skip
def test_usual_spellings(name, id_):
    assert catalog.device(name).id == id_


def test_every_system_of_the_silicon_rows_is_known():
    root = data_root()
    if root is None or not (root / "serving" / "silicon_dev.csv.gz").exists():
        pytest.skip("measured data is absent")
    with gzip.open(root / "serving" / "silicon_dev.csv.gz", "rt") as lines:
        systems = {row["system"] for row in csv.DictReader(lines)}
    assert {catalog.device(system).id for system in systems} == {"h100-sxm", "h200-sxm"}


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(SpecError) as caught:
        catalog.device("h10-sxm", "fleet.devices")
    assert str(caught.value).startswith("fleet.devices: is not a device")
    assert "'h10-sxm'" in str(caught.value) and "Did you mean 'h100-sxm'?" in str(caught.value)
    with pytest.raises(SpecError, match="Did you mean 'infiniband-ndr'"):
        catalog.link("infiniband-nrd")
    with pytest.raises(SpecError, match="fleetcast catalog devices"):
        catalog.device("")


def test_peak_of_a_format_that_the_silicon_lacks_is_refused():
    assert catalog.device("h100").rate("fp8") == pytest.approx(1978.9e12)
    with pytest.raises(Unsupported, match="does not multiply fp8"):
        catalog.device("a100").rate("fp8")


@pytest.mark.parametrize("curve", catalog.curves().values(), ids=list(catalog.curves()))
def test_clock_curves_rise_to_one(curve):
    for key in ("clock", "power", "rate"):
        column = [getattr(point, key) for point in curve.points]
        assert column == sorted(column) and column[0] > 0
    assert curve.points[-1].power == curve.points[-1].rate == 1.0
    assert len(curve.source) > 50
    # Slowing down saves more power than speed: that is why anyone does it.
    assert all(point.power <= point.rate for point in curve.points)


def test_clock_curve_between_and_beyond_its_points():
    curve = catalog.curves()["a100-sxm"]
    low, high = curve.points[3:5]
    middle = curve.at((low.clock + high.clock) / 2)
    assert middle.power == pytest.approx((low.power + high.power) / 2)
    assert curve.at(1e8) == curve.points[0] and curve.at(9e9) == curve.points[-1]
    assert curve.at(low.clock) == low
