"""Times kernels on the CUDA device at hand: products, attention of prompts and of decode steps, passes over memory.

Calls are captured as a graph, so that launching costs what it costs a server, and take turns over buffers that together
are several times the second-level cache. A row is the median of several replays. Inputs are random, never zeros.
"""

# Calls are timed before the loop that made them goes on.

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fleetcast.runtime.llm import cuda
from fleetcast.runtime.llm.cache import Cache
from fleetcast.runtime.llm.paging import BLOCK

COLUMNS = ("family", "kernel", "dtype", "m", "n", "k", "heads", "kv_heads", "head_dim", "seconds", "spread")
ROWS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
SHAPES = (
    (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096),  # Llama 3.1 8B
    (10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672),  # Llama 3.1 70B
    (1280, 8192), (8192, 1024), (7168, 8192), (8192, 3584),  # the same, one of eight ranks
    (4608, 3584), (37888, 3584), (3584, 18944),  # Qwen 2.5 7B
    (3072, 2048), (16384, 2048), (2048, 8192),  # Llama 3.2 1B
)  # fmt: skip
HEADS = ((32, 8, 128), (64, 8, 128), (32, 8, 64), (28, 4, 128))
NEW = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
DECODES = ((1, 512), (1, 4096), (1, 32768), (1, 131072), (4, 1024), (8, 512), (8, 4096), (8, 32768), (16, 2048),
           (32, 512), (32, 2048), (32, 8192), (64, 1024), (64, 4096), (128, 512), (128, 2048), (128, 4096), (256, 512),
           (256, 1024), (256, 2048))  # fmt: skip
CACHE = 160e6
"""B that buffers in turn must exceed: three times the second-level cache."""
TOKENS = (1, 16, 128, 1024, 4096, 16384)
WIDTHS = (4096, 8192)

Row = dict[str, Any]


def timed(calls: Sequence[Callable[[], Any]], repeats: int = 5, least: float = 1e-3) -> tuple[float, float]:
    """Returns s of one call, median over replays, and the spread (most over least) of replays."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        calls[0]()
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        for call in calls:
            call()
        ended.record()
    ended.synchronize()
    turns = max(1, min(20, int(least / max(begun.elapsed_time(ended) * 1e-3, 1e-6))))
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(turns):
            for call in calls:
                call()
    graph.replay()
    found = []
    for _ in range(repeats):
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        found.append(begun.elapsed_time(ended) * 1e-3 / (turns * len(calls)))
    del graph
    return float(np.median(found)), float(max(found) / min(found))


def products(shapes: Sequence[tuple[int, int]] = SHAPES, rows: Sequence[int] = ROWS) -> Iterator[Row]:
    """Yields bf16 products of torch, and fp8 ones with a scale a tensor, their inputs in fp8 already."""
    for n, k in shapes:
        copies = max(1, min(12, int(-(-CACHE // (2 * n * k)))))
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * k**-0.5 for _ in range(copies)]
        for m in rows:
            if m * n * 2 > 3e9:
                continue
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            found = timed([partial(torch.matmul, x, w.t(), out=out) for w in weights])
            yield row("gemm", "torch", "bf16", found, m=m, n=n, k=k)
        eight = [w.to(torch.float8_e4m3fn) for w in weights]
        one = torch.ones((), device="cuda", dtype=torch.float32)
        for m in (16, 128, 1024, 4096):
            if n > 60000:
                continue
            x8 = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn)
            fast = partial(torch._scaled_mm, x8, out_dtype=torch.bfloat16, use_fast_accum=True)
            found = timed([partial(fast, w.t(), one, one) for w in eight])
            yield row("gemm", "torch._scaled_mm", "fp8", found, m=m, n=n, k=k)
        del weights, eight


def prefills(heads: Sequence[tuple[int, int, int]] = HEADS, new: Sequence[int] = NEW) -> Iterator[Row]:
    """Yields causal attention of one prompt by torch's two fused kernels."""
    kernels = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    for h, kv, d in heads:
        for count in new:
            q, k, v = (torch.randn(1, x, count, d, device="cuda", dtype=torch.bfloat16) for x in (h, kv, kv))
            for name, kernel in kernels.items():
                with sdpa_kernel([kernel]):
                    call = partial(functional.scaled_dot_product_attention, q, k, v, is_causal=True, enable_gqa=True)
                    try:
                        found = timed([call])
                    except RuntimeError:
                        continue
                yield row("prefill", name, "bf16", found, m=count, heads=h, kv_heads=kv, head_dim=d)


def decodes(heads: Sequence[tuple[int, int, int]] = HEADS, loads: Sequence[tuple[int, int]] = DECODES) -> Iterator[Row]:
    """Yields attention of decode steps: the engine's own kernel over a paged cache, and torch's over one that is not.

    ``m`` sequences, ``n`` tokens of context each.
    """
    for h, kv, d in heads:
        most = max(n * context for n, context in loads)
        blocks = -(-most // BLOCK) * 2 + 8
        for held in (torch.bfloat16, torch.int8) if (h, kv, d) == HEADS[0] else (torch.bfloat16,):
            cache = Cache(1, blocks * BLOCK, kv, d, held, "cuda")
            for part in (cache.keys, cache.values):
                if held == torch.int8:
                    part.random_(-127, 128)
                else:
                    part.normal_()
            order = torch.randperm(blocks, device="cuda", dtype=torch.int32)
            for n, context in loads:
                used = -(-context // BLOCK)
                size = n * context * kv * d * 2 * cache.keys.element_size()
                turns = max(1, min(16, int(-(-CACHE // size)), blocks // (n * used)))
                q = torch.randn(n, h, d, device="cuda", dtype=torch.bfloat16)
                out, rows = torch.empty_like(q), torch.arange(n, device="cuda")
                ends = torch.full((n,), context, device="cuda")
                those = [
                    cuda.Rows(rows, order[i * n * used : (i + 1) * n * used].view(n, used), ends) for i in range(turns)
                ]
                found = timed([partial(cuda.attend, q, out, cache, 0, t, 0, scale=d**-0.5) for t in those])
                yield row(
                    "decode", "fleetcast", "bf16" if held == torch.bfloat16 else "int8", found, m=n, n=context,
                    heads=h, kv_heads=kv, head_dim=d,
                )  # fmt: skip
                if held == torch.int8 or size > 4e9:
                    continue
                pairs = [
                    [torch.randn(n, kv, context, d, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
                    for _ in range(min(turns, 8))
                ]
                asked = q.view(n, h, 1, d)
                with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
                    attend = partial(functional.scaled_dot_product_attention, asked, enable_gqa=True)
                    found = timed([partial(attend, *p) for p in pairs])
                yield row("decode", "flash", "bf16", found, m=n, n=context, heads=h, kv_heads=kv, head_dim=d)


def streams(tokens: Sequence[int] = TOKENS, widths: Sequence[int] = WIDTHS) -> Iterator[Row]:
    """Yields passes over activations; ``n`` is the bytes moved."""
    for m in tokens:
        for width in widths:
            size = 2.0 * m * width
            copies = max(1, min(32, int(-(-CACHE // (2 * size)))))
            xs = [torch.randn(m, width, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
            ys = [torch.randn(m, width, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
            weight = torch.rand(width, device="cuda", dtype=torch.bfloat16)
            out = torch.empty_like(xs[0])
            each: dict[str, tuple[float, list[Callable[[], Any]]]] = {
                "copy": (2 * size, [partial(y.copy_, x) for x, y in zip(xs, ys, strict=True)]),
                "add": (3 * size, [partial(torch.add, x, y, out=out) for x, y in zip(xs, ys, strict=True)]),
                "norm": (2 * size, [partial(cuda.norm, x, weight, 1e-5) for x in xs]),
                "gate": (1.5 * size, [partial(cuda.gate, x, False) for x in xs]),
            }
            for name, (moved, calls) in each.items():
                yield row("stream", name, "bf16", timed(calls), m=m, n=int(moved), k=width)


def roofs() -> dict[str, float]:
    """Returns the two ceilings: B/s of copying and of reading, FLOP/s of a large product on random data."""
    a = torch.randn(1 << 30, device="cuda")
    b = torch.empty_like(a)
    copy, read = timed([lambda: b.copy_(a)])[0], timed([lambda: a.sum()])[0]
    x, w = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = timed([lambda: x @ w])[0]
    return {"copy": 2 * 4 * 2**30 / copy, "read": 4 * 2**30 / read, "product": 2 * 8192**3 / product}


def row(family: str, kernel: str, dtype: str, found: tuple[float, float], **sizes: int) -> Row:
    """Returns a row of the table."""
    return {"family": family, "kernel": kernel, "dtype": dtype, **sizes, "seconds": found[0], "spread": found[1]}


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the roofs and all rows; a family that fails is named and the others go on."""
    found: dict[str, Any] = {"rows": [], "failed": {}}
    begun = time.perf_counter()
    found["roofs"] = roofs()
    say(f"roofs {found['roofs']}")
    families: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
        ("gemm", lambda: products(SHAPES[:2], ROWS[::4]) if quick else products()),
        ("prefill", lambda: prefills(HEADS[:1], NEW[1:5:3]) if quick else prefills()),
        ("decode", lambda: decodes(HEADS[:1], DECODES[:5]) if quick else decodes()),
        ("stream", lambda: streams(TOKENS[:2], WIDTHS[:1]) if quick else streams()),
    )
    for name, make in families:
        try:
            for item in make():
                found["rows"].append(item)
        except Exception as error:
            found["failed"][name] = f"{type(error).__name__}: {error}"
        torch.cuda.empty_cache()
        spent, failed = time.perf_counter() - begun, found["failed"].get(name, "")
        say(f"{name} done, {len(found['rows'])} rows, {spent:.0f} s {failed}")
    return found
