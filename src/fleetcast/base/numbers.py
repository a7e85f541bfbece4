"""Delimited text to columns of numbers: a million lines in a fraction of a second.

Every number equals what ``float()`` makes of the same characters. Up to 18 digits without exponent,
of at most 2**53 once the point is dropped, are one exact division: both operands are exact doubles,
so the quotient is rounded once, as ``float()`` rounds it. All else is handed to ``float()`` itself.

This file is a hot loop (`fleetcast.kernels.shim`), compiled where there is a C compiler. Where
there is none, numpy's own text parser takes plain tables, and the loop runs as Python on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMPILED = cython.compiled

# Outcomes of `scan`, in state[3].
_FINE, _NOT_A_NUMBER, _TOO_FEW, _TOO_MANY = range(4)


class Malformed(ValueError):
    """A field that is not a number, or a row with the wrong count of fields.

    Attributes:
        row: index of the row, 0 = first after ``begin``; blank lines are not rows.
        column: index of the field in its row.
        position: byte offset of the field.
        text: the field as it stands, or "" where the count of fields is wrong.
        problem: "is not a number", "is missing" or "is one field too many".
    """

    def __init__(self, row: int, column: int, position: int, text: str, problem: str) -> None:
        self.row, self.column, self.position = row, column, position
        self.text, self.problem = text, problem
        super().__init__(f"row {row}, field {column}: {text!r} {problem}")


def parse_table(
    data: bytes, width: int, take: Sequence[int], *, begin: int = 0, delimiter: str = ","
) -> NDArray[np.float64]:
    r"""Returns chosen columns of a table of text.

    Args:
        data: the text; rows end in \n or \r\n, blank lines are skipped, fields may be quoted.
        width: fields in every row.
        take: indices of the wanted columns, no index twice; the others may hold anything.
        begin: byte offset of the first row.
        delimiter: one ASCII character.

    Returns:
        float64[len(take), rows]; an empty field is NaN.

    Raises:
        Malformed: at the first wrong field.
    """
    if not COMPILED:
        plain = _parse_plain(data, width, take, begin, delimiter)
        if plain is not None:
            return plain
    table, _ = _parse_exact(data, width, take, begin, delimiter, -1)
    return table


def row_position(data: bytes, width: int, row: int, *, begin: int = 0, delimiter: str = ",") -> int:
    """Returns the byte offset at which a row starts; other arguments as in `parse_table`."""
    _, position = _parse_exact(data, width, [], begin, delimiter, row)
    return position


def _parse_exact(
    data: bytes, width: int, take: Sequence[int], begin: int, delimiter: str, stop: int
) -> tuple[NDArray[np.float64], int]:
    import numpy as np

    rows = data.count(b"\n", begin) + 1
    wanted = np.full(width, -1, dtype=np.int64)
    wanted[list(take)] = np.arange(len(take))
    table = np.empty((len(take), rows), dtype=np.float64)
    state = np.zeros(4, dtype=np.int64)
    scan(data, begin, ord(delimiter), wanted, table, stop if stop >= 0 else rows, state)
    row, column, position, status = (int(x) for x in state)
    if status == _FINE:
        return table if row == rows else table[:, :row].copy(), position
    text = ""
    if status == _NOT_A_NUMBER:
        text = data[position : _field_end(data, position, ord(delimiter))].decode("utf-8", "replace")
    problem = {_NOT_A_NUMBER: "is not a number", _TOO_FEW: "is missing"}
    raise Malformed(row, column, position, text, problem.get(status, "is one field too many"))


def _parse_plain(
    data: bytes, width: int, take: Sequence[int], begin: int, delimiter: str
) -> NDArray[np.float64] | None:
    """Reads a table of nothing but numbers by numpy's parser; None where it holds anything else."""
    import warnings

    import numpy as np

    body = data[begin:].replace(b"\r\n", b"\n").strip(b"\n")
    if not body or b'"' in body or b"\n\n" in body or delimiter.isspace():
        return None
    codes = np.frombuffer(body, dtype=np.uint8)
    ends = codes[(codes == ord(delimiter)) | (codes == 10)]
    if (len(ends) + 1) % width or (ends[width - 1 :: width] != 10).any():
        return None
    if np.count_nonzero(ends == 10) != (len(ends) + 1) // width - 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            flat = np.fromstring(body.replace(b"\n", delimiter.encode()), sep=delimiter)
        except (ValueError, DeprecationWarning):
            return None
    if len(flat) != len(ends) + 1:
        return None
    return np.ascontiguousarray(flat.reshape(-1, width).T[list(take)])


@cython.boundscheck(False)
@cython.wraparound(False)
def scan(
    data: bytes,
    begin: cython.Py_ssize_t,
    delimiter: cython.int,
    wanted: cython.longlong[::1],
    table: cython.double[:, ::1],
    stop: cython.Py_ssize_t,
    state: cython.longlong[::1],
) -> None:
    """Fills ``table`` row by row, and ``state`` with where it ended: row, column, position, status.

    Args:
        data: the text.
        begin: byte offset of the first row.
        delimiter: code of the character between fields.
        wanted: int64[width], the row of ``table`` that a field goes to, -1 = nowhere.
        table: float64[wanted columns, rows], room for all rows.
        stop: the row to stop before.
        state: int64[4], written.
    """
    end: cython.Py_ssize_t = len(data)
    width: cython.Py_ssize_t = len(wanted)
    i: cython.Py_ssize_t = begin
    start: cython.Py_ssize_t = begin
    row: cython.Py_ssize_t = 0
    column: cython.Py_ssize_t = 0
    target: cython.longlong
    c: cython.int
    digits: cython.int
    mantissa: cython.ulonglong
    scale: cython.double
    value: cython.double
    negative: cython.bint
    point: cython.bint
    status: cython.int = 0
    while True:
        while i < end and (data[i] == 10 or data[i] == 13):
            i += 1
        start = i
        if i >= end or row >= stop:
            break
        column = 0
        while column < width:
            target = wanted[column]
            start = i
            c = data[i] if i < end else 10
            if target < 0 or c == 34:
                i = _field_end(data, i, delimiter)
                if target >= 0:
                    try:
                        table[target, row] = _number(data, start, i)
                    except ValueError:
                        status = 1
                        break
            else:
                negative = c == 45
                if c == 45 or c == 43:
                    i += 1
                mantissa = 0
                digits = 0
                scale = 1.0
                point = False
                while i < end:
                    c = data[i]
                    if 48 <= c <= 57:
                        digits += 1
                        if digits > 18:
                            break
                        mantissa = mantissa * 10 + (c - 48)
                        if point:
                            scale *= 10.0
                    elif c == 46 and not point:
                        point = True
                    else:
                        break
                    i += 1
                c = data[i] if i < end else 10
                if (c == delimiter or c == 10 or c == 13) and 0 < digits <= 18 and mantissa <= 9007199254740992:
                    value = mantissa
                    value = value / scale
                    table[target, row] = -value if negative else value
                else:
                    i = _field_end(data, start, delimiter)
                    try:
                        table[target, row] = _number(data, start, i)
                    except ValueError:
                        status = 1
                        break
            column += 1
            if column < width:
                if i < end and data[i] == delimiter:
                    i += 1
                else:
                    status = 2
                    start = i
                    break
        if status == 0 and i < end and data[i] == delimiter:
            status = 3
            start = i + 1
        if status != 0:
            break
        row += 1
    state[0] = row
    state[1] = column
    state[2] = start
    state[3] = status


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
def _field_end(data: bytes, start: cython.Py_ssize_t, delimiter: cython.int) -> cython.Py_ssize_t:
    """The offset of the delimiter or line end that closes the field at ``start``."""
    end: cython.Py_ssize_t = len(data)
    i: cython.Py_ssize_t = start
    if i < end and data[i] == 34:
        i += 1
        while i < end:
            if data[i] == 34:
                if i + 1 < end and data[i + 1] == 34:
                    i += 1
                else:
                    break
            i += 1
    while i < end and data[i] != delimiter and data[i] != 10 and data[i] != 13:
        i += 1
    return i


def _number(data: bytes, start: int, end: int) -> float:
    """What ``float()`` makes of a field without quotes and blanks; an empty one is NaN."""
    text = data[start:end].strip()
    if len(text) >= 2 and text[:1] == b'"' and text[-1:] == b'"':
        text = text[1:-1].strip()
    return float(text) if text else float("nan")
