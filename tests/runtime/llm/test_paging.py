"""Cache blocks are either free or held once."""

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible
from fleetcast.runtime.llm.paging import BLOCK, Blocks, blocks_of


def test_blocks_hold_all_their_tokens_and_no_more():
    assert [blocks_of(n) for n in (0, 1, BLOCK, BLOCK + 1, 10 * BLOCK)] == [0, 1, 1, 2, 10]


@pytest.mark.parametrize("seed", range(5))
def test_random_takes_and_gives_conserve_the_pool(seed):
    draw, pool, held = np.random.default_rng(seed), Blocks(50), []
    for _ in range(500):
        if held and draw.random() < 0.5:
            pool.give(held.pop(int(draw.integers(len(held)))))
        elif (n := int(draw.integers(0, 12))) <= pool.free:
            held.append(pool.take(n))
        else:
            with pytest.raises(Infeasible, match=f"needs {n} blocks, have {pool.free}"):
                pool.take(n)
        out = [block for blocks in held for block in blocks]
        assert len(out) == len(set(out)) == pool.used == 50 - pool.free
        assert set(out) <= set(range(50))


@pytest.mark.parametrize(
    ("wrong", "said"), [([3], "not held"), ([0, 0], "twice"), ([0, 4], "not held"), ([-1], "held")]
)
def test_what_is_not_held_cannot_be_given_and_nothing_is(wrong, said):
    pool = Blocks(4)
    taken = pool.take(2)
    assert taken == [0, 1]
    with pytest.raises(ValueError, match=said):
        pool.give(wrong)
    assert pool.used == 2
    pool.give(taken)
    with pytest.raises(ValueError, match="not held"):
        pool.give(taken)
    assert pool.free == 4
