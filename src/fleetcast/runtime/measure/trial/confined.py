"""A process held to a share of one core, and to so much memory.

The CPU is held by a control group where one may be made (version 2 or 1), else by stopping and continuing the process
so that it takes its share. Both give it ``share * period`` seconds of CPU in each period, and what is left over is lost.
Memory is held by RLIMIT_DATA, which counts what a process has mapped to write to: an allocation beyond it fails.
Linux alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from fleetcast.base.errors import SpecError, Unsupported

PERIOD: Final = 0.02
"""s in which a process may use its share."""
GROUPS: Final = Path("/sys/fs/cgroup")
_NAME: Final = "fleetcast-trial-"
_LEFT: Final = 3.0
"""s that processes have to leave a group."""


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that all threads of a process have used, s.

    Raises:
        ProcessLookupError: it is gone.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the clock id of another process, as clock_getcpuclockid makes it
    except OSError as error:
        raise ProcessLookupError(f"process {pid} is gone") from error


def status(pid: int) -> Mapping[str, int]:
    """Returns the sizes that the system tells of a process, B: "VmHWM" is the most it held, "VmData" what it may write.

    Raises:
        ProcessLookupError: it is gone.
    """
    try:
        rows = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
    found = (row.split() for row in rows)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in found if len(row) == 3 and row[2] == "kB"}


def limit_memory(pid: int, size: int) -> None:
    """Lets a process map no more than ``size`` B to write to, what it has now included.

    Raises:
        Unsupported: the system cannot limit another process.
    """
    import resource

    if not hasattr(resource, "prlimit"):
        raise Unsupported("memory of another process cannot be limited here", "Run the trial on Linux")
    resource.prlimit(pid, resource.RLIMIT_DATA, (size, size))


@contextlib.contextmanager
def quota(pid: int, share: float, *, period: float = PERIOD, groups: Path | None = GROUPS) -> Iterator[str]:
    """Holds a process to a share of one core while the block runs; gives how: "cgroup2", "cgroup1", "signals", "none".

    Whatever ends the block, the process runs free again and the group is gone.

    Args:
        pid: of the process; its threads share the quota.
        share: of one core; 1 or more = no quota.
        period: s.
        groups: where control groups are mounted; None = use signals.

    Raises:
        SpecError: no share.
        ProcessLookupError: the process is gone.
    """
    if not share > 0:
        raise SpecError("share", "is no share of a core", value=share, limit="above 0")
    if share >= 1:
        yield "none"
        return
    group = _group(pid, share, period, groups) if groups is not None else None
    if group is not None:
        try:
            yield "cgroup1" if (group / "cpu.cfs_quota_us").exists() else "cgroup2"
        finally:
            _remove(group)
        return
    stop = threading.Event()
    governor = threading.Thread(target=govern, args=(pid, share, period, stop.wait), daemon=True)
    governor.start()
    try:
        yield "signals"
    finally:
        stop.set()
        governor.join()


def govern(pid: int, share: float, period: float, wait: Callable[[float], bool]) -> None:
    """Stops and continues a process so that it takes its share, until ``wait`` says True; it runs free after that.

    Credit comes with time, up to one period's; what the process has used is taken from it, and below 0 it is stopped
    until the debt is paid. So the share holds in the long run, however late the governor wakes.
    """
    most, last = share * period, time.perf_counter()
    try:
        credit, used, stopped = most, cpu_seconds(pid), False
        while not wait(period / 8 if credit > 0 else max(period / 8, -credit / share)):
            now, spent = time.perf_counter(), cpu_seconds(pid)
            credit = min(most, credit + share * (now - last)) - (spent - used)
            last, used = now, spent
            if (credit <= 0) != stopped:
                stopped = not stopped
                os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)
    except ProcessLookupError:
        return
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def sweep(groups: Path = GROUPS) -> int:
    """Removes groups that a trial left which was killed outright; returns how many."""
    found = 0
    for group in [*groups.glob(f"{_NAME}*"), *groups.glob(f"cpu*/{_NAME}*")]:
        owner = group.name.removeprefix(_NAME).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(group)
            found += not group.exists()
    return found


def _group(pid: int, share: float, period: float, groups: Path) -> Path | None:
    """Returns a new group with the process in it, or None where none may be made."""
    whole = round(1e6 * period)
    for parent, name, text in (
        (groups, "cpu.max", f"{round(share * whole)} {whole}"), (groups / "cpu", "cpu.cfs_quota_us", ""),
    ):  # fmt: skip
        group = parent / f"{_NAME}{os.getpid()}-{pid}"
        try:
            if name == "cpu.max" and "cpu" not in (parent / "cgroup.subtree_control").read_text().split():
                continue  # to change what is set for all is not ours
            group.mkdir()
        except OSError:
            continue
        try:
            if not text:
                (group / "cpu.cfs_period_us").write_text(str(whole))
            (group / name).write_text(text or str(round(share * whole)))
            (group / "cgroup.procs").write_text(str(pid))
            return group
        except OSError:
            _remove(group)
    return None


def _remove(group: Path) -> None:
    """Removes a group, after moving what runs in it one up; gives up after a while."""
    until = time.perf_counter() + _LEFT
    while group.exists():
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (group.parent / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            group.rmdir()
        if time.perf_counter() > until:
            return
        if group.exists():
            time.sleep(0.01)
