"""The fastest of interleaved readings, on a clock that only calls advance."""

import pytest

from fleetcast.runtime.measure.timing import LEAST, fastest
from fleetcast.runtime.measure.worker import speed_up


class Bench:
    """A clock, and calls that take what they are told to."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def clock(self):
        return self.now

    def call(self, name, seconds):
        turns = iter(range(10**9))

        def run():
            self.order.append(name)
            self.now += seconds(next(turns)) if callable(seconds) else seconds

        return run


def test_the_least_reading_counts():
    bench = Bench()
    # Two runs before the first reading; then an untimed and a timed run per round.
    slow_but_once = bench.call("a", lambda turn: 1.0 if turn == 9 else 3.0)
    assert fastest([slow_but_once], 5, clock=bench.clock).tolist() == [1.0]


def test_rounds_go_over_all_calls_before_they_come_back():
    bench = Bench()
    fastest([bench.call("a", 1.0), bench.call("b", 1.0)], 3, clock=bench.clock)
    assert "".join(bench.order) == "aabb" + "aabb" * 3


def test_short_calls_are_repeated_within_a_reading():
    bench = Bench()
    found = fastest([bench.call("a", LEAST / 10)], 2, clock=bench.clock)
    assert found[0] == pytest.approx(LEAST / 10)
    assert len(bench.order) in (2 + 2 * (1 + 9), 2 + 2 * (1 + 10))


def test_progress_counts_rounds():
    bench, seen = Bench(), []
    fastest([bench.call("a", 1.0)], 3, clock=bench.clock, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        fastest([], 0)


def test_speed_up_stays_between_one_and_the_number_of_threads():
    def nothing():
        return None

    assert speed_up([nothing], 2) == 1.0
    assert 1.0 <= speed_up([nothing] * 3, 2) <= 3.0
