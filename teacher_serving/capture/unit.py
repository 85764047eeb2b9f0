"""Capture: wanted examples -> teacher -> records -> a committed part. Knows nothing of Ray or of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.examples.tokenizers import Tokenizer
from cache.rows.codebook import Codebook
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.commits import quarantine_example
from cache.store.unit_writer import write_unit
from teacher_serving.asking.plan import SCORED_ORIGIN, PlannedExample
from teacher_serving.asking.prompter import Prompter
from teacher_serving.asking.rationales import generate_records
from teacher_serving.asking.requests import scoring_request
from teacher_serving.teacher import Metered, Teacher


@dataclass(frozen=True, slots=True)
class UnitSummary:
    """The outcome of capturing one unit.

    rows: tokens with a target. is_committed: False if another capture had committed the unit before. refused: examples
    that the teacher could not answer, or whose answer is not kept. cost: price that the service charged. rows_from: see
    NamesRowSource.
    """

    unit: str
    examples: int
    rows: int
    is_committed: bool
    refused: int = 0
    cost: float = 0.0
    rows_from: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Records of a unit in the order of its examples.

    refused: for each example without a record, by key, the reason and the example's id. cost: price that the service
    charged.
    """

    records: tuple[Record, ...]
    refused: Mapping[str, tuple[str, str]]
    cost: float = 0.0


def ask_teacher(
    teacher: Teacher,
    unit: Sequence[PlannedExample],
    tokenizer: Tokenizer,
    spec: StoreSpec,
    prompter: Prompter | None = None,
) -> Answers:
    """Ask about every example of a unit. One that has no good answer is refused, and its neighbours are not."""
    spent = _spent(teacher)
    # Longest first keeps the engine's batches full to the end.
    order = sorted(unit, key=lambda item: -len(item.teacher_prompt))
    scored = [item for item in order if item.tokenized.origin == SCORED_ORIGIN]
    written = [item for item in order if item.tokenized.origin != SCORED_ORIGIN]
    records: dict[str, Record] = {}
    refused: dict[str, tuple[str, str]] = {}
    requests = [scoring_request(item.tokenized, spec.asked) for item in scored]
    answers = teacher.score(requests) if requests else []
    for item, request, answer in zip(scored, requests, answers, strict=True):
        if answer.refusal:
            refused[item.key] = (item.tokenized.example.id, answer.refusal)
        elif lost := [int(row) for row in request.rows if answer.targets.counts[row] == 0]:
            reason = f"the teacher gave no finite distribution for token {lost[0] + 1}"
            refused[item.key] = (item.tokenized.example.id, reason)
        else:
            records[item.key] = Record(item.key, item.tokenized, answer.targets, answer.token_logprobs)
    if written and spec.sampling:
        responses, dropped = generate_records(teacher, written, tokenizer, spec, spec.sampling, prompter)
        records |= responses
        refused |= dropped
    in_order = tuple(records[item.key] for item in unit if item.key in records)
    return Answers(in_order, refused, _spent(teacher) - spent)


def store_answers(storage: Storage, spec: StoreSpec, answers: Answers, codebook: Codebook | None = None) -> UnitSummary:
    """Write the part of a unit and commit it. codebook: the store's, where the caller holds it already."""
    # Before the commit, so that a committed unit accounts for all of its examples.
    for key, (example_id, reason) in answers.refused.items():
        quarantine_example(storage, key, example_id, reason)
    if not answers.records:
        return UnitSummary("", 0, 0, True, len(answers.refused), answers.cost)
    commit, is_committed = write_unit(storage, spec, answers.records, codebook=codebook)
    return UnitSummary(commit.unit, len(answers.records), commit.rows, is_committed, len(answers.refused), answers.cost)


def _spent(teacher: Teacher) -> float:
    """What a service has taken so far; 0 of a teacher that is none."""
    return teacher.usage.cost if isinstance(teacher, Metered) else 0.0
