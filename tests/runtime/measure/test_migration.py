"""A real process moved while it writes: the copy is what it had, and the formula knows what was sent."""

import pytest

from fleetcast.cost.migration import PAGE, Writes, migration
from fleetcast.runtime.measure.migration import move

PAGES = 2048


@pytest.mark.parametrize(("rate", "hot"), [(0.0, PAGES), (4000.0, PAGES), (8000.0, PAGES // 4)])
def test_a_moved_process_is_whole(rate: float, hot: int) -> None:
    found = move(PAGES, rate, hot, 60e6, stop=32, seed=2)
    assert found.equal
    assert found.taken.rounds[0] == PAGES * PAGE
    assert found.taken.sent == sum(found.taken.rounds)
    said = migration(PAGES * PAGE, (Writes(found.writes, hot),), 60e6, stop=32 * PAGE, overhead=found.overhead)
    # a loaded machine delays rounds; the bound here is loose on purpose, the benchmark's is not
    assert said.sent == pytest.approx(found.taken.sent, rel=0.35)
