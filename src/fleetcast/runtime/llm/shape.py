"""What of a config.json the engine's arithmetic depends on, for the architectures that run.

`families` has a file for each family and in it a function for each class of Hugging Face's: what the class assumes
where a config.json is silent, and what its checkpoints call things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.llm.families import gemma, gpt2, llama, mixtral, phi, qwen_moe
from fleetcast.runtime.llm.families.decoder import Experts, Shape
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.architectures.fields import Fields, read_config
from fleetcast.scenario.workload.models import Model

__all__ = ["FAMILIES", "Experts", "Shape", "located", "read_shape", "shape_at"]

FAMILIES: Final[Mapping[str, Callable[[Fields, Model], Shape]]] = {
    "LlamaForCausalLM": llama.llama,
    "MistralForCausalLM": llama.llama,
    "Qwen2ForCausalLM": llama.llama,
    "Qwen3ForCausalLM": llama.llama,
    "GemmaForCausalLM": gemma.gemma,
    "Gemma2ForCausalLM": gemma.gemma2,
    "Gemma3ForCausalLM": gemma.gemma3,
    "Gemma3ForConditionalGeneration": gemma.gemma3_multimodal,
    "PhiForCausalLM": phi.phi,
    "Phi3ForCausalLM": phi.phi3,
    "GPT2LMHeadModel": gpt2.gpt2,
    "MixtralForCausalLM": mixtral.mixtral,
    "Qwen2MoeForCausalLM": qwen_moe.qwen_moe,
    "Qwen3MoeForCausalLM": qwen_moe.qwen_moe,
}
"""The reader of each architecture, by the name that config.json gives in ``architectures``."""


def read_shape(config: Mapping[str, Any] | str | Path) -> Shape:
    """Returns the shape that a Hugging Face config.json describes.

    Args:
        config: the parsed table, or the path of a config.json or of the folder that holds one.

    Raises:
        SpecError: not a config, or a field that cannot be.
        Unsupported: an architecture, quantisation, activation or rotary scaling that the engine does not run.
    """
    path = "config" if isinstance(config, Mapping) else str(config)
    table = config if isinstance(config, Mapping) else read_config(config)
    model = from_config(table, path)
    if model.architecture not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise Unsupported(f"{path}: the engine does not run {model.architecture}", f"It runs {known}")
    return FAMILIES[model.architecture](Fields(table, path), model)


def shape_at(model: str, folder: Path, path: str = "workload.model") -> Shape:
    """Returns the shape of a folder, a config.json or a catalogue model.

    Args:
        model: one of these; paths start at ``folder``.
        folder: where they start.
        path: of the key that names it, for errors.

    Raises:
        SpecError: no such model, or a field that cannot be.
        Unsupported: as `read_shape`.
    """
    named, _ = located(model, folder)
    return read_shape(named if named.exists() else catalog.config(model, path))


def located(model: str, folder: Path) -> tuple[Path, Path | None]:
    """Returns a model's path, or its name in the catalogue, and the folder of its weights, if it has any."""
    at = folder / model
    if not at.exists():
        return Path(model), None
    home = at if at.is_dir() else at.parent
    has = any(next(home.glob(pattern), None) for pattern in ("*.safetensors", "*.safetensors.index.json", "*.bin"))
    return at, home if has else None
