"""What a live migration sends: closed forms, a page-by-page Monte Carlo, and its limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.migration import PAGE, Writes, geometric, migration

M = 4096 * PAGE


def test_an_idle_task_is_sent_once() -> None:
    found = migration(M, (), 1e8)
    assert found.sent == M
    assert found.rounds == (M, 0.0)
    assert found.downtime == 0.0


def test_few_writes_over_much_memory_are_the_geometric_series() -> None:
    """Where hardly a page is written twice both say the same."""
    writes = (Writes(1000.0, 1e9),)
    assert migration(M, writes, 1e8, most=30).sent == pytest.approx(geometric(M, writes, 1e8), rel=1e-4)


def test_traffic_stays_finite_where_the_series_does_not() -> None:
    """Writes faster than the link: no more than the hot pages travel again each round."""
    writes = (Writes(1e6, 400.0),)
    found = migration(M, writes, 1e8)
    assert geometric(M, writes, 1e8) > 1e3 * M
    assert found.sent <= M + 400 * PAGE * len(found.rounds)
    assert found.downtime == pytest.approx(400 * PAGE / 1e8, rel=1e-3)


def test_dirty_pages_are_those_of_a_monte_carlo() -> None:
    """Distinct pages among n draws from W."""
    random = np.random.default_rng(1)
    pages, rate, seconds = 500, 300.0, 2.0
    drawn = [len(np.unique(random.integers(0, pages, random.poisson(rate * seconds)))) for _ in range(400)]
    assert Writes(rate, pages).dirty(seconds) == pytest.approx(float(np.mean(drawn)), rel=0.01)


@given(st.floats(0, 1e5), st.floats(1, 4096), st.floats(1e6, 1e10), st.floats(0, 1e6))
def test_conservation(rate: float, pages: float, bandwidth: float, stop: float) -> None:
    """Rounds add up, time is bytes over bandwidth, each round but the first sends at most what is hot."""
    found = migration(M, (Writes(rate, pages),), bandwidth, stop=stop)
    assert found.sent == pytest.approx(math.fsum(found.rounds))
    assert found.seconds == pytest.approx(found.sent / bandwidth)
    assert all(sent <= pages * PAGE * (1 + 1e-9) for sent in found.rounds[1:])
    assert len(found.rounds) <= 30


def test_more_writes_never_send_less_in_a_given_number_of_rounds() -> None:
    sent = [migration(M, (Writes(rate, 2000),), 1e8, most=4).sent for rate in (0, 10, 100, 1000, 4000)]
    assert sent == sorted(sent)


@pytest.mark.parametrize(("memory", "bandwidth"), [(-1.0, 1e8), (1.0, 0.0)])
def test_nonsense_is_refused(memory: float, bandwidth: float) -> None:
    with pytest.raises(ValueError, match="is none"):
        migration(memory, (), bandwidth)
