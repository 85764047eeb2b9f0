"""Fields of specs: one spelling for each value, so that equal settings have equal fingerprints, and differences."""

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from cache.errors import InputError
from cache.examples.json_values import require_json_value
from cache.json_documents import canonical_json

_ABSENT = object()


def set_declared_types(spec: Any) -> None:
    """Give each number of a frozen dataclass the type that its field declares: a float that is given as 1 becomes 1.0.

    Dicts, whose values may have any type, become plain JSON (see plain_json). Raises InputError, with the field, if a
    value is not of its type.
    """
    for item in fields(spec):
        value = getattr(spec, item.name)
        name = f"{type(spec).__name__}.{item.name}"
        if item.type is float:
            value = _float(value, name)
        elif item.type is int:
            value = _integer(value, name)
        elif item.type is bool:
            value = _bool(value, name)
        elif item.type == tuple[float, ...]:
            value = tuple(_float(each, name) for each in value)
        elif item.type == dict[str, Any]:
            value = plain_json(dict(value))
            require_json_value(value, item.name, type(spec).__name__)
        object.__setattr__(spec, item.name, value)


def plain_json(value: Any) -> Any:
    """The value as JSON has it: sequences as lists, and numbers in one spelling, so 2.0 becomes 2."""
    if isinstance(value, Mapping):
        return {key: plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    if isinstance(value, np.generic):
        return plain_json(float(str(value)) if isinstance(value, np.floating) else value.item())
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def unknown_fields(values: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The values that are no fields of a dataclass: a later version added them."""
    known = {item.name for item in fields(kind)}
    return {name: value for name, value in values.items() if name not in known}


def merged(values: Mapping[str, Any], unknown: Mapping[str, Any]) -> dict[str, Any]:
    """Values together with unknown fields, which may be nested."""
    whole = dict(values)
    for name, value in unknown.items():
        inner = whole.get(name)
        whole[name] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return whole


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Each field that differs between two JSON values, with its path and both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{name}.{key}" if name else key
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), path)
    elif _spelling(old) != _spelling(new):
        yield f"{name}: was {_shown(old)}, now {_shown(new)}"


def _spelling(value: Any) -> str:
    return "" if value is _ABSENT else canonical_json(value)


def _shown(value: Any) -> str:
    """A value in a message: without quotes of Python around digests and names."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} = {_shown(each)}" for name, each in value.items()) + ")"
    return "none" if value is _ABSENT or value in (None, "") else str(value)


def _float(value: Any, name: str) -> float:
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.05 of float32 is meant as 0.05
    try:
        number = math.nan if isinstance(value, bool | np.bool_ | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} = {value!r}: must be a number")
    return number + 0.0  # -0.0 becomes 0.0


def _integer(value: Any, name: str) -> int:
    is_whole = isinstance(value, float | np.floating) and math.isfinite(value) and value == int(value)
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return int(value) if is_whole else operator.index(value)
    except TypeError:
        raise InputError(f"{name} = {value!r}: must be a whole number") from None


def _bool(value: Any, name: str) -> bool:
    if value not in (False, True):
        raise InputError(f"{name} = {value!r}: must be true or false")
    return bool(value)
