"""What the tests' agents run: an allow-list, and the functions behind it."""

import hashlib
import os
import time
from pathlib import Path

ALLOW = """
kinds = ["box"]
slots = {slots}

[calls.add]
python = "tests.runtime.agents.jobs:add"
arguments = {{ a = "number", b = "number" }}

[calls.digest]
python = "tests.runtime.agents.jobs:digest"
arguments = {{ name = "text", seconds = {{ kind = "number", default = 0.0 }} }}

[calls.steps]
python = "tests.runtime.agents.jobs:steps"
arguments = {{ count = "whole" }}

[calls.fail]
python = "tests.runtime.agents.jobs:fail"
arguments = {{ times = "whole", at = "path" }}

[calls.write]
python = "tests.runtime.agents.jobs:write"
arguments = {{ at = "path", seconds = "number" }}

[calls.deaf]
python = "tests.runtime.agents.jobs:deaf"
arguments = {{ seconds = "number" }}

[calls.die]
python = "tests.runtime.agents.jobs:die"

[calls.huge]
python = "tests.runtime.agents.jobs:huge"

[calls.big]
python = "tests.runtime.agents.jobs:big"

[calls.strange]
python = "tests.runtime.agents.jobs:strange"

[calls.say]
command = ["echo", "{{word}}"]
arguments = {{ word = "text" }}

[calls.wait]
command = ["sleep", "{{seconds}}"]
arguments = {{ seconds = "number" }}

[calls.false]
command = ["false"]
"""


def add(a, b):
    return a + b


def digest(name, seconds, *, inputs, stopped):
    """What a task makes of what was made before it: equal only if order and data are right."""
    stopped(seconds)
    made = hashlib.sha256(name.encode())
    for parent in sorted(inputs):
        made.update(f"{parent}={inputs[parent]}".encode())
    return made.hexdigest()


def steps(count, *, progress):
    print("not a message")
    for i in range(count):
        progress({"step": i})
    return count


def fail(times, at):
    """Fails so many times, then does well; counts in a file."""
    count = note(at, "try").count("try")
    if count <= times:
        raise RuntimeError(f"no luck {count}")
    return count


def write(at, seconds, *, stopped):
    """Writes begin and end into a file: two of them at once would be seen."""
    note(at, "begin")
    if stopped(seconds):
        note(at, "stop")
        return None
    note(at, "end")
    return "done"


def note(at, what):
    with Path(at).open("a+", encoding="ascii") as file:
        file.write(f"{what} {os.getpid()} {time.monotonic()}\n")
        file.flush()
        file.seek(0)
        return file.read()


def deaf(seconds):
    time.sleep(seconds)


def die():
    os._exit(1)


def huge():
    return "x" * (2 << 20)


def big():
    return "x" * 600_000


def strange():
    return object()
