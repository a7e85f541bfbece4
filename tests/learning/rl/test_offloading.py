"""Offloading: what a schedule costs, what agents see and are paid, the forward pass, the environment."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.graphs.offloading import Users, Weights, bill
from fleetcast.cost.graphs.platform import Platform
from fleetcast.learning.rl.apps import Apps
from fleetcast.policy.order.tasks import Board, ComDdpg, Dmda, Local, Random, com_ddpg
from fleetcast.policy.order.tasks.sight import Sight
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.sim.graph.world import play

INF = math.inf


def two_users() -> tuple[TaskGraph, Platform]:
    names = ["a0", "a1", "a2", "b0", "b1"]
    graph = TaskGraph.of(
        [Task(name=n, work=1) for n in names], [("a0", "a1", 8.0), ("a1", "a2", 4.0), ("b0", "b1", 2.0)], unit="s"
    )
    rows = {
        "phone a": [1.0, 4.0, 1.0, INF, INF], "phone b": [INF, INF, INF, 1.0, 3.0], "server": [INF, 1.0, INF, INF, 1.0]
    }  # fmt: skip
    return graph, Platform.of(rows, rate=8.0, idle=[1.0, 1.0, 50.0], busy=[3.0, 3.0, 90.0])


def test_users_are_those_with_a_task_that_only_they_can_run() -> None:
    graph, platform = two_users()
    users = Users.of(graph, platform)
    assert users.devices == (0, 1) and users.servers == (2,)
    assert users.owner.tolist() == [0, 0, 0, 1, 1]
    assert users.seconds.tolist() == [6.0, 4.0, 0.0]
    assert users.joules.tolist() == [12.0, 8.0, 0.0]
    assert users.load == 2.0


def test_a_bill_by_hand() -> None:
    graph, platform = two_users()
    users = Users.of(graph, platform)
    alone = bill(play(graph, platform, Local()), graph, platform, users, Weights())
    # from the end of the first task: 5 of 6 s and 3 of 4 s; all energy; servers idle
    assert alone.time == pytest.approx((5 / 6 + 3 / 4) / 2)
    assert (alone.energy, alone.balance) == (1.0, 0.0)
    out = bill(play(graph, platform, Dmda()), graph, platform, users, Weights())
    # a1: 1 s to the server, b1's data arrive first but a1 is asked for first; 1 s there, 0.5 s back, then a2
    joules_a, joules_b = (2 * 2.0 + 1.5) / 12.0, (1 * 2.0 + 0.25) / 8.0
    assert out.energy == pytest.approx((joules_a + joules_b) / 2)
    assert out.total == pytest.approx(0.5 * out.time + 0.3 * out.energy + 0.2 * out.balance)


def test_episodes_are_fixed() -> None:
    graph, platform = Apps().episode(7)
    assert len(platform) == 7
    assert (len(graph), graph.edges) == FROZEN[:2]
    assert float(graph.work.sum()) == pytest.approx(FROZEN[2])
    assert float(graph.size.sum()) == pytest.approx(FROZEN[3])


FROZEN = (44, 58, 39.73549834487744, 54342219.6488991)


@pytest.mark.parametrize("seed", range(6))
def test_what_decisions_add_sums_to_the_bill_where_no_messages_meet(seed: int) -> None:
    apps = Apps(users=1, servers=1, bytes=0.0, width=1, wait=0.0)
    graph, platform = apps.episode(seed)
    users, paid = Users.of(graph, platform), []

    class Counting(Dmda):
        def start(self, view: Board) -> None:
            self.sight = Sight(view, Weights())

        def push(self, task: int, view: Board) -> int | None:
            worker = super().push(task, view)
            assert worker is not None
            paid.append(self.sight.add(task, worker, view))
            return worker

    found = bill(play(graph, platform, Counting()), graph, platform, users, Weights())
    # what is left out is the time the first task's successors would take at best, which no decision adds
    assert sum(paid) <= found.total + 1e-9
    assert sum(paid) - found.total >= -Weights().time


def test_agents_see_numbers_around_one() -> None:
    seen = []

    class Looking(Random):
        def start(self, view: Board) -> None:
            super().start(view)
            self.sight = Sight(view, Weights())

        def push(self, task: int, view: Board) -> int | None:
            places, told = self.sight.see(task, view)
            seen.append(np.concatenate((places.ravel(), told)))
            return super().push(task, view)

    play(*Apps().episode(3), Looking())
    assert np.isfinite(seen).all() and np.abs(seen).max() < 60.0
    assert np.median(np.abs(seen)) < 3.0


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(0.0, 0.3, shape) for name, shape in com_ddpg.SHAPES.items()}


def scores(p: dict[str, np.ndarray], places: np.ndarray, tasks: np.ndarray, agent: int) -> np.ndarray:
    found: np.ndarray = com_ddpg.forward(p, places, tasks, np, com_ddpg.joined, lambda all_: all_[agent])
    return found


def test_what_one_agent_sees_changes_what_the_others_score_only_if_they_talk() -> None:
    draw, p = np.random.default_rng(1), weights()
    places, tasks = draw.normal(size=(3, 4, 5, com_ddpg.PLACES)), draw.normal(size=(3, 4, com_ddpg.TASK))
    mute = {name: value for name, value in p.items() if not name.startswith(("there", "back"))}
    other = places.copy()
    other[1] += 1.0
    for agent in (0, 2):  # one way and back
        assert np.abs(scores(p, other, tasks, agent) - scores(p, places, tasks, agent)).max() > 1e-6
        assert np.array_equal(scores(mute, other, tasks, agent), scores(mute, places, tasks, agent))
    assert scores(p, places, tasks, 0).shape == (5,)


def test_places_are_scored_alike_wherever_they_stand() -> None:
    draw, p = np.random.default_rng(2), weights()
    places, tasks = draw.normal(size=(2, 4, 5, com_ddpg.PLACES)), draw.normal(size=(2, 4, com_ddpg.TASK))
    order = [0, 3, 1, 4, 2]
    assert scores(p, places[:, :, order], tasks, 1) == pytest.approx(scores(p, places, tasks, 1)[order])


@pytest.mark.parametrize("apps", [Apps(), Apps(users=2, servers=5), Apps(users=1, servers=1)])
def test_the_shipped_agents_run_any_number_of_users_and_servers(apps: Apps) -> None:
    graph, platform = apps.episode(11)
    users = Users.of(graph, platform)
    ours, dice = (bill(play(graph, platform, p), graph, platform, users, Weights()) for p in (ComDdpg(), Random()))
    assert ours.total < dice.total


def test_weights_that_are_none_are_refused(tmp_path) -> None:
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 no weights")
    for name in ("no.npz", "absent.npz"):
        with pytest.raises(SpecError, match="cannot be read"):
            play(*Apps().episode(0), ComDdpg(weights=str(tmp_path / name)))
    np.savez(tmp_path / "other.npz", place=np.zeros((2, 2)))
    with pytest.raises(SpecError, match="has no 'place'"):
        play(*Apps().episode(0), ComDdpg(weights=str(tmp_path / "other.npz")))
    np.savez(tmp_path / "pickled.npz", place=np.array([{}], dtype=object))
    with pytest.raises(SpecError, match="cannot be read"):
        play(*Apps().episode(0), ComDdpg(weights=str(tmp_path / "pickled.npz")))


def test_the_environment_is_gymnasiums() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from gymnasium.utils.env_checker import check_env

    from fleetcast.learning.rl.gym import Offloading

    check_env(Offloading(), skip_render_check=True)


def test_rewards_of_an_episode_sum_to_minus_the_bill() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from fleetcast.learning.rl.gym import Offloading

    env, total = Offloading(), 0.0
    _, info = env.reset(seed=1, options={"episode": 5})
    while True:
        _, reward, done, _, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
        total += reward
        if done:
            break
    assert total == pytest.approx(-info["bill"].total)
    with pytest.raises(ValueError, match="after reset"):
        env.step(0)


def test_training_lowers_the_bill_and_both_forms_of_the_actor_agree() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fleetcast.learning.rl.com_ddpg import Settings, train

    apps = Apps(users=2, servers=2, tasks=(5, 8))
    made = train(apps, Settings(episodes=70, batch=32), seed=1)
    assert np.mean(made.curve[-15:]) < 0.85 * np.mean(made.curve[:15])
    draw = np.random.default_rng(0)
    places, tasks = draw.normal(size=(2, 4, 3, com_ddpg.PLACES)), draw.normal(size=(2, 4, com_ddpg.TASK))
    ours = scores(made.weights, places, tasks, 1)
    p = {name: torch.from_numpy(value) for name, value in made.weights.items()}
    both = (torch.from_numpy(places), torch.from_numpy(tasks))
    theirs = com_ddpg.forward(p, *both, torch, lambda parts: torch.cat(parts, -1), lambda all_: all_[1])
    assert theirs.numpy() == pytest.approx(ours, abs=1e-12)
