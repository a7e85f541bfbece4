"""Every example in the docs runs: `>>>` lines, scenario files, and the commands of `console` blocks with their output.

A fenced block ```` ```toml title="chat.toml" ```` is a file that the page's later commands may name. In a
```` ```console ```` block a line that begins with ``$`` is run and what follows it is its output, where ``...``
stands for anything; ``; echo $?`` shows the exit code, which is 0 where it is not shown.
"""

import doctest
import importlib
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import fleetcast
from fleetcast.base.errors import MissingExtra
from fleetcast.scenario import load
from fleetcast.view.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"<!-- run:(fleetcast [^\n]+?) -->(.*?)<!-- /run -->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SMALLEST = {"fleet": {"devices": "1x h100-sxm"}, "workload": {"model": "llama-3.1-8b", "trace": "azure-conv-2023"}}


def modules() -> list[str]:
    # a package whose extra is absent is named but not entered; the test of its name says why
    found = pkgutil.walk_packages(fleetcast.__path__, "fleetcast.", onerror=lambda package: None)
    return [m.name for m in found if not m.name.endswith("__main__")]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in as a reader would: the examples are there, what is written stays there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.mark.parametrize("module", modules())
def test_docstring_examples(module: str) -> None:
    try:
        found = importlib.import_module(module)
    except MissingExtra as absent:
        pytest.skip(str(absent))
    result = doctest.testmod(found, optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_examples(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    for language, title, body in FENCE.findall(text):
        if title:
            (desk / title).parent.mkdir(parents=True, exist_ok=True)
            (desk / title).write_text(body, encoding="utf-8")
        if language == "toml" and not title:
            check_toml(body)
        if language == "console":
            run_console(body, capsys)
    # A closing fence right after the last line would count as expected output.
    text = "\n".join("" if line.startswith("```") else line for line in text.split("\n"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test)
    assert result.failed == 0


def check_toml(body: str) -> None:
    """A block that names a part of a scenario is one, together with the least that a scenario needs."""
    if not re.search(r"^\[\[?(fleet|workload|slo|objective|plan)", body, re.MULTILINE):
        return
    table = tomllib.loads(body)
    if table.get("workload", {}).get("kind") in load.WITHOUT_FLEET:
        load.load(table)
        return
    if "devices" not in table.get("fleet", {}) and "groups" not in table.get("fleet", {}):
        table["fleet"] = SMALLEST["fleet"] | table.get("fleet", {})
    if not {"model", "features", "tasks", "graph"} & set(table.get("workload", {})):
        table["workload"] = SMALLEST["workload"] | table.get("workload", {})
    load.load(table)


def run_console(body: str, capsys: pytest.CaptureFixture[str]) -> None:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        command, asked, _ = line.partition("; echo $?")
        words = shlex.split(command, comments=True)
        assert words[0] == "fleetcast", f"only fleetcast is run: {command}"
        capsys.readouterr()
        code = main(words[1:])
        said = capsys.readouterr()
        got = said.out + said.err + (f"{code}\n" if asked else "")
        assert asked or code == 0, f"{command}: exit code {code}\n{got}"
        if expected.strip():
            assert doctest.OutputChecker().check_output(expected, got, FLAGS), f"{command} said\n{got}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shown_outputs_have_the_shape_of_todays(
    page: Path, desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures move with every fit, so they are renewed by `make evidence`; sections and columns must be today's."""
    monkeypatch.setenv("COLUMNS", "84")
    for command, shown in RUN.findall(page.read_text(encoding="utf-8")):
        assert main(shlex.split(command)[1:]) == 0
        heads = [line.split() for line in capsys.readouterr().out.splitlines() if re.match(r"[A-Z][^\d:]*$", line)]
        assert heads
        known = [line.split() for line in shown.splitlines()]
        assert all(head in known for head in heads), "run: python -m benchmarks.pages --runs"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name(page)}: {target}"
        if anchor and path.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
            slugs = {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in heads}
            assert anchor in slugs, f"{name(page)}: {target}, headings {sorted(slugs)}"


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r"([\w./-]+\.md)", nav))
    assert listed == {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").glob("**/*.md")}
