"""What people read: numbers, names, reasons."""

from dataclasses import replace

import pytest

from fleetcast.view import words
from fleetcast.view.missed import too_slow


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (0.0413, "tpot.p99", "41.3 ms"),
        (1234.5, "throughput", "1,234 tokens/s"),
        (5.617, "per_million_output_tokens.cost", "$5.62"),
        (0.0123, "cost", "$0.012"),
        (3.6e6, "energy", "1 kWh"),
        (9.0e6, "per_million_output_tokens.energy", "2.5 kWh"),
        (2410.0, "carbon", "2.41 kg"),
        (284.0, "per_million_output_tokens.carbon", "284 g"),
        (0.134, "mfu", "13.4%"),
    ],
)
def test_numbers_have_the_unit_people_use(value, path, text):
    assert words.number(value, path) == text


def test_metric_shows_half_the_interval(outcome):
    assert words.metric(outcome, "ttft.p99").endswith(" ±20%")
    assert "±" not in words.metric(outcome, "throughput")
    assert words.metric(outcome, "nothing.here") == "–"
    value = outcome.metrics["cost"]
    sure = replace(outcome, intervals={"cost": (value * 0.999, value * 1.001)})
    assert "±" not in words.metric(sure, "cost"), "half a percent is not shown as nothing"


def test_unknown_cost_is_a_dash(outcome):
    metrics = dict(outcome.metrics) | {"cost": float("nan")}
    assert words.metric(replace(outcome, metrics=metrics), "cost") == "–"


def test_names_of_plans_and_policies(outcome):
    assert words.plan_name(outcome.plan) == "2x TP4"
    assert words.policy_name(outcome.plan) == "chunked 2048, batch 256"
    assert words.policy_brief(outcome.plan) == "chunked 2048/256"
    assert words.precision_name({"dtype": "fp8", "kv_dtype": "bf16"}) == "fp8, cache bf16"
    two = {"pools": [{"dtype": "fp8", "kv_dtype": "auto"}, {"dtype": "bf16", "kv_dtype": "bf16"}]}
    assert words.precision_name(two) == "fp8 + bf16"


def test_why_names_the_next_layout_and_the_cheaper_one_that_misses(make, scenario):
    best, next_one = make(replicas=1, tensor_parallel=4), make(replicas=2, tensor_parallel=4)
    cheap = make(replicas=1, tensor_parallel=2, slow=3.0)
    said = words.why(best, [best, next_one, cheap], scenario.objective)
    assert said[0] == "The next layout, 2x TP4, has 100% more cost."
    assert said[1].startswith("1x TP2 (chunked 2048, batch 256) has ")
    assert "less cost but misses the SLO: TPOT p99" in said[1]
    assert said[2].startswith("Closest to its limit: TPOT p99")


def test_binding_says_what_is_beyond_its_limit(make):
    missed = make(slow=3.0)
    assert words.binding(missed)[0].startswith("Furthest beyond its limit: TPOT p99")


def test_needs_are_told_apart_from_divisors():
    assert words.need({"need": 141e9, "have": 80e9, "unit": "B"}) == "141 GB of 80 GB"
    assert words.need({"need": 3, "have": 64, "unit": ""}) == "3 does not divide 64"
    assert words.need({"need": 16, "have": 8, "unit": ""}) == "16 of 8"
    assert words.need({"need": 14089, "have": 11504, "unit": "tokens"}) == "14,089 of 11,504 tokens"


def test_question_says_fleet_limits_and_goal(scenario):
    text = words.question(scenario)
    assert text == (
        "quickstart: llama-3.1-70b under azure-conv-2023 on 8x h100-sxm, "
        "TTFT p99 within 2 s and TPOT p99 within 50 ms; least cost."
    )
    assert "least cost" not in words.question(scenario, goals=False)
    assert "h100" not in words.question(scenario, fleet=False)


def missed_row(layout, devices, value, *, every=True, on="h100-sxm", at_least=True):
    return {"layout": layout, "devices": devices, "on": {on: devices}, "metric": "ttft.p99", "value": value,
            "limit": 2.0, "at_least": at_least, "every_layout": every}  # fmt: skip


def test_too_slow_is_a_row_for_each_number_of_devices():
    missed = [
        missed_row("1x TP1", 1, 40.0), missed_row("2x TP1", 2, 9.0, at_least=False), missed_row("1x TP2", 2, 8.0),
        missed_row("3x TP1", 3, 2.5, every=False),
    ]  # fmt: skip
    assert too_slow(missed) == [
        ("1 device", "1x TP1", "TTFT p99 at least 40 s of 2 s"),
        ("2 devices", "2x TP1 and 1 more", "TTFT p99 9 s of 2 s"),
    ]
    assert too_slow([]) == []


def test_too_slow_folds_what_is_furthest_from_the_slo():
    missed = [missed_row(f"{n}x TP1", n, 200.0 / n) for n in range(1, 31)]
    rows = too_slow(missed, most=4)
    assert [row[0] for row in rows] == ["28 devices", "29 devices", "30 devices", "1 to 27 devices"]
    assert rows[-1][1:] == ("27x TP1 and 26 more", "TTFT p99 at least 7.41 s of 2 s")
