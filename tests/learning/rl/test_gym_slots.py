"""The slot world as Gymnasium sees it."""

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="needs gymnasium")

from fleetcast.learning.rl.gym_slots import SlotWorld
from fleetcast.sim.cluster.slots import nodes_of


def test_rewards_of_an_episode_sum_to_its_jobs():
    env = SlotWorld(nodes_of(4), window=5, most=4)
    _, info = env.reset(seed=3)
    draw, total, over = np.random.default_rng(0), 0.0, False
    while not over:
        legal = np.flatnonzero(info["action_mask"])
        _, reward, over, _, info = env.step(int(draw.choice(legal)))
        total += reward
    assert total == pytest.approx(4.0)
    assert np.isfinite(info["completion"]).all()
    with pytest.raises(ValueError, match="reset"):
        env.step(0)


def test_gymnasium_finds_nothing_wrong():
    from gymnasium.utils.env_checker import check_env

    check_env(SlotWorld(nodes_of(4), window=5, most=4), skip_render_check=True)
