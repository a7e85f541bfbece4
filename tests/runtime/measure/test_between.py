"""What messages add between products: the sum of its parts, and a run of two processes."""

import pytest

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.measure import between
from fleetcast.runtime.measure.between import MESSAGES, SIZES, added, measure_between


def test_a_step_adds_its_sums_the_ids_and_two_gathers() -> None:
    known = {"sum": {0: 1e-4, 10_000: 3e-4}, "ids": {0: 1e-3, 1000: 2e-3}, "numbers": {0: 0.0, 1000: 1e-2}}
    found = added(known, sums=8, size=5000, batch=10)
    assert found == pytest.approx(8 * 2e-4 + (1e-3 + 40e-6) + 80e-5 + 40e-5)
    # beyond the largest that was measured, as that
    assert added(known, sums=1, size=99_999, batch=0) == pytest.approx(3e-4 + 1e-3)


def test_two_processes_send_everything_at_every_size(monkeypatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    found = measure_between()
    assert {message: tuple(sizes) for message, sizes in found.items()} == dict.fromkeys(MESSAGES, SIZES)
    assert all(seconds >= 0 for sizes in found.values() for seconds in sizes.values())
    assert sum(found["sum"].values()) > 0
    monkeypatch.setattr(between, "WORKER", ("-c", "import sys; sys.exit('no wire')"))
    with pytest.raises(Unsupported, match="ended with status 1"):
        measure_between()
