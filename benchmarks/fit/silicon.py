"""The end-to-end measured rows (``serving/silicon_dev.csv.gz``) as scenarios: what was served, how, under which load.

Two kinds of sources, told apart by ``silicon_data_source``:

- *random*: InferenceX's published runs (``*.csv``, ``db-dump``). Its benchmark scripts are public: lengths uniform
  in 80 to 100 % of nominal, ten requests per user, all users start at once, batch limited to the users, KV cache in
  fp8 for Llama and DeepSeek, asynchronous scheduling switched on.
- *gap*: aiconfigurator's own comparison runs. Lengths are fixed, and the token budget of an iteration is what its
  published generator writes: users + prompt + 1500. Ten requests per user as well: the mean time to first token
  grows with the users as a counted first wave makes it.

The columns need decoding; `Row` says how. Nothing here is fitted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FILE = ("serving", "silicon_dev.csv.gz")
ENGINES = {"vllm": "vllm-1", "trtllm": "trtllm", "sglang": "sglang"}
DEVICES = {"h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm"}
RANDOM = 0.8
"""Shortest length of the *random* sources, as a share of the nominal one."""


@dataclass(frozen=True)
class Row:
    """One measured row, decoded.

    Layout: devices = ``moe_tp x moe_ep`` of a model with experts, and tensor_parallel x attention_dp = devices. Some
    sources write it otherwise, which rows measured twice give away (their times agree to 1 %), or what can run:

    - dated ``2026-04-06`` and ``db-dump`` rows hold the *flags* tp and ep in ``moe_tp`` and ``moe_ep`` and their
      product in ``tp`` (or ``attention_dp``): 64/8/8 is 8 devices, tensor- and expert-parallel over the same 8.
    - the MiniMax rows with attention_dp 4 and moe_ep 16 are the 4-device runs of the other source without attention
      DP; ``batch_size`` is the load divided by 4.
    - the MiniMax rows of 8 devices with moe_tp 8 and moe_ep 1 ran with expert parallelism over all 8, as the change
      that introduced them says (InferenceX 869): cut 8 ways, the experts' width of 1,536 leaves 192, no multiple of
      the checkpoint's block of 128, and vLLM refuses to load it.
    - ``attention_dp`` blank with moe_tp above tp (vLLM) is attention data parallelism of moe_tp x moe_ep / tp.

    Attributes:
        index: line of the file.
        engine: engine profile.
        device: catalogue id.
        model: repository name.
        tp, dp, ep: tensor parallel, attention-DP, expert parallel.
        users: concurrent requests.
        prompt, output: nominal tokens.
        random: lengths vary, and the first wave counts.
        dtype, kv_dtype: of the plan; None = the checkpoint's.
        ttft, tpot: measured means, s.
        unusable: why the row cannot be simulated, or "".
    """

    index: int
    backend: str
    version: str
    device: str
    model: str
    tp: int
    dp: int
    ep: int
    users: int
    prompt: int
    output: int
    random: bool
    dtype: str | None
    kv_dtype: str
    ttft: float
    tpot: float
    unusable: str = ""
    columns: Any = field(default=None, repr=False, compare=False)

    @property
    def engine(self) -> str:
        """Engine profile; with the version where it decides whether the host overlaps (see `random`)."""
        plain = ENGINES[self.backend]
        return f"vllm-{self.version}" if plain == "vllm-1" and not self.random and self.version[0].isdigit() else plain

    @property
    def devices(self) -> int:
        """Devices of the replica."""
        return self.tp * self.dp

    @property
    def group(self) -> tuple[str, str, str]:
        """Engine, model and device: the groups whose interval coverage is held."""
        return self.backend, self.model.rpartition("/")[2], self.device

    @property
    def load(self) -> tuple[str, str, str, int, int, int]:
        """What rows that differ only in layout share."""
        return (*self.group, self.prompt, self.output, self.users)

    @cached_property
    def batch(self) -> dict[str, Any]:
        """The batch policy table that the run's published flags amount to; only what is known."""
        if not self.random:
            key = "max_tokens" if self.backend == "trtllm" else "chunk"
            return {key: self.users // self.dp + self.prompt + 1500} if self.backend != "sglang" else {}
        if self.backend == "trtllm":
            if "gpt-oss" in self.model:
                return {"max_tokens": 20_000, "max_batch": self.users}
            if "Llama" in self.model:
                return {"max_tokens": self.prompt + self.output + 200}
            return {"max_tokens": -(-(self.users // self.dp + self.prompt + 64) // 64) * 64}
        return {"max_batch": self.users}

    def lengths(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns prompt and output tokens of ``count`` requests; the same for every layout."""
        if not self.random:
            return np.full(count, self.prompt), np.full(count, self.output)
        draw = np.random.default_rng((self.prompt, self.output, self.users))
        return tuple(  # type: ignore[return-value]
            draw.integers(int(n * RANDOM), n, count, endpoint=True) for n in (self.prompt, self.output)
        )


def rows(path: Path, backends: tuple[str, ...] = ("vllm", "trtllm")) -> list[Row]:
    """Returns the aggregated-mode rows of the file, decoded."""
    frame = pd.read_csv(path)
    frame = frame[(frame["mode"] == "agg") & frame["backend"].isin(backends)]
    return [_row(int(i), r) for i, r in frame.iterrows()]


def _row(index: int, r: Any) -> Row:
    source = str(r.silicon_data_source)
    gap = "gap-analysis" in source
    random = not gap or "kimi-k2.5-gap-analysis.csv" in source
    model = str(r.model_path)
    tp, dp, ep, unusable = layout(r, flags="2026-04-06" in source or source.startswith("db-dump"))
    stated = re.search(r"silicon_concurrency=(\d+)", source)
    users = int(stated[1]) if stated else int(r.batch_size)
    if stated and users != int(r.batch_size) and gap:
        unusable = f"load contradicts itself: concurrency {users}, batch {int(r.batch_size)} on one replica"
    if "DeepSeek-R1" in model and "measured=2026-01-14" in source:
        unusable = "served with speculative decoding: half the time per token of the same layout without it"
    if users >= 512:
        unusable = "load contradicts itself: more users at a lower time per token than with 64 on the same layout"
    device = DEVICES[str(r.system)]
    quantised = isinstance(r.gemm_quant_mode, str)
    dtype = "fp8" if quantised and "fp8" in r.gemm_quant_mode and _plain(model) else None
    fp8_cache = random and ("Llama" in model or ("DeepSeek" in model and r.backend == "trtllm"))
    return Row(
        index=index, backend=str(r.backend), version=str(r.backend_version), device=device, model=model,
        tp=tp, dp=dp, ep=ep, users=users, prompt=int(r.isl), output=int(r.osl), random=random, dtype=dtype,
        kv_dtype="fp8" if fp8_cache else "auto", ttft=r.silicon_ttft_ms * 1e-3, tpot=r.silicon_tpot_ms * 1e-3,
        unusable=unusable, columns=r,
    )  # fmt: skip


def _plain(model: str) -> bool:
    """Whether the named checkpoint is 16-bit, so that fp8 means quantised by or for the engine."""
    return any(name in model for name in ("Qwen3-32B", "Llama-3.1-70B", "Llama-3.1-8B-Instruct")) and "FP8" not in model


def _ways(x: float) -> int:
    """Returns a degree; blank and 0 both mean 1."""
    return int(x) if x == x and x > 0 else 1


def layout(r: Any, flags: bool) -> tuple[int, int, int, str]:
    """Returns (tensor parallel, attention DP, expert parallel, why unusable) of a row, see `Row`."""
    tp, dp, etp, ep = (_ways(x) for x in (r.tp_size, r.attention_dp_size, r.moe_tp_size, r.moe_ep_size))
    experts = any(
        name in str(r.model_path) for name in ("235B", "gpt-oss", "DeepSeek", "MiniMax", "Kimi", "397B", "GLM")
    )
    if not experts:
        return tp, 1, 1, ""
    if "MiniMax" in str(r.model_path) and etp == 8:
        return tp, 1, etp, ""
    if flags and dp > 1 and ep == tp * dp and etp == 1:
        return tp, 1, tp, ""
    if flags and ep > 1 and etp * ep == tp * dp:
        return (etp, 1, ep, "") if dp == 1 else (1, etp, ep, "")
    if r.attention_dp_size != r.attention_dp_size and etp * ep > tp and etp * ep % tp == 0:
        return tp, etp * ep // tp, ep, ""
    if tp * dp != etp * ep:
        return tp, dp, ep, f"layout contradicts itself: {tp} x {dp} devices for attention, {etp} x {ep} for experts"
    return tp, dp, ep, ""
