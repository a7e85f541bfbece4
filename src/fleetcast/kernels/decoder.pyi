"""Kernels of a decoder's step, written in C (decoder.c says how); pointers are addresses of contiguous memory.

Kinds: 0 fp32, 1 bf16, 2 int8, 3 int4 in groups of 32. ``threads`` are torch's own.
"""

def lanes(most: int) -> int:
    """Returns how many elements one instruction multiplies, after taking the widest set with at most ``most``.

    4, 8 (AVX2) or 16 (AVX-512) floats; 32 = AVX-512, with its products of 32 bf16.
    """

def linear(
    kind: int, x_kind: int, rows: int, outputs: int, inputs: int, x: int, weight: int, scale: int, bias: int, out: int,
    threads: int,
) -> None:  # fmt: skip
    """Writes x (rows, inputs) times the matrix (outputs, inputs), plus a fp32 bias, to out (rows, outputs)."""

def pairs() -> bool:
    """Whether this processor, with the instructions that were taken, multiplies pairs of bf16: what `panels` needs."""

def panels(
    rows: int, outputs: int, inputs: int, panel_bytes: int, x: int, weight: int, bias: int, out: int, threads: int,
) -> None:  # fmt: skip
    """Does what `linear` does, all in bf16, with a weight in panels of 64 outputs (decoder_panels.h)."""

def attend(
    q_kind: int, kind: int, q: int, out: int, keys: int, values: int, key_scales: int, value_scales: int, tables: int,
    most: int, spans: int, count: int, heads: int, kv_heads: int, width: int, window: int, threads: int, scale: float,
    cap: float,
) -> None:  # fmt: skip
    """Writes the attention of every row of q (rows, heads, width) over a paged cache (slots, kv_heads, width) to out.

    ``tables`` (count, most) are int32 blocks of 16 slots; ``spans`` (count, 3) are int64: the first row of a sequence,
    how many, and the position of the first.
    """

def norm(
    kind: int, weight_kind: int, x: int, add: int, weight: int, out: int, rows: int, width: int, threads: int,
    epsilon: float,
) -> None:  # fmt: skip
    """Writes the RMS norm of x (rows, width) to out; with ``add``, x becomes x + add first."""

def gate(kind: int, gelu: int, x: int, out: int, rows: int, width: int, threads: int) -> None:
    """Writes act(x[:, :width]) * x[:, width:] to out; act is silu, or gelu by tanh."""

def place(
    kind: int, cache: int, weight_kind: int, qkv: int, q_norm: int, k_norm: int, cosine: int, sine: int, q: int,
    keys: int, values: int, key_scales: int, value_scales: int, slots: int, rows: int, heads: int, kv_heads: int,
    width: int, turned: int, threads: int, epsilon: float,
) -> None:  # fmt: skip
    """Norms (with weights) and turns queries and keys of qkv; queries go to q, keys and values to the cache's slots."""

def settle(address: int, size: int) -> None:
    """Asks the system to put huge pages under memory that stays as it is; where it does not, nothing happens."""
