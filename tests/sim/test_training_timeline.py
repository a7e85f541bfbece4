"""The record of a pipeline: it ends when the forecast does, and its stages do what the schedule says."""

import numpy as np
import pytest

from fleetcast.scenario.load import load
from fleetcast.sim.training.completing import complete
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.timeline import MOST, WHATS, timeline
from fleetcast.sim.training.world import simulate

GPT = {"layers": 24, "hidden": 2048, "heads": 16}


def recorded(plan, batch=128):
    workload = {"kind": "training", "model": GPT, "batch": batch}
    state = setting(load({"fleet": {"devices": "64x a100-80g-sxm"}, "workload": workload, "plan": plan}))
    made = complete(state, state.scenario.plan).plan
    return timeline(state, made), simulate(state, made)


PLANS = {
    "1f1b": {"pipeline_parallel": 4}, "gpipe": {"pipeline_parallel": 4, "schedule": "gpipe"},
    "interleaved": {"pipeline_parallel": 4, "interleave": 2},
    "zero-bubble": {"pipeline_parallel": 4, "schedule": "zero-bubble"},
    "dualpipe": {"pipeline_parallel": 4, "schedule": "dualpipe"},
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_the_record_ends_with_the_forecast_and_every_pass_is_in_it(name):
    log, outcome = recorded(PLANS[name])
    assert float((log.time + log.duration).max()) == pytest.approx(outcome.metrics["iteration_time"], rel=1e-9)
    assert log.resources == tuple(f"stage {i}" for i in range(4))
    micro, pieces = outcome.metrics["micro_batches"], outcome.plan["interleave"]
    counts = np.bincount(log.what, minlength=len(WHATS))
    both = counts[3]
    assert counts[0] + both == micro * 4 * pieces == counts[1] + both, "each stage runs each micro-batch both ways"
    assert counts[4] == 4 and (log.duration > 0).all() and (log.level >= 0).all() and 0.7 < log.level.max() <= 1.0


@pytest.mark.parametrize("name", PLANS)
def test_a_stage_does_one_thing_at_a_time(name):
    log, _ = recorded(PLANS[name])
    for stage in range(4):
        mine = log.resource == stage
        order = np.argsort(log.time[mine], kind="stable")
        start, end = log.time[mine][order], (log.time + log.duration)[mine][order]
        assert (start[1:] >= end[:-1] - 1e-12).all()


def test_gpipe_holds_every_micro_batch_and_1f1b_as_many_as_stages():
    piped, _ = recorded(PLANS["gpipe"])
    first = piped.resource == 0
    kinds = piped.what[first][:-1]
    assert list(kinds) == sorted(kinds), "all forward passes, then all backward ones"
    plain, _ = recorded(PLANS["1f1b"])
    ahead = np.cumsum(np.where(plain.what == 0, 1, np.where(plain.what == 1, -1, 0))[plain.resource == 0])
    assert ahead.max() == 4


def test_there_is_no_record_of_one_stage_or_of_too_many_passes():
    assert recorded({"tensor_parallel": 4})[0] is None
    assert MOST < 4096 * 8
    assert recorded({"pipeline_parallel": 8, "tensor_parallel": 8}, batch=4096)[0] is None
