"""Traces from files of every format, and the message for every way in which one can be wrong."""

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.scenario.workload.readers import read_file
from fleetcast.scenario.workload.requests import Requests
from fleetcast.scenario.workload.traces import read

HEAD = "arrival_s,prompt_tokens,output_tokens\n"
ROWS = "0.5,100,20\n1.25,200,30\n"


def write(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def columns(found: Requests) -> tuple[list[float], list[int], list[int]]:
    return found.arrival.tolist(), found.prompt.tolist(), found.output.tolist()


EXPECTED = ([0.5, 1.25], [100, 200], [20, 30])


@pytest.mark.parametrize(
    "text",
    [
        HEAD + ROWS,
        HEAD + ROWS.rstrip("\n"),
        (HEAD + ROWS).replace("\n", "\r\n"),
        (HEAD + ROWS).replace("\n", "\r"),
        "\ufeff" + HEAD + ROWS,
        "\n\n" + HEAD + "\n" + ROWS + "\n\n",
        (HEAD + ROWS).replace(",", ";"),
        (HEAD + ROWS).replace(",", "\t"),
        'arrival_s,"prompt_tokens","output_tokens"\n"0.5","100","20"\n1.25,"200",30\n',
        "Arrival_S, Prompt_Tokens , OUTPUT_TOKENS\n0.5, 100, 20\n1.25, 200, 30\n",
        'text,output_tokens,prompt_tokens,arrival_s\n"a, ""b""\nc",20,100,0.5\nd,30,200,1.25\n',
        HEAD + "0.5,100.0,2e1\n1.25,200,30\n",
        "num_prefill_tokens,num_decode_tokens,arrived_at,pd_ratio\n100,20,0.5,5\n200,30,1.25,6.7\n",
    ],
)
def test_csv_in_every_dress(tmp_path: Path, text: str) -> None:
    assert columns(read_file(write(tmp_path, text))) == EXPECTED


def test_gzip_is_seen_by_its_content(tmp_path: Path) -> None:
    packed = gzip.compress((HEAD + ROWS).encode())
    assert columns(read_file(write(tmp_path, packed, "trace.csv.gz"))) == EXPECTED
    assert columns(read_file(write(tmp_path, packed, "trace.csv"))) == EXPECTED


def test_azure_times_count_from_the_first_request(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    found = read_file(write(tmp_path, text))
    assert found.arrival.tolist() == [0.0, 4.314579]
    zoned = text.replace("00,3", "00+00:00,3").replace("90,3", "90+00:00,3")
    assert read_file(write(tmp_path, zoned)).arrival.tolist() == [0.0, 4.314579]


def test_vidur_without_times_waits_for_arrivals(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "num_prefill_tokens,num_decode_tokens\n100,20\n"))
    assert not found.timed
    assert found.arrival.tolist() == [0.0]


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.txt"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    text = (
        '{"arrival_s": 0.5, "prompt_tokens": 100, "output_tokens": 20, "note": [1]}\n\n'
        '{"output_tokens": 30, "prompt_tokens": 200, "arrival_s": 1.25}\n'
    )
    assert columns(read_file(write(tmp_path, text, name))) == EXPECTED


def test_apex_json_lines_count_nanoseconds(tmp_path: Path) -> None:
    text = (
        '{"ContextTokens": 100, "GeneratedTokens": 20, "StartTimeOffset": 500000000}\n'
        '{"ContextTokens": 200, "GeneratedTokens": 30, "StartTimeOffset": 1250000000}\n'
    )
    assert columns(read_file(write(tmp_path, text, "t.jsonl"))) == EXPECTED


def test_azure_json_lines(tmp_path: Path) -> None:
    text = (
        '{"TIMESTAMP": "2023-11-16T18:15:46Z", "ContextTokens": 100, "GeneratedTokens": 20}\n'
        '{"TIMESTAMP": "2023-11-16T18:15:47Z", "ContextTokens": 200, "GeneratedTokens": 30}\n'
    )
    assert read_file(write(tmp_path, text, "t.jsonl")).arrival.tolist() == [0.0, 1.0]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    data = {"arrival_s": [0.5, 1.25], "prompt_tokens": [100, 200], "output_tokens": [20.0, 30.0]}
    pq.write_table(pa.table(data), tmp_path / "t.parquet")
    assert columns(read_file(tmp_path / "t.parquet")) == EXPECTED
    stamps = np.array(["2023-11-16T00:00:00.5", "2023-11-16T00:00:01.25"], dtype="datetime64[us]")
    azure = {"TIMESTAMP": stamps, "ContextTokens": [100, 200], "GeneratedTokens": [20, 30]}
    pq.write_table(pa.table(azure), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").arrival.tolist() == [0.0, 0.75]
    data["prompt_tokens"] = [100, -2]
    pq.write_table(pa.table(data), tmp_path / "bad.parquet")
    with pytest.raises(SpecError, match=r"bad\.parquet, row 2, column prompt_tokens"):
        read_file(tmp_path / "bad.parquet")
    with pytest.raises(SpecError, match="cannot be read as Parquet"):
        read_file(write(tmp_path, b"PAR1 and then nothing", "cut.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"fleetcast\[data\]"):
        read_file(write(tmp_path, b"PAR1", "t.parquet"))


def test_sessions_are_numbered_in_order_of_appearance(tmp_path: Path) -> None:
    head = "arrival_s,prompt_tokens,output_tokens,session,prefix_tokens\n"
    text = head + "0,10,1,bob,0\n1,20,1,,0\n2,30,1,amy,5\n3,40,1,bob,11\n"
    found = read_file(write(tmp_path, text))
    assert found.session is not None
    assert found.prefix is not None
    assert found.session.tolist() == [0, -1, 1, 0]
    assert found.prefix.tolist() == [0, 0, 5, 11]
    with pytest.raises(SpecError, match=r"line 5, column prefix_tokens: is longer .* at most 40"):
        read_file(write(tmp_path, text.replace("bob,11", "bob,41")))


def test_unsorted_arrivals_are_sorted_stably_and_noted(tmp_path: Path) -> None:
    text = HEAD + "3,1,1\n1,2,1\n3,3,1\n1,4,1\n"
    found = read_file(write(tmp_path, text))
    assert found.arrival.tolist() == [1, 1, 3, 3]
    assert found.prompt.tolist() == [2, 4, 1, 3]
    assert "sorted by arrival" in found.notes[0]


def test_zero_lengths_count_as_one_and_are_noted(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, HEAD + "0,0,5\n1,7,0\n"))
    assert found.prompt.tolist() == [1, 7]
    assert found.output.tolist() == [5, 1]
    assert [n for n in found.notes if "0 prompt tokens: counted as 1" in n]
    assert [n for n in found.notes if "0 output tokens: counted as 1" in n]


def test_one_line_is_a_trace(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, HEAD + "0,5,5"))
    assert len(found) == 1
    assert found.rate == 0
    assert "1, 0/s" in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (HEAD, "has a header and no requests"),
        (HEAD.rstrip(), "has a header and no requests"),
        (ROWS, "has no header line"),
        ("arival_s,prompt_tokens,output_tokens\n" + ROWS, "Did you mean arrival_s by 'arival_s'?"),
        ("time,prompt,output\n" + ROWS, "columns by format: Fleetcast: arrival_s, prompt_tokens"),
        ("prompt_tokens,output_tokens\n1,2\n", "column arrival_s missing"),
        (
            HEAD + "0,5,5\n1,-7,5\n",
            "line 3, column prompt_tokens: is not a number of tokens (got -7.0)",
        ),
        (HEAD + "0,5,5\n1,7,2.5\n", "line 3, column output_tokens: is not a number of tokens"),
        (HEAD + "0,5,5\n1,7,1e12\n", "a whole number from 0 to 1000000000"),
        (HEAD + "0,5,5\nnan,7,5\n", "line 3, column arrival_s: is missing or not a number"),
        (HEAD + "0,5,5\n1,nan,5\n", "line 3, column prompt_tokens: is missing or not a number"),
        (HEAD + "0,5,5\n,7,5\n", "line 3, column arrival_s: is missing"),
        (HEAD + "0,5,5\n1,,5\n", "line 3, column prompt_tokens: is missing"),
        (HEAD + "0,5,5\ninf,7,5\n", "line 3, column arrival_s: is out of range (got inf)"),
        (HEAD + "-1,5,5\n", "line 2, column arrival_s: is out of range (got -1.0)"),
        (
            HEAD + "0,5,5\n1,seven,5\n",
            "line 3, column prompt_tokens: is not a number (got 'seven')",
        ),
        (HEAD + "0,5,5\n\n\n1,seven,5\n", "line 5, column prompt_tokens"),
        (HEAD + "0,5,5\n1,7\n", "line 3: has only 2 fields; 3 as in the header"),
        (HEAD + "0,5,5\n1,7,5,9\n", "line 3: has more fields"),
        (HEAD + "0,5,5\nabc,7,5\n", "line 3, column arrival_s: is not a number (got 'abc')"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\nyesterday,1,1\n",
            "line 3, column TIMESTAMP: is not a time (got 'yesterday')",
        ),
        ("arrival_s,arrival_s,prompt_tokens,output_tokens\n1,1,1,1\n", "has a column twice"),
        ("{}\n", "missing"),
        ('{"arrival_s": 1,\n', "line 1: is not JSON"),
        (
            '{"arrival_s": 1, "prompt_tokens": 1, "output_tokens": 1}\n[1]\n',
            "line 2: is not a JSON object",
        ),
        (
            '{"arrival_s": 1, "prompt_tokens": 1, "output_tokens": 1}\n{"arrival_s": 2}\n',
            "line 2, column prompt_tokens: is missing",
        ),
        (
            '{"arrival_s": 1, "prompt_tokens": 1, "output_tokens": "x"}\n',
            "line 1, column output_tokens: is not a number (got 'x')",
        ),
    ],
)
def test_every_error_names_file_place_value_and_limit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_file(write(tmp_path, text))
    assert message in str(caught.value)
    assert "trace.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress((HEAD + ROWS * 500).encode(), mtime=0)[:60], "is not a whole gzip file"),
        ((HEAD + ROWS).encode("utf-16"), "is UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "is not text"),
        (b"\xff\xd8\xff\xe0 binary", "is not text"),
    ],
    ids=["cut gzip", "utf-16", "png", "jpeg"],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_file(write(tmp_path, data))


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not there"):
        read(tmp_path / "absent.csv")
    with pytest.raises(SpecError, match="is not a file"):
        read_file(tmp_path)


def test_braces_in_a_file_name_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "0,-1,1\n", "a{b}{}.csv")
    with pytest.raises(SpecError, match="column prompt_tokens"):
        read_file(path)


def test_a_million_lines_in_well_under_a_second_when_compiled(tmp_path: Path) -> None:
    from fleetcast.base import numbers

    draw = np.random.default_rng(3)
    rows = 1_000_000
    block = "".join(
        f"{i * 0.125:.6f},{p},{o}\n" for i, (p, o) in enumerate(draw.integers(1, 4000, (rows // 10, 2)).tolist())
    )
    path = write(tmp_path, HEAD + block * 10)
    start = time.process_time()
    found = read_file(path)
    seconds = time.process_time() - start
    assert len(found) == rows
    assert np.all(np.diff(found.arrival) >= 0)
    columns_ = (found.arrival, found.prompt, found.output)
    assert sum(c.nbytes for c in columns_) <= 24 * rows
    # Measured 0.3 s and 0.9 s; the rest is room for a busy machine.
    assert seconds < (1.0 if numbers.COMPILED else 4.0)


BLOCKS = [
    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [*range(46, 58), 2353, 2354]},
    {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [*range(46, 58), 2366]},
    {"timestamp": 30535, "input_length": 400, "output_length": 9, "hash_ids": [9000]},
]  # the two sample lines of Mooncake's README, and one that shares nothing


def test_block_ids_say_what_prompts_share(tmp_path: Path) -> None:
    file = tmp_path / "mooncake.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in BLOCKS))
    found = read_file(file)
    assert found.arrival.tolist() == [27.482, 30.535, 30.535], "milliseconds"
    assert found.parent is not None and found.parent.tolist() == [-1, 0, -1]
    assert found.prefix is not None and found.prefix.tolist() == [0, 12 * 512, 0]
    seconds = [{"chat_id": i, **row} for i, row in enumerate(BLOCKS)]
    file.write_text("\n".join(json.dumps(row) for row in seconds))
    assert read_file(file).arrival[0] == 27482, "Qwen-Bailian's have a chat_id, and seconds"


@pytest.mark.parametrize(
    ("ids", "problem"), [([1, 2], "names 2 blocks"), ("46", "is not a list"), ([1.5] * 14, "list")]
)
def test_block_ids_that_fit_no_block_size_are_refused(tmp_path: Path, ids: object, problem: str) -> None:
    file = tmp_path / "mooncake.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in (BLOCKS[1], {**BLOCKS[0], "hash_ids": ids})))
    with pytest.raises(SpecError, match=problem) as told:
        read_file(file)
    assert "line 2, column hash_ids" in str(told.value)
