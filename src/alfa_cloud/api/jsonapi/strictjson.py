"""JSON as it should come: strict UTF-8, no duplicate names, no numbers that are none, no depths, no broken text."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 10
MAX_INTEGER: Final = 2**53
MAX_NUMBER_LENGTH: Final = 32


class StrictJsonError(ValueError):
    """The text is not JSON that is taken here; the message says why, and quotes nothing of it."""


def parse(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        StrictJsonError: it is not taken.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"The body is not UTF-8, at byte {error.start}.") from error
    _check_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise StrictJsonError(f"The body is not JSON, at line {error.lineno}, column {error.colno}.") from error
    _check_texts(value)
    return value


def _check_depth(text: str) -> None:
    """Nesting, counted before parsing, so that no depth can exhaust the parser."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJsonError(f"The body is nested deeper than {MAX_DEPTH} levels.")
        elif character in "]}":
            depth -= 1


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise StrictJsonError("The body holds NUL or half of a surrogate pair.")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_texts(name)
            _check_texts(member)
    elif isinstance(value, list):
        for member in value:
            _check_texts(member)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise StrictJsonError("The body names a member twice in one object.")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH or abs(int(text)) > MAX_INTEGER:
        raise StrictJsonError("The body holds a whole number above 2^53.")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > MAX_INTEGER:
        raise StrictJsonError("The body holds a number that is too large.")
    return value


def _constant(_: str) -> NoReturn:
    raise StrictJsonError("The body holds NaN or Infinity, which JSON does not have.")
