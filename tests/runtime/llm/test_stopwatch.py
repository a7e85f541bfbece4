"""Parts of a pass are timed without the parts inside them, and scaled to the passes that were not timed."""

import json

import numpy as np
import pytest

from fleetcast.runtime.llm.stopwatch import EVERY, Stopwatch
from tests.runtime.llm import tiny


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def test_a_part_is_timed_without_the_parts_inside_it():
    clock = Clock()
    watch = Stopwatch(clock)
    inner = watch.wrap("gemm", lambda: clock.spend(3.0))

    def outer():
        clock.spend(1.0)
        inner()
        clock.spend(0.5)
        inner()

    attend = watch.wrap("attention", outer)
    watch.begin("decode")
    attend()
    clock.spend(2.0)  # what no part is timed of
    watch.end("decode", 9.5)
    assert watch.terms() == pytest.approx({"gemm": 6.0, "attention": 1.5, "elementwise": 2.0})


def test_parts_are_scaled_to_all_passes_of_a_kind():
    clock = Clock()
    watch = Stopwatch(clock)
    part = watch.wrap("gemm", clock.spend)
    for kind, seconds, count in (("decode", 1.0, 2 * EVERY), ("prompt", 10.0, 3)):
        for _ in range(count):
            watch.begin(kind)
            part(0.75 * seconds)
            watch.end(kind, seconds)
    whole = 2 * EVERY + 30
    assert watch.terms() == pytest.approx({"gemm": 0.75 * whole, "elementwise": 0.25 * whole})
    watch.reset()
    assert watch.terms() == {"elementwise": 0.0}


def test_a_part_that_fails_leaves_the_watch_in_order():
    clock = Clock()
    watch = Stopwatch(clock)

    def fail():
        clock.spend(1.0)
        raise ValueError

    watch.begin("decode")
    with pytest.raises(ValueError, match=r"^$"):
        watch.wrap("attention", watch.wrap("gemm", fail))()
    watch.end("decode", 2.0)
    assert watch.terms() == pytest.approx({"gemm": 1.0, "attention": 0.0, "elementwise": 1.0})


@pytest.mark.parametrize("kind", ["llama3", "mixtral"])
def test_a_model_under_the_watch_says_the_same_and_says_where_time_went(tmp_path, kind):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    import time

    from fleetcast.runtime.llm import open_engine
    from fleetcast.runtime.llm.stopwatch import unwatch, watch

    (tmp_path / "config.json").write_text(json.dumps(tiny.config(kind)))
    engine = open_engine(tmp_path, blocks=40, fake=True)
    model = engine.model

    def tokens():
        made = [engine.submit([5, 6, 7, 8 + i], 20) for i in range(3)]
        engine.run()
        return [request.output for request in made]

    before = tokens()
    found = watch(model, time.perf_counter)
    forward, took = model.forward, []

    def timed(pieces):
        kind = "decode" if all(len(p.tokens) == 1 for p in pieces) else "prompt"
        found.begin(kind)
        begun = time.perf_counter()
        logits = forward(pieces)
        took.append(time.perf_counter() - begun)
        found.end(kind, took[-1])
        return logits

    model.forward = timed
    assert tokens() == before
    terms = found.terms()
    del model.forward
    assert sum(terms.values()) == pytest.approx(sum(took))
    wanted = {"attention", "head", "elementwise", "gemm"} | ({"experts"} if kind == "mixtral" else set())
    assert set(terms) == wanted
    assert all(np.isfinite(s) and s > 0 for s in terms.values())
    unwatch(model)
    assert not hasattr(model, "unwatched")
    assert tokens() == before
    assert found.terms() == terms, "a watch that was taken out times nothing"
