"""A smaller model of the same family, taught by the larger one what could have come next."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError, closest
from fleetcast.runtime.llm.shape import Shape, read_shape
from fleetcast.runtime.training.forward import forward
from fleetcast.runtime.training.lm import next_token, train
from fleetcast.runtime.transforms.calibrate import Tokens
from fleetcast.runtime.transforms.checkpoint import WEIGHTS, Checkpoint, model_of, plain_bytes, read
from fleetcast.scenario.workload.architectures.fields import read_config
from fleetcast.scenario.workload.catalog import entries

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Distil:
    """Trains a student on the teacher's distribution of the next token and on the text.

    The loss is ``weight`` times the divergence of the student from the teacher, both softened by ``temperature``, plus
    the rest times the cross-entropy of the text (Hinton et al., 2015).

    Args:
        layers: share of the teacher's layers, rounded up.
        hidden: share of the teacher's hidden size, to whole groups of heads; feed-forward width and heads follow.
        student: instead of those shares a model of the catalogue, or the folder of a model, whose weights are gone on
            from where it has some; its vocabulary must be the teacher's.
        steps: of training.
        batch: windows a step.
        length: tokens of a window.
        weight: of the teacher in the loss; 0 = text alone, the rule to compare with.
        temperature: that softens both.
        rate: highest learning rate.
        seed: of the student's first weights and of the windows.
    """

    kind = "distil"

    def __init__(
        self, *, layers: Share = 0.5, hidden: Share = 0.5, student: str = "", steps: Count = 200, batch: Count = 16,
        length: Count = 128, weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.9,
        temperature: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] = 1.0, rate: float = 1e-2, seed: int = 0,
    ) -> None:  # fmt: skip
        self.layers, self.hidden, self.student = layers, hidden, student
        self.steps, self.batch, self.length = steps, batch, length
        self.weight, self.temperature, self.rate, self.seed = weight, temperature, rate, seed

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the student's config.

        Raises:
            SpecError: an unknown student, or one with another vocabulary.
        """
        model = model_of(config)
        if self.student:
            return self._named(config, model.vocab)
        block = model.blocks[model.pattern[0]]
        attention = block.attention
        assert attention is not None
        groups = max(1, round(self.hidden * attention.kv_heads))
        hidden = -(-round(self.hidden * model.hidden) // 8) * 8
        after = {
            **config, "num_hidden_layers": ceil(self.layers * model.layers), "hidden_size": hidden,
            "num_key_value_heads": groups, "num_attention_heads": groups * attention.heads // attention.kv_heads,
            "head_dim": attention.head_dim, "intermediate_size": -(-round(self.hidden * block.ffn.width) // 8) * 8,
        }  # fmt: skip
        if kinds := config.get("layer_types"):
            after["layer_types"] = kinds[: after["num_hidden_layers"]]
        return after

    def _named(self, config: Mapping[str, Any], vocab: int) -> dict[str, Any]:
        if Path(self.student).is_dir():
            found = dict(read_config(self.student))
        else:
            known = entries()
            if self.student not in known:
                limit, hint = "a model of the catalogue or a folder", closest(self.student, known)
                raise SpecError("distil.student", "is unknown", value=self.student, limit=limit, hint=hint)
            found = dict(known[self.student].config)
        stored = {key: config[key] for key in ("torch_dtype", "dtype") if key in config}
        found = {key: value for key, value in found.items() if key not in ("torch_dtype", "dtype")} | stored
        if (said := model_of(found).vocab) != vocab:
            limit = f"the teacher's vocabulary, {vocab}"
            raise SpecError(
                "distil.student", "reads other tokens", value=said, limit=limit, hint="Choose another student"
            )
        return found

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""
        return plain_bytes(self.config(config))

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the student.

        Raises:
            SpecError: no text to learn from; the model is packed already.
        """
        if tokens is None:
            raise SpecError("distil", "needs text", limit="what student and teacher read", hint="Give --text FILE")
        source.plain("distil")
        after, taught, teacher = self.config(source.config), read_shape(source.config), source.weights()
        heat, weight = self.temperature, self.weight
        begun = read(self.student).weights() if (Path(self.student) / WEIGHTS).is_file() else None

        def loss(shape: Shape, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            if not weight:
                return next_token(shape, weights, inputs, targets)
            with torch.no_grad():
                says = forward(taught, teacher, inputs).flatten(0, 1)
            logits = forward(shape, weights, inputs).flatten(0, 1)
            apart = functional.kl_div(
                functional.log_softmax(logits / heat, -1), functional.log_softmax(says / heat, -1),
                reduction="batchmean", log_target=True,
            )  # fmt: skip
            return weight * heat**2 * apart + (1 - weight) * functional.cross_entropy(logits, targets.flatten())

        found = train(
            read_shape(after), tokens, steps=self.steps, batch=self.batch, length=self.length, rate=self.rate,
            seed=self.seed, held=tokens[:0], loss=loss, weights=begun,
        ).weights  # fmt: skip
        dtype = next(iter(source.tensors.values())).dtype
        return Checkpoint(after, {name: value.to(dtype) for name, value in found.items()}, source.companions)
