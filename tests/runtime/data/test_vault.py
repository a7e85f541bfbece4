"""The vault only grows: whatever is asked, what was published stays."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError

pytest.importorskip("obstore", reason="obstore is not installed")

from obstore.store import MemoryStore

from fleetcast.runtime.data.manifest import manifest_of
from fleetcast.runtime.data.vault import Published, Vault, open_store

NAMES = ["a", "b", "a/b", "a/b/c", "a%2Fb", "x#y?z", "試料.csv", "a.json"]


@pytest.fixture(params=["folder", "memory"])
def vault(request, tmp_path):
    return Vault(open_store(str(tmp_path / "v")) if request.param == "folder" else MemoryStore())


async def content(vault: Vault, project: str, name: str) -> bytes:
    manifest = vault.find(project, name)
    return bytes(await vault.read(manifest, 0, manifest.size)) if manifest.size else b""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(NAMES), st.binary(min_size=1, max_size=9))))
def test_the_first_bytes_of_a_name_stay(tmp_path_factory, asked):
    import asyncio

    folder = tmp_path_factory.mktemp("v")
    vault, known, path = Vault(open_store(str(folder / "v"))), {}, folder / "f"
    for project, name, data in asked:
        path.write_bytes(data)
        manifest = manifest_of(path, name)
        if (project, name) not in known:
            assert vault.publish(project, path, manifest)
            known[project, name] = data
        elif known[project, name] == data:
            assert not vault.publish(project, path, manifest)
        else:
            with pytest.raises(Published):
                vault.publish(project, path, manifest)
        again = Vault(open_store(str(folder / "v")))
        for project_, name_ in known:
            assert asyncio.run(content(again, project_, name_)) == known[project_, name_]
    for project in ("p", "q"):
        assert vault.names(project) == sorted(n for p, n in known if p == project)
        assert vault.size(project) == sum(len(data) for (p, _), data in known.items() if p == project)


def test_of_many_that_publish_at_once_one_wins(vault, tmp_path):
    won, refused = [], []

    def publish(i: int) -> None:
        path = tmp_path / str(i)
        path.write_bytes(b"%d" % i)
        manifest = manifest_of(path, "same")
        barrier.wait()
        try:
            won.append(i) if vault.publish("p", path, manifest) else None
        except Published:
            refused.append(i)

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=publish, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(refused) == 7
    assert vault.find("p", "same").size == 1


@pytest.mark.parametrize("name", ["../p/a", "/a", "a/../b", ""])
def test_no_name_leads_out_of_a_project(vault, name):
    with pytest.raises(SpecError):
        vault.find("p", name)


def test_nothing_is_found_under_a_name_that_was_not_published(vault):
    assert vault.find("p", "a") is None and vault.names("p") == [] and vault.size("p") == 0


def test_stores_that_cannot_be_opened_say_so(tmp_path):
    (tmp_path / "f").write_text("a file")
    for place in (str(tmp_path / "f"), "nothing://x"):
        with pytest.raises(SpecError):
            open_store(place)


def test_a_bucket_of_s3_keeps_what_a_folder_keeps(tmp_path, monkeypatch):
    """Against moto's server: the index is written with If-None-Match, so that no second writer gets in."""
    import asyncio
    import urllib.request

    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        root = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (
            ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("REGION", "us-east-1"), ("ENDPOINT", root),
            ("ALLOW_HTTP", "true"),
        ):  # fmt: skip
            monkeypatch.setenv(f"AWS_{name}", value)
        urllib.request.urlopen(urllib.request.Request(f"{root}/bucket", method="PUT")).close()
        vault, path = Vault(open_store("s3://bucket/prefix")), tmp_path / "f"
        for name in NAMES:
            path.write_bytes(name.encode() * 1000)
            manifest = manifest_of(path, name)
            assert vault.publish("p", path, manifest) and not vault.publish("p", path, manifest)
            assert asyncio.run(content(vault, "p", name)) == path.read_bytes()
            path.write_bytes(b"else")
            early = Vault(vault._store)
            early.find = lambda *_: None  # a writer that looked before the other wrote
            with pytest.raises(Published):
                early.publish("p", path, manifest_of(path, name))
        assert vault.names("p") == sorted(NAMES)
    finally:
        server.stop()
