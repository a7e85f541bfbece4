"""`fleetcast watch train`: a file in, findings out."""

import json

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.view.cli import main
from fleetcast.view.watched import draw_heat, read, watch_train, watch_view

HEAD = "rank,host,what,start_s,duration_s\n"


def log(path, *, slow=3, hang=40, iterations=10, ranks=64):
    draw = np.random.default_rng(0)
    lines = [HEAD]
    for rank in range(ranks):
        for i in range(iterations):
            work, last = 3.0 * np.exp(0.05 * draw.standard_normal()), i == iterations - 1
            work *= 1.1 if rank // 8 == slow else 1.0
            lines.append(f"{rank},n{rank // 8},forward,{4 * i},{work:.4f}\n")
            if last and rank == hang:
                break
            end = "" if last and hang is not None else f"{4 - work:.4f}"
            lines.append(f"{rank},n{rank // 8},all_reduce,{4 * i + work:.4f},{end}\n")
    path.write_text("".join(lines))
    return path


def test_the_slow_host_and_the_hanging_rank_are_found(tmp_path):
    found = watch_train(log(tmp_path / "log.csv"))
    assert [(f.kind, f.who) for f in found.findings] == [("hang", "rank 40 of host n5"), ("straggler", "host n3")]
    assert all(f.evidence for f in found.findings)
    assert found.hosts[0] == "n3"
    assert found.heat.shape == (8, 9)


def test_a_healthy_job_gives_no_finding_and_exit_code_0(tmp_path, capsys):
    assert main(["watch", "train", str(log(tmp_path / "log.csv", slow=-1, hang=None))]) == 0
    assert "Nothing found" in capsys.readouterr().out


def test_the_command_prints_json_and_writes_a_picture(tmp_path, capsys):
    file = log(tmp_path / "log.csv")
    assert main(["watch", "train", str(file), "--json", "--out", str(tmp_path / "out")]) == 1
    table = json.loads(capsys.readouterr().out)
    assert [f["who"] for f in table["findings"]] == ["rank 40 of host n5", "host n3"]
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == table
    assert (tmp_path / "out" / "heat.svg").read_text().count("<rect") > 8 * 9
    found = watch_train(file)
    assert "fill-opacity" in draw_heat(found)
    assert watch_view(found, 80) is not None


def test_json_rows_and_bare_steps_are_read(tmp_path):
    draw = np.random.default_rng(1)
    rows = [
        {"rank": r, "seconds": float(np.exp(0.05 * draw.standard_normal()) * (1.5 if r == 7 else 1.0))}
        for _ in range(12)
        for r in range(32)
    ]
    (tmp_path / "log.json").write_text(json.dumps({"spans": rows}))
    found = watch_train(tmp_path / "log.json")
    assert [f.who for f in found.findings] == ["rank 7"]
    assert found.iterations == 12


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("log.csv", "", "has no rows"), ("log.csv", "rnk,duration_s\n1,2\n", "is missing"),
        ("log.csv", "rank,start\n1,2\n", "is missing"), ("log.csv", "rank,seconds\n1,fast\n", "is no number"),
        ("log.csv", "rank,seconds\n1,-2\n", "is negative"), ("log.csv", HEAD + "1,a,forward,,3\n", "is missing"),
        ("log.json", "{", "is no JSON"), ("log.json", "3", "holds no list"),
        ("log.csv", "rank,seconds\n1,2\n2,2\n", "too small"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=problem):
        watch_train(tmp_path / name)


def test_a_missing_file_and_an_option_out_of_range_are_refused(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="--share"):
        watch_train(log(tmp_path / "log.csv"), share=0.0)
