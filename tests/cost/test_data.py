"""What moving data takes: closed forms against a walk through round trips, and laws that any network keeps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost import data as cost
from fleetcast.cost.data import INITIAL, Host, Path

PATHS = st.builds(
    Path, st.floats(1e5, 1e10), st.floats(1e-4, 0.5), st.floats(INITIAL, 1e9)
)  # fmt: skip
SIZES = st.floats(1.0, 1e11)


def walked(size: float, path: Path) -> float:
    """Seconds from the first byte to the last, round trip by round trip: the oracle of `Path.flow`."""
    window, sent, time = INITIAL, 0.0, 0.0
    steady = path.rate()
    while window < steady * path.rtt * (1 - 1e-12):
        if sent + window >= size:
            return time + (size - sent) / path.bandwidth
        sent, time, window = sent + window, time + path.rtt, 2 * window
    return time + (size - sent) / steady


@given(SIZES, PATHS)
def test_a_flow_is_that_of_its_round_trips(size, path):
    assert path.flow(size) == pytest.approx(walked(size, path), rel=1e-6, abs=1e-9)


@given(SIZES, PATHS, st.integers(1, 64))
def test_no_flow_is_faster_than_the_path_or_slower_with_more_connections(size, path, streams):
    assert path.flow(size, streams) >= size / path.bandwidth * (1 - 1e-9)
    assert path.flow(size, streams, warm=True) <= path.flow(size, streams) * (1 + 1e-9)
    assert path.rate(streams) <= min(path.bandwidth, streams * path.rate(1)) * (1 + 1e-9)
    assert path.flow(size, 2 * streams) <= path.flow(size, streams) * (1 + 1e-9) + path.rtt


@given(PATHS, st.integers(1, 64))
def test_stripes_gain_as_many_times_as_there_are_until_the_path_is_full(path, streams):
    want = min(streams, max(1.0, path.bandwidth * path.rtt / path.window))
    assert cost.stripes(path, streams) == pytest.approx(want)


def test_stripes_in_words():
    path = Path(bandwidth=125e6, rtt=0.05, window=1e6)  # one connection carries 20 MB/s
    assert cost.stripes(path, 4) == pytest.approx(4.0)
    assert cost.stripes(path, 64) == pytest.approx(6.25)
    assert cost.stripes(Path(125e6, 0.001, 1e6), 8) == pytest.approx(1.0)


@given(SIZES, PATHS, st.integers(1, 16))
def test_a_copy_takes_no_less_than_its_bytes_and_its_round_trips(size, path, streams):
    found = cost.copied(size, path, streams=streams)
    assert found.wire >= 4 * path.rtt + size / path.bandwidth * (1 - 1e-9)
    assert found.size == size and found.requests == 1 + max(1, math.ceil(size / (8 << 20)))


@given(SIZES, PATHS, st.floats(0, 1), st.floats(0, 1))
def test_reading_more_takes_longer_and_opening_needs_one_block(size, path, a, b):
    low, high = sorted((a, b))
    times = [cost.mounted(size, path, share=share).wire for share in (0.0, low, high, 1.0)]
    assert times == sorted(times)
    assert cost.mounted(size, path).size == min(size, 1 << 20)


@given(SIZES, PATHS, PATHS, PATHS, st.floats(1.1, 20))
def test_the_largest_share_is_the_largest(size, into, out, path, gain):
    share = cost.largest_share(size, into, out, path, gain)
    limit = cost.staged(size, into, out).seconds() / gain
    if share < 0:
        assert cost.mounted(size, path).seconds() > limit
    else:
        assert cost.mounted(size, path, share=share).seconds() <= limit * (1 + 1e-9)
        if share < 1:
            assert cost.mounted(size, path, share=min(1.0, share * 1.001 + 1e-9)).seconds() >= limit * (1 - 1e-6) or (
                share * size < 1 << 20
            )


@given(st.floats(0, 0.1), st.floats(0, 0.5), st.floats(0, 1e-7))
def test_a_fit_finds_the_host_that_made_the_times(request, file, byte):
    path, host = Path(4e7, 0.02, 262_144), Host(request, file, byte)
    terms = [cost.copied(size * 1e6, path, chunk=1e6) for size in (1, 2, 5, 10, 30)]
    terms += [cost.mounted(size * 1e6, path, share=0.3) for size in (1, 3, 20)]
    found = cost.fit(terms, [t.seconds(host) for t in terms])
    assert [t.seconds(found) for t in terms] == pytest.approx([t.seconds(host) for t in terms], rel=1e-6)
    assert min(found.request, found.file, found.byte) >= 0


def test_staging_is_a_copy_and_a_push():
    a, b = Path(1e8, 0.01, 1e6), Path(5e7, 0.03, 1e6)
    found = cost.staged(1e8, a, b)
    assert found.wire == pytest.approx(cost.copied(1e8, a).wire + cost.pushed(1e8, b).wire)
    assert found.files == 2 and found.size == 2e8
