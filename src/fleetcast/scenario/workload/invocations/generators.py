"""Synthetic invocations that have the shape of a published month of five regions.

Joosen and others, "Serverless Cold Starts and Where to Find Them", EuroSys 2025, publish fits over all regions of how
long cold starts take (lognormal, mean 3.24 s, deviation 7.10 s) and of the time between two of them (Weibull, mean
1.25 s, deviation 3.66 s), with a keep-alive of 60 s; that timers are almost 60 % of functions and 30 % of cold starts,
workflows 20 % of these, about 60 % of functions asynchronous; that 20 % of pods live usefully for less than their
cold start took, and half of them for less than 4 times that. The tables themselves are not to be had here, so what
follows is made up to agree with those figures; everything else about it is ours.

Weibull gaps of shape k < 1 are exponential gaps at a rate that is itself drawn from a positive stable law of index k;
here a rate holds for a few onsets, which gives bursts. Timers of clock time fire together at the full minute.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.scenario.workload.invocations.trace import COMPONENTS, Invocations, assemble

__all__ = ["Synthetic"]

Array = NDArray[np.float64]
COLD_MEAN, COLD_DEVIATION = 3.24, 7.10
"""Published fit of how long a cold start takes, s: lognormal."""
GAP_MEAN, GAP_DEVIATION = 1.25, 3.66
"""Published fit of the time between cold starts, s: Weibull."""
GAP_SHAPE, GAP_SCALE = 0.418, 0.422
"""Of that Weibull law; scale in s."""
COLD_MU, COLD_SIGMA = 0.2965, 1.326
"""Of that lognormal law, s."""
TIMER, GATEWAY, WORKFLOW, STORAGE = "TIMER-A", "APIG-S", "workflow-S", "OBS-A"
TRIGGERS = (TIMER, GATEWAY, WORKFLOW, STORAGE)
RUNTIMES = ("Python3", "Node.js", "Java8", "PHP7.3", "Go1.x", "Custom")
RUNTIME_SHARES = (0.48, 0.20, 0.14, 0.06, 0.09, 0.03)
POOLS, POOL_SHARES = (128e6, 256e6, 512e6, 1024e6, 4096e6), (0.35, 0.28, 0.20, 0.12, 0.05)
PERIODS, PERIOD_SHARES = (60, 120, 300, 600, 900, 1800, 3600), (0.04, 0.03, 0.13, 0.15, 0.15, 0.25, 0.25)


class Region:
    """What differs between regions: ln s of the median start, weights of its parts, s of the median execution."""

    def __init__(self, name: str, start: float, parts: tuple[float, ...], execution: float) -> None:
        self.name, self.start, self.parts, self.execution = name, start, parts, execution


REGIONS = (
    Region("R1", 0.85, (0.4, 0.5, 3.2, 2.8), 0.100), Region("R2", 0.62, (4.2, 0.5, 0.9, 2.0), 0.040),
    Region("R3", -0.75, (0.8, 0.5, 1.2, 3.2), 0.020), Region("R4", 0.50, (1.0, 0.9, 1.6, 3.4), 0.010),
    Region("R5", 0.25, (0.6, 1.0, 2.4, 3.0), 0.004),
)  # fmt: skip
BETWEEN = 0.45
"""Deviation of ln start between functions of a region; the rest lies within them."""
ROWS = 32
"""Starts drawn of each function, taken in turn."""


class Synthetic:
    """Timers, bursts, steady streams and workflows in up to five regions. Synthetic.

    Args:
        functions: of each region.
        regions: 1 to 5.
        hours: that the trace covers.
        timers: share of functions that fire by the clock.
        asynchronous: share of functions for whose answer nobody waits, timers included.
        rate: cold starts per second and region that a keep-alive of 60 s has; the published fit's is 0.8.
        steady: invocations per second and region of functions that are always busy; they hardly ever start cold.
    """

    kind = "synthetic"

    def __init__(
        self, *, functions: int = 300, regions: int = 5, hours: float = 6.0, timers: float = 0.6,
        asynchronous: float = 0.6, rate: float = 0.8, steady: float = 15.0,
    ) -> None:  # fmt: skip
        if not 10 <= functions <= 100_000:
            raise ValueError("functions is out of range: 10 to 100,000")
        if not 1 <= regions <= len(REGIONS):
            raise ValueError(f"regions is out of range: 1 to {len(REGIONS)}")
        if not 0 < hours <= 24 * 31:
            raise ValueError("hours is out of range: above 0, at most 744")
        if not 0 <= timers <= 0.95:
            raise ValueError("timers is out of range: 0 to 0.95")
        if not 0 <= asynchronous <= 1:
            raise ValueError("asynchronous is out of range: 0 to 1")
        if not 0 < rate <= 100 or not 0 <= steady <= 10_000:
            raise ValueError("rate is above 0 and at most 100, steady is 0 to 10,000 per second")
        self.functions, self.regions, self.hours, self.timers = functions, regions, hours, timers
        self.asynchronous, self.rate, self.steady = asynchronous, rate, steady

    def invocations(self, seed: int = 0) -> Invocations:
        """Returns the trace of a seed."""
        made = [_Place(self, REGIONS[i], seed) for i in range(self.regions)]
        offset = [sum(len(place.names) for place in made[:i]) for i in range(len(made))]
        join = np.concatenate
        return assemble(
            names=[name for place in made for name in place.names],
            function=join([place.function + at for place, at in zip(made, offset, strict=True)]),
            time=join([place.time for place in made]), duration=join([place.duration for place in made]),
            memory=join([place.memory for place in made]),
            region=np.repeat(np.arange(len(made)), [len(place.names) for place in made]),
            regions=[REGIONS[i].name for i in range(self.regions)],
            trigger=join([place.trigger for place in made]), triggers=TRIGGERS,
            runtime=join([place.runtime for place in made]), runtimes=RUNTIMES,
            asynchronous=join([place.asynchronous for place in made]),
            caller=join([np.where(p.caller < 0, -1, p.caller + at) for p, at in zip(made, offset, strict=True)]),
            starts=join([place.starts for place in made]),
            row=np.arange(sum(len(place.names) for place in made) + 1) * ROWS, span=self.hours * 3600.0,
            source=f"synthetic, seed {seed}: made to agree with fits of Joosen and others, EuroSys 2025",
        )  # fmt: skip


class _Place:
    """The functions of one region and their invocations."""

    def __init__(self, made: Synthetic, region: Region, seed: int) -> None:
        self.made, self.region, self.span = made, region, made.hours * 3600.0
        self.draw = rng(seed, "functions", region.name)
        count = made.functions
        timers = round(made.timers * count)
        rest = count - timers
        steady = max(1, round(0.08 * rest))
        flows = max(1, round(0.10 * rest)) if rest >= 8 else 0
        self.names = tuple(f"{region.name}-f{i}" for i in range(count))
        # timers, then steady streams, then chains of three (the first leads to the second, that to the third), bursts
        self.trigger = np.full(count, 1, np.int32)
        self.trigger[:timers] = 0
        chains = np.arange(timers + steady, timers + steady + 3 * flows).reshape(flows, 3)
        bursts = np.arange(timers + steady + 3 * flows, count)
        self.trigger[chains.ravel()] = 2
        self.caller = np.full(count, -1, np.int32)
        self.caller[chains[:, 1]], self.caller[chains[:, 2]] = chains[:, 0], chains[:, 1]
        self.asynchronous = self._asynchronous(timers)
        self.trigger[(self.trigger == 1) & self.asynchronous] = 3
        self.memory = self.draw.choice(POOLS, count, p=POOL_SHARES)
        self.runtime = self.draw.choice(len(RUNTIMES), count, p=RUNTIME_SHARES).astype(np.int32)
        self.starts = self._starts(count)
        self.parts: list[tuple[NDArray[Any], Array, Array]] = []
        fired = self._timers(timers)
        self._steady(np.arange(timers, timers + steady))
        self._onsets(chains, bursts, fired)
        self.function = np.concatenate([p[0] for p in self.parts]).astype(np.int64)
        self.time = np.concatenate([p[1] for p in self.parts])
        self.duration = np.concatenate([p[2] for p in self.parts])

    def _asynchronous(self, timers: int) -> NDArray[np.bool_]:
        """Timers are asynchronous, and of the others as many as the share still lacks."""
        count = self.made.functions
        found = np.arange(count) < timers
        left = max(0, round(self.made.asynchronous * count) - timers)
        others = np.flatnonzero((self.trigger == 1) | (self.trigger == 2))
        found[self.draw.permutation(others)[:left]] = True
        return found

    def _starts(self, count: int) -> Array:
        """f8[count x ROWS, 4]: lognormal in all, shared among the parts by a Dirichlet law."""
        spread = sum((r.start - COLD_MU) ** 2 for r in REGIONS) / len(REGIONS)
        within = math.sqrt(COLD_SIGMA**2 - spread - BETWEEN**2)
        log = self.region.start + BETWEEN * self.draw.standard_normal((count, 1))
        total = np.exp(log + within * self.draw.standard_normal((count, ROWS)))
        parts = self.draw.dirichlet(self.region.parts, (count, ROWS))
        starts: Array = (total[..., None] * parts).reshape(-1, len(COMPONENTS))
        return starts

    def _add(self, function: NDArray[Any], time: Array, duration: Array) -> None:
        inside = (time >= 0.0) & (time < self.span)
        self.parts.append((function[inside], time[inside], duration[inside]))

    def _timers(self, count: int) -> float:
        """Adds the timers; returns how many of their ticks come later than a keep-alive of 60 s, per second."""
        draw = self.draw
        period = draw.choice(PERIODS, count, p=PERIOD_SHARES).astype(np.float64)
        clock = draw.random(count) < 0.6
        # by the clock: at a full minute, and some seconds later by its place in the dispatcher's queue
        phase = np.where(clock, np.floor(draw.random(count) * period / 60.0) * 60.0, draw.random(count) * period)
        phase += np.where(clock, draw.gamma(0.4, 4.0, count), 0.0)
        lasts = np.exp(math.log(4.5) + 1.1 * draw.standard_normal(count))
        for f in range(count):
            ticks = np.arange(phase[f] - period[f], self.span, period[f])
            ticks += 0.03 * draw.standard_normal(len(ticks))
            self._add(np.full(len(ticks), f), ticks, lasts[f] * np.exp(0.3 * draw.standard_normal(len(ticks))))
        return float((1.0 / period[period > 60.0]).sum())

    def _steady(self, functions: NDArray[np.int64]) -> None:
        """Adds Poisson streams, the busiest some hundred times as busy as the least, with a wave of the day."""
        draw, rates = self.draw, np.exp(self.draw.uniform(0.0, 5.0, len(functions)))
        rates *= self.made.steady / rates.sum() if len(rates) else 1.0
        for f, rate in zip(functions.tolist(), rates.tolist(), strict=True):
            n = int(draw.poisson(rate * self.span))
            times = np.sort(self._wave(draw.random(n)) * self.span)
            usual = self.region.execution * math.exp(0.5 * draw.standard_normal())
            self._add(np.full(n, f), times, usual * np.exp(0.6 * draw.standard_normal(n)))

    def _wave(self, share: Array) -> Array:
        """Shares of the span, moved so that more of them lie in its first half, by a quarter of a sine's height."""
        return share - 0.25 / (2 * math.pi) * np.sin(2 * math.pi * share)

    def _onsets(self, chains: NDArray[np.int64], bursts: NDArray[np.int64], fired: float) -> None:
        """Adds bursts and workflows: onsets at Weibull gaps, each of a function that is not active just then."""
        made, draw = self.made, self.draw
        rate = max(0.1 * made.rate, LOST * (made.rate - fired))
        flows = min(0.30 * made.rate, 0.5 * rate) if len(chains) else 0.0
        # a workflow's onset starts three functions cold, a burst's as many as its requests are at once
        onsets = flows / 3.0 + (rate - flows) / (1.0 + 2.0 * FANS)
        times = self._weibull(onsets)
        roots, weights = np.concatenate([chains[:, 0], bursts]), np.empty(len(chains) + len(bursts))
        skew = 1.0 / (draw.permutation(len(bursts)) + 4.0)
        weights[len(chains) :] = skew / skew.sum() * (1.0 - flows / 3.0 / onsets) if len(bursts) else 0.0
        weights[: len(chains)] = flows / 3.0 / onsets / max(1, len(chains))
        weights /= weights.sum()
        busy = np.zeros(len(roots))
        length = np.exp(math.log(3.6) + 1.0 * draw.standard_normal(len(times)))
        chosen = draw.choice(len(roots), (len(times), TRIES), p=weights)
        taken = np.full(len(times), -1, np.int64)
        for i, (at, tries) in enumerate(zip(times.tolist(), chosen.tolist(), strict=True)):
            for which in tries:
                if busy[which] <= at:
                    taken[i] = which
                    busy[which] = at + 10.0 + 2.5 * length[i]
                    break
        keep = taken >= 0
        times, taken, length = times[keep], taken[keep], length[keep]
        self._bursts(roots[taken[taken >= len(chains)]], times[taken >= len(chains)], length[taken >= len(chains)])
        self._flows(chains[taken[taken < len(chains)]], times[taken < len(chains)])

    def _weibull(self, rate: float) -> Array:
        """f8, onsets of a mean rate (1/s) whose gaps follow a Weibull law, a few of them at the same pace."""
        draw, shape = self.draw, ONSET_SHAPE
        scale = 1.0 / rate / math.gamma(1.0 + 1.0 / shape)
        blocks = int(1.3 * rate * self.span / BLOCK) + 64
        turn, wait = draw.uniform(0.0, math.pi, blocks), draw.exponential(1.0, blocks)
        pace = (
            np.sin(shape * turn) / np.sin(turn) ** (1.0 / shape)
            * (np.sin((1.0 - shape) * turn) / wait) ** ((1.0 - shape) / shape)
        )  # fmt: skip
        each = np.repeat(pace, draw.geometric(1.0 / BLOCK, blocks))
        times = np.cumsum(draw.exponential(1.0, len(each)) / each * scale)
        if times[-1] < self.span:  # the law has a long tail: as many onsets as the span should have, all the same
            times *= self.span / times[-1]
        found: Array = self._wave(times[times < self.span] / self.span) * self.span
        return found

    def _bursts(self, functions: NDArray[np.int64], times: Array, length: Array) -> None:
        """Each onset is one long request, at times several at once, and a few short ones after it."""
        draw, count = self.draw, len(times)
        wide = np.where(draw.random(count) < FANS, draw.geometric(0.5, count), 0)
        beside, more = np.repeat(np.arange(count), wide), np.repeat(np.arange(count), draw.geometric(0.25, count) - 1)
        together = times[beside] + 0.012 * np.exp(1.9 * draw.standard_normal(len(beside)))
        later = times[more] + 3.0 + length[more] * draw.uniform(1.2, 2.2, len(more))
        where = np.concatenate([functions, functions[beside], functions[more]])
        usual = self.region.execution * np.exp(1.1 * draw.standard_normal(self.made.functions))
        lasts = usual[where] * np.exp(0.5 * draw.standard_normal(len(where)))
        lasts[:count] += length
        lasts[count : count + len(beside)] += length[beside] * np.exp(0.4 * draw.standard_normal(len(beside)))
        self._add(where, np.concatenate([times, together, later]), lasts)

    def _flows(self, chains: NDArray[np.int64], times: Array) -> None:
        """A workflow's second function follows when the first has ended, its third after the second."""
        draw, begin = self.draw, times
        for step in range(chains.shape[1] if len(chains) else 0):
            lasts = np.exp(math.log(3.6) + 0.8 * draw.standard_normal(len(times)))
            self._add(chains[:, step], begin, lasts)
            begin = begin + lasts + draw.exponential(0.05, len(times))


TRIES = 8
"""Draws of a function for an onset before it is left out: the busiest may be active."""
BLOCK = 6
"""Onsets at one pace, on average."""
ONSET_SHAPE = 0.35
"""Of the law of gaps between onsets: with what starts together and the timers, gaps of starts come out as published."""
FANS = 0.34
"""Share of bursts that begin with several requests at once."""
LOST = 1.14
"""More onsets than wanted: some are left out, or find a warm pod."""
