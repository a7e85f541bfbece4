"""The tier trial's parts: synthetic logs, quotas, memory limits, links. Bounds of what is timed are wide."""

import http.client
import os
import resource
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.trial import TIERS, contexts
from fleetcast.runtime.measure.trial.confined import GROUPS, cpu_seconds, limit_memory, quota, status, sweep
from fleetcast.runtime.measure.trial.link import Way, shaped, ways
from fleetcast.scenario.fleet.links import Link, transfer_time

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are confined on Linux alone")
BURN = "import time\nwhile True: pass"


def test_logs_are_frozen() -> None:
    first = contexts.logs(1, 1)[0]
    assert [log.text() for log in contexts.logs(50, 5)] == [log.text() for log in contexts.logs(50, 5)]
    assert contexts.logs(50, 5)[7] != contexts.logs(50, 6)[7]
    assert first.text() == (
        "11:00 steps 31 kmh 1 lux 711 wifi public map unknown\n11:05 steps 18 kmh 1 lux 253 wifi public map unknown\n"
        "11:10 steps 16 kmh 1 lux 141 wifi none map food =>"
    )


def test_every_table_of_odds_sums_to_one() -> None:
    for name, habit in contexts.HABITS.items():
        for bands in (habit.hour, habit.steps, habit.speed, habit.light):
            assert sum(p for p, _, _ in bands) == pytest.approx(1), name
        assert sum(habit.wifi.values()) == pytest.approx(1) == sum(habit.place.values()), name


def test_contexts_can_be_told_and_not_by_one_rule() -> None:
    """Bayes' rule with the tables is nearly always right; the most common place's context is not."""
    drawn = contexts.logs(600, 9)
    best = np.mean([contexts.likeliest(log) == log.context for log in drawn])
    at = [log.readings[0].place for log in drawn]
    usual = {place: Counter(g.context for g, p in zip(drawn, at, strict=True) if p == place) for place in set(at)}
    rule = np.mean([usual[p].most_common(1)[0][0] == g.context for g, p in zip(drawn, at, strict=True)])
    assert best > 0.95
    assert 0.3 < rule < 0.8 < best


def test_a_story_is_told_as_its_context_and_other_text_as_none() -> None:
    assert all(contexts.told(log.story) == log.context for log in contexts.logs(100, 3))
    assert contexts.told(" walking the dog") == "walking the dog"
    assert contexts.told(" walking") == contexts.told("") == contexts.told("A train ride, commuting by train") == ""


def test_frequencies_follow_the_weights() -> None:
    count = Counter(log.context for log in contexts.logs(4000, 2))
    total = sum(h.weight for h in contexts.HABITS.values())
    for name, habit in contexts.HABITS.items():
        expected = habit.weight / total
        assert count[name] / 4000 == pytest.approx(expected, abs=4 * (expected / 4000) ** 0.5)


@pytest.fixture
def burning():
    process = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def leftovers() -> list[Path]:
    mine = f"fleetcast-trial-{os.getpid()}-*"
    return [*GROUPS.glob(mine), *GROUPS.glob(f"cpu*/{mine}")]


@linux
@pytest.mark.parametrize("groups", [GROUPS, None], ids=["group or signals", "signals"])
def test_a_quota_holds_a_process_to_its_share_and_leaves_it_free(burning, groups) -> None:
    time.sleep(0.2)
    with quota(burning.pid, 0.1, groups=groups) as how:
        assert how in (("signals",) if groups is None else ("cgroup1", "cgroup2", "signals"))
        before, begun = cpu_seconds(burning.pid), time.perf_counter()
        time.sleep(1.0)
        share = (cpu_seconds(burning.pid) - before) / (time.perf_counter() - begun)
    assert share < 0.16  # and not above, however busy the machine is
    before = cpu_seconds(burning.pid)
    until = time.perf_counter() + 10
    while cpu_seconds(burning.pid) - before < 0.1 and time.perf_counter() < until:
        time.sleep(0.01)
    assert cpu_seconds(burning.pid) - before >= 0.1  # it runs again
    assert leftovers() == []


@linux
def test_a_block_that_fails_leaves_neither_group_nor_a_stopped_process(burning) -> None:
    for groups in (GROUPS, None):
        with pytest.raises(KeyboardInterrupt), quota(burning.pid, 0.05, groups=groups):
            time.sleep(0.1)
            raise KeyboardInterrupt
        assert leftovers() == []
        states = set()
        for _ in range(5):
            states.add(Path(f"/proc/{burning.pid}/stat").read_text().rsplit(") ", 1)[1][0])
            time.sleep(0.02)
        assert "T" not in states


@linux
def test_a_process_that_ends_within_its_quota_is_no_trouble(burning) -> None:
    for groups in (GROUPS, None):
        process = subprocess.Popen([sys.executable, "-c", "pass"])
        with quota(process.pid, 0.3, groups=groups):
            process.wait()
            time.sleep(0.05)
    assert leftovers() == []
    with pytest.raises(ProcessLookupError):
        cpu_seconds(process.pid)


def test_control_groups_of_version_two(tmp_path: Path) -> None:
    """What would be written, in a folder that stands in for the mount (it holds files as such a mount would not)."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    with quota(1234, 0.25, period=0.02, groups=tmp_path) as how:
        (group,) = tmp_path.glob("fleetcast-trial-*")
        assert how == "cgroup2"
        assert (group / "cpu.max").read_text() == "5000 20000"
        assert (group / "cgroup.procs").read_text() == "1234"
        for path in list(group.iterdir()):  # of a mount they would go with the folder
            path.unlink()
    assert list(tmp_path.glob("fleetcast-trial-*")) == []


def test_groups_of_a_trial_that_was_killed_are_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    old, own, other = (tmp_path / n for n in (f"fleetcast-trial-{gone.pid}-1", f"fleetcast-trial-{os.getpid()}-1", "x"))
    for folder in (old, own, other):
        folder.mkdir()
    assert sweep(tmp_path) == 1
    assert not old.exists() and own.exists() and other.exists()


def test_no_share_is_refused_and_a_whole_core_is_free() -> None:
    with pytest.raises(SpecError, match="share"), quota(1, 0.0):
        pass
    with quota(1, 1.0) as how:
        assert how == "none"


@linux
def test_memory_beyond_the_limit_is_refused_to_the_process() -> None:
    code = (
        "import sys; sys.stdin.readline(); small = bytearray(8 << 20); print('small', flush=True)\n"
        "try: large = bytearray(200 << 20)\nexcept MemoryError: print('refused', flush=True)\nelse: print('large')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    while "VmData" not in status(process.pid):
        time.sleep(0.01)
    time.sleep(0.3)
    limit_memory(process.pid, status(process.pid)["VmData"] + (64 << 20))
    assert process.communicate("\n", timeout=30)[0].split() == ["small", "refused"]
    assert resource.getrlimit(resource.RLIMIT_DATA) != (64 << 20,) * 2


def test_bytes_queue_for_the_link_and_arrive_later() -> None:
    way = Way(rate=1000.0, latency=0.5)
    assert way.arrival(10.0, 100) == pytest.approx(10.6)
    assert way.arrival(10.0, 100) == pytest.approx(10.7)  # behind the first
    assert way.arrival(20.0, 0) == pytest.approx(20.5)


def test_the_ways_of_a_path_take_what_the_planner_says() -> None:
    path = TIERS[2].path + TIERS[1].path
    for way, up in zip(ways(path), (True, False), strict=True):
        assert way.arrival(0.0, 5000) == pytest.approx(transfer_time(path, 5000.0, up=up))


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it is sent, and closes when the sender has."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Reply(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def echo():
    server = Echo()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def slow(latency: float, rate: float) -> Link:
    return Link(id="slow", name="a test's", kind="wan", bandwidth=rate, latency=latency, source="test", uplink=rate / 2)


def test_a_shaped_link_delays_and_paces_and_changes_nothing(echo) -> None:
    sent = bytes(np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8))
    with shaped(echo, [slow(0.05, 400_000.0)]) as port, socket.create_connection(("127.0.0.1", port)) as s:
        begun = time.perf_counter()
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        assert time.perf_counter() - begun >= 0.1
        begun = time.perf_counter()
        s.sendall(sent)
        got = b""
        while len(got) < len(sent):
            got += s.recv(65536)
        assert got == sent
        assert time.perf_counter() - begun >= 0.1 + 20_000 / 200_000  # the way up is the slower one
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""


def test_a_link_leaves_no_thread_and_no_socket(echo) -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), shaped(echo, [slow(0.01, 1e6)]) as port:
        held = socket.create_connection(("127.0.0.1", port))
        raise KeyboardInterrupt
    held.close()
    until = time.perf_counter() + 5
    while threading.active_count() > before and time.perf_counter() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before + 1  # that of the echo's own connection may take its time
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_link_to_nobody_ends_the_connection() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    with shaped(free, [slow(0.01, 1e6)]) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.request("GET", "/")
            connection.getresponse()
        connection.close()


def test_no_links_are_no_proxy() -> None:
    with shaped(4711, ()) as port:
        assert port == 4711
