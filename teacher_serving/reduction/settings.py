"""Settings of the targets: what is kept of each distribution."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.rows.spec import TargetMode, TargetSpec
from cache.settings import Settings

# The mode of a job that names none, by what the teacher gives; docs/decisions.md has the measurements.
OF_WHOLE_DISTRIBUTIONS: TargetMode = "sampled"
OF_LIKELY_TOKENS: TargetMode = "topk"
DEFAULT_K, DEFAULT_DRAWS = 64, 50
# Keys that one mode has, and by which it is named where `mode` is not given. The first one counts.
OWN_KEYS: dict[str, TargetMode] = {"mass": "nucleus", "threshold": "threshold", "draws": "sampled"}
NAMING_KEYS: dict[str, TargetMode] = {**OWN_KEYS, "k": "topk", "temperatures": "topk"}
# Draws are counted, not quantised.
QUANTISED: tuple[TargetMode, ...] = ("topk", "nucleus", "threshold")
MODES_OF_KEY: dict[str, tuple[TargetMode, ...]] = {
    **{key: (mode,) for key, mode in OWN_KEYS.items()},
    "systematic": ("sampled",),
    "k": ("topk", "nucleus"),
    # Estimates are biased at another temperature, whatever its normaliser is.
    "temperatures": ("topk", "nucleus"),
    "step": QUANTISED,
    "tail_step": QUANTISED,
}


class TargetSettings(Settings):
    """What is kept of each distribution (cache/rows/spec.py, TargetSpec, says what each field means)."""

    mode: TargetMode | None = Field(
        None,
        description="which entries of a distribution are stored. If it is not given: the mode whose `k`, `mass`, "
        "`threshold` or `draws` is given; topk for `temperatures`; otherwise sampled, or topk of a service, which has "
        "the likely tokens alone",
    )
    k: int | None = Field(None, ge=1, description=f"entries of topk, and at most of nucleus; {DEFAULT_K} if not given")
    mass: float | None = Field(None, gt=0, lt=1, description="probability that a nucleus contains")
    threshold: float | None = Field(
        None, gt=0, le=0.5, description="probability from which an entry of threshold is exact"
    )
    draws: int | None = Field(None, ge=1, le=4096, description=f"draws of sampled; {DEFAULT_DRAWS} if not given")
    systematic: bool = Field(True, description="draws at even distances: the same bytes, much less noise")
    entropy: bool = Field(False, description="keep the entropy of each whole distribution")
    temperatures: tuple[float, ...] = Field((), description="keep the log-normalisers at these temperatures")
    of: Literal["assistant", "all"] = Field("assistant", description='whose tokens; "all" takes the prompt too')
    step: float = Field(TargetSpec().step, gt=0, le=1, description="spacing in nats of stored log-probabilities")
    tail_step: float = Field(TargetSpec().tail_step, gt=0, le=2, description="greatest spacing, far below 1 / k")

    @property
    def named_mode(self) -> TargetMode | None:
        """The mode that is given, or that a key of one mode names; None to let the teacher decide."""
        given = (mode for key, mode in NAMING_KEYS.items() if getattr(self, key) not in (None, ()))
        return self.mode or next(given, None)

    def unused_keys(self) -> dict[str, str]:
        return {} if self.named_mode is None else self.unused_in(self.named_mode)

    def unused_in(self, mode: TargetMode) -> dict[str, str]:
        """Keys without an effect in a mode, each with the reason."""
        is_default = "" if self.named_mode else ", the default of this teacher"
        return {
            key: f"it belongs to mode = {' or '.join(map(repr, modes))}, and the mode is {mode!r}{is_default}"
            for key, modes in MODES_OF_KEY.items()
            if mode not in modes
        }

    @model_validator(mode="after")
    def _each_mode_has_its_own(self) -> Self:
        mode = self.named_mode
        if mode == "nucleus" and self.mass is None:
            raise ValueError('"nucleus" needs a mass between 0 and 1, such as 0.98')
        if mode == "threshold" and self.threshold is None:
            raise ValueError('"threshold" needs a threshold up to 0.5, such as 0.05')
        for key, reason in self.unused_keys().items():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no effect: {reason}")
        if any(not 0 < t < 100 or t == 1 for t in self.temperatures):
            raise ValueError("temperatures must be above 0 and other than 1, whose log-normaliser is 0")
        return self

    def with_mode(self, otherwise: TargetMode) -> Self:
        """The same with a mode: the named one, or `otherwise`."""
        return self.model_copy(update={"mode": self.named_mode or otherwise})

    def spec_with(self, k: int) -> TargetSpec:
        """The settings as a store keeps them. k: entries of topk and nucleus if none are given."""
        mode = self.named_mode or OF_WHOLE_DISTRIBUTIONS
        return TargetSpec(
            mode=mode,
            k=(self.k or k) if mode in MODES_OF_KEY["k"] else 0,
            step=self.step,
            tail_step=self.tail_step,
            mass=self.mass or 0.0,
            threshold=self.threshold or 0.0,
            draws=(self.draws or DEFAULT_DRAWS) if mode == "sampled" else 0,
            systematic=self.systematic and mode == "sampled",
            entropy=self.entropy,
            temperatures=self.temperatures,
        )

    @property
    def spec(self) -> TargetSpec:
        """The settings as a store of whole distributions keeps them."""
        return self.spec_with(DEFAULT_K)
