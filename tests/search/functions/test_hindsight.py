"""The bound of carbon routes: equal to the linear programme that it claims to be, and below every plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fleetcast.search.functions.hindsight import least_carbon


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_it_is_the_optimum_of_the_linear_programme(seed: int) -> None:
    random = np.random.default_rng(seed)
    zones, steps = 4, 5
    carbon, capacity = random.uniform(5, 600, (zones, steps)), random.uniform(1, 5, zones)
    held, joules = random.uniform(0, capacity.sum(), steps), random.uniform(1e3, 1e6, steps)
    # shares of each step's energy, f8[zones * steps]
    cost = (carbon * joules / 3.6e6).ravel()
    sums = np.tile(np.eye(steps), zones)
    limit = (capacity[:, None] / held).ravel()
    found = linprog(cost, A_eq=sums, b_eq=np.ones(steps), bounds=list(zip(np.zeros(zones * steps), limit, strict=True)))
    assert least_carbon(held, joules, carbon, capacity) == pytest.approx(found.fun, rel=1e-7)


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="are held"):
        least_carbon(np.array([9.0]), np.array([1.0]), np.ones((2, 1)), np.array([4.0, 4.0]))
