"""Links that `fleetcast measure collectives` timed, named in fleets."""

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.base.spec import dump_toml
from fleetcast.cost.collectives import fabric_for
from fleetcast.runtime.measure.collectives import SIZES, Collectives, curve
from fleetcast.runtime.measure.machine import Machine
from fleetcast.scenario.fleet.catalog import link
from fleetcast.view.outputs import rebased

MACHINE = Machine(name="Made-up CPU", vendor="none", cores=4, memory=64e9, own=1e6, last=32e6, clock=3e9)


def measured(latency=1e-3, rate=2e9):
    """A link on which everything takes ``latency`` and moves at ``rate``."""
    rows = [{"size": s, "best": latency + s / rate, "median": 1.1 * (latency + s / rate)} for s in SIZES]
    names = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "send")
    return Collectives(MACHINE, tuple(curve(name, n, rows) for n in (2, 4) for name in names), {}, 0.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "links.toml"
    path.write_text(measured().toml())
    return path


def scenario(network, devices="2x h100-sxm"):
    return {
        "fleet": {"groups": [{"name": "all", "devices": devices, "link": network}]},
        "workload": {
            "model": "llama-3.2-1b", "arrivals": {"kind": "closed", "concurrency": 1, "requests": 5},
            "lengths": {"kind": "fixed", "prompt": 64, "output": 16},
        },
        "plan": {
            "replicas": 1, "tensor_parallel": 2, "pipeline_parallel": 1, "engine": "ideal", "dtype": "bf16",
            "batch": {"kind": "prefill_first", "max_batch": 1, "max_tokens": 4096},
        },
    }  # fmt: skip


def test_collectives_take_what_was_measured(file):
    found = link("links.toml", base=file.parent)
    assert found.id == "made-up-4-cores-gloo" and found.kind == "cpu" and found.latency == pytest.approx(1e-3, rel=1e-3)
    from msgspec import structs

    from fleetcast.cost.collectives import collective_time

    fabric = fabric_for("h100-sxm", found.kind, found.bandwidth, own=structs.asdict(found.fitted))
    size = np.array([1024.0, 3000.0, 1e6])
    for operation in ("all_reduce", "all_gather", "reduce_scatter", "send"):
        assert collective_time(operation, size, 2, fabric) == pytest.approx(1e-3 + size / 2e9, rel=0.02)


def test_a_plan_on_the_link_waits_for_it(file, tmp_path):
    """16 passes of llama-3.2-1b: 33 all-reduces and one gather each, of 1 ms where it was measured so."""
    slow = fleetcast.simulate(scenario(str(file))).metrics["e2e"]["mean"]
    (tmp_path / "fast.toml").write_text(measured(latency=1e-5).toml())
    fast = fleetcast.simulate(scenario(str(tmp_path / "fast.toml"))).metrics["e2e"]["mean"]
    assert slow - fast == pytest.approx(16 * 34 * (1e-3 - 1e-5), rel=0.02)


def test_plans_written_elsewhere_still_find_the_link(file, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(dump_toml(scenario("links.toml")))
    moved = rebased(fleetcast.load(path), tmp_path / "out")
    assert moved.fleet.groups[0].link == "../links.toml"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "is no link"),
        (lambda text: text.replace("[collectives]", "[other]").replace("[collectives.", "[other."), "is no link"),
        (lambda text: text.replace('2 = [', '2 = [ 1.0,', 1), "is no curve"),
        (lambda text: text.replace("4 = [", "four = [", 1), "is no curve"),
        (None, "is not there"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(file, change, says):
    if change is None:
        file.unlink()
    else:
        file.write_text(change(file.read_text()))
    with pytest.raises(SpecError, match=says):
        fleetcast.simulate(scenario(str(file)))
