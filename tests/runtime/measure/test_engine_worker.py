"""The engine is timed through its own doors: a small run in this process, and what is asked of a ring of matrices."""

import importlib
import json
import tomllib

import numpy as np
import pytest

from fleetcast.runtime.measure.engine_profile import engine_profile
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.passes import Budget, Load, blocks_for, config

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

engine_worker = importlib.import_module("fleetcast.runtime.measure.engine_worker")
roofs = importlib.import_module("fleetcast.runtime.measure.roofs")

MACHINE = Machine(name="Made-up CPU", vendor="none", cores=1, memory=16e9, own=1e5, last=2e5, clock=3e9)
SMALL = {
    "one": config(32, 2, 2, 16, 64, 3, 64), "two": config(64, 2, 1, 32, 96, 1, 256),
    "three": config(64, 4, 4, 16, 64, 2, 128),
}  # fmt: skip
LOADS = (Load(1, 8), Load(3, 20), Load(0, 0, 20), Load(0, 0, 8, 8), Load(2, 8, 5))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_small_run_gives_a_profile(monkeypatch, capsys, threads):
    monkeypatch.setattr(engine_worker, "ROWS", (1, 8, 9, 16))
    monkeypatch.setattr(engine_worker, "SHAPES", ((64, 64), (128, 64)))
    monkeypatch.setattr(engine_worker, "MODELS", SMALL)
    monkeypatch.setattr(engine_worker, "LOADS", dict.fromkeys(SMALL, LOADS))
    cases = [(form, cache, tuple(SMALL)) for form, cache in (("fp32", "fp32"), ("bf16", "bf16"), ("int8", "int8"))]
    monkeypatch.setattr(engine_worker, "CASES", cases)
    monkeypatch.setattr(engine_worker, "REPEATS", 1)
    monkeypatch.setattr(engine_worker, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(roofs, "_LEAST", 1 << 16)
    before = torch.get_num_threads()
    try:
        assert engine_worker.main(threads) == 0
    finally:
        torch.set_num_threads(before)
    *steps, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [s["done"] for s in steps] == list(range(1, steps[-1]["total"] + 1))
    assert set(last["products"]) == {"fp32", "bf16", "int8", "int4"}
    assert set(last["streams"]) == {"1", str(threads)} and bool(last["alone"]) == (threads > 1)
    found = engine_profile(MACHINE, last)
    written = tomllib.loads(found.toml())
    tables = written["coefficients"]["tables"]
    assert set(tables["gemm"]) == {"fp32", "bf16", "int8", "int4"} and set(tables["decode"]) == {"fp32", "bf16", "int8"}
    assert set(tables["prefill"]) == set(tables["stream"]) == {"fp32", "bf16"}
    assert set(written["coefficients"]["host"]["fleetcast"]) == {"step", "seq", "token"}
    assert all(min(row["passes"]) > 0 for row in tables["gemm"].values())


@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
def test_iterations_are_those_that_were_asked_for(kv_dtype):
    said = engine_worker.timed(SMALL["one"], "bf16", kv_dtype, LOADS, engine_worker.clock_for(1), lambda: None, 1)
    assert [(row["decodes"], row["piece"], row["cached"], row["emits"]) for row in said] == [
        (1, 0, 0, 1), (3, 0, 0, 3), (0, 20, 0, 1), (0, 8, 8, 1), (2, 5, 0, 3),
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in said)
    for row, load in zip(said, LOADS, strict=True):
        assert load.decodes * load.context <= row["context"] <= load.decodes * (load.context + 8)


def test_the_engine_ran_what_the_readings_say(monkeypatch):
    """The engine's own account of its iterations against what the harness says of them."""
    from fleetcast.runtime.llm.engine import Engine

    seen, step = [], Engine.step
    monkeypatch.setattr(Engine, "step", lambda self: seen.append(step(self)) or seen[-1])
    said = engine_worker.timed(SMALL["two"], "fp32", "auto", LOADS, engine_worker.clock_for(1), lambda: None, 1)
    kinds = {(i.decodes, i.prefill_tokens) for i in seen if i is not None}
    assert {(row["decodes"], row["piece"]) for row in said} <= kinds


def test_a_budget_cuts_a_prompt_where_it_says():
    from fleetcast.policy.batch import Item, View

    budget = Budget()
    view = View(decoding=2, partial=(), waiting=(Item(7, 100, 7),), free=100)
    assert budget.compose(view).prefill == ((7, 100),) or list(budget.compose(view).prefill) == [(7, 100)]
    budget.chunk = 12
    assert list(budget.compose(view).prefill) == [(7, 10)]


def test_few_rows_are_the_engine_s():
    from fleetcast.runtime.llm.linear import FEW
    from fleetcast.runtime.measure.products import FEW as OURS
    from fleetcast.runtime.measure.products import ROWS

    assert FEW == OURS and {FEW, FEW + 1} <= set(ROWS), "both ends of the step are measured"


def test_blocks_hold_every_load():
    assert blocks_for(LOADS) * 16 >= max(load.decodes * load.context + load.piece + load.cached for load in LOADS)


def test_a_ring_takes_turns_and_is_as_large_as_it_is_asked():
    made, order = iter(range(100)), []

    def make():
        name = next(made)
        return lambda x: order.append(name)

    ring = roofs.Ring(make, 10.0, 35.0)
    assert len(ring.matrices) == 4
    ring.read(None, 3, lambda: 0.0)
    ring.read(None, 3, lambda: 0.0)
    assert order == [0, 1, 2, 3, 0, 1]


def test_products_and_streams_are_timed_at_what_they_are_asked(monkeypatch):
    monkeypatch.setattr(roofs, "_LEAST", 1 << 16)
    found = roofs.time_products(
        engine_worker.maker("int4"),
        0.625,
        torch.bfloat16,
        1e5,
        rows=(1, 4),
        shapes=((64, 64),),
        kept=(32, 32),
        repeats=2,
    )
    assert found.cold.shape == (1, 2) and found.warm.shape == (2,) and np.all(found.cold > 0) and np.all(found.warm > 0)
    cached = roofs.time_cache(engine_worker.maker("fp32"), 4.0, torch.float32, 1e5, shape=(32, 32), repeats=1)
    assert sorted(cached) == list(cached) and min(cached.values()) > 0
    assert set(roofs.time_streams(1e4, repeats=1)) == {"read", "copy"}
