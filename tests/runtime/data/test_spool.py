"""Uploads on disk: what ends the process at whatever byte, the next one goes on."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data.spool import Full, Spool


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(spool: Spool, upload, data: bytes, *, checked: bool = True) -> None:
    start = spool.offset(upload)
    with spool.part(upload).open("r+b") as file:
        file.seek(start)
        file.write(data)
    if checked and data:
        spool.checked(upload, start, start + len(data), sha(data))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.lists(st.tuples(st.integers(1, 500), st.booleans(), st.booleans())))
def test_goes_on_from_any_byte_in_a_new_process(tmp_path_factory, data, steps):
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    upload = spool.begin("alpha", "f", len(data), sha(data))
    for size, checked, dies in [*steps, (len(data), True, True)]:
        start = spool.offset(upload)
        write(spool, upload, data[start : start + size], checked=checked)
        if dies:
            spool = Spool(folder)
            again = spool.begin("alpha", "f", len(data), sha(data))
            assert again.id == upload.id
            upload = again
    assert spool.offset(upload) == len(data)
    assert spool.finish(upload) and spool.part(upload).read_bytes() == data
    assert Spool(folder).get(upload.id).state == "whole"


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=1000), st.data())
def test_only_what_the_journal_does_not_vouch_for_comes_again(tmp_path_factory, data, draw):
    spool = Spool(tmp_path_factory.mktemp("spool"))
    upload = spool.begin("alpha", "f", len(data), sha(data))
    size = draw.draw(st.integers(1, len(data)))
    for i in range(0, len(data), size):
        write(spool, upload, data[i : i + size])
    wrong = draw.draw(st.integers(0, len(data) - 1))
    with spool.part(upload).open("r+b") as file:
        file.seek(wrong)
        file.write(bytes([data[wrong] ^ 1]))
    assert not spool.finish(upload)
    assert spool.offset(upload) == wrong // size * size
    left = data[spool.offset(upload) :]
    for i in range(0, len(left), size):
        write(spool, upload, left[i : i + size])
    assert spool.finish(upload)


def test_a_torn_journal_and_foreign_files_do_no_harm(tmp_path):
    spool = Spool(tmp_path)
    upload = spool.begin("alpha", "f", 4, sha(b"abcd"))
    write(spool, upload, b"ab")
    with spool.log(upload).open("a") as file:
        file.write("2 9")
    write(spool, upload, b"xx", checked=False)
    (tmp_path / "stray.json").write_bytes(b"\xff{")
    (tmp_path / f"{'0' * 32}.json").write_text('{"id": "../../etc", "project": "a", "name": "b", "size": 1}')
    (tmp_path / f"{'1' * 32}.json").symlink_to("/etc/passwd")
    again = Spool(tmp_path)
    assert [u.id for u in again] == [upload.id]
    found = again.get(upload.id)
    assert not again.finish(found) and again.offset(found) == 2


def test_all_comes_again_where_the_sender_lied_of_the_whole(tmp_path):
    spool = Spool(tmp_path)
    upload = spool.begin("alpha", "f", 4, sha(b"else"))
    write(spool, upload, b"abcd")
    assert not spool.finish(upload) and spool.offset(upload) == 0


def test_room_and_quota_count_what_is_promised(tmp_path):
    spool = Spool(tmp_path, room=100, quota=60, largest=90)
    first = spool.begin("alpha", "f", 50)
    with pytest.raises(Full, match="alpha has room for 60") as full:
        spool.begin("alpha", "g", 20)
    assert full.value.passing
    with pytest.raises(Full) as never:
        spool.begin("beta", "g", 61)
    assert not never.value.passing
    spool.begin("beta", "g", 50)
    with pytest.raises(Full, match="the spool"):
        spool.begin("gamma", "h", 1)
    with pytest.raises(SpecError, match="Upload-Length"):
        spool.begin("gamma", "h", 91)
    spool.close(first)
    assert spool.used() == 50 and not spool.part(first).exists()
    spool.begin("gamma", "h", 50)


def test_what_nobody_goes_on_with_is_forgotten_but_never_what_is_whole(tmp_path):
    spool = Spool(tmp_path)
    old, whole, done = (spool.begin("alpha", name, 1, sha(b"x")) for name in "abc")
    for upload in (whole, done):
        write(spool, upload, b"x")
        assert spool.finish(upload)
    spool.close(done)
    later = old.begun + 1e7
    assert spool.sweep(old.begun) == 0
    assert spool.sweep(later) == 2
    assert [u.id for u in Spool(tmp_path)] == [whole.id]


@pytest.mark.parametrize("limits", [{"room": 0}, {"quota": -1}, {"largest": 0}])
def test_limits_that_cannot_be(tmp_path, limits):
    with pytest.raises(SpecError, match="out of range"):
        Spool(tmp_path, **limits)
