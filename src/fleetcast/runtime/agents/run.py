"""Running a constellation: what begins where and when, what came of it, what is done when something fails.

Every step is an event: an agent comes or goes, an attempt ends, time passes. Each is dealt with at once, in one
thread, and ends with `_dispatch`, so no lock guards the books. The one thing that takes time is a planner: while it
thinks about the events so far, nothing begins (what runs goes on), so that what it edits has not begun when its edits
come; events that come meanwhile are its next batch.

Nothing hangs. A task that no connected agent can run fails after ``patience``; one whose agents go away fails after
``losses`` of them; an attempt has its timeout, the run its deadline. What failed is said, and what depends on it
is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.policy.order.tasks import Policy
from fleetcast.runtime.agents.ahead import Ahead
from fleetcast.runtime.agents.books import Attempt, Books, Estimates, Place, Said, message_of
from fleetcast.runtime.agents.messages import BadMessage, Done, Progress, Stop
from fleetcast.runtime.agents.orchestrator import Orchestrator, Peer
from fleetcast.runtime.agents.planner import Event, Planner, PlannerError
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import ENDED, OPEN, Edit, Status, Task


class Run:
    """A constellation on an orchestrator's agents.

    Args:
        orchestrator: it must have started; a run has it to itself.
        value: the constellation.
        policy: orders the tasks.
        estimates: of tasks and devices.
        places: workers by number, known before their agents are there.
        planner: edits while it runs; None = nobody.
        patience: s that a task waits for an agent that can run it.
        losses: attempts of a task that may end because their agents went away.
        deadline: s in which all must have ended.
        edit_timeout: s that a planner may think.
        watch: called with what happens: (event, task, value).
    """

    def __init__(
        self, orchestrator: Orchestrator, value: Constellation, policy: Policy, *, estimates: Estimates | None = None,
        planner: Planner | None = None, patience: float = 10.0, losses: int = 5, deadline: float = 86_400.0,
        edit_timeout: float = 60.0, places: Sequence[Place] = (),
        watch: Callable[[str, str, Any], None] | None = None,
    ) -> None:  # fmt: skip
        self.orchestrator, self.value = orchestrator, value
        self._planner, self._watch = planner, watch or (lambda event, task, value: None)
        self._patience, self._losses, self._deadline, self._edit_timeout = patience, losses, deadline, edit_timeout
        self.books = Books(policy, estimates or Said(), self._able)
        self.books.seat(places)
        self.attempts: list[Attempt] = []
        self.notes: list[str] = []
        self.strays = 0
        self.batches = 0
        self._live: dict[int, Attempt] = {}
        self._ahead = Ahead()
        self._tries: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._stranded: dict[str, float] = {}
        self._events: list[Event] = []
        self._wake, self._over = asyncio.Event(), asyncio.Event()
        self._lock = asyncio.Lock()
        self._ended: list[str] | None = None  # since it was last settled; None = look at all
        self._error: Exception | None = None
        self._still = self._zero = 0.0

    async def result(self) -> Constellation:
        """Runs until every task has ended; returns where each is."""
        self._zero = time.monotonic()
        self._still = 0.0
        for peer in self.orchestrator.up():
            self.books.enter(peer.name, peer.slots)
        self._make()
        self.orchestrator.listener = self
        work = [asyncio.create_task(self._ticking())]
        if self._planner is not None:
            work.append(asyncio.create_task(self._editing(self._planner)))
        try:
            self._go_on()
            work.append(asyncio.create_task(self._finished()))
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.orchestrator.listener = None
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            for attempt in self._live.values():
                attempt.peer.send(Stop(attempt=attempt.number))
            self._ahead.stop()
        return self.value

    async def _finished(self) -> None:
        await self._over.wait()
        if self._error is not None:
            raise self._error

    def broke(self, error: Exception) -> None:
        """Ends the run: a policy that decides what cannot be is a fault that nothing here repairs."""
        self._error = error
        self._over.set()

    async def edit(self, edits: Sequence[Edit]) -> Constellation:
        """Edits the constellation while it runs; returns it.

        Raises:
            SpecError: the edits make no sense, or break an invariant; nothing was changed.
        """
        async with self._lock:
            await self._ahead.withdraw()
            self._publish(self.value, edits)
        self._go_on()
        return self.value

    def joined(self, peer: Peer) -> None:
        """An agent is there."""
        self.books.enter(peer.name, peer.slots)
        self._changed(Event("joined", agent=peer.name))

    def left(self, peer: Peer) -> None:
        """An agent's connection has ended; what it ran may still run until its lease is over."""
        self._ahead.leave(peer)
        self._changed(Event("left", agent=peer.name))

    def settled(self, peer: Peer) -> None:
        """What an agent had is over: what it did not speak of never reached it."""
        self._now()
        for attempt in [a for a in self._live.values() if a.peer.name == peer.name and a.peer is not peer]:
            if attempt.peer.session == peer.session:
                self._gone(attempt)
        self._changed(None)

    def done(self, peer: Peer, done: Done) -> None:
        """An attempt has ended; of one that is known to have ended nothing changes."""
        now = self._now()
        if self._ahead.unbegun(done.attempt) or (attempt := self._of(peer, done.attempt)) is None:
            return
        if done.how in ("stopped", "lost", "unbegun"):
            self._gone(attempt, done.how)
        else:
            self._close(attempt, done.how, done.seconds)
            if done.how == "ok":
                self._end(attempt.task, Status.COMPLETED, done.value)
                self._follow(attempt, peer)
            else:
                self._ahead.forget(attempt)
                self._failed(attempt.task, done.error or done.how)
            self._watch(done.how, attempt.task, now)
        self._go_on()

    def progress(self, peer: Peer, progress: Progress) -> None:
        """Part of a result has come."""
        if (attempt := self._of(peer, progress.attempt)) is None:
            return
        if progress.number <= attempt.progress:
            self.strays += 1
            return
        attempt.progress = progress.number
        self._watch("progress", attempt.task, progress.value)

    def _of(self, peer: Peer, number: int) -> Attempt | None:
        """Returns an attempt that runs and is that agent's; of others it may say nothing, and that is counted."""
        attempt = self._live.get(number)
        if attempt is not None and (attempt.peer.name, attempt.peer.session) == (peer.name, peer.session):
            return attempt
        self.strays += 1
        return None

    def _able(self, task: Task, agent: str) -> bool:
        peer = self.orchestrator.peers.get(agent)
        return peer is not None and task.call in peer.calls and (
            task.device in ("", agent) or task.device in peer.kinds
        )  # fmt: skip

    def _now(self) -> float:
        now = time.monotonic() - self._zero
        if hasattr(self.books, "board"):
            self.books.board.now = now
        return now

    def _changed(self, event: Event | None) -> None:
        """Agents have come or gone: the policy starts again with those that are there."""
        self._make()
        if event is not None:
            self._happened(event)
        self._dispatch()

    def _make(self) -> None:
        now = time.monotonic() - self._zero
        alive = {p.name: p.slots for p in self.orchestrator.up() if p.returned}
        running = {a.task: (a.worker, a.until) for a in self._live.values()}
        self.books.make(self.value, alive, running, now)

    def _go_on(self) -> None:
        """After something has ended or was edited: cancels what can never begin, begins what can, or ends the run."""
        if self._held:
            return
        before = self.value
        self.value = before.settled(self._ended)
        self._ended = []
        if self.value is not before:
            self._make()
        if not self.value.left:
            self._over.set()
        self._dispatch()

    @property
    def _held(self) -> bool:
        return bool(self._events) or self._lock.locked()

    def _dispatch(self) -> None:
        """Begins what the policy wants begun."""
        if self._held:
            return
        board = self.books.board
        for worker in self.books.idle():
            if self.books.board is not board or not board.n_ready:
                break
            name = self.books.pop(worker)
            if name is not None:
                self._begin(name, worker)
        self._send_ahead()

    def _begin(self, name: str, worker: int) -> None:
        attempt = self._attempt(name, worker)
        try:
            attempt.peer.send(message_of(self.value, attempt))
        except BadMessage as error:
            self._end(name, Status.FAILED, reason=f"its message {error}")
            self._make()
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._begun(attempt)

    def _attempt(self, name: str, worker: int) -> Attempt:
        self._now()
        peer = self.orchestrator.peers[self.books.places[worker].agent]
        return self.books.attempt(self.value.tasks[name], worker, next(self.orchestrator.numbers), peer)

    def _begun(self, attempt: Attempt) -> None:
        name = attempt.task
        self.attempts.append(attempt)
        self._live[attempt.number] = attempt
        self._tries[name] = self._tries.get(name, 0) + 1
        self._stranded.pop(name, None)
        self.value = self.value.begin(name, attempt.peer.name)
        self.books.begin(name, attempt.worker, attempt.until)
        self._watch("begin", name, attempt.peer.name)

    def _send_ahead(self) -> None:
        """Lays behind what runs what is to follow it; a planner is to be asked before anything begins."""
        if self._planner is None:
            for before, name in self._ahead.wanted(self._live.values(), self.books, self.value):
                self._ahead.send(before, self._attempt(name, before.worker), self.value)

    def _follow(self, before: Attempt, peer: Peer) -> None:
        """Notes that what lay behind an attempt has begun, whatever a policy that has been started anew would do."""
        if (attempt := self._ahead.follow(before, peer)) is not None:
            attempt.shift(self._now())
            wanted = self.books.pop(attempt.worker)
            self._begun(attempt)
            if wanted != attempt.task:
                self._make()

    def _close(self, attempt: Attempt, how: str, seconds: float = 0.0) -> None:
        del self._live[attempt.number]
        attempt.ended, attempt.how, attempt.seconds = self._now(), how, seconds

    def _gone(self, attempt: Attempt, how: str = "gone") -> None:
        """An attempt ended through no fault of its task, which goes elsewhere."""
        self._close(attempt, how)
        self._ahead.forget(attempt)
        count = self._lost[attempt.task] = self._lost.get(attempt.task, 0) + 1
        self._watch(how, attempt.task, attempt.peer.name)
        if count > self._losses:
            self._end(attempt.task, Status.FAILED, reason=f"{count} agents went away while they ran it")
        else:
            self.value = self.value.again(attempt.task)
            self.books.again(attempt.task)

    def _failed(self, name: str, reason: str) -> None:
        if self._tries[name] <= self.value.tasks[name].retries + self._lost.get(name, 0):
            self.value = self.value.again(name)
            self.books.again(name)
        else:
            self._end(name, Status.FAILED, reason=reason)

    def _end(self, name: str, status: Status, result: Any = None, reason: str = "") -> None:
        ran = self.value.status[name] is Status.RUNNING
        self.value = self.value.end(name, status, result, reason)
        if self._ended is not None:
            self._ended.append(name)
        if ran:
            self.books.finish(name, self.value)
        self._happened(Event(status.value, task=name, agent=self.value.devices.get(name, ""), result=result,
                             reason=reason))  # fmt: skip

    def _happened(self, event: Event) -> None:
        if self._planner is not None:
            self._events.append(event)
            self._wake.set()

    async def _editing(self, planner: Planner) -> None:
        """Hands events to the planner, batch by batch, and makes its edits."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._events:
                async with self._lock:
                    batch, self._events = self._events, []
                    self.batches += 1
                    seen = self.value
                    try:
                        async with asyncio.timeout(self._edit_timeout):
                            edits = await planner.edits(seen, batch)
                        self._publish(seen, edits)
                    except TimeoutError:
                        self.notes.append(f"the planner took longer than {self._edit_timeout:g} s: nothing was edited")
                    except Exception as error:  # a planner is never a reason for tasks to fail
                        kind = "" if isinstance(error, PlannerError | SpecError) else f"{type(error).__name__}: "
                        self.notes.append(f"nothing was edited: {kind}{error}")
            self._go_on()

    def _publish(self, seen: Constellation, edits: Sequence[Edit]) -> None:
        """Makes edits of what was seen, and puts them together with what happened since."""
        if edits:
            self._now()
            self.value = seen.apply(edits).synchronised(self.value)
            self._ended = None
            self._make()
            self._watch("edited", "", len(edits))

    async def _ticking(self) -> None:
        """Looks for what time alone changes."""
        tick = min(0.1, self.orchestrator.pulse / 2)
        while True:
            await asyncio.sleep(tick)
            now = self._now()
            if now > self._deadline:
                self._give_up(f"the run's deadline of {self._deadline:g} s has passed")
                return
            sure = time.monotonic()
            for attempt in list(self._live.values()):
                if not attempt.peer.up and sure > attempt.peer.sure:
                    self._gone(attempt)
                elif attempt.peer.up and now > attempt.late:
                    self.orchestrator.drop(attempt.peer, "does not stop")
            self._strand(now)
            self._go_on()
            self._refuse_stall(now)

    def _strand(self, now: float) -> None:
        """Fails tasks that have long been ready where no agent can run them."""
        if self._held:
            return
        failed = False
        for name in self.value.ready:
            if self.books.able(name):
                self._stranded.pop(name, None)
            elif now - self._stranded.setdefault(name, now) > self._patience:
                failed = True
                task = self.value.tasks[name]
                where = f" of kind {task.device}" if task.device else ""
                self._end(name, Status.FAILED, reason=f"no connected agent{where} runs {task.call}")
        if failed:
            self._make()

    def _refuse_stall(self, now: float) -> None:
        """Ends a run in which nothing runs and the policy begins nothing that could.

        Raises:
            PolicyError: so it has been for a while.
        """
        ready = [] if self._held or self._live else [n for n in self.value.ready if self.books.able(n)]
        if not ready:
            self._still = now
        elif now - self._still > self._patience:
            said = f"{len(ready):,} tasks could run, every agent is idle"
            raise PolicyError(f"{type(self.books.policy).__name__} begins nothing: {said}")

    def _give_up(self, reason: str) -> None:
        for name, status in list(self.value.status.items()):
            if status not in ENDED:
                ended = Status.CANCELLED if status in OPEN else Status.FAILED
                self.value = self.value.end(name, ended, reason=reason)
        for attempt in list(self._live.values()):
            attempt.peer.send(Stop(attempt=attempt.number))
            self._close(attempt, "late")
        self._ahead.stop()
        self.notes.append(reason)
        self._over.set()
