"""Numbers from text equal what float() makes of them, in every form of the parser."""

import math
import random
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base import numbers as n

Twins = Callable[[str], tuple[ModuleType, ModuleType]]

HARD = [
    "0", "-0", "+7", "-3.5", ".5", "5.", "00012", "1e3", "1E-7", "1.7976931348623157e308",
    "4.9e-324", "9007199254740992", "9007199254740993", "123456789012345678", "0.1",
    "1234567890123456789", "0.30000000000000004", "2.2250738585072014e-308", "1e400", "nan",
    "inf", "-Infinity", "1_000", "0.000000000000000001", "999999999999999999",
    "123456789.123456789", " 12", "12 ", '"42"', '" 4.5 "', "179769313486231580000000000",
]  # fmt: skip


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


def expected(text: str) -> float:
    return float(text.strip().strip('"'))


@pytest.mark.parametrize("text", HARD)
def test_every_number_equals_float(text: str) -> None:
    table = n.parse_table(f"1,{text}\n{text},2\n".encode(), 2, [0, 1])
    assert table.shape == (2, 2)
    assert same(table[1, 0], expected(text))
    assert same(table[0, 1], expected(text))


@pytest.mark.parametrize("text", HARD)
def test_the_loop_itself_equals_float(text: str) -> None:
    """Without the numpy route that plain tables take where nothing is compiled."""
    table, _ = n._parse_exact(f"{text}\n".encode(), 1, [0], 0, ",", -1)
    assert same(table[0, 0], expected(text))


decimals = st.one_of(
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.6f}"),
    st.integers(-(10**20), 10**20).map(str),
    st.from_regex(r"[-+]?[0-9]{1,21}\.?[0-9]{0,19}", fullmatch=True),
    st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{1,4})?[eE][-+]?[0-9]{1,3}", fullmatch=True),
)


@given(st.lists(st.tuples(decimals, decimals, decimals), min_size=1, max_size=20))
def test_any_table_equals_float_in_both_routes(rows: list[tuple[str, str, str]]) -> None:
    data = "".join(",".join(row) + "\r\n" for row in rows).encode()
    exact, _ = n._parse_exact(data, 3, [0, 1, 2], 0, ",", -1)
    plain = n._parse_plain(data, 3, [0, 1, 2], 0, ",")
    for column in range(3):
        for row, fields in enumerate(rows):
            assert same(exact[column, row], float(fields[column]))
            if plain is not None:
                assert same(plain[column, row], float(fields[column]))


def tables() -> list[bytes]:
    draw = random.Random(5)
    forms = ["{:.6f}", "{:.15g}", "{!r}", "{:.3e}", '"{:.2f}"', "{:.0f}", " {:.1f} "]
    out = []
    for _ in range(60):
        rows = draw.randrange(1, 30)
        lines = [
            ",".join(draw.choice(forms).format(draw.uniform(-1, 1) * 10 ** draw.randrange(-8, 17))
                     for _ in range(3))
            for _ in range(rows)
        ]  # fmt: skip
        out.append(draw.choice(["\n", "\r\n", "\n\n"]).join(lines).encode())
    bad = (
        b"1,2,3\n4,x,6", b"1,2\n", b"1,2,3,4", b"1,,3\n", b'"1,2,3', b"", b"1,2,3\n\n\n", b"-,1,2",
        b"1,2,3\n4,5", b".,1,2", b"1e,2,3", b"\xff,1,2", b"1.2.3,1,2", b"--1,2,3",
    )  # fmt: skip
    return [*out, *bad]


@pytest.mark.parametrize("data", tables())
def test_twins_agree_to_the_last_bit(twins: Twins, data: bytes) -> None:
    outcomes = []
    for form in twins("fleetcast.base.numbers"):
        try:
            table, position = form._parse_exact(data, 3, [2, 0], 0, ",", -1)
            outcomes.append((table.shape, table.tobytes(), position))
        except ValueError as error:
            assert type(error).__name__ == "Malformed"
            outcomes.append((str(error), error.row, error.column, error.position))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("data", "row", "column", "text", "problem"),
    [
        (b"1,2\n3,abc\n", 1, 1, "abc", "is not a number"),
        (b"1,2\n3\n", 1, 1, "", "is missing"),
        (b"1,2\n\n3,4,5\n", 1, 2, "", "one field too many"),
        (b"1,2\r\n3,4x\r\n", 1, 1, "4x", "is not a number"),
        (b"-,2\n", 0, 0, "-", "is not a number"),
    ],
)
def test_a_wrong_field_is_named(data: bytes, row: int, column: int, text: str, problem: str) -> None:
    with pytest.raises(n.Malformed, match=problem) as caught:
        n.parse_table(data, 2, [0, 1])
    assert (caught.value.row, caught.value.column, caught.value.text) == (row, column, text)
    assert data[caught.value.position :].startswith(text.encode())


def test_columns_that_are_not_wanted_may_hold_anything() -> None:
    data = b'a,"x, ""y""\nz",1\nb,plain,2\n'
    table = n.parse_table(data, 3, [2])
    assert table.tolist() == [[1.0, 2.0]]


def test_empty_fields_are_nan_and_order_follows_take() -> None:
    table = n.parse_table(b"1;;3\n", 3, [2, 1, 0], delimiter=";")
    assert table[0, 0] == 3
    assert math.isnan(table[1, 0])
    assert table[2, 0] == 1


def test_row_position_counts_rows_not_lines() -> None:
    data = b"h\n\n1\n\n22\n"
    assert n.row_position(data, 1, 1, begin=2) == data.index(b"22")


def test_an_empty_body_has_no_rows() -> None:
    assert n.parse_table(b"head\n", 1, [0], begin=5).shape == (1, 0)
    assert n.parse_table(b"", 1, [0]).dtype == np.float64
