"""HELP's protocol: rank correlation on devices nobody measured, at small size; the full figures are in the evidence."""

import numpy as np
import pytest

from benchmarks import help_latency as bench


@pytest.fixture(scope="module")
def data(measured):
    folder = measured / "patterns" / "help"
    if not folder.is_dir():
        pytest.skip("HELP's latencies are absent")
    return bench.read(folder)


def test_the_split_is_help_s(data):
    assert len(bench.KNOWN) == 9 and len(bench.UNSEEN) == 6 and len(data.references) == 10
    assert not {*bench.KNOWN} & {*bench.VALID} | {*bench.VALID} & {*bench.UNSEEN} | {*bench.KNOWN} & {*bench.UNSEEN}
    asked = data.middle("fpga", bench.ASKED)
    assert len(asked) == 800 and not set(asked) & set(bench.TRAIN)


def test_ten_references_rank_unseen_devices_better_than_the_paper(data):
    known = bench.family(data)
    found = {d: bench.ask(data, known, d, data.references) for d in bench.UNSEEN}
    ranks = [bench.rank(forecast.mean, truth) for forecast, truth in found.values()]
    assert np.mean(ranks) >= 0.945 > max(bench.nulls(data).values())
    for device in bench.EXACT:
        assert bench.off(found[device][0].mean, found[device][1]) <= 0.03


@pytest.mark.parametrize("chosen", [True, False])
def test_ten_other_probes(data, chosen):
    known = bench.family(data)
    for probes in bench.draws(data, known, 3, chosen=chosen):
        assert set(probes) <= set(bench.TRAIN), "no probe is among what is asked for"
        ranks = [bench.rank(*_plain(bench.ask(data, known, d, probes))) for d in bench.UNSEEN]
        assert np.mean(ranks) >= (0.92 if chosen else 0.90)


def test_the_coarse_timer_does_not_explain_pixel2(data):
    ticks, rounded, best = bench.ceiling(data, "pixel2")
    assert ticks == 42 and rounded > 0.98 and best < 0.85


def _plain(answer):
    forecast, truth = answer
    return forecast.mean, truth
