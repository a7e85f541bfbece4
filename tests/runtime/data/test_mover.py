"""Copies over several connections: whole, checked part by part, and going on after whatever stopped them."""

import asyncio
import hashlib
import os
import random

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data import mover
from fleetcast.runtime.data.mover import move
from fleetcast.runtime.data.push import Unsent
from fleetcast.runtime.measure.trial.link import shaped
from fleetcast.scenario.fleet.links import Link
from tests.runtime.data.live import live

SOME = random.Random(2).randbytes(300_001)
HASH = hashlib.sha256(SOME).hexdigest()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """A vault whose chunks are small, so that a small file has many."""
    monkeypatch.setattr("fleetcast.runtime.data.manifest.CHUNK", 10_000)
    monkeypatch.setattr("fleetcast.runtime.data.manifest.chunk_for", lambda size, least=0: 10_000)


class Stopped(Exception):
    pass


def link(bandwidth: float, rtt: float) -> Link:
    return Link(id="x", name="x", kind="wan", bandwidth=bandwidth, latency=rtt / 2, source="a test")


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_a_copy_is_the_file(tmp_path, streams):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("a/f", SOME)
            told = []
            found = await move(
                [at.url], "alpha", "a/f", tmp_path / "to" / "f", at.tokens["read"], streams=streams,
                progress=lambda done, total: told.append((done, total)),
            )  # fmt: skip
            assert (tmp_path / "to" / "f").read_bytes() == SOME
            assert found.parts == (31,) and found.broken == 0 and told[-1] == (31, 31)
            assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["f"]

    asyncio.run(run())


def test_an_empty_file_is_copied_too(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", b"")
            await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"])
            assert (tmp_path / "to").read_bytes() == b""

    asyncio.run(run())


def test_the_faster_path_carries_more_and_all_of_it_when_the_other_breaks(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", SOME)
            with shaped(port(at.url), [link(2e6, 0.002)]) as quick:
                with shaped(port(at.url), [link(0.2e6, 0.002)]) as slow:
                    urls = [f"http://127.0.0.1:{p}" for p in (quick, slow)]
                    found = await move(urls, "alpha", "f", tmp_path / "to", at.tokens["read"], streams=1)
                    assert found.parts[0] > 2 * found.parts[1] > 0
                # The slow path is gone now.
                again = await move(urls, "alpha", "f", tmp_path / "to", at.tokens["read"], streams=1, pause=0.01)
                assert again.parts[1] == 0 and again.broken > 0 and (tmp_path / "to").read_bytes() == SOME

    asyncio.run(run())


def test_a_copy_that_was_stopped_goes_on_and_trusts_no_byte(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", SOME)
            to = tmp_path / "to"

            def stop(done: int, total: int) -> None:
                if done == 12:
                    raise Stopped

            with pytest.raises(Stopped):
                await move([at.url], "alpha", "f", to, at.tokens["read"], streams=2, progress=stop)
            assert not to.exists()
            part, done = tmp_path / "to.part", tmp_path / "to.done"
            parts = [int(line) for line in done.read_text().split()[1:]]
            assert len(parts) >= 12
            with done.open("a") as file:
                file.write("29")  # torn: the line has no end
            data = bytearray(part.read_bytes())
            data[parts[3] * 10_000 + 5] ^= 1
            part.write_bytes(data)
            found = await move([at.url], "alpha", "f", to, at.tokens["read"], streams=2)
            assert found.resumed == len(parts) - 1 and to.read_bytes() == SOME

    asyncio.run(run())


def test_what_another_copy_left_is_not_taken_for_this_one(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", SOME)
            (tmp_path / "to.part").write_bytes(bytes(len(SOME)))
            (tmp_path / "to.done").write_text("0" * 64 + "\n0\n1\n2\n")
            found = await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"])
            assert found.resumed == 0 and (tmp_path / "to").read_bytes() == SOME

    asyncio.run(run())


@pytest.mark.parametrize("times", [1, 99])
def test_a_part_that_comes_wrong_is_asked_for_again_and_never_kept(tmp_path, times):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", SOME)
            read, left = at.place._vault.read, [times]

            async def lying(manifest, start, end):
                data = bytearray(await read(manifest, start, end))
                if start == 50_000 and left[0]:
                    left[0] -= 1
                    data[7] ^= 1
                return bytes(data)

            at.place._vault.read = lying
            if times == 1:
                found = await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"], pause=0.001)
                assert found.broken == 1 and (tmp_path / "to").read_bytes() == SOME
            else:
                with pytest.raises(Unsent, match="part 5 came with another SHA-256"):
                    await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"], pause=0.001)
                assert not (tmp_path / "to").exists()

    asyncio.run(run())


def test_a_disk_that_forgets_is_noticed(tmp_path, monkeypatch):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", SOME)
            write = os.pwrite
            monkeypatch.setattr(mover.os, "pwrite", lambda fd, data, at: write(fd, b"\0" * len(data), at))
            with pytest.raises(Unsent, match="not on the disk as it came"):
                await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"])
            assert not (tmp_path / "to").exists()

    asyncio.run(run())


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr("fleetcast.runtime.data.manifest.chunk_for", lambda size, least=0: 4 << 20)
    data = random.Random(5).randbytes(1 << 20) * 24

    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", data)
            tracemalloc.start()
            await move([at.url], "alpha", "f", tmp_path / "to", at.tokens["read"], streams=3)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 10 << 20, "the server's share included, of a file of 24 MiB"

    asyncio.run(run())


def test_questions_that_cannot_be(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            token = at.tokens["read"]
            for name, streams, why in (
                ("none", 1, "404"),
                ("../f", 1, "no name"),
                ("f", 0, "range"),
                ("f", 65, "range"),
            ):
                with pytest.raises(SpecError, match=why):
                    await move([at.url], "alpha", name, tmp_path / "to", token, streams=streams)
            with pytest.raises(SpecError, match="403"):
                await move([at.url], "beta", "f", tmp_path / "to", token)

    asyncio.run(run())
