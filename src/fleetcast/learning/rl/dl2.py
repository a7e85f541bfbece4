"""Trains DL2: first as a teacher deals slots out, then by what its own dealing earns.

Warm-up: cross-entropy on decisions of any share policy, seats of the window shuffled, layers normalised by batch. Then
online: an actor and a critic of the same shape, many lists of jobs side by side. What a slot earns is the paper's: sum
over jobs of epochs trained by epochs in all, discounted by 0.99 a slot.

How this differs. (1) Credit: the paper shares a slot's reward among its decisions alike. Here a decision is told what
it adds to the worth of its job: what the job would earn from now on, were it to keep what it has. That is a closed form
of its speed, sums over the slot to what the slot's dealing is worth, and is all that is told of later slots. (2) Steps
that are trained on again (replay, drawn by advantage) and those that exploring chose are weighed by how probable they
have become, within bounds (PPO: Schulman et al., 2017).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.base.rng import rng
from fleetcast.kernels import slots as kernel
from fleetcast.kernels.slots import Slots
from fleetcast.learning.rl.imitation import demonstrations, shuffled, sought_after
from fleetcast.learning.rl.saving import Saved
from fleetcast.policy.share.dl2 import FEATURES, forward, scaled, scores
from fleetcast.scenario.workload.server_jobs import ServerJobs
from fleetcast.sim.cluster.slots import NONE, RULES, Errors, begin, columns

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Teacher = Callable[[Slots, ServerJobs], None]
"""Deals one begun slot of a run of a list out."""
TRAINING = 1_000_000
"""First number of the lists that are trained on; those below it are left to judge."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        window: jobs that the network sees.
        width: of a layer; the authors' code has 2/3 of the 6 numbers of each job.
        shown: lists that the teacher plays.
        warm: updates of the warm-up.
        warm_batch: decisions of one.
        warm_rate: of Adam, falling to almost none.
        rounds: of playing and learning.
        runs: lists played side by side.
        steps: decisions of each run in a round.
        batch: decisions of an update.
        actor_rate: of Adam, falling to a tenth.
        critic_rate: of Adam.
        discount: of a slot.
        ahead: share of what comes after a decision that is measured and not asked of the critic (GAE's lambda).
        entropy: weight of the spread of choices, falling to a twentieth.
        clip: how far a decision's probability counts to have moved.
        spread: advantages are cut at so many standard deviations.
        explore: share of decisions that job-aware exploring makes, falling to none.
        memory: decisions kept to learn from again.
        again: of these, in a round.
        errors: of the world.
    """

    window: int = 20
    width: int = 80
    shown: int = 12
    warm: int = 1_200
    warm_batch: int = 512
    warm_rate: float = 5e-3
    rounds: int = 600
    runs: int = 48
    steps: int = 256
    batch: int = 1_024
    actor_rate: float = 2e-3
    critic_rate: float = 1e-3
    discount: float = 0.99
    ahead: float = 0.95
    entropy: float = 0.01
    clip: float = 0.2
    spread: float = 3.0
    explore: float = 0.01
    memory: int = 8_192
    again: int = 2_048
    errors: Errors = NONE


@dataclass
class Trained:
    """What training made.

    Attributes:
        warm: weights after the warm-up.
        weights: in the end.
        curve: mean slots to completion of the lists that ended in each round, exploring included; nan = none did.
        seconds: CPU time.
    """

    warm: dict[str, Any]
    weights: dict[str, Any]
    curve: list[float]
    seconds: float


@dataclass
class Learner:
    """Training as it stands: made, then warmed up, then a round at a time.

    Args:
        lists: a number to a list of jobs; those from `TRAINING` on are asked for.
        nodes: i4[N, 2].
        teacher: whose decisions are shown; a name of `RULES` or a function that deals a slot out.
        settings: how.
        seed: of weights, lists and exploration.
    """

    lists: Callable[[int], ServerJobs]
    nodes: Any
    teacher: str | Teacher = "drf"
    settings: Settings = field(default_factory=Settings)
    seed: int = 0

    def __post_init__(self) -> None:
        s = self.settings
        self.draw = rng(self.seed, "learning", "dl2")
        self.next = TRAINING + 100_000 * self.seed
        self.round, self.seconds = 0, 0.0
        self.curve: list[float] = []
        self.actor = initial(self.draw, s.window, s.width, 3 * s.window + 1)
        self.critic: dict[str, Any] = {}
        self.warm: dict[str, Any] = {}
        self.running: list[tuple[int, ServerJobs, Slots]] = []
        wide = FEATURES * s.window
        self.memory: dict[str, Any] = {
            "state": np.zeros((0, wide), np.float32), "mask": np.zeros((0, wide // 2 + 1), np.uint8),
            "action": np.zeros(0, np.int64), "chance": np.zeros(0, np.float32), "gain": np.zeros(0, np.float32),
        }  # fmt: skip

    @property
    def warmed(self) -> bool:
        """Whether the warm-up is over."""
        return bool(self.warm)

    def weights(self) -> dict[str, Any]:
        """Returns the actor as `policy.share.dl2` reads it, f4."""
        return {name: value.detach().numpy().copy() for name, value in self.actor.items()}

    def warm_up(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Learns what the teacher does."""
        since, s = time.process_time(), self.settings
        teacher = _dealer(self.teacher)
        told = []
        for number in range(TRAINING, TRAINING + s.shown):
            told.append(demonstrations(self.begun(number), self.begun(number), _on(teacher, self.lists(number))))
        state, mask, action = (np.concatenate(parts) for parts in zip(*told, strict=True))
        bounds: dict[str, Any] = {}
        adam = torch.optim.Adam(list(self.actor.values()), s.warm_rate)
        for step in range(s.warm):
            rows = self.draw.integers(0, len(action), s.warm_batch)
            seen, legal, target = shuffled(state[rows], mask[rows], action[rows], self.draw)
            got = _masked(_by_batch(self.actor, torch.from_numpy(scaled(seen)), bounds), legal)
            loss = torch.nn.functional.cross_entropy(got, torch.from_numpy(target))
            _down(adam, loss, self.actor, s.warm_rate * (1.0 - step / s.warm) + 1e-4, 1e9)
            if progress is not None:
                progress(step + 1, s.warm)
        _fold(self.actor, bounds)
        self.warm = self.weights()
        self.seconds += time.process_time() - since

    def begin(self) -> None:
        """Makes the critic out of the actor's layers, and the first runs."""
        s = self.settings
        head = initial(self.draw, s.window, s.width, 1)
        self.critic = {name: value.detach().clone().requires_grad_() for name, value in self.actor.items()}
        self.critic |= {"out": head["out"], "out_bias": head["out_bias"]}
        self.moves_actor = torch.optim.Adam(list(self.actor.values()), s.actor_rate)
        self.moves_critic = torch.optim.Adam(list(self.critic.values()), s.critic_rate)
        self.running = [self._another() for _ in range(s.runs)]
        self.state, self.mask, self.rewards, self.came = columns([run for _, _, run in self.running])

    def play_and_learn(self) -> None:
        """Plays a round and learns from it."""
        since = time.process_time()
        left = 1.0 - self.round / max(1, self.settings.rounds)
        self._learn(*self._play(self.settings.explore * left), left=left)
        self.round += 1
        self.seconds += time.process_time() - since

    def begun(self, number: int) -> Slots:
        """Returns a run of a list, at its first slot."""
        s = self.settings
        return begin(
            self.lists(number), self.nodes, errors=s.errors, seed=number, window=s.window, discount=s.discount
        )  # fmt: skip

    def _another(self) -> tuple[int, ServerJobs, Slots]:
        self.next += 1
        return self.next, self.lists(self.next), self.begun(self.next)

    def _play(self, explore: float) -> tuple[Any, Any, Any, Any, Any, Any]:
        s, wide = self.settings, FEATURES * self.settings.window
        state = np.zeros((s.steps, s.runs, wide), np.float32)
        mask = np.zeros((s.steps, s.runs, 3 * s.window + 1), np.uint8)
        action, reward = np.zeros((s.steps, s.runs), np.int64), np.zeros((s.steps, s.runs))
        chance, goes_on = np.zeros((s.steps, s.runs), np.float32), np.zeros((s.steps, s.runs))
        p, runs, rows, ended = self.weights(), [run for _, _, run in self.running], np.arange(s.runs), []
        for t in range(s.steps):
            got = scores(p, self.state, self.mask)
            got = got - got.max(1, keepdims=True)
            got -= np.log(np.exp(got).sum(1, keepdims=True))
            chosen = (got + self.draw.gumbel(size=got.shape)).argmax(1)
            sought = sought_after(self.state, self.mask)
            chosen = np.where((self.draw.random(s.runs) < explore) & (sought >= 0), sought, chosen)
            share = np.where(sought >= 0, explore, 0.0)
            state[t], mask[t], action[t] = self.state, self.mask, chosen
            chance[t] = np.log((1.0 - share) * np.exp(got[rows, chosen]) + share * (chosen == sought))
            kernel.advance(runs, chosen.astype(np.int32), self.state, self.mask, self.rewards, self.came)
            goes_on[t] = self.came == kernel.PLACED
            reward[t] = np.where(self.came == kernel.PLACED, self.rewards, 0.0)
            for i in np.flatnonzero(self.came == kernel.OVER):
                _, jobs, run = self.running[i]
                ended.append(float(np.mean(run.columns()[1] - jobs.arrival)))
                self.running[i] = self._another()
                runs[i] = self.running[i][2]
                self.came[i] = kernel.PLACED
                runs[i].open()
                runs[i].observe(self.state[i], self.mask[i])
        self.curve.append(float(np.mean(ended)) if ended else float("nan"))
        return state, mask, action, chance, reward, goes_on

    def _learn(
        self, state: Any, mask: Any, action: Any, chance: Any, reward: Any, goes_on: Any, *, left: float
    ) -> None:  # fmt: skip
        s, wide = self.settings, FEATURES * self.settings.window
        seen = scaled(np.concatenate([state.reshape(-1, wide), self.state]))
        with torch.no_grad():
            worth = forward(self.critic, torch.from_numpy(seen), torch.relu)[:, 0].numpy().reshape(s.steps + 1, s.runs)
        gain, later = np.zeros((s.steps, s.runs)), np.zeros(s.runs)
        for t in range(s.steps - 1, -1, -1):
            later = reward[t] + goes_on[t] * (worth[t + 1] + s.ahead * later) - worth[t]
            gain[t] = later
        target = (gain + worth[:-1]).ravel().astype(np.float32)
        flat = ((gain - gain.mean()) / (gain.std() + 1e-8)).ravel().clip(-s.spread, s.spread).astype(np.float32)
        fresh: dict[str, Any] = {
            "state": seen[: -s.runs], "mask": mask.reshape(len(flat), -1), "action": action.ravel(),
            "chance": chance.ravel(), "gain": flat,
        }  # fmt: skip
        rate, entropy = s.actor_rate * max(0.1, left), s.entropy * max(0.05, left)
        order = self.draw.permutation(len(flat))
        for k in range(0, len(flat), s.batch):
            rows = order[k : k + s.batch]
            self._better({name: value[rows] for name, value in fresh.items()}, rate, entropy)
            guess = forward(self.critic, torch.from_numpy(fresh["state"][rows]), torch.relu)[:, 0]
            loss = ((guess - torch.from_numpy(target[rows])) ** 2).mean()
            _down(self.moves_critic, loss, self.critic, s.critic_rate, 5.0)
        if len(self.memory["gain"]) >= s.memory and s.again:
            rows = self._by_gain(self.memory["gain"], s.again)
            for k in range(0, s.again, s.batch):
                some = rows[k : k + s.batch]
                self._better({name: value[some] for name, value in self.memory.items()}, rate, entropy)
        if s.memory:
            rows = self._by_gain(flat, s.memory // 8)
            self.memory = {n: np.concatenate([v, fresh[n][rows]])[-s.memory :] for n, v in self.memory.items()}

    def _by_gain(self, gain: Any, count: int) -> Any:
        weight = np.abs(gain).astype(float) ** 0.6 + 1e-3
        return self.draw.choice(len(gain), count, p=weight / weight.sum())

    def _better(self, step: dict[str, Any], rate: float, entropy: float) -> None:
        got = _masked(forward(self.actor, torch.from_numpy(step["state"]), torch.relu), step["mask"])
        log = torch.log_softmax(got, 1)
        now = log.gather(1, torch.from_numpy(step["action"])[:, None])[:, 0]
        ratio, gain = torch.exp(now - torch.from_numpy(step["chance"])), torch.from_numpy(step["gain"])
        clip = self.settings.clip
        won = torch.minimum(ratio * gain, ratio.clamp(1.0 - clip, 1.0 + clip) * gain).mean()
        spread = -(log.exp() * log.clamp(min=-30.0)).sum(1).mean()
        _down(self.moves_actor, -won - entropy * spread, self.actor, rate, 0.5)

    def save(self, path: Path) -> None:
        """Writes all that training needs to go on, atomically."""
        Saved.of(self).write(path)

    def load(self, path: Path) -> None:
        """Goes on from a file that `save` wrote.

        Raises:
            SpecError: it is not one, or of other settings, seed or lists.
        """
        Saved.read(path).into(self)


def train(
    learner: Learner, *, checkpoint: Path | None = None, every: int = 25,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:  # fmt: skip
    """Trains to the end, from where a checkpoint is if there is one.

    Args:
        learner: made, not begun.
        checkpoint: a file that is written after the warm-up and every few rounds.
        every: rounds between.
        progress: called with (done, all), updates of the warm-up and rounds together.
    """
    s = learner.settings
    if checkpoint is not None and checkpoint.exists():
        learner.load(checkpoint)
    whole = s.warm + s.rounds
    if not learner.warmed:
        learner.warm_up(None if progress is None else lambda done, _: progress(done, whole))
        learner.begin()
        if checkpoint is not None:
            learner.save(checkpoint)
    while learner.round < s.rounds:
        learner.play_and_learn()
        if checkpoint is not None and (learner.round % every == 0 or learner.round == s.rounds):
            learner.save(checkpoint)
        if progress is not None:
            progress(s.warm + learner.round, whole)
    return Trained(learner.warm, learner.weights(), learner.curve, learner.seconds)


def initial(draw: np.random.Generator, window: int, width: int, out: int) -> dict[str, Any]:
    """Returns weights to begin with (He et al., 2015), small in the last layer."""
    into = FEATURES * window

    def layer(rows: int, wide: int, gain: float) -> Any:
        return torch.from_numpy((draw.normal(0.0, gain / np.sqrt(rows), (rows, wide))).astype(np.float32))

    made = {
        "in": layer(into, width, 1.4), "in_bias": torch.zeros(width), "scale1": torch.ones(width),
        "shift1": torch.zeros(width), "hidden": layer(width, width, 1.4), "hidden_bias": torch.zeros(width),
        "scale2": torch.ones(width), "shift2": torch.zeros(width), "out": layer(width, out, 0.1),
        "out_bias": torch.zeros(out),
    }  # fmt: skip
    return {name: value.requires_grad_() for name, value in made.items()}


def _dealer(teacher: str | Teacher) -> Teacher:
    if callable(teacher):
        return teacher
    code = RULES[teacher]
    return lambda run, jobs: run.deal(code)


def _on(teacher: Teacher, jobs: ServerJobs) -> Callable[[Slots], None]:
    return lambda run: teacher(run, jobs)


def _masked(got: Any, mask: Any) -> Any:
    return torch.where(torch.from_numpy(mask > 0), got, torch.tensor(-1e9))


def _by_batch(p: dict[str, Any], x: Any, bounds: dict[str, Any]) -> Any:
    for layer, number in (("in", "1"), ("hidden", "2")):
        x = torch.relu(x @ p[layer] + p[f"{layer}_bias"])
        mean, spread = x.mean(0), x.var(0)
        for name, value in (("mean", mean.detach()), ("spread", spread.detach())):
            bounds[name + number] = 0.98 * bounds.get(name + number, value) + 0.02 * value
        x = (x - mean) / torch.sqrt(spread + 1e-3) * p[f"scale{number}"] + p[f"shift{number}"]
    return x @ p["out"] + p["out_bias"]


def _fold(p: dict[str, Any], bounds: dict[str, Any]) -> None:
    with torch.no_grad():
        for number in "12":
            by = 1.0 / torch.sqrt(bounds["spread" + number] + 1e-3)
            p[f"scale{number}"] *= by
            p[f"shift{number}"] -= bounds["mean" + number] * p[f"scale{number}"]


def _down(adam: Any, loss: Any, p: dict[str, Any], rate: float, most: float) -> None:
    for group in adam.param_groups:
        group["lr"] = rate
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(p.values()), most)
    adam.step()
