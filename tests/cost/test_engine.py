"""Engine profiles: names and versions find them, every figure has a source and a sane size."""

from __future__ import annotations

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build
from fleetcast.cost.engine import Engine, engine, engines
from fleetcast.policy import batch, memory
from fleetcast.policy.order import requests as order


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("vllm-0.6", "vllm-0.6"), ("vllm-0.6.3.post1", "vllm-0.6"), ("vllm-0.8.0", "vllm-1"), ("vllm-0.11.2", "vllm-1"),
        ("vllm_1", "vllm-1"), ("VLLM", "vllm-1"), ("vllm v0.18.0", "vllm-1"), ("vllm-nightly", "vllm-1"),
        ("trtllm-1.0.0rc3", "trtllm"), ("trtllm-gpt-oss-dev", "trtllm"), ("TensorRT-LLM 1.1.0rc2.post2", "trtllm"),
        ("sglang-0.5.9", "sglang"), ("ideal", "ideal"),
    ],
)  # fmt: skip
def test_names_and_versions_find_their_profile(name: str, profile: str) -> None:
    assert engine(name).id == profile


@pytest.mark.parametrize("name", ["vlm-1", "", "vllm-", "xdev", "orca-dev"])
def test_an_unknown_engine_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(SpecError, match=r"plan\.engine: is unknown.*vllm-1"):
        engine(name)


@pytest.mark.parametrize("p", engines().values(), ids=lambda p: p.id)
def test_a_profile_is_sourced_physical_and_builds_its_policies(p: Engine) -> None:

    assert p.source
    assert 0.5 <= p.memory_fraction <= 1.0
    for host in p.host.values():
        assert 0 <= host.step < 0.02
        assert 0 <= host.seq < 1e-3
        assert 0 <= host.eager < 1e-3
        assert 0 <= host.api < 0.2
    for space, table in ((batch, p.batch), (order, p.order), (memory, p.memory)):
        assert build(space, table, "plan").kind == table["kind"]


def test_a_measured_host_goes_over_the_profile_s_own() -> None:
    own = engine("fleetcast")
    found = own.host_on("desk", {"fleetcast": {"step": 1e-3, "seq": 2e-5}, "vllm-1": {"step": 9.0}})
    assert (found.step, found.seq, found.api) == (1e-3, 2e-5, own.host["default"].api)
    assert own.host_on("desk", {}) == own.host_on("desk") == own.host["default"]
    with pytest.raises(SpecError, match=r"coefficients\.host\.fleetcast"):
        own.host_on("desk", {"fleetcast": {"stride": 1e-3}})
