"""Traffic: which requests arrive when, and how long they are, as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LONGEST = 1_000_000_000
"""Most tokens that a request may have: beyond it a file's columns are surely mixed up."""


@dataclass(frozen=True, eq=False, repr=False)
class Requests:
    """Requests in order of arrival, as equally long columns (24 bytes a request, 48 with sessions).

    Make them with `requests`, which checks and sorts.

    Attributes:
        arrival: float64[n], s, not decreasing; all 0 in a closed loop or without times.
        prompt: int64[n], tokens, at least 1.
        output: int64[n], tokens, at least 1.
        session: int64[n], number of the conversation, -1 = none; None without sessions.
        prefix: int64[n], leading prompt tokens shared with an earlier request's context; or None.
        parent: int64[n], that earlier request, -1 = none; None where nothing is shared. Of sessions, the one before.
        timed: whether the arrival times mean something.
        concurrency: users of a closed loop, each sending its next request after an answer;
            0 = requests arrive by the clock.
        name: trace name or file.
        notes: what was changed on the way in, for the report.
        ramp: s over which the users of a closed loop start, evenly.
        think: s that such a user pauses on average after an answer.
    """

    arrival: NDArray[np.float64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    session: NDArray[np.int64] | None = None
    prefix: NDArray[np.int64] | None = None
    parent: NDArray[np.int64] | None = None
    timed: bool = True
    concurrency: int = 0
    name: str = ""
    notes: tuple[str, ...] = ()
    ramp: float = 0.0
    think: float = 0.0

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def duration(self) -> float:
        """From first to last arrival, s."""
        return float(self.arrival[-1] - self.arrival[0])

    @property
    def rate(self) -> float:
        """Mean requests per second from first to last arrival; 0 where all arrive at once."""
        return (len(self) - 1) / self.duration if self.duration > 0 else 0.0

    def slice(self, start: int = 0, stop: int | None = None) -> Requests:
        """Returns the requests ``start`` to ``stop`` in order of arrival, times unchanged.

        Raises:
            ValueError: nothing is left.
        """
        part = slice(start, stop)
        if not len(self.arrival[part]):
            raise ValueError(f"no requests in [{start}:{stop}] of {len(self)}")
        return self._pick(part)

    def speed_up(self, factor: float) -> Requests:
        """Returns the same requests arriving ``factor`` times as fast."""
        if not (factor > 0 and np.isfinite(factor)):
            raise ValueError(f"speed_up must be above 0, not {factor}")
        return self if factor == 1 else replace(self, arrival=self.arrival / factor)

    def starts(self) -> NDArray[np.float64]:
        """Returns when each request comes, s: its arrival; of a closed loop, the users' first ones over its ramp."""
        times = self.arrival.copy()
        users = min(self.concurrency, len(self))
        if users:
            times[:users] = self.ramp / users * np.arange(users)
        return times

    def thought(self, seed: int) -> NDArray[np.float64]:
        """Returns how long (s) the user of a closed loop thinks before each request; exponential, 0 without ``think``.

        Each entry depends on its own request alone, so a part of the requests behaves as it does in the whole.
        """
        if not self.think:
            return np.zeros(len(self))
        return rng(seed, "think").exponential(self.think, len(self))

    def digest(self) -> str:
        """Returns 16 hexadecimal digits of the columns; name and notes do not count."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        pace = f" {self.ramp} {self.think}" if self.concurrency else ""
        sha = hashlib.sha256(f"{len(self)} {self.concurrency} {self.timed}{pace}".encode())
        for column in (self.arrival, self.prompt, self.output, self.session, self.prefix):
            sha.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        if self.parent is not None and self.session is None:  # those of sessions follow from the columns above
            sha.update(np.ascontiguousarray(self.parent).tobytes())
        return sha.hexdigest()[:16]

    def summary(self) -> dict[str, float]:
        """Returns count, rate (/s), duration (s); mean, median and p90 tokens of both lengths."""
        out = {"requests": float(len(self)), "rate": self.rate, "duration": self.duration}
        for name, column in (("prompt", self.prompt), ("output", self.output)):
            p50, p90 = np.percentile(column, (50, 90))
            out |= {f"{name}_mean": float(column.mean()), f"{name}_p50": p50, f"{name}_p90": p90}
        return {k: float(v) for k, v in out.items()}

    def __repr__(self) -> str:
        when = f"{self.rate:.3g}/s"
        if self.concurrency:
            when = f"{self.concurrency} at a time"
        elif not self.timed:
            when = "no times"
        lengths = f"mean prompt {self.prompt.mean():.0f}, output {self.output.mean():.0f} tokens"
        return f"Requests({self.name or 'unnamed'}: {len(self)}, {when}, {lengths})"

    def _pick(self, index: Any) -> Requests:
        def part(column: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(column[index])

        prefix, parent = self.prefix, self.parent
        if prefix is not None and parent is not None:
            prefix, parent = _adopted(prefix, parent, np.arange(len(self))[index])
        elif prefix is not None:
            prefix = part(prefix)
        return replace(
            self,
            arrival=part(self.arrival),
            prompt=part(self.prompt),
            output=part(self.output),
            session=None if self.session is None else part(self.session),
            prefix=prefix,
            parent=parent,
        )


def _adopted(
    prefix: NDArray[np.int64], parent: NDArray[np.int64], kept: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns prefix and parent of the requests ``kept``, numbered anew; who lost a parent goes to its parent's."""
    number = np.full(len(parent) + 1, -1)  # the last entry is that of -1, no parent
    number[kept] = np.arange(len(kept))
    shared, above = prefix[kept], parent[kept]
    while (lost := (above >= 0) & (number[above] < 0)).any():
        gone = above[lost]
        shared[lost] = np.minimum(shared[lost], prefix[gone])
        above[lost] = parent[gone]
    found = number[above]
    return shared, np.where(found < np.arange(len(kept)), found, -1)


def _before(session: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the request before each in its session, -1 = none."""
    order = np.argsort(session, kind="stable")
    follows = (session[order][1:] == session[order][:-1]) & (session[order][1:] >= 0)
    parent = np.full(len(session), -1)
    parent[order[1:][follows]] = order[:-1][follows]
    return parent


def requests(
    arrival: ArrayLike | None,
    prompt: ArrayLike,
    output: ArrayLike,
    *,
    session: ArrayLike | None = None,
    prefix: ArrayLike | None = None,
    parent: ArrayLike | None = None,
    concurrency: int = 0,
    name: str = "requests",
    where: Callable[[int], str] | None = None,
    labels: dict[str, str] | None = None,
) -> Requests:
    """Checks columns and returns them as `Requests`, sorted by arrival (stable).

    A length of 0 counts as 1, with a note: an engine always runs at least one prompt token (the
    begin of sequence), and the prompt's pass always yields one output token.

    Args:
        arrival: s, n values, finite, at least 0; None = no times.
        prompt: tokens, n whole numbers, at least 0.
        output: tokens, likewise.
        session: n numbers, -1 = none.
        prefix: tokens shared with the session's earlier requests, or with ``parent``; at most the prompt's.
        parent: n numbers of requests, -1 = none; left out = the request before in the session. One that does not come
            earlier counts as none.
        concurrency: users of a closed loop, 0 = open.
        name: where they come from, for messages.
        where: says where row i stands, e.g. "line 7"; default "request i".
        labels: what the columns are called where they come from.

    Raises:
        SpecError: nothing there, a value missing, negative, not whole, not finite or too large.
    """
    place = where or (lambda i: f"request {i}")
    labels = {"arrival": "arrival_s"} | {
        n: f"{n}_tokens" for n in ("prompt", "output", "prefix")
    } | (labels or {})  # fmt: skip
    n = len(np.asarray(prompt))
    if n == 0:
        raise SpecError(name, "holds no requests", limit="at least one", hint="Add a row")
    lengths = {"prompt": prompt, "output": output} | ({} if prefix is None else {"prefix": prefix})
    checked = {
        column: _tokens(values, n, partial(_cell, name, place, labels[column])) for column, values in lengths.items()
    }
    timed = arrival is not None
    times = np.zeros(n) if arrival is None else np.array(arrival, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(times) & (times >= 0)))
    if len(bad):
        i = int(bad[0])
        raise SpecError(
            _cell(name, place, labels["arrival"], i),
            "is missing or not a number" if np.isnan(times[i]) else "is out of range",
            value=float(times[i]),
            limit="a time in seconds, at least 0",
            hint="Correct that row or leave it out",
        )
    notes = []
    for column in ("prompt", "output"):
        zero = checked[column] == 0
        if zero.any():
            notes.append(f"{int(zero.sum())} requests of {n} have 0 {column} tokens: counted as 1")
            checked[column] = np.maximum(checked[column], 1)
    if "prefix" in checked:
        long = np.flatnonzero(checked["prefix"] > checked["prompt"])
        if len(long):
            i = int(long[0])
            raise SpecError(
                _cell(name, place, labels["prefix"], i), "is longer than the prompt",
                value=int(checked["prefix"][i]), limit=f"at most {int(checked['prompt'][i])}",
                hint="It counts the prompt tokens shared with the session's earlier requests",
            )  # fmt: skip
    made = Requests(
        times, checked["prompt"], checked["output"],
        None if session is None else np.array(session, dtype=np.int64), checked.get("prefix"),
        None if parent is None or prefix is None else np.array(parent, dtype=np.int64), timed, concurrency, name,
    )  # fmt: skip
    late = int(np.count_nonzero(times[1:] < times[:-1]))
    if late:
        notes.append(f"{late} requests of {n} came before the row above them: sorted by arrival")
        made = made._pick(np.argsort(times, kind="stable"))
    if made.parent is not None:
        made = replace(made, parent=np.where(made.parent < np.arange(n), made.parent, -1))
    elif made.session is not None and made.prefix is not None:
        made = replace(made, parent=_before(made.session))
    return replace(made, notes=tuple(notes))


def _cell(name: str, place: Callable[[int], str], label: str, row: int) -> str:
    return f"{name}, {place(row)}, column {label}"


def _tokens(values: ArrayLike, n: int, cell: Callable[[int], str]) -> NDArray[np.int64]:
    """Whole numbers of tokens as int64[n]."""
    column = np.asarray(values)
    if len(column) != n:
        raise ValueError(f"{cell(0)}: {len(column)} values for {n} requests")
    numbers = column if column.dtype.kind in "iu" else column.astype(np.float64)
    good = (numbers >= 0) & (numbers <= LONGEST)
    if numbers.dtype.kind == "f":
        good &= np.floor(numbers) == numbers
    bad = np.flatnonzero(~good)
    if len(bad):
        i = int(bad[0])
        value = numbers[i].item()
        problem = "is missing or not a number" if value != value else "is not a number of tokens"
        raise SpecError(
            cell(i), problem, value=value,
            limit=f"a whole number from 0 to {LONGEST}", hint="Correct that row or leave it out",
        )  # fmt: skip
    return numbers.astype(np.int64)
