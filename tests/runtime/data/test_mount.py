"""A vault read where it lies: as files, a few blocks in memory, none on disk."""

import asyncio
import io
import random
import tracemalloc

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")

import aiohttp
import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data.mount import mount
from tests.runtime.data.live import live

SOME = random.Random(4).randbytes(100_000)


def asked(tmp_path, files, ask):
    """Publishes files and runs ``ask(url, tokens)`` in a thread, as fsspec has an event loop of its own."""

    async def run() -> None:
        async with live(tmp_path) as at:
            for name, data in files.items():
                await at.put(name, data)
            await asyncio.to_thread(ask, at.url, at.tokens)

    asyncio.run(run())


def test_files_are_read_at_any_place(tmp_path):
    def ask(url, tokens):
        fs = mount(url, "alpha", tokens["read"], block=4_096)
        chance = random.Random(1)
        with fs.open("a/f#1?.bin") as file:
            assert file.read(10) == SOME[:10]
            for _ in range(50):
                start = chance.randrange(len(SOME))
                size = chance.randrange(20_000)
                file.seek(start)
                assert file.read(size) == SOME[start : start + size]
        assert fs.cat_file("a/f#1?.bin", start=5, end=9) == SOME[5:9]

    asked(tmp_path, {"a/f#1?.bin": SOME}, ask)


def test_folders_are_those_of_the_names(tmp_path):
    def ask(url, tokens):
        fs = mount(url, "alpha", tokens["read"])
        assert {row["name"]: row["type"] for row in fs.ls("")} == {"a": "directory", "b": "file", "試料": "directory"}
        assert sorted(fs.find("")) == ["a/b/c", "a/d", "b", "試料/測定.csv"]
        assert sorted(fs.ls("a", detail=False)) == ["a/b", "a/d"]
        assert fs.info("a/d")["size"] == 4 and fs.exists("b") and not fs.exists("x")
        with pytest.raises(FileNotFoundError):
            fs.open("x").read()

    asked(tmp_path, dict.fromkeys(("a/b/c", "a/d", "b", "試料/測定.csv"), b"1234"), ask)


def test_arrays_and_tables_are_read_without_a_copy(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    values = np.arange(40_000, dtype=np.float64).reshape(200, 200)
    array, table = io.BytesIO(), io.BytesIO()
    np.save(array, values)
    parquet.write_table(pyarrow.table({"a": np.arange(9_000), "b": np.arange(9_000) ** 2}), table, row_group_size=1_000)

    def ask(url, tokens):
        fs = mount(url, "alpha", tokens["read"], block=16_384)
        with fs.open("x.npy") as file:
            assert (np.load(file) == values).all()
        with fs.open("t.parquet") as file:
            found = parquet.ParquetFile(file).read_row_group(7, columns=["b"])
            assert found["b"].to_pylist() == [i * i for i in range(7_000, 8_000)]
            assert file.cache.total_requested_bytes < len(table.getvalue())

    asked(tmp_path, {"x.npy": array.getvalue(), "t.parquet": table.getvalue()}, ask)


def test_a_pass_over_a_large_file_keeps_few_blocks_and_writes_nothing(tmp_path):
    data = random.Random(5).randbytes(1 << 20) * 16

    def ask(url, tokens):
        before = sorted(tmp_path.rglob("*"))
        fs = mount(url, "alpha", tokens["read"], block=64 << 10, blocks=4)
        with fs.open("f") as file:
            tracemalloc.start()
            size = 0
            while piece := file.read(64 << 10):
                size += len(piece)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert size == len(data) and peak < 4 << 20, "the server's share included, of a file of 16 MiB"
        assert sorted(tmp_path.rglob("*")) == before

    asked(tmp_path, {"f": data}, ask)


def test_nothing_is_written_and_nothing_else_is_read(tmp_path):
    def ask(url, tokens):
        fs = mount(url, "alpha", tokens["all"])
        for write in (
            lambda: fs.open("g", "wb").close(), lambda: fs.pipe_file("g", b"x"), lambda: fs.rm("f"),
            lambda: fs.mv("f", "g"), lambda: fs.copy("f", "g"), lambda: fs.touch("g"),
            lambda: fs.put_file(__file__, "g"),
        ):  # fmt: skip
            with pytest.raises((OSError, NotImplementedError, aiohttp.ClientResponseError)):
                write()
        assert fs.find("") == ["f"] and fs.cat_file("f") == b"1"
        for name in ("../beta/f", "a/../../beta/f", "a\\..\\f"):
            with pytest.raises(SpecError, match="no name"):
                fs.cat_file(name)
        with pytest.raises(Exception, match="403"):
            mount(url, "beta", tokens["read"]).cat_file("f")

    asked(tmp_path, {"f": b"1"}, ask)


@pytest.mark.parametrize(("project", "block"), [("../alpha", 1), ("alpha", 0)])
def test_mounts_that_cannot_be(project, block):
    with pytest.raises(SpecError):
        mount("http://127.0.0.1:1", project, "token", block=block)
