"""The process in which an agent's attempts run: lines of JSON on standard input, lines on standard output.

It is a process of its own so that the agent can always answer, and can always end what does not end: a callable that
gives up when asked is asked; one that does not takes its process with it. It holds no secret of the agent's. Once its
input ends, because the agent has gone, it ends its commands and itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from fleetcast.runtime.agents import allowed as lists
from fleetcast.runtime.agents.allowed import Allowed, Refused
from fleetcast.runtime.agents.messages import (
    BadMessage,
    Begin,
    Done,
    Message,
    Progress,
    Pulse,
    Stop,
    Withdraw,
    encode,
    to_agent,
)

OUTPUT = 256 << 10
"""Bytes of a command's output that are kept; the rest is read and dropped."""
KEPT = 32
"""Results that are kept for attempts that are to follow theirs and come a moment late."""


class Worker:
    """Runs attempts, each in a thread.

    Args:
        allowed: the agent's list.
        out: where messages go.
        most: bytes of one.
    """

    def __init__(self, allowed: Allowed, out: BinaryIO, most: int) -> None:
        self._allowed, self._out, self._most = allowed, out, most
        self._lock = threading.Lock()
        self._order = threading.Lock()  # of what follows
        self._stops: dict[int, threading.Event] = {}
        self._next: dict[int, Begin] = {}  # by the attempt that each lies behind
        self._ended: dict[int, tuple[str, Any]] = {}  # task and result of the last that ended well
        self._commands: dict[int, subprocess.Popen[bytes]] = {}
        self._idle: list[threading.Semaphore] = []  # one a thread that waits for its turn to read

    def serve(self, lines: BinaryIO) -> None:
        """Says that it is there, and does what the lines say until they end.

        Threads take turns at reading: the one that reads an attempt runs it, once another reads on. A task begins
        without waiting for a thread to wake up.
        """
        self._say(Pulse())
        self._turns(lines)

    def _read(self, lines: BinaryIO) -> None:
        """Reads until there is an attempt, lets another thread read on, and runs it."""
        for line in lines:
            message = to_agent(line, 2 * self._most)
            if isinstance(message, Begin):
                if (begin := self._behind(message) if message.after else message) is None:
                    continue
                self._stops[begin.attempt] = threading.Event()
                if self._idle:
                    self._idle.pop().release()
                else:
                    threading.Thread(target=self._turns, args=(lines,), daemon=True).start()
                self._attempts(begin)
                return
            if isinstance(message, Stop | Withdraw):
                withdrawn = self._withdraw(message.attempt)
                if isinstance(message, Stop) and not withdrawn:
                    self._stop(message.attempt)
        self._leave()

    def _behind(self, begin: Begin) -> Begin | None:
        """Returns an attempt that is to begin after another, if it may now; if it waits, or must not, None."""
        with self._order:
            if begin.after in self._ended:
                return self._given(begin, *self._ended[begin.after])
            if begin.after in self._stops and begin.after not in self._next:
                self._next[begin.after] = begin
                return None
        self._say(Done(attempt=begin.attempt, how="unbegun"))
        return None

    @staticmethod
    def _given(begin: Begin, task: str, result: Any) -> Begin:
        """Returns an attempt with the result of the one before, as if the orchestrator had sent it."""
        if begin.inputs is None:
            return begin
        return msgspec.structs.replace(
            begin, inputs={**begin.inputs, task: msgspec.json.decode(msgspec.json.encode(result))}
        )

    def _withdraw(self, attempt: int) -> bool:
        """Forgets an attempt that lies behind another; returns whether it did."""
        with self._order:
            before = next((b for b, begin in self._next.items() if begin.attempt == attempt), None)
            if before is not None:
                del self._next[before]
        if before is not None:
            self._say(Done(attempt=attempt, how="unbegun"))
        return before is not None

    def _attempts(self, begin: Begin | None) -> None:
        """Runs an attempt, and what lies behind it."""
        while begin is not None:
            begin = self._attempt(begin)

    def _turns(self, lines: BinaryIO) -> None:
        try:
            while True:
                self._read(lines)
                self._idle.append(turn := threading.Semaphore(0))
                turn.acquire()
        finally:  # nobody would read on: a line that is no message, or no thread left
            self._leave()

    def _leave(self) -> None:
        """Ends the commands, then the process, whatever its threads do."""
        for process in list(self._commands.values()):
            _kill(process)
        os._exit(0)

    def _stop(self, attempt: int) -> None:
        if (event := self._stops.get(attempt)) is not None:
            event.set()
        if (process := self._commands.get(attempt)) is not None:
            _kill(process)

    def _say(self, message: Message) -> None:
        self._write(encode(message, self._most))

    def _write(self, data: bytes) -> None:
        try:
            with self._lock:
                self._out.write(data + b"\n")
        except BrokenPipeError:  # the agent is gone, and nobody else is to know
            self._leave()

    def _attempt(self, begin: Begin) -> Begin | None:
        """Runs an attempt; returns the one that follows."""
        stop, start = self._stops[begin.attempt], time.perf_counter()
        how, value, error = "ok", None, ""
        try:
            call = lists.call_of(self._allowed, begin.call)
            arguments = lists.checked(call, begin.arguments, self._allowed.folder)
            if call.command:
                value = self._command(begin.attempt, lists.words(call, arguments), call.codes, stop)
            else:
                value = self._call(begin, call.python, arguments, stop)
        except (Refused, BadMessage, _Failed) as problem:
            how, error = "failed", str(problem)
        except BaseException as problem:  # whatever a callable raises, SystemExit too, is the attempt's
            how, error = "failed", f"{type(problem).__name__}: {problem}"
        if stop.is_set():
            how, value = "stopped", None
        done = Done(
            attempt=begin.attempt, how=how, value=value, error=error[:4000], seconds=time.perf_counter() - start
        )
        try:
            data = encode(done, self._most)
        except BadMessage as problem:
            done = Done(attempt=begin.attempt, how="failed", error=f"the result {problem}", seconds=done.seconds)
            data = encode(done, self._most)
        with self._order:
            self._stops.pop(begin.attempt, None)
            follows = self._next.pop(begin.attempt, None)
            if done.how == "ok":
                self._ended[begin.attempt] = begin.task, value
                if len(self._ended) > KEPT:
                    del self._ended[next(iter(self._ended))]
            if follows is not None and done.how == "ok":
                self._stops[follows.attempt] = threading.Event()
        self._write(data)
        if follows is not None and done.how != "ok":
            self._say(Done(attempt=follows.attempt, how="unbegun"))
            return None
        return None if follows is None else self._given(follows, begin.task, value)

    def _call(self, begin: Begin, python: str, arguments: dict[str, Any], stop: threading.Event) -> Any:
        function, taken = lists.function(python)
        count = 0

        def progress(value: Any) -> None:
            nonlocal count
            count += 1
            self._say(Progress(attempt=begin.attempt, number=count, value=value))

        given = {"inputs": begin.inputs or {}, "progress": progress, "stopped": lambda wait=0.0: stop.wait(wait)}
        return function(**arguments, **{k: given[k] for k in taken if k not in arguments})

    def _command(self, attempt: int, words: list[str], codes: tuple[int, ...], stop: threading.Event) -> Any:
        try:
            process = subprocess.Popen(
                words, cwd=self._allowed.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _Failed(f"{words[0]}: {error.strerror}") from None
        self._commands[attempt] = process
        try:
            if stop.is_set():
                _kill(process)
            assert process.stdout is not None
            kept, count = b"", 0
            for line in process.stdout:
                if len(kept) < OUTPUT:
                    kept += line
                    count += 1
                    self._say(Progress(attempt=attempt, number=count, value=line.decode("utf-8", "replace")[:4000]))
            code = process.wait()
        finally:
            self._commands.pop(attempt, None)
        output = kept[:OUTPUT].decode("utf-8", "replace")
        if code not in codes:
            raise _Failed(f"{words[0]} ended with code {code}: {output[-1000:]}")
        return {"code": code, "output": output}


class _Failed(Exception):
    """A command that did not do well."""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def main(words: list[str]) -> None:
    """Serves standard input with the allow-list of a file, "" for none; messages of at most so many bytes."""
    path, most = words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to hear
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a callable prints is no message
    allowed = lists.read(Path(path) if path else None)
    Worker(allowed, out, int(most)).serve(sys.stdin.buffer)


if __name__ == "__main__":
    main(sys.argv[1:])
