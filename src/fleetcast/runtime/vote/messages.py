"""What voting processes send each other: lines of JSON, each checked before anything is believed.

A connection begins with ``{"from": 2, "token": "..."}``. After it come messages, one a round:
``{"round": 1, "rankings": {"2": [0, 2, 1]}}``, the rankings by the process whose they are.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping

Rankings = dict[int, tuple[int, ...]]


def longest(processes: int, plans: int) -> int:
    """Returns the bytes that no honest line exceeds: a ranking from every process, and room for its words."""
    return 512 + processes * (24 + 8 * plans)


def hello(process: int, token: str) -> bytes:
    """Returns the first line of a connection."""
    return json.dumps({"from": process, "token": token}).encode() + b"\n"


def read_hello(line: bytes, token: str, processes: int) -> int:
    """Returns who begins a connection.

    Raises:
        ValueError: not a first line, not our token, no such process.
    """
    found = _object(line)
    given, who = found.get("token"), found.get("from")
    if set(found) != {"from", "token"} or not isinstance(given, str):
        raise ValueError("not a first line")
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise ValueError("another token")
    return _number(who, 0, processes - 1)


def message(round_: int, rankings: Mapping[int, tuple[int, ...]]) -> bytes:
    """Returns the line of a round."""
    return json.dumps({"round": round_, "rankings": {str(i): r for i, r in rankings.items()}}).encode() + b"\n"


def read_message(line: bytes, *, processes: int, plans: int, rounds: int) -> tuple[int, Rankings]:
    """Returns the round and the rankings of a line.

    Raises:
        ValueError: anything else than a message of this vote.
    """
    found = _object(line)
    table = found.get("rankings")
    if set(found) != {"round", "rankings"} or not isinstance(table, dict) or not table:
        raise ValueError("not a message")
    rankings: Rankings = {}
    for key, ranking in table.items():
        if not (key.isascii() and key.isdecimal() and str(int(key)) == key):
            raise ValueError("not a process")
        if not isinstance(ranking, list) or len(ranking) != plans:
            raise ValueError("not a ranking")
        places = tuple(_number(x, 0, plans - 1) for x in ranking)
        if len(set(places)) != plans:
            raise ValueError("not a ranking")
        rankings[_number(int(key), 0, processes - 1)] = places
    return _number(found["round"], 1, rounds), rankings


def _object(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _number(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"not a number from {low} to {high}")
    return value
