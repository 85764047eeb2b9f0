"""Job files: TOML, overrides, and error messages with the key, its value and the valid choices."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cache.errors import InputError
from cache.settings import OneOf, PathText, Settings
from cluster.runtime.job_messages import plain_kind, read_toml
from cluster.runtime.outputs import require_output_folder

Job = TypeVar("Job", bound=Settings)


def load_job(path: Path, overrides: Sequence[str], kind: type[Job], root: Path) -> Job:
    """Read a job file, apply `key.path=value` overrides (TOML values, or text), and validate.

    Relative paths of the job are taken from `root`. Raises InputError naming file, key and the valid choices, or if the
    output cannot be a folder of this job.
    """
    values = read_toml(path)
    for override in overrides:
        apply_override(values, override)
    return resolve_job(values, kind, f"job file {path}", root)


def resolve_job(values: Mapping[str, Any], kind: type[Job], name: str, root: Path) -> Job:
    """The job of these values, with absolute paths. Raises InputError as `load_job` does.

    name: of where the values come from, for messages.
    """
    job = _absolute(validated(values, kind, name), root)
    if isinstance(output := getattr(job, "output", None), Path):
        require_output_folder(output)
    return job


def validated(values: Mapping[str, Any], kind: type[Job], name: str) -> Job:
    """The settings of these values. Raises InputError with the valid choices, or if a value has no effect.

    name: of where they come from, for messages.
    """
    try:
        job = kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{name}: " + "; ".join(_explain(kind, e) for e in error.errors())) from None
    if unused := list(find_unused(job)):
        reasons = "; ".join(f"{key} has no effect: {reason}" for key, reason in unused)
        raise InputError(f"{name}: {reasons}; leave {'it' if len(unused) == 1 else 'them'} out")
    return job


def find_unused(job: Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys that a job gives and that have no effect in it, each with the reason."""
    for key, reason in job.unused_keys().items():
        if job.has_key(key):
            yield prefix + key, reason
    for name in type(job).model_fields:
        value = getattr(job, name)
        parts = enumerate(value) if isinstance(value, tuple) else ()
        for path, part in ((name, value), *((f"{name}.{number}", each) for number, each in parts)):
            if isinstance(part, Settings):
                yield from find_unused(part, f"{prefix}{path}.")


def apply_override(values: dict[str, Any], override: str, option: str = "--set") -> None:
    """Set a `key.path=value` of a job's values: a TOML value, or text. option: that gave it, for messages."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{option} {override!r}: expected key=value, such as run.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    set_key(values, key, value, f"{option} {override!r}")


def set_key(values: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Set a dotted key, such as "run.seed". Raises InputError, with `name` first, if a part of it is no table."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{name}: {parent!r} is a value, not a table")
    values[last] = value


def _explain(kind: type[BaseModel], error: Any) -> str:
    """One validation error in words: the key, its value, and the valid choices."""
    key, owner, choice, owner_choice = _locate(kind, error["loc"])
    if choice is not None and error["type"] == "union_tag_not_found":
        return f"missing key '{key}.{choice.key}'; valid values: {', '.join(choice.registry.names())}"
    if choice is not None and error["type"] == "union_tag_invalid":
        names = ", ".join(choice.registry.names())
        return f"{key}.{choice.key}: unknown {choice.registry.kind} {error['ctx']['tag']!r}; valid values: {names}"
    if error["type"] == "extra_forbidden":
        valid = sorted(owner.model_fields)
        similar = difflib.get_close_matches(str(error["loc"][-1]), valid, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        if owner_choice is not None and (others := _owners(owner_choice, str(error["loc"][-1]))):
            hint = f"it is a key of {owner_choice.key} = {' or '.join(map(repr, others))}; "
        return f"unknown key {key!r}; {hint}valid keys: {', '.join(valid)}"
    if error["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return f"{key}: must be a table (given {error['input']!r})"
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        return f"{key.rpartition('.')[0]}: has too few values (given {list(error['input'])!r})"
    if words := plain_kind(error["type"]):
        return f"{key}: {words} (given {error['input'] if isinstance(error['input'], date) else repr(error['input'])})"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    message = error["msg"].removeprefix("Value error, ")
    if " has no effect: " in message:
        return message if key == "job" else f"{key}.{message}"
    is_in_message = repr(error["input"]) in error["msg"]
    value = "" if isinstance(error["input"], dict) or is_in_message else f" (given {error['input']!r})"
    return f"{key}: {message}{value}"


def _owners(choice: OneOf, key: str) -> list[str]:
    """The names of a choice whose settings have a key."""
    return [item.name for item in choice.registry if key in item.settings.model_fields]


def _locate(kind: type[BaseModel], location: Sequence[Any]) -> tuple[str, type[BaseModel], OneOf | None, OneOf | None]:
    """The dotted key at an error's location, the class that has this key, and two choices of classes.

    The first choice is the one that the key itself selects; the second is the one that selected the class.

    In a table with a choice of classes, pydantic puts the chosen name into the location. It is not part of the key.
    """
    keys: list[str] = []
    owner, child, choice = kind, kind, None
    owner_choice: OneOf | None = None
    for step in location:
        if choice is not None and isinstance(step, str):
            child, choice, owner_choice = choice.registry[step].settings, None, choice
            continue
        keys.append(str(step))
        if isinstance(step, str) and step in child.model_fields:
            owner, field = child, child.model_fields[step]
            choice = next(
                (item for item in (*field.metadata, *_parts(field.annotation)) if isinstance(item, OneOf)), None
            )
            classes = (
                item for item in _parts(field.annotation) if isinstance(item, type) and issubclass(item, BaseModel)
            )
            child = next(classes, child)
        else:
            owner = child
    return ".".join(keys) or "job", owner, choice, owner_choice


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it, such as the X of `tuple[X, ...] | None`."""
    yield annotation
    for part in (*getattr(annotation, "__args__", ()), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def _absolute(job: Job, root: Path) -> Job:
    """The job with absolute paths, so that processes with another working folder read the same files."""
    updates: dict[str, Any] = {}
    for name, field in type(job).model_fields.items():
        markers = (item for item in (*field.metadata, *_parts(field.annotation)) if isinstance(item, PathText))
        value = getattr(job, name)
        resolved = _resolved(value, next(markers, None), root)
        if resolved != value:
            updates[name] = resolved
    return job.model_copy(update=updates)


def _resolved(value: Any, marker: PathText | None, root: Path) -> Any:
    """A value of a settings field with absolute paths. marker: says how its texts become paths; None: they are none."""
    if isinstance(value, Settings):
        return _absolute(value, root)
    if isinstance(value, Path):
        return root / value
    if isinstance(value, str) and marker is not None:
        return marker.resolve(value, root)
    if isinstance(value, tuple):
        return tuple(_resolved(item, marker, root) for item in value)
    if isinstance(value, dict):
        return {key: _resolved(item, marker, root) for key, item in value.items()}
    return value
