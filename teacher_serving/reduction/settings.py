"""Settings of the targets: what is kept of each distribution."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.rows.spec import TargetMode, TargetSpec
from cache.settings import Settings

# Keys that one mode has.
OWN_KEYS = {"mass": "nucleus", "threshold": "threshold", "draws": "sampled", "systematic": "sampled"}


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

    def unused_keys(self) -> dict[str, str]:
        modes: dict[str, tuple[str, ...]] = {key: (mode,) for key, mode in OWN_KEYS.items()}
        modes["k"] = ("topk", "nucleus")
        # Draws are counted, not quantised.
        modes |= dict.fromkeys(("step", "tail_step"), ("topk", "nucleus", "threshold"))
        return {
            key: f"it belongs to mode = {' or '.join(map(repr, of))}, and the mode is {self.mode!r}"
            for key, of in modes.items()
            if self.mode not in of
        }

    @model_validator(mode="after")
    def _each_mode_has_its_own(self) -> Self:
        if self.mode == "nucleus" and not self.mass:
            raise ValueError('"nucleus" needs a mass between 0 and 1, such as 0.98')
        if self.mode == "threshold" and not self.threshold:
            raise ValueError('"threshold" needs a threshold up to 0.5, such as 0.05')
        if self.mode == "sampled" and not self.draws:
            raise ValueError('"sampled" needs a number of draws, such as 50')
        for key, reason in self.unused_keys().items():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no effect: {reason}")
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
