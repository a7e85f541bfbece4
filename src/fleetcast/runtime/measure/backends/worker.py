"""One backend in a process of its own, since each brings threads and allocators that would disturb the others.

Reads one JSON object a line and answers with one: ``{"load": ...}``, ``{"check": ...}``, ``{"time": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.runtime.measure.backends.shapes import Shape, weights

Ids = NDArray[np.int64]
Pass = Callable[[Ids], NDArray[np.float32]]


def _eager(shape: Shape, folder: Path, threads: int) -> Pass:
    import torch

    from fleetcast.runtime.measure.backends.eager import forward

    torch.set_num_threads(threads)
    run = forward(shape, {name: torch.from_numpy(x) for name, x in weights(shape).items()})
    return _torch_pass(run)


def _compiled(shape: Shape, folder: Path, threads: int) -> Pass:
    import torch

    from fleetcast.runtime.measure.backends.eager import forward

    torch.set_num_threads(threads)
    run = forward(shape, {name: torch.from_numpy(x) for name, x in weights(shape).items()})
    return _torch_pass(torch.compile(run, dynamic=True))


def _transformers(shape: Shape, folder: Path, threads: int) -> Pass:
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    if shape.decoder:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        return _torch_pass(lambda ids: model(ids, use_cache=False).logits)
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    return _torch_pass(lambda ids: model(ids).last_hidden_state)


def _torch_pass(run: Callable[[Any], Any]) -> Pass:
    import torch

    def go(ids: Ids) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(run(torch.from_numpy(ids)).numpy(), np.float32)

    return go


def _graph(shape: Shape, folder: Path) -> str:
    from fleetcast.runtime.measure.backends.graph import write_graph

    path = folder / f"{os.getpid()}.onnx"
    write_graph(path, shape, weights(shape))
    return str(path)


def _onnxruntime(shape: Shape, folder: Path, threads: int) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(_graph(shape, folder), options, providers=["CPUExecutionProvider"])
    return lambda ids: np.asarray(session.run(["out"], {"ids": ids})[0], np.float32)


def _openvino(shape: Shape, folder: Path, threads: int) -> Pass:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    compiled = openvino.Core().compile_model(_graph(shape, folder), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda ids: np.asarray(request.infer({"ids": ids})[0], np.float32)


def _ctranslate2(shape: Shape, folder: Path, threads: int) -> Pass:
    import ctranslate2

    _words(folder, shape)
    target = folder / f"ctranslate2-{os.getpid()}"
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target))
    settings = {"device": "cpu", "compute_type": "float32", "intra_threads": threads, "inter_threads": 1}
    if shape.decoder:
        generator = ctranslate2.Generator(str(target), **settings)
        return lambda ids: np.array(generator.forward_batch(ids.tolist()), np.float32)
    encoder = ctranslate2.Encoder(str(target), **settings)
    return lambda ids: np.array(encoder.forward_batch(ids.tolist()).last_hidden_state, np.float32)


def _words(folder: Path, shape: Shape) -> None:
    """Writes a vocabulary, which the converter asks for: one word per id."""
    from tokenizers import Tokenizer, models

    names = {f"w{i}": i for i in range(shape.vocab)}
    Tokenizer(models.WordLevel(names, unk_token="w0")).save(str(folder / "tokenizer.json"))
    special = {"unk_token": "w0", "pad_token": "w0", "bos_token": "w1", "eos_token": "w2"}
    table = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(table))


BACKENDS: Final[Mapping[str, tuple[Callable[[Shape, Path, int], Pass], tuple[str, ...]]]] = {
    "torch": (_eager, ("torch",)),
    "torch.compile": (_compiled, ("torch",)),
    "transformers": (_transformers, ("torch", "transformers")),
    "onnxruntime": (_onnxruntime, ("onnx", "onnxruntime")),
    "openvino": (_openvino, ("onnx", "openvino")),
    "ctranslate2": (_ctranslate2, ("ctranslate2", "transformers", "tokenizers")),
}
"""How each backend is prepared, and the packages that it needs."""


def main() -> int:
    """Answers until its input ends."""
    run: Pass | None = None
    for line in sys.stdin:
        said = json.loads(line)
        try:
            if said["do"] == "load":
                prepare = BACKENDS[said["backend"]][0]
                run = prepare(Shape(**said["shape"]), Path(said["folder"]), said["threads"])
                answer: dict[str, Any] = {"ok": True}
            else:
                assert run is not None
                ids = np.random.default_rng(said["seed"]).integers(3, said["vocab"], said["size"])
                if said["do"] == "check":
                    np.save(said["out"], run(ids), allow_pickle=False)
                    answer = {"ok": True}
                else:
                    begin, busy = time.perf_counter(), time.process_time()
                    run(ids)
                    answer = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - busy}
        except Exception as error:  # whatever a backend raises: it is reported, and the others go on
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
