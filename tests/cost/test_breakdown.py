"""A step split by resource, against the sums written out, and the laws that any split keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.breakdown import PLACEMENTS, TERMS, Job, Rates, breakdown, step_time, throughput
from fleetcast.scenario.load import load
from fleetcast.search.training.placements import search
from fleetcast.sim.training.counted import simulate

RATES = Rates(flops=11e12, memory=1e12, host_link=10e9, network=3.125e9, nvlink=50e9)
JOB = Job(flops=2e12, traffic=30e9, weights=1.5e9, input=20e6)
WEIGHTS = {
    "one": 0.0, "server": 1.5 / 7, "parameter-server": 1.5 / 2.1875 + 1.5 / 7, "all-reduce-local": 1.5 / 35,
    "all-reduce-cluster": 1.5 / 2.1875 + 1.5 / 35,
}  # fmt: skip


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_each_term_is_a_quotient(placement):
    terms = breakdown(JOB, RATES, PLACEMENTS.index(placement))
    assert tuple(terms) == TERMS
    assert float(terms["data"]) == pytest.approx(0.02 / 7)
    assert float(terms["compute"]) == pytest.approx(2 / 7.7)
    assert float(terms["memory"]) == pytest.approx(30 / 700)
    assert float(terms["weights"]) == pytest.approx(WEIGHTS[placement])


def test_a_speed_up_of_the_network_is_amdahls():
    """From 25 to 100 Gb/s a share w of the step shrinks to a quarter: 1 / (1 - 0.75 w); 1.7x needs w = 0.549."""
    code = PLACEMENTS.index("parameter-server")
    before = step_time(breakdown(JOB, RATES, code))
    faster = Rates(RATES.flops, RATES.memory, RATES.host_link, 12.5e9, RATES.nvlink)
    share = (1.5 / 2.1875) / float(before)
    assert float(before / step_time(breakdown(JOB, faster, code))) == pytest.approx(1 / (1 - 0.75 * share))
    assert pytest.approx(1.7, rel=1e-3) == 1 / (1 - 0.75 * 0.549)


positive = st.floats(1e-3, 1e3)


@given(positive, positive, positive, positive, st.integers(0, 4), st.integers(1, 8))
def test_overlap_takes_no_longer_and_no_less_than_a_third(flops, traffic, weights, data, placement, sharing):
    job = Job(flops * 1e12, traffic * 1e9, weights * 1e9, data * 1e6)
    terms = breakdown(job, RATES, placement, sharing)
    whole, hidden = float(step_time(terms)), float(step_time(terms, overlap=True))
    assert whole / 3 - 1e-12 <= hidden <= whole * (1 + 1e-12)
    assert min(float(term) for term in terms.values()) >= 0
    assert float(throughput(job, RATES, placement, 4, sharing)) == pytest.approx(4 / whole)


def test_columns_are_scalars_side_by_side():
    weights = np.array([0.5e9, 1.5e9, 4e9])
    columns = breakdown(Job(2e12, 30e9, weights, 20e6), RATES, np.array([1, 2, 4]))
    for i, (size, placement) in enumerate(zip(weights, (1, 2, 4), strict=True)):
        one = breakdown(Job(2e12, 30e9, size, 20e6), RATES, placement)
        assert [columns[name][i] for name in TERMS] == [float(one[name]) for name in TERMS]


def scenario(devices, plan="", features='flops = "2 TFLOP", traffic = "30 GB", weights = "1.5 GB", input = "20 MB"'):
    return load(
        f'[fleet]\ndevices = "{devices}"\n[workload]\nkind = "training"\nfeatures = {{ {features} }}\n[plan]\n{plan}\n'
    )


def test_a_scenario_with_features_is_simulated_and_ranked():
    found = simulate(scenario("16x v100-sxm2-32g", 'placement = "parameter-server"'))
    assert found.metrics["iteration_time"] == pytest.approx(sum(found.metrics["breakdown"].values()))
    ranking = search(scenario("8x v100-sxm2-32g"))
    assert ranking.plans[0].plan["placement"] == "all-reduce-local"
    times = [o.metrics["iteration_time"] for o in ranking.plans]
    assert times == sorted(times)
    assert simulate(scenario("1x v100-sxm2-32g")).metrics["breakdown"]["weights"] == 0


@pytest.mark.parametrize(("goal", "said"), [("energy", "time or cost"), ("carbon", "time or cost"), ("cost", "price")])
def test_an_objective_that_counts_say_nothing_of_is_refused(goal, said):
    """Of cost on a device that nobody rents; on one with a price it ranks as time does."""
    device = "mi250x-gcd" if goal == "cost" else "v100-sxm2-32g"
    table = scenario(f"8x {device}").table() | {"objective": {"minimize": goal}}
    with pytest.raises(SpecError, match=said) as caught:
        search(load(table))
    assert caught.value.path == "objective.minimize" and caught.value.hint
    priced = table | {"fleet": {"devices": "8x v100-sxm2-32g"}, "objective": {"minimize": "cost"}}
    assert search(load(priced)).plans[0].plan["placement"] == "all-reduce-local"


REFUSED = {
    "placement": (("8x v100-sxm2-32g", 'placement = "one"'), "plan.placement.*8 devices"),
    "word": (("8x v100-sxm2-32g", 'placement = "ring"'), "plan.placement.*unknown"),
    "layers": (("8x v100-sxm2-32g", "tensor_parallel = 2"), "plan.tensor_parallel.*layers"),
    "flops": (("8x v100-sxm2-32g", "", "traffic = 1"), "features.flops.*missing"),
    "unit": (("8x v100-sxm2-32g", "", 'flops = "2 GB"'), "features.flops"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_named(name):
    given, said = REFUSED[name]
    with pytest.raises(SpecError, match=said):
        simulate(scenario(*given))
