"""Each family against Hugging Face's implementation: tiny random models, every position, however prompts are cut."""

import numpy as np
import pytest

from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.paging import blocks_of
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import FAMILIES

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "num_hidden_layers": 3, "vocab_size": 61, "max_position_embeddings": 128, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 10_000.0,
}  # fmt: skip
MOE = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3}
CASES = {
    "llama": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "llama-yarn-mscale": ("Llama", {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 8}}),
    "mistral": ("Mistral", {"sliding_window": 9}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 12, "rope_parameters": YARN | {"truncate": False}}),
    "gemma": ("Gemma", {"head_dim": 12}),
    "gemma2": ("Gemma2", {"head_dim": 12, "sliding_window": 9, "query_pre_attn_scalar": 20}),
    "gemma2-low-caps": (
        "Gemma2", {"head_dim": 12, "sliding_window": 9, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": (
        "Gemma3", {"head_dim": 12, "sliding_window": 9, "num_hidden_layers": 7, "query_pre_attn_scalar": 20},
    ),
    "gemma3-scaled": (
        "Gemma3",
        {
            "head_dim": 12, "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
            },
        },
    ),
    "gemma3-multimodal": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": SIZES | {"head_dim": 12, "sliding_window": 9, "num_hidden_layers": 7},
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14,
            },
            "mm_tokens_per_image": 1,
        },
    ),
    "phi": ("Phi", {"partial_rotary_factor": 0.5}),
    "phi-normed": (
        "Phi",
        {
            "qk_layernorm": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75},
        },
    ),
    "phi3": ("Phi3", {"sliding_window": 9}),
    "phi3-part": ("Phi3", {"partial_rotary_factor": 0.75}),
    "gpt2": ("GPT2", {"n_inner": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2-moe": ("Qwen2Moe", MOE | {"shared_expert_intermediate_size": 20, "norm_topk_prob": False}),
    "qwen2-moe-mixed": ("Qwen2Moe", MOE | {"shared_expert_intermediate_size": 20, "decoder_sparse_step": 2}),
    "qwen3-moe": ("Qwen3Moe", MOE | {"head_dim": 12, "norm_topk_prob": True, "mlp_only_layers": [1]}),
}  # fmt: skip
CLASSES = {
    "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "Gemma3ForConditionalGeneration": ("Gemma3Config", "Gemma3ForConditionalGeneration"),
    "GPT2": ("GPT2Config", "GPT2LMHeadModel"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name, seed=0):
    """Returns a model of Hugging Face's with every tensor random: biases and norms too."""
    kind, more = CASES[name]
    config, model = CLASSES.get(kind, (f"{kind}Config", f"{kind}ForCausalLM"))
    sizes = {} if "text_config" in more else SIZES
    made = getattr(transformers, config)(**sizes | more, attn_implementation="eager")
    found = getattr(transformers, model)(made).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor_name, value in found.named_parameters():
            noise = torch.randn(value.shape, generator=draw)
            if value.ndim > 1:
                value.copy_(noise * 0.3)
            elif "norm" in tensor_name or "ln_" in tensor_name:
                value.add_(noise * 0.2)
            else:
                value.copy_(noise * 0.2)
    return found


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    """Returns both models and the tokens, and the logits that Hugging Face's gives."""
    theirs = build(request.param)
    theirs.save_pretrained(tmp_path)
    tokens = np.random.default_rng(1).integers(0, SIZES["vocab_size"], 70).tolist()
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    return open_engine(tmp_path, blocks=8).model, tokens, expected


def test_every_position_of_one_pass(pair):
    model, tokens, expected = pair
    held = [6, 1, 4, 0, 7][: blocks_of(len(tokens))]
    found = model.forward([Piece(tokens, 0, held, len(tokens))])
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-4


def test_every_position_in_pieces_and_steps(pair):
    model, tokens, expected = pair
    held, rows, start = [6, 1, 4, 0, 7], [], 0
    for size in (17, 1, 1, 20, 3, 1, 26, 1):
        piece = Piece(tokens[start : start + size], start, held[: blocks_of(start + size)], size)
        beside = Piece(tokens[:1], 0, [5], 1)  # another sequence in the same pass
        rows.append(model.forward([piece, beside]))
        start += size
    assert start == len(tokens)
    assert max(np.abs(r[-1] - expected[0]).max() for r in rows) < 1e-4
    assert np.abs(np.concatenate([r[:-1] for r in rows]) - expected).max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_bf16_is_as_close_as_theirs(name, tmp_path):
    """Both against fp32 with the same weights. In bf16 a router's near ties fall either way, hence the factor."""
    place, factor = ("cuda", 3.0) if torch.cuda.is_available() else ("cpu", 1.5)
    theirs = build(name).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    theirs = theirs.to(place)
    tokens = np.random.default_rng(1).integers(0, SIZES["vocab_size"], 70).tolist()
    with torch.inference_mode():
        rough = theirs(torch.tensor([tokens], device=place)).logits[0].float().cpu().numpy()
    ours, exact = (
        open_engine(tmp_path, blocks=8, dtype=dtype).model.forward([Piece(tokens, 0, [0, 1, 2, 3, 4], 70)])
        for dtype in ("auto", "fp32")
    )
    error = np.linalg.norm(ours - exact)
    assert 1e-3 * np.linalg.norm(exact) < error < factor * np.linalg.norm(rough - exact)


def test_every_family_has_a_case():
    named = {CLASSES.get(kind, ("", f"{kind}ForCausalLM"))[1] for kind, _ in CASES.values()}
    assert named == set(FAMILIES)
