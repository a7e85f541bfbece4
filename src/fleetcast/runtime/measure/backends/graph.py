"""The passes as an ONNX graph, which onnxruntime and OpenVINO read: made of shape and weights, without an exporter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.measure.backends.shapes import Shape

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    raise MissingExtra("onnx", "backends") from None

OPSET: Final = 20
"""The first with Gelu; LayerNormalization is of 17."""


def write_graph(path: Path, shape: Shape, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes a model from ``ids`` (batch, sequence) int64 to ``out`` (batch, sequence, ``shape.outputs``)."""
    made = _Graph(weights)
    out = _decoder(made, shape) if shape.decoder else _encoder(made, shape)
    made.node("Identity", [out], "out")
    graph = helper.make_graph(
        made.nodes, shape.name,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", "sequence", shape.outputs])],
        made.tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save_model(model, str(path))


class _Graph:
    """A graph as it grows: nodes in order, and the tensors they name."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights, self.nodes, self.tensors = weights, [], []  # type: ignore[var-annotated]
        self._known: set[str] = set()

    def constant(self, name: str, values: Any) -> str:
        """Returns the name of a tensor, stored once."""
        if name not in self._known:
            self._known.add(name)
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        """Returns the name of a vector of whole numbers."""
        return self.constant("i" + "_".join(map(str, values)), np.array(values, np.int64))

    def node(self, kind: str, inputs: list[str], out: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        out = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def linear(self, x: str, name: str, bias: bool) -> str:
        """Returns x times the matrix of that name, which is stored transposed."""
        found = self.node("MatMul", [x, self.constant(f"{name}.transposed", self.weights[f"{name}.weight"].T)])
        return self.node("Add", [found, self.constant(name, self.weights[f"{name}.bias"])]) if bias else found

    def length(self) -> str:
        """Returns the sequence's length, as a vector of one number."""
        return self.node("Shape", ["ids"], start=1, end=2)

    def heads(self, x: str, heads: int, size: int) -> str:
        """Returns (batch, heads, sequence, size) of (batch, sequence, heads * size)."""
        split = self.node("Reshape", [x, self.integers(0, 0, heads, size)])
        return self.node("Transpose", [split], perm=[0, 2, 1, 3])

    def attention(self, q: str, k: str, v: str, size: int, mask: str = "") -> str:
        """Returns (batch, sequence, heads * size)."""
        scale = self.constant("scale", np.float32(size**-0.5))
        turned = self.node("Transpose", [k], perm=[0, 1, 3, 2])
        scores = self.node("MatMul", [self.node("Mul", [q, scale]), turned])
        scores = self.node("Add", [scores, mask]) if mask else scores
        mixed = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), v])
        back = self.node("Transpose", [mixed], perm=[0, 2, 1, 3])
        return self.node("Reshape", [back, self.integers(0, 0, -1)])


def _encoder(g: _Graph, shape: Shape) -> str:
    w, size = g.weights, shape.head_dim

    def norm(x: str, name: str) -> str:
        inputs = [x, g.constant(f"{name}.weight", w[f"{name}.weight"]), g.constant(f"{name}.bias", w[f"{name}.bias"])]
        return g.node("LayerNormalization", inputs, axis=-1, epsilon=shape.epsilon)

    table = w["embeddings.position_embeddings.weight"][shape.offset :] + w["embeddings.token_type_embeddings.weight"][0]
    places = g.node("Slice", [g.constant("positions", table), g.integers(0), g.length(), g.integers(0)])
    words = g.constant("words", w["embeddings.word_embeddings.weight"])
    x = norm(g.node("Add", [g.node("Gather", [words, "ids"]), places]), "embeddings.LayerNorm")
    for i in range(shape.layers):
        at = f"encoder.layer.{i}."
        q, k, v = (
            g.heads(g.linear(x, f"{at}attention.self.{name}", True), shape.heads, size)
            for name in ("query", "key", "value")
        )
        mixed = g.linear(g.attention(q, k, v, size), f"{at}attention.output.dense", True)
        x = norm(g.node("Add", [x, mixed]), f"{at}attention.output.LayerNorm")
        inner = g.node("Gelu", [g.linear(x, f"{at}intermediate.dense", True)])
        x = norm(g.node("Add", [x, g.linear(inner, f"{at}output.dense", True)]), f"{at}output.LayerNorm")
    return x


def _decoder(g: _Graph, shape: Shape) -> str:
    w, size, longest = g.weights, shape.head_dim, shape.positions
    rates = 10000.0 ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    angles = np.arange(longest, dtype=np.float32)[:, None] * rates
    turns = np.concatenate([angles, angles], axis=1)
    length, zero = g.length(), g.integers(0)
    tables = [g.constant(f.__name__, f(turns).astype(np.float32)) for f in (np.cos, np.sin)]
    cosines, sines = (g.node("Slice", [table, zero, length, zero]) for table in tables)
    # np.triu would hold (longest, longest) numbers in the file; positions are compared instead
    places = g.node(
        "Range", [g.constant("zero", np.int64(0)), g.node("Squeeze", [length, zero]), g.constant("one", np.int64(1))]
    )
    rows = g.node("Unsqueeze", [places, g.integers(1)])
    ahead = g.node("Greater", [g.node("Unsqueeze", [places, zero]), rows])
    mask = g.node("Where", [ahead, g.constant("hidden", np.float32(-1e30)), g.constant("seen", np.float32(0.0))])

    def norm(x: str, name: str) -> str:
        square = g.node("ReduceMean", [g.node("Mul", [x, x]), g.integers(-1)], keepdims=1)
        root = g.node("Sqrt", [g.node("Add", [square, g.constant("epsilon", np.float32(shape.epsilon))])])
        return g.node("Mul", [g.node("Div", [x, root]), g.constant(f"{name}.weight", w[f"{name}.weight"])])

    def rotated(x: str) -> str:
        low = g.node("Slice", [x, zero, g.integers(size // 2), g.integers(3)])
        high = g.node("Slice", [x, g.integers(size // 2), g.integers(size), g.integers(3)])
        half = g.node("Concat", [g.node("Neg", [high]), low], axis=3)
        return g.node("Add", [g.node("Mul", [x, cosines]), g.node("Mul", [half, sines])])

    def shared(x: str) -> str:
        """Repeats every key or value head for the query heads that read it."""
        times = shape.heads // shape.kv_heads
        if times == 1:
            return x
        wide = g.node("Concat", [g.node("Unsqueeze", [x, g.integers(2)])] * times, axis=2)
        batch = g.node("Shape", ["ids"], start=0, end=1)
        target = g.node("Concat", [batch, g.integers(shape.heads), length, g.integers(size)], axis=0)
        return g.node("Reshape", [wide, target])

    x = g.node("Gather", [g.constant("words", w["model.embed_tokens.weight"]), "ids"])
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        inner = norm(x, f"{at}input_layernorm")
        q, k, v = (
            g.heads(g.linear(inner, f"{at}self_attn.{name}_proj", False), heads, size)
            for name, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads))
        )
        mixed = g.attention(rotated(q), shared(rotated(k)), shared(v), size, mask)
        x = g.node("Add", [x, g.linear(mixed, f"{at}self_attn.o_proj", False)])
        inner = norm(x, f"{at}post_attention_layernorm")
        gate, up = (g.linear(inner, f"{at}mlp.{name}_proj", False) for name in ("gate", "up"))
        gated = g.node("Mul", [g.node("Mul", [gate, g.node("Sigmoid", [gate])]), up])
        x = g.node("Add", [x, g.linear(gated, f"{at}mlp.down_proj", False)])
    return g.linear(norm(x, "model.norm"), "lm_head", False)
