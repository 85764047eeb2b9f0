"""Build requests for scoring, and put the rows of an answer at their positions."""

import numpy as np
import numpy.typing as npt

from cache.examples.example import Segment, TokenizedExample
from teacher_serving.reduction.row_arrays import scatter_rows
from teacher_serving.reduction.rows import Rows
from teacher_serving.teacher import Request, Scored


def scoring_request(tokenized: TokenizedExample, asked: str) -> Request:
    """Return a request that scores an example.

    asked: "assistant" for the rows before each token of the assistant, "all" for the rows before every token but the
    first.
    """
    next_positions = np.arange(1, len(tokenized.tokens))
    if asked != "all":
        next_positions = next_positions[tokenized.segments[1:] != Segment.PROMPT]
    return Request(tokenized.key, tokenized.tokens, next_positions - 1)


def continuation_request(prompt: Request, tokens: npt.NDArray[np.uint32]) -> Request:
    """Return a request that scores `tokens`, uint32 [m], as the continuation of a prompt."""
    n = len(prompt.tokens)
    return Request(prompt.key, np.concatenate([prompt.tokens, tokens]), np.arange(n - 1, n + len(tokens) - 1))


def build_scored(request: Request, rows: Rows) -> Scored:
    """Put the requested rows at their positions among the tokens of the request."""
    n = len(request.tokens)
    token_logprobs = np.full(n, np.nan, np.float32)
    token_logprobs[request.rows + 1] = rows.token_logprobs
    return Scored(scatter_rows(rows.targets, request.rows, n), token_logprobs)
