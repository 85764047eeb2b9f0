"""The base of all job settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cache.registry import Registry


class Settings(BaseModel):
    """Frozen; unknown keys refused; defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _path_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# The folder or the address of a store.
StoreUri = Annotated[str, BeforeValidator(_path_as_text), Field(min_length=1)]


@dataclass(frozen=True)
class OneOf:
    """Annotation of a settings field whose class depends on a key: `Annotated[Settings, OneOf(TASKS)]`.

    The value is a table; its `key` names an implementation of the registry, whose `settings` class reads the table.
    Errors keep the place of the key that is wrong. The choices are fixed when the class with the field is built.
    """

    registry: Registry[Any]
    key: str = "name"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {item.name: handler.generate_schema(item.settings) for item in self.registry}
        return core_schema.tagged_union_schema(
            choices,
            discriminator=self.key,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )
