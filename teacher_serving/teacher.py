"""The Teacher protocol. Its input is token ids, never text, so that rows always belong to the right tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cache.errors import LogitbankError
from cache.rows.sparse_targets import SparseTargets, empty_targets
from cache.rows.spec import SamplingSpec


class TeacherDiedError(LogitbankError):
    """A teacher that cannot be used any more. A new process may start another one."""


class TeacherStoppedError(LogitbankError):
    """A teacher that answers no more requests now, such as a service without credit. The job ends.

    answers: for each request of the call its answer, or None if there is none.
    """

    def __init__(self, message: str, answers: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.answers = answers


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a teacher. tokens: uint32 [n].

    key: 32 hexadecimal digits that identify the example; it and the position seed the draws.
    rows: int64 [m], ascending: the rows to score; row j is the distribution of token j + 1. The encoder of an
        encoder-decoder reads the tokens up to and including position rows[0]. Its decoder reads the others.
    messages: the prompt as chat turns, for a service that does not accept tokens.
    tools: schemas of tools that the teacher may call.
    stop: text at whose occurrence at the start of a line the teacher may end a response, "" for none. It saves tokens
        that would be cut off. The response may contain it, and may go on after it. Chat services do not receive it:
        their answers leave it out, so nobody could see that they ended in reasoning.
    """

    key: str
    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    stop: str = ""

    @property
    def stop_texts(self) -> list[str]:
        """Texts at which an engine ends a response."""
        return [f"\n{self.stop}"] if self.stop else []


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a request. targets: n rows for n tokens; rows that were not requested are empty.

    token_logprobs: float32 [n], of the tokens after the requested rows; NaN for the others.
    refusal: why the teacher did not answer this request; "" if it did.
    """

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """One response. tokens: uint32 [m], including the end-of-sequence token if there is one.

    rows: m rows; row i is the distribution that token i was drawn from, before temperature.
    finished: whether the teacher ended the response itself.
    refusal: why the teacher did not answer this request; "" if it did.
    reasoning: number of leading tokens that a service returned as the reasoning before the answer.
    """

    tokens: npt.NDArray[np.uint32]
    rows: SparseTargets
    token_logprobs: npt.NDArray[np.float32]
    finished: bool
    refusal: str = ""
    reasoning: int = 0


def refused_score(request: Request, reason: str) -> Scored:
    """The result of scoring a request that the teacher refused."""
    n = len(request.tokens)
    return Scored(empty_targets(n), np.full(n, np.nan, np.float32), reason)


def refused_response(reason: str) -> Generated:
    """The result of a request for a response that the teacher refused."""
    return Generated(np.zeros(0, np.uint32), empty_targets(0), np.zeros(0, np.float32), False, reason)


class Teacher(Protocol):
    """A model that returns next-token distributions. Log-probabilities are of the raw logits at temperature 1.

    A row without a finite distribution has no entries.
    """

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Return the targets of the requested rows of each request."""
        ...

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """Return one response per prompt. Its draws depend only on the key of the request and on `sampling.seed`."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens that a service has answered so far, and their cost by the prices of the settings."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@runtime_checkable
class Metered(Protocol):
    """A teacher that charges per token."""

    @property
    def usage(self) -> Usage: ...


@runtime_checkable
class NamesRowSource(Protocol):
    """A teacher that may have to make its rows in another way than usual.

    rows_from: this way, and why; "" if it is the usual one.
    """

    @property
    def rows_from(self) -> str: ...


@runtime_checkable
class CountsAnswers(Protocol):
    """A teacher that counts the requests that it has answered since its start, also while a call is running."""

    @property
    def answered(self) -> int: ...
