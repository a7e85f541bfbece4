"""The application: a log becomes text, a served model tells the context, and how long that took is kept.

The server is a process of this machine (`worker`), confined as its tier says and reached over the tier's link.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fleetcast.base.errors import FleetcastError, Infeasible
from fleetcast.runtime.measure.trial import contexts
from fleetcast.runtime.measure.trial.confined import cpu_seconds, limit_memory, status
from fleetcast.runtime.measure.trial.contexts import Log, told

STORY: Final = 40
"""Most tokens of an answer."""
TIMEOUT: Final = 120.0
_WORKER: Final = "fleetcast.runtime.measure.trial.worker"
_STARVED: Final = (
    "MemoryError",
    "bad_alloc",
    "allocate memory",
    "DefaultCPUAllocator",
    "can't start new thread",
    "could not create a primitive",
    "error return without exception set",
)
"""What a process writes that fails for want of memory."""
_ENDED: Final = 5.0
"""s that a worker has to end by itself."""


class WorkerError(FleetcastError):
    """The process of a model ended or said nothing, and not for want of memory."""


@dataclass(frozen=True)
class Answer:
    """What came of one log.

    Attributes:
        seconds: from the log to the description, as the application sees it.
        cpu: s that the model's process computed meanwhile.
        context: that was told, "" = none.
        right: whether it is the log's.
        tokens: (read, written).
        size: B (sent, received), headers included.
    """

    seconds: float
    cpu: float
    context: str
    right: bool
    tokens: tuple[int, int]
    size: tuple[int, int]


class Worker:
    """One model, served by a process of its own.

    Args:
        folder: of the model.
        room: B that it may map beyond what the runtime has once it is loaded; None = any.

    Raises:
        Infeasible: the model does not fit into the room.
        WorkerError: the process failed for another reason.
    """

    def __init__(self, folder: Path, room: float | None = None) -> None:
        self.room = room
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # or what is mapped depends on which threads allocate,
        )  # fmt: skip
        try:
            self._read("loaded")
            self.before = status(self.pid)
            if room is not None:
                limit_memory(self.pid, self.before["VmData"] + int(room))
            self._write("open\n")
            self.port = urlsplit(self._read("url")).port or 0
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def __enter__(self) -> Worker:
        """Returns itself; the process is gone at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self.close()

    def held(self) -> dict[str, float]:
        """Returns B that came after the runtime was loaded: "mapped" to write to, "resident" at the peak; and "rss"."""
        now = status(self.pid)
        return {
            "mapped": float(now["VmData"] - self.before["VmData"]),
            "resident": float(now["VmHWM"] - self.before["VmRSS"]), "rss": float(now["VmHWM"]),
        }  # fmt: skip

    def lost(self, what: str = "ended") -> FleetcastError:
        """Returns why it failed: no room, where that was limited and ran out, else what it did and what it wrote."""
        if what == "ended":
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_ENDED)
        self._log.seek(0)
        said = self._log.read()
        starved = any(word in said for word in _STARVED)
        killed = self.process.returncode in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV)
        if self.room is not None and (starved or killed):
            return self._misfit()
        return WorkerError(f"the model's process {what}: {said.strip()[-400:]}")

    def close(self) -> None:
        """Ends the process, by force where it does not end by itself; may be called again."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(_ENDED)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def _misfit(self) -> Infeasible:
        return Infeasible("memory of the tier", need=float("nan"), have=float(self.room or 0), unit="B",
                          hint="Take a smaller model")  # fmt: skip

    def _read(self, key: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            found: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise self.lost() from None
        if "refused" in found:
            raise self._misfit()
        return str(found[key])

    def _write(self, text: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except OSError:
            raise self.lost() from None


class Application:
    """Asks a worker over one connection that stays open.

    Args:
        worker: serves the model.
        port: to reach it by: its own, or that of a link.

    Raises:
        FleetcastError: from `ask`, where the worker ends meanwhile.
    """

    def __init__(self, worker: Worker, port: int) -> None:
        self.worker = worker
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def __enter__(self) -> Application:
        """Returns itself; its connection is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self._http.close()

    def ask(self, log: Log) -> Answer:
        """Returns what came of a log.

        Raises:
            Infeasible: the worker ran out of its memory.
            WorkerError: it ended, or gave no answer.
        """
        try:
            before, begun = cpu_seconds(self.worker.pid), time.perf_counter()
            body = json.dumps({"model": "trial", "prompt": log.text(), "max_tokens": STORY, "temperature": 0}).encode()
            headers = {"Content-Type": "application/json"}
            self._http.request("POST", "/v1/completions", body, headers)
            response = self._http.getresponse()
            content = response.read()
            seconds, cpu = time.perf_counter() - begun, cpu_seconds(self.worker.pid) - before
        except (OSError, http.client.HTTPException):
            raise self.worker.lost() from None
        if response.status != 200:
            raise self.worker.lost(f"answered {response.status}")
        table = json.loads(content)
        context = told(str(table["choices"][0]["text"]))
        used = table["usage"]
        sent = len(body) + len("POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:00000\r\n") + _OTHERS
        received = (
            len(content) + sum(len(k) + len(v) + 4 for k, v in response.getheaders()) + len("HTTP/1.1 200 OK\r\n\r\n")
        )
        return Answer(
            seconds, cpu, context, context == log.context, (used["prompt_tokens"], used["completion_tokens"]),
            (sent, received),
        )  # fmt: skip


_OTHERS: Final = len("Accept-Encoding: identity\r\nContent-Length: 300\r\nContent-Type: application/json\r\n\r\n")


_SEED: Final = 4
WARM: Final = 12
"""Logs that are asked before those that count: products are compiled for lengths of prompts, and that memory stays."""


def warm(application: Application) -> None:
    """Asks logs that do not count, always the same."""
    for log in contexts.logs(WARM, _SEED):
        application.ask(log)


def asked(application: Application, logs: Sequence[Log]) -> tuple[Answer, ...]:
    """Returns the answers to logs, asked one after the other."""
    return tuple(application.ask(log) for log in logs)
