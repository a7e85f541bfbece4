"""Trains Com-DDPG: actors that tell each other what they see, and one critic that sees all.

Deep deterministic policy gradient (Lillicrap et al., 2016) with a central critic (MADDPG: Lowe et al., 2017); actors
are `policy.order.tasks.com_ddpg`. An action is a share of each place, the softmax of scores, and the greatest is taken;
exploring adds Gumbel noise. The critic is linear in the action. A step is one decision of one agent; its reward is what
the decision adds to the bill, negative, and the last step settles what messages that met others took longer. Targets
look a few steps ahead and follow slowly. Part of what is explored is shown by the rule that takes the cheapest place.
``talk=False`` and ``central=False`` are the ablations: no messages between agents, and a critic that sees its own agent
alone (independent learners).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.base.files import write_atomic
from fleetcast.base.rng import rng
from fleetcast.cost.graphs.offloading import Users, Weights, bill
from fleetcast.learning.rl.apps import Apps
from fleetcast.policy.order.tasks.com_ddpg import SHAPES, ComDdpg, forward
from fleetcast.policy.order.tasks.sight import ADDS, PLACES, TASK
from fleetcast.policy.order.tasks.view import View
from fleetcast.sim.graph.world import play

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

TALK = ("there", "there_in", "there_bias", "back", "back_in", "back_bias")
_HIDDEN = 128
_PER_DECISION = 40.0
"""Rewards are told to the critic so many times over: a bill is shared by about as many decisions."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        episodes: graphs played.
        talk: agents tell each other what they see.
        central: the critic sees all agents.
        per_decision: updates per decision.
        batch: steps of an update.
        ahead: steps whose rewards are added up before the critic is asked.
        discount: of a step.
        actor_rate: of Adam.
        critic_rate: of Adam.
        follow: share by which targets move towards what they follow.
        explore: share of decisions at the start that are not the agent's; it falls to none.
        shown: share of these that take the place that adds least to the bill, the rest are random.
        entropy: weight of the spread of the actor's choices.
        keep: steps kept to learn from.
    """

    episodes: int = 400
    talk: bool = True
    central: bool = True
    per_decision: float = 0.3
    batch: int = 64
    ahead: int = 5
    discount: float = 0.97
    actor_rate: float = 5e-4
    critic_rate: float = 1e-3
    follow: float = 0.01
    explore: float = 0.5
    shown: float = 0.5
    entropy: float = 0.01
    keep: int = 20_000


@dataclass
class Trained:
    """What training made.

    Attributes:
        weights: of the actor.
        curve: bill of every episode played, exploration included.
        seconds: CPU time.
    """

    weights: dict[str, Any]
    curve: list[float]
    seconds: float

    def save(self, path: Path) -> None:
        """Writes the weights as an .npz file."""
        held = BytesIO()
        np.savez(held, **{name: value.astype(np.float32) for name, value in self.weights.items()})
        write_atomic(path, held.getvalue())


class Explorer(ComDdpg):
    """The policy as it learns: noise on its scores, and every decision written down."""

    def __init__(self, weights: dict[str, Any], draw: np.random.Generator, explore: float, shown: float) -> None:
        super().__init__()
        self._given, self._draw, self._explore, self._shown = weights, draw, explore, shown
        self.steps: list[tuple[Any, ...]] = []

    def start(self, view: View) -> None:
        """Begins a graph."""
        super().start(view)
        self.steps = []
        places = 1 + len(self._sight.users.servers)
        self._last = np.zeros((len(self._sight.agent), places), np.float32)

    def push(self, task: int, view: View) -> int | None:
        """Returns a place, and writes down what was seen, chosen and paid."""
        where = self._sight.places(task)
        able = np.array([view.runs(task, place) for place in where])
        chosen = self.pick(task, able, view)
        agent = self._sight.agent[where[0]]
        cost = self._sight.add(task, where[chosen], view)
        before = self._last.copy()
        self._last[agent] = np.eye(len(where), dtype=np.float32)[chosen]
        self.steps.append(
            (self._places.astype(np.float32), self._tasks.astype(np.float32), agent, able, before, chosen, -cost)
        )
        return where[chosen]

    def pick(self, task: int, able: Any, view: View) -> int:
        """Returns a place by scores with Gumbel noise, or any."""
        scores = self.scores(task, view)
        if self._draw.random() < self._explore:
            if self._draw.random() < self._shown:
                adds = self._places[self._sight.agent[self._sight.places(task)[0]], -1, :, ADDS]
                return int(np.argmin(np.where(able, adds, np.inf)))
            return int(self._draw.choice(np.flatnonzero(able)))
        noise = -np.log(-np.log(self._draw.uniform(1e-9, 1.0, len(scores)))) if self._explore else 0.0
        return int(np.argmax(np.where(able, scores + noise, -np.inf)))


@dataclass
class _Memory:
    """Steps of whole episodes, oldest dropped."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, steps: list[tuple[Any, ...]], settings: Settings) -> None:
        rewards = [_PER_DECISION * step[-1] for step in steps]
        for i, step in enumerate(steps):
            until = min(i + settings.ahead, len(steps))
            worth = sum(settings.discount**k * reward for k, reward in enumerate(rewards[i:until]))
            then = steps[until] if until < len(steps) else None
            after = then or step
            self.rows.append((*step[:6], worth, *after[:5], 0.0 if then is None else settings.discount ** (until - i)))
        del self.rows[: max(0, len(self.rows) - settings.keep)]

    def draw(self, draw: np.random.Generator, count: int) -> list[Any]:
        picked = [self.rows[i] for i in draw.integers(0, len(self.rows), count)]
        return [torch.from_numpy(np.stack([np.asarray(row[k]) for row in picked])) for k in range(len(picked[0]))]


class _Learner:
    def __init__(self, settings: Settings, apps: Apps, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings, self.places = settings, 1 + apps.servers
        names = [name for name in SHAPES if settings.talk or name not in TALK]
        self.actor = {name: _initial(name) for name in names}
        self.actor_target = {name: value.detach().clone() for name, value in self.actor.items()}
        agents = apps.users if settings.central else 1
        self.critic, self.critic_target = (_Critic(self.places, agents) for _ in range(2))
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.moves_actor = torch.optim.Adam(list(self.actor.values()), settings.actor_rate)
        self.moves_critic = torch.optim.Adam(self.critic.parameters(), settings.critic_rate)

    def scores(self, p: dict[str, Any], places: Any, tasks: Any, agent: Any, able: Any) -> Any:
        rows = torch.arange(len(agent))
        own = forward(p, places, tasks, torch, lambda parts: torch.cat(parts, -1), lambda all_: all_[rows, agent])
        return torch.where(able, own, torch.full_like(own, -1e9))

    def value(self, critic: Any, places: Any, tasks: Any, agent: Any, last: Any, action: Any) -> Any:
        count = places.shape[1] if self.settings.central else 1
        # the agent that decides first, then the others in turn
        turned = (agent[:, None] + torch.arange(count)) % places.shape[1]
        rows = torch.arange(len(agent))[:, None]
        now, task, done = places[:, :, -1][rows, turned], tasks[:, :, -1][rows, turned], last[rows, turned]
        return (critic(now, task, done) * action).sum(-1)

    def update(self, batch: list[Any]) -> None:
        places, tasks, agent, able, last, chosen, worth, places2, tasks2, agent2, able2, last2, discount = batch
        agent, agent2 = agent.long(), agent2.long()
        worth, discount = worth.float(), discount.float()
        with torch.no_grad():
            best = self.scores(self.actor_target, places2, tasks2, agent2, able2).argmax(-1)
            then = torch.nn.functional.one_hot(best, self.places).float()
            target = worth + discount * self.value(self.critic_target, places2, tasks2, agent2, last2, then)
        taken = torch.nn.functional.one_hot(chosen.long(), self.places).float()
        loss = ((self.value(self.critic, places, tasks, agent, last, taken) - target) ** 2).mean()
        self.moves_critic.zero_grad()
        loss.backward()
        self.moves_critic.step()
        scores = self.scores(self.actor, places, tasks, agent, able)
        action = torch.softmax(scores, -1)
        spread = torch.log_softmax(scores, -1)
        entropy = -(spread.exp() * spread).where(able, torch.zeros(())).sum(-1).mean()
        loss = -self.value(self.critic, places, tasks, agent, last, action).mean() - self.settings.entropy * entropy
        self.moves_actor.zero_grad()
        loss.backward()
        self.moves_actor.step()
        share = self.settings.follow
        with torch.no_grad():
            for name, value in self.actor.items():
                self.actor_target[name].lerp_(value, share)
            for slow, quick in zip(self.critic_target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(quick, share)

    def weights(self) -> dict[str, Any]:
        return {name: value.detach().numpy().astype(float) for name, value in self.actor.items()}


def _initial(name: str) -> Any:
    shape = SHAPES[name]
    wide = 1.0 / math.sqrt(shape[0])
    value = torch.zeros(shape) if len(shape) == 1 else torch.empty(shape).uniform_(-wide, wide)
    return value.requires_grad_()


class _Critic(torch.nn.Module):  # type: ignore[misc]
    """Worth of each place to the agent that decides; linear in the action, a share of each place."""

    def __init__(self, places: int, agents: int) -> None:
        super().__init__()
        layer, relu = torch.nn.Linear, torch.nn.ReLU
        self.all = torch.nn.Sequential(layer(agents * (places * PLACES + TASK + places), _HIDDEN), relu())
        self.each = torch.nn.Sequential(
            layer(PLACES + TASK + _HIDDEN, _HIDDEN), relu(), layer(_HIDDEN, _HIDDEN), relu(), layer(_HIDDEN, 1)
        )

    def forward(self, now: Any, task: Any, last: Any) -> Any:
        """Returns [B, C] of [B, N, C, PLACES], [B, N, TASK], [B, N, C], the agent that decides first."""
        context = self.all(torch.cat((now.flatten(2), task, last), -1).flatten(1))
        about = torch.cat((task[:, 0], context), -1)[:, None, :].expand(-1, now.shape[2], -1)
        return self.each(torch.cat((now[:, 0], about), -1))[..., 0]


def train(
    apps: Apps, settings: Settings, *, seed: int = 0, bill_weights: Weights | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:  # fmt: skip
    """Returns agents trained on episodes of `apps`.

    Args:
        apps: episodes; those of seeds below 1,000,000 plus this one's are played.
        settings: how.
        seed: of weights, episodes and exploration.
        bill_weights: what counts how much.
        progress: called with (episodes played, episodes).
    """
    begin = time.process_time()
    learner, memory, draw = _Learner(settings, apps, seed), _Memory(), rng(seed, "learning", "com_ddpg")
    weights, curve, owed = bill_weights or Weights(), list[float](), 0.0
    for episode in range(settings.episodes):
        graph, platform = apps.episode(TRAINING + seed * settings.episodes + episode)
        explore = settings.explore * max(0.0, 1.0 - episode / (0.7 * settings.episodes))
        policy = Explorer(learner.weights(), draw, explore + 1e-9, settings.shown)
        paid = bill(play(graph, platform, policy), graph, platform, Users.of(graph, platform), weights).total
        curve.append(paid)
        steps = policy.steps
        counted = -sum(step[-1] for step in steps)
        steps[-1] = (*steps[-1][:-1], steps[-1][-1] - (paid - counted))
        memory.add(steps, settings)
        owed += settings.per_decision * len(steps)
        while owed >= 1.0 and len(memory.rows) >= 4 * settings.batch:
            learner.update(memory.draw(draw, settings.batch))
            owed -= 1.0
        if progress is not None:
            progress(episode + 1, settings.episodes)
    return Trained(learner.weights(), curve, time.process_time() - begin)


TRAINING = 1_000_000
"""First seed of the episodes that are trained on; those below it are left to judge."""
