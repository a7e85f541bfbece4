"""Every example in the docs runs: `>>>` lines in public docstrings and in Markdown pages."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import fleetcast

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    found = pkgutil.walk_packages(fleetcast.__path__, "fleetcast.")
    return [m.name for m in found if not m.name.endswith("__main__")]


@pytest.mark.parametrize("module", modules())
def test_docstring_examples(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page_examples(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples run from the repository, as a reader would run them."""
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    # A closing fence right after the last line would count as expected output.
    text = "\n".join("" if line.startswith("```") else line for line in text.split("\n"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test)
    assert result.failed == 0
