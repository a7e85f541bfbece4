"""A model in several processes computes what it computes in one, counts what it sends, and ends cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.runtime.llm import Sampling, open_engine
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.sampling import Candidates
from fleetcast.runtime.llm.shape import read_shape
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from fleetcast.runtime.llm.likeliest import merged, reduced, wanted  # noqa: E402
from fleetcast.runtime.llm.ranks import LostRank, Ranks, Source, check, group, wire  # noqa: E402
from fleetcast.runtime.llm.ranks.part import Part  # noqa: E402
from fleetcast.runtime.llm.ranks.shard import Shard, narrowed, stage, vocabulary  # noqa: E402
from fleetcast.runtime.llm.weights import fake_weights  # noqa: E402

BLOCKS = 40
PROMPTS = ([3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], list(range(1, 40)))
# grouped queries with biases; a sandwich with caps and a tied head; side by side with LayerNorm; experts, one shared
KINDS = ("llama-biased", "gemma2", "phi", "qwen2-moe")


def folder(tmp_path, kind):
    table = tiny.config(kind)
    tiny.write(tmp_path / kind, table, tiny.tensors(table))
    return tmp_path / kind


def answers(place, **how):
    """Tokens and log probabilities of greedy, cut and free requests, batched together."""
    engine = open_engine(place, blocks=BLOCKS, dtype="fp32", threads=1, device="cpu", **how)
    try:
        made = [
            engine.submit(prompt, 9, sampling)
            for prompt in PROMPTS
            for sampling in (
                Sampling(logprobs=3), Sampling(temperature=0.8, top_k=7, top_p=0.9, seed=1, logprobs=2),
                Sampling(temperature=1.1, top_p=0.95, seed=2),
            )
        ]  # fmt: skip
        engine.run()
        assert engine.blocks.used == 0
        return [(r.output, [c.logprob for c in r.choices], [[i for i, _ in c.top] for c in r.choices]) for r in made]
    finally:
        engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_answer_as_one(kind, tmp_path):
    place = folder(tmp_path, kind)
    one = answers(place)
    for how in ({"tensor_parallel": 2}, {"pipeline_parallel": 2}):
        several = answers(place, **how)
        for (tokens, logprobs, top), (expected, exact, alike) in zip(several, one, strict=True):
            assert (tokens, top) == (expected, alike)
            assert np.abs(np.array(logprobs) - exact).max() < 1e-5


def test_logits_of_two_ranks_are_within_1e_5_and_bytes_are_counted(tmp_path):
    place = folder(tmp_path, "llama3")
    shape = read_shape(place)
    one = open_engine(place, blocks=BLOCKS, dtype="fp32", threads=1, device="cpu").model
    pieces = [Piece([3, 1, 4, 1, 5], 0, [0], 2, 4), Piece([2], 0, [1], 1, 0), Piece([7, 8], 0, [2], 0)]
    exact = one.forward(pieces)
    two = Ranks(Source(config=str(place), folder=str(place), dtype="fp32"), BLOCKS, tensor=2, threads=1)
    try:
        rows = two.forward(pieces)
        assert [isinstance(row, Candidates) for row in rows] == [True, True, False]
        for row, whole in zip(rows[:2], exact[:2], strict=True):
            best = np.argsort(-whole, kind="stable")[:4]
            assert row.ids.tolist() == best.tolist()
            assert np.abs(row.logits - whole[best]).max() < 1e-5
            assert abs(row.total - np.log(np.exp(whole.astype(np.float64)).sum())) < 1e-5
        assert np.abs(rows[2] - exact[2]).max() < 1e-5
        tokens, width = 8, -(-shape.vocab // 2)
        assert two.traffic == {
            "ids": 4 * tokens,  # nothing but the ids is broadcast, not embeddings
            "sums": 2 * shape.layers * tokens * shape.hidden * 4,
            "numbers": 2 * (4 + 1) * 4 + width * 4 + 2 * 4 * 4,  # likeliest and totals, a whole row, ids
        }
        before = two.traffic
        two.forward([Piece([6], 5, [0], 1, 1)])
        assert two.traffic["ids"] - before["ids"] == 4  # 4 B a step for a batch of B
    finally:
        two.close()


class Elsewhere:
    """A wire on a device that computes nothing, and refuses what lies on another; with two ranks, one of them here."""

    def __init__(self, rank):
        self.rank, self.ranks, self.device, self.sent = rank, 2, torch.device("meta"), []

    def _sent(self, x):
        assert x.device == self.device
        self.sent.append(tuple(x.shape))
        return x

    def together(self, x):
        return self._sent(x)

    def gather(self, mine):
        return [self._sent(mine)] * 2 if mine.numel() and self.rank == 0 else []

    def send(self, x, to):
        self._sent(x)

    def receive(self, buffer, source):
        return self._sent(buffer)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("pipeline", [False, True])
def test_what_ranks_send_lies_on_their_device(rank, pipeline, tmp_path):
    said = {
        "config": tiny.config("llama3"), "folder": None, "seed": 0, "dtype": "fp32", "kv_dtype": "auto", "blocks": 4,
        "pipeline": pipeline,
    }  # fmt: skip
    elsewhere = Elsewhere(rank)
    part = Part(said, elsewhere)
    pieces = [Piece([3, 1, 4], 0, [0], 2, 4), Piece([2], 0, [1], 1, 0)]
    with torch.inference_mode():
        (part._stage if pipeline else part._share)(pieces, wanted(pieces))
    assert elsewhere.sent


def test_ranks_on_cuda_talk_by_nccl(tmp_path, monkeypatch):
    """There is no NCCL here: what would be asked of it is."""
    made = []

    class Nccl:
        class Options:
            pass

        def __init__(self, store, rank, ranks, options):
            made.append((rank, ranks, options._timeout.total_seconds(), os.environ["TORCH_NCCL_BLOCKING_WAIT"]))

        def _set_default_timeout(self, timeout):
            made.append(timeout.total_seconds())

    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "0")
    monkeypatch.setattr(wire.dist, "ProcessGroupNCCL", Nccl, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    found = wire.Wire(tmp_path / "meeting", 1, 2, 7.0, "cuda:1")
    assert found.device == torch.device("cuda", 1)
    assert made == [torch.device("cuda", 1), (1, 2, wire.LOADING, "1"), 7.0]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_what_ranks_send_holds_the_likeliest_of_all(ranks):
    draw = np.random.default_rng(ranks)
    vocab = 23
    logits = draw.standard_normal((6, vocab)).astype(np.float32)
    logits[1, :4] = logits[1].max() + 1  # ties
    pieces = [Piece([0], 0, [], 1, keep) for keep in (1, 3, 0, 23, 0, 40)]
    want, width = wanted(pieces), -(-vocab // ranks)
    shape = read_shape(tiny.config("llama3"))
    parts = [range(min(r * width, vocab), min((r + 1) * width, vocab)) for r in range(ranks)]
    sent = [reduced(torch.from_numpy(logits[:, p.start : p.stop]), want, p.start, width) for p in parts]
    assert len({(numbers.shape, ids.shape) for numbers, ids in sent}) == 1  # what gloo gathers is of one size
    for row, whole, piece in zip(merged(*zip(*sent, strict=True), want, vocab, width), logits, pieces, strict=True):
        if not piece.keep:
            assert np.array_equal(row, whole)
            continue
        count = min(piece.keep, vocab)
        assert np.array_equal(row.logits, np.sort(whole)[::-1][:count].astype(np.float64))
        assert np.array_equal(whole[row.ids], row.logits)
        assert row.ids[0] == whole.argmax()
        assert row.total == pytest.approx(np.log(np.exp(whole.astype(np.float64)).sum()), abs=1e-6)
    assert sum(len(vocabulary(shape, r, ranks)) for r in range(ranks)) == shape.vocab
    assert [i for r in range(ranks) if ranks <= shape.layers for i in stage(shape, r, ranks)] == (
        list(range(shape.layers)) if ranks <= shape.layers else []
    )


@pytest.mark.parametrize("kind", ["llama-biased", "mixtral", "qwen2-moe", "phi"])
def test_parts_of_the_weights_make_up_the_whole(kind):
    shape = read_shape(tiny.config(kind))
    whole = fake_weights(shape, "fp32", 0)
    parts = [Shard(fake_weights(shape, "fp32", 0), shape, r, 2) for r in range(2)]
    small = narrowed(shape, 2)
    assert (small.heads, small.kv_heads) == (shape.heads // 2, shape.kv_heads // 2)
    for name, size in shape.parts():
        exact, found = whole.tensor(name), [p.tensor(name) for p in parts]
        stem, _, last = name.rpartition(".")
        what = stem.rpartition(".")[2]
        if what in ("q", "k", "v", "gate", "up", "head"):
            assert torch.equal(torch.cat(found), exact)
        elif what in ("o", "down") and last == "weight":
            assert torch.equal(torch.cat(found, 1), exact)
        elif what in ("o", "down"):
            assert torch.equal(found[0] + found[1], exact) and not found[1].any()
        else:
            assert all(torch.equal(part, exact) for part in found), size


def two(tmp_path, **how):
    place = folder(tmp_path, "llama3")
    return Ranks(Source(config=str(place), folder=str(place)), BLOCKS, threads=1, **({"tensor": 2} | how))


PASS = [Piece([3, 1, 4], 0, [0], 1, 1)]


def test_a_killed_rank_is_named_and_nobody_is_left_over(tmp_path):
    model = two(tmp_path, tensor=1, pipeline=3)
    processes, home = list(model._processes), model._home
    model.forward(PASS)
    os.kill(processes[1].pid, signal.SIGKILL)
    with pytest.raises(LostRank, match=r"rank 2 of the model was ended by signal 9 \(SIGKILL\)") as caught:
        model.forward(PASS)
    assert caught.value.rank == 2
    assert all(p.poll() is not None for p in processes) and not home.exists()
    with pytest.raises(LostRank, match="rank 2"):  # and it stays so
        model.forward(PASS)


def test_a_rank_that_hangs_is_given_up(tmp_path):
    model = two(tmp_path, timeout=3)
    process = model._processes[0]
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(LostRank, match="rank 1 of the model did not answer within 3 s"):
        model.forward(PASS)
    assert time.monotonic() - begun < 30
    assert process.poll() is not None


def test_a_rank_that_cannot_load_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(group, "WORKER", ("-c", "import sys; sys.exit('no room here')"))
    with pytest.raises(LostRank, match="rank 1 of the model ended with status 1: no room here"):
        two(tmp_path, timeout=5)


def test_requests_in_flight_fail_with_the_rank(tmp_path):
    engine = open_engine(folder(tmp_path, "llama3"), blocks=BLOCKS, threads=1, tensor_parallel=2)
    engine.submit([1, 2, 3], 20)
    engine.step()
    os.kill(engine.model._processes[0].pid, signal.SIGKILL)
    with pytest.raises(LostRank, match="rank 1"):
        engine.run()
    engine.close()


def test_processes_end_with_the_one_that_began_them(tmp_path):
    place = folder(tmp_path, "llama3")
    code = (
        "import os, sys\n"
        "from fleetcast.runtime.llm import open_engine\n"
        f"engine = open_engine({str(place)!r}, blocks=8, threads=1, tensor_parallel=2)\n"
        "print(engine.model._processes[0].pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_models_that_do_not_come_out_even_are_refused():
    shape = read_shape(tiny.config("multi-query"))
    with pytest.raises(SpecError, match=r"tensor_parallel: cannot be \(got 2\); one of 1: 1 key heads"):
        check(shape, 2, 1)
    shape = read_shape(tiny.config("llama3"))
    for tensor, pipeline, path in ((3, 1, "tensor"), (0, 1, "tensor"), (1, 9, "pipeline"), (2, 2, "pipeline")):
        with pytest.raises(SpecError) as caught:
            check(shape, tensor, pipeline)
        assert caught.value.path == f"{path}_parallel"
    with pytest.raises((Unsupported, SpecError)):
        open_engine("nowhere", blocks=1, device="cuda", tensor_parallel=2)
