"""What a server meets: many streams, slow readers, readers who leave, nonsense, strangers, too much, and its own end.

After each of them every request has an answer or an error, and no block of the KV cache is held.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.policy import batch
from fleetcast.policy.batch import Batch
from tests.runtime.llm import words

pytest.importorskip("torch", reason="torch is not installed")
aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from fleetcast.runtime.llm.text import open_text  # noqa: E402
from fleetcast.runtime.serve.server import Server  # noqa: E402
from tests.runtime.serve.live import MODEL, real_engine, serving, slow_engine  # noqa: E402

ASK = {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 20, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return words.speaking(tmp_path_factory.mktemp("model") / "speaks")


def post(live, body, path="/v1/completions", **headers):
    """Returns (status, headers, body) of one request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(live.root + path, data, {"Content-Type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, found.headers, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def get(live, path, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(live.root + path, headers=headers), timeout=20) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def raw(live, body, *, read=None, buffer=None):
    """Returns a socket on which a request was sent; ``buffer`` = bytes of answers that the system takes for it."""
    found = socket.socket()
    if buffer:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    host, port = live.root.removeprefix("http://").split(":")
    found.connect((host, int(port)))
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    found.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return found


def until(true, timeout=10.0):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


async def stream(http, live, body):
    """Returns (status, text, how it ended): "done", "error", "cut" or "refused"."""
    text = ""
    async with http.post(f"{live.url}/completions", json=body | {"stream": True}) as response:
        if response.status != 200:
            return response.status, (await response.json())["error"]["message"], "refused"
        async for line in response.content:
            data = line.decode().strip().removeprefix("data: ")
            if data == "[DONE]":
                return 200, text, "done"
            if data:
                event = json.loads(data)
                if "error" in event:
                    return 200, event["error"]["message"], "error"
                text += "".join(c["text"] for c in event["choices"])
    return 200, text, "cut"


def many(live, bodies, **settings):
    """Returns what became of streams that run at once."""

    async def all_of_them():
        limit = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit, **settings) as http:
            return await asyncio.gather(*(stream(http, live, b) for b in bodies))

    return asyncio.run(all_of_them())


def test_200_streams_at_once_are_all_answered_as_if_each_were_alone(folder):
    engine = real_engine(folder, blocks=300, batch=batch.Chunked(chunk=256, max_batch=64))
    bodies = [ASK | {"prompt": [3 + i % 50, 7, i % 11], "max_tokens": 10 + i % 20} for i in range(200)]
    with serving(engine, folder) as live:
        found = many(live, bodies)
        assert [f[2] for f in found] == ["done"] * 200
        live.rest()
        assert live.metric("request_success_total", finished_reason="length") == 200
        assert live.metric("generation_tokens_total") == sum(b["max_tokens"] for b in bodies)
    by_body = {}
    for body, (_, text, _) in zip(bodies, found, strict=True):  # equal questions beside others: equal answers
        key = tuple(body["prompt"]), body["max_tokens"]
        assert by_body.setdefault(key, text) == text
    text = open_text(folder, words.VOCAB + 16)
    for i in (0, 57, 199):
        one = real_engine(folder)
        made = one.submit(bodies[i]["prompt"], bodies[i]["max_tokens"])
        one.run()
        before = text.decode(bodies[i]["prompt"])
        whole = text.decode([*bodies[i]["prompt"], *made.output])
        assert found[i][1] == whole.removeprefix(before)


def test_a_full_cache_evicts_and_loses_nothing(folder):
    engine = slow_engine(blocks=40)
    bodies = [ASK | {"prompt": [i] * 20, "max_tokens": 60} for i in range(32)]
    with serving(engine, folder) as live:
        found = many(live, bodies)
        assert [f[2] for f in found] == ["done"] * 32
        live.rest()
        assert live.metric("num_preemptions_total") == engine.preemptions > 0


def test_beyond_the_waiting_line_requests_are_refused_at_once_and_the_others_are_answered(folder):
    engine = slow_engine(0.01, policy=batch.Chunked(chunk=64, max_batch=4))
    with serving(engine, folder, max_waiting=20) as live:
        found = many(live, [ASK] * 120)
        assert {f[2] for f in found} == {"done", "refused"}
        refused = [f for f in found if f[2] == "refused"]
        assert {f[0] for f in refused} == {503}
        assert 120 - 24 - 30 <= len(refused) <= 120 - 20, "the line and the batch, and a few that ended meanwhile"
        assert live.metric("http_refusals_total", status="503") == len(refused)
        until(lambda: not engine.load)
        occupied = [raw(live, ASK | {"max_tokens": 5000}) for _ in range(4)]
        until(lambda: len(engine.schedule.running) == 4)
        occupied += [raw(live, ASK | {"max_tokens": 5000}) for _ in range(20)]
        until(lambda: len(engine.schedule.waiting) == 20)
        status, headers, body = post(live, ASK)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "overloaded"
        assert "20 requests wait" in json.loads(body)["error"]["message"]
        for s in occupied:
            s.close()
        live.rest()
        assert post(live, ASK)[0] == 200


@pytest.mark.parametrize("streams", [True, False])
def test_a_reader_who_leaves_frees_his_blocks(folder, streams):
    engine = slow_engine(0.005)
    with serving(engine, folder) as live:
        sockets = [raw(live, ASK | {"max_tokens": 20_000, "stream": streams}) for _ in range(10)]
        until(lambda: engine.blocks.used >= 10)
        if streams:
            assert b"200 OK" in sockets[0].recv(4096)
        for s in sockets:
            s.close()
        live.rest()
        assert live.metric("request_failure_total", reason="cancelled") == 10
        assert live.metric("request_success_total", finished_reason="length") == 0


def test_a_reader_who_leaves_while_waiting_is_forgotten(folder):
    engine = slow_engine(0.02, policy=batch.Chunked(chunk=64, max_batch=1))
    with serving(engine, folder) as live:
        first = raw(live, ASK | {"max_tokens": 5000})
        until(lambda: len(engine.schedule.running) == 1)
        second = raw(live, ASK)
        until(lambda: len(engine.schedule.waiting) == 1)
        second.close()
        until(lambda: not engine.schedule.waiting)
        assert len(engine.schedule.running) == 1, "the one who stays is served on"
        first.close()


def test_a_reader_who_does_not_read_is_cut_off_and_the_others_are_not(folder):
    engine = slow_engine()
    with serving(engine, folder, stall=1.0, buffer=200) as live:
        slow = [raw(live, ASK | {"max_tokens": 60_000, "stream": True, "logprobs": 20}, buffer=4096) for _ in range(4)]
        until(lambda: engine.load == 4)
        assert many(live, [ASK] * 8) == [(200, many(live, [ASK])[0][1], "done")] * 8
        live.rest(20)
        assert live.metric("request_failure_total", reason="slow_reader") == 4
        assert live.metric("generation_tokens_total") < 4 * 30_000, "they were cut off long before their end"
        for s in slow:
            s.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                while s.recv(1 << 16):
                    pass
            s.close()


def test_a_slow_reader_who_keeps_reading_gets_everything(folder):
    engine = slow_engine()
    with serving(engine, folder, stall=5.0, buffer=100_000) as live:
        s = raw(live, ASK | {"max_tokens": 800, "stream": True, "logprobs": 5}, buffer=4096)
        s.settimeout(10)
        found = b""
        while b"[DONE]" not in found:
            found += s.recv(1 << 14)
            time.sleep(0.001)
        s.close()
        assert live.metric("request_success_total", finished_reason="length") == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_crowd_that_does_everything_at_once_leaves_nothing_behind(folder, seed):
    """Readers who stay, leave at any time, do not read, ask nonsense, stop at a string: on a cache that must evict."""
    draw = np.random.default_rng(seed)
    engine = slow_engine(0.0005, blocks=60, policy=batch.Chunked(chunk=48, max_batch=24))
    ends = Counter()

    async def one(http, live, kind, wait, length):
        await asyncio.sleep(wait)
        body = ASK | {"prompt": [int(length)] * int(1 + length % 40), "max_tokens": int(length), "stream": True}
        if kind == "nonsense":
            body |= {"temperature": -1}
        if kind == "stops":
            body |= {"stop": ["a", "e", "\n"], "temperature": 1}
        if kind == "too long":
            body |= {"max_tokens": 5000}
        try:
            async with asyncio.timeout(float(wait) if kind == "leaves" else 60):
                return (await stream(http, live, body))[2]
        except TimeoutError:
            return "left"

    async def crowd(live):
        kinds = ["stays", "stays", "stops", "leaves", "leaves", "nonsense", "too long"]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            rows = zip(draw.choice(kinds, 160), draw.uniform(0.001, 0.6, 160), draw.integers(1, 90, 160), strict=True)
            return await asyncio.gather(*(one(http, live, *row) for row in rows))

    with serving(engine, folder, max_waiting=150) as live:
        lazy = [raw(live, ASK | {"max_tokens": 800, "stream": True}, buffer=4096) for _ in range(3)]
        ends.update(asyncio.run(crowd(live)))
        for s in lazy:
            s.close()
        live.rest(30)
        assert engine.preemptions > 0, "the case must evict"
        failed = sum(live.metric("request_failure_total", reason=r) for r in ("cancelled", "slow_reader", "engine"))
        whole = sum(live.metric("request_success_total", finished_reason=r) for r in ("stop", "length"))
        assert engine.submitted == whole + failed, "each has one end"
    assert sum(ends.values()) == 160
    assert set(ends) == {"done", "refused", "left"}, "nobody met an error, or an end that is none"
    assert ends["done"] <= whole


def test_readers_who_leave_are_no_faults_in_the_log(folder, caplog):
    with serving(slow_engine(0.001), folder) as live:
        for streams in (True, False):
            for wait in (0.0, 0.002, 0.005, 0.01, 0.02):
                s = raw(live, ASK | {"max_tokens": 5000, "stream": streams})
                time.sleep(wait)
                s.close()
        live.rest()
        assert live.metric("request_failure_total", reason="cancelled") == live.engine.submitted
    assert not caplog.records


def test_a_fault_of_the_thread_ends_every_request_and_is_said(folder, caplog, monkeypatch):
    engine = slow_engine(0.01)
    with serving(engine, folder, stop=False) as live:
        thread, found = in_background(live, ASK | {"max_tokens": 5000})
        until(lambda: engine.load)
        monkeypatch.setattr(live.server._worker, "_step", lambda: 1 / 0)
        thread.join(10)
        assert found["status"] == 500
        until(lambda: not live.server._worker.alive)
        assert get(live, "/health")[0] == 503
        assert post(live, ASK)[0] == 503
        live.stop()
    assert "the engine's thread ends" in caplog.text


BODIES = {
    "nothing": b"", "no json": b"hello", "half": b'{"model": "tiny"', "list": b"[]", "null": b"null",
    "bytes": bytes(range(256)), "deep": b"[" * 50_000, "surrogate": b'{"model": "tiny", "prompt": "\\ud800"}',
    "number": b'{"model": "tiny", "prompt": 1e400}', "no prompt": b'{"model": "tiny"}',
    "nan": b'{"model": "tiny", "prompt": "x", "temperature": NaN}', "twice": b'{"model": "tiny", "prompt": ""}',
    "negative": b'{"model": "tiny", "prompt": [-1]}', "nothing in it": b'{"model": "tiny", "prompt": []}',
    "huge id": b'{"model": "tiny", "prompt": [' + b"9" * 300 + b"]}",
    "zero": b'{"model": "tiny", "prompt": "x", "max_tokens": 0}', "text": b'"text"',
    "beyond": b'{"model": "tiny", "prompt": "x", "max_tokens": 99999999}',
}  # fmt: skip


def test_malformed_bodies_are_refused_with_a_reason_and_nothing_else_happens(folder):
    with serving(slow_engine(), folder) as live:
        for path in ("/v1/completions", "/v1/chat/completions"):
            for case, body in BODIES.items():
                status, headers, said = post(live, body, path)
                assert status == 400, case
                assert headers["Content-Type"].startswith("application/json")
                assert json.loads(said)["error"]["message"], case
        assert post(live, b" " * (5 << 20))[0] == 413
        assert post(live, ASK, **{"Content-Type": "text/plain"})[0] == 415
        assert post(live, ASK, **{"Content-Encoding": "gzip"})[0] == 415
        assert get(live, "/v1/completions")[0] == 405
        status, said = get(live, "/nowhere")
        assert (status, json.loads(said)["error"]["type"]) == (404, "not_found_error")
        assert post(live, ASK)[0] == 200
        assert live.metric("generation_tokens_total") == 20


@pytest.mark.parametrize("head", [
    b"\x00\xff\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: x\r\n" % i for i in range(5000)) + b"\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
])  # fmt: skip
def test_what_is_no_http_is_refused(folder, head):
    with serving(slow_engine(), folder) as live:
        s = raw(live, ASK)  # an honest one before
        assert b"200 OK" in s.recv(1 << 16)
        s.close()
        with socket.create_connection(s_address(live), timeout=10) as bad, contextlib.suppress(ConnectionError):
            bad.sendall(head)
            said = bad.recv(1 << 16)
            assert b" 400 " in said or said == b"" or b" 403 " in said
        assert post(live, ASK)[0] == 200


def s_address(live):
    host, port = live.root.removeprefix("http://").split(":")
    return host, int(port)


def test_connections_that_never_ask_and_bodies_that_never_come_are_closed(folder):
    with serving(slow_engine(), folder, idle=0.5) as live, contextlib.ExitStack() as stack:
        silent, half, late = (stack.enter_context(socket.create_connection(s_address(live), timeout=10)) for _ in "123")
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localh")
        late.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert silent.recv(100) == b""
        assert half.recv(100) == b""
        assert b" 408 " in late.recv(1 << 16)


def test_only_who_has_the_key_may_ask(folder):
    with serving(slow_engine(), folder, key="secret") as live:
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic secret"}, {"Authorization": "x"}):
            status, found, said = post(live, ASK, **headers)
            assert (status, found["WWW-Authenticate"]) == (401, "Bearer")
            assert json.loads(said)["error"]["code"] == "invalid_api_key"
            assert b"secret" not in said
            assert get(live, "/metrics", **headers)[0] == 401
            assert get(live, "/v1/models", **headers)[0] == 401
        with socket.create_connection(s_address(live), timeout=10) as odd:
            odd.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
            assert odd.recv(4096).split()[1] in (b"400", b"401")
        assert get(live, "/health")[0] == 200
        assert post(live, ASK, Authorization="Bearer secret")[0] == 200
        assert get(live, "/metrics", Authorization="bearer secret")[0] == 200
        assert live.metric("http_refusals_total", status="401") >= 12


def test_a_web_page_s_name_for_this_machine_is_refused(folder):
    with serving(slow_engine(), folder) as live:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil.example"):
            assert post(live, ASK, Host=host)[0] in (400, 403)
            assert get(live, "/metrics", Host=host)[0] in (400, 403)
        for host in ("localhost", "localhost:8000", "127.0.0.1", "127.1.2.3:80", "[::1]:80"):
            assert post(live, ASK, Host=host)[0] == 200


def test_an_address_that_asks_too_often_is_told_when_to_come_back(folder):
    with serving(slow_engine(), folder, rate=1.0) as live:
        found = [post(live, ASK | {"max_tokens": 1}) for _ in range(6)]
        codes = [status for status, _, _ in found]
        assert codes[:2] == [200, 200]
        assert 429 in codes[2:]
        _, headers, said = found[codes.index(429)]
        assert headers["Retry-After"] == "1"
        assert json.loads(said)["error"]["code"] == "rate_limit_exceeded"
        assert get(live, "/health")[0] == 200


def test_too_many_connections_are_refused(folder):
    with serving(slow_engine(), folder, max_connections=5) as live:
        idle = [socket.create_connection(s_address(live)) for _ in range(5)]
        until(lambda: len(live.server._runner.server.connections) == 5)
        assert post(live, ASK)[0] == 503
        for s in idle:
            s.close()
        until(lambda: not live.server._runner.server.connections)
        assert post(live, ASK)[0] == 200


def test_a_pass_that_fails_ends_those_in_it_with_an_error_and_the_server_goes_on(folder, caplog):
    engine = slow_engine(0.01)
    with serving(engine, folder) as live:
        s = raw(live, ASK | {"max_tokens": 5000, "stream": True})
        assert b"200 OK" in s.recv(1 << 14)
        engine.model.failing = True
        found = b""
        while part := s.recv(1 << 14):
            found += part
            if b"error" in found:
                break
        assert b"the server failed" in found
        assert b"[DONE]" not in found
        s.close()
        status, _, said = post(live, ASK)
        assert (status, json.loads(said)["error"]["type"]) == (500, "server_error")
        assert b"no such pass" not in said
        engine.model.failing = False
        assert post(live, ASK)[0] == 200
        assert live.metric("request_failure_total", reason="engine") == 2
    assert "no such pass" in caplog.text


class Never:
    """Runs nothing."""

    kind = "never"

    def compose(self, view):
        return Batch((), decode=False)


def test_a_policy_that_runs_nothing_is_named(folder, monkeypatch):
    monkeypatch.setattr("fleetcast.runtime.serve.worker.PATIENCE", 0.3)
    with serving(slow_engine(policy=Never()), folder) as live:
        status, _, said = post(live, ASK)
        assert status == 500
        assert "Never.compose runs nothing" in json.loads(said)["error"]["message"]


def in_background(live, body):
    found = {}
    thread = threading.Thread(
        target=lambda: found.update(zip(("status", "head", "body"), post(live, body), strict=True))
    )
    thread.start()
    return thread, found


def test_told_to_stop_it_lets_answers_end_and_takes_no_new_ones(folder):
    engine = slow_engine(0.02)
    with serving(engine, folder, stop=False, drain=20) as live:
        kept = raw(live, ASK | {"max_tokens": 1})
        assert b"200 OK" in kept.recv(1 << 14)
        thread, found = in_background(live, ASK | {"max_tokens": 50})
        until(lambda: engine.load)
        stopping = asyncio.run_coroutine_threadsafe(live.server.stop(), live.loop)
        until(lambda: live.server._api.draining)
        kept.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert b" 503 " in kept.recv(1 << 14)
        kept.close()
        time.sleep(0.1)
        with pytest.raises(OSError):
            socket.create_connection(s_address(live), timeout=1)
        assert stopping.result(20) == 0
        thread.join(10)
        assert found["status"] == 200
        assert json.loads(found["body"])["usage"]["completion_tokens"] == 50
        assert engine.blocks.used == 0
        assert not live.server._worker.alive


def test_what_does_not_end_in_time_ends_with_an_error(folder):
    engine = slow_engine(0.02)
    with serving(engine, folder, stop=False, drain=0.2) as live:
        thread, found = in_background(live, ASK | {"max_tokens": 50_000})
        s = raw(live, ASK | {"max_tokens": 50_000, "stream": True})
        until(lambda: engine.load == 2)
        assert b"200 OK" in s.recv(1 << 14)
        assert live.stop() == 2
        thread.join(10)
        assert found["status"] == 503
        assert json.loads(found["body"])["error"]["code"] == "shutdown"
        rest = b""
        while part := s.recv(1 << 14):
            rest += part
        s.close()
        assert b'"code":"shutdown"' in rest
        assert engine.blocks.used == 0


def test_a_server_that_would_be_open_to_strangers_does_not_start(folder):
    text = open_text(folder, words.VOCAB + 16)
    with pytest.raises(SpecError, match="would let anyone in") as found:
        Server(slow_engine(), text, MODEL, host="0.0.0.0")
    assert "--key-env" in found.value.hint
    for host in ("127.0.0.1", "localhost", "::1"):
        Server(slow_engine(), text, MODEL, host=host)
    Server(slow_engine(), text, MODEL, host="0.0.0.0", key="k")


@pytest.mark.parametrize("host, where", [("127.0.0.1", "port"), ("no-such-host.invalid", "host")])
def test_an_address_that_cannot_be_had_is_named(folder, host, where):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(slow_engine(), open_text(folder, words.VOCAB + 16), MODEL, host=host, port=port, key="k")
        with pytest.raises(SpecError) as found:
            asyncio.run(server.start())
        assert found.value.path == where
        assert found.value.value == (port if where == "port" else host)
        assert found.value.limit
        assert found.value.hint
