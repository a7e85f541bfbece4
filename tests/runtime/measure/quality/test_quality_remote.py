"""Asking a server: log probabilities of letters, servers without them, and answers that are none."""

import json
import math

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.quality import judge, judge_url
from fleetcast.runtime.measure.quality.items import everyday
from fleetcast.runtime.measure.quality.remote import Remote, letters
from fleetcast.runtime.replay import Server

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
ITEMS = everyday()[::60]


def remote(answer, key=""):
    """A server of the test's own."""
    return Remote(Server("http://there/v1", "m", key, 5.0), httpx.MockTransport(answer))


def right(prompt):
    item = next(i for i in ITEMS if i.question in prompt)
    return next(line[0] for line in prompt.splitlines() if line[3:] == item.options[item.answer] and line[1:3] == ". ")


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_server_that_knows_is_right_in_every_order(logprobs):
    asked = []

    def answer(request):
        body = json.loads(request.content)
        asked.append(body)
        letter = right(body["prompt"])
        top = {f" {letter}": -0.1, "A": -1.0, "The": -2.0}
        choice = {"text": f" {letter}", "logprobs": {"top_logprobs": [top]} if logprobs else None}
        return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 42}})

    found = judge(remote(answer), ITEMS).table()
    assert found["accuracy"] == found["consistent"] == 1.0
    assert found["costs"]["tokens"] == 42
    assert {(b["model"], b["max_tokens"], b["temperature"], b["logprobs"]) for b in asked} == {("m", 1, 0.0, 20)}


def test_a_server_that_allows_fewer_is_asked_for_fewer():
    asked = []

    def answer(request):
        asked.append(json.loads(request.content).get("logprobs"))
        if asked[-1] is not None:
            return httpx.Response(400, json={"error": "too many"})
        return httpx.Response(200, json={"choices": [{"text": "B", "logprobs": None}]})

    found = judge(remote(answer), ITEMS[:2]).table()
    assert asked[:4] == [20, 5, None, None]
    assert found["accuracy"] == 0.25
    assert found["positions"]["letters"]["B"] == 1.0


def test_letters_are_read_in_any_dress_and_silence_is_silence():
    top = {"A": -2.0, " A": -1.0, "b.": -3.0, "Canada": -0.1, "D)": -4.0}
    assert letters({"text": "x", "logprobs": {"top_logprobs": [top]}}, "ABCD") == (-1.0, -3.0, -math.inf, -4.0)
    assert letters({"text": " c", "logprobs": {"top_logprobs": [{}]}}, "ABCD")[2] == 0.0
    assert letters({"text": "no", "logprobs": {}}, "ABCD") == (-math.inf,) * 4


REFUSALS = [(500, "broken sk-secret"), (200, "{}"), (200, "<")]


@pytest.mark.parametrize(("status", "text"), REFUSALS)
def test_what_is_no_completion_is_refused_without_the_key(status, text):
    with pytest.raises(SpecError, match="url: answered HTTP") as caught:
        judge(remote(lambda _: httpx.Response(status, text=text), key="sk-secret"), ITEMS[:1])
    assert "sk-secret" not in str(caught.value)


def test_nobody_there_is_said():
    def refuse(_):
        raise httpx.ConnectError("refused")

    with pytest.raises(SpecError, match="gave no answer: refused"):
        judge(remote(refuse), ITEMS[:1])
    assert remote(refuse).models() == []
    listed = remote(lambda _: httpx.Response(200, json={"data": [{"id": "m"}]}))
    assert listed.models() == ["m"]


def test_a_real_server_is_asked_by_its_only_model(monkeypatch):
    """Over a socket, as the command does it."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def reply(self, table):
            body = json.dumps(table).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.reply({"data": [{"id": "only"}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked["model"] == "only"
            assert self.headers["Authorization"] == "Bearer secret"
            self.reply({"choices": [{"text": f" {right(asked['prompt'])}"}]})

        def log_message(self, *_):
            pass

    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = judge_url(f"http://127.0.0.1:{server.server_port}", ITEMS, dtype="fp8", device="h100-sxm").table()
        finally:
            server.shutdown()
            thread.join()
    assert (found["model"], found["dtype"], found["accuracy"]) == ("only", "fp8", 1.0)
    assert found["costs"]["joules"] == pytest.approx(700 * found["costs"]["seconds"])
    assert "highest power" in found["costs"]["method"]
