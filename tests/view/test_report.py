"""The report: one file, no network, no script, nothing of a user's text that could act."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest

from fleetcast.view import accuracy, plots, report

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Balance(HTMLParser):
    """Collects tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def page(scenario, ranking, outcome):
    return report.plan_report(scenario, ranking, outcome)


def test_report_is_whole_small_and_offline(page):
    parser = Balance()
    parser.feed(page)
    assert not parser.wrong and not parser.open
    assert len(page.encode()) < 1_000_000
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import", page), "nothing is loaded from anywhere"


def test_report_holds_every_part(page, ranking):
    for part in ("Why this plan", "The plans", "Latency", "Over time", "Where it goes", "Ranking",
                 "Rejected before simulation", "How far to trust this", "The question"):  # fmt: skip
        assert f"<h2>{part}</h2>" in page
    assert page.count("<svg") >= 8
    assert "weights per device" in page
    assert "prefers-color-scheme: dark" in page
    assert "tensor_parallel" in page, "the plan is echoed"


def test_report_without_a_plan_shows_the_nearest_misses(scenario, ranking):
    nothing = replace(ranking, plans=(), frontier=())
    page = report.plan_report(scenario, nothing, None)
    assert "No plan meets the SLO" in page
    assert "Nearest misses" in page
    assert "Furthest beyond its limit" in page


def test_report_says_which_layouts_are_too_slow(scenario, ranking, outcome):
    row = {
        "layout": "1x TP2", "devices": 2, "on": {"h100-sxm": 2}, "batch": {}, "metric": "ttft.p99", "value": 30.0,
        "limit": 2.0, "at_least": True, "tried": 0.25, "every_layout": True,
    }  # fmt: skip
    slow = report.plan_report(scenario, replace(ranking, missed=(row,)), outcome)
    assert "Too slow" in slow
    assert "TTFT p99 at least 30 s of 2 s" in slow
    assert "Too slow" not in report.plan_report(scenario, ranking, outcome)


def test_report_when_nothing_fits(scenario, ranking):
    counts = dict(ranking.counts) | {"memory_feasible": 0, "simulated": 0}
    nothing = replace(ranking, plans=(), frontier=(), misses=(), counts=counts)
    page = report.plan_report(scenario, nothing, None)
    assert "No plan fits on this fleet" in page
    assert "weights per device" in page


def test_users_text_cannot_act(scenario, ranking, outcome):
    hostile = msgspec.structs.replace(scenario, name='<script>alert("x")</script>')
    page = report.plan_report(hostile, ranking, outcome) + report.outcome_report(hostile, outcome)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_outcome_report_says_whether_the_slo_is_met(scenario, make):
    assert "meets the SLO" in report.outcome_report(scenario, make())
    assert "misses the SLO" in report.outcome_report(scenario, make(slow=3.0))


def test_same_input_same_bytes(scenario, ranking, outcome):
    assert report.plan_report(scenario, ranking, outcome) == report.plan_report(scenario, ranking, outcome)


def test_accuracy_rows_show_null_and_bar():
    record = {
        "claim": "mean TPOT error on 20 measured cases",
        "ours": {"value": 1.6, "unit": "%", "spread": None, "setting": ""},
        "null": {"value": 20.0, "what": "one constant speed"}, "bar": "at most 2 %", "holds": True, "skipped": None,
    }  # fmt: skip
    ((claim, ours, null, bar, held),) = accuracy.accuracy_rows([record])
    assert (ours, null, bar, held) == ("1.6%", "20% (one constant speed)", "at most 2%", "yes")
    assert claim.startswith("mean TPOT")


def test_packaged_records_can_be_shown():
    for row in accuracy.accuracy_rows(accuracy.forecast_errors()):
        assert all(isinstance(cell, str) and cell for cell in row)


def record(claim, setting=""):
    return {
        "claim": claim, "ours": {"value": 5.0, "unit": "%", "spread": None, "setting": setting},
        "null": {"value": None, "what": ""}, "bar": "at most 9 %", "holds": True, "skipped": None,
    }  # fmt: skip


RECORDS = [
    record("TPOT of vLLM rows"), record("TTFT of vLLM rows"), record("TPOT of TensorRT-LLM rows"),
    record("TPOT, least coverage", "vllm 8B h200-sxm"), record("TPOT, mean error", "70B on 8 H100-SXM"),
    record("Measured vLLM and TensorRT-LLM rows used"), record("TPOT beside aiconfigurator"), record("Plan chosen"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("engines", "devices", "metrics", "kept", "said"),
    [
        (["vllm"], ["h100-sxm"], {"ttft", "tpot"}, [0, 1, 4, 7], ""),
        (["vllm"], ["h100-sxm"], {"ttft"}, [1, 7], ""),
        (["vllm"], ["h200-sxm"], {"tpot"}, [0, 3, 7], ""),
        (["trtllm"], ["h100-sxm", "h200-sxm"], {"tpot"}, [2, 3, 4, 7], ""),
        (["sglang"], ["h100-sxm"], {"tpot"}, [0, 2, 4, 7], "No server run by SGLang was measured"),
        (["vllm"], ["a100-80g-sxm"], {"tpot"}, [0, 3, 4, 7], "No server with a100-80g-sxm was measured"),
        (["sglang"], ["l4", "h100-sxm"], {"ttft"}, [1, 7], "No server run by SGLang with l4 or h100-sxm was measured"),
    ],
)
def test_accuracy_is_of_this_plan_s_engine_devices_and_metrics(engines, devices, metrics, kept, said):
    found, gap = accuracy.concerning(RECORDS, engines, devices, metrics)
    assert [RECORDS.index(r) for r in found] == kept
    assert gap.startswith(said) and bool(gap) == bool(said)


def test_the_report_leaves_out_records_of_other_engines(page):
    trust = page.partition("<h2>How far to trust this</h2>")[2].partition("<h2>")[0]
    assert "vLLM" in trust and "TensorRT-LLM" not in trust and "aiconfigurator" not in trust


@pytest.mark.parametrize(
    ("text", "said"),
    [("86 ms", "86.0 ms"), ("1.1 kWh", "1.10 kWh"), ("513 ms", "513 ms"), ("2 s", "2.00 s"), ("0.27 s", "0.270 s"),
     ("$5.62", "$5.62"), ("1,166", "1,166"), ("–", "–"), ("8", "8"), ("0 s", "0 s")],
)  # fmt: skip
def test_columns_read_evenly(text, said):
    assert plots.three_digits(text) == said


def test_parts_of_an_energy_share_its_unit():
    assert plots.amount(1280.0, "J", 43_920.0) == "0.356 Wh"
    assert plots.amount(1280.0, "J", 3000.0) == "1.28 kJ"
    assert plots.amount(80_280.0, "J", 16.2e6) == "22.3 Wh"


def test_the_report_says_where_missing_plans_are(scenario, ranking, outcome):
    said = "not simulated to its end"
    alone = replace(ranking, misses=())
    assert said in report.plan_report(scenario, alone, outcome)
    assert said not in report.plan_report(scenario, ranking, outcome), "they are drawn"
    whole = replace(alone, counts=dict(ranking.counts) | {"bounded": 0})
    assert said not in report.plan_report(scenario, whole, outcome), "none was left out"
