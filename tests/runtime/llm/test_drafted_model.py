"""Drafts and kept prefixes on real arithmetic: fp32 models on torch make the tokens that they make without.

The rule: tokens are identical, or where they first differ the two likeliest logits lie within 1e-4, by numpy in fp64.
"""

from functools import partial

import numpy as np
import pytest

from fleetcast.policy import batch, evict, speculate
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.draft import ModelDrafter, NgramLookup, NgramModel, Pipelined, Voted
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

TIED = 1e-4
CHUNKED = batch.Chunked(chunk=24, max_batch=6)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def equal_or_tied(table, values, prompt, mine, theirs):
    """Whether two outputs are equal, or first differ where the likeliest two tokens are all but tied."""
    if mine == theirs:
        return True
    place = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    row = np.sort(tiny.logits(table, values, [*prompt, *mine[:place]])[-1])
    return bool(row[-1] - row[-2] < TIED)


def asked(count=10):
    """Prompts that begin alike, half of them with a loop to look up."""
    draw = np.random.default_rng(4)
    shared = draw.integers(0, 61, 40).tolist()
    return [
        (shared[: int(draw.integers(20, 40))] + draw.integers(0, 61, 4).tolist() * (3 if i % 2 else 1), 24)
        for i in range(count)
    ]


@pytest.fixture(scope="module", params=["llama3", "mistral-windowed"])
def target(request, tmp_path_factory):
    table = tiny.config(request.param)
    values = tiny.tensors(table)
    folder = tiny.write(tmp_path_factory.mktemp("target"), table, values)
    small = table | {"num_hidden_layers": 1}
    near = {k: v for k, v in values.items() if ".layers." not in k or ".layers.0." in k}  # its first layer alone
    drafts = tiny.write(tmp_path_factory.mktemp("draft"), small, near)
    return table, values, folder, drafts


@pytest.fixture(scope="module")
def plain(target):
    return run(target[2])[1:]


def run(folder, **settings):
    e = open_engine(folder, blocks=24, batch=CHUNKED, **settings)
    made = [e.submit(prompt, limit) for prompt, limit in asked()]
    while e.load:
        e.step()
        if e.schedule.prefixes is not None:
            check_counts(e)
    return e, [r.output for r in made], made


def check_counts(e):
    s, cache = e.schedule, e.schedule.prefixes
    own = [b for r in s.running + s.partial for b in r.table[len(r.nodes) :]]
    assert len(own) + len(cache.nodes) == e.blocks.used
    assert len({*own, *(n.block for n in cache.nodes.values())}) == e.blocks.used


def small(folder):
    return ModelDrafter(open_engine(folder, blocks=40).model, blocks=40)


def opened(folder):
    """Built in another process."""
    torch.set_num_threads(1)
    return small(folder)


WAYS = {
    "lookup": lambda drafts, said: NgramLookup(),
    "ngram": lambda drafts, said: NgramModel.trained(np.concatenate(said), 3, 61, times=1),  # has read every answer
    "model": lambda drafts, said: small(drafts),
    "voted": lambda drafts, said: Voted(
        [NgramLookup(), NgramModel.trained(np.concatenate(said), 2, 61), small(drafts)]
    ),
}


@pytest.mark.parametrize("who", WAYS)
def test_tokens_are_those_without_drafts(target, plain, who):
    table, values, folder, drafts = target
    plain, made = plain
    for policy, rule in ((speculate.Fixed(length=4), None), (speculate.Minions(start=4, most=8), evict.Lru())):
        e, said, _ = run(folder, speculate=policy, drafter=WAYS[who](drafts, plain), prefix_cache=rule)
        for r, mine, theirs in zip(made, said, plain, strict=True):
            assert equal_or_tied(table, values, r.tokens[: r.prompt], mine, theirs)
        assert e.speculation.drafted > 0
        if who == "ngram":
            assert e.speculation.accepted > 0.3 * e.speculation.drafted
        assert e.blocks.used == (e.schedule.prefixes.idle if rule else 0)


@pytest.mark.parametrize("rule", [evict.Lru(), evict.Lfu(), evict.Fifo()], ids=lambda r: r.kind)
def test_tokens_are_those_without_a_prefix_cache(target, plain, rule):
    table, values, folder, _ = target
    plain, made = plain
    e, said, again = run(folder, prefix_cache=rule)
    for r, mine, theirs in zip(made, said, plain, strict=True):
        assert equal_or_tied(table, values, r.tokens[: r.prompt], mine, theirs)
    assert sum(r.cached for r in again) > 60
    assert e.schedule.prefixes.dropped > 0, "the case must give blocks up"


def test_the_rule_knows_a_tie_from_a_difference(target, plain):
    table, values, _, _ = target
    outputs, made = plain
    prompt, wrong = made[0].tokens[: made[0].prompt], [(outputs[0][0] + 1) % 61, *outputs[0][1:]]
    assert equal_or_tied(table, values, prompt, outputs[0], outputs[0])
    assert not equal_or_tied(table, values, prompt, outputs[0], wrong)


def test_a_model_drafts_in_a_process_of_its_own(target, plain):
    table, values, folder, drafts = target
    outputs, made = plain
    if "sliding_window" in table:
        pytest.skip("one process is enough")
    drafter = Pipelined(partial(opened, drafts))
    e, said, _ = run(folder, speculate=speculate.Fixed(length=3), drafter=drafter)
    e.close()
    for r, mine, theirs in zip(made, said, outputs, strict=True):
        assert equal_or_tied(table, values, r.tokens[: r.prompt], mine, theirs)
    assert e.speculation.drafted > 0
