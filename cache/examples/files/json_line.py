"""Parse one line of a JSON Lines file strictly: what JSON does not allow, or what would be lost, is refused."""

import json
import math
from typing import Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse_json_line(line: bytes, is_first: bool = False) -> Any:
    """The value of a line. is_first: a byte-order mark of UTF-8 before it is ignored, as some editors write one.

    Raises ValueError, in plain words, for a line that is not JSON in UTF-8, a number that is not finite, a key that an
    object has twice, and half a surrogate pair.
    """
    line = line.removeprefix(BYTE_ORDER_MARK) if is_first else line
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start + 1}); save the file as UTF-8") from None
    try:
        value = strict_decoder().decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg.lower()} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    require_text(value)
    return value


def strict_decoder() -> json.JSONDecoder:
    """A decoder that raises ValueError for numbers that are not finite, and for a key that an object has twice."""
    return json.JSONDecoder(
        parse_constant=_refuse, parse_float=_parse_float, parse_int=_parse_int, object_pairs_hook=_unique_keys
    )


def require_text(value: Any) -> None:
    """Raise ValueError if a value contains half a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("contains half a surrogate pair, which is no text; remove it") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"contains {constant}, which JSON does not allow; use null or a number")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"contains the number {text}, which is too large")
    return value


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"contains a number of {len(text):,} digits, which is too large") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the key {twice!r} twice; remove one")
    return values
