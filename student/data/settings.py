"""Settings of the training data: stores or a file of examples."""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from cache.examples.example_order import BLOCK_TOKENS, FULL, SMALLEST_BATCH, WINDOW_TOKENS, Shuffle, default_window
from cache.settings import Settings, StoreUri

MAX_TOKENS = 2048


class StepSize(NamedTuple):
    """What a step has, over all ranks: a number of examples, or of their tokens. The other one is None."""

    examples: int | None
    tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.examples:,} examples" if self.examples is not None else f"{self.tokens:,} tokens"

    def expected_examples(self, sizes: npt.NDArray[np.integer]) -> int:
        """The number of examples of a step, about. sizes: tokens of each example."""
        if self.examples is not None:
            return self.examples
        return math.ceil((self.tokens or 0) / max(1.0, float(sizes.mean())))


class PinnedStore(Settings):
    """One of several stores."""

    store: StoreUri = Field(description="folder or address")
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")


class WeightedStore(PinnedStore):
    """A store with its weight in a mixture of examples, or in an average of several teachers."""

    weight: float = Field(1.0, gt=0, description="share, relative to the other stores")


class ReplaySettings(Settings):
    """Examples of a file that are mixed in, so that the student does not forget them. They have no teacher."""

    examples: Path = Field(description="JSON Lines file")
    weight: float = Field(1.0, gt=0, description="share, relative to a store of weight 1")


class CacheSettings(Settings):
    """A folder of each machine, on a local disk, with copies of the parts that its ranks and other runs read."""

    folder: Path = Field(description="may be removed at any time")
    gib: float = Field(100.0, gt=0, description="GiB of all copies in the folder, at most; the oldest give way")


class DataSettings(Settings):
    """Where examples come from: exactly one of the first five keys.

    store: a store that a capture wrote. union: several stores as one, without weights: an example that two of them have
    counts once. mixture: several stores, drawn from by weight. teachers: several stores of the
    same scored examples, whose distributions are averaged by weight. examples: a JSON Lines file (hard labels only).
    replay: examples of a file beside those of the stores. Only the hard-label terms of the loss learn from them.
    """

    store: StoreUri | None = None
    union: tuple[PinnedStore, ...] = ()
    mixture: tuple[WeightedStore, ...] = ()
    teachers: tuple[WeightedStore, ...] = ()
    examples: Path | None = None
    replay: ReplaySettings | None = Field(None, description="examples of a file, mixed in; none if not given")
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot of 'store'; the newest if not given")
    follow: int | None = Field(
        None,
        ge=1,
        description="steps after which the newest snapshot of 'store' is read, which may grow; none if not given",
    )
    origins: tuple[Literal["scored", "generated"], ...] = Field(
        ("scored", "generated"), description="which examples: given responses, responses by the teacher, or both"
    )
    where: dict[str, Any] = Field(
        {}, description="only examples whose metadata have these values; others are left out, and counted"
    )
    max_tokens: int = Field(
        MAX_TOKENS, ge=2, description="longer examples are left out, and counted; by default pack_to, if that is given"
    )
    align: Literal["same", "cross_tokenizer"] = Field(
        "same", description="cross_tokenizer: map the targets onto the tokens of a student with a tokenizer of its own"
    )
    pack_to: int | None = Field(
        None, ge=2, description="put several examples into rows of at most this many tokens; max_tokens or more"
    )
    order: Literal["blocks", "full"] = Field(
        "blocks",
        description="blocks: examples that are neighbours in the store are read together, and shuffled in a window; "
        "full: all examples are shuffled, and each is read alone, which is slower for short ones",
    )
    window_tokens: int | None = Field(
        None,
        ge=BLOCK_TOKENS,
        description="tokens of the window that the ranks keep in memory together; by default "
        f"{WINDOW_TOKENS:,} for each example of a batch, and at least {default_window(SMALLEST_BATCH):,}",
    )
    cache: CacheSettings | None = Field(
        None, description="local copies of a store that is far away; all parts ahead, if they fit; none if not given"
    )
    prefetch: int = Field(4, ge=1, description="steps that are read and decoded ahead")
    readers: int = Field(1, ge=1, description="threads a rank that read and decode")

    @model_validator(mode="before")
    @classmethod
    def _fill_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("pack_to"), int) and values.get("max_tokens") is None:
            return {**values, "max_tokens": values["pack_to"]}
        return values

    @model_validator(mode="after")
    def _fits_rows(self) -> Self:
        if self.pack_to is not None and self.max_tokens > self.pack_to:
            raise ValueError(
                f"max_tokens = {self.max_tokens} allows examples that are longer than a row of pack_to = "
                f"{self.pack_to} tokens; raise pack_to, or lower max_tokens or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("store", "union", "mixture", "teachers", "examples")
        present = [name for name in sources if getattr(self, name)]
        if len(present) != 1:
            listed = ", ".join(map(repr, sources[:-1]))
            raise ValueError(f"give exactly one of {listed} and 'examples', not {present or 'none'}")
        if len(self.teachers) == 1:
            raise ValueError("'teachers' averages several stores; give one as 'store'")
        if self.snapshot is not None and self.store is None:
            raise ValueError("'snapshot' is that of 'store'; give each store of a list its own")
        if self.follow is not None and (self.store is None or self.align != "same"):
            raise ValueError("'follow' reads one 'store' with the teacher's tokenizer; leave it out")
        if self.replay is not None and self.examples is not None:
            raise ValueError(
                "'replay' is mixed into the examples of stores; with 'examples', put all lines into one file"
            )
        if self.align == "cross_tokenizer" and self.store is None:
            raise ValueError("align = \"cross_tokenizer\" reads one 'store'")
        return self

    def unused_keys(self) -> dict[str, str]:
        unused = {}
        if self.examples is not None:
            unused["origins"] = "an examples file has given responses only"
            unused["cache"] = "an examples file is not a store"
        if self.teachers:
            unused["origins"] = "'teachers' averages the given responses only"
        if self.order == "full":
            unused["window_tokens"] = 'order = "full" has no window'
        if len(self.mixture) == 1:
            unused["mixture.0.weight"] = "there is one store"
        return unused

    def replayed(self) -> "DataSettings | None":
        """The settings of the file of 'replay', as if it were the only source; None without it."""
        if self.replay is None:
            return None
        shared = ("max_tokens", "pack_to", "order", "window_tokens")
        values = {name: getattr(self, name) for name in shared}
        return DataSettings.model_validate({**values, "examples": self.replay.examples})

    def shuffle(self, tokens: npt.NDArray[np.int64], step: StepSize) -> Shuffle:
        """How far examples are shuffled. tokens: of each example."""
        if self.order == "full":
            return FULL
        return Shuffle.of(tokens, self.window_tokens or default_window(step.expected_examples(tokens)))

    @property
    def stores(self) -> tuple[PinnedStore, ...]:
        """All stores, in order."""
        single = () if self.store is None else (PinnedStore(store=self.store, snapshot=self.snapshot),)
        return single or self.union or self.mixture or self.teachers
