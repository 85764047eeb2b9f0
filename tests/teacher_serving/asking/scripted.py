"""A teacher that returns scripted responses, with rows that are a function of the tokens before them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.examples.example import Example, Segment
from cache.examples.tokenizers import decode
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import SamplingSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.reduction.row_arrays import scatter_rows
from teacher_serving.teacher import Generated, Request, Scored
from tests.records import random_targets

K, VOCABULARY = 4, 325


def law(tokens: Sequence[int]) -> SparseTargets:
    """The row that follows these tokens."""
    return random_targets(np.random.default_rng([len(tokens), *map(int, tokens)]), 1, K, VOCABULARY)


def laws(prompt: Sequence[int], response: Sequence[int]) -> np.ndarray:
    """Log-probabilities of the rows of a response, one after the other."""
    whole = [*prompt, *response]
    return np.concatenate([law(whole[: len(prompt) + i]).logprobs for i in range(len(response))])


def say(word: str, label: str = "two", **more: Any) -> Example:
    """An example that asks for a word."""
    return Example(word, ({"role": "user", "content": f"say {word}"},), label=label, **more)


def texts(record: Record, tokenizer: Any) -> dict[str, str]:
    """The text of the tokens of each segment, by its name."""
    tokens, segments = record.tokenized.tokens, record.tokenized.segments
    return {segment.name: decode(tokens[segments == segment], tokenizer) for segment in Segment}


@dataclass(frozen=True, slots=True)
class Say:
    """One answer. lost: the token whose row is not finite, if any."""

    text: str
    refusal: str = ""
    lost: int | None = None
    finished: bool = True


@dataclass
class Scripted:
    """Says `plain[word]` one after the other to prompts that say that word, and `hinted[word]` once told the answer.

    asked: the prompts so far, as text. scores: requests that were scored. unscorable: words whose scores have a row
    that is not finite; refused: those that are not scored at all.
    ends_at_stop: it ends at the first stop text, as engines do. repeats: it says the same again and again.
    """

    tokenizer: Any
    plain: Mapping[str, list[Say]] = field(default_factory=dict)
    hinted: Mapping[str, list[Say]] = field(default_factory=dict)
    unscorable: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    ends_at_stop: bool = False
    repeats: bool = False
    asked: list[str] = field(default_factory=list)
    scores: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = {
            True: {w: list(s) for w, s in self.hinted.items()},
            False: {w: list(s) for w, s in self.plain.items()},
        }

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        return [self._say(request) for request in requests]

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        answers = []
        for request in requests:
            self.scores.append(request)
            text = self._text(request)
            n, rows = len(request.tokens), [law(request.tokens[: j + 1].tolist()) for j in request.rows]
            own = np.full(n, np.nan, np.float32)
            own[request.rows + 1] = -1.0 - request.rows / 100
            if any(f"say {word}" in text for word in self.unscorable):
                rows[1] = empty_targets(1)
                own[request.rows[1] + 1] = np.nan
            refusal = next((f"no {word}" for word in self.refused if f"say {word}" in text), "")
            answers.append(Scored(scatter_rows(concatenate(rows), request.rows, n), own, refusal))
        return answers

    def _say(self, request: Request) -> Generated:
        text = self._text(request)
        self.asked.append(text)
        script = self._left["right answer is" in text]
        word = next(word for word in script if f"say {word}" in text)
        say = script[word][0] if self.repeats else script[word].pop(0)
        if say.refusal:
            return Generated(np.zeros(0, np.uint32), empty_targets(0), np.zeros(0, np.float32), False, say.refusal)
        ids = self.tokenizer(say.text, add_special_tokens=False)["input_ids"]
        stops = request.stop_texts if self.ends_at_stop else []
        ends = [n for n in range(1, len(ids) + 1) if any(stop in self.tokenizer.decode(ids[:n]) for stop in stops)]
        ids, finished = (ids[: ends[0]], True) if ends else (ids, say.finished)
        tokens = np.asarray(ids + [self.tokenizer.eos_token_id] * (finished and not ends), np.uint32)
        whole = continuation_request(request, tokens)
        rows = [law(whole.tokens[: j + 1].tolist()) for j in whole.rows]
        own = np.linspace(-1, -2, len(tokens), dtype=np.float32)
        if say.lost is not None:
            rows[say.lost] = empty_targets(1)
            own[say.lost] = np.nan
        return Generated(tokens, concatenate(rows), own, finished)

    def _text(self, request: Request) -> str:
        return str(self.tokenizer.decode(request.tokens.tolist()))
