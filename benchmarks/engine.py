"""How fast the engine runs one model of 158 M parameters, beside the machine's limits and other engines, in one run.

The model is random: 12 layers, 1,024 wide, 16 heads and 8 key heads of 64, 2,816 inner elements, 8,192 tokens, untied.
All engines get the same weights, prompts of 256 tokens and as many threads as this process may use cores. Limits are
measured in the same run: the read stream is the fastest of several readers of memory, the matrix roof the fastest of
several bf16 products. Figures are the best of all steps; medians and the load stand beside them: other work shows.

Other engines run in environments of their own, below the folder that FLEETCAST_RIVALS names; without it their rows are
skipped:

    python -m venv $FLEETCAST_RIVALS/hf
    $FLEETCAST_RIVALS/hf/bin/pip install torch==2.13.0 transformers tokenizers safetensors numpy ctranslate2 gguf
    python -m venv $FLEETCAST_RIVALS/lc
    CMAKE_ARGS=-DGGML_NATIVE=ON $FLEETCAST_RIVALS/lc/bin/pip install llama-cpp-python numpy
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.engine_rivals import BATCHES, PROMPT, clocked, prompts, summed
from benchmarks.records import ROOT, Null, Ours, Paper, Record, main, skipped
from fleetcast.base.host import cores

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024, "num_attention_heads": 16,
    "num_key_value_heads": 8, "intermediate_size": 2816, "num_hidden_layers": 12, "vocab_size": 8192,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "float32",
    "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FORMATS = ("fp32", "bf16", "int8", "int4")
READ = 149_946_368
"""Weights that a decode step reads: all but the embedding."""
KV = 12 * 2 * 8 * 64
"""Elements of the cache of one token."""
RIVALS = (
    ("hf", "transformers", "fp32"), ("hf", "transformers", "bf16"), ("hf", "ctranslate2", "fp32"),
    ("hf", "ctranslate2", "int8"), ("lc", "llama.cpp", "fp32"), ("lc", "llama.cpp", "int8"),
)  # fmt: skip
FOLDER = ROOT / ".cache" / "engine"
COMMAND = "python -m benchmarks.engine"
ROUNDS = 2
"""How often all of it is measured; the lower figure counts."""


def records(quick: bool) -> list[Record]:
    """Returns the engine's speed against its bars; prints the whole table."""
    command = COMMAND + (" --quick" if quick else "")
    if find_spec("torch") is None:
        why = "torch is not installed"
        return [skipped(system=2, claim="speed of the engine", bar="see docs", why=why, command=command)]
    write_model(FOLDER)
    return cautious([once(quick, command) for _ in range(1 if quick else ROUNDS)])


def once(quick: bool, command: str) -> list[Record]:
    """Measures roofs, every engine and the roofs again; returns a record for every bar."""
    import torch

    threads, steps = cores(), 8 if quick else 24
    begun, load = time.perf_counter(), os.getloadavg()[0]
    first = own_worker("roofs", "", steps, threads)
    found = {("fleetcast", form): own_worker("own", form, steps, threads) for form in FORMATS}
    found |= rivals(threads, steps, lambda: own_worker("stream", "", steps, threads)["stream"])
    second = own_worker("roofs", "", steps, threads)
    roofs = {name: max(first[name], second[name]) for name in first}
    spread = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after; stream {first['stream'] / 1e9:.1f} and "
    spread += f"{second['stream'] / 1e9:.1f} GB/s, matrix {first['matrix'] / 1e9:.0f} and {second['matrix'] / 1e9:.0f} "
    spread += f"GFLOP/s before and after; {threads} threads, torch {torch.__version__}"
    show(roofs, found, spread)
    return bars(roofs, found, spread, command, time.perf_counter() - begun)


def cautious(rounds: Sequence[Sequence[Record]]) -> list[Record]:
    """Returns of every record the round with the lowest share: a shared machine's memory is now faster, now slower."""
    found = []
    for several in zip(*rounds, strict=True):
        least, *others = sorted(several, key=lambda r: float(r.ours.value or 0.0))
        said = "".join(f"; {r.ours.value:.0%} in another round ({r.ours.spread})" for r in others)
        ours = msgspec.structs.replace(least.ours, spread=f"{least.ours.spread}{said}")
        found.append(msgspec.structs.replace(least, ours=ours, seconds=sum(r.seconds for r in several)))
    return found


def show(roofs: dict[str, float], found: dict[tuple[str, str], Any], spread: str) -> None:
    """Prints the roofs and one row an engine, format and batch."""
    print(spread)
    print("roofs: " + ", ".join(f"{name} {value / 1e9:.1f} G/s" for name, value in roofs.items()))
    heads = f"{'engine':13} {'format':6} {'batch':>5} {'prefill tok/s':>13} {'of roof':>7} {'decode tok/s':>12}"
    print(f"{heads} {'median':>7} {'CPU ms':>7} {'stream':>7} {'of bound':>8} {'with KV':>7} {'same':>4}")
    ours = {form: row for (engine, form), row in found.items() if engine == "fleetcast"}
    for (engine, form), rows in found.items():
        for batch, row in rows.items():
            n = int(batch)
            weights, cached = (size / row["stream"] / row["step"] for size in floor(form, n))
            tokens = ours["fp32"].get(batch, {}).get("tokens", [])
            same = sum(a == b for a, b in zip(row["tokens"], tokens, strict=False))
            flops = 2 * (READ - 8192 * 1024) * n * PROMPT
            filled = f"{n * PROMPT / row['prefill']:13.0f} {flops / row['prefill'] / roofs['matrix']:7.0%}"
            print(
                f"{engine:13} {form:6} {n:5d} {filled} {n / row['step']:12.1f} {n / row['step_median']:7.1f} "
                f"{row['step_cpu'] * 1e3:7.2f} {row['stream'] / 1e9:7.1f} {weights:8.0%} {weights + cached:7.0%} "
                f"{same:4d}"
            )


def floor(form: str, batch: int) -> tuple[float, float]:
    """Returns the bytes that a decode step cannot but read: weights without scales, and the cache of a prompt."""
    size = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}[form]
    return READ * size, batch * PROMPT * KV * (4.0 if form == "fp32" else 2.0)


def bars(
    roofs: dict[str, float], found: dict[tuple[str, str], Any], spread: str, command: str, seconds: float
) -> list[Record]:
    """Returns a record for every bar."""
    cases = (
        ("fp32 decode at batch 1, share of the read stream", "fp32", "1", 0.85, ("llama.cpp", "fp32"), 0.0),
        ("int8 decode at batch 1, share of its bound", "int8", "1", 0.50, ("ctranslate2", "int8"), 1.5),
        ("bf16 decode at batch 8, share of its bound", "bf16", "8", 0.55, ("transformers", "bf16"), 2.0),
    )
    made = []
    for claim, form, batch, least, rival, factor in cases:
        row, other = found["fleetcast", form][batch], found.get(rival, {}).get(batch)
        read = floor(form, int(batch))[0]
        share = read / row["stream"] / row["step"]
        theirs = read / other["stream"] / other["step"] if other else None
        rate = int(batch) / row["step"]
        times = other["step"] / row["step"] if other else None
        said = f" and {factor} times {rival[0]}" if factor else ""
        holds = share >= least and (not factor or (times is not None and times >= factor))
        made.append(record(
            f"{claim}", share, f"at least {least:.0%}{said}", holds,
            f"{rate:.1f} tokens/s, median {int(batch) / row['step_median']:.1f}, beside a stream of "
            f"{row['stream'] / 1e9:.1f} GB/s"
            + (f", {times:.2f} times {' '.join(rival)}" if times else f"; {rival[0]} was not there"),
            theirs, " ".join(rival), spread, command, seconds,
        ))  # fmt: skip
    row, other = found["fleetcast", "bf16"]["8"], found.get(("transformers", "bf16"), {}).get("8")
    flops = 2 * (READ - 8192 * 1024) * 8 * PROMPT
    share = flops / row["prefill"] / roofs["matrix"]
    made.append(record(
        "bf16 prefill of 8 x 256 tokens, share of the matrix roof", share, "at least 75%", share >= 0.75,
        f"{8 * PROMPT / row['prefill']:.0f} tokens/s; attention's products not counted as work",
        flops / other["prefill"] / roofs["matrix"] if other else None, "transformers bf16", spread, command, seconds,
    ))  # fmt: skip
    return made


def record(
    claim: str, share: float, bar: str, holds: bool, setting: str, other: float | None, rival: str, spread: str,
    command: str, seconds: float,
) -> Record:  # fmt: skip
    """Returns one record."""
    return Record(
        system=2, claim=claim, paper=Paper(setting="a bar of our own; the paper's machine and model are others"),
        ours=Ours(value=round(share, 3), unit="share", spread=spread, setting=setting),
        null=Null(value=None if other is None else round(other, 3), what=rival), bar=bar, holds=bool(holds),
        reproduced="other setting", reason="another machine and model than the paper's; the bar is ours",
        skipped=None, seconds=round(seconds, 1), command=command,
    )  # fmt: skip


def write_model(folder: Path) -> None:
    """Writes the random model as Hugging Face lays it out, with a tokenizer of made-up words."""
    if (folder / "tokenizer.json").is_file():
        return
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draw, c = torch.Generator().manual_seed(0), CONFIG
    hidden, width, vocab = 1024, 2816, 8192
    sizes = {
        "self_attn.q_proj": (1024, hidden), "self_attn.k_proj": (512, hidden), "self_attn.v_proj": (512, hidden),
        "self_attn.o_proj": (hidden, 1024), "mlp.gate_proj": (width, hidden), "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }  # fmt: skip
    weights = {"model.embed_tokens.weight": torch.randn(vocab, hidden, generator=draw)}
    for i in range(12):
        for name, size in sizes.items():
            weights[f"model.layers.{i}.{name}.weight"] = torch.randn(size, generator=draw) * size[1] ** -0.5
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{i}.{name}.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    weights["lm_head.weight"] = torch.randn(vocab, hidden, generator=draw) * hidden**-0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(c))
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, vocab)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    table = {"tokenizer_class": "PreTrainedTokenizerFast"} | named
    (folder / "tokenizer_config.json").write_text(json.dumps(table))
    special = [
        {"id": i, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False} for i, word in enumerate(named[name] for name in ("unk_token", "bos_token", "eos_token"))
    ]  # fmt: skip
    text: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
    }
    text |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(text))


def own_worker(what: str, form: str, steps: int, threads: int) -> dict[str, Any]:
    """Returns what a fresh process of this script measures."""
    return started([sys.executable, __file__, "--worker", what, form, str(threads), str(steps)]) or {}


def rivals(threads: int, steps: int, stream: Callable[[], float]) -> dict[tuple[str, str], Any]:
    """Returns what each engine that is installed measured; one that is not, or fails, is named on the way."""
    place, found = os.environ.get("FLEETCAST_RIVALS"), {}
    script = str(Path(__file__).with_name("engine_rivals.py"))
    for env, engine, form in RIVALS:
        python = Path(place or "/nowhere") / env / "bin" / "python"
        if not python.is_file():
            print(f"{engine} {form}: skipped, no environment {env!r} below FLEETCAST_RIVALS")
            continue
        convert = {"ctranslate2": "ct2", "llama.cpp": "gguf"}.get(engine)
        if convert:
            converter = python.parents[2] / "hf" / "bin" / "python"
            started([str(converter), script, convert, form, str(FOLDER), "1", "1"])
        before = stream()
        made = started([str(python), script, engine, form, str(FOLDER), str(threads), str(steps)])
        if made:
            reached = max(before, stream())
            found[engine, form] = {batch: row | {"stream": reached} for batch, row in made.items()}
    return found


def started(command: list[str]) -> dict[str, Any] | None:
    """Returns the JSON that a process prints last, or None after saying what went wrong."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    if command[0] == sys.executable:
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command[1:4])}: took more than 300 s")
        return None
    if done.returncode:
        print(f"{' '.join(command[1:4])}: failed ({done.returncode})\n{done.stderr[-1500:]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def readers(threads: int) -> list[tuple[int, Callable[[], Any]]]:
    """Returns calls that read memory from one end to the other, and the bytes that each reads."""
    import torch

    from fleetcast.runtime.llm import native

    torch.set_num_threads(threads)
    floats = torch.ones(160 << 10, 1024)
    one, row = torch.ones(1, 1024), floats.view(-1)
    tall = torch.ops.mkldnn._reorder_linear_weight(torch.ones(160 << 10, 1024, dtype=torch.bfloat16), 1)
    half = one.bfloat16()
    size = floats.numel()
    found: list[tuple[int, Callable[[], Any]]] = [
        (4 * size, lambda: row.view(torch.int64).sum()), (4 * size, lambda: row.sum()),
        (4 * size, lambda: torch.mv(floats, one[0])),
        (2 * size, lambda: torch.ops.mkldnn._linear_pointwise(half, tall, None, "none", [], "")),
    ]  # fmt: skip
    if native.kernels is not None:
        found.append((4 * size, lambda: native.linear(one, floats, None, None)))
    return found


def stream(threads: int, repeats: int) -> dict[str, float]:
    """Returns bytes/s of the fastest reader of memory."""
    import torch

    with torch.inference_mode():
        return {"stream": max(size / best(call, repeats) for size, call in readers(threads))}


def roofs(threads: int, repeats: int) -> dict[str, float]:
    """Returns bytes/s of the fastest reader, and FLOP/s of the fastest bf16 and fp32 products."""
    import torch

    made = stream(threads, repeats)
    with torch.inference_mode():
        for name, dtype in (("matrix", torch.bfloat16), ("matrix32", torch.float32)):
            rates = []
            for n in (1024, 2048):
                a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
                laid = torch.ops.mkldnn._reorder_linear_weight(b, n)
                plain = partial(torch.matmul, a, b)
                packed = partial(torch.ops.mkldnn._linear_pointwise, a, laid, None, "none", [], "")
                rates += [2 * n**3 / best(call, repeats) for call in (plain, packed)]
            made[name] = max(rates)
    return made


def best(call: Callable[[], Any], repeats: int) -> float:
    """Returns the least seconds of several calls."""
    call()
    return min(clocked(call)[0] for _ in range(repeats))


def own(form: str, threads: int, steps: int) -> dict[str, Any]:
    """Returns our engine's times, whole iterations with policies and sampling, and the stream between them.

    The memory of a shared machine is now faster, now slower, so its stream is read after every fourth step. The step
    after a reading, whose cache was swept, does not count.
    """
    import torch

    from fleetcast.policy import batch as batches
    from fleetcast.runtime.llm import open_engine

    policy = batches.PrefillFirst(max_batch=8, max_tokens=8 * PROMPT)
    engine = open_engine(FOLDER, blocks=256, dtype=form, threads=threads, batch=policy)
    with torch.inference_mode():
        size, reader = max(readers(threads), key=lambda one: one[0] / best(one[1], 5))
    found = {}
    for batch in BATCHES:
        prefills: list[tuple[float, float]] = []
        times: list[tuple[float, float]] = []
        said: list[int] = []
        read: list[float] = []
        for round_ in range(2):
            asked = prompts(batch, CONFIG["vocab_size"], round_)
            made = [engine.submit(tokens, steps + 1) for tokens in asked]
            prefills.append(clocked(engine.step)[:2])
            while engine.load:
                times.append(clocked(engine.step)[:2])
                if engine.load and len(times) % 4 == 0:
                    with torch.inference_mode():
                        read.append(size / clocked(reader)[0])
                    engine.step()
            said = made[0].output if round_ == 0 else said
        found[str(batch)] = summed(prefills, times, said) | {"stream": max(read)}
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        what_, form_, threads_, steps_ = sys.argv[2:]
        limits = {"roofs": roofs, "stream": stream}
        both = int(threads_), int(steps_)
        print(json.dumps(limits[what_](*both) if what_ in limits else own(form_, *both)))
        sys.exit(0)
    sys.exit(main(records))
