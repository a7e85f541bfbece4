"""Gateway and vault over HTTP: uploads as tus says, reads as RFC 9110 says, nothing is changed or shown."""

import asyncio
import base64
import errno
import hashlib
import os
import random

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")

import aiohttp

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data.places import served
from fleetcast.runtime.data.push import Unsent, check_url, push, ready, session
from tests.runtime.data.live import gateway, live

TUS = {"Tus-Resumable": "1.0.0"}
KIND = {"Content-Type": "application/offset+octet-stream"}
SOME = random.Random(1).randbytes(70_000)


def meta(**told: str) -> dict[str, str]:
    return {"Upload-Metadata": ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in told.items())}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def check(data: bytes, algorithm: str = "sha256") -> dict[str, str]:
    value = base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
    return {"Upload-Checksum": f"{algorithm} {value}"}


def test_what_is_sent_through_a_gateway_is_published_and_leaves_its_disk(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at, gateway(at, at.url) as (url, place):
            sent = await at.put("run 7/試料.bin", SOME, url=url)
            found = await at.until("run 7/試料.bin")
            assert found.sha256 == sent.sha256 == hashlib.sha256(SOME).hexdigest()
            for _ in range(100):
                if not list(place.spool.folder.glob("*.part")):
                    break
                await asyncio.sleep(0.02)
            assert [u.state for u in place.spool] == ["done"] and place.spool.used() == 0
            assert (await at.put("run 7/試料.bin", SOME, url=url)).resumed == len(SOME)

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1])
def test_small_files(tmp_path, size):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", b"x" * size)
            assert at.get("f").size == size
            async with session(at.tokens["read"]) as client, client.get(f"{at.url}/projects/alpha/f") as answer:
                assert answer.status == 200 and await answer.read() == b"x" * size

    asyncio.run(run())


@pytest.mark.parametrize("cut", [1, 2, 4_095, 4_096, 65_535, 69_999])
def test_an_upload_that_broke_off_goes_on_from_its_byte(tmp_path, cut):
    """The connection dies within a body: what came is kept, and only the rest is sent."""

    async def run() -> None:
        async with live(tmp_path) as at:
            told = TUS | bearer(at.tokens["write"])
            async with aiohttp.ClientSession() as client:
                create = told | {"Upload-Length": str(len(SOME))}
                create |= meta(filename="f", sha256=hashlib.sha256(SOME).hexdigest())
                async with client.post(f"{at.url}/uploads/alpha", headers=create) as answer:
                    assert answer.status == 201
                    place = answer.headers["Location"]
            host, port = at.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = {**told, **KIND, **check(SOME), "Upload-Offset": "0", "Content-Length": str(len(SOME)), "Host": host}
            lines = "".join(f"{k}: {v}\r\n" for k, v in head.items())
            writer.write(f"PATCH {place.removeprefix(at.url)} HTTP/1.1\r\n{lines}\r\n".encode() + SOME[:cut])
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.transport.abort()
            await asyncio.sleep(0.1)
            sent = await at.put("f", SOME)
            assert sent.resumed == cut
            assert at.get("f").sha256 == hashlib.sha256(SOME).hexdigest()

    asyncio.run(run())


def test_what_was_whole_is_published_by_the_next_process(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            upload = at.place.spool.begin("alpha", "f", len(SOME))
            at.place.spool.part(upload).write_bytes(SOME)
            assert at.place.spool.finish(upload)
        async with live(tmp_path) as at:
            assert at.get("f").size == len(SOME)

    asyncio.run(run())


def test_the_protocol_of_uploads(tmp_path):
    async def run() -> None:
        async with live(tmp_path, largest=1000) as at:
            base, told = f"{at.url}/uploads/alpha", TUS | bearer(at.tokens["write"])
            async with aiohttp.ClientSession() as client:

                async def ask(method: str, url: str, data: bytes | None = None, **more: str) -> aiohttp.ClientResponse:
                    headers = told | {k.replace("_", "-"): v for k, v in more.items()}
                    async with client.request(method, url, headers=headers, data=data) as answer:
                        await answer.read()
                        return answer

                options = await ask("OPTIONS", base)
                assert options.status == 204 and options.headers["Tus-Max-Size"] == "1000"
                assert options.headers["Tus-Extension"] == "creation,checksum,termination"
                assert (await ask("POST", base, Upload_Length="1001", **meta(filename="f"))).status == 413
                assert (await ask("POST", base, Upload_Length="-1", **meta(filename="f"))).status == 400
                assert (await ask("POST", base, Upload_Length="5", **meta(filename="../f"))).status == 400
                assert (await ask("POST", base, Upload_Length="5", Upload_Metadata="filename %%%")).status == 400
                made = await ask("POST", base, Upload_Length="10", **meta(filename="f"))
                place = made.headers["Location"]
                assert made.status == 201 and place.startswith(base)
                head = await ask("HEAD", place)
                assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("0", "10")
                assert (await ask("PATCH", place, b"ab", Upload_Offset="0")).status == 415
                assert (await ask("PATCH", place, b"ab", Upload_Offset="1", **KIND)).status == 409
                assert (await ask("PATCH", place, b"ab", Upload_Offset="0", **KIND)).headers["Upload-Offset"] == "2"
                wrong = await ask("PATCH", place, b"cd", Upload_Offset="2", **KIND, **check(b"xx"))
                assert wrong.status == 460
                assert (await ask("HEAD", place)).headers["Upload-Offset"] == "2"
                for bad in ("md5 AA==", "sha256 %"):
                    assert (
                        await ask("PATCH", place, b"", Upload_Offset="2", Upload_Checksum=bad, **KIND)
                    ).status == 400
                for algorithm, start in (("sha1", 2), ("sha256", 4)):
                    right = check(b"cd", algorithm)
                    assert (await ask("PATCH", place, b"cd", Upload_Offset=str(start), **KIND, **right)).status == 204
                assert (await ask("PATCH", place, b"x" * 5, Upload_Offset="6", **KIND)).status == 413
                assert (await ask("HEAD", place)).headers["Upload-Offset"] == "6"
                assert (await ask("PATCH", place, b"wxyz", Upload_Offset="6", **KIND)).status == 204
                done = await ask("HEAD", place)
                assert (done.headers["Upload-Offset"], done.headers["Upload-State"]) == ("10", "done")
                assert (await ask("HEAD", f"{base}/{'0' * 32}")).status == 404
                other = (await ask("POST", base, Upload_Length="9", **meta(filename="g"))).headers["Location"]
                assert (await ask("DELETE", other)).status == 204
                assert (await ask("HEAD", other)).status == 404
                async with client.post(base, headers=bearer(at.tokens["write"]) | {"Upload-Length": "1"}) as answer:
                    assert answer.status == 412
            assert at.get("f").sha256 == hashlib.sha256(b"abcdcdwxyz").hexdigest()

    asyncio.run(run())


def test_the_reference_client_of_tus_is_served(tmp_path):
    client_of = pytest.importorskip("tusclient.client", reason="tuspy is not installed")

    def send(url: str, token: str) -> None:
        (tmp_path / "f").write_bytes(SOME)
        client = client_of.TusClient(f"{url}/uploads/alpha", headers=bearer(token))
        with (tmp_path / "f").open("rb") as file:
            first = client.uploader(
                file_stream=file, chunk_size=30_000, metadata={"filename": "f"}, upload_checksum=True
            )
            first.upload_chunk()
            again = client.uploader(file_stream=file, chunk_size=9_999, url=first.url)
            assert again.offset == 30_000
            again.upload()

    async def run() -> None:
        async with live(tmp_path) as at:
            await asyncio.to_thread(send, at.url, at.tokens["write"])
            assert at.get("f").sha256 == hashlib.sha256(SOME).hexdigest()

    asyncio.run(run())


def test_nobody_gets_in_without_a_right(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            await at.put("f", b"secret")
            await at.put("f", b"other", project="beta")
            tokens = {"none": "", "unknown": "x" * 43, **at.tokens}
            reads = [f"{at.url}/{kind}/alpha/f" for kind in ("projects", "manifests")] + [f"{at.url}/projects/alpha/"]
            writes = [("POST", f"{at.url}/uploads/alpha"), ("HEAD", f"{at.url}/uploads/alpha/{'0' * 32}")]
            async with aiohttp.ClientSession() as client:

                async def status(method: str, url: str, token: str, **more: str) -> int:
                    async with client.request(method, url, headers=(bearer(token) if token else {}) | TUS | more) as a:
                        assert a.status == 200 or b"secret" not in await a.read()
                        return a.status

                for name, token in tokens.items():
                    known = name not in ("none", "unknown")
                    for url in reads:
                        got = await status("GET", url, token)
                        assert got == (200 if name in ("all", "read") else 403 if known else 401), (name, url)
                    for method, url in writes:
                        got = await status(method, url, token)
                        assert got in (400, 404) if name in ("all", "write") else got == (403 if known else 401)
                for name in ("..%2falpha%2ff", "%2e%2e/alpha/f", "..%5calpha", "f%00"):
                    assert await status("GET", f"{at.url}/projects/beta/{name}", tokens["beta"]) in (400, 403, 404)
                assert await status("GET", reads[0], tokens["all"], Host="evil.example") == 403

    asyncio.run(run())


def test_an_upload_of_another_project_is_not_there(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at, aiohttp.ClientSession() as client:
            create = TUS | bearer(at.tokens["write"]) | {"Upload-Length": "5"} | meta(filename="f")
            async with client.post(f"{at.url}/uploads/alpha", headers=create) as answer:
                place = answer.headers["Location"].replace("/alpha/", "/beta/")
            async with client.head(place, headers=TUS | bearer(at.tokens["beta"])) as answer:
                assert answer.status == 404

    asyncio.run(run())


def test_what_is_published_stays(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at, gateway(at, at.url) as (url, place):
            await at.put("f", b"first")
            with pytest.raises(Unsent, match="published with other bytes") as refused:
                await at.put("f", b"second")
            assert refused.value.refused
            async with session(at.tokens["all"]) as client:
                for method in ("PUT", "POST", "PATCH", "DELETE", "MOVE"):
                    async with client.request(method, f"{at.url}/projects/alpha/f", data=b"x") as answer:
                        assert answer.status == 405 and "GET" in answer.headers["Allow"]
            await at.put("f", b"third", url=url)
            for _ in range(200):
                if [u.state for u in place.spool] == ["refused"]:
                    break
                await asyncio.sleep(0.02)
            assert "published with other bytes" in next(iter(place.spool)).why
            assert at.get("f").sha256 == hashlib.sha256(b"first").hexdigest()

    asyncio.run(run())


def test_senders_wait_while_the_gateway_is_full_and_its_vault_away(tmp_path, monkeypatch):
    """Back-pressure: nothing is lost, nothing overflows, and all arrives when the vault is back."""
    monkeypatch.setattr("fleetcast.runtime.data.uploads.WAIT", 1)

    async def run() -> None:
        async with live(tmp_path) as at:
            vault, port = at.place, int(at.url.rpartition(":")[2])
        async with gateway(at, at.url, room=100_000) as (url, place):
            await at.put("a", SOME, url=url)
            waiting = asyncio.create_task(at.put("b", SOME[::-1], url=url))
            await asyncio.sleep(0.3)
            assert not waiting.done() and place.spool.used() == len(SOME)
            async with served(vault, port=port):
                await asyncio.wait_for(waiting, 30)
                assert (await at.until("a", 30)).size == (await at.until("b", 30)).size == len(SOME)

    asyncio.run(run())


def test_a_project_has_its_quota_in_the_vault(tmp_path):
    async def run() -> None:
        async with live(tmp_path, quota=100) as at:
            await at.put("a", b"x" * 60)
            with pytest.raises(Unsent, match="may publish 100 bytes"):
                await at.put("b", b"y" * 60)
            await at.put("b", b"y" * 60, project="beta")

    asyncio.run(run())


def test_ranges_are_those_of_the_bytes(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at, session(at.tokens["read"]) as client:
            await at.put("f", SOME)
            url, size = f"{at.url}/projects/alpha/f", len(SOME)
            tag = f'"{hashlib.sha256(SOME).hexdigest()}"'
            chance = random.Random(3)
            spans = [(0, 0), (size - 1, size - 1), *(sorted(chance.sample(range(size), 2)) for _ in range(20))]
            for first, last in spans:
                async with client.get(url, headers={"Range": f"bytes={first}-{last}"}) as answer:
                    assert answer.status == 206 and await answer.read() == SOME[first : last + 1]
                    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
                    assert answer.headers["ETag"] == tag
            for asked, want in (
                ("bytes=-5", SOME[-5:]),
                (f"bytes={size - 3}-", SOME[-3:]),
                ("bytes=5-99999999", SOME[5:]),
            ):
                async with client.get(url, headers={"Range": asked}) as answer:
                    assert answer.status == 206 and await answer.read() == want
            for asked in (f"bytes={size}-", "bytes=9-3", "bytes=-0"):
                async with client.get(url, headers={"Range": asked}) as answer:
                    assert answer.status == 416, asked
            for more in ({"Range": "bytes=1-2,4-5"}, {"Range": "lines=1-2"}, {"Range": "bytes=1-2", "If-Range": '"x"'}):
                async with client.get(url, headers=more) as answer:
                    assert answer.status == 200 and await answer.read() == SOME
            async with client.get(url, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
            async with client.head(url) as answer:
                assert answer.headers["Content-Length"] == str(size) and answer.headers["Accept-Ranges"] == "bytes"
            async with client.get(f"{at.url}/projects/alpha/none") as answer:
                assert answer.status == 404

    asyncio.run(run())


def test_a_file_that_changes_while_it_is_sent_is_not_published(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            path = tmp_path / "f"
            path.write_bytes(SOME)

            def change(done: int, total: int) -> None:
                if done == 0:
                    path.write_bytes(SOME[::-1])

            async with session(at.tokens["write"]) as client:
                with pytest.raises(Unsent, match="changed while it was sent"):
                    await push(client, at.url, "alpha", path, "f", chunk=30_000, progress=change)
            assert at.get("f") is None

    asyncio.run(run())


def test_places_that_are_away_or_no_places_say_so(tmp_path):
    async def run() -> None:
        (tmp_path / "f").write_bytes(b"x")
        async with session("token") as client:
            with pytest.raises(Unsent, match="failed 2 times in a row"):
                await push(client, "http://127.0.0.1:9", "alpha", tmp_path / "f", "f", tries=1)

    asyncio.run(run())


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "http://", "http://example.org", "http://10.0.0.1:8700", "https://x:99999", "http://127.0.0.1/?a"],
)
def test_addresses_that_cannot_be_or_would_show_a_token(url):
    with pytest.raises(SpecError):
        check_url(url)


def test_a_place_listens_to_others_only_with_tls(tmp_path):
    async def run() -> None:
        async with live(tmp_path) as at:
            with pytest.raises(SpecError, match="would show tokens"):
                async with served(at.place, host="0.0.0.0"):
                    pass

    asyncio.run(run())


def test_an_upload_with_all_its_bytes_that_nobody_finished_is_finished(tmp_path):
    """The process died after the last byte: its length alone does not make an upload done."""

    async def run() -> None:
        async with live(tmp_path) as at:
            upload = at.place.spool.begin("alpha", "f", len(SOME), hashlib.sha256(SOME).hexdigest())
            at.place.spool.part(upload).write_bytes(SOME)
            sent = await at.put("f", SOME)
            assert sent.resumed == len(SOME) and at.get("f").size == len(SOME)
            wrong = at.place.spool.begin("alpha", "g", len(SOME), hashlib.sha256(SOME).hexdigest())
            at.place.spool.part(wrong).write_bytes(SOME[::-1])
            assert (await at.put("g", SOME)).resumed == 0 and at.get("g").size == len(SOME)
            for name in "hi":
                left = at.place.spool.begin("alpha", name, len(SOME))
                at.place.spool.part(left).write_bytes(SOME)
        async with live(tmp_path) as at:
            assert at.get("h").size == at.get("i").size == len(SOME)

    asyncio.run(run())


def test_what_the_store_could_not_take_is_not_done_before_it_can(tmp_path, monkeypatch):
    """The bytes are whole but the store fails: the sender is told to come again, and keeps its file until then."""
    monkeypatch.setattr("fleetcast.runtime.data.push.FIRST", 0.01)

    async def run() -> None:
        async with live(tmp_path) as at:
            publish, left = at.place._vault.publish, [3]

            def failing(*what):
                left[0] -= 1
                if left[0] >= 0:
                    raise RuntimeError("the store is away")
                return publish(*what)

            at.place._vault.publish = failing
            sent = await at.put("f", SOME)
            assert sent.tries == 3 and left[0] == -1 and at.get("f").size == len(SOME)

    asyncio.run(run())


def test_a_full_disk_makes_senders_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("fleetcast.runtime.data.places.WAIT", 1)

    async def run() -> None:
        async with live(tmp_path) as at:
            part, left = at.place.spool.part, [2]

            def full(upload):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(errno.ENOSPC, "no space")
                return part(upload)

            at.place.spool.part = full
            await at.put("f", SOME)
            assert left[0] < 0 and at.get("f").size == len(SOME)

    asyncio.run(run())


def test_what_a_folder_has_ready(tmp_path):
    for name in ("old", "new", ".hidden", "bad\\name", "run 1/a", ".git/b"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        if name != "new":
            os.utime(path, (1e9, 1e9))
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to(tmp_path)
    skipped, early = [], []
    found = [name for _, name in ready(tmp_path, settle=60, skip=skipped.append, early=early.append)]
    assert found == ["old", "run 1/a"]
    assert sorted(p.name for p in skipped) == ["bad\\name", "link"] and [p.name for p in early] == ["new"]
    with pytest.raises(SpecError, match="is no folder"):
        next(ready(tmp_path / "none"))
