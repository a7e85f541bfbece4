"""What the HTTP server costs: tokens per second of streams over HTTP beside those of the same engine without it.

The model is a random one of the Llama family, written into a temporary folder with a tokenizer trained on the
documentation. The server is `fleetcast run --serve` in a process of its own; the null is the same plan's engine, given
the same requests all at once, in a process of its own too. Both run on one thread, the client on what is left. Rounds
of both alternate, and the best of each counts: other work on the machine only slows down.

    python -m benchmarks.serving_http [--quick]
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import ROOT, Null, Ours, Record, absent, main, skipped, timer
from fleetcast.base.host import cores

SYSTEM = 2
COMMAND = "python -m benchmarks.serving_http"
CLAIM = "{} streams at once over HTTP, every one answered whole: tokens/s beside the engine alone"
BAR = "all answered, no block held, at least {:.0%} of the engine's tokens/s"
STREAMS = {1: 0.7, 32: 0.7, 200: 0.7}
"""Streams at once, and the least share of the engine's speed held to; set before the first run."""
PROMPT, OUTPUT = 32, 48
SIZES: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4,
    "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 2048, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "torch_dtype": "float32", "tie_word_embeddings": True,
}  # fmt: skip
SCENARIO = """\
[fleet]
devices = "1x epyc-9654"
[workload]
model = "model"
arrivals = { kind = "poisson", rate = "1 /s", requests = 1 }
lengths = { kind = "fixed", prompt = 32, output = 48 }
[plan]
batch = { kind = "chunked", chunk = 512, max_batch = 64 }
"""
ALONE = """\
import sys, time
from pathlib import Path
from fleetcast.runtime.llm.sampling import Sampling
from fleetcast.view import here
from fleetcast.view.verbs import load
engine = here.start(load(Path(sys.argv[1])), bounded=True).launched.engine
for line in sys.stdin:
    many, prompt, output = map(int, line.split())
    begun = time.perf_counter()
    for i in range(many):
        engine.submit([2 + (7 * i + j) % 2000 for j in range(prompt)], output, Sampling())
    engine.run()
    print(time.perf_counter() - begun, flush=True)
"""


def records(quick: bool) -> list[Record]:
    """Returns a record a number of streams."""
    command = COMMAND + (" --quick" if quick else "")
    if missing := absent("torch", "safetensors", "tokenizers", "aiohttp", "prometheus_client"):
        why = f"not installed: {missing}"
        return [skipped(system=SYSTEM, claim=CLAIM.format(n), bar=BAR.format(b), why=why) for n, b in STREAMS.items()]
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as home:
        file = written(Path(home))
        with serving(file) as url, alone(file) as engine:
            return [record(url, engine, n, share, rounds, command) for n, share in STREAMS.items()]


def record(url: str, engine: Any, many: int, share: float, rounds: int, command: str) -> Record:
    """Returns the record of ``many`` streams at once."""
    over, without = [], []
    with timer() as took:
        for _ in range(rounds + 1):
            over.append(asyncio.run(streams(url, many)))
            engine.stdin.write(f"{many} {PROMPT} {OUTPUT}\n")
            engine.stdin.flush()
            without.append(float(engine.stdout.readline()))
        over, without = over[1:], without[1:]  # the first round warms up
        free = asyncio.run(held(url)) == 0
    whole = all(tokens == [OUTPUT] * many for _, tokens in over)
    total = many * OUTPUT
    speeds = [total / seconds for seconds, _ in over]
    best, null = max(speeds), total / min(without)
    return Record(
        system=SYSTEM, claim=CLAIM.format(many), bar=BAR.format(share),
        ours=Ours(
            value=round(best, 1), unit="tokens/s", spread=round(max(speeds) - min(speeds), 1),
            setting=f"best of {len(over)} rounds, spread over them; {cores()} cores for server and client",
        ),
        null=Null(value=round(null, 1), what="the same engine in a process of its own, without HTTP and text"),
        holds=whole and free and best >= share * null, reproduced="other setting",
        reason=f"no paper's claim; {best / null:.0%} of the engine's speed" + ("" if whole and free else ", NOT whole"),
        seconds=round(took.seconds, 1), command=command,
    )  # fmt: skip


def written(home: Path) -> Path:
    """Writes a random model with a tokenizer, and the scenario that serves it; returns the scenario's path."""
    import torch
    from safetensors.torch import save_file

    from fleetcast.runtime.llm.shape import read_shape
    from fleetcast.runtime.training.tokens import train_tokenizer

    folder = home / "model"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(dims, generator=draw) * 0.05 for n, dims in read_shape(SIZES).tensors()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES))
    texts = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))]
    (folder / "tokenizer.json").write_text(train_tokenizer(texts, SIZES["vocab_size"]))
    (home / "served.toml").write_text(SCENARIO)
    return home / "served.toml"


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """Serves the scenario in a process of its own and gives the URL."""
    command = [sys.executable, "-m", "fleetcast", "run", str(file), "--serve", "--json", "--port", "0"]
    with process(command) as server:
        yield json.loads(server.stdout.readline())["url"]


@contextmanager
def alone(file: Path) -> Iterator[Any]:
    """Starts the engine in a process of its own; it answers each line with seconds."""
    with process([sys.executable, "-c", ALONE, str(file)]) as engine:
        yield engine


@contextmanager
def process(command: Sequence[str]) -> Iterator[Any]:
    """Runs a command with pipes, on one thread, and ends it."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as found:
        try:
            yield found
        finally:
            found.terminate()


async def streams(url: str, many: int) -> tuple[float, list[int]]:
    """Returns (s that all took, tokens of each that ended whole; 0 of the others)."""
    import aiohttp

    async def one(http: Any, i: int) -> int:
        body = {
            "model": "model", "prompt": [2 + (7 * i + j) % 2000 for j in range(PROMPT)], "max_tokens": OUTPUT,
            "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        tokens = 0
        async with http.post(f"{url}/completions", json=body) as response:
            async for line in response.content:
                if b'"usage":{' in line:
                    tokens = int(json.loads(line[6:])["usage"]["completion_tokens"])
                if line.startswith(b"data: [DONE]"):
                    return tokens
        return 0

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        begun = time.perf_counter()
        found = await asyncio.gather(*(one(http, i) for i in range(many)))
        return time.perf_counter() - begun, list(found)


async def held(url: str) -> float:
    """Returns the share of KV cache blocks that the server holds when all are answered."""
    import aiohttp

    async with aiohttp.ClientSession() as http, http.get(url.removesuffix("/v1") + "/metrics") as response:
        rows = (await response.text()).splitlines()
    return next(float(row.split()[-1]) for row in rows if row.startswith("fleetcast:kv_cache_usage_perc"))


if __name__ == "__main__":
    sys.exit(main(records))
