"""What checkpoints cost, how often to write them, and how long a job takes that fails now and then.

With failures that are exponential with mean M (s), a checkpoint that stops the job for C, and R from a failure until
work goes on (failures may strike in it too), work T cut into pieces of tau takes on average

    M e^(R/M) (e^((tau + C)/M) - 1) T / tau

(Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 2006). Its optimum is
tau = M (1 + W(-e^(-1 - C/M))), with Lambert's W; Young's sqrt(2 C M) (CACM 1974) and Daly's series approximate it.

A checkpoint in two stages stops the job only while states are copied to the hosts' memory; hosts then write them to the
store for ``drain`` s while work goes on (Jiang and others, "MegaScale", NSDI 2024). A failure before the end of that
falls back on the checkpoint before. From a restart to the first that is safe no failure may come for tau + C + drain,
from there to each next for tau + C, which gives the mean in closed form too.

Functions take floats or arrays and return the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

STATE = 14.0
"""B of a checkpoint per parameter: bf16 weights, and fp32 weights and two moments of Adam. A trillion parameters made
13.8 TB (Narayanan and others, SC 2021)."""
WEIGHTS = 2.0
"""B of it that every copy of the model holds; the rest may be shared out."""

Value = Any
"""A float or an array of them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What it takes to write and read a job's state, s.

    Attributes:
        direct: all devices wait until the store has everything.
        stall: they wait until the hosts' memory has it.
        drain: from then until the store has it.
        read: to read it back, as long as all devices wait.
        size: B.
    """

    direct: float
    stall: float
    drain: float
    read: float
    size: float = 0.0


def checkpoint(
    params: float, *, store: float, host_link: float, network: float, split: int = 1, copies: int = 1,
    shared: bool = True, one_reader: bool = True,
) -> Checkpoint:  # fmt: skip
    """Returns what a checkpoint of a model takes.

    Args:
        params: of the model.
        store: B/s of the shared store, all hosts together.
        host_link: B/s from a device to its host.
        network: B/s of a device to others, over which what one read is passed on.
        split: devices that split one copy of the model.
        copies: of the model.
        shared: copies share out the optimizer's states (ZeRO 1 and above), so that each keeps only its part.
        one_reader: of the copies one reads the weights and passes them on (MegaScale); False = each reads its own.
    """
    size = STATE * params
    own = WEIGHTS * params / split
    rest = (STATE - WEIGHTS) * params / split / (copies if shared else 1)
    doubled = own if shared else own + rest  # what every copy needs whole
    again = (copies - 1) * split * doubled
    stall = (own + rest) / host_link
    passed = doubled / network if copies > 1 else 0.0
    read = size / store + (passed if one_reader else again / store)
    return Checkpoint(direct=stall + size / store, stall=stall, drain=size / store, read=read + stall, size=size)


def young(cost: Value, mtbf: Value) -> Value:
    """Returns Young's interval between checkpoints: s of work, from s that one costs and s between failures."""
    return np.sqrt(2.0 * np.asarray(cost) * mtbf)[()]


def daly(cost: Value, mtbf: Value) -> Value:
    """Returns Daly's higher-order interval; at a cost of twice the MTBF and more it is the MTBF."""
    half = np.asarray(cost) / (2.0 * np.asarray(mtbf))
    root = np.sqrt(half)
    found = young(cost, mtbf) * (1.0 + root / 3.0 + half / 9.0) - cost
    return np.where(half < 1.0, found, mtbf)[()]


def exact(cost: Value, mtbf: Value) -> Value:
    """Returns the interval at which the mean time is least."""
    from scipy.special import lambertw

    ratio = np.asarray(cost, dtype=np.float64) / mtbf
    inner = -np.exp(-1.0 - ratio)
    root = np.real(lambertw(inner))
    # Beside its branch point W loses digits, and Young's interval is as good as exact there.
    return np.where(ratio > 1e-10, np.asarray(mtbf) * (1.0 + root), young(cost, mtbf))[()]


def expected(work: Value, interval: Value, cost: Value, restart: Value, mtbf: Value) -> Value:
    """Returns the mean time of ``work`` s of work, a checkpoint after each ``interval`` and at the end.

    Where the interval does not divide the work, the last piece is the shorter.
    """
    whole = np.floor(np.asarray(work) / interval + 1e-9)
    rest = np.maximum(0.0, np.asarray(work) - whole * interval)
    pieces = whole * _attempt(np.asarray(interval) + cost, restart, mtbf)
    return (pieces + np.where(rest > 1e-9 * interval, _attempt(rest + cost, restart, mtbf), 0.0))[()]


def expected_staged(work: Value, interval: Value, stall: Value, drain: Value, restart: Value, mtbf: Value) -> Value:
    """Returns the mean time of ``work`` s with checkpoints in two stages, the job over when the last one is safe.

    Args:
        work: s, a multiple of the interval.
        interval: s of work between checkpoints.
        stall: s that each stops the job.
        drain: s from then until it is safe; at most interval + stall.
        restart: s from a failure until work goes on.
        mtbf: s between failures of the job.
    """
    cycle = np.asarray(interval) + stall
    fresh = _attempt(cycle + drain, restart, mtbf)
    again = np.asarray(mtbf) * np.expm1(np.asarray(restart) / mtbf)
    survives = np.exp(-cycle / mtbf)
    following = (1.0 - survives) * (np.asarray(mtbf) + again + fresh)
    return (fresh + (np.asarray(work) / interval - 1.0) * following)[()]


def _attempt(length: Value, restart: Value, mtbf: Value) -> Value:
    """Returns the mean time until ``length`` s have passed without a failure, a restart after each."""
    return np.asarray(mtbf) * np.exp(np.asarray(restart) / mtbf) * np.expm1(np.asarray(length) / mtbf)


def slowest(sigma: float, healthy: int, slow: int, slower: float, points: int = 20_001) -> float:
    """Returns the mean of the longest step of a job's machines, as a multiple of the median machine's.

    Args:
        sigma: of the logarithm of a machine's step time.
        healthy: machines.
        slow: machines beside them whose steps are longer ...
        slower: ... by this share.
        points: of the integral of 1 - F, the distribution of the longest.
    """
    from scipy.special import ndtr

    if sigma <= 0:
        return 1.0 + (slower if slow else 0.0)
    x = np.linspace(0.0, (1.0 + slower) * np.exp(9.0 * sigma), points)[1:]
    chance = ndtr(np.log(x) / sigma) ** healthy * ndtr((np.log(x) - np.log1p(slower)) / sigma) ** slow
    above = np.concatenate([[1.0], 1.0 - chance])
    return float((above.sum() - 0.5 * (above[0] + above[-1])) * x[0])
