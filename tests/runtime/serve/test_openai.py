"""The server as OpenAI's own client sees it."""

import asyncio

import pytest

from fleetcast.policy import batch, evict, speculate
from tests.runtime.llm import words
from tests.runtime.llm.drafters import Noisy
from tests.runtime.llm.echo import alone as alone_echo
from tests.runtime.llm.echo import logits_of

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
openai = pytest.importorskip("openai", reason="openai is not installed")

from fleetcast.runtime.llm import Sampling, open_engine  # noqa: E402
from fleetcast.runtime.llm.text import open_text  # noqa: E402
from tests.runtime.serve.live import MODEL, real_engine, serving, slow_engine  # noqa: E402

HELLO = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello 🙂"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return words.speaking(tmp_path_factory.mktemp("model") / "speaks")


@pytest.fixture(scope="module")
def live(folder):
    with serving(real_engine(folder), folder) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(live):
    yield
    live.rest()


@pytest.fixture(scope="module")
def client(live):
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as found:
        yield found


def alone(folder, prompt, limit, **sampling):
    """Returns what the engine answers without a server."""
    engine = open_engine(folder, blocks=512)
    made = engine.submit(prompt, limit, Sampling(**sampling))
    engine.run()
    return made


def test_models_are_listed(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("other")


def test_a_completion_is_what_the_engine_says(client, folder):
    text = open_text(folder, words.VOCAB + 16)
    prompt = text.encode("The server")
    expected = alone(folder, prompt, 24, stop=text.ends)
    found = client.completions.create(model=MODEL, prompt="The server", max_tokens=24, temperature=0)
    assert found.object == "text_completion"
    assert found.choices[0].text == text.decode(expected.output)
    assert found.choices[0].finish_reason == expected.finish
    assert found.usage.prompt_tokens == len(prompt)
    assert found.usage.completion_tokens == len(expected.output)
    assert found.usage.total_tokens == len(prompt) + len(expected.output)
    for same in (["The server"], prompt, [prompt]):
        again = client.completions.create(model=MODEL, prompt=same, max_tokens=24, temperature=0)
        assert again.choices[0].text == found.choices[0].text


def test_a_stream_joined_is_the_whole(client):
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 40, "seed": 3, "temperature": 0.9}
    whole = client.chat.completions.create(**asked)
    events = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert events[0].object == "chat.completion.chunk"
    assert events[0].choices[0].delta.role == "assistant"
    assert len({e.id for e in events}) == 1
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == whole.choices[0].message.content
    assert [e.choices[0].finish_reason for e in events if e.choices][-1] == whole.choices[0].finish_reason
    assert events[-1].usage == whole.usage
    assert all(e.usage is None for e in events[:-1])


def test_a_conversation_is_the_template_s_text(client, folder):
    text = open_text(folder, words.VOCAB + 16)
    prompt = text.chat(HELLO)
    expected = alone(folder, prompt, 12, stop=text.ends)
    found = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_completion_tokens=12, temperature=0, extra_body={"return_token_ids": True}
    )
    assert found.choices[0].message.content == text.decode([t for t in expected.output if t not in text.ends])
    assert found.prompt_token_ids == prompt
    assert found.choices[0].token_ids == expected.output


def test_log_probabilities_are_the_engine_s(client, folder):
    text = open_text(folder, words.VOCAB + 16)
    prompt = text.encode("The server")
    expected = alone(folder, prompt, 6, stop=text.ends, logprobs=3)
    found = client.completions.create(model=MODEL, prompt=prompt, max_tokens=6, temperature=0, logprobs=3)
    said = found.choices[0].logprobs
    assert said.token_logprobs == [c.logprob for c in expected.choices]
    assert [len(t) for t in said.top_logprobs] == [3] * 6
    assert len(said.tokens) == len(said.text_offset) == 6
    chat = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=2
    )
    rows = chat.choices[0].logprobs.content
    assert [len(r.top_logprobs) for r in rows] == [2] * len(rows)
    assert all(r.logprob == r.top_logprobs[0].logprob for r in rows)
    raw = b"".join(bytes(r.bytes) for r in rows)
    assert raw.decode("utf-8", "replace") == chat.choices[0].message.content


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(client):
    asked = {"model": MODEL, "prompt": "x", "max_tokens": 30, "temperature": 1.5}
    one, again, other = (client.completions.create(**asked, seed=s).choices[0].text for s in (1, 1, 2))
    assert one == again != other


def test_several_answers_come_by_index_and_each_draws_for_itself(client):
    asked = {"model": MODEL, "prompt": ["one", "two"], "n": 2, "max_tokens": 12, "temperature": 1.5, "seed": 5}
    found = client.completions.create(**asked)
    texts = [c.text for c in found.choices]
    assert [c.index for c in found.choices] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert texts[0] == client.completions.create(**asked | {"prompt": "one", "n": 1}).choices[0].text
    pieces = ["", "", "", ""]
    for event in client.completions.create(**asked, stream=True):
        pieces[event.choices[0].index] += event.choices[0].text
    assert pieces == texts
    assert found.usage.completion_tokens == 48


def test_a_stop_string_ends_the_answer_and_frees_it(client):
    whole = client.completions.create(model=MODEL, prompt="x", max_tokens=60, temperature=0)
    text = whole.choices[0].text
    stop = text[20:24]
    for stream in (False, True):
        found = client.completions.create(
            model=MODEL, prompt="x", max_tokens=60, temperature=0, stop=[stop, "never"], stream=stream
        )
        events = list(found) if stream else [found]
        said = "".join(e.choices[0].text for e in events)
        assert said == text[: text.find(stop)]
        assert events[-1].choices[0].finish_reason == "stop"
    assert found is not None


def test_the_model_s_end_token_ends_the_answer_unless_it_is_to_be_ignored(folder, tmp_path):
    plain = alone(folder, [5, 6, 7], 30).output
    end = plain[4]
    ending = words.speaking(tmp_path / "ends", ends=(end,))
    with (
        serving(real_engine(ending), ending) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):
        asked = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 30, "temperature": 0}
        found = client.completions.create(**asked, extra_body={"return_token_ids": True})
        assert found.choices[0].token_ids == plain[: plain.index(end) + 1]
        assert found.choices[0].finish_reason == "stop"
        found = client.completions.create(**asked, extra_body={"return_token_ids": True, "ignore_eos": True})
        assert found.choices[0].token_ids == plain
        assert found.choices[0].finish_reason == "length"
        found = client.completions.create(**asked, extra_body={"stop_token_ids": [plain[2]], "return_token_ids": True})
        assert found.choices[0].token_ids == plain[: plain.index(plain[2]) + 1]


def test_what_does_not_fit_is_refused_with_the_sizes(client):
    with pytest.raises(openai.BadRequestError, match="at most 4096 together") as found:
        client.completions.create(model=MODEL, prompt=[1] * 10, max_tokens=5000)
    assert found.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="at most 4096 together"):
        client.completions.create(model=MODEL, prompt=[1] * 4096)
    with pytest.raises(openai.BadRequestError, match="is not a token") as found:
        client.completions.create(model=MODEL, prompt=[1, 99_999])
    assert found.value.param == "prompt[1]"
    with pytest.raises(openai.NotFoundError, match="Did you mean"):
        client.completions.create(model="tinny", prompt="x")


def test_a_short_prompt_s_default_length_is_openai_s_and_a_chat_takes_what_there_is(client):
    found = client.completions.create(model=MODEL, prompt=[9], temperature=0)
    assert found.usage.completion_tokens == 16 or found.choices[0].finish_reason == "stop"


def test_a_long_prompt_is_encoded_beside_the_others(client):
    found = client.completions.create(model=MODEL, prompt="word " * 1000, max_tokens=1)
    assert found.usage.prompt_tokens > 1000


def test_a_model_without_a_template_says_so(tmp_path):
    bare = words.speaking(tmp_path / "bare", template="")
    with (
        serving(real_engine(bare), bare) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="no chat template"),
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO)


def test_a_cached_prompt_is_reported_and_not_shared_across_salts(folder):
    engine = slow_engine(prefix_cache=evict.Lru())
    prompt = [5] * 40
    with (
        serving(engine, folder, stop=False) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):

        def cached(**salt):
            found = client.completions.create(model=MODEL, prompt=prompt, max_tokens=2, extra_body=salt)
            return found.usage.prompt_tokens_details.cached_tokens

        assert [cached(), cached(), cached(cache_salt="a"), cached(cache_salt="a"), cached()] == [0, 32, 0, 32, 32]
        assert live.metric("prefix_cache_queries_total") == 200
        assert live.metric("prefix_cache_hits_total") == 96
        assert live.metric("kv_cache_usage_perc") == 0, "what is kept for later is not in use"
        live.stop()


def test_drafted_tokens_come_as_if_they_were_not_drafted(folder):
    text = open_text(folder, words.VOCAB + 16)
    drafter = Knowing()
    engine = slow_engine(speculate=speculate.Fixed(length=4), drafter=drafter)
    with (
        serving(engine, folder) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):
        asked = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 21, "temperature": 0}
        expected = alone_echo([5, 6, 7], 21, words.VOCAB + 16)
        more = {"extra_body": {"return_token_ids": True, "ignore_eos": True}}
        found = client.completions.create(**asked, **more)
        assert found.choices[0].token_ids == expected
        assert found.usage.completion_tokens == 21
        whole = found.choices[0].text
        stop = text.piece(expected[6])[0]
        assert "\ufffd" not in stop, "the case needs a token that is a character"
        found = client.completions.create(**asked, **more, stop=stop)
        assert found.choices[0].text == whole[: whole.find(stop)]
        assert found.usage.completion_tokens == len(found.choices[0].token_ids) <= 7
        assert found.choices[0].finish_reason == "stop"
        assert live.metric("spec_decode_num_accepted_tokens_total") > 10
        assert live.metric("time_to_first_token_seconds_count") == 2
    assert drafter.closed


class Knowing(Noisy):
    """Drafts what the model will say."""

    vocab = words.VOCAB + 16

    def __init__(self):
        super().__init__(lambda history: int(logits_of(history, self.vocab).argmax()))


def test_a_hundred_streams_of_one_client_are_each_whole(live):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=live.url, api_key="none", max_retries=0, timeout=60) as client:

            async def one(i):
                events = await client.completions.create(
                    model=MODEL, prompt=[i, 7], max_tokens=6, stream=True, temperature=0,
                    extra_body={"ignore_eos": True}, stream_options={"include_usage": True},
                )  # fmt: skip
                found = [e async for e in events]
                return found[-2].choices[0].finish_reason, found[-1].usage.completion_tokens

            return await asyncio.gather(*(one(3 + i) for i in range(100)))

    assert asyncio.run(all_of_them()) == [("length", 6)] * 100


def test_metrics_add_up(folder):
    with (
        serving(slow_engine(policy=batch.Chunked(chunk=256, max_batch=4)), folder) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):
        for i in range(5):
            client.completions.create(model=MODEL, prompt=[1] * (i + 1), max_tokens=7, extra_body={"ignore_eos": True})
        live.rest()
        assert live.metric("prompt_tokens_total") == 15
        assert live.metric("generation_tokens_total") == 35
        assert live.metric("request_success_total", finished_reason="length") == 5
        assert live.metric("time_to_first_token_seconds_count") == 5
        assert live.metric("inter_token_latency_seconds_count") == 30
        assert live.metric("e2e_request_latency_seconds_count") == 5
        gaps = live.metric("inter_token_latency_seconds_sum") + live.metric("time_to_first_token_seconds_sum")
        assert gaps == pytest.approx(live.metric("e2e_request_latency_seconds_sum"), rel=0.01)
        assert live.metric("kv_cache_usage_perc") == 0
        assert live.metric("num_requests_running") == 0


def test_a_template_that_fails_is_the_client_s_400_and_names_no_file_of_the_server(tmp_path):
    bad = words.speaking(tmp_path / "bad", template="{{ messages[9].content.x }}{{ raise_exception('never ' ~ why) }}")
    with (
        serving(real_engine(bad), bad) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="chat_template: fails") as found:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        assert str(tmp_path) not in str(found.value)


def test_names_for_the_template_come_from_the_client_but_not_the_messages(tmp_path):
    source = "{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}"
    moody = words.speaking(tmp_path / "moody", template=source)
    text = open_text(moody, words.VOCAB + 16)
    with (
        serving(real_engine(moody), moody) as live,
        openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client,
    ):
        given = {"chat_template_kwargs": {"mood": "merry", "messages": []}, "return_token_ids": True}
        found = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=1, extra_body=given
        )
    assert text.decode(found.prompt_token_ids) == "merryHi"
