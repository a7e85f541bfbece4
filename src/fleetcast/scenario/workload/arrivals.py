"""Traffic of a scenario: a trace as it is, sped up, or with synthetic times or lengths.

Arrival processes are named by their gaps: *poisson* exponential, *uniform* equal, *gamma* with a
coefficient of variation (above 1: bursty), *closed* none (a user sends when answered).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.rng import rng
from fleetcast.scenario.workload import sessions
from fleetcast.scenario.workload.requests import LONGEST, Requests, requests
from fleetcast.scenario.workload.serving import Arrivals, Lengths, Serving, Sessions
from fleetcast.scenario.workload.traces import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPREAD = 0.04
"""How far the outputs of a closed loop's users vary by default, as a share.

Users whose requests are exactly equal stay in step for ever: they finish in the groups in which they were admitted, and
each group waits for the prompts of all. Measured loads fall out of step. On the measured rows of vLLM and
TensorRT-LLM, told only nominal lengths, time to first token is off by 2 to 6 times as much without it
(`benchmarks.accuracy_plain`).
"""
_KINDS = ("poisson", "uniform", "gamma", "closed")
_OWNERS = {
    "rate": ("poisson", "uniform", "gamma"), "concurrency": ("closed",), "cv": ("gamma",), "ramp": ("closed",),
    "think": ("closed",),
}  # fmt: skip
"""Kinds of arrivals that read a parameter."""
_CV = 2.0
"""Of gamma gaps whose ``cv`` is left out."""
_FASTEST = 1e9
"""Requests per second that no system serves; more is a slip of the pen."""
_Z90 = 1.2815515655446004  # 90th percentile of the standard normal
# With its mean fixed, a lognormal's 90th percentile is at most exp(z^2 / 2) times the mean.
_WIDEST = math.exp(_Z90**2 / 2)


def traffic(serving: Serving, *, seed: int = 0, folder: str | Path = ".") -> Requests:
    """Returns the requests that a serving workload describes.

    Args:
        serving: the scenario's workload.
        seed: of synthetic times and lengths; equal seeds give equal requests.
        folder: where a relative trace path starts.

    Raises:
        SpecError: a part is missing, contradictory or out of range; the trace cannot be read.
    """
    _refuse_idle(serving)
    asked = serving.sessions
    if asked is not None:
        closed = serving.arrivals is not None and serving.arrivals.kind == "closed"
        sessions.check(asked, trace=serving.trace is not None, closed=closed)
    found = _traffic(serving, seed, folder)
    if asked is None or not asked.system or asked.turns > 1:
        return found
    if found.parent is not None:
        raise SpecError(
            "workload.sessions.system", "stands beside a trace that says what its prompts share", value=asked.system,
            limit="a trace without prefix_tokens or hash_ids", hint="Leave it out",
        )  # fmt: skip
    return sessions.begin_alike(found, asked.system)


def _traffic(serving: Serving, seed: int, folder: str | Path) -> Requests:
    if serving.trace is None:
        if serving.arrivals is None or serving.lengths is None:
            lacking = "arrivals" if serving.arrivals is None else "lengths"
            raise SpecError(
                "workload.trace", "is missing", limit=f"a trace, or else workload.{lacking} too",
                hint='Write e.g. trace = "azure-conv-2023"',
            )  # fmt: skip
        return generate(serving.arrivals, serving.lengths, serving.sessions, seed=seed)
    found = read(serving.trace, folder)
    notes = list(found.notes)
    if serving.requests is not None and serving.requests > len(found):
        notes.append(f"workload.requests {serving.requests:,}: the trace has {len(found):,}")
    found = found.slice(0, min(serving.requests or len(found), len(found)))
    if serving.lengths is not None:
        if found.session is not None:
            notes.append(
                "workload.lengths: the trace's sessions and shared prefixes do not fit other lengths, left out"
            )
        users = (serving.arrivals.concurrency if serving.arrivals is not None else None) or 0
        prompt, output = lengths(serving.lengths, len(found), seed, users)
        notes += assumed(serving.lengths, users)
        found = replace(found, prompt=prompt, output=output, session=None, prefix=None, parent=None)
    if serving.arrivals is not None:
        if serving.lengths is not None:
            notes.append("arrivals and lengths replace all of the trace but the number of its requests")
        return _retime(replace(found, notes=tuple(notes)), serving.arrivals, seed)
    found = replace(found, notes=tuple(notes))
    if not found.timed:
        raise SpecError(
            "workload.trace", "has no arrival times", value=serving.trace,
            hint='Add e.g. arrivals = { kind = "poisson", rate = "4 /s" }',
        )  # fmt: skip
    return found.speed_up(serving.speed_up)


def _refuse_idle(serving: Serving) -> None:
    """Refuses keys that nothing would read."""
    arrivals = serving.arrivals
    if serving.trace == "":
        raise SpecError("workload.trace", "is empty", limit="a packaged trace or a file", hint="Or leave it out")
    if serving.speed_up != 1 and (arrivals is not None or serving.trace is None):
        problem = "has no trace to speed up" if serving.trace is None else "contradicts workload.arrivals"
        raise SpecError(
            "workload.speed_up", problem, value=serving.speed_up, limit="1 beside arrivals",
            hint="Raise arrivals.rate instead",
        )  # fmt: skip
    if serving.requests is not None and (serving.trace is None or (arrivals is not None and arrivals.requests)):
        problem = "counts the requests of a trace" if serving.trace is None else "stands beside arrivals.requests"
        raise SpecError(
            "workload.requests", problem, value=serving.requests, limit="one count of requests",
            hint="Write workload.arrivals.requests alone",
        )  # fmt: skip


def generate(arrivals: Arrivals, lengths_: Lengths, sessions_: Sessions | None = None, *, seed: int = 0) -> Requests:
    """Returns synthetic requests.

    Args:
        arrivals: when; must say how many.
        lengths_: how long.
        sessions_: what they have in common; conversations repeat all that was said.
        seed: equal seeds give equal requests.

    Raises:
        SpecError: a part is missing, contradictory or out of range.
    """
    if arrivals.requests is None:
        hint = "Write e.g. requests = 1000"
        raise SpecError("workload.arrivals.requests", "is missing without a trace", hint=hint)
    if sessions_ is not None and sessions_.turns > 1:
        return _conversations(arrivals, lengths_, sessions_, arrivals.requests, seed)
    users = arrivals.concurrency or 0
    prompt, output = lengths(lengths_, arrivals.requests, seed, users)
    name = f"synthetic {arrivals.kind} arrivals, {lengths_.kind} lengths"
    times = arrival_times(arrivals, arrivals.requests, seed)
    found = requests(times, prompt, output, concurrency=users, name=name)
    notes = (*found.notes, *assumed(lengths_, users))
    return replace(found, ramp=arrivals.ramp or 0.0, think=arrivals.think or 0.0, notes=notes)


def _conversations(arrivals: Arrivals, lengths_: Lengths, sessions_: Sessions, count: int, seed: int) -> Requests:
    """Returns conversations: they begin by the arrival process, at its rate over their mean number of turns."""
    arrival_times(arrivals, 1, seed)  # says what is wrong with the process before its rate is used
    assert arrivals.rate is not None

    def starts(size: int, rate: float) -> NDArray[np.float64]:
        return arrival_times(msgspec.structs.replace(arrivals, rate=rate), size, seed)

    found = sessions.converse(sessions_, count, arrivals.rate, seed, starts, lambda n: lengths(lengths_, n, seed))
    note = (
        f"synthetic conversations of {sessions_.turns:g} turns on average, {sessions_.think:g} s apart: a prompt "
        f"repeats all that was said, {found.prompt.mean():,.0f} tokens on average"
    )
    return replace(found, notes=(*found.notes, note))


def arrival_times(arrivals: Arrivals, count: int, seed: int) -> NDArray[np.float64]:
    """Returns ``count`` arrival times, s, not decreasing; all 0 for a closed loop.

    Raises:
        SpecError: unknown kind, or a parameter that is missing or belongs to another kind.
    """
    path = "workload.arrivals"
    if arrivals.kind not in _KINDS:
        raise SpecError(
            f"{path}.kind", "is unknown", value=arrivals.kind, limit=f"one of {', '.join(_KINDS)}",
            hint=closest(arrivals.kind, _KINDS),
        )  # fmt: skip
    closed = arrivals.kind == "closed"
    for name, owners in _OWNERS.items():
        if arrivals.kind not in owners and getattr(arrivals, name) is not None:
            raise SpecError(
                f"{path}.{name}", f"contradicts kind = '{arrivals.kind}'", value=getattr(arrivals, name),
                limit=f"only with kind = {' or '.join(owners)}", hint=f"Leave {name} out",
            )  # fmt: skip
    needed = "concurrency" if closed else "rate"
    if not getattr(arrivals, needed):
        example = "concurrency = 16" if closed else 'rate = "4 /s"'
        raise SpecError(
            f"{path}.{needed}", f"is needed by kind = '{arrivals.kind}'",
            value=getattr(arrivals, needed), limit="above 0", hint=f"Write e.g. {example}",
        )  # fmt: skip
    if closed or arrivals.rate is None:
        return np.zeros(count)
    if arrivals.rate > _FASTEST:
        raise SpecError(
            f"{path}.rate", "is out of range", value=arrivals.rate, limit=f"at most {_FASTEST:g} /s",
            hint="Is the unit right?",
        )  # fmt: skip
    gap = 1.0 / arrivals.rate
    if arrivals.kind == "uniform":
        return np.arange(count, dtype=np.float64) * gap
    draw = rng(seed, "arrivals")
    if arrivals.kind == "poisson":
        return np.cumsum(draw.exponential(gap, count))
    variance = (_CV if arrivals.cv is None else arrivals.cv) ** 2
    return np.cumsum(draw.gamma(1.0 / variance, gap * variance, count))


def lengths(spec: Lengths, count: int, seed: int, users: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns prompt and output tokens, int64[count] each, at least 1.

    Args:
        spec: the scenario's lengths.
        count: requests.
        seed: equal seeds give equal lengths.
        users: of a closed loop, 0 = requests arrive by the clock: decides the default spread.

    Raises:
        SpecError: unknown kind, or a parameter that is missing, superfluous or out of range.
    """
    kinds = ("fixed", "lognormal")
    if spec.kind not in kinds:
        raise SpecError(
            "workload.lengths.kind", "is unknown", value=spec.kind, limit="fixed or lognormal",
            hint=closest(spec.kind, kinds),
        )  # fmt: skip
    if spec.spread is not None and spec.kind != "fixed":
        raise SpecError(
            "workload.lengths.spread", "contradicts kind = 'lognormal'", value=spec.spread,
            hint="Leave it out: prompt_p90 and output_p90 say how lengths vary",
        )  # fmt: skip
    columns = []
    for name, mean, p90 in (
        ("prompt", spec.prompt, spec.prompt_p90),
        ("output", spec.output, spec.output_p90),
    ):
        path = f"workload.lengths.{name}"
        if mean > LONGEST:
            raise SpecError(path, "is too long", value=mean, limit=f"at most {LONGEST:,} tokens")
        if spec.kind == "fixed":
            if p90 is not None:
                raise SpecError(
                    f"{path}_p90", "contradicts kind = 'fixed'", value=p90,
                    hint="Leave it out, or write kind = 'lognormal'",
                )  # fmt: skip
            columns.append(np.full(count, max(1, round(mean)), dtype=np.int64))
            continue
        sigma = _sigma(mean, p90, path)
        draw = rng(seed, "lengths", name)
        tokens = draw.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
        columns.append(np.clip(np.rint(tokens), 1, LONGEST).astype(np.int64))
    spread = spec.spread if spec.spread is not None else default_spread(spec, users)
    return columns[0], _varied(columns[1], spread, seed) if spread else columns[1]


def default_spread(spec: Lengths, users: int) -> float:
    """Returns by which share fixed outputs vary where the scenario does not say: see `SPREAD`."""
    return SPREAD if spec.kind == "fixed" and spec.spread is None and users > 1 else 0.0


def assumed(spec: Lengths, users: int) -> tuple[str, ...]:
    """Returns a sentence where lengths vary that the scenario calls fixed."""
    if not default_spread(spec, users):
        return ()
    return (
        f"outputs vary by ±{SPREAD:.0%} around {spec.output:g} tokens, since exactly equal requests would march in "
        "step: workload.lengths.spread = 0 makes them equal",
    )


def _varied(tokens: NDArray[np.int64], spread: float, seed: int) -> NDArray[np.int64]:
    """Each length times 1 to 1 ± spread, uniform; requests 2k and 2k + 1 differ by as much up as down."""
    draw = rng(seed, "lengths", "spread").uniform(-spread, spread, len(tokens) // 2)
    shift = np.rint(draw * tokens[: 2 * len(draw) : 2]).astype(np.int64)
    shift = np.clip(shift, 1 - tokens[: 2 * len(draw) : 2], tokens[: 2 * len(draw) : 2] - 1)
    out = tokens.copy()
    out[0 : 2 * len(draw) : 2] += shift
    out[1 : 2 * len(draw) : 2] -= shift
    return out


def _sigma(mean: float, p90: float | None, path: str) -> float:
    """The smaller sigma of a lognormal with this mean and 90th percentile.

    mean = exp(mu + s^2/2) and p90 = exp(mu + z s) give s^2/2 - z s + ln(p90/mean) = 0.
    """
    limit = f"{mean:g} (the mean) to {mean * _WIDEST:.4g}"
    if p90 is None:
        raise SpecError(f"{path}_p90", "is needed by kind = 'lognormal'", limit=limit)
    if not mean <= p90 <= mean * _WIDEST:
        raise SpecError(
            f"{path}_p90", "fits no lognormal of that mean", value=p90, limit=limit,
            hint="Check that both are tokens of the same column",
        )  # fmt: skip
    return _Z90 - math.sqrt(max(0.0, _Z90**2 - 2 * math.log(p90 / mean)))


def _retime(found: Requests, arrivals: Arrivals, seed: int) -> Requests:
    """The lengths of a trace with synthetic times; a short trace starts over."""
    count = arrivals.requests or len(found)
    times = arrival_times(arrivals, count, seed)
    concurrency = arrivals.concurrency or 0
    pace: dict[str, Any] = {"ramp": arrivals.ramp or 0.0, "think": arrivals.think or 0.0}
    if count <= len(found):
        return replace(found.slice(0, count), arrival=times, timed=True, concurrency=concurrency, **pace)
    note = f"{count} requests from a trace of {len(found)}: its lengths start over"
    return Requests(
        times, np.resize(found.prompt, count), np.resize(found.output, count),
        concurrency=concurrency, name=found.name, notes=(*found.notes, note), **pace,
    )  # fmt: skip
