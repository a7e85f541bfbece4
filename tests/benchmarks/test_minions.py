"""How the engine's drafts are foretold: noted as the engine judges them, and split in an order that is fixed."""

import numpy as np
import pytest

from benchmarks.minions import LENGTH, OUTPUT, errors_of, note
from fleetcast.policy import speculate
from tests.runtime.llm.drafters import Noisy
from tests.runtime.llm.test_engine import POLICIES, engine

LONGEST = speculate.LONGEST


def fates(rates, requests, draw):
    """What becomes of requests whose drafts are right at these rates by position, as the engine counts it."""
    found = np.zeros((requests, 2 + 2 * LONGEST), np.int64)
    for row in found:
        left = OUTPUT - 1
        while left > 0:
            length = min(LENGTH, left - 1)
            misses = np.flatnonzero(draw.random(length) >= np.array(rates[:length]))
            right = int(misses[0]) if len(misses) else length
            row[:2] += 1, length > 0
            row[2 : 2 + min(right + 1, length)] += 1
            row[2 + LONGEST : 2 + LONGEST + right] += 1
            left -= right + 1
    return found


def test_what_is_drawn_is_foretold_by_position_and_not_by_one_rate_or_after_a_drift():
    draw = np.random.default_rng(3)
    rates = (0.5, 0.95, 0.95, 0.95, 0.95, 0.95)
    mixed = fates(rates, 4000, draw)
    error, scalar, profile = errors_of(mixed, np.arange(4000))
    assert abs(error) < 0.015
    assert scalar > 0.05
    np.testing.assert_allclose(profile.rates, rates, atol=0.02)
    drifted = np.concatenate([mixed[:2000], fates((0.3, *rates[1:]), 2000, draw)])
    assert errors_of(drifted, np.arange(4000))[0] > 0.1
    assert abs(errors_of(drifted, draw.permutation(4000))[0]) < 0.05


def test_fates_are_what_the_engine_counts():
    e = engine(POLICIES["chunked"], 40, speculate=speculate.Fixed(length=4), drafter=Noisy())
    made = np.zeros((3, 2 + 2 * LONGEST), np.int64)
    note(e.speculation, made)
    asked = [e.submit([i, 2], 20) for i in range(3)]
    e.run()
    s = e.speculation
    assert made[:, 0].sum() == s.calls
    assert made[:, 1].sum() == s.wanted
    np.testing.assert_array_equal(made[:, 2 : 2 + LONGEST].sum(axis=0), s.profile.judged)
    np.testing.assert_array_equal(made[:, 2 + LONGEST :].sum(axis=0), s.profile.right)
    for row, r in zip(made, asked, strict=True):
        assert row[0] + row[2 + LONGEST :].sum() == pytest.approx(r.emitted - 1)
