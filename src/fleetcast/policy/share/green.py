"""Work waits for clean hours and goes to clean places, as long as its deadline allows.

After "Let's Wait Awhile" (Wiesner, Behnke, Scheinert, Gontarska and Thamsen, Middleware 2021), which shifts a single
job: to the best start (non-interrupting), or to its cheapest hours (interrupting). Here jobs share devices, so each is
booked into what those before it have left, the job with the least slack first, over all kinds of devices: relocation is
a choice among kinds. Bookings are made anew at every decision; the first of them that lies ahead is when to be woken.

A start that is not the first costs `restart` seconds of a job's devices: then the cheapest hours are those of a plan
in which every start is paid with work (`kernels.hours`), and jobs choose in the order of arrival, so that plans last.

A job that fits nowhere before its deadline takes the earliest end. One without a deadline does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np

from fleetcast.base.units import Quantity
from fleetcast.kernels import hours
from fleetcast.policy.share.board import Board, Job
from fleetcast.policy.share.rule import quickest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rates = dict[int, NDArray[np.float64]]
    Starts = dict[Job, tuple[float, int]]
    Hours = dict[Job, NDArray[np.int64]]

Time = Annotated[float, Quantity("s", low=0, high=1e7)]
Step = Annotated[float, Quantity("s", low=1, high=1e6)]
MOST = 20_000
"""Slots of a calendar at most; what lies beyond is planned when it comes nearer."""
NEARLY = 1e-9
TRIES = 4
"""Orders that are tried where jobs would be late."""
Plan = TypeVar("Plan")
Booked = tuple[dict[Job, Plan], set[int], float]
"""Plans by job, who would be late, and g."""


class Green:
    """The cleanest hours and place that a job's deadline leaves.

    Args:
        interrupt: whether running jobs may be stopped in dirty hours, and moved.
        defer: whether jobs wait at all; without, they only go to the cleanest place with room.
        step: s, of the slots in which it plans; an hour saves interruptions where grids are hourly.
        margin: s before its deadline at which a job is planned to have ended.
    """

    kind = "green"

    def __init__(
        self, *, interrupt: bool = False, defer: bool = True, step: Step = 900.0, margin: Time = 3600.0
    ) -> None:  # fmt: skip
        if interrupt and not defer:
            raise ValueError("interrupt needs defer: who may not wait is not stopped")
        self.interrupt, self.defer, self.step, self.margin = interrupt, defer, step, margin
        self.booked: Starts = {}

    def share(self, board: Board) -> None:
        """Books every job, starts those whose time is now, and asks to be woken for the next."""
        if not board.jobs:
            return
        rates = {job.id: _rates(board, job) for job in board.jobs}
        slack = {
            job.id: job.deadline - board.now - job.remaining / max(rates[job.id].max(), 1e-300) for job in board.jobs
        }
        asked = sorted(board.jobs, key=lambda job: (slack[job.id], job.id))
        alarm = self._interrupting(board, asked, rates) if self.interrupt else self._whole(board, asked, rates)
        if alarm < inf:
            board.wake(alarm)

    def _whole(self, board: Board, asked: list[Job], rates: Rates) -> float:
        """Lets run what runs and starts what should; returns when the next should start."""
        free = [board.free(kind) for kind in range(len(board.kinds))]
        running = [job for job in board.jobs if job.held and board.keep(job)]
        waiting = [job for job in asked if not job.granted]
        if not all(self.booked.get(job, (-inf, 0))[0] >= board.now - NEARLY for job in waiting):
            self.booked = {}
            if waiting:
                empty = calendar(board, free, asked, rates, self.step)
                for job in running:
                    empty.runs(job, rates[job.id])

                def book(order: list[Job]) -> tuple[Starts, set[int], float]:
                    book, found, late = replace(empty, free=empty.free.copy()), {}, set()
                    for job in order:
                        slot, kind, ends = self._start(job, rates[job.id], book)
                        found[job] = (float(book.edges[slot]) if slot >= 0 else board.now, kind)
                        if ends > job.deadline:
                            late.add(job.id)
                    return found, late, empty.grams(book)

                self.booked = squeezed([waiting, _large(waiting, rates)], book)
        alarm = inf
        for job in waiting:
            at, kind = self.booked[job]
            if at > board.now + NEARLY:
                alarm = min(alarm, at)
            elif kind >= 0 and not board.grant(job, job.demand, kind):  # it was planned for a gap that is not there yet
                alarm = min(alarm, self.step * (np.floor(board.now / self.step) + 1.0))
            elif kind < 0:  # it ends beyond the calendar
                any(board.free(k) >= job.demand and board.grant(job, job.demand, k) for k in quickest(board, job))
        return alarm

    def _interrupting(self, board: Board, asked: list[Job], rates: Rates) -> float:
        """Lets run whom this slot is cheapest for; returns when the next slot changes that."""
        free = [board.free(kind) for kind in range(len(board.kinds))]
        empty = calendar(board, free, asked, rates, self.step)

        def book(order: list[Job]) -> Booked[NDArray[np.int64]]:
            book, found, late = replace(empty, free=empty.free.copy()), {}, set()
            for job in order:
                found[job], ends = self._hours(job, rates[job.id], book, board.restart)
                if ends > job.deadline:
                    late.add(job.id)
            return found, late, empty.grams(book)

        orders = [asked, _large(asked, rates)]
        if board.restart > 0:  # an order that never changes: nobody is stopped for who comes later
            orders = [sorted(asked, key=lambda job: job.id)]
        plans = squeezed(orders, book)
        alarm = inf
        for job, plan in plans.items():  # what stays is granted first, lest a newcomer takes its nodes
            if plan[0] >= 0 and dict(job.held) == {int(plan[0]): job.demand}:
                board.keep(job)
            changed = np.flatnonzero(plan[1:] != plan[:-1])
            if len(changed):
                alarm = min(alarm, float(empty.edges[changed[0] + 1]))
        for job, plan in plans.items():
            if plan[0] >= 0 and not job.granted:
                board.grant(job, job.demand, int(plan[0]))
        return alarm

    def _start(self, job: Job, rates: NDArray[np.float64], book: Calendar) -> tuple[int, int, float]:
        """Books a job whole; returns the slot in which it starts, the kind and its end (s); (-1, -1, inf) = nowhere."""
        best, found = (inf, inf), (-1, -1)
        soon, first = inf, (-1, -1)
        for kind in np.argsort(-rates, kind="stable").tolist():
            if rates[kind] <= 0:
                continue
            takes = job.remaining / float(rates[kind])
            ends = book.edges[:-1] + takes
            open_ = book.open(kind, job.demand, ends)
            if not open_.any():
                continue
            now = int(np.argmax(open_))
            if ends[now] < soon:
                soon, first = float(ends[now]), (now, kind)
            if not self.defer or job.deadline == inf:
                open_[1:] = False
            elif ends[0] <= job.deadline:  # who can still make it, if only at once, must not wait longer
                open_[1:] &= ends[1:] <= job.deadline - self.margin
            else:
                open_[:] = False
            if not open_.any():
                continue
            grams = np.where(open_, book.power[kind] * book.between(kind, ends), inf)
            slot = int(np.argmax(grams <= grams.min() * (1.0 + NEARLY)))
            if (float(grams[slot]) * (1.0 + NEARLY), float(ends[slot])) < best:
                best, found = (float(grams[slot]), float(ends[slot])), (slot, kind)
        slot, kind = found if found[0] >= 0 else first
        if slot < 0:
            return slot, kind, inf
        end = float(book.edges[slot]) + job.remaining / float(rates[kind])
        book.take(kind, job.demand, slot, end)
        return slot, kind, end

    def _hours(
        self, job: Job, rates: NDArray[np.float64], book: Calendar, restart: float
    ) -> tuple[NDArray[np.int64], float]:  # fmt: skip
        """Books a job's cheapest slots; returns i8[S], the kind it is on in each, -1 = none, and the end (s)."""
        last = job.deadline - self.margin if self.defer else inf
        length = np.clip(last - book.edges[:-1], 0.0, book.length)
        room = (book.free >= job.demand - NEARLY) & (rates > 0)[:, None]
        if restart > 0:
            return self._paid(job, rates, room, length, book, restart)
        plan = np.full(len(book.edges) - 1, -1)
        each = np.divide(1.0, rates, out=np.full(len(rates), inf), where=rates > 0)
        cost = np.where(room, (book.power * np.minimum(each, 1e300))[:, None] * book.carbon, inf)
        for kind in job.held:  # among equals it stays where it is
            cost[kind] *= 1.0 - NEARLY
        where = np.argmin(cost, axis=0)
        slots = np.arange(len(plan))
        done = np.where(room[where, slots], rates[where] * length, 0.0)
        if job.deadline == inf or done.sum() < job.remaining * (1.0 - NEARLY):
            return self._at_once(job, rates, room, book, plan)
        order = np.argsort(cost[where, slots], kind="stable")
        order = order[done[order] > 0]
        count = int(np.searchsorted(np.cumsum(done[order]), job.remaining * (1.0 - NEARLY))) + 1
        chosen = order[:count]
        plan[chosen] = where[chosen]
        book.free[where[chosen], chosen] -= job.demand
        return plan, float(book.edges[chosen.max()])

    def _paid(
        self, job: Job, rates: NDArray[np.float64], room: NDArray[np.bool_], length: NDArray[np.float64],
        book: Calendar, restart: float,
    ) -> tuple[NDArray[np.int64], float]:  # fmt: skip
        """As `_hours`, where every start but a job's first costs ``restart`` s of its devices."""
        held = max(job.held, key=lambda kind: job.held[kind], default=-1)
        fresh, lost, need = job.attained <= 0, rates * restart, job.remaining * (1.0 - NEARLY)
        grams = np.where(room & (length > 0), book.power[:, None] * book.carbon * length, inf)
        done = rates[:, None] * length
        plan = hours.cheapest(grams, done, lost, need, held, fresh) if job.deadline < inf else None
        if plan is None:
            cleaner = rates[:, None] * book.length * (1.0 - NEARLY * book.carbon)  # of two equals
            plan, last = hours.soonest(np.where(room, cleaner, -1.0), lost, need, held, fresh)
        else:
            last = int(np.flatnonzero(plan >= 0).max(initial=0))
        chosen = np.flatnonzero(plan >= 0)
        book.free[plan[chosen], chosen] -= job.demand
        return plan.astype(np.int64), float(book.edges[last + 1]) if last >= 0 else inf

    def _at_once(
        self, job: Job, rates: NDArray[np.float64], room: NDArray[np.bool_], book: Calendar, plan: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], float]:  # fmt: skip
        """Books a job that cannot wait: in every slot the quickest kind with room, until it is done."""
        fit = np.where(room, rates[:, None], 0.0) * (1.0 - NEARLY * book.carbon)  # the cleaner of two equals
        for kind in job.held:
            fit[kind] *= 1.0 + 1e5 * NEARLY
        where = np.argmax(fit, axis=0)
        slots = np.arange(len(plan))
        done = np.cumsum(fit[where, slots] * book.length)
        chosen = slots[(fit[where, slots] > 0) & (np.r_[0.0, done[:-1]] < job.remaining * (1.0 - NEARLY))]
        plan[chosen] = where[chosen]
        book.free[where[chosen], chosen] -= job.demand
        return plan, float(np.interp(job.remaining * (1.0 - 1e3 * NEARLY), np.r_[0.0, done], book.edges, right=inf))


def squeezed(
    orders: Sequence[list[Job]], book: Callable[[list[Job]], Booked[Plan]]
) -> dict[Job, Plan]:  # fmt: skip
    """Returns plans by job: of several orders' the one with fewer late jobs, then less carbon.

    Where jobs would be late, they choose first in a further try: "squeaky wheels" (Joslin and Clements, JAIR 1999).

    Args:
        orders: of the same jobs, the first of equals is taken.
        book: of an order the plans, who would be late, and g.
    """
    order, best, late, grams = orders[0], *book(orders[0])
    for tried in orders[1:]:
        found, behind, less = book(tried)
        if (len(behind), less) < (len(late), grams):
            order, best, late, grams = tried, found, behind, less
    least = len(late)
    for _ in range(TRIES if late else 0):
        order = [job for job in order if job.id in late] + [job for job in order if job.id not in late]
        found, late, _less = book(order)
        if len(late) < least:
            best, least = found, len(late)
        if not late:
            break
    return best


def _large(jobs: list[Job], rates: Rates) -> list[Job]:
    """Returns jobs by the device-seconds that are left of them, most first."""
    return sorted(jobs, key=lambda job: (-job.remaining * job.demand / max(float(rates[job.id].max()), 1e-300), job.id))


@dataclass
class Calendar:
    """What is free of each kind in slots of time, and what a kWh emits there.

    Attributes:
        edges: f8[S + 1], s, ascending; the first is now.
        length: f8[S], s.
        free: f8[K, S], devices that nobody has booked, on average over the slot.
        carbon: f8[K, S], g/kWh.
        power: f8[K], W that work adds to a device.
        sums: f8[K, S + 1], integral of carbon up to each edge.
    """

    edges: NDArray[np.float64]
    length: NDArray[np.float64]
    free: NDArray[np.float64]
    carbon: NDArray[np.float64]
    power: NDArray[np.float64]
    sums: NDArray[np.float64]

    def grams(self, booked: Calendar) -> float:
        """Returns what the bookings of another calendar emit beyond this one's, up to a factor."""
        return float(((self.free - booked.free) * self.carbon * self.length * self.power[:, None]).sum())

    def between(self, kind: int, ends: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns f8[S], the integral of carbon from each slot's beginning to an end of its own; inf beyond."""
        found = np.interp(ends, self.edges, self.sums[kind]) - self.sums[kind, :-1]
        return np.where(ends <= self.edges[-1], found, inf)

    def open(self, kind: int, demand: int, ends: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns bool[S], whether so many devices are free from each slot's beginning to an end of its own."""
        free = self.free[kind]
        last = np.minimum(np.searchsorted(self.edges, ends, side="left") - 1, len(free) - 1)
        full = np.r_[0, np.cumsum(free < demand - NEARLY)]
        slots = np.arange(len(free))
        part = np.minimum(1.0, (ends - np.maximum(self.edges[last], self.edges[:-1])) / self.length[last])
        head = np.where(last > slots, free >= demand - NEARLY, True)
        inner = full[last] - full[np.minimum(slots + 1, last)] == 0
        fits: NDArray[np.bool_] = head & inner & (free[last] >= demand * part - NEARLY) & (ends <= self.edges[-1])
        return fits

    def take(self, kind: int, demand: int, slot: int, end: float) -> None:
        """Books devices from a slot's beginning to an end."""
        inside = np.clip(end - self.edges[slot:-1], 0.0, self.length[slot:]) / self.length[slot:]
        self.free[kind, slot:] -= demand * inside

    def runs(self, job: Job, rates: NDArray[np.float64]) -> None:
        """Books what a job holds until it ends."""
        for kind, n in job.held.items():
            rate = float(rates[kind]) * n / job.demand
            self.take(kind, n, 0, float(self.edges[0]) + job.remaining / rate if rate > 0 else inf)


def calendar(board: Board, free: list[int], jobs: list[Job], rates: Rates, step: float) -> Calendar:
    """Returns a calendar in which nothing is booked, long enough for every deadline and twice the longest job."""
    takes = [job.remaining / best for job in jobs if (best := float(rates[job.id].max())) > 0]
    due = max((job.deadline for job in jobs if job.deadline < inf), default=board.now)
    until = min(max(due, board.now) + 2.0 * max(takes, default=0.0), board.now + MOST * step)
    first = np.floor(board.now / step + NEARLY) + 1
    edges = np.r_[board.now, step * np.arange(first, max(first + 2, np.ceil(until / step) + 1))]
    length = np.diff(edges)
    kinds = board.kinds
    carbon = np.array([board.carbon(kind, edges[:-1], edges[1:]) for kind in range(len(kinds))])
    room = np.repeat(np.array(free, float)[:, None], len(length), axis=1)
    sums = np.c_[np.zeros(len(kinds)), np.cumsum(carbon * length, axis=1)]
    return Calendar(edges, length, room, carbon, np.array([kind.power for kind in kinds]), sums)


def _rates(board: Board, job: Job) -> NDArray[np.float64]:
    """Returns f8[K], the share of a job that the devices it asks for do in a second; 0 where there are not enough."""
    return np.array([
        board.rate(job, {kind: job.demand}) if each.total >= job.demand else 0.0
        for kind, each in enumerate(board.kinds)
    ])  # fmt: skip
