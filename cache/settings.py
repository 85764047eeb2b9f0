"""The base of all job settings."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Frozen; unknown keys refused; defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _path_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# The folder or the address of a store.
StoreUri = Annotated[str, BeforeValidator(_path_as_text), Field(min_length=1)]
