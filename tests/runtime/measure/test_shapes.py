"""Rates of products: as many as asked, positive, and more work a second for products that are not tiny."""

from benchmarks.sizing import INPUTS, cases
from fleetcast.runtime.measure.shapes import rates


def test_rates_of_products():
    found = rates([(1, 8, 8), (256, 256, 256)], 3)
    assert found.shape == (2,) and found[1] > found[0] > 0


def test_cases_are_advised_sizes_beside_naive_ones():
    import tomllib

    table = cases(tomllib.loads(INPUTS.read_text()), "small", True)
    assert table == cases(tomllib.loads(INPUTS.read_text()), "small", True)
    for (rows, advised, k), beside in table:
        assert advised % 16 == 0 and len(beside) == 3
        assert all(n % 16 and m == rows and same == k for m, n, same in beside)
