"""Which rows of an example a teacher is asked for, and where its answer belongs."""

import numpy as np
import numpy.typing as npt

from cache.examples.example import Segment, TokenizedExample
from teacher_serving.reduction.reducer import Rows
from teacher_serving.reduction.row_arrays import scatter_rows
from teacher_serving.teacher import Request, Scored


def scoring_request(tokenized: TokenizedExample, asked: str) -> Request:
    """Rows before each token of the assistant, or with asked = "all" before every token but the first."""
    following = np.arange(1, len(tokenized.tokens))
    if asked != "all":
        following = following[tokenized.segments[1:] != Segment.PROMPT]
    return Request(tokenized.key, tokenized.tokens, following - 1)


def continuation_request(prompt: Request, written: npt.NDArray[np.uint32]) -> Request:
    """Prompt and response together, and the rows that the response was drawn from."""
    n = len(prompt.tokens)
    return Request(prompt.key, np.concatenate([prompt.tokens, written]), np.arange(n - 1, n + len(written) - 1))


def build_scored(request: Request, rows: Rows) -> Scored:
    """The wanted rows of a request at their places among its tokens."""
    n = len(request.tokens)
    token_logprobs = np.full(n, np.nan, np.float32)
    token_logprobs[request.rows + 1] = rows.token_logprobs
    return Scored(scatter_rows(rows.targets, request.rows, n), token_logprobs)
