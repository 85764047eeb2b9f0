"""Generate responses, parse them, compare their labels, and ask again with a hint where no sample agrees."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.answers.parsing import ParsedAnswer, find_stop, parse_answer
from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.record import Record
from cache.rows.spec import PromptingSpec, SamplingSpec, StoreSpec
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.asking.prompter import Prompter
from teacher_serving.asking.requests import continuation_request
from teacher_serving.asking.selection import KeepPolicy, LabelMatch, compare_label, select_samples
from teacher_serving.asking.stop_texts import answer_start, generate_until, prompt_opens_reasoning
from teacher_serving.reduction.row_arrays import scatter_rows, take_rows
from teacher_serving.teacher import Generated, Request, Teacher

Rejected = dict[str, tuple[str, str]]
UNCHANGED_PROMPT = PromptingSpec("", "", "", "", "all", "", "same")


@dataclass(frozen=True, slots=True)
class Response:
    """A response to one prompt, cut at the stop text, with its parsed parts.

    reasoning_end: offset in the text at which the answer begins after reasoning; 0 if there is none.
    """

    planned: PlannedExample
    generated: Generated
    text: str
    parsed: ParsedAnswer
    judgement: LabelMatch
    reasoning_end: int = 0


def generate_records(
    teacher: Teacher,
    unit: Sequence[PlannedExample],
    tokenizer: Tokenizer,
    spec: StoreSpec,
    sampling: SamplingSpec,
    prompter: Prompter | None,
) -> tuple[dict[str, Record], Rejected]:
    """Return the records of selected responses by key, and the reasons for the others."""
    prompting = spec.prompting or UNCHANGED_PROMPT
    keep: KeepPolicy = prompting.keep  # type: ignore[assignment]  # checked by GenerationSettings
    rejected: Rejected = {}
    responses = _ask(teacher, [(item, item.request) for item in unit], tokenizer, sampling, prompting, rejected)
    kept: list[tuple[Response, bool]] = []
    to_retry: list[Response] = []
    for _, group in groupby(sorted(responses, key=_example_of), key=_example_of):
        samples = sorted(group, key=lambda response: response.planned.tokenized.origin)
        decision = select_samples([sample.judgement for sample in samples], keep)
        kept += [(samples[i], False) for i in decision.kept]
        for sample in (sample for i, sample in enumerate(samples) if i not in decision.kept):
            if decision.needs_hint and sample.planned.tokenized.example.label:
                to_retry.append(sample)
            else:
                rejected[sample.planned.key] = _rejection(sample)
    for response in _rationalize(teacher, to_retry, tokenizer, sampling, prompting, prompter, rejected):
        if response.judgement == "agrees":
            kept.append((response, True))
        else:
            rejected[response.planned.key] = _rejection(response)
    records = {}
    for response, hinted in kept:
        # A service can omit the distribution of a token. For any other teacher a missing one is an error.
        if not spec.service and (response.generated.rows.counts == 0).any():
            example_id = response.planned.tokenized.example.id
            rejected[response.planned.key] = (example_id, "the teacher gave no finite distribution")
        else:
            records[response.planned.key] = build_record(response, tokenizer, sampling.answer_marker, hinted)
    return records, rejected


def _example_of(response: Response) -> tuple[str, bytes]:
    """Return a key that all samples of one example share, and no other example has."""
    return response.planned.tokenized.example.identity, response.planned.teacher_prompt.tobytes()


def _ask(
    teacher: Teacher,
    pairs: Sequence[tuple[PlannedExample, Request]],
    tokenizer: Tokenizer,
    sampling: SamplingSpec,
    prompting: PromptingSpec,
    rejected: Rejected,
) -> list[Response]:
    """Return a response per request. Requests that the teacher refuses are added to `rejected`."""
    responses = []
    answers = generate_until(teacher, [request for _, request in pairs], sampling, tokenizer, prompting.stop)
    for (planned, request), generated in zip(pairs, answers, strict=True):
        if generated.refusal:
            rejected[planned.key] = (planned.tokenized.example.id, generated.refusal)
        else:
            in_reasoning = prompt_opens_reasoning(request, tokenizer)
            responses.append(
                _parse_response(planned, generated, tokenizer, sampling.answer_marker, prompting.stop, in_reasoning)
            )
    return responses


def _parse_response(
    planned: PlannedExample, generated: Generated, tokenizer: Tokenizer, marker: str, stop: str, in_reasoning: bool
) -> Response:
    """Cut a response at the stop text, parse it, and compare its label with the example's.

    in_reasoning: the response begins inside reasoning.
    """
    text, reasoning = decode(generated.tokens, tokenizer), generated.reasoning
    begin = answer_start(generated, text, tokenizer)
    if in_reasoning and not begin:  # the reasoning has not ended
        stop = ""
    if (end := find_stop(text, stop, begin)) < len(text):
        n = _tokens_within(generated.tokens, tokenizer, end)
        cut = generated.tokens[:n], generated.rows.rows(0, n), generated.token_logprobs[:n]
        generated = Generated(*cut, True, reasoning=min(reasoning, n))
        text = decode(generated.tokens, tokenizer)
    parsed = parse_answer(text, marker, stop, begin)
    judgement = compare_label(parsed, planned.tokenized.example.label)
    return Response(planned, generated, text, parsed, judgement, min(begin, len(text)))


# The length of the decoded prefix grows with the number of tokens, so boundaries can be bisected.
def _tokens_within(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer, offset: int) -> int:
    """Return the number of leading tokens whose text has at most `offset` characters."""
    return bisect_right(range(1, len(tokens) + 1), offset, key=lambda end: len(decode(tokens[:end], tokenizer)))


def _tokens_up_to(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer, text: str, offset: int) -> int:
    """Return the number of leading tokens that cover text[:offset]; the last one can extend beyond it."""
    n = bisect_left(range(len(tokens)), offset, key=lambda end: len(decode(tokens[:end], tokenizer)))
    # If several tokens encode one character, the first of them alone decode to another character.
    while not text.startswith(decode(tokens[:n], tokenizer)):
        n += 1
    return n


def _rejection(response: Response) -> tuple[str, str]:
    """Return the example's id and the reason why a response is not kept."""
    example = response.planned.tokenized.example
    problem = {"unparsed": "has no label", "disagrees": f"says {response.parsed.label!r}"}[response.judgement]
    return example.id, f"not kept: the response {problem}, and the label is {example.label!r}"


def _rationalize(
    teacher: Teacher,
    responses: Sequence[Response],
    tokenizer: Tokenizer,
    sampling: SamplingSpec,
    prompting: PromptingSpec,
    prompter: Prompter | None,
    rejected: Rejected,
) -> list[Response]:
    """Ask again with the label in the prompt, then score the responses after the usual prompt.

    The student never sees the hint, so the rows must not depend on it.
    """
    if not responses or prompter is None:
        return []
    pairs: list[tuple[PlannedExample, Request]] = []
    for planned in (response.planned for response in responses):
        try:
            pairs.append((planned, prompter.hint_request(planned.key, planned.tokenized.example, tokenizer)))
        except InputError as error:
            rejected[planned.key] = (planned.tokenized.example.id, str(error))
    hinted = _ask(teacher, pairs, tokenizer, sampling, prompting, rejected)
    requests = [
        continuation_request(Request(r.planned.key, r.planned.teacher_prompt), r.generated.tokens) for r in hinted
    ]
    rescored = []
    for response, request, scored in zip(hinted, requests, teacher.score(requests), strict=True):
        if scored.refusal:
            rejected[response.planned.key] = (response.planned.tokenized.example.id, scored.refusal)
            continue
        rows, logprobs = take_rows(scored.targets, request.rows), scored.token_logprobs[request.rows + 1]
        rescored.append(replace(response, generated=replace(response.generated, rows=rows, token_logprobs=logprobs)))
    return rescored


def build_record(response: Response, tokenizer: Tokenizer, marker: str, hinted: bool) -> Record:
    """Build the record of prompt and response, with the key that was planned."""
    prompt, generated, parsed = response.planned.tokenized, response.generated, response.parsed
    segments = np.full(len(generated.tokens), Segment.RESPONSE, np.uint8)
    facts: dict[str, Any] = {"finished": generated.finished, "status": parsed.status}
    rationale = response.text[: parsed.rationale_end if parsed.label else response.reasoning_end]
    segments[: _tokens_up_to(generated.tokens, tokenizer, response.text, len(rationale))] = Segment.RATIONALE
    if marker and parsed.label:
        # A label often begins inside a token that also contains the space before it.
        start = _tokens_within(generated.tokens, tokenizer, parsed.label_start)
        segments[start : _tokens_up_to(generated.tokens, tokenizer, response.text, parsed.label_end)] = Segment.LABEL
    if marker:
        facts |= {"teacher_label": parsed.label, "judgement": response.judgement, "hinted": hinted}
    example: Example = replace(
        prompt.example,
        rationale=rationale,
        response=response.text[len(rationale) :],
        metadata={**prompt.example.metadata, **facts},
    )
    n, m = len(prompt.tokens), len(generated.tokens)
    tokenized = TokenizedExample(
        example,
        np.concatenate([prompt.tokens, generated.tokens]),
        np.concatenate([prompt.segments, segments]),
        prompt.origin,
    )
    token_logprobs = np.concatenate([np.full(n, np.nan, np.float32), generated.token_logprobs])
    targets = scatter_rows(generated.rows, np.arange(n - 1, n + m - 1), n + m)
    return Record(response.planned.key, tokenized, targets, token_logprobs)
