"""A model as a folder holds it: its config, its tensors, and what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError, Unsupported
from fleetcast.base.files import read_text, write_atomic
from fleetcast.runtime.transforms.forms import dense
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.architectures.fields import read_config
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.precision import BITS, LINEAR, torch_dtype
from fleetcast.scenario.workload.tensors import Tensor as Row

try:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from safetensors.torch import save as serialise
except ImportError:
    raise MissingExtra("safetensors", "torch") from None

Tensor = Any
FAMILY: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""The architectures that are transformed."""
WEIGHTS: Final = "model.safetensors"
COMPANIONS: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja",
)  # fmt: skip
STORAGE: Final = "quantization_config"
"""Key of the config that says how matrices are stored where they are not plain."""
_SPARE: Final = (".rotary_emb.inv_freq",)


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory, as it is stored.

    Attributes:
        config: the config.json.
        tensors: by the names of the file.
        companions: other files by name: the tokenizer's.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    companions: Mapping[str, bytes]

    def weights(self) -> dict[str, Tensor]:
        """Returns every tensor as plain fp32 by its Hugging Face name, whatever form it is stored in."""
        return {name: value.float() for name, value in dense(self.tensors, self.config.get(STORAGE)).items()}

    def plain(self, done: str) -> Checkpoint:
        """Returns itself, if nothing is packed.

        Raises:
            SpecError: matrices are stored in another form already; ``done`` names what was to be done to them.
        """
        if STORAGE in self.config:
            problem = f"is stored as {self.config[STORAGE].get('quant_method')} already"
            raise SpecError("checkpoint", problem, limit=f"plain matrices to {done}", hint="Apply 'unpack' first")
        return self


def read(folder: str | Path) -> Checkpoint:
    """Returns the model of a Hugging Face folder.

    Raises:
        SpecError: not such a folder, or a file that is absent or damaged. Unsupported: another family.
    """
    folder = Path(folder)
    if not folder.is_dir():
        hint = "Name the folder that holds config.json and model.safetensors"
        raise SpecError(str(folder), "is not a folder", hint=hint)
    config = dict(read_config(folder))
    kind = next(iter(config.get("architectures") or ()), None)
    if kind not in FAMILY:
        raise Unsupported(f"{folder}: {kind} is not transformed", f"Those that are: {', '.join(FAMILY)}")
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            tensors |= load_file(path)
        except (OSError, SafetensorError) as error:
            raise SpecError(str(path), f"cannot be read as safetensors: {error}", hint="Fetch it again") from None
    tied = bool(config.get("tie_word_embeddings"))
    kept = {n: t for n, t in tensors.items() if not n.endswith(_SPARE) and not (tied and n == "lm_head.weight")}
    beside = {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}
    return Checkpoint(config, kept, beside)


def _files(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file() or (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(read_text(index))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SpecError(str(index), "lists no weights", limit="weight_map, a table", hint="Fetch it again") from None
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise SpecError(str(index), "names files elsewhere", limit="files beside the index", hint="Fetch it again")
    return [folder / name for name in sorted(names)]


def write(folder: str | Path, checkpoint: Checkpoint) -> int:
    """Writes a folder, the weights last and each file whole or not at all; returns bytes of the weights' file."""
    folder = Path(folder)
    for name, content in checkpoint.companions.items():
        write_atomic(folder / name, content)
    write_atomic(folder / "config.json", json.dumps(dict(checkpoint.config), indent=2) + "\n")
    stored = {name: value.detach().contiguous().clone() for name, value in checkpoint.tensors.items()}
    return write_atomic(folder / WEIGHTS, serialise(stored, metadata={"format": "pt"})).stat().st_size


def model_of(config: Mapping[str, Any]) -> Model:
    """Returns the catalogue's view of a config whose matrices are plain."""
    return from_config({key: value for key, value in config.items() if key != STORAGE}, "config")


def stored_bytes(config: Mapping[str, Any]) -> float:
    """Returns bytes of one element as the config says plain tensors are stored."""
    return BITS[torch_dtype(config.get("torch_dtype", config.get("dtype")), "config.torch_dtype")] / 8


def rows(model: Model) -> Iterator[tuple[Row, int]]:
    """Yields every kind of tensor of a model and how many there are."""
    for block, count in zip(model.tensors, model.counts, strict=True):
        for row in block:
            yield row, count
    for row in model.tables:
        yield row, 1


def is_matrix(row: Row) -> bool:
    """Whether a tensor is one of the layers' matrices, those that are packed."""
    return row.part in LINEAR and row.inputs > 1


def plain_bytes(config: Mapping[str, Any]) -> float:
    """Returns bytes of a model whose tensors are all plain."""
    return sum(row.elements * count for row, count in rows(model_of(config))) * stored_bytes(config)


def packed_bytes(config: Mapping[str, Any], matrix: Any) -> float:
    """Returns bytes of a model whose layers' matrices take ``matrix(outputs, inputs, width)`` bytes each.

    ``width`` is that of a plain element, B; all other tensors and the biases stay plain.
    """
    width, total = stored_bytes(config), 0.0
    for row, count in rows(model_of(config)):
        if is_matrix(row):
            total += count * (matrix(row.outputs, row.inputs, width) + row.biases * width)
        else:
            total += count * row.elements * width
    return total
