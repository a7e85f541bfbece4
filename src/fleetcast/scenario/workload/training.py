"""The training workload: one model, trained on batches of sequences by the whole fleet."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec
from fleetcast.base.units import Quantity
from fleetcast.scenario.workload.blocks import Attention, Block, Ffn
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.precision import Precision
from fleetcast.scenario.workload.tensors import table, vector

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
Long = Annotated[int, msgspec.Meta(ge=1, le=10**15)]
Some = Annotated[int, msgspec.Meta(ge=0, le=100_000)]


class Shape(Spec):
    """A decoder written out, instead of a name of the catalogue: GPT's layers unless said otherwise.

    Attributes:
        layers: how many.
        hidden: elements of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; left out = heads.
        head_dim: elements of a head; left out = hidden / heads.
        ffn: inner elements of the feed-forward part, of one expert where there are experts; left out = 4 hidden, of a
            gated one 8/3 hidden in whole multiples of 256.
        vocab: rows of the embedding, before they are padded.
        gated: three projections (SwiGLU), not two with biases.
        experts: routed experts of each layer; 0 = dense.
        top_k: experts that a token visits.
        shared_ffn: inner elements of the expert that every token visits; 0 = none.
        tied: the head is the embedding.
        learned_positions: a table of positions as long as the sequence, as GPT has it.
    """

    layers: Count
    hidden: Count
    heads: Count
    kv_heads: Count | None = None
    head_dim: Count | None = None
    ffn: Count | None = None
    vocab: Count = 51200
    gated: bool = False
    experts: Some = 0
    top_k: Count = 2
    shared_ffn: Some = 0
    tied: bool = True
    learned_positions: bool | None = None

    def model(self, sequence: int, path: str = "workload.model") -> Model:
        """Returns the model of this shape.

        Args:
            sequence: tokens of a sequence: the length of a learned table of positions.
            path: where the shape stands, for errors.

        Raises:
            SpecError: heads that do not divide, or more experts visited than there are.
        """
        kv = self.kv_heads or self.heads
        for name, whole, part, word in (
            ("heads", self.hidden if self.head_dim is None else self.heads, self.heads, "hidden"),
            ("kv_heads", self.heads, kv, "heads"),
        ):
            if whole % part:
                raise SpecError(
                    f"{path}.{name}", f"does not divide {word}", value=part, limit=f"a divisor of {whole}",
                    hint="Or write head_dim" if name == "heads" else "Each group of heads shares one",
                )  # fmt: skip
        if self.experts and self.top_k > self.experts:
            raise SpecError(
                f"{path}.top_k", "is more than there are experts", value=self.top_k, limit=f"at most {self.experts}"
            )
        wide = self.ffn or (-(-8 * self.hidden // (3 * 256)) * 256 if self.gated else 4 * self.hidden)
        plain = not self.gated
        block = Block(
            attention=Attention(
                heads=self.heads, kv_heads=kv, head_dim=self.head_dim or self.hidden // self.heads,
                bias="qkvo" if plain else "",
            ),
            ffn=Ffn(
                width=wide, gated=self.gated, bias=plain, experts=self.experts,
                top_k=self.top_k if self.experts else 0, shared_width=self.shared_ffn,
            ),
            norms=4 if plain else 2,
        )  # fmt: skip
        positions = plain if self.learned_positions is None else self.learned_positions
        final = vector("norm", "norm", self.hidden * (2 if plain else 1))
        extras = (table("positions", "position", sequence, self.hidden), final) if positions else (final,)
        return Model(
            id="shape", architecture="GPT2LMHeadModel" if plain else "LlamaForCausalLM", hidden=self.hidden,
            vocab=self.vocab, blocks=(block,), pattern=(0,) * self.layers, tied=self.tied, extras=extras,
            context=sequence, precision=Precision(weights="bf16"), source="the scenario",
        )  # fmt: skip


class Features(Spec):
    """What one step of one worker does, counted, instead of a model: any kind of network, of which no layer is known.

    Attributes:
        flops: of products.
        traffic: bytes of device memory that element-wise kernels move.
        weights: bytes of weights and gradients that are exchanged.
        input: bytes of samples.
    """

    flops: Annotated[float, Quantity("FLOP", low=1.0, high=1e24)]
    traffic: Annotated[float, Quantity("B", high=1e18)] = 0.0
    weights: Annotated[float, Quantity("B", high=1e18)] = 0.0
    input: Annotated[float, Quantity("B", high=1e18)] = 0.0


class Training(Spec):
    """Batches of sequences for one model, or the steps of a job that is known by what it does.

    Attributes:
        model: catalogue name, path of a Hugging Face config.json, or a shape.
        features: instead of a model: what a step does; then ``plan.placement`` says where weights travel.
        kind: "training".
        sequence: tokens of a sequence.
        batch: sequences of an iteration, all devices together; needed with a model.
        tokens: to train on in all; gives the length of the job.
        steps: iterations in all, instead of tokens.
    """

    model: str | Shape = ""
    features: Features | None = None
    batch: Count = 1
    kind: str = "training"
    sequence: Count = 2048
    tokens: Long | None = None
    steps: Count | None = None

    def iterations(self) -> int | None:
        """Returns the iterations of the whole job, or None where its length is not said.

        Raises:
            SpecError: both tokens and steps.
        """
        if self.tokens is not None and self.steps is not None:
            raise SpecError(
                "workload.steps", "stands beside workload.tokens", value=self.steps,
                limit="one of them says the length", hint="Leave one out",
            )  # fmt: skip
        if self.tokens is None:
            return self.steps
        return -(-self.tokens // (self.batch * self.sequence))
