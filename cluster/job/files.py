"""Job files: TOML, overrides, and errors that name the key, the place and the choices."""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cache.errors import InputError
from cache.settings import OneOf, Settings
from cache.storage.open import absolute_uri
from teacher_serving.asking.prompt_templates import SUFFIX

Job = TypeVar("Job", bound=Settings)


# Keys whose text is a model folder or a hub name, and those whose text is a folder or the address of a store.
MODEL_KEYS = ("model", "path", "pretrained", "lora_path", "tokenizer")


STORE_KEYS = ("store", "heldout_store")


TEMPLATE_KEYS = ("template", "hint_template")


def load_job(path: Path, overrides: Sequence[str], kind: type[Job], root: Path) -> Job:
    """Read a job file, apply `key.path=value` overrides (TOML values, or text), and validate.

    Relative paths of the job are taken from `root`. Raises InputError naming file, key and the valid choices.
    """
    if not path.is_file():
        raise InputError(f"job file {path}: no such file")
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"job file {path}: not valid TOML: {error}") from None
    for override in overrides:
        _apply(values, override)
    try:
        job = kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"job file {path}: " + "; ".join(_explain(kind, e) for e in error.errors())) from None
    return _absolute(job, root)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r}: expected key=value, such as run.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {override!r}: {parent!r} is a value, not a table")
    values[last] = value


def _explain(kind: type[BaseModel], error: Any) -> str:
    """One validation error in words: the key, its value, and the valid choices."""
    key, owner, choice = _locate(kind, error["loc"])
    if choice is not None and error["type"] == "union_tag_not_found":
        return f"missing key '{key}.{choice.key}'; valid values: {', '.join(choice.registry.names())}"
    if choice is not None and error["type"] == "union_tag_invalid":
        names = ", ".join(choice.registry.names())
        return f"{key}.{choice.key}: unknown {choice.registry.kind} {error['ctx']['tag']!r}; valid values: {names}"
    if error["type"] == "extra_forbidden":
        valid = sorted(owner.model_fields)
        similar = difflib.get_close_matches(str(error["loc"][-1]), valid, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        return f"unknown key {key!r}; {hint}valid keys: {', '.join(valid)}"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    value = "" if isinstance(error["input"], dict) else f" (given {error['input']!r})"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{value}"


def _locate(kind: type[BaseModel], location: Sequence[Any]) -> tuple[str, type[BaseModel], OneOf | None]:
    """The dotted key at an error's location, the class that has this key, and the choice of classes that it holds.

    In a table with a choice of classes, pydantic puts the chosen name into the location. It is not part of the key.
    """
    keys: list[str] = []
    owner, child, choice = kind, kind, None
    for step in location:
        if choice is not None and isinstance(step, str):
            child, choice = choice.registry[step].settings, None
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
    return ".".join(keys) or "job", owner, choice


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it, such as the X of `tuple[X, ...] | None`."""
    yield annotation
    for part in (*getattr(annotation, "__args__", ()), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def _model(name: str, root: Path) -> str:
    """A model folder as an absolute path; what is no folder is left as the name of a model on a hub."""
    return str(root / name) if (root / name).is_dir() else name


def _absolute(job: Job, root: Path) -> Job:
    """Every path of the job, made absolute, so that workers elsewhere mean the same file."""
    updates: dict[str, Any] = {}
    for name in type(job).model_fields:
        value = getattr(job, name)
        if isinstance(value, Path):
            updates[name] = root / value
        elif isinstance(value, BaseModel):
            updates[name] = _absolute(value, root)  # type: ignore[type-var]
        elif isinstance(value, tuple) and value and all(isinstance(item, Settings) for item in value):
            updates[name] = tuple(_absolute(item, root) for item in value)
        elif isinstance(value, str) and name in STORE_KEYS:
            updates[name] = absolute_uri(value, root)
        elif isinstance(value, str) and name in TEMPLATE_KEYS and value.endswith(SUFFIX):
            updates[name] = str(root / value)
        elif isinstance(value, str) and name in MODEL_KEYS:
            updates[name] = _model(value, root)
        elif isinstance(value, dict) and value and all(isinstance(item, Path) for item in value.values()):
            updates[name] = {key: root / item for key, item in value.items()}
        elif name == "models":
            updates[name] = {key: _model(item, root) for key, item in value.items()}
    return job.model_copy(update=updates)
