"""The base of all job settings."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen; unknown keys refused; defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
