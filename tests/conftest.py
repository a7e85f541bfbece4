"""Shared by all tests: deterministic property tests, the gpu marker, where measured data lies."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.records import data_root

settings.register_profile(
    "fleetcast",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fleetcast")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if all(item.get_closest_marker("gpu") is None for item in items):
        return
    skip = _gpu_absent()
    for item in items:
        if skip and item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason=skip))


def _gpu_absent() -> str:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else "no CUDA device"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def measured() -> Path:
    """The folder of measured data; the test is skipped where it is absent."""
    found = data_root()
    if found is None:
        pytest.skip("measured data is absent: set FLEETCAST_DATA")
    return found


@pytest.fixture(scope="session")
def require_compiled() -> bool:
    """Whether a hot loop that was not compiled is a failure (set by .ci/run only)."""
    return os.environ.get("FLEETCAST_REQUIRE_COMPILED") == "1"
