"""Quality: what share of multiple-choice questions a model answers right, whatever the order of the options.

`items` reads questions, `orders` shows their options in every order, `local` asks a model of this process and `remote`
a server, `score` judges, `costs` says what a question takes. Only `judge_folder` needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.quality.costs import Meter, watts_of
from fleetcast.runtime.measure.quality.items import Item, everyday, of_fields, read_items, with_key
from fleetcast.runtime.measure.quality.orders import KINDS, Ask, By, Orders, asks
from fleetcast.runtime.measure.quality.score import Answered, Scored, accuracy, answered, by_field, positions

__all__ = ["Quality", "Scorer", "judge", "judge_folder", "judge_url", "questions"]


class Scorer(Protocol):
    """What is asked: a model of this process, a server, or a test's own."""

    def score(self, asks: Sequence[Ask]) -> Iterable[Scored]:
        """Returns, for each ask in order, a log probability per continuation."""
        ...


@dataclass(frozen=True)
class Quality:
    """What a model answered.

    Attributes:
        model: its name, as scenarios know it.
        dtype: of its weights; "" = not known.
        orders: "cyclic", "all" or "given".
        by: "letters" or "texts".
        rows: what became of each question.
        costs: of a question asked once: s, J and how they were estimated, B; see `costs.Meter`.
        notes: what else a reader must know.
        seed: of the bootstrap.
    """

    model: str
    dtype: str
    orders: Orders
    by: By
    rows: tuple[Answered, ...]
    costs: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    seed: int = 0

    @property
    def keyed(self) -> bool:
        """Whether every question's right answer is known."""
        return all(row.item.answer >= 0 for row in self.rows)

    def table(self) -> dict[str, Any]:
        """Returns the report for JSON; ``scores`` is what a scenario's ``workload.quality`` reads."""
        found: dict[str, Any] = {
            "model": self.model, "dtype": self.dtype, "items": len(self.rows), "orders": self.orders, "by": self.by,
        }  # fmt: skip
        scores = []
        if self.keyed:
            found |= accuracy(self.rows, self.seed)
            row = {"model": self.model, "quality": found["accuracy"], "interval": found["interval"],
                   "items": len(self.rows)}  # fmt: skip
            scores = [row | ({"dtype": self.dtype} if self.dtype else {})]
        found |= {"positions": positions(self.rows), "fields": [dict(row) for row in by_field(self.rows)]}
        return found | {"costs": dict(self.costs), "notes": list(self.notes), "scores": scores}

    def answers(self) -> str:
        """Returns the answers as Mobile-MMLU's leaderboard takes them: CSV with question_id and predicted_answer."""
        lines = [f"{row.item.id},{row.letter}" for row in self.rows]
        return "\n".join(["question_id,predicted_answer", *lines, ""])

    def details(self) -> list[dict[str, Any]]:
        """Returns a row per question: score, shares picked, s, J and B of asking it once."""
        return [
            {
                "question_id": row.item.id, "field": row.item.field,
                "score": row.score if row.item.answer >= 0 else None, "picks": list(row.picks),
                "same_in_every_order": row.every >= 0, "seconds": row.seconds, "tokens": row.tokens,
                "joules": None if self.costs["watts"] is None else row.seconds * self.costs["watts"],
                "cache_bytes": row.tokens * self.costs["cache_bytes_per_token"],
            }
            for row in self.rows
        ]  # fmt: skip


def questions(
    source: str | Path | None = None, *, key: str | Path | None = None, fields: Iterable[str] = ()
) -> tuple[Item, ...]:
    """Returns the packaged questions or those of a file or folder, of some fields, with the answers of a key.

    Raises:
        SpecError: as `read_items`, `with_key` and `of_fields`.
    """
    items = everyday() if source is None else read_items(source)
    items = of_fields(items, fields)
    return items if key is None else with_key(items, key)


def judge(
    scorer: Scorer, items: Sequence[Item], *, model: str = "", dtype: str = "", orders: Orders = "cyclic",
    by: By = "letters", meter: Meter | None = None, notes: Sequence[str] = (), seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Quality:  # fmt: skip
    """Returns what a scorer answers.

    Args:
        scorer: whom to ask.
        items: the questions.
        model: its name.
        dtype: of its weights.
        orders: in which the options are shown.
        by: whether a letter is asked for, or each option's text is tried.
        meter: measures time and memory, estimates energy; default one that knows no power.
        notes: to repeat.
        seed: of the bootstrap.
        progress: told (asks answered, asks).

    Raises:
        SpecError: no questions, or unknown orders.
    """
    if orders not in KINDS:
        raise SpecError("orders", "is unknown", value=orders, limit=f"one of {', '.join(KINDS)}")
    if not items:
        raise SpecError("items", "are none", limit="at least one question")
    every = asks(tuple(items), orders, by)
    meter = meter or Meter()
    scored: list[Scored] = []
    with meter:
        for said in scorer.score(every):
            scored.append(said)
            if progress is not None:
                progress(len(scored), len(every))
    rows = tuple(answered(items, every, scored))
    return Quality(model, dtype, orders, by, rows, meter.table(rows), tuple(notes), seed)


def judge_folder(
    folder: str | Path, items: Sequence[Item], *, model: str = "", dtype: str = "auto", orders: Orders = "cyclic",
    by: By = "letters", device: str = "", seed: int = 0, progress: Callable[[int, int], None] | None = None,
) -> Quality:  # fmt: skip
    """Returns what the model of a Hugging Face folder answers, run by the engine in this process.

    Args:
        folder: config.json, safetensors and tokenizer.json; without the last a vocabulary of bytes.
        items: the questions.
        model: its name in scenarios; "" = the folder's name.
        dtype: as `open_engine` takes it.
        orders: in which the options are shown.
        by: "letters" or "texts".
        device: of the catalogue, or a profile's path: whose power is assumed; "" = this machine's processor.
        seed: of the bootstrap.
        progress: told (asks answered, asks).

    Raises:
        SpecError: what the folder or the questions lack.
        MissingExtra: torch, safetensors or tokenizers is not installed.
    """
    from fleetcast.runtime.llm import open_engine
    from fleetcast.runtime.llm.paging import blocks_of
    from fleetcast.runtime.measure.quality.local import LONGEST, TOKENS, Bytes, Local, held, words_of

    meter = Meter(watts_of(device))
    # for a pass of many short pieces, each of which may leave most of a block empty, or for one long question
    blocks = 2 * blocks_of(TOKENS) + 4 * blocks_of(LONGEST)
    engine = open_engine(folder, blocks=blocks, dtype=dtype)
    words = words_of(folder, engine.model.vocab)
    cache = getattr(engine.model, "cache", None)
    meter.weights, meter.cache_token = held(engine.model, cache), held(cache) / (blocks * 16)
    notes = ["no tokenizer.json: text is read as bytes"] if isinstance(words, Bytes) else []
    scorer = Local(engine.model, words, blocks=blocks, mean=by == "texts")
    name, kept = model or Path(folder).resolve().name, _dtype(engine.model) if dtype == "auto" else dtype
    return judge(
        scorer, items, model=name, dtype=kept, orders=orders, by=by, meter=meter, notes=notes, seed=seed,
        progress=progress,
    )  # fmt: skip


def judge_url(
    url: str, items: Sequence[Item], *, served: str = "", model: str = "", dtype: str = "", orders: Orders = "cyclic",
    device: str = "", timeout: float = 60.0, key_env: str = "", seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Quality:  # fmt: skip
    """Returns what a server's model answers, asked for one token at a time.

    Args:
        url: of a server with OpenAI's ``/v1/completions``.
        items: the questions.
        served: the server's name for the model; "" = the only one it lists.
        model: its name in scenarios; "" = the server's.
        dtype: of its weights, as scenarios name it; "" = not known.
        orders: in which the options are shown.
        device: that it runs on; its highest power is then assumed, an upper bound. "" = energy is not estimated.
        timeout: s for an answer.
        key_env: environment variable with the key; "" = OPENAI_API_KEY, which may be unset.
        seed: of the bootstrap.
        progress: told (asks answered, asks).

    Raises:
        SpecError: no such server, or what it answers is no completion.
        MissingExtra: httpx is absent.
    """
    from dataclasses import replace

    from fleetcast.runtime.measure.quality.remote import Remote
    from fleetcast.runtime.replay import Server, address, key_of
    from fleetcast.runtime.replay.client import chosen

    meter = Meter(watts_of(device, remote=True) if device else None)
    note = "asked over HTTP: seconds are those of a whole answer of one token, one at a time"
    with Remote(Server(address(url), served, key_of(key_env), timeout)) as remote:
        name = chosen(served, remote.models(), remote.server.url, model)
        remote.server = replace(remote.server, model=name)
        return judge(
            remote, items, model=model or name, dtype=dtype, orders=orders, meter=meter, notes=[note], seed=seed,
            progress=progress,
        )  # fmt: skip


def _dtype(model: Any) -> str:
    """Returns the dtype of a model's embedding, as plans name it."""
    name = str(getattr(getattr(model, "embedding", None), "dtype", ""))
    return {"torch.float32": "fp32", "torch.bfloat16": "bf16"}.get(name, "")
