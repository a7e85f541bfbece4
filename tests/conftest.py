"""Shared by all tests: deterministic property tests, the gpu marker, where measured data lies."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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
def twins() -> Callable[[str], tuple[ModuleType, ModuleType]]:
    """Loads a hot loop in both forms: compiled, and its .py source without Cython.

    Where the compiled form is absent the test is skipped; under .ci/run, which sets
    FLEETCAST_REQUIRE_COMPILED, that is a failure instead.
    """

    def load(name: str) -> tuple[ModuleType, ModuleType]:
        compiled = importlib.import_module(name)
        folder = Path(str(importlib.import_module(name.rpartition(".")[0]).__path__[0]))
        plain = _load_source(f"{name}_plain", folder / f"{name.rpartition('.')[2]}.py")
        if str(compiled.__file__).endswith(".py"):
            if os.environ.get("FLEETCAST_REQUIRE_COMPILED") == "1":
                pytest.fail(f"{name} was not compiled")
            pytest.skip(f"{name} was not compiled")
        return compiled, plain

    return load


def _load_source(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    cython = sys.modules.get("cython")
    sys.modules["cython"] = None
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["cython"]
        if cython is not None:
            sys.modules["cython"] = cython
    return module
