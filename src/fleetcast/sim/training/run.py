"""The weeks of a long training job: iterations, checkpoints, failures, restarts, spares, slow machines.

Nothing happens between events, so the clock jumps from one to the next: a checkpoint written, a checkpoint safe in the
store, a failure, a restart. Every second of the run goes under one of `TERMS`, which add up to the whole:

- useful: iterations that count, at the pace of a job without slow machines; straggling: what slow machines add to them;
- checkpoint: stops for checkpoints that count, the wait for the last one among them;
- lost: work and checkpoints that a failure threw away;
- detect: from a failure until it is known; waiting: for a machine where no spare is left; restart: starting and
  reading the last checkpoint.

A failure strikes whatever the job does: in a restart it begins the restart again. Differs from MegaScale (Jiang and
others, NSDI 2024): its machines, causes and times are inputs here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.cost.training.checkpoints import Checkpoint
from fleetcast.policy.recover import Decision, Policy, View
from fleetcast.sim.training.striking import Failure, failures

TERMS = ("useful", "straggling", "checkpoint", "lost", "detect", "waiting", "restart")
DAY = 86400.0
MOST = 100_000
"""Failures after which a run is given up: the job never ends."""


class Cause(NamedTuple):
    """A kind of failure: its share of all, s until it is known, and whether it takes its machine away."""

    name: str
    share: float
    detect: float
    machine: bool = True


@dataclass(frozen=True, kw_only=True)
class LongJob:
    """A job and the machines that it runs on.

    Attributes:
        iterations: of the whole job.
        iteration: s of each without slow machines.
        machines: nodes of the job.
        spares: nodes beside them.
        mtbf: s between failures of one node; infinite = none.
        restart: s from knowing of a failure until the checkpoint is read.
        checkpoint: what writing and reading one takes.
        causes: kinds of failure; their shares are made to add up to 1.
        slow: chance that a node is a slow one.
        slower: by which share its steps are longer; all wait for it.
        notice: s of training until slow nodes are known.
        swap: s to replace slow nodes besides reading the checkpoint.
    """

    iterations: int
    iteration: float
    machines: int
    checkpoint: Checkpoint
    mtbf: float = math.inf
    spares: int = 0
    restart: float = 300.0
    causes: tuple[Cause, ...] = (Cause("failure", 1.0, 600.0),)
    slow: float = 0.0
    slower: float = 0.0
    notice: float = 600.0
    swap: float = 300.0

    def __post_init__(self) -> None:
        """Refuses a job that cannot be.

        Raises:
            SpecError: no iteration, machine or cause, or a number that is out of range.
        """
        for name, low in (("iterations", 1), ("machines", 1), ("spares", 0)):
            if getattr(self, name) < low:
                raise SpecError(f"job.{name}", "is out of range", value=getattr(self, name), limit=f"at least {low}")
        for name in ("iteration", "mtbf"):
            if not getattr(self, name) > 0:
                raise SpecError(f"job.{name}", "is out of range", value=getattr(self, name), limit="above 0 s")
        for name in ("restart", "slow", "slower", "notice", "swap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"job.{name}", "is out of range", value=getattr(self, name), limit="0 and above")
        if self.slow > 1:
            raise SpecError("job.slow", "is out of range", value=self.slow, limit="0 to 1", hint="It is a share")
        if not sum(cause.share for cause in self.causes) > 0:
            raise SpecError("job.causes", "have no shares", limit="a share above 0", hint="Leave causes out")

    @property
    def between(self) -> float:
        """Mean time between failures of the whole job, s."""
        return self.mtbf / self.machines

    @property
    def detect(self) -> float:
        """Mean time until a failure is known, s."""
        return sum(c.share * c.detect for c in self.causes) / sum(c.share for c in self.causes)


@dataclass(frozen=True, kw_only=True)
class LongRun:
    """What became of a job.

    Attributes:
        total: s from the start until the last checkpoint is safe.
        terms: s by what it did, see ``TERMS``; they add up to ``total``.
        failures: that struck the job, by cause.
        restarts: from a checkpoint, evictions among them.
        evicted: slow machines that were replaced.
        checkpoints: written, those that were lost too.
        catch_up: s, mean time to make again what a failure threw away.
        down: s, mean time from a failure until work went on.
        spans: (start, s, what) of everything, where it was asked for; what: train, checkpoint, detect, ...
        marks: (time, iterations done) at every event, likewise.
    """

    total: float
    terms: Mapping[str, float]
    failures: Mapping[str, int]
    restarts: int
    evicted: int
    checkpoints: int
    catch_up: float
    down: float
    spans: Sequence[tuple[float, float, str]] = field(default=(), repr=False)
    marks: Sequence[tuple[float, int]] = field(default=(), repr=False)

    @property
    def effective(self) -> float:
        """Share of the time in which iterations were made that count, at the pace of healthy machines."""
        return self.terms["useful"] / self.total


def long_run(
    job: LongJob, policy: Policy, *, seed: int = 0, striking: Iterator[Failure] | None = None, record: bool = False
) -> LongRun:
    """Returns what becomes of a job under a policy of ``policy/recover``.

    Args:
        job: what is trained on what.
        policy: decides checkpoints and evictions.
        seed: of failures, causes and slow machines; the same seed strikes the same job alike under any policy.
        striking: failures in order of time; None = drawn from the job's ``mtbf``, exponential, repaired in a day.
        record: keep spans and marks; changes no result.

    Raises:
        SpecError: the job fails so often that it never ends.
    """
    coming = failures(job.machines, job.mtbf, repair=DAY, seed=seed) if striking is None else striking
    return _Run(job, policy, coming, seed, record).go()


class _Run:
    """State of a run: the clock, what is done, what is safe, and the seconds so far."""

    def __init__(self, job: LongJob, policy: Policy, coming: Iterator[Failure], seed: int, record: bool) -> None:
        self.job, self.policy, self.coming = job, policy, coming
        self.now, self.done, self.safe = 0.0, 0, 0
        self.spent = dict.fromkeys(TERMS, 0.0)
        self.open = dict.fromkeys(TERMS[:3], 0.0)  # since the last checkpoint
        self.held = dict.fromkeys(TERMS[:3], 0.0)  # before it, while it is not safe yet
        self.draining: tuple[float, int] | None = None  # safe when, and how many iterations it holds
        self.next = next(coming, None)
        self.causes = rng(seed, "long run", "causes")
        self.quality = rng(seed, "long run", "slow")
        self.slow = (
            {int(m) for m in np.flatnonzero(self.quality.random(job.machines) < job.slow)} if job.slow else set()
        )
        self.known_at = job.notice
        self.free, self.away = job.spares, list[float]()
        self.struck, self.restarts, self.evicted, self.written = dict[str, int](), 0, 0, 0
        self.record, self.marks = record, [(0.0, 0)]
        self.spans: list[tuple[float, float, str]] = []
        shares = np.cumsum([c.share for c in job.causes])
        self.shares = shares / shares[-1]

    def go(self) -> LongRun:
        job, decision = self.job, self._ask()
        while self.safe < job.iterations:
            if not self._train(decision):
                self._recover()
                decision = self._ask()
            elif self.slow and self.now >= self.known_at and self.done < job.iterations:
                decision = self._ask()
                if decision.evict and self.free >= len(self.slow):
                    if (self.open["useful"] and not self._write(decision)) or not self._evict():
                        self._recover()
                    decision = self._ask()
        fell = sum(self.struck.values())
        down = sum(self.spent[name] for name in ("detect", "waiting", "restart"))
        return LongRun(
            total=self.now, terms=dict(self.spent), failures=dict(self.struck), restarts=self.restarts,
            evicted=self.evicted, checkpoints=self.written, catch_up=self.spent["lost"] / fell if fell else 0.0,
            down=down / fell if fell else 0.0, spans=tuple(self.spans), marks=tuple(self.marks),
        )  # fmt: skip

    def _ask(self) -> Decision:
        job, write = self.job, self.job.checkpoint
        known = bool(self.slow) and self.now >= self.known_at
        self._return()
        return self.policy.recover(
            View(
                iteration=job.iteration, direct=write.direct, stall=write.stall, drain=write.drain,
                restart=job.detect + job.restart + write.read, mtbf=job.between,
                remaining=(job.iterations - self.done) * job.iteration, slower=job.slower if known else 0.0,
                swap=job.swap + write.read, slow=len(self.slow) if known else 0, spares=self.free,
            )
        )  # fmt: skip

    def _train(self, decision: Decision) -> bool:
        """Works until the next checkpoint is written, or slow machines are known; False = a failure came before."""
        job = self.job
        every = max(1, round(min(decision.interval / job.iteration, job.iterations)))
        goal = min(job.iterations, self.done + every)
        each = job.iteration * (1.0 + (job.slower if self.slow else 0.0))
        noticed = goal
        if self.slow and self.now < self.known_at:
            noticed = self.done + math.ceil((self.known_at - self.now) / each)
        count, begin = min(goal, noticed) - self.done, self.now
        end = begin + count * each
        if self._fails_before(end):
            return False
        self._settle(end)
        self.open["useful"] += count * job.iteration
        self.open["straggling"] += count * each - count * job.iteration
        self.now, self.done = end, self.done + count
        self._log(begin, end - begin, "train")
        return noticed < goal or self._write(decision)

    def _write(self, decision: Decision) -> bool:
        """Writes a checkpoint, the last one until it is safe; False = a failure came before."""
        job, begin = self.job, self.now
        # A host's memory holds one checkpoint: the next waits until the store has the last.
        start = max(begin, self.draining[0]) if self.draining else begin
        end = start + (job.checkpoint.stall if decision.staged else job.checkpoint.direct)
        safe = end + (job.checkpoint.drain if decision.staged else 0.0)
        until = safe if self.done == job.iterations else end
        if self._fails_before(until):
            return False
        self._settle(end)
        self.open["checkpoint"] += until - begin
        self.now, self.written = until, self.written + 1
        self._log(begin, until - begin, "checkpoint")
        self.held, self.open = self.open, dict.fromkeys(TERMS[:3], 0.0)
        self.draining = (safe, self.done)
        self._settle(until)
        return True

    def _fails_before(self, end: float) -> bool:
        return self.next is not None and self.next.time < end

    def _settle(self, time: float) -> None:
        """Makes the checkpoint that drains safe, if it is so by ``time``."""
        if self.draining is not None and self.draining[0] <= time:
            self.safe = self.draining[1]
            self.draining = None
            self._commit(self.held)

    def _commit(self, ledger: dict[str, float]) -> None:
        for name in ledger:
            self.spent[name] += ledger[name]
            ledger[name] = 0.0

    def _recover(self) -> None:
        """Falls back on the last safe checkpoint, and restarts until that succeeds."""
        assert self.next is not None, "a failure is what brings us here"
        struck = self.next
        self._settle(struck.time)
        begun = struck.time - self.now  # of work, or of a checkpoint that is no longer written
        longer = self.job.slower if self.slow else 0.0
        made = min(int(begun / self.job.iteration / (1.0 + longer)), self.job.iterations - self.done)
        self._log(self.now, begun, "train")
        self.spent["lost"] += sum(self.open.values()) + sum(self.held.values()) + begun
        self.open, self.held = dict.fromkeys(TERMS[:3], 0.0), dict.fromkeys(TERMS[:3], 0.0)
        self.draining, self.now = None, struck.time
        self._mark(self.done + made)
        self._mark(self.safe)
        self.done, wanted = self.safe, 0
        while True:
            cause = self._strike()
            wanted += cause.machine
            known = self.now + cause.detect
            ready = max(known, self._available(wanted, known))
            end = ready + self.job.restart + self.job.checkpoint.read
            stop = self.next.time if self.next is not None and self.next.time < end else end
            for name, a, b in (("detect", self.now, known), ("waiting", known, ready), ("restart", ready, end)):
                taken = max(0.0, min(b, stop) - a)
                self.spent[name] += taken
                self._log(a, taken, name)
            self.now = stop
            if stop == end:
                break
        self._return()
        self.free -= wanted
        self.restarts += 1
        self._mark(self.done)

    def _strike(self) -> Cause:
        """Takes note of the failure at hand: its cause, the machine that is away, who takes its place."""
        struck = self.next
        assert struck is not None, "the caller looked"
        self.next = next(self.coming, None)
        cause = self.job.causes[int(np.searchsorted(self.shares, self.causes.random(), side="right"))]
        self.struck[cause.name] = self.struck.get(cause.name, 0) + 1
        if sum(self.struck.values()) > MOST:
            raise SpecError(
                "job.mtbf", "is so short that the job never ends", value=self.job.mtbf, hint="Save more often"
            )
        if cause.machine:
            heapq.heappush(self.away, struck.time + struck.repair)
            if self.quality.random() < self.job.slow:
                self.known_at = struck.time + self.job.notice
                self.slow.add(struck.machine)
            else:
                self.slow.discard(struck.machine)
        return cause

    def _available(self, wanted: int, time: float) -> float:
        """Returns when ``wanted`` machines are there: now, or as those that are away come back."""
        self._return()
        lacking = wanted - self.free
        return time if lacking <= 0 else heapq.nsmallest(lacking, self.away)[-1]

    def _return(self) -> None:
        while self.away and self.away[0] <= self.now:
            heapq.heappop(self.away)
            self.free += 1

    def _evict(self) -> bool:
        """Replaces slow machines once the last checkpoint is safe: False = a failure came before."""
        job, begin = self.job, self.now
        end = (self.draining[0] if self.draining else begin) + job.swap + job.checkpoint.read
        if self._fails_before(end):
            return False
        self._settle(end)
        self.free -= len(self.slow)
        for _ in self.slow:
            heapq.heappush(self.away, begin + DAY)
        self.evicted, self.restarts = self.evicted + len(self.slow), self.restarts + 1
        self.slow = {machine for machine in sorted(self.slow) if self.quality.random() < job.slow}
        self.spent["restart"] += end - begin
        self._log(begin, end - begin, "restart")
        self.now, self.known_at = end, end + job.notice
        return True

    def _log(self, start: float, taken: float, what: str) -> None:
        if self.record and taken > 0:
            self.spans.append((start, taken, what))
            if start + taken == self.now:
                self._mark(self.done)

    def _mark(self, done: int) -> None:
        if self.record:
            self.marks.append((self.now, done))
