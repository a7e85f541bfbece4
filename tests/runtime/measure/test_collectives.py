"""Collectives between processes: fits on made-up times, processes that fail or hang, and a small real run."""

import importlib.util
import json
import os
import time
import tomllib

import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.collectives import volume
from fleetcast.runtime.measure import collectives
from fleetcast.runtime.measure.collectives import OPERATIONS, SIZES, affine, curve, measure_collectives

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def rows(seconds, spread=1.1):
    return [{"size": s, "best": seconds(s), "median": spread * seconds(s)} for s in SIZES]


@pytest.mark.parametrize(("operation", "ranks"), [("all_reduce", 2), ("all_gather", 4), ("send", 2)])
def test_latency_and_bandwidth_come_back(operation, ranks):
    share = float(volume(operation, ranks))
    found = curve(operation, ranks, rows(lambda size: 1e-4 + share * size / 2e9))
    assert found.launch == pytest.approx(1e-4) and found.rate == pytest.approx(2e9)
    assert found.affine_error < 1e-9 and found.curve_error < 0.05


def test_a_curve_follows_what_no_line_does():
    found = curve("all_reduce", 2, rows(lambda size: 1e-4 + size / (1e9 if size < 1 << 20 else 1e8)))
    assert found.curve_error < 0.05 < found.affine_error


def test_fits_are_never_negative():
    size = np.array([1e3, 1e4, 1e5])
    assert affine(size, 1e-9 * size**1.2)[0] == 0.0
    assert affine(size, np.array([3e-4, 2e-4, 1e-4]))[1] == 0.0


def fake(monkeypatch, text):
    monkeypatch.setattr(collectives, "WORKER", ("-c", f"import os, sys, time\nrank = int(sys.argv[1])\n{text}"))
    monkeypatch.setattr(collectives, "find_spec", lambda name: True)


def alive(pids):
    found = []
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        found.append(pid)
    return found


def test_the_table_holds_what_ranks_said(monkeypatch):
    text = "import json\n" + "".join(
        f"print(json.dumps({row | {'operation': name}!r})) if rank == 0 else None\n"
        for name in OPERATIONS[:4] for row in rows(lambda size: 1e-4 + size / 1e9)
    ) + 'print(json.dumps({"operation": "send", "missing": "not here"})) if rank == 0 else None\n'  # fmt: skip
    fake(monkeypatch, text)
    seen = []
    found = measure_collectives((2, 4), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (1, 170) and seen[-1][0] == 85 + 4 * 17 and len(found.curves) == 8
    assert found.missing == {"send": "not here"}
    table = tomllib.loads(found.toml())
    assert table["link"]["kind"] == "cpu" and table["collectives"]["size"] == list(SIZES)
    assert set(table["collectives"]["curves"]["all_reduce"]) == {"2", "4"}
    assert json.loads(json.dumps(found.table())) == table


def test_a_rank_that_dies_ends_the_others(monkeypatch, tmp_path):
    fake(monkeypatch, f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').close()\n"
                      "sys.exit('no such interface') if rank == 1 else time.sleep(60 if rank else 1)")  # fmt: skip
    with pytest.raises(Unsupported, match=r"rank 1 of 3 ended with status 1.*no such interface"):
        measure_collectives((3,))
    assert not alive(int(p.name) for p in tmp_path.iterdir())


def test_ranks_that_hang_are_ended_at_the_deadline(monkeypatch, tmp_path):
    fake(monkeypatch, f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').close()\ntime.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(Unsupported, match="took longer than 1 s"):
        measure_collectives((2,), deadline=1.0)
    assert time.monotonic() - begin < 20
    assert not alive(int(p.name) for p in tmp_path.iterdir())


def test_an_interrupt_leaves_no_process(monkeypatch, tmp_path):
    fake(monkeypatch, f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').close()\n"
                      "print('{\"operation\": \"send\", \"size\": 1024}', flush=True)\ntime.sleep(60)")  # fmt: skip

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_collectives((2,), progress=stop)
    assert not alive(int(p.name) for p in tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 17])
def test_numbers_of_processes_out_of_range_are_refused(count):
    with pytest.raises(SpecError, match="from 2 to 16"):
        measure_collectives((count,))


def test_without_torch_it_says_so(monkeypatch):
    monkeypatch.setattr(collectives, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="torch is not installed"):
        measure_collectives()


@needs_torch
def test_two_processes_talk():
    found = measure_collectives((2,), sizes=(1024, 4096, 16384, 65536), deadline=120.0)
    assert {c.operation for c in found.curves} | set(found.missing) == set(OPERATIONS)
    assert {"all_reduce", "all_gather", "broadcast", "send"} <= {c.operation for c in found.curves}
    assert all(0 < b <= m for c in found.curves for b, m in zip(c.best, c.median, strict=True))
