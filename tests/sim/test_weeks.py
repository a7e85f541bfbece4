"""A training scenario whose machines fail."""

from typing import Any

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import load
from fleetcast.sim.serving.setting import setting as serving
from fleetcast.sim.training.run import TERMS
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

FAILS = {"mtbf": "1000 h", "repair": "24 h", "detect": "10 min", "restart": "5 min", "spares": 8}


def table(failures: Any = FAILS, **plan: Any) -> dict[str, Any]:
    fleet = {"devices": "1024x a100-80g-sxm", "store": "100 GB/s"}
    return {
        "fleet": fleet | ({"failures": failures} if failures else {}),
        "workload": {
            "kind": "training", "model": "gpt3-175b", "sequence": 2048, "batch": 1536, "steps": 40_000,
        },
        "plan": {"tensor_parallel": 8, "pipeline_parallel": 8} | plan,
    }  # fmt: skip


def run(*args: Any, **plan: Any) -> Any:
    return simulate(setting(load(table(*args, **plan))))


def test_failures_lengthen_the_job_and_its_time_adds_up():
    metrics = run(recover="young_daly").metrics
    assert metrics["failures"] > 10
    assert 0 < metrics["effective"] < 1
    assert sum(metrics["spent"].values()) == pytest.approx(metrics["total_time"])
    assert set(metrics["spent"]) == set(TERMS)
    straggling = metrics["breakdown"]["straggler"]
    assert metrics["spent"]["useful"] == pytest.approx(40_000 * (metrics["iteration_time"] - straggling))


def test_policies_meet_the_same_failures_and_two_stages_are_best():
    found = {kind: run(recover=kind).metrics for kind in ("fixed", "young_daly", "two_stage")}
    assert found["two_stage"]["effective"] > found["young_daly"]["effective"] > found["fixed"]["effective"]
    assert found["two_stage"]["checkpoint_interval"] < found["young_daly"]["checkpoint_interval"]


def test_an_iteration_is_the_same_with_and_without_failures():
    plain = run(None).metrics
    assert "effective" not in plain
    failing = run(recover="two_stage").metrics
    assert {k: failing[k] for k in plain} == plain


def test_a_job_that_never_ends_is_refused_where_it_was_asked_for_and_noted_where_not():
    with pytest.raises(SpecError, match=r"plan\.recover.*never ends"):
        run(recover="none")
    assert any("never ends" in note for note in run().notes)


@pytest.mark.parametrize(
    ("failures", "plan", "path"),
    [
        (FAILS | {"shape": 0.01}, {}, "fleet.failures.shape"),
        (FAILS | {"spares": -1}, {}, "fleet.failures.spares"),
        (FAILS | {"detect": "soon"}, {}, "fleet.failures.detect"),
        (FAILS, {"recover": "yung_daly"}, "plan.recover.kind"),
        (FAILS, {"recover": {"kind": "fixed", "interval": "0 s"}}, "plan.recover.interval"),
        (FAILS, {"recover": {"kind": "decimal:Decimal"}}, "plan.recover.kind"),
    ],
)
def test_what_cannot_be_is_refused_by_name(failures: Any, plan: Any, path: str):
    with pytest.raises(SpecError) as error:
        run(failures, **plan)
    assert error.value.path == path


def test_a_store_out_of_range_is_refused():
    asked = table()
    asked["fleet"]["store"] = "1 B/s"
    with pytest.raises(SpecError, match=r"fleet\.store"):
        setting(load(asked))


def test_serving_refuses_what_training_alone_reads():
    asked = {
        "fleet": {"devices": "2x h100-sxm", "failures": {"mtbf": "200 h", "repair": "10 min", "spares": 2}},
        "workload": {"model": "llama-3.1-8b", "trace": "azure-code-2023", "requests": 50},
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"fleet\.failures\.spares"):
        serving(load(asked))


def test_weibull_failures_keep_their_mean():
    early = run(FAILS | {"shape": 0.7}, recover="two_stage").metrics["failures"]
    assert early > 10
