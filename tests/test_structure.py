"""The house keeps its shape: file sizes, names, start-up, no machine's paths."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
BANNED_FILES = {"utils.py", "util.py", "helpers.py", "helper.py", "misc.py", "common.py"}
BANNED_CLASS = re.compile(r"(Manager|Helper|Base|Impl)$|^(Abstract|Base)[A-Z]")
HEAVY = (
    "scipy", "plotly", "pandas", "pyarrow", "sklearn", "torch", "rich", "cyclopts", "httpx", "aiohttp", "jinja2",
    "tokenizers",
)  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_source_file_is_short_documented_and_well_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree) or ""
    assert text.count("\n") <= 400 or "400 lines" in docstring, "split by concern, or say why not"
    assert path.name not in BANNED_FILES, "name the file after what it holds"
    assert docstring, "say in a line what the module is for"
    classes = [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert not [c for c in classes if BANNED_CLASS.search(c)], "name the class after what it is"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_scenario_error_says_a_limit_or_a_next_step(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SpecError":
            said = {keyword.arg for keyword in node.keywords}
            assert said & {"limit", "hint"}, f"line {node.lineno}: what would be accepted, or what to do?"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_room_imports_the_front_door(path: Path) -> None:
    """`fleetcast/__init__` opens the verbs lazily: importing it from below closes a circle."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert all(alias.name != "fleetcast" for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module == "fleetcast" and node.level == 0:
            rooms = {p.name for p in (ROOT / "src/fleetcast").iterdir() if p.is_dir()}
            assert {alias.name for alias in node.names} <= rooms


def test_no_machine_paths_in_tracked_files() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile("|".join(["/" + "work/", "/" + "tmp/", "/" + "root/", "/" + "opt/"]))
    found = []
    for line in listed.stdout.splitlines():
        path = ROOT / line
        if not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{line}:{i}" for i, row in enumerate(text.split("\n"), 1) if pattern.search(row)]
    assert not found


def test_import_is_light_and_fast() -> None:
    """`import fleetcast` loads no heavy library and takes a fraction of a second of CPU time."""
    code = (
        "import sys, time; t = time.process_time(); import fleetcast; t = time.process_time() - t;"
        f"print(t, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = run.stdout.split(" ", 1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.5


def test_public_names_have_stubs() -> None:
    """`fleetcast.__init__` is lazy, its types stand in `__init__.pyi`; both list the same names."""
    package = ROOT / "src/fleetcast"
    if not (package / "__init__.pyi").exists():
        pytest.skip("the front door has no stub yet")
    import fleetcast

    stub = ast.parse((package / "__init__.pyi").read_text(encoding="utf-8"))
    names = {n.name for n in stub.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    assert set(fleetcast.__all__) <= names
