"""Allow-lists: what an agent will run, and what nobody can make it run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.runtime.agents.allowed import (
    Argument,
    Call,
    Refused,
    call_of,
    checked,
    function,
    names,
    programs,
    read,
    words,
)

GOOD = """
kinds = ["camera"]
slots = 2
folder = "data"
[calls.align]
python = "statistics:mean"
arguments.data = "json"
[calls.blend]
command = ["blend", "-o", "{out}", "--level={level}", "{frame}"]
arguments = { out = "path", frame = "path", level = { kind = "whole", least = 1, most = 9, default = 3 } }
timeout = 5
"""


def written(tmp_path, text):
    path = tmp_path / "allow.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_is_read_and_its_folder_lies_beside_it(tmp_path):
    found = read(written(tmp_path, GOOD))
    assert (found.kinds, found.slots, found.folder) == (("camera",), 2, str(tmp_path / "data"))
    assert names(found) == ["sleep", "spin", "align", "blend"]
    assert function(call_of(found, "align").python)[0]([1, 3]) == 2
    call = call_of(found, "blend")
    arguments = checked(call, {"out": "a/b.png", "frame": "c.png"}, found.folder)
    assert words(call, arguments) == ["blend", "-o", f"{found.folder}/a/b.png", "--level=3", f"{found.folder}/c.png"]
    assert names(read(None)) == ["sleep", "spin"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[calls.sleep]\npython = 'a:b'", "everyone's already"),
        ("[calls.x]", "neither or both"),
        ("[calls.x]\npython = 'a:b'\ncommand = ['b']", "neither or both"),
        ("[calls.x]\npython = 'a.b'", "names no function"),
        ("[calls.x]\npython = 'os:system; x'", "names no function"),
        ("[calls.x]\ncommand = ['{program}']\narguments.program = 'text'", "is not fixed"),
        ("[calls.x]\ncommand = ['a', '{word}']", "is said nothing of"),
        ("[calls.x]\ncommand = ['a']\narguments.word = 'text'", "stands in no word"),
        ("[calls.x]\npython = 'a:b'\narguments.inputs = 'json'", "is given by the agent"),
        ("[calls.x]\npython = 'a:b'\narguments.y = { kind = 'text', pattern = '(' }", "is no pattern"),
        ("[calls.x]\npython = 'a:b'\narguments.y = 'shell'", "arguments"),
        ("[calls.x]\npyton = 'a:b'", "Did you mean 'python'"),
        ("slots = 0", "out of range"),
        ("calls = 3", "calls"),
        ("[calls", "is not TOML"),
    ],
)
def test_lists_without_sense_are_refused_with_their_place(tmp_path, text, said):
    with pytest.raises(SpecError, match=said):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("whole", 1.5, "whole number"), ("whole", True, "whole number"), ("number", "3", "not a number"),
        ("yes_no", 1, "neither true nor false"), ("text", 3, "not text"), ("text", "a\0b", "not text"),
        ("text", "x" * 5000, "too long"), ("path", "../x", "leaves the agent's folder"),
        ("path", "/etc/passwd", "leaves the agent's folder"), ("path", "link/x", "leaves the agent's folder"),
        (Argument(kind="whole", least=1, most=9), 10, "may be 1 to 9"),
        (Argument(kind="text", pattern="[a-z]+"), "ab1", "does not match"),
        (Argument(kind="text", pattern="[a-z]+"), "ab\n", "does not match"),
        (Argument(kind="text", choices=("a", "b")), "c", "none of a, b"),
        (Argument(kind="text", most=2), "abc", "too long"), ("text", None, "is missing"),
    ],
)  # fmt: skip
def test_arguments_are_held_to_the_list(tmp_path, argument, value, said):
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(Refused, match=said):
        checked(Call(python="a:b", arguments={"x": argument}), {"x": value}, str(tmp_path))


def test_unknown_calls_and_arguments_and_functions_are_refused(tmp_path):
    with pytest.raises(Refused, match="is not in this agent's allow-list: sleep, spin"):
        call_of(read(None), "rm")
    with pytest.raises(Refused, match="is not one of x"):
        checked(Call(python="a:b", arguments={"x": "json"}), {"y": 1}, str(tmp_path))
    for python in ("no.such.module:f", "os:no_such", "os:sep"):
        with pytest.raises(Refused):
            function(python)


COMMAND = Call(command=("tool", "{a}", "--b={b}"), arguments={"a": "text", "b": "text"})


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_becomes_a_word_or_an_option_of_its_own(a, b):
    try:
        made = words(COMMAND, checked(COMMAND, {"a": a, "b": b}, "."))
    except Refused:
        assert "\0" in a + b or a.startswith("-")
        return
    assert made == ["tool", a, f"--b={b}"]
    assert not made[1].startswith("-")


def test_words_of_a_program(tmp_path):
    text = '[calls.cat]\ncommand = ["cat", "{words}"]\narguments.words = "words"\n'
    path = tmp_path / "allow.toml"
    path.write_text(text, encoding="utf-8")
    found = read(path)
    call = call_of(found, "cat")
    assert programs(found) == ["cat"]

    def line(*said):
        return words(call, checked(call, {"words": list(said)}, found.folder))

    assert line("a.txt", "sub/b.txt", "$(id); |") == ["cat", "a.txt", "sub/b.txt", "$(id); |"]
    assert words(call, checked(call, {}, found.folder)) == ["cat"]
    for said, problem in (
        ("-n", "read as an option"), ("../x", "leaves the agent's folder"), ("/etc/passwd", "leaves"),
        ("out=/etc/passwd", "leaves"), ("a:../../b", "leaves"), ("nul\0", "not text"), (3, "not text"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=problem):
            line("a", said)
    with pytest.raises(Refused, match="not a list of words"):
        checked(call, {"words": "a b"}, found.folder)
    path.write_text(text.replace('= "words"', '= { kind = "words", options = true, pattern = "[-a-z]+" }'), "utf-8")
    call = call_of(read(path), "cat")
    assert line("-n", "--all", "x") == ["cat", "-n", "--all", "x"]
    with pytest.raises(Refused, match="does not match"):
        line("-o9")
    for wrong, problem in (
        ('command = ["cat", "x{words}"]\narguments.words = "words"', "several words inside one"),
        ('python = "a:b"\narguments.words = "words"', "no command takes them"),
    ):  # fmt: skip
        path.write_text(f"[calls.cat]\n{wrong}\n", encoding="utf-8")
        with pytest.raises(SpecError, match=problem):
            read(path)
