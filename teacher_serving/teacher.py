"""What every teacher promises. Token ids go in, never text, so rows and tokens cannot drift apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import SamplingSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What a teacher is asked about. tokens: uint32 [n].

    key: 32 hexadecimal digits that identify the example; draws are seeded by it and by the position.
    rows: int64 [m], rising: the rows that are wanted when the tokens are scored; row j is the law of token j + 1. An
        encoder-decoder reads the tokens up to and with the first of them in its encoder, the others in its decoder.
    messages: the prompt as chat turns, for a service that reads no tokens; tools: schemas of what it may call.
    """

    key: str
    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """targets: n rows for n tokens, those that were not wanted empty.

    token_logprobs: float32 [n], of the tokens that follow wanted rows; NaN for the others.
    refusal: why the teacher has no answer to this request, "" where it has one.
    """

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """One response. tokens: uint32 [m], the end-of-sequence token included where it came.

    rows: m rows; row i is the distribution that token i was drawn from, before temperature. finished: ended by itself.
    refusal: why the teacher has no answer to this request, "" where it has one.
    """

    tokens: npt.NDArray[np.uint32]
    rows: SparseTargets
    token_logprobs: npt.NDArray[np.float32]
    finished: bool
    refusal: str = ""


class Teacher(Protocol):
    """A model that says what it expects next. Log-probabilities are those of the raw logits at temperature 1.

    A row for which the model gives no finite distribution has no entries.
    """

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Targets of the wanted rows of each request."""
        ...

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """One response to each prompt. Its draws depend on the request's key and on `sampling.seed` alone."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a service has answered so far, and what that cost by the prices of the settings."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@runtime_checkable
class Metered(Protocol):
    """A teacher that is paid by the token."""

    @property
    def usage(self) -> Usage: ...


@runtime_checkable
class CountsAnswers(Protocol):
    """A teacher that counts the requests that it has answered since its start, also while a call is running."""

    @property
    def answered(self) -> int: ...
