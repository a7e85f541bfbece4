"""What a file is and what it may be called."""

import hashlib
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data.manifest import (
    CHUNK,
    CHUNKS,
    Manifest,
    check_name,
    check_project,
    chunk_for,
    manifest_of,
    read_manifest,
    write_manifest,
)


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "a\\b", "a\0b", "a\nb", " a",
        "a ", "a\u202eb", "e\u0301", "\ud800", "x" * 201, "/".join("a" * 17), "a/" * 16 + "b",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(SpecError, match="name"):
        check_name(name)


@pytest.mark.parametrize("name", ["scan.npy", "run 7/frame-0001.tif", "試料/測定.csv", "a#b?c%2e&'", "...", ".x"])
def test_names_of_instruments_are_taken(name):
    assert check_name(name) == name


@given(st.lists(st.sampled_from(["a", "b", "/", ".", "..", "\\", "\0", " ", "é", "%2e"]), max_size=30).map("".join))
def test_a_name_that_is_taken_stays_below_its_folder(name):
    try:
        check_name(name)
    except SpecError:
        return
    path = PurePosixPath("root") / name
    assert path.parts[0] == "root" and ".." not in path.parts and not PurePosixPath(name).is_absolute()


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "../a", "a/b", "é", "x" * 64, "*"])
def test_projects_have_plain_names(name):
    with pytest.raises(SpecError, match="project"):
        check_project(name)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 700))
def test_a_manifest_is_that_of_its_bytes_and_survives_its_text(tmp_path_factory, data, chunk):
    path = tmp_path_factory.mktemp("m") / "f"
    path.write_bytes(data)
    found = manifest_of(path, "f", chunk=chunk)
    assert found.size == len(data) and found.sha256 == hashlib.sha256(data).hexdigest()
    pieces = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    assert list(found.chunks) == [hashlib.sha256(piece).hexdigest() for piece in pieces]
    spans = [found.span(i) for i in range(len(found.chunks))]
    assert b"".join(data[a:b] for a, b in spans) == data
    assert read_manifest(write_manifest(found)) == found


def good() -> dict:
    return {"name": "f", "size": 3, "sha256": "0" * 64, "chunk": 2, "chunks": ["1" * 64, "2" * 64]}


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=70), st.lists(st.text(), max_size=3)
)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.dictionaries(st.sampled_from([*good(), "x"]), WRONG)))
def test_whatever_is_read_is_a_manifest_or_a_clear_error(data):
    text = data if isinstance(data, bytes) else json.dumps(good() | data).encode("utf-8", "surrogatepass")
    try:
        found = read_manifest(text)
    except SpecError as error:
        assert error.limit or error.hint
        return
    assert isinstance(found, Manifest)
    check_name(found.name)
    assert len(found.chunks) == -(-found.size // found.chunk)


@pytest.mark.parametrize(
    "change",
    [{"size": -1}, {"chunk": 0}, {"chunk": 3}, {"sha256": "0" * 63}, {"chunks": ["1" * 64]}, {"name": "../f"},
     {"more": 1}],
)  # fmt: skip
def test_manifests_that_contradict_themselves_are_refused(change):
    read_manifest(json.dumps(good()).encode())
    with pytest.raises(SpecError):
        read_manifest(json.dumps(good() | change).encode())


def test_deep_and_long_texts_are_refused():
    with pytest.raises(SpecError):
        read_manifest(b"[" * 100_000)
    with pytest.raises(SpecError, match="too long"):
        read_manifest(b" " * (9 << 20))


@given(st.integers(0, 1 << 50))
def test_chunks_are_not_too_many(size):
    chunk = chunk_for(size)
    assert -(-size // chunk) <= CHUNKS and (chunk == CHUNK or -(-size // (chunk // 2)) > CHUNKS)
