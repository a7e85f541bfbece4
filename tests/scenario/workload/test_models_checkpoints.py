"""The catalogue counts what the published checkpoints hold.

`PUBLISHED` are counts that others published: the Hub's own count of a repository's safetensors (its
API's `safetensors.total`, FP8 scales left out), or a model card or paper. `CONSTRUCTED` are counts
of the model class of Hugging Face transformers 5.23 built from the same config.json on the meta
device, for checkpoints without a published count. All others were compared with that too when the
catalogue was made, and were equal to the last parameter.
"""

import pytest

from fleetcast.scenario.workload.catalog import entries, model

SC21 = "Narayanan and others, SC 2021, arXiv 2104.04473, table 1"
HUB = "Hugging Face Hub, safetensors.total of "

PUBLISHED = {
    "llama-2-7b": (6_738_415_616, HUB + "meta-llama/Llama-2-7b-hf"),
    "llama-2-13b": (13_015_864_320, HUB + "meta-llama/Llama-2-13b-hf"),
    "llama-2-70b": (68_976_648_192, HUB + "meta-llama/Llama-2-70b-hf"),
    "llama-3.1-8b": (8_030_261_248, HUB + "meta-llama/Llama-3.1-8B"),
    "llama-3.1-70b": (70_553_706_496, HUB + "meta-llama/Llama-3.1-70B"),
    "llama-3.1-405b": (405_853_388_800, HUB + "meta-llama/Llama-3.1-405B (8 KV heads)"),
    "llama-3.2-1b": (1_235_814_400, HUB + "meta-llama/Llama-3.2-1B"),
    "llama-3.2-3b": (3_212_749_824, HUB + "meta-llama/Llama-3.2-3B"),
    "mistral-7b": (7_241_732_096, HUB + "mistralai/Mistral-7B-v0.1"),
    "mistral-large-2407": (122_610_069_504, HUB + "mistralai/Mistral-Large-Instruct-2407"),
    "mixtral-8x7b": (46_702_792_704, HUB + "mistralai/Mixtral-8x7B-v0.1"),
    "mixtral-8x22b": (140_620_634_112, HUB + "mistralai/Mixtral-8x22B-v0.1"),
    "qwen3-8b": (8_190_735_360, HUB + "Qwen/Qwen3-8B"),
    "qwen3-32b": (32_762_123_264, HUB + "Qwen/Qwen3-32B"),
    "qwen3-30b-a3b": (30_532_122_624, HUB + "Qwen/Qwen3-30B-A3B"),
    "qwen3-235b-a22b": (235_093_634_560, HUB + "Qwen/Qwen3-235B-A22B"),
    "gpt-oss-20b": (20.91e9, "gpt-oss model card (arXiv 2508.10925), table 1"),
    "gpt-oss-120b": (116.83e9, "gpt-oss model card (arXiv 2508.10925), table 1"),
    "deepseek-v3": (671.0e9, "DeepSeek-V3 model card: 671B main model, MTP apart"),
    "deepseek-r1": (671.0e9, "DeepSeek-R1 model card: 671B"),
    "minimax-m2": (228_689_764_864, HUB + "MiniMaxAI/MiniMax-M2.7, the same shape"),
    "kimi-k2": (1_026_408_232_448, HUB + "moonshotai/Kimi-K2-Instruct"),
    "glm-5": (743_911_218_432, "parameter count that Fireworks AI lists for GLM-5; card: 744B"),
    "glm-4.5": (352_797_829_024, "parameter count that Fireworks AI lists for GLM-4.5"),
    "qwen3-next-80b-a3b": (79_674_391_296, HUB + "Qwen/Qwen3-Coder-Next, the same shape, no MTP"),
    "qwen3.5-397b-a17b": (396_346_350_336, "tensor headers of Qwen/Qwen3.5-397B-A17B, text"),
    "bloom-176b": (176_247_271_424, "BLOOM model card: 176,247,271,424 parameters"),
    "whisper-large-v3": (1_543_490_560, HUB + "openai/whisper-large-v3"),
    "gemma-2-9b": (9_241_705_984, HUB + "google/gemma-2-9b"),
    "gemma-2-27b": (27_227_128_320, HUB + "google/gemma-2-27b"),
    "phi-3-mini": (3_821_079_552, HUB + "microsoft/Phi-3-mini-4k-instruct"),
    "phi-4": (14_659_507_200, HUB + "microsoft/phi-4"),
    "gpt-j-6b": (6_053_381_344, "GPT-J model card: 6,053,381,344"),
    "gpt-neox-20b": (20_554_567_680, "GPT-NeoX-20B model card: 20,554,567,680"),
    **{f"megatron-{n}b": (n * 1e9, SC21) for n in (1.7, 3.6, 7.5, 18.4, 39.1, 76.1, 145.6, 310.1)},
    "megatron-530b": (529.6e9, SC21),
    "megatron-1t": (1008.0e9, SC21),
    "megatron-22b": (22e9, "Korthikanti and others, MLSys 2023, arXiv 2205.05198"),
    "gpt3-175b": (175e9, "Korthikanti and others, MLSys 2023, arXiv 2205.05198"),
    **{
        f"mpt-{size}": (count, "LLM Foundry, benchmark tables, NumParams at 2,048 tokens")
        for size, count in {
            "125m": 125_311_488,
            "350m": 355_985_408,
            "760m": 760_470_528,
            "1b": 1_315_950_592,
            "3b": 2_651_837_440,
            "7b": 6_658_859_008,
            "13b": 12_853_954_560,
            "30b": 29_975_214_080,
            "70b": 64_862_437_376,
        }.items()
    },
}

CONSTRUCTED = {
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "opt-30b": 29_974_540_288,
    "opt-66b": 65_719_701_504,
    "t5-11b": 11_307_321_344,
    "falcon-7b": 6_921_720_704,
    "falcon-40b": 41_303_293_952,
    "gemma-7b": 8_537_680_896,
    "gpt2": 124_439_808,
    "phi-2": 2_779_683_840,
    "deepseek-v2-lite": 15_706_484_224,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-14b": 14_768_307_200,
    "mistral-7b-v0.3": 7_248_023_552,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "kimi-k2-thinking": 1_026_408_232_448,
    "deepseek-v3": 671_026_419_200,
    "gpt-oss-120b": 116_829_156_672,
}


@pytest.mark.parametrize(("id", "count", "source"), [(k, *v) for k, v in PUBLISHED.items()])
def test_parameters_are_the_published_count(id: str, count: float, source: str) -> None:
    printed = 5e7 if source is SC21 else 0.0  # half of the last digit that the table prints
    assert model(id).params() == pytest.approx(count, rel=5e-3, abs=printed), source


ROUNDED = {"gpt-oss-20b", "gpt-oss-120b", "deepseek-v3", "deepseek-r1"}
ROUNDED |= {id for id in PUBLISHED if id.startswith(("megatron", "gpt3"))}
OTHERWISE_COUNTED = {"gpt-j-6b"}  # its card counts 2.5 million more than its checkpoint holds: 0.04 %


@pytest.mark.parametrize("id", sorted(set(PUBLISHED) - ROUNDED - OTHERWISE_COUNTED))
def test_where_the_published_count_is_exact_so_are_we(id: str) -> None:
    assert model(id).params() == PUBLISHED[id][0]


@pytest.mark.parametrize(("id", "count"), CONSTRUCTED.items())
def test_parameters_are_those_of_the_model_class(id: str, count: int) -> None:
    assert model(id).params() == count


def test_every_catalogue_model_is_counted_here() -> None:
    uncounted = set(entries()) - set(PUBLISHED) - set(CONSTRUCTED)
    assert uncounted == {"gemma-3-27b", "kimi-k2.5", "flan-t5-xl"}, "see the tests below"


@pytest.mark.parametrize(
    ("id", "vision", "all_of_it"),
    [
        ("gemma-3-27b", 423_060_336, 27_432_406_640),
        ("kimi-k2.5", 471_143_920, 1_026_879_376_368),
        ("qwen3.5-397b-a17b", 456_010_480, 396_346_350_336 + 456_010_480),
    ],
)
def test_vision_towers_are_counted_apart(id: str, vision: int, all_of_it: int) -> None:
    """Sources: the Hub's safetensors.total of google/gemma-3-27b-it; the others' tensor headers."""
    found = model(id)
    assert found.vision_params == vision
    assert found.params() + vision == all_of_it


def test_untied_t5_holds_a_head_of_its_own() -> None:
    """Hub, safetensors.total of google/flan-t5-xl: 2,849,757,184."""
    assert model("flan-t5-xl").params() == 2_849_757_184


@pytest.mark.parametrize(
    ("id", "count", "tolerance"),
    [
        ("deepseek-v3", 11.5e9, 0.02),  # DeepSeek-V3 README_WEIGHTS: 11.5B unique of the 14B
        ("qwen3.5-397b-a17b", 6_595_568_128, 0),  # tensor headers of the checkpoint
        ("minimax-m2", 0, 0),  # config.json says use_mtp, the checkpoint has none
        ("llama-3.1-70b", 0, 0),
    ],
)
def test_mtp_layers_are_counted_apart(id: str, count: float, tolerance: float) -> None:
    assert model(id).mtp_params == pytest.approx(count, rel=tolerance, abs=0)


@pytest.mark.parametrize(
    ("id", "billions", "source"),
    [
        ("gpt-oss-120b", 5.13, "gpt-oss model card, table 1 (embedding not counted, head counted)"),
        ("gpt-oss-20b", 3.61, "gpt-oss model card, table 1"),
        ("deepseek-v3", 36.6, "DeepSeek-V3 README_WEIGHTS: 36.6B with head, without embedding"),
        ("kimi-k2", 32, "Kimi K2 model card: 32B"),
        ("qwen3-235b-a22b", 22, "Qwen3 model card: 22B"),
        ("qwen3-30b-a3b", 3.3, "Qwen3 model card: 3.3B with the embedding of 0.3B"),
        ("mixtral-8x7b", 12.9, "Mixtral paper: 13B"),
        ("mixtral-8x22b", 39, "Mixtral 8x22B announcement: 39B"),
        ("glm-5", 40, "GLM-5 model card: 40B"),
        ("minimax-m2", 10, "MiniMax-M2 model card: 10B"),
        ("qwen3.5-397b-a17b", 17, "Qwen3.5 model card: 17B with the embedding of 1.0B"),
    ],
)
def test_active_parameters_are_the_published_ones(id: str, billions: float, source: str) -> None:
    active, embedding = model(id).active_params() / 1e9, model(id).vocab * model(id).hidden / 1e9
    near = min((active, active + embedding), key=lambda found: abs(found - billions))
    assert near == pytest.approx(billions, rel=0.05), source


@pytest.mark.parametrize(
    ("id", "size", "tolerance", "source"),
    [
        (
            "kimi-k2",
            1_029_173_256_720,
            1e-5,
            "bytes of its tensors: fp8, fp32 scales",
        ),
        ("kimi-k2-thinking", 594_205_920_512, 1e-5, "the same: int4 experts, bf16 scales per 32"),
        ("kimi-k2.5", 595_148_192_736, 1e-5, "the same with its vision tower"),
        ("qwen3-235b-a22b", 470_187_269_120, 0, "total_size in its safetensors index"),
        ("llama-3.1-405b", 811_706_777_600, 0, "two bytes a parameter"),
        ("gpt-oss-120b", 65.25e9, 5e-3, "65.2 GB of safetensors on the Hub: mxfp4 experts"),
        ("gpt-oss-20b", 13.76e9, 5e-3, "13.8 GB of safetensors on the Hub"),
    ],
)
def test_bytes_of_weights_are_the_checkpoint_s(id: str, size: float, tolerance: float, source: str) -> None:
    assert model(id).weight_bytes() == pytest.approx(size, rel=tolerance, abs=0), source
