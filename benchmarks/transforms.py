"""What makes a model smaller, on a model that was trained: bytes foretold and written, quality lost, and by the null.

The model is one of `benchmarks.small_models`, trained on the text of this repository. Every tenth piece is kept back
and scored, the others train and calibrate. Each null has the same bytes: what goes is drawn by lot (mean of three
seeds, or of all blocks of layers), the student reads text alone; only one scale for a whole row takes fewer.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import Null, Ours, Paper, Record, main, skipped, timer

SURVEY = Paper(setting="a survey: it names techniques, no figure")
REASON = "the paper has no such figure; the bar is ours"
BYTES = "largest difference of bytes written from bytes foretold, seven transforms of a trained model"
SEEDS = (0, 1, 2)
WINDOWS = 100
HEAL = 60
LOSSES = (
    "loss added by 4-bit weights in groups of 32", "loss added by removing half of the weights of each row",
    "loss added by factors of 70 % of the bytes", "loss added by removing a quarter of the channels",
    "loss added by removing half of the heads", "loss added by removing a quarter of the layers",
    "loss of a distilled student of a sixth of the bytes",
)  # fmt: skip
"""The claims on quality, nat per token."""


class Bench:
    """The model, its text, and the score of what is made of it."""

    def __init__(self, quick: bool) -> None:
        from benchmarks.small_models import corpus, trained
        from fleetcast.runtime.llm.shape import read_shape
        from fleetcast.runtime.transforms.checkpoint import read

        folder = trained("nano", layers=4, hidden=96, width=288) if quick else trained("small")
        self.source = read(folder)
        self.tokens, self.held = corpus("mixed")
        self.windows = 30 if quick else WINDOWS
        self.steps = 60 if quick else 200
        self.heal = 20 if quick else HEAL
        shape = read_shape(self.source.config)
        size = sum(value.numel() for value in self.source.tensors.values())
        self.setting = (
            f"{len(shape.windows)} layers of {shape.hidden}, {size / 1e6:.2f} M parameters in fp32, bytes as tokens; "
            f"{self.windows} windows of 128 tokens kept back"
        )
        self.before = self.score(self.source)

    def score(self, checkpoint: Any) -> Any:
        """Returns the score on the text that was kept back."""
        from fleetcast.runtime.llm.shape import read_shape
        from fleetcast.runtime.training.lm import score
        from fleetcast.runtime.transforms.checkpoint import STORAGE

        plain = {key: value for key, value in checkpoint.config.items() if key != STORAGE}
        return score(read_shape(plain), checkpoint.weights(), self.held, windows=self.windows)

    def apply(self, transform: Any) -> Any:
        """Returns what a transform makes of the model."""
        return transform.apply(self.source, self.tokens)

    def added(self, transform: Any) -> tuple[float, float]:
        """Returns (loss added, nat a token; accuracy lost)."""
        found = self.score(self.apply(transform))
        return found.loss - self.before.loss, self.before.accuracy - found.accuracy


def records(quick: bool) -> list[Record]:
    """Returns the bytes and the quality of every transform."""
    command = "python -m benchmarks.transforms" + (" --quick" if quick else "")
    try:
        import safetensors  # noqa: F401
        import torch
    except ImportError as absent:
        claims = (BYTES, *LOSSES)
        return [skipped(system=12, claim=c, bar="-", why=f"{absent.name} is absent", command=command) for c in claims]
    torch.set_num_threads(1)  # of these sizes a second one only waits, and sums would differ
    bench = Bench(quick)
    return [sizes(bench, command), *chosen(bench, command), layers(bench, command), taught(bench, command)]


def sizes(bench: Bench, command: str) -> Record:
    """Returns how far files are from what was foretold."""
    from fleetcast.runtime.transforms import Distil, DropLayers, LowRank, Narrow, Quantise, Sparsify
    from fleetcast.runtime.transforms.checkpoint import plain_bytes, write

    # each with the rule of thumb: the share of all bytes that the setting names
    cases: dict[str, tuple[Any, float]] = {
        "int8": (Quantise(bits=8, group=0), 8 / 32), "int4": (Quantise(bits=4, group=32), 4 / 32),
        "half of the weights": (Sparsify(share=0.5), 0.5), "factors": (LowRank(keep=0.7), 0.7),
        "narrow": (Narrow(ffn=0.25, heads=0.5), 0.75), "fewer layers": (DropLayers(share=0.25), 0.75),
        "student": (Distil(steps=1, batch=1, length=8), 0.5**3),
    }  # fmt: skip
    off, thumb, said = {}, {}, []
    with timer() as spent, tempfile.TemporaryDirectory() as folder:
        whole = plain_bytes(bench.source.config)
        for name, (transform, share) in cases.items():
            foretold = transform.predict_bytes(bench.source.config)
            file = write(Path(folder) / "made", bench.apply(transform))
            off[name], thumb[name] = file / foretold - 1, file / (whole * share) - 1
            said.append(f"{name} {file:,} of {foretold:,.0f}")
    worst, null = max(map(abs, off.values())), max(map(abs, thumb.values()))
    return Record(
        system=12, claim=BYTES, paper=SURVEY,
        ours=Ours(
            value=round(worst, 4), unit="share", spread="; ".join(said), setting=f"the whole file; {bench.setting}"
        ),
        null=Null(value=round(null, 3), what="bytes times the share that the setting names, of all tensors"),
        bar="within 5 %", holds=worst < 0.05, reproduced="other setting", reason=REASON, skipped=None,
        seconds=spent.seconds, command=command,
    )  # fmt: skip


def chosen(bench: Bench, command: str) -> list[Record]:
    """Returns what choosing by importance costs, beside a choice by lot."""
    from fleetcast.runtime.transforms import LowRank, Narrow, Quantise, Sparsify

    def lot(make: Callable[[int], Any]) -> list[Any]:
        return [make(seed) for seed in SEEDS]

    row = "plain rounding, one scale a row"
    lots = "what goes is drawn by lot, mean of three seeds"
    cases: list[tuple[str, Any, Sequence[Any], str, dict[str, Any]]] = [
        (LOSSES[0], Quantise(bits=4, group=32), [Quantise(bits=4, group=0, choose="largest")], row,
         {"8-bit": Quantise(bits=8, group=0), "plain rounding in groups": Quantise(group=32, choose="largest")}),
        (LOSSES[1], Sparsify(), lot(lambda s: Sparsify(choose="random", seed=s)), lots,
         {"by magnitude alone": Sparsify(choose="magnitude")}),
        (LOSSES[2], LowRank(keep=0.7), lot(lambda s: LowRank(keep=0.7, choose="random", seed=s)),
         "the best that reads a random subspace of the inputs, mean of three seeds",
         {"without the inputs": LowRank(keep=0.7, choose="weights")}),
        (LOSSES[3], Narrow(), lot(lambda s: Narrow(choose="random", seed=s)), f"{lots}, refitted too",
         {"not refitted": Narrow(refit=False)}),
        (LOSSES[4], Narrow(ffn=0.0, heads=0.5), lot(lambda s: Narrow(ffn=0.0, heads=0.5, choose="random", seed=s)),
         f"{lots}, refitted too", {"not refitted": Narrow(ffn=0.0, heads=0.5, refit=False)}),
    ]  # fmt: skip
    return [_record(bench, command, *case) for case in cases]


def _record(
    bench: Bench, command: str, claim: str, ours: Any, nulls: Sequence[Any], what: str, also: dict[str, Any]
) -> Record:
    with timer() as spent:
        loss, lost = bench.added(ours)
        null = mean(bench.added(n)[0] for n in nulls)
        others = [f"{name} {bench.added(t)[0]:+.3f}" for name, t in also.items()]
    foretold = ours.predict_bytes(bench.source.config)
    before = bench.before
    return Record(
        system=12, claim=claim, paper=SURVEY,
        ours=Ours(
            value=round(loss, 4), unit="nat",
            spread="; ".join([f"next tokens right {before.accuracy:.1%} to {before.accuracy - lost:.1%}", *others]),
            setting=f"loss {before.loss:.3f} before, {foretold:,.0f} B afterwards; {bench.setting}",
        ),
        null=Null(value=round(null, 4), what=what), bar="less than the null", holds=loss < null,
        reproduced="other setting", reason=REASON, skipped=None, seconds=spent.seconds, command=command,
    )  # fmt: skip


def layers(bench: Bench, command: str) -> Record:
    """Returns what the block of layers that turns the stream least costs, beside every other block."""
    from fleetcast.runtime.transforms import DropLayers
    from fleetcast.runtime.transforms.applying import healed
    from fleetcast.runtime.transforms.checkpoint import model_of

    class Block(DropLayers):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

        def first(self, source: Any, tokens: Any) -> int:
            return self.at

    with timer() as spent:
        step = DropLayers()
        made = bench.apply(step)
        found = bench.score(made)
        loss = found.loss - bench.before.loss
        blocks = range(model_of(bench.source.config).layers - step.count(bench.source.config) + 1)
        every = [bench.added(Block(at))[0] for at in blocks]
        after = bench.score(healed(made, bench.tokens, bench.heal)).loss - bench.before.loss
        more = bench.score(healed(bench.source, bench.tokens, bench.heal)).loss - bench.before.loss
    return Record(
        system=12, claim=LOSSES[5], paper=SURVEY,
        ours=Ours(
            value=round(loss, 4), unit="nat",
            spread=f"next tokens right {bench.before.accuracy:.1%} to {found.accuracy:.1%}; blocks from the first on: "
            + ", ".join(f"{x:.3f}" for x in every)
            + f"; {after:+.3f} after {bench.heal} steps of training, which change the whole model by {more:+.3f}",
            setting=f"loss {bench.before.loss:.3f} before; {bench.setting}",
        ),
        null=Null(value=round(mean(every), 4), what="a block drawn by lot: the mean of all"),
        bar="less than the null", holds=loss < mean(every), reproduced="other setting", reason=REASON, skipped=None,
        seconds=spent.seconds, command=command,
    )  # fmt: skip


def taught(bench: Bench, command: str) -> Record:
    """Returns what a teacher adds to a student's training."""
    from fleetcast.runtime.transforms import Distil

    with timer() as spent:
        mine = [bench.score(bench.apply(Distil(steps=bench.steps, length=64, seed=s))) for s in SEEDS[:2]]
        alone = [bench.score(bench.apply(Distil(steps=bench.steps, length=64, seed=s, weight=0.0))) for s in SEEDS[:2]]
    loss, null = mean(s.loss for s in mine), mean(s.loss for s in alone)
    share = Distil().predict_bytes(bench.source.config) / sum(
        value.numel() * value.element_size() for value in bench.source.tensors.values()
    )
    return Record(
        system=12, claim=LOSSES[6], paper=SURVEY,
        ours=Ours(
            value=round(loss, 4), unit="nat",
            spread=f"next tokens right {mean(s.accuracy for s in mine):.1%}, taught by text alone "
            f"{mean(s.accuracy for s in alone):.1%}; two seeds, "
            + ", ".join(f"{m.loss:.3f} against {a.loss:.3f}" for m, a in zip(mine, alone, strict=True)),
            setting=f"{share:.0%} of the bytes, {bench.steps} steps of 16 x 64 tokens; teacher's loss "
            f"{bench.before.loss:.3f}; {bench.setting}",
        ),
        null=Null(value=round(null, 4), what="the same student, steps and windows, on the text alone"),
        bar="less than the null", holds=loss < null, reproduced="other setting", reason=REASON, skipped=None,
        seconds=spent.seconds, command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
