"""When requests are sent: by the clock, or by users who wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fleetcast.runtime.replay.stream import Answer
from fleetcast.scenario.workload.requests import Requests

BEAT = 0.02
"""s between two looks at how late the sender is."""
Send = Callable[[Answer], Awaitable[object]]
"""Sends the request of an answer and fills it in."""


async def by_clock(requests: Requests, send: Send, answers: list[Answer], clock: Callable[[], float]) -> None:
    """Sends every request at its arrival, whatever became of the others.

    Args:
        requests: the traffic; its first request is sent at once.
        send: what sends one.
        answers: one is added as a request is sent.
        clock: s since the start.
    """
    times = (requests.arrival - requests.arrival[0]).tolist()
    async with asyncio.TaskGroup() as group:
        for i, due in enumerate(times):
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            answers.append(Answer(i, due))
            group.create_task(_run(send, answers[-1]))
            if wait <= 0:
                await asyncio.sleep(0)  # so that a burst does not hold up the reading of answers


async def by_users(
    requests: Requests, send: Send, answers: list[Answer], clock: Callable[[], float], seed: int
) -> None:
    """Lets the users of a closed loop send: each answer, or failure, releases the next request.

    Args:
        requests: the traffic, with its users, their ramp and pauses.
        send: what sends one.
        answers: one is added as a request is sent.
        clock: s since the start.
        seed: of the pauses: as in a simulation.
    """
    starts, thought = requests.starts().tolist(), requests.thought(seed).tolist()
    coming = iter(range(min(requests.concurrency, len(requests)), len(requests)))

    async def user(request: int) -> None:
        due = starts[request]
        while True:
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            answer = Answer(request, due)
            answers.append(answer)
            await send(answer)
            after = next(coming, None)
            if after is None:
                return
            request, due = after, clock() + thought[after]

    async with asyncio.TaskGroup() as group:
        for first in range(min(requests.concurrency, len(requests))):
            group.create_task(user(first))


async def watch(lags: list[float], clock: Callable[[], float]) -> None:
    """Notes how late this process comes to what is due, until it is cancelled: so late it reads answers, too.

    Args:
        lags: s, one is added each `BEAT`.
        clock: s since the start.
    """
    while True:
        due = clock() + BEAT
        await asyncio.sleep(BEAT)
        lags.append(clock() - due)


async def _run(send: Send, answer: Answer) -> None:
    await send(answer)
