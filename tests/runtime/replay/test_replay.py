"""Replays against a toy server of known delays in the same process: what is measured is what is there.

Times are compared with generous tolerance: a replay on a busy machine is late, never early.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest

from benchmarks.toy_server import Toy, serving
from fleetcast.base.errors import MissingExtra, SpecError, Unsupported
from fleetcast.runtime.replay import Server, address, key_of, replay
from fleetcast.runtime.replay.client import chosen
from fleetcast.runtime.replay.prompts import Prompts
from fleetcast.scenario.latencies import latency
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.workload.requests import requests

pytest.importorskip("httpx")
SLACK = 0.15
"""s that a loaded machine may be late, on average."""


def traffic(n=20, gap=0.01, prompt=12, output=6, **more):
    return requests(np.arange(n) * gap, np.full(n, prompt), np.full(n, output), **more)


def run(url, q=None, *, slo=None, warmup=1, speed=1.0, seed=0, progress=None, model="toy", **server):
    return replay(
        traffic() if q is None else q, Server(address(url), **server), slo=slo or Slo(), plan={}, model=model,
        speed=speed, warmup=warmup, seed=seed, progress=progress,
    )  # fmt: skip


def test_latencies_are_the_servers_delays():
    toy = Toy(first=0.2, gap=0.03)
    with serving(toy) as url:
        done = run(url, slo=Slo(ttft_p99=5.0, e2e_mean=0.001))
    m, o = done.outcome.metrics, done.outcome
    assert o.source == "measured"
    assert 0.199 < m["ttft"]["p50"] < 0.2 + SLACK
    assert 0.349 < m["e2e"]["p50"] < 0.35 + 2 * SLACK
    assert 0.02 < m["tpot"]["p50"] < 0.03 + SLACK / 5
    assert (m["requests"], m["failed"], m["output_tokens"], m["prompt_tokens"]) == (20, 0, 120, 240)
    assert m["throughput"] == pytest.approx(120 / m["makespan"])
    assert [c["met"] for c in o.slo["checks"]] == [True, False]
    assert m["goodput"] == 0, "no request met the limit on E2E"
    assert m["ttft"] == latency(o.requests)["ttft"], "one definition of the statistics"
    assert not o.intervals


def test_arrivals_keep_the_clock_and_speed_scales_it():
    with serving(Toy(first=0.01, gap=0.0)) as url:
        slow = run(url, traffic(11, 0.05)).outcome
        fast = run(url, traffic(11, 0.05), speed=5.0).outcome
    for found, gap in ((slow, 0.05), (fast, 0.01)):
        sent = found.requests.arrival
        assert (sent >= np.arange(11) * gap - 0.001).all(), "never early"
        assert sent[-1] < 10 * gap + 2 * SLACK
    assert any("5 times as fast" in note for note in fast.notes)
    assert fast.provenance["requests"] != slow.provenance["requests"] == traffic(11, 0.05).digest()


def test_requests_are_sent_in_order_each_once_with_the_wanted_lengths():
    q = requests([0, 0.01, 0.02, 0.03], [3, 9, 5, 7], [2, 4, 1, 3])
    toy = Toy(first=0.0, gap=0.0)
    with serving(toy) as url:
        done = run(url, q, warmup=2, seed=3, extra={"ignore_eos": True})
    asked, made = toy.seen[2:], Prompts(q, 3)
    assert [row["prompt"] for row in asked] == [made.tokens(i).tolist() for i in range(4)]
    assert [row["max_tokens"] for row in asked] == [2, 4, 1, 3]
    assert all(row["stream"] and row["ignore_eos"] and row["model"] == "toy" for row in toy.seen)
    assert [row[0] for row in done.rows] == [0, 1, 2, 3]
    assert [row[6] for row in done.rows] == [2, 4, 1, 3]


def test_a_closed_loop_never_has_more_users_and_keeps_them_busy():
    q = traffic(30, 0.0, concurrency=4)
    toy = Toy(first=0.03, gap=0.002)
    with serving(toy) as url:
        done = run(url, q)
    assert toy.most == 4
    assert done.outcome.metrics["requests"] == 30
    assert sorted(row["prompt"][0] for row in toy.seen[1:]) == sorted(
        int(Prompts(q, 0).tokens(i)[0]) for i in range(30)
    )
    assert done.outcome.metrics["makespan"] >= 30 / 4 * 0.03


def test_users_start_over_the_ramp_and_pause_as_simulated():
    from dataclasses import replace

    q = replace(traffic(6, 0.0, output=1, concurrency=2), ramp=0.2, think=0.1)
    with serving(Toy(first=0.0)) as url:
        done = run(url, q, seed=4)
    sent, e2e = ([row[k] for row in done.rows] for k in (2, 4))
    assert sent[1] >= 0.099
    thought = q.thought(4)
    ends = [s + e for s, e in zip(sent, e2e, strict=True)]
    for i in range(2, 6):  # it followed some earlier answer by its own pause
        assert min(abs(sent[i] - end - thought[i]) for end in ends[:i]) < SLACK
        assert sent[i] >= min(ends[:i]) + thought[i] - 0.001


def test_later_turns_repeat_what_was_answered():
    q = requests([0, 0.6], [8, 20], [5, 3], session=[1, 1], prefix=[0, 13])
    toy = Toy(first=0.0, gap=0.0)
    with serving(toy) as url:
        told = run(url, q, extra={"return_token_ids": True}).outcome
        first, second = (row["prompt"] for row in toy.seen[1:3])
        assert second[:8] == first
        assert second[8:13] == [40_000, 40_001, 40_002, 40_003, 40_004]
        untold = run(url, q).outcome
    assert not [n for n in told.notes if "made up" in n]
    assert [n for n in untold.notes if n.startswith("5 prompt tokens should repeat an answer")]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("cut", "disconnected"), ("error", "error"), ("garbage", "malformed"), ("empty", "empty"),
        ("quiet end", "disconnected"), ("no stream", "not streaming"), ("429", "HTTP 429"), ("503", "HTTP 503"),
    ],
)  # fmt: skip
def test_failed_requests_are_counted_by_kind_and_lost_by_none(fault, status):
    # every third request fails, after the one that warms up
    q = traffic(9)
    marked = {int(Prompts(q, 0).tokens(i)[0]) for i in (0, 3, 6)}
    toy = Toy(first=0.0, gap=0.0, fault=lambda body: fault if body["prompt"][0] in marked else "")
    with serving(toy) as url:
        done = run(url, q, slo=Slo(ttft_p99=10.0))
    m = done.outcome.metrics
    assert (m["requests"], m["failed"]) == (6, 3)
    assert done.outcome.provenance["failed"] == {status: 3}
    assert [row[8] for row in done.rows] == [status, "ok", "ok"] * 3
    assert all(row[9] for row in done.rows if row[8] not in ("ok", "empty"))
    assert done.outcome.slo["met"] is False, "a request that was not answered met no limit"
    assert any(n.startswith(f"3 of 9 requests failed: {status}") for n in done.outcome.notes)


def test_a_server_that_has_chats_only_is_asked_for_chats():
    toy = Toy(first=0.0, gap=0.0, paths=("/v1/chat/completions",))
    with serving(toy) as url:
        with pytest.raises(SpecError, match=r"has no /completions.*--prompts chat"):
            run(url)
        done = run(url + "/v1/chat/completions", prompts="chat")
    m = done.outcome.metrics
    assert (m["requests"], m["failed"], m["output_tokens"], m["prompt_tokens"]) == (20, 0, 120, 240)
    assert done.outcome.provenance["prompts"] == "chat"
    (message,) = toy.seen[-1]["messages"]
    assert message["role"] == "user"
    assert len(message["content"].split()) == 12
    assert "prompt" not in toy.seen[-1]


def test_a_way_to_send_prompts_that_is_none_is_refused():
    with pytest.raises(SpecError, match=r"prompts: cannot be.*tokens, text, chat"):
        run("http://127.0.0.1:1", prompts="texts")


def test_a_server_that_hangs_is_a_timeout():
    q = traffic(4)
    late = int(Prompts(q, 0).tokens(2)[0])
    toy = Toy(first=0.0, gap=0.0, fault=lambda body: "hang" if body["prompt"][0] == late else "")
    with serving(toy) as url:
        done = run(url, q, timeout=1.0)
    assert [row[8] for row in done.rows] == ["ok", "ok", "timeout", "ok"]


@pytest.mark.parametrize("fault", ["dribble", "no usage"])
def test_slow_writers_and_servers_that_do_not_count(fault):
    with serving(Toy(first=0.0, gap=0.0, fault=lambda _: fault)) as url:
        done = run(url)
    assert done.outcome.metrics["output_tokens"] == 120
    assert done.outcome.metrics["failed"] == 0


def test_a_sender_that_is_too_slow_says_so():
    with serving(Toy(first=0.05, gap=0.001)) as url:
        done = run(url, progress=lambda *_: time.sleep(0.05))
    slow = done.outcome
    assert slow.provenance["lag"] > 0.005
    assert max(row[2] - row[1] for row in done.rows) > 0.02, "sent is when it left, not when it should have"
    assert any("a part of what it measured" in note for note in slow.notes)


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_nobody_listens():
    with pytest.raises(SpecError, match=r"url: is not listening.*Start the server"):
        run(f"http://127.0.0.1:{closed_port()}")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("401", r"key_env: is wanted, HTTP 401: toy fault 401.*OPENAI_API_KEY"),
        ("404", r"url: has no /completions"),
        ("400", r"url: does not take such requests, HTTP 400.*--prompts text"),
        ("307", r"sends elsewhere, HTTP 307"),
        ("500", r"gave no answer to measure, HTTP 500"),
        ("no stream", r"does not stream, it answered application/json.*stream = true"),
        ("garbage", r"streams what is no completion: {not JSON"),
        ("cut", r"gave no answer to measure, disconnected"),
        ("hang", r"did not answer in time.*--timeout"),
    ],
)
def test_what_concerns_every_request_is_said_once_before_the_run(fault, said):
    toy = Toy(first=0.0, gap=0.0, fault=lambda _: fault)
    with serving(toy) as url, pytest.raises(SpecError, match=said):
        run(url, timeout=0.5 if fault == "hang" else 60.0)
    assert len(toy.seen) == 1


def test_none_answered_is_an_error_with_the_first_reason():
    q = traffic(3)
    own = {int(Prompts(q, 0).tokens(i)[0]) for i in range(3)}
    toy = Toy(fault=lambda body: "503" if body["prompt"][0] in own else "")
    with serving(toy) as url, pytest.raises(Unsupported, match=r"none of 3 requests .*3 HTTP 503.*toy fault 503"):
        run(url, q)


def test_the_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with serving(Toy(first=0.0, gap=0.0, key="sk-very-secret")) as url:
        done = run(url, key=key_of("MY_KEY"))
        assert done.outcome.metrics["failed"] == 0
        assert "secret" not in repr(done) + repr(Server(url, key="sk-very-secret")) + str(done.outcome.table())
        with pytest.raises(SpecError, match="holds no key that the server takes") as wrong:
            run(url, key="sk-other-secret")  # the server repeats it in its refusal
    assert "secret" not in str(wrong.value)
    assert "***" in str(wrong.value)


def test_keys_that_cannot_be(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    assert key_of("") == ""
    with pytest.raises(SpecError, match=r"key_env: names a variable that is not set \(got 'MY_KEY'\)"):
        key_of("MY_KEY")
    monkeypatch.setenv("MY_KEY", "geheim\u00fc")
    with pytest.raises(SpecError, match="printable ASCII") as wrong:
        key_of("MY_KEY")
    assert "geheim" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/team/v1/completions", "https://host/team/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(url, found):
    assert address(url) == found


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "file:///etc/passwd", "http://", "http://host:port", "http://a b/"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(SpecError, match=r"^url: is not"):
        address(url)


@pytest.mark.parametrize("url", ["http://me:secret@host", "http://host/?key=secret", "http://host/#secret"])
def test_addresses_with_secrets_are_refused_and_not_repeated(url):
    with pytest.raises(SpecError, match="OPENAI_API_KEY") as wrong:
        address(url)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("wanted", "served", "found"),
    [("", ["a"], "a"), ("", ["a", "mine"], "mine"), ("b", ["a", "b"], "b"), ("", [], "mine"), ("b", [], "b")],
)
def test_which_model_is_asked_for(wanted, served, found):
    assert chosen(wanted, served, "http://host/v1", "mine") == found


def test_models_that_are_not_served():
    with serving(Toy(models=("llama-a", "llama-b"))) as url:
        with pytest.raises(SpecError, match=r"model: is to be chosen.*llama-a, llama-b"):
            run(url)
        with pytest.raises(SpecError, match=r"model: is not served at .*\(got 'lama-b'\).*Did you mean 'llama-b'"):
            replay(traffic(), Server(address(url), "lama-b"), slo=Slo(), plan={}, model="x")
    with serving(Toy(models=(), fault=lambda _: "no model")) as url, pytest.raises(SpecError) as unknown:
        run(url)
    assert str(unknown.value).startswith(f"model: is not served at {url}/v1: The model does not exist (got 'toy')")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("speed", {"speed": 0.0}), ("speed", {"speed": float("nan")}), ("speed", {"speed": float("inf")}),
        ("warmup", {"warmup": 0}), ("warmup", {"warmup": 10_000}), ("timeout", {"timeout": -1.0}),
    ],
)  # fmt: skip
def test_settings_out_of_range(name, settings):
    with pytest.raises(SpecError, match=f"^{name}: is out of range"):
        run("http://127.0.0.1:1", **settings)


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"fleetcast\[run\]"):
        run("http://127.0.0.1:1")


def test_inside_an_event_loop_the_way_out_is_named():
    async def inside():
        run("http://127.0.0.1:1")

    with pytest.raises(Unsupported, match=r"asyncio\.to_thread"):
        asyncio.run(inside())


def interrupt_when(ready):
    """Sends this process Ctrl-C once ``ready()``, also where a shell that runs tests behind has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait():
        end = time.monotonic() + 30
        while not ready() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_what_was_measured_before_an_interruption_is_kept():
    settled = []
    q = traffic(200, 0.02)
    with serving(Toy(first=0.02, gap=0.01)) as url:
        thread = interrupt_when(lambda: len(settled) >= 5)
        done = run(url, q, progress=lambda n, total: settled.append((n, total)), slo=Slo(ttft_p99=10.0))
        thread.join()
    states = [row[8] for row in done.rows]
    m = done.outcome.metrics
    assert done.interrupted
    assert len(states) == 200, "every request is accounted for"
    assert m["requests"] == states.count("ok") >= 5
    assert states.count("not sent") > 0
    assert set(states) <= {"ok", "interrupted", "not sent"}
    assert m["failed"] == 0, "stopping is no fault of the server"
    assert done.outcome.slo["met"]
    assert done.outcome.provenance["stopped"] == 200 - m["requests"]
    assert settled[0] == (1, 200)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_an_interruption_before_any_answer_is_one():
    toy = Toy(first=30.0)
    with serving(toy) as url:
        thread = interrupt_when(lambda: bool(toy.seen))
        with pytest.raises(KeyboardInterrupt):
            run(url)
        thread.join()
