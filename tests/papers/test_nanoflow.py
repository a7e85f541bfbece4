"""Zhu et al., "NanoFlow", OSDI 2025, at the size of one iteration: Llama-2-70B on 8 A100, 2,048 tokens."""

import pytest

from fleetcast.cost.overlap.nano import layers_time, optimal
from fleetcast.cost.overlap.operators import Batch
from fleetcast.search.overlap import tune, whole_time
from tests.cost.overlap.ranks import rank

MIXED = Batch(2048.0, 1024.0, 1024 * 768.0, 2.0, 1024 * 256.0, 1024.0)
PREFILL = Batch(2048.0, 0.0, 0.0, 4.0, 2048 * 256.0, 2048.0)


def test_cutting_alone_loses_and_overlap_wins_it_back() -> None:
    """Figure 9: nano-batches alone lose 13 %."""
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    whole = whole_time(r, MIXED)
    alone = [1 - whole / (n * whole_time(r, MIXED.part(1 / n))) for n in (2, 4)]
    assert 0.03 < alone[0] < 0.132 < alone[1] < 0.20
    assert layers_time(r, tune(r, MIXED), [MIXED])[0] < whole


def test_hiding_the_network_gains_less_than_hiding_attention_too() -> None:
    """Figure 9: 1.07x where only prefill runs, 1.17x where decode attention is hidden as well."""
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    network, both = (whole_time(r, b) / layers_time(r, tune(r, b), [b])[0] for b in (PREFILL, MIXED))
    assert network == pytest.approx(1.07, abs=0.04)
    assert network < both < 1.20


def test_an_iteration_reaches_the_published_share_of_the_optimum() -> None:
    """50 to 72 % of FLOP/s / (2 x parameters); head, host and prefill queues left out here."""
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    share = 2048.0 / layers_time(r, tune(r, MIXED), [MIXED])[0] / 8 / optimal(r)
    assert 0.50 < share < 0.72
