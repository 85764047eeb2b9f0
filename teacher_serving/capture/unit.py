"""Capture: wanted examples -> teacher -> records -> a committed part. Knows nothing of Ray or of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.examples.tokenizers import Tokenizer
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.quarantine.entries import quarantine_example
from cache.store.unit_writer import write_unit
from teacher_serving.asking.plan import SCORED_ORIGIN, PlannedExample
from teacher_serving.asking.prompter import Prompter
from teacher_serving.asking.rationales import generate_records
from teacher_serving.asking.requests import scoring_request
from teacher_serving.capture.stoppable import UNANSWERED, StoppableTeacher
from teacher_serving.teacher import Metered, Teacher


@dataclass(frozen=True, slots=True)
class UnitSummary:
    """The outcome of capturing one unit.

    rows: tokens with a target. is_committed: False if another capture had committed the unit before. refused: examples
    that the teacher could not answer, or whose answer is not kept. cost: price that the service charged. rows_from: see
    NamesRowSource. without_rows: committed examples whose log-probabilities the service did not return. stopped: why
    the teacher answers no more; "" if it answered all. bytes: of the part.
    """

    unit: str
    examples: int
    rows: int
    is_committed: bool
    refused: int = 0
    cost: float = 0.0
    rows_from: str = ""
    without_rows: int = 0
    stopped: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """Records of a unit in the order of its examples.

    refused: for each example that cannot be captured, by key, its id and the reason. cost: price that the service
    charged. stopped: why the teacher answers no more; "" if it answered all. Examples of the unit that are neither in
    records nor in refused are captured by a later run.
    """

    records: tuple[Record, ...]
    refused: Mapping[str, tuple[str, str]]
    cost: float = 0.0
    stopped: str = ""


def ask_teacher(
    teacher: Teacher,
    unit: Sequence[PlannedExample],
    tokenizer: Tokenizer,
    spec: StoreSpec,
    prompter: Prompter | None = None,
) -> Answers:
    """Ask about every example of a unit. One that has no good answer is refused, and its neighbours are not."""
    asked = StoppableTeacher(teacher)
    spent = _spent(teacher)
    # Longest first keeps the engine's batches full to the end.
    order = sorted(unit, key=lambda item: -len(item.teacher_prompt))
    records, refused = _score(asked, [item for item in order if item.tokenized.origin == SCORED_ORIGIN], spec)
    written = [item for item in order if item.tokenized.origin != SCORED_ORIGIN]
    if written and spec.sampling:
        responses, dropped = generate_records(asked, written, tokenizer, spec, spec.sampling, prompter)
        records |= responses
        refused |= dropped
    if asked.stopped:
        for key in _unanswered(unit, refused, spec):
            records.pop(key, None)
            refused.pop(key, None)
    in_order = tuple(records[item.key] for item in unit if item.key in records)
    return Answers(in_order, refused, _spent(teacher) - spent, asked.stopped)


def store_answers(
    storage: Storage, spec: StoreSpec, answers: Answers, codebooks: CodebookChoice | None = None
) -> UnitSummary:
    """Write the part of a unit and commit it. codebooks: those of a writer of many units."""
    # Before the commit, so that a committed unit accounts for all of its examples.
    for key, (example_id, reason) in answers.refused.items():
        quarantine_example(storage, key, example_id, reason)
    refused = len(answers.refused)
    if not answers.records:
        return UnitSummary("", 0, 0, True, refused, answers.cost, stopped=answers.stopped)
    commit, is_committed = write_unit(storage, spec, answers.records, codebooks=codebooks)
    without_rows = sum(not len(record.targets.ids) for record in answers.records) if spec.targets.max_entries else 0
    return UnitSummary(
        unit=commit.unit,
        examples=len(answers.records),
        rows=commit.rows,
        is_committed=is_committed,
        refused=refused,
        cost=answers.cost,
        without_rows=without_rows,
        stopped=answers.stopped,
        bytes=commit.part.bytes,
    )


def _score(
    teacher: Teacher, items: Sequence[PlannedExample], spec: StoreSpec
) -> tuple[dict[str, Record], dict[str, tuple[str, str]]]:
    """Score the responses that examples contain. Returns records, and ids with reasons of refused examples, by key."""
    records: dict[str, Record] = {}
    refused: dict[str, tuple[str, str]] = {}
    requests = [scoring_request(item.tokenized, spec.asked) for item in items]
    answers = teacher.score(requests) if requests else []
    for item, request, answer in zip(items, requests, answers, strict=True):
        if answer.refusal:
            refused[item.key] = (item.tokenized.example.id, answer.refusal)
        elif len(lost := request.rows[answer.targets.counts[request.rows] == 0]):
            reason = f"the teacher gave no finite distribution for token {int(lost[0]) + 1}"
            refused[item.key] = (item.tokenized.example.id, reason)
        else:
            records[item.key] = Record(item.key, item.tokenized, answer.targets, answer.token_logprobs)
    return records, refused


def _unanswered(unit: Sequence[PlannedExample], refused: Mapping[str, tuple[str, str]], spec: StoreSpec) -> set[str]:
    """Keys of the examples that a later run has to ask about again, because the teacher stopped.

    With keep = "rationalize", what becomes of a response depends on the other responses to the same example: if one of
    them is missing, all are asked for again.
    """
    keys = {key for key, (_, reason) in refused.items() if reason == UNANSWERED}
    if spec.prompting is None or spec.prompting.keep != "rationalize":
        return keys
    written = [item for item in unit if item.tokenized.origin != SCORED_ORIGIN]
    examples = {_prompt_of(item) for item in written if item.key in keys}
    return keys | {item.key for item in written if _prompt_of(item) in examples}


def _prompt_of(item: PlannedExample) -> tuple[str, bytes]:
    return item.tokenized.example.id, item.tokenized.tokens.tobytes()


def _spent(teacher: Teacher) -> float:
    """What a service has taken so far; 0 of a teacher that is none."""
    return teacher.usage.cost if isinstance(teacher, Metered) else 0.0
