"""List policies in numbers: jobs in the order of a key, each all that it asks for.

A policy that can say itself as a `Rule` is played by the compiled world too, with equal results; `deal` is the one walk
behind their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from fleetcast.policy.share.board import Board, Job

CROSSED = 1e-6
"""Device-seconds by which a sum of spans may fall short of a threshold that it has reached."""


class Rule(NamedTuple):
    """A list policy.

    Attributes:
        key: what comes first is small: "arrival"; "remaining", s of work left on its devices; "service", the same in
            device-seconds; "attained", the queue that its device-seconds so far put it in, then arrival; "share",
            the dominant share of its user (`Drf`, which walks by itself).
        preempt: whether jobs that run may have to wait again.
        backfill: "none": one that finds no room holds up those behind it; "free": they may pass; "reserve": they may
            pass where that does not delay the first that waits.
        queues: device-seconds from which a job is in the next queue.
    """

    key: Literal["arrival", "remaining", "service", "attained", "share"]
    preempt: bool = False
    backfill: Literal["none", "free", "reserve"] = "none"
    queues: tuple[float, ...] = ()


def takes(board: Board, job: Job) -> float:
    """Returns s of the whole job on the devices it asks for, where they are quickest; inf = it runs nowhere."""
    rate = max((board.rate(job, {k: job.demand}) for k in range(len(board.kinds))), default=0.0)
    return 1.0 / rate if rate > 0 else float("inf")


def queue(rule: Rule, attained: float) -> int:
    """Returns the number of the queue of a job that has had so many device-seconds."""
    return sum(attained >= limit - CROSSED for limit in rule.queues)


def order(board: Board, rule: Rule) -> list[Job]:
    """Returns the jobs that are there by the rule's key, ties by arrival."""
    return sorted(board.jobs, key=lambda job: (_key(board, rule, job), job.id))


def _key(board: Board, rule: Rule, job: Job) -> float:
    if rule.key == "remaining":
        return job.remaining * takes(board, job)
    if rule.key == "service":
        return job.remaining * takes(board, job) * job.demand
    return float(queue(rule, job.attained)) if rule.key == "attained" else 0.0


def quickest(board: Board, job: Job) -> list[int]:
    """Returns the kinds that a job runs on, quickest first."""
    if len(board.kinds) == 1:
        return [0]
    rates = [board.rate(job, {kind: job.demand}) for kind in range(len(board.kinds))]
    return sorted((k for k, rate in enumerate(rates) if rate > 0), key=lambda k: (-rates[k], k))


def deal(board: Board, rule: Rule) -> list[Job]:
    """Grants by a rule: first who runs is settled by counts, then what runs stays, then what starts is placed.

    Returns:
        The order in which jobs were asked.
    """
    asked = order(board, rule)
    room = [board.free(kind) for kind in range(len(board.kinds))]
    if not rule.preempt:
        for job in board.jobs:
            if job.held and board.keep(job):
                for kind, n in job.held.items():
                    room[kind] -= n
    stay: list[Job] = []
    start: list[tuple[Job, int]] = []
    for job in asked:
        if not any(room):
            break
        if job.granted:
            continue
        if job.held and rule.preempt and all(room[kind] >= n for kind, n in job.held.items()):
            stay.append(job)
            for kind, n in job.held.items():
                room[kind] -= n
            continue
        found = next((kind for kind in quickest(board, job) if room[kind] >= job.demand), -1)
        if found >= 0:
            start.append((job, found))
            room[found] -= job.demand
        elif rule.backfill == "none":
            break
    for job in stay:
        board.keep(job)
    for job, kind in start:
        if not board.grant(job, job.demand, kind) and rule.backfill == "none":
            break
    return asked


def reserve(board: Board, asked: Sequence[Job]) -> None:
    """Grants in order without delaying the first that finds no room: EASY backfilling. What runs stays.

    The head's reservation is on the kind on which it can start first, as far as ends are known; whoever passes there
    ends before it starts, or takes devices that it will not need.
    """
    for job in board.jobs:
        if job.held:
            board.keep(job)
    head: Job | None = None
    kept, shadow, extra = -1, 0.0, 0
    for job in asked:
        if job.granted:
            continue
        kinds = [kind for kind in quickest(board, job) if board.free(kind) >= job.demand]
        if head is None:
            if not any(board.grant(job, job.demand, kind) for kind in kinds):
                head = job
                kept, shadow, extra = _reservation(board, job)
            continue
        if not any(board.free(kind) for kind in range(len(board.kinds))):
            return
        for kind in kinds:
            ends = board.now + job.remaining / board.rate(job, {kind: job.demand})
            spare = kind == kept and ends > shadow
            if spare and job.demand > extra:
                continue
            if board.grant(job, job.demand, kind):
                extra -= job.demand if spare else 0
                break


def _reservation(board: Board, job: Job) -> tuple[int, float, int]:
    """Returns on which kind a job can start first, when (s), and how many devices are then left over."""
    best = (-1, float("inf"), 0)
    for kind in quickest(board, job):
        ends = sorted(
            (board.now + other.remaining / board.rate(other, other.granted), other.id, other.granted[kind])
            for other in board.jobs
            if kind in other.granted
        )
        free = board.free(kind)
        for at, _, n in ends:
            free += n
            if free >= job.demand:
                if at < best[1]:
                    best = (kind, at, free - job.demand)
                break
    return best
