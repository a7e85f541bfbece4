"""Runs the engine on the CUDA device at hand: does it say the right thing, how long iterations take, what a peer takes.

The peer is Hugging Face transformers on the same model shape, random weights, its own static batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_power import Meter
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.measure.passes import Budget

MODEL, QUICK = "llama-3.1-8b", "llama-3.2-1b"
CONTEXTS = ((128, (1, 2, 4, 8, 16, 32, 64, 128, 256)), (1024, (1, 2, 4, 8, 16, 32, 64, 128)), (4096, (1, 4, 8, 16, 32)),
            (8192, (1, 4, 8, 16)))  # fmt: skip
PROMPTS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
PIECES = ((512, 2048), (512, 7680), (2048, 6144))
"""Pieces of prompts after what is cached."""
MIXED = ((16, 512), (64, 512), (64, 2048))
"""Decode steps of 1024 tokens of context beside a piece of a prompt."""
SECOND = "llama-3.2-3b"
SECOND_CONTEXTS, SECOND_PROMPTS = ((1024, (1, 4, 16, 64, 128)), (4096, (1, 8, 32))), (64, 256, 1024, 4096)
"""A model that nothing is calibrated on."""
STEPS = 8


def checks(say: Callable[[str], None], quick: bool) -> dict[str, Any]:
    """Returns how far the engine on CUDA is from itself on the processor and from transformers, by format."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256 if quick else 2048, intermediate_size=512 if quick else 5632, num_hidden_layers=4,
        num_attention_heads=16, num_key_value_heads=4, vocab_size=32000, max_position_embeddings=4096,
        tie_word_embeddings=False, torch_dtype="float32", initializer_range=0.04,
    )  # fmt: skip
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        peer = LlamaForCausalLM(config).float().eval()
        peer.save_pretrained(folder)
        tokens = np.random.default_rng(0).integers(0, 32000, 600).tolist()
        with torch.inference_mode():
            reference = peer.cuda()(torch.tensor([tokens], device="cuda")).logits[0].double().cpu().numpy()
            narrow = peer.bfloat16()(torch.tensor([tokens], device="cuda")).logits[0].double().cpu().numpy()
        del peer

        def off(rows: Any) -> float:
            return float(np.linalg.norm(np.asarray(rows, np.float64) - reference) / np.linalg.norm(reference))

        def both(device: str, dtype: str, kv_dtype: str = "auto") -> tuple[float, float]:
            model = open_engine(folder, blocks=100, device=device, dtype=dtype, kv_dtype=kv_dtype).model
            table = list(range(40, 0, -1))
            whole = model.forward([Piece(tokens, 0, table, 600)])
            parts = [model.forward([Piece(tokens[:300], 0, table, 300)])]
            parts.append(model.forward([Piece(tokens[300:590], 300, table, 290)]))
            parts += [model.forward([Piece([tokens[i]], i, table, 1)]) for i in range(590, 600)]
            return off(whole), off(np.concatenate([np.asarray(p) for p in parts]))

        found["transformers bf16"] = off(narrow)
        for name, setting in {
            "cpu fp32": ("cpu", "fp32"), "cuda fp32": ("cuda", "fp32"), "cuda bf16": ("cuda", "bf16"),
            "cuda int8": ("cuda", "int8"), "cuda int4": ("cuda", "int4"), "cuda fp32 kv bf16": ("cuda", "fp32", "bf16"),
            "cuda fp32 kv int8": ("cuda", "fp32", "int8"), "cuda bf16 kv int8": ("cuda", "bf16", "int8"),
        }.items():  # fmt: skip
            try:
                found[name] = both(*setting)
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
            say(f"{name}: off by {found[name]}")
    return found


def opened(blocks: int, budget: Budget, model: str = MODEL, **settings: Any) -> Engine:
    """Returns an engine with random weights in the shape of a catalogue model."""
    return open_engine(model, blocks=blocks, fake=True, device="cuda", batch=budget, **settings)


def iterations(
    engine: Engine, budget: Budget, meter: Meter, quick: bool, contexts: Any = CONTEXTS, prompts: Any = PROMPTS
) -> Iterator[dict[str, Any]]:
    """Yields iterations as they were timed: decode steps, prompts, pieces, and both together; s are medians."""
    draw = np.random.default_rng(0)

    def prompt(count: int) -> list[int]:
        return [int(token) for token in draw.integers(0, engine.model.vocab, count)]

    def step() -> float:
        begin = time.perf_counter()
        engine.step()
        return time.perf_counter() - begin

    def drain() -> None:
        for r in [*engine.schedule.running, *engine.schedule.partial]:
            engine.cancel(r)
        engine.run()

    for context, batches in contexts[:1] if quick else contexts:
        budget.chunk = 4096
        requests = [engine.submit(prompt(context), 10_000) for _ in range(batches[-1])]
        while any(len(r.tokens) == context for r in requests):
            engine.step()
        for n in reversed(batches):
            for r in requests[n:]:
                engine.cancel(r)
            requests = requests[:n]
            for _ in range(2):
                engine.step()
            attended = sum(len(r.tokens) for r in requests)
            seconds = [step() for _ in range(STEPS)]
            found = {
                "kind": "decode", "decodes": n, "context": attended + n * STEPS // 2, "piece": 0, "cached": 0,
                "emits": n, "seconds": float(np.median(seconds)), "most": max(seconds), "least": min(seconds),
            }  # fmt: skip
            if contexts is CONTEXTS and context in (1024, 4096) and n in (1, 16, 64, batches[-1]) and not quick:
                found["power"] = meter.drawn(engine.step, 1.0)
            yield found
        drain()
    for count in prompts:
        for turn in range(2 if quick else 4):
            budget.chunk = 1 << 16
            engine.submit(prompt(count), 1)
            seconds = [step()] if turn == 0 else [*seconds, step()]
        least = sorted(seconds[1:])
        yield {
            "kind": "prompt", "decodes": 0, "context": 0, "piece": count, "cached": 0, "emits": 1,
            "seconds": least[len(least) // 2], "most": max(seconds), "least": least[0],
        }  # fmt: skip
    if contexts is not CONTEXTS:
        return
    for count, cached in PIECES:
        for turn in range(3):
            budget.chunk = cached
            engine.submit(prompt(cached + count), 1)
            engine.step()
            budget.chunk = 1 << 16
            seconds = [step()] if turn == 0 else [*seconds, step()]
        yield {
            "kind": "piece", "decodes": 0, "context": 0, "piece": count, "cached": cached, "emits": 1,
            "seconds": min(seconds), "most": max(seconds), "least": min(seconds),
        }  # fmt: skip
    for n, count in MIXED[:1] if quick else MIXED:
        budget.chunk = 1 << 14
        requests = [engine.submit(prompt(1024), 10_000) for _ in range(n)]
        while any(len(r.tokens) == 1024 for r in requests):
            engine.step()
        budget.chunk = 1 << 16
        seconds = []
        for _ in range(4):
            engine.submit(prompt(count), 1)
            seconds.append(step())
        attended = sum(len(r.tokens) for r in requests)
        yield {
            "kind": "mixed", "decodes": n, "context": attended - n, "piece": count, "cached": 0, "emits": n + 1,
            "seconds": float(np.median(seconds[1:])), "most": max(seconds), "least": min(seconds),
        }  # fmt: skip
        drain()
    if not quick:
        many = [prompt(8192) for _ in range(8)]

        def prefill() -> None:
            engine.submit(many[0], 1)
            engine.step()

        yield {"kind": "prefill power", "piece": 8192, "power": meter.drawn(prefill, 2.0)}


def speed(say: Callable[[str], None], meter: Meter, quick: bool) -> dict[str, Any]:
    """Returns the iterations of the engine in bf16, and of a few in its other formats."""
    found: dict[str, Any] = {"model": MODEL, "rows": []}
    begun = time.perf_counter()
    budget = Budget()
    blocks = 40 * 256 if quick else 16 + max(b[-1] * (c // BLOCK + 24) for c, b in CONTEXTS)
    name = QUICK if quick else MODEL
    engine = opened(blocks, budget, name)
    torch.cuda.synchronize()
    found["opened_s"] = time.perf_counter() - begun
    for row in iterations(engine, budget, meter, quick):
        found["rows"].append(row | {"dtype": "bf16", "kv_dtype": "bf16"})
    found["memory"] = {"reserved": torch.cuda.max_memory_reserved(), "blocks": blocks}
    say(f"{name} bf16: {len(found['rows'])} rows, {time.perf_counter() - begun:.0f} s")
    say(" ".join(
        f"{r['decodes']}x{r['context'] // max(r['decodes'], 1)}:{1e3 * r['seconds']:.2f}ms"
        for r in found["rows"] if r["kind"] == "decode"
    ))  # fmt: skip
    say(" ".join(f"{r['piece']}:{1e3 * r['seconds']:.1f}ms" for r in found["rows"] if r["kind"] == "prompt"))
    found["eager"] = eager(engine, budget)
    say(f"without captured graphs: {found['eager']}")
    del engine
    torch.cuda.empty_cache()
    if not quick:
        engine = opened(blocks, budget, SECOND)
        for row in iterations(engine, budget, meter, quick, SECOND_CONTEXTS, SECOND_PROMPTS):
            found["rows"].append(row | {"model": SECOND, "dtype": "bf16", "kv_dtype": "bf16"})
        say(f"{SECOND}: {time.perf_counter() - begun:.0f} s")
        del engine
    for dtype, kv_dtype in (("int8", "auto"), ("int4", "auto"), ("bf16", "int8")):
        torch.cuda.empty_cache()
        try:
            other = opened(2400, budget, name, dtype=dtype, kv_dtype=kv_dtype)
            found[f"{dtype} {kv_dtype}"] = few(other, budget)
            say(f"{dtype} {kv_dtype}: {found[f'{dtype} {kv_dtype}']}")
            del other
        except Exception as error:
            found[f"{dtype} {kv_dtype}"] = f"{type(error).__name__}: {error}"
    torch.cuda.empty_cache()
    return found


def few(engine: Engine, budget: Budget, batches: Sequence[int] = (1, 32), context: int = 1024) -> dict[str, float]:
    """Returns s of decode steps by batch."""
    draw, found = np.random.default_rng(1), {}
    budget.chunk = 1 << 14
    requests = [
        engine.submit(draw.integers(0, engine.model.vocab, context).tolist(), 10_000) for _ in range(batches[-1])
    ]
    while any(len(r.tokens) == context for r in requests):
        engine.step()
    for n in reversed(batches):
        for r in requests[n:]:
            engine.cancel(r)
        requests = requests[:n]
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            engine.step()
            seconds.append(time.perf_counter() - begin)
        found[str(n)] = float(np.median(seconds[2:]))
    for r in requests:
        engine.cancel(r)
    engine.run()
    return found


def eager(engine: Engine, budget: Budget) -> dict[str, float]:
    """Returns s of decode steps whose kernels are launched one by one."""
    model: Any = engine.model
    kept, model.graphs = model.graphs, None
    try:
        return few(engine, budget)
    finally:
        model.graphs = kept


def peer(say: Callable[[str], None], quick: bool) -> dict[str, Any]:
    """Returns s of decode steps and prompts of transformers, on the same shape in bf16."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
    from transformers import __version__ as version

    from fleetcast.scenario.workload import catalog

    table = catalog.config(QUICK if quick else MODEL)
    config = LlamaConfig(**{k: v for k, v in table.items() if k not in ("architectures", "model_type", "source")})
    found: dict[str, Any] = {"version": version, "decode": {}, "prompt": {}}
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        model = model.to_empty(device="cuda").eval()
    finally:
        torch.set_default_dtype(torch.float32)
    for p in model.parameters():
        p.data.normal_(std=0.02)
    for name, b in model.named_buffers():
        if "inv_freq" in name:
            b.data.copy_(500000.0 ** (-torch.arange(0, 128, 2, device="cuda")[: len(b)] / 128))
    with torch.inference_mode():
        for n, context in ((1, 1024), (8, 1024), (32, 1024), (1, 4096)):
            cache = DynamicCache()
            ids = torch.randint(0, 1000, (n, context), device="cuda")
            model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            seconds = []
            for _ in range(8):
                begin = time.perf_counter()
                out = model(ids[:, -1:], past_key_values=cache, use_cache=True)
                out.logits[:, -1].argmax(-1).cpu()
                seconds.append(time.perf_counter() - begin)
            found["decode"][f"{n}x{context}"] = float(np.median(seconds[3:]))
        for count in (128, 512, 2048, 8192):
            ids = torch.randint(0, 1000, (1, count), device="cuda")
            seconds = []
            for _ in range(4):
                begin = time.perf_counter()
                model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1).cpu()
                seconds.append(time.perf_counter() - begin)
            found["prompt"][str(count)] = float(np.median(seconds[1:]))
    say(f"transformers {version}: {found}")
    del model
    torch.cuda.empty_cache()
    return found


def house(out: Path, say: Callable[[str], None], quick: bool) -> dict[str, Any]:
    """Runs scenarios through `fleetcast run` on this machine, and keeps their outcomes and steps under ``out``."""
    import contextlib
    import io

    from fleetcast.view.cli import main

    found: dict[str, Any] = {}
    card = "h200-sxm" if "H200" in torch.cuda.get_device_name() else "h100-sxm"
    for name, text in SCENARIOS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        if quick:
            text = text.replace(MODEL, "llama-3.2-1b").replace("requests = 96", "requests = 8")
        (folder / "scenario.toml").write_text(text.replace("CARD", card), encoding="utf-8")
        said = io.StringIO()
        begun = time.perf_counter()
        with contextlib.redirect_stdout(said):
            try:
                status: Any = main(["run", str(folder / "scenario.toml"), "--out", str(folder)])
            except SystemExit as error:
                status = error.code
        found[name] = {"status": status, "seconds": time.perf_counter() - begun, "said": said.getvalue()[-1500:]}
        say(f"run {name}: {status}\n{said.getvalue()[-900:]}")
    return found


_PLAN = """
[plan]
replicas = 1
tensor_parallel = 1
pipeline_parallel = 1
engine = "fleetcast"
dtype = "bf16"
"""
_HEAD = '[fleet]\ndevices = "1x CARD"\n\n[workload]\nmodel = "llama-3.1-8b"\n'
SCENARIOS = {
    "closed": f"""{_HEAD}arrivals = {{ kind = "closed", concurrency = 16, requests = 96 }}
lengths = {{ kind = "fixed", prompt = 512, output = 64 }}
{_PLAN}batch = {{ kind = "chunked", max_batch = 64, chunk = 512 }}
""",
    "poisson": f"""{_HEAD}arrivals = {{ kind = "poisson", rate = "12 /s", requests = 96 }}
lengths = {{ kind = "fixed", prompt = 1024, output = 96 }}
{_PLAN}batch = {{ kind = "chunked", max_batch = 64, chunk = 1024 }}
""",
    "crowd": f"""{_HEAD}arrivals = {{ kind = "closed", concurrency = 48, requests = 96 }}
lengths = {{ kind = "fixed", prompt = 256, output = 128 }}
{_PLAN}batch = {{ kind = "chunked", max_batch = 64, chunk = 512 }}
""",
}
