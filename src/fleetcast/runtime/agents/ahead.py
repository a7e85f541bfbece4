"""Attempts that are sent ahead: they lie at an agent behind one that runs, and begin without a word when it ends well.

Otherwise a task begins only after its predecessor's result has come to the orchestrator and the answer has gone back,
through three processes that must wake up each way. Sent ahead is the next task of a worker under a policy that has
planned everything beforehand, once nothing is missing to it but the task that runs there. It counts as begun when the
end of that task is heard of; until then it can be withdrawn, which is done before any edit. So order, placement and
invariants are those without it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from fleetcast.runtime.agents.books import Attempt, Books, message_of
from fleetcast.runtime.agents.messages import BadMessage, Stop, Withdraw
from fleetcast.runtime.agents.orchestrator import Peer
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import Status


class Ahead:
    """Attempts that were sent ahead and have not begun as far as is known."""

    def __init__(self) -> None:
        self._behind: dict[int, Attempt] = {}  # by the number of the attempt before
        self._void: set[int] = set()  # of which nothing is believed any more
        self._fewer = asyncio.Event()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._behind.values()))

    def wanted(self, live: Iterable[Attempt], books: Books, value: Constellation) -> Iterator[tuple[Attempt, str]]:
        """Yields attempts that run, each with the task that may lie behind it."""
        for before in live if books.planned else ():
            if before.number not in self._behind and before.peer.up:
                name = books.planned_after(before.task, before.worker)
                if name is not None and _waits_for(before.task, name, value):
                    yield before, name

    def send(self, before: Attempt, attempt: Attempt, value: Constellation) -> None:
        """Sends an attempt ahead; one that makes no message is left until its turn comes, which says so."""
        with contextlib.suppress(BadMessage):
            attempt.peer.send(message_of(value, attempt, after=before.number))
            self._behind[before.number] = attempt

    def follow(self, before: Attempt, peer: Peer) -> Attempt | None:
        """Returns the attempt that has begun because the one before ended well, as this agent's connection says.

        What was sent by an earlier connection was stopped when that one ended.
        """
        attempt = self._behind.get(before.number)
        if attempt is None or attempt.peer is not peer or not peer.up:
            self.forget(before)
            return None
        del self._behind[before.number]
        self._fewer.set()
        return attempt

    def forget(self, before: Attempt) -> None:
        """Notes that the attempt before did not end well: its agent will not begin, or has stopped, what lay behind."""
        if (attempt := self._behind.pop(before.number, None)) is not None:
            self._void.add(attempt.number)
            self._fewer.set()

    def leave(self, peer: Peer) -> None:
        """Notes that an agent's connection has ended: it stops all that came by it."""
        for before, attempt in list(self._behind.items()):
            if attempt.peer is peer:
                del self._behind[before]
                self._void.add(attempt.number)
        self._fewer.set()

    def unbegun(self, number: int) -> bool:
        """Notes that an attempt will not begin; returns whether it was known to have been sent ahead."""
        before = next((b for b, attempt in self._behind.items() if attempt.number == number), None)
        if before is not None:
            del self._behind[before]
            self._fewer.set()
        return before is not None or self.void(number)

    def void(self, number: int) -> bool:
        """Returns whether of an attempt nothing is believed any more."""
        if number not in self._void:
            return False
        self._void.discard(number)
        return True

    async def withdraw(self) -> None:
        """Withdraws all; returns when each has begun, will not begin, or was its lost agent's."""
        for attempt in self:
            attempt.peer.send(Withdraw(attempt=attempt.number))
        while self._behind:
            self._fewer.clear()
            await self._fewer.wait()

    def stop(self) -> None:
        """Stops all, begun or not."""
        for attempt in self:
            attempt.peer.send(Stop(attempt=attempt.number))
            self._void.add(attempt.number)
        self._behind.clear()
        self._fewer.set()


def _waits_for(before: str, name: str, value: Constellation) -> bool:
    """Returns whether a task waits for one other alone, whatever that one's result."""
    lines = value.net.into[name]
    return (
        value.status[name] is Status.WAITING
        and any(line.before == before for line in lines)
        and all(line.kind == "unconditional" for line in lines)
        and all(value.status[line.before] is Status.COMPLETED for line in lines if line.before != before)
    )
