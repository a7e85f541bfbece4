"""What the host says of itself, where it says it and where it does not."""

import os
from pathlib import Path

import pytest

from fleetcast.base import host


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert host.cores() == 2
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert host.waiting() == 1.5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.cores() == 1
    monkeypatch.delattr(os, "getloadavg")
    assert host.waiting() == 0


def test_free_memory_is_what_linux_says_and_else_all(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "MemTotal: 9 kB\nMemAvailable:       7 kB\n")
    assert host.free_memory() == 7 * 1024

    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert host.free_memory() == host.memory() == 40960
    monkeypatch.delattr(os, "sysconf")
    assert host.free_memory() == pytest.approx(8 << 30)
