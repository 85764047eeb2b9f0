"""Settings of the targets: what is kept of each distribution."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.rows.spec import TargetMode, TargetSpec
from cache.settings import Settings


class TargetSettings(Settings):
    """What is kept of each distribution (cache/spec.py, TargetSpec, says what each field means)."""

    mode: TargetMode = Field("topk", description="which entries of a distribution are stored")
    k: int | None = Field(None, ge=1, description="entries of topk, and at most of nucleus; 64 if not given")
    mass: float = Field(0.0, ge=0, lt=1, description="probability that a nucleus holds")
    threshold: float = Field(0.0, ge=0, le=0.5, description="probability from which an entry of threshold is exact")
    draws: int = Field(0, ge=0, le=4096, description="draws of sampled")
    systematic: bool = Field(False, description="draws at even distances: the same bytes, much less noise")
    entropy: bool = Field(False, description="keep the entropy of each whole distribution")
    temperatures: tuple[float, ...] = Field((), description="keep the log-normalisers at these temperatures")
    of: Literal["assistant", "all"] = Field("assistant", description='whose tokens; "all" takes the prompt too')
    step: float = Field(TargetSpec().step, gt=0, le=1, description="spacing in nats of stored log-probabilities")
    tail_step: float = Field(TargetSpec().tail_step, gt=0, le=2, description="greatest spacing, far below 1 / k")

    @model_validator(mode="after")
    def _each_mode_has_its_own(self) -> Self:
        if (self.mode == "nucleus") != (self.mass > 0):
            raise ValueError('"nucleus" needs a mass between 0 and 1, such as 0.98, and no other mode has one')
        if (self.mode == "threshold") != (self.threshold > 0):
            raise ValueError('"threshold" needs a threshold up to 0.5, such as 0.05, and no other mode has one')
        if (self.mode == "sampled") != (self.draws > 0):
            raise ValueError('"sampled" needs a number of draws, such as 50, and no other mode has one')
        if self.systematic and self.mode != "sampled":
            raise ValueError('"systematic" is a way to draw for mode = "sampled"')
        if self.mode in ("threshold", "sampled") and self.k is not None:
            raise ValueError(f'"{self.mode}" has no k: leave it out')
        if any(not 0 < t < 100 or t == 1 for t in self.temperatures):
            raise ValueError("temperatures must be above 0 and other than 1, whose log-normaliser is 0")
        return self

    @property
    def spec(self) -> TargetSpec:
        """The settings as a store keeps them."""
        values = self.model_dump(exclude={"of"})
        if values["k"] is None:
            values["k"] = 64 if self.mode in ("topk", "nucleus") else 0
        return TargetSpec(**values)
