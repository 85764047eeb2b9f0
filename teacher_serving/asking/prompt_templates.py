"""Prompt templates that ask a teacher for rationales, with worked examples.

Knows nothing of engines, tokens or answers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cache.errors import InputError, plain_reason
from cache.examples.example import Example
from cache.json_documents import digest

BUILT_IN = Path(__file__).parent / "templates"
SUFFIX = ".jinja"


def resolve_template(name: str, root: Path) -> str:
    """The path of a template file as an absolute path. The name of a built-in template is unchanged."""
    return str(root / name) if name.endswith(SUFFIX) else name


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A Jinja template of a user turn. name: a built-in one's name, or the path it was read from."""

    name: str
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the source, in hexadecimal. It does not depend on the name of the file."""
        return digest(self.source)


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked example that a prompt shows before its question."""

    prompt: str
    rationale: str
    label: str


def load_template(name: str) -> PromptTemplate:
    """A built-in template by its name, or any file whose path ends in .jinja.

    Raises InputError for an unknown name, an unreadable file, or a syntax error, naming its file and line.
    """
    path = Path(name) if name.endswith(SUFFIX) else BUILT_IN / f"{name}{SUFFIX}"
    known = sorted(file.stem for file in BUILT_IN.glob(f"*{SUFFIX}"))
    if not name.endswith(SUFFIX) and name not in known:
        raise InputError(f"template {name!r}: unknown; give one of {', '.join(known)}, or a path ending in {SUFFIX}")
    try:
        template = PromptTemplate(name, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"template {path}: {plain_reason(error)}; give a readable UTF-8 file") from None
    _compile(template)
    return template


def fill_template(
    template: PromptTemplate, example: Example, shots: Sequence[Shot] = (), hint: str = ""
) -> tuple[dict[str, Any], ...]:
    """Messages of the example. The rendered template replaces the content of the last user turn.

    The template can use `prompt` (the content of that turn), `messages`, `label`, `metadata`, `id`, `hint` and `shots`.
    Their content is inserted as text and never run as a template. Raises InputError, naming the example and the
    template, if the template cannot be rendered.
    """
    where = f"example {example.id}, template {template.name}"
    turns: list[dict[str, Any]] = [dict(turn) for turn in example.messages]
    last = max((i for i, turn in enumerate(turns) if turn.get("role") == "user"), default=None)
    if last is None:
        raise InputError(f"{where}: no turn has the role 'user', whose last one a template fills; give the example one")
    prompt = turns[last].get("content")
    if not isinstance(prompt, str):
        raise InputError(f"{where}: the last user turn holds {type(prompt).__name__}; its content must be text")
    variables = {
        "prompt": prompt,
        "messages": turns,
        "label": example.label,
        "metadata": example.metadata,
        "id": example.id,
        "hint": hint,
        "shots": list(shots),
    }
    compiled = _compile(template)
    try:
        content = compiled.render(variables)
    except Exception as error:  # templates raise whatever they like
        known = ", ".join(sorted(variables))
        raise InputError(f"{where}: {type(error).__name__}: {error}; a template may use {known}") from error
    return (*turns[:last], {**turns[last], "content": content}, *turns[last + 1 :])


def read_shots(path: str | Path) -> tuple[Shot, ...]:
    """Shots of a JSON Lines file, one object with the texts `prompt`, `rationale` and `label` a line.

    Raises InputError naming the line for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"shots file {path}: no such file; give the path of a JSON Lines file")
    shots = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                shots.append(_parse_shot(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise InputError(f"shots file {path}, line {number}: {error}") from None
    if not shots:
        raise InputError(f"shots file {path}: empty; it needs at least one line with prompt, rationale and label")
    return tuple(shots)


def _parse_shot(value: Any) -> Shot:
    names = [field.name for field in fields(Shot)]
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    if unknown := sorted(set(value) - set(names)):
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: {', '.join(names)}")
    for name in names:
        if not isinstance(value.get(name), str):
            raise ValueError(f"{name!r} must be given, as text")
    shot = Shot(**value)
    json.dumps(asdict(shot), ensure_ascii=False).encode()  # half a surrogate pair is no text
    return shot


# One template fills every prompt of a run, and compiling takes longer than rendering.
@lru_cache(maxsize=16)
def _compile(template: PromptTemplate) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        return environment.from_string(template.source)
    except TemplateSyntaxError as error:
        raise InputError(
            f"template {template.name}, line {error.lineno}: {error.message}; see Jinja's syntax"
        ) from None
