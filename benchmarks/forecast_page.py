"""Records the terminal sessions and the picture of docs/calibrate.md: run, compare and calibrate on this machine.

``python -m benchmarks.forecast_page --profile PROFILE`` runs the page's own scenario with a profile of `fleetcast
measure`, and puts what the commands print between ``<!-- recorded:NAME -->`` and ``<!-- /recorded -->``. It takes about
twenty seconds; record it while nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.forecast_run import inputs
from benchmarks.records import ROOT
from fleetcast.base.host import cores

PAGE = ROOT / "docs" / "calibrate.md"
PICTURE = ROOT / "docs" / "images" / "terms.svg"
WIDTH = 88
_BLOCK = re.compile(r"<!-- recorded:([\w-]+) -->(.*?)<!-- /recorded -->", re.DOTALL)
SESSIONS = {
    "run": ("run here.toml --out measured",),
    "compare": (
        "simulate measured/plan.toml --out forecast",
        "compare forecast/outcome.json measured/outcome.json --plot terms.svg",
    ),
    "calibrate": (
        "run here.toml --seed 1 --out again", "calibrate measured again --out calibrated.toml",
    ),
}  # fmt: skip
"""Commands of each session, one after the other; of all but the last only the first line's place is shown."""


def sessions(folder: Path, threads: int) -> dict[str, str]:
    """Returns what the sessions print, run in ``folder``, which holds the scenario."""
    env = {"COLUMNS": str(WIDTH), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": str(threads)}
    found = {}
    for name, commands in SESSIONS.items():
        lines = []
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "fleetcast", *command.split()], cwd=folder, capture_output=True, text=True,
                check=True, env=os.environ | env,
            )  # fmt: skip
            shown = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
            lines += [f"$ fleetcast {command}", *(shown if command == commands[-1] else ["..."])]
        found[name] = "\n".join(lines)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", type=Path, required=True, help="what fleetcast measure wrote")
    parser.add_argument("--threads", type=int, default=cores(), help="that it was measured with; default all cores")
    options = parser.parse_args(arguments)
    page = PAGE.read_text(encoding="utf-8")
    scenario = re.search(r'```toml title="here.toml"\n(.*?)```', page, re.DOTALL)
    assert scenario is not None, "the page shows its scenario"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "here.toml").write_text(scenario[1], encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(inputs()["models"]["small"]), encoding="utf-8")
        shutil.copy(options.profile, folder / "profile.toml")
        found = sessions(folder, options.threads)
        shutil.copy(folder / "terms.svg", PICTURE)
    PAGE.write_text(
        _BLOCK.sub(lambda m: f"<!-- recorded:{m[1]} -->\n\n```text\n{found[m[1]]}\n```\n\n<!-- /recorded -->", page),
        encoding="utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
