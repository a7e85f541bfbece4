"""The page of a search of training plans: whole, offline, and its figures against what the outcomes say."""

import itertools
import re

import pytest

import fleetcast
from fleetcast.base.record import Record
from fleetcast.scenario.training_plan import read_training_plan
from fleetcast.search.training.frontier import frontier
from fleetcast.view import cli, worlds
from fleetcast.view.training import figures, report
from tests.view.test_report import Balance

TABLE = {
    "fleet": {"devices": "16x a100-80g-sxm"},
    "workload": {"kind": "training", "model": "llama-2-13b", "sequence": 2048, "batch": 32},
    "plan": {"context_parallel": 1, "pipeline_parallel": [1, 2, 4], "micro_batch": 1},
}
UNLIKE = TABLE | {"fleet": {"devices": "16x a100-80g-sxm + 8x h100-sxm"}, "plan": {"data_parallel": [4, 8]}}


def made(table):
    scenario = fleetcast.load(table)
    ranking = fleetcast.plan(scenario)
    state = worlds.training.setting(scenario)
    chosen = scenario.with_plan(read_training_plan(dict(ranking.best.plan)))
    return scenario, ranking, frontier(state, 4), worlds.training.timeline(chosen)


@pytest.fixture(scope="module", params=[TABLE, UNLIKE], ids=["like", "unlike"])
def found(request):
    return made(request.param)


def test_the_page_is_whole_small_and_offline(found):
    page = report.plan_report(*found)
    parser = Balance()
    parser.feed(page)
    assert not parser.wrong and not parser.open
    assert len(page.encode()) < 1_000_000 and "<script" not in page
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import", page)
    for part in ("Why this plan", "Time against memory", "Where it goes", "Ranking", "The space",
                 "How far to trust this", "Taken as given", "The question"):  # fmt: skip
        assert f"<h2>{part}</h2>" in page
    assert "Memory of the fullest device" in page and "tensor_parallel" in page


def test_the_frontier_is_of_best_plans_within_ever_more_memory(found):
    _, ranking, lean, _ = found
    rooms = [one.metrics["memory"] for one in lean]
    times = [one.metrics["iteration_time"] for one in lean]
    assert rooms == sorted(rooms) and times == sorted(times, reverse=True) and len(set(times)) == len(times)
    assert times[-1] == ranking.best.metrics["iteration_time"]
    for one in ranking.plans:  # no ranked plan beats the line at its own budget
        full = one.provenance["memory"]
        budget = next(step / 4 * full for step in range(1, 5) if one.metrics["memory"] <= step / 4 * full)
        within = [t for t, room in zip(times, rooms, strict=True) if room <= budget]
        assert min(within) <= one.metrics["iteration_time"] * (1 + 1e-12)
    info = figures.frontier_info(ranking, lean)
    assert next(p for p in info.points if p.state == "best").y == times[-1]
    assert info.x_limit == ranking.best.provenance["memory"]


def test_wholes_are_the_iteration_the_memory_and_the_energy(found):
    best = found[1].best
    time, memory, energy = figures.wholes(best)
    assert time.total == pytest.approx(best.metrics["iteration_time"])
    assert memory.total == pytest.approx(best.provenance["memory"])
    assert sum(p.value for p in memory.parts if not p.rest) == pytest.approx(best.metrics["memory"])
    assert energy.total == pytest.approx(best.metrics["energy"])
    for whole in (time, memory, energy):
        assert sum(p.share for p in whole.parts) == pytest.approx(1.0)


def test_a_stage_works_on_one_pass_at_a_time_until_the_iteration_ends():
    scenario = fleetcast.load(UNLIKE)
    for plan in ({"tensor_parallel": 2, "pipeline_parallel": 3}, {"tensor_parallel": 1, "pipeline_parallel": 6}):
        chosen = scenario.with_plan(read_training_plan(plan | {"micro_batch": 1}))
        outcome, log = fleetcast.simulate(chosen), worlds.training.timeline(chosen)
        info = figures.pipeline_info(log)
        assert len(info.lanes) == plan["pipeline_parallel"] and not info.left_out
        assert info.end == pytest.approx(outcome.metrics["iteration_time"])
        micro = outcome.metrics["micro_batches"]
        for lane in range(len(info.lanes)):
            spans = sorted((a, b) for stage, _, _, a, b in info.spans if stage == lane)
            assert all(before[1] <= after[0] + 1e-12 for before, after in itertools.pairwise(spans))
            assert len(spans) == 2 * micro + 1
        drawn = figures.draw_pipeline(info)
        assert drawn.count('class="part') == len(info.spans) + 3  # and the key


def test_of_a_long_pipeline_the_beginning_is_shown():
    scenario = fleetcast.load(UNLIKE)
    chosen = scenario.with_plan(read_training_plan({"tensor_parallel": 2, "pipeline_parallel": 3}))
    log = worlds.training.timeline(chosen)
    info = figures.pipeline_info(log, 20)
    assert len(info.spans) == 20 and info.left_out == len(log) - 20
    assert figures.pipeline_info(None) is None and isinstance(log, Record)


def test_where_nothing_fits_the_page_says_what_the_nearest_lacks():
    table = TABLE | {"workload": TABLE["workload"] | {"model": "megatron-1t"}, "plan": {"offload": []}}
    scenario = fleetcast.load(table)
    ranking = fleetcast.plan(scenario)
    page = report.plan_report(scenario, ranking)
    assert "No plan fits" in page and "What the nearest lacks" in page and "<h2>Rejected</h2>" in page
    assert "does not fit" in page and "the plan needs" in page


def test_a_name_cannot_act():
    scenario, ranking, lean, log = made(TABLE | {"name": "<script>alert(1)</script>"})
    assert "<script" not in report.plan_report(scenario, ranking, lean, log)


@pytest.mark.parametrize("name", ["training-clusters", "training-counted", "training-levels"])
def test_the_command_writes_the_page(name, tmp_path, capsys):
    file = tmp_path / "page.html"
    assert cli.main(["plan", name, "--report", str(file)]) == 0
    page = file.read_text()
    assert "<h2>Ranking</h2>" in page and "<h2>The space</h2>" in page
    assert "page.html" in capsys.readouterr().out.replace("\n", "")  # a long path is folded
