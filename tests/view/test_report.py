"""The report: one file, no network, no script, nothing of a user's text that could act."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest

from fleetcast.view import accuracy, report

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
    assert page.count("<svg") >= 9
    assert "weights per device" in page
    assert "prefers-color-scheme: dark" in page
    assert "tensor_parallel" in page, "the plan is echoed"


def test_report_without_a_plan_shows_the_nearest_misses(scenario, ranking):
    nothing = replace(ranking, plans=(), frontier=())
    page = report.plan_report(scenario, nothing, None)
    assert "No plan meets the SLO" in page
    assert "Nearest misses" in page
    assert "Furthest beyond its limit" in page


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
    assert (ours, null, bar, held) == ("1.6%", "20% (one constant speed)", "at most 2 %", "yes")
    assert claim.startswith("mean TPOT")


def test_packaged_records_can_be_shown():
    for row in accuracy.accuracy_rows(accuracy.forecast_errors()):
        assert all(isinstance(cell, str) and cell for cell in row)
