"""Settings of a sweep."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cache.settings import Settings


class Range(Settings):
    """Values of a key that are drawn at random."""

    min: float = Field(description="lowest value")
    max: float = Field(description="highest value")
    log: bool = Field(False, description="uniform in the logarithm of the value")
    integer: bool = Field(False, description="whole numbers, both ends included")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max <= self.min:
            raise ValueError(f"max must be greater than min = {self.min:g} (given {self.max:g})")
        if self.log and self.min <= 0:
            raise ValueError(f"log = true needs min > 0 (given {self.min:g})")
        if self.integer and not (self.min.is_integer() and self.max.is_integer()):
            raise ValueError("integer = true needs whole numbers for min and max")
        return self


# What is tried for a key.
Values = tuple[Any, ...] | Range


def _values(key: str, given: Any) -> Values:
    """A list as a tuple, a table as a Range. Raises ValueError for anything else."""
    if isinstance(given, Range | tuple):
        return given
    if isinstance(given, list):
        return tuple(given)
    if not isinstance(given, dict):
        raise ValueError(f"{key}: give a list, or a table {{ min, max }} (given {given!r})")
    try:
        return Range.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, (key, *first["loc"])))
        raise ValueError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


class SweepSettings(Settings):
    """Many trainings of one job, compared (`logitbank sweep`)."""

    output: Path = Field(description="folder to write")
    train: Path = Field(description="job file of a training; its output is not used")
    space: dict[str, Any] = Field(
        {}, description="keys of the job: a list is tried whole, a table { min, max, log, integer } is drawn from"
    )
    trials: tuple[dict[str, Any], ...] = Field((), description="in place of 'space': the changed keys of each trial")
    samples: int = Field(1, ge=1, description="draws of the ranges, each with the whole grid of the lists")
    seed: int = Field(0, ge=0, description="of the draws")
    concurrent: int | None = Field(None, ge=1, description="trials at a time; as many as fit if not given")
    search: str | None = Field(None, description='search algorithm of Ray Tune, such as "optuna"; it needs its package')
    search_options: dict[str, Any] = Field({}, description="of the search algorithm, as Ray Tune names them")
    early_stopping: Literal["asha", "median_stopping"] | None = Field(
        None, description="scheduler of Ray Tune that ends trials early, by their held-out loss"
    )
    early_stopping_options: dict[str, Any] = Field(
        {}, description="of the scheduler, as Ray Tune names them; by default it counts steps of the training"
    )
    evaluate: Path | None = Field(None, description="job file of an evaluation, of all trials that ended")
    metric: str = Field("heldout_loss", description="of training or evaluation, by which trials are ordered")
    mode: Literal["min", "max"] = Field("min", description="whether a low or a high metric is better")

    def unused_keys(self) -> dict[str, str]:
        has_ranges = any(isinstance(values, Range) for values in self.space.values())
        unused: dict[str, str] = {}
        if not has_ranges and self.search is None:
            unused = dict.fromkeys(("samples", "seed"), "no key of 'space' is drawn from a range")
        if self.search is None:
            unused["search_options"] = "there is no 'search'"
        if self.early_stopping is None:
            unused["early_stopping_options"] = "there is no 'early_stopping'"
        return unused

    @field_validator("space")
    @classmethod
    def _lists_and_ranges(cls, space: dict[str, Any]) -> dict[str, Values]:
        return {key: _values(key, value) for key, value in space.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.space) == bool(self.trials):
            raise ValueError("give exactly one of 'space' and 'trials'")
        if empty := [key for key, values in self.space.items() if values == ()]:
            raise ValueError(f"space.{empty[0]}: has no values")
        if self.search is not None and not self.space:
            raise ValueError("search: it chooses from 'space', and 'trials' leaves no choice; leave it out")
        own = sorted(key for key in self._keys() if key == "output" or key.startswith("output."))
        if own:
            raise ValueError("'output' is not for trials: each has a folder of its own; leave it out")
        if self.evaluate is None and self.metric not in TRAINING_METRICS:
            raise ValueError(f"metric {self.metric!r}: without 'evaluate' it is one of {', '.join(TRAINING_METRICS)}")
        return self

    def _keys(self) -> set[str]:
        return {*self.space, *(key for trial in self.trials for key in trial)}


# What the table has of every training, and its name in training.json.
TRAINING_METRICS = {
    "heldout_loss": "best_loss",
    "training_loss": "last_loss",
    "tokens_per_s": "tokens_per_s",
    "parameters": "parameters",
}
