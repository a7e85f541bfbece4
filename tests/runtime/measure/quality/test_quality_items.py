"""Reading questions: the published columns, ours, keys apart; every wrong row is named."""

import json

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.quality import questions
from fleetcast.runtime.measure.quality.items import Item, everyday, of_fields, read_items, with_key

PUBLISHED = "question_id,Question,A,B,C,D\n"
"""The columns of Mobile-MMLU's files, one file a field and no key."""


def written(tmp_path, text, name="cooking.csv"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_published_files_are_read_field_by_field_and_have_no_key(tmp_path):
    written(tmp_path, PUBLISHED + 'q1,"Salt, or\nsugar?",one,two,three,four\n', "test/cooking.csv")
    written(tmp_path, PUBLISHED + "q2,Where?,a,b,c,d\n", "travel/test.csv")
    assert read_items(tmp_path) == (
        Item("q1", "Salt, or\nsugar?", ("one", "two", "three", "four"), -1, "cooking"),
        Item("q2", "Where?", ("a", "b", "c", "d"), -1, "travel"),
    )


@pytest.mark.parametrize(("said", "place"), [("A", 0), ("d", 3), ("2", 2), ("three", 2)])
def test_an_answer_is_a_letter_a_number_or_a_text(tmp_path, said, place):
    path = written(tmp_path, f"question_id,Question,A,B,C,D,answer\nq1,?,one,two,three,four,{said}\n")
    assert read_items(path)[0].answer == place


def test_json_lines_hold_options_as_a_list(tmp_path):
    row = {"id": 7, "question": "?", "choices": [1, 2, 3, 4], "answer": 2, "subject": "sums"}
    path = written(tmp_path, json.dumps(row) + "\n\n", "x.jsonl")
    assert read_items(path) == (Item("7", "?", ("1", "2", "3", "4"), 2, "sums"),)


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    rows = [{"question_id": "q1", "Question": "?", "A": "a", "B": "b", "C": "c", "D": "d"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    assert read_items(tmp_path)[0].options == ("a", "b", "c", "d")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(SpecError, match="cannot be read as Parquet"):
        read_items(tmp_path / "bad.parquet")


WRONG = {
    "": "holds no questions",
    "question_id,Question,A,B,C\nq,?,a,b,c\n": "has no column D",
    "Question,A,B,C,D\n?,a,b,c,d\n": "has no column question_id",
    PUBLISHED + "q,?,a,b,c,\n": "line 2, column D: is empty",
    PUBLISHED + "q,?,a,b,c\n": "line 2, column D: is empty",
    PUBLISHED + "q,?,a,b,a,d\n": "hold an option twice .got 'a'",
    PUBLISHED + ",?,a,b,c,d\n": "column question_id: is empty",
    PUBLISHED + "q,,a,b,c,d\n": "column Question: is empty",
    PUBLISHED + "q,?,a,b,c,d\nq,!,a,b,c,d\n": "question q: is there twice",
    "question_id,Question,A,B,C,D,answer\nq,?,a,b,c,d,E\n": "column answer: is none of the options .got 'E'",
    "question_id,Question,A,B,C,D,answer\nq,?,3,2,1,0,3\n": "is a number from 0 and an option's text",
    PUBLISHED + "q,?,a,a,c,d\nr,?,a,,c,d\n": "1 more rows are wrong: .*line 3, column B",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_rows_are_named(tmp_path, text):
    with pytest.raises(SpecError, match=WRONG[text]) as caught:
        read_items(written(tmp_path, text))
    assert caught.value.limit


def test_other_wrong_files(tmp_path):
    with pytest.raises(SpecError, match="is not a file"):
        read_items(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="of a kind that is not read"):
        read_items(written(tmp_path, "x", "x.txt"))
    with pytest.raises(SpecError, match="is no JSON object"):
        read_items(written(tmp_path, "{\n", "x.jsonl"))
    with pytest.raises(SpecError, match="are not four"):
        read_items(written(tmp_path, '{"id": 1, "question": "?", "choices": ["a"]}', "y.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="holds no questions"):
        read_items(tmp_path / "empty")


def test_a_key_apart(tmp_path):
    items = read_items(written(tmp_path, PUBLISHED + "q1,?,a,b,c,d\nq2,!,a,b,c,d\n"))
    key = written(tmp_path, "question_id,answer\nq2,B\nq1,d\n", "key/key.csv")
    assert [item.answer for item in with_key(items, key)] == [3, 1]
    with pytest.raises(SpecError, match="has no answer to question q2"):
        with_key(items, written(tmp_path, "question_id,answer\nq1,A\n", "key/short.csv"))
    with pytest.raises(SpecError, match="no row of a key"):
        with_key(items, written(tmp_path, "x\n1\n", "key/odd.csv"))


def test_fields_are_chosen_by_name():
    assert {item.field for item in questions(fields=["cooking", " travel "])} == {"cooking", "travel"}
    assert len(of_fields(everyday(), [""])) == len(everyday())
    with pytest.raises(SpecError, match="Did you mean 'cooking'"):
        questions(fields=["coking"])
