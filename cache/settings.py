"""The base class of all job settings, and the types that they share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema

from cache.registry import Registry


def _types(annotation: Any) -> list[Any]:
    """An annotation and everything inside it, such as the float of `float | None`."""
    return [annotation, *(each for part in get_args(annotation) for each in _types(part))]


class Settings(BaseModel):
    """Frozen settings. Unknown keys are errors, and defaults are validated like values of a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads true as 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & set(_types(annotation)) and bool not in _types(annotation):
            raise ValueError("must be a number")
        return value

    def unused_keys(self) -> dict[str, str]:
        """Keys that have no effect beside the others of this table, such as "segments.prompt", each with the reason.

        A subclass lists them whether they are given or not: only a key that a job file has is refused.
        """
        return {}

    def has_key(self, key: str) -> bool:
        """Whether a dotted key of this table was given, rather than left to its default."""
        value: Any = self
        for step in key.split("."):
            if isinstance(value, Settings):
                if step not in value.model_fields_set:
                    return False
                value = getattr(value, step)
            elif isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, tuple) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                return False
        return True


@dataclass(frozen=True)
class PathText:
    """Annotation of a text field that may name a file or folder.

    resolve(text, root): the text with a relative path made absolute. Relative paths start at `root`.
    """

    resolve: Callable[[str, Path], str]


def resolve_uri(text: str, root: Path) -> str:
    """A path as an absolute path. An address such as s3://bucket/prefix is unchanged."""
    return text if "://" in text else str(root / text)


def resolve_model(text: str, root: Path) -> str:
    """An existing folder as an absolute path. Any other text is a name on a hub and is unchanged."""
    return str(root / text) if (root / text).is_dir() else text


def public_name(name: str) -> str:
    """A model or store without its local path: the last two folders. Hub names and addresses stay as they are."""
    if "://" in name or not Path(name).is_absolute():
        return name
    return "/".join(Path(name).parts[-2:])


def _path_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# The folder of a store, or its address in an object store.
StoreUri = Annotated[str, BeforeValidator(_path_as_text), Field(min_length=1), PathText(resolve_uri)]

# Files of examples: one, a folder or a pattern, on this machine or at an address such as s3://bucket/folder/*.jsonl.
InputUri = Annotated[str, BeforeValidator(_path_as_text), Field(min_length=1), PathText(resolve_uri)]

# The folder of a model, a tokenizer or an adapter, or its name on a hub.
ModelPath = Annotated[str, PathText(resolve_model)]


@dataclass(frozen=True)
class NameOf:
    """Annotation of a settings field that selects an implementation by name: `Annotated[str, NameOf(OBJECTIVES)]`.

    The registry is read when a value is validated, and not before. An unknown name is refused with the valid ones.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.registry.check_name, handler(source))


@dataclass(frozen=True)
class OneOf:
    """Annotation of a settings field whose class depends on a key: `Annotated[Settings, OneOf(TASKS)]`.

    The value is a table; its `key` names an implementation of the registry, whose `settings` class reads the table.
    default: the name that is used if the table does not have the key.
    Errors contain the path of the invalid key. The choices are fixed when the class with the field is built.
    """

    registry: Registry[Any]
    key: str = "name"
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {item.name: handler.generate_schema(item.settings) for item in self.registry}
        choice = core_schema.tagged_union_schema(choices, discriminator=self.key)
        return core_schema.no_info_before_validator_function(
            self._with_default,
            choice,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )

    def _with_default(self, value: Any) -> Any:
        has_default = self.default is not None and isinstance(value, dict) and self.key not in value
        return {**value, self.key: self.default} if has_default else value
