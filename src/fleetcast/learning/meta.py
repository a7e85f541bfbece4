"""HELP: a network that learns to predict the latencies of a device from a few of them.

A device is its latencies on a few reference graphs, scaled to 0..1. A graph network, told the device, predicts scaled
latencies; for each device its last layers are modulated by ``z``, drawn from what a second network makes of the device,
and all its weights take a few gradient steps on the device's support samples, with a step size learned per weight.
Both networks, and the step sizes, are trained so that the adapted network is right on query samples.

Lee, Lee, Chong, Hwang, "Hardware-adaptive efficient latency prediction for NAS via meta-learning", NeurIPS 2021;
Meta-SGD: Li, Zhou, Chen, Li, 2017. Sizes and rates are the paper's. It differs in that the divergence of every task's z
counts (not the last one's), and that a forecast is the mean over draws of z. Used only by the benchmark: `cost.learned`
is what Fleetcast predicts with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Array = NDArray[np.float64]
Weights = dict[str, Any]
_GRAPH_LAYERS, _MODULATED = 4, ("mix1", "mix2", "out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; the defaults are the paper's.

    Attributes:
        episodes: steps of the outer optimiser.
        tasks: devices per step.
        support: samples a device is adapted with.
        query: samples it is judged by.
        steps: inner gradient steps.
        width: units per layer.
        rate: of the outer optimiser (Adam).
        inner: initial inner step size.
        divergence: weight of the divergence of z from a unit Gaussian.
        modulation: how far z reaches.
        draws: of z, averaged in a forecast.
        every: episodes between looks at the validation devices.
    """

    episodes: int = 2000
    tasks: int = 8
    support: int = 10
    query: int = 200
    steps: int = 2
    width: int = 100
    rate: float = 1e-4
    inner: float = 1e-3
    divergence: float = 0.1
    modulation: float = 0.01
    draws: int = 10
    every: int = 50


@dataclass(frozen=True, slots=True)
class Graphs:
    """Graphs of one size.

    Attributes:
        nodes: (n, v, f) features; the last node reads the whole graph.
        links: (n, v, v); row i holds the nodes that node i hears, itself among them.
    """

    nodes: Array
    links: Array


@dataclass(frozen=True, slots=True)
class Task:
    """A device.

    Attributes:
        references: (r,) latencies of the reference graphs, scaled to 0..1.
        latency: (n,) scaled latency per graph.
        pool: which graphs support and query samples are drawn from.
    """

    references: Array
    latency: Array
    pool: NDArray[np.int64]


class Learner:
    """The two networks and the step sizes.

    Args:
        graphs: what is predicted for.
        references: how many latencies describe a device.
        settings: how to train.
        seed: of initial weights, episodes and draws of z.
    """

    def __init__(self, graphs: Graphs, references: int, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.nodes = torch.as_tensor(graphs.nodes, dtype=torch.float32)
        self.links = torch.as_tensor(graphs.links, dtype=torch.float32)
        self.noise = torch.Generator().manual_seed(seed)
        wide, both = settings.width, 2 * settings.width
        sizes = {f"graph{i}": (self.nodes.shape[2] if i == 0 else wide, wide) for i in range(_GRAPH_LAYERS)}
        sizes |= {"device1": (references, wide), "device2": (wide, wide)}
        sizes |= {"mix1": (both, both), "mix2": (both, both), "out": (both, 1)}
        self.weights = self._layers(sizes)
        self.rates = {name: torch.full_like(w, settings.inner) for name, w in self.weights.items()}
        self.encoder = self._layers({"code1": (references, 10), "code2": (10, 2 * len(_MODULATED) * (both + 1))})
        for value in self._trained():
            value.requires_grad_(True)

    def train(
        self, known: Sequence[Task], judge: Callable[[], float], progress: Callable[[int, int], None] | None = None
    ) -> list[tuple[int, float]]:
        """Trains on known devices and keeps the weights that ``judge`` liked best.

        Args:
            known: the devices to learn from.
            judge: returns how good the learner is now, e.g. the mean rank correlation on validation devices.
            progress: called with (episodes done, episodes).

        Returns:
            (episode, verdict) at every look.
        """
        s, random = self.settings, np.random.default_rng(self.seed)
        optimiser = torch.optim.Adam(self._trained(), lr=s.rate)
        best, kept, looks = -np.inf, [v.detach().clone() for v in self._trained()], []
        for episode in range(1, s.episodes + 1):
            tasks = [known[i] for i in random.permutation(len(known))[: s.tasks]]
            drawn = np.stack([random.permutation(t.pool)[: s.support + s.query] for t in tasks])
            adapted, divergence = self._adapt(tasks, drawn[:, : s.support])
            query = drawn[:, s.support :]
            loss = ((self._forward(adapted, tasks, query) - _latency(tasks, query)) ** 2).mean()
            optimiser.zero_grad()
            (loss + s.divergence * divergence.mean()).backward()
            optimiser.step()
            if episode % s.every == 0 or episode == s.episodes:
                verdict = judge()
                looks.append((episode, verdict))
                if verdict > best:
                    best, kept = verdict, [v.detach().clone() for v in self._trained()]
            if progress is not None:
                progress(episode, s.episodes)
        with torch.no_grad():
            for value, keep in zip(self._trained(), kept, strict=True):
                value.copy_(keep)
        return looks

    def predict(self, task: Task, support: NDArray[np.int64], query: NDArray[np.int64]) -> Array:
        """Returns the scaled latencies of the graphs ``query`` on a device whose ``support`` was measured."""
        total = np.zeros(len(query))
        for _ in range(self.settings.draws):
            adapted, _ = self._adapt([task], support[None])
            with torch.no_grad():
                total += self._forward(adapted, [task], query[None])[0].double().numpy()
        return total / self.settings.draws

    def _adapt(self, tasks: Sequence[Task], support: NDArray[np.int64]) -> tuple[Weights, Any]:
        """Returns each task's weights after the inner steps, and the divergence of its z."""
        weights, divergence = self._modulate(tasks)
        target = _latency(tasks, support)
        for _ in range(self.settings.steps):
            # Tasks share no weight here, so the gradient of the sum is each task's own.
            loss = ((self._forward(weights, tasks, support) - target) ** 2).mean(1).sum()
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {n: w - self.rates[n] * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
        return weights, divergence

    def _modulate(self, tasks: Sequence[Task]) -> tuple[Weights, Any]:
        """Returns a copy of the weights per task, its last layers scaled by the task's z."""
        count, reach = len(tasks), self.settings.modulation
        weights = {name: w.expand(count, *w.shape).clone() for name, w in self.weights.items()}
        code = self.encoder
        hidden = torch.relu(_references(tasks) @ code["code1.w"] + code["code1.b"])
        mean, spread = (hidden @ code["code2.w"] + code["code2.b"]).chunk(2, dim=1)
        spread = torch.nn.functional.softplus(spread)
        z = mean + spread * torch.randn(mean.shape, generator=self.noise)
        both = 2 * self.settings.width
        for i, name in enumerate(_MODULATED):
            scale = z[:, i * both : (i + 1) * both]
            weights[f"{name}.w"] = weights[f"{name}.w"] * (1.0 + reach * scale[:, :, None])
            weights[f"{name}.b"] = weights[f"{name}.b"] + reach * z[:, len(_MODULATED) * both + i][:, None]
        divergence = ((spread**2 + mean**2 - 1.0) / 2.0 - spread.log()).sum(1)
        return weights, divergence

    def _forward(self, weights: Weights, tasks: Sequence[Task], which: NDArray[np.int64]) -> Any:
        """Returns (tasks, m) scaled latencies of the graphs ``which`` (tasks, m)."""
        index = torch.as_tensor(which)
        out, links = self.nodes[index], self.links[index]
        for i in range(_GRAPH_LAYERS):
            said = out.flatten(1, 2) @ weights[f"graph{i}.w"]  # one product per task, whatever the number of graphs
            heard = links @ said.unflatten(1, out.shape[1:3])
            out = torch.relu(heard + weights[f"graph{i}.b"][:, None, None])
        device = _references(tasks)[:, None]
        for name in ("device1", "device2"):
            device = torch.relu(device @ weights[f"{name}.w"] + weights[f"{name}.b"][:, None])
        joint = torch.cat([out[:, :, -1], device.expand(-1, which.shape[1], -1)], dim=2)
        for name in ("mix1", "mix2"):
            joint = torch.relu(joint @ weights[f"{name}.w"] + weights[f"{name}.b"][:, None])
        return (joint @ weights["out.w"] + weights["out.b"][:, None])[:, :, 0]

    def _layers(self, sizes: dict[str, tuple[int, int]]) -> Weights:
        made: Weights = {}
        for name, (inside, outside) in sizes.items():
            # The paper starts its graph layers near zero, the others as is usual for linear layers.
            reach = 0.05 if name.startswith("graph") else inside**-0.5
            bias = outside**-0.5 if name.startswith("graph") else reach
            made[f"{name}.w"] = (2.0 * torch.rand(inside, outside, generator=self.noise) - 1.0) * reach
            made[f"{name}.b"] = (2.0 * torch.rand(outside, generator=self.noise) - 1.0) * bias
        return made

    def _trained(self) -> list[Any]:
        return [*self.weights.values(), *self.rates.values(), *self.encoder.values()]


def _references(tasks: Sequence[Task]) -> Any:
    return torch.as_tensor(np.stack([t.references for t in tasks]), dtype=torch.float32)


def _latency(tasks: Sequence[Task], which: NDArray[np.int64]) -> Any:
    rows = np.stack([t.latency[w] for t, w in zip(tasks, which, strict=True)])
    return torch.as_tensor(rows, dtype=torch.float32)
