"""The stop text of a response: where an engine may end at it, and what to do if it ended too early."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cache.answers.parsing import find_stop
from cache.answers.reasoning import find_reasoning_end, opens_reasoning
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.spec import SamplingSpec
from teacher_serving.teacher import Generated, Request, Teacher

# More tokens than the longest opening tag and the end of line after it.
TAG_TOKENS = 16


def generate_until(
    teacher: Teacher, requests: Sequence[Request], sampling: SamplingSpec, tokenizer: Tokenizer, stop: str
) -> list[Generated]:
    """Return a response per request, at least up to where `stop` counts.

    An engine ends a response at the first stop text. In reasoning, and before any other text, it does not count. A
    response that ended there is asked for again without a stop text: it has the same start, and then goes on.
    """
    given = [
        request if prompt_opens_reasoning(request, tokenizer) else replace(request, stop=stop) for request in requests
    ]
    answers = list(teacher.generate(given, sampling))
    early = [i for i, answer in enumerate(answers) if _ended_early(given[i], answer, tokenizer)]
    if early:
        again = teacher.generate([replace(given[i], stop="") for i in early], sampling)
        for i, answer in zip(early, again, strict=True):
            answers[i] = answer
    return answers


def prompt_opens_reasoning(request: Request, tokenizer: Tokenizer) -> bool:
    """Whether a response begins inside reasoning, because its prompt ends with a tag such as <think>."""
    decoder: Any = tokenizer
    return opens_reasoning(str(decoder.decode(request.tokens[-TAG_TOKENS:].tolist(), skip_special_tokens=False)))


def answer_start(generated: Generated, text: str, tokenizer: Tokenizer) -> int:
    """Return the offset in the text of a response at which the answer begins after reasoning; 0 if there is none."""
    if generated.reasoning:
        return len(decode(generated.tokens[: generated.reasoning], tokenizer))
    return find_reasoning_end(text)


def _ended_early(request: Request, answer: Generated, tokenizer: Tokenizer) -> bool:
    """Whether a response ended at a stop text that does not count."""
    if not request.stop or answer.refusal or not answer.finished:
        return False
    if not decode(answer.tokens[-1:], tokenizer):  # the end token: the teacher ended the response itself
        return False
    text = decode(answer.tokens, tokenizer)
    has_stop = any(stop in text for stop in request.stop_texts)
    return has_stop and find_stop(text, request.stop, answer_start(answer, text, tokenizer)) == len(text)
