"""The task: prompts for conversations, validated conversations, extraction prompts, and scores of answers."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import Progress
from cache.settings import StoreUri
from student.tasks.medical_conversation import page
from student.tasks.medical_conversation.cases import CONDITIONS
from student.tasks.medical_conversation.conversation import (
    Limits,
    count_exchanges,
    find_problem,
    parse_turns,
    statistics,
    write_turns,
)
from student.tasks.medical_conversation.prompts import EXTRACTION, MOODS, conversation_prompts, record_example
from student.tasks.medical_conversation.record import parse_record
from student.tasks.medical_conversation.record_scores import record_metrics, score_record
from student.tasks.medical_conversation.sections import parse_section, read_sections, score_section, section_metrics
from student.tasks.medical_conversation.synthetic import LabelledConversation, make_conversation
from student.tasks.medical_conversation.validation import valid_conversations
from student.tasks.medical_conversation.visits import read_visits
from student.tasks.task import Answer, Built, Chart, Panel, Task

# Number of the first held-out conversation of the grammar, far above those of any training set.
HELDOUT_START = 10_000_000
# Keys of `build` that each source of examples reads, beside stage and data.
_WRITTEN = ("topics", "moods", "exchanges", "count", "seed")
_KEYS: dict[str, tuple[str, ...]] = {
    "prompts": (*_WRITTEN, "shown"),
    "synthetic": (*_WRITTEN, "heldout_count", "instruction"),
    "conversations": ("conversations", "instruction", "exchanges", "exact_exchanges", "words"),
    "mts_dialog": ("folder",),
    "aci_bench": ("folder", "instruction", "max_words"),
}
# All keys that `build` reads, and those of them that judging a written conversation reads too.
_ALL_KEYS = tuple(dict.fromkeys(["stage", "data", *(key for keys in _KEYS.values() for key in keys)]))
_JUDGED = ("exchanges", "exact_exchanges", "words")


class MedicalConversation(Task):
    """Write conversations of doctor and patient, and extract records (`[task] name = "medical_conversation"`)."""

    build_keys: ClassVar[tuple[str, ...]] = tuple(key for key in _ALL_KEYS if key not in _JUDGED)
    labels_have_order: ClassVar[bool] = False  # headers of notes

    name: Literal["medical_conversation"] = Field("medical_conversation", description="selects this task")
    stage: Literal["conversations", "records"] = Field(
        "records", description="prompts to write conversations, or prompts to extract records"
    )
    data: Literal["synthetic", "conversations", "mts_dialog", "aci_bench"] = Field(
        "synthetic",
        description="conversations of which records are made: of a grammar, with true records, those of "
        "`conversations`, or the published files in `folder`",
    )
    topics: tuple[str, ...] = Field(tuple(CONDITIONS), min_length=1, description="of conversations; any text")
    moods: tuple[str, ...] = Field(MOODS, min_length=1, description="of patients; any text")
    exchanges: tuple[int, int] = Field((3, 8), description="least and most exchanges, a turn of each speaker")
    count: int = Field(1000, ge=1, description="conversations for training")
    heldout_count: int = Field(200, ge=1, description="held-out conversations of the grammar")
    seed: int = Field(0, ge=0, description="of topics, moods, exchanges and the grammar")
    shown: int = Field(
        0, ge=0, description="conversations of the grammar that a prompt shows first, as earlier answers"
    )
    conversations: StoreUri | None = Field(
        None, description="store of written conversations, or JSON Lines of them or of instruction, input and output"
    )
    exact_exchanges: bool = Field(True, description="leave out conversations with another number than requested")
    words: tuple[int, int] = Field((20, 1200), description="least and most words of a valid conversation")
    folder: Path | None = Field(None, description="folder with the published files of MTS-Dialog or ACI-bench")
    max_words: int | None = Field(
        None, ge=1, description="visits of ACI-bench end after so many words; none if not given"
    )
    instruction: str = Field(EXTRACTION, min_length=1, description="before the conversation in the prompt of a record")
    strict: bool = Field(False, description="an answer must be one JSON object and nothing else")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 1 <= self.exchanges[0] <= self.exchanges[1]:
            raise ValueError(f"exchanges = {list(self.exchanges)}: give the least and the most, from 1 on")
        for name in ("topics", "moods"):
            if not all(each.strip() for each in getattr(self, name)):
                raise ValueError(f"{name!r} has an empty text, which would be a gap in a prompt; remove it")
        if "\n\n" in self.instruction:
            raise ValueError("'instruction' has an empty line, which separates it from the conversation; remove it")
        return self

    @property
    def source(self) -> str:
        """What `build` makes examples of: "prompts", or the value of `data`."""
        return "prompts" if self.stage == "conversations" else self.data

    def unused_keys(self) -> dict[str, str]:
        if self.stage == "conversations":
            reason = 'stage = "conversations" builds prompts to write conversations'
            unused = {"data": reason}
        else:
            reason, unused = f'data = "{self.data}" does not read it', {}
        others = set(_ALL_KEYS) - {"stage", "data", *_KEYS[self.source]}
        return unused | dict.fromkeys(sorted(others), reason)

    def build(self, progress: Progress) -> Built:
        """Build the splits of the stage. The facts count what was left out, and describe the conversations."""
        if self.source == "prompts":
            prompts = conversation_prompts(self.topics, self.moods, self.exchanges, self.count, self.seed, self.shown)
            return Built({"prompts": prompts})
        if self.source == "synthetic":
            return self._build_synthetic(progress)
        if self.source == "conversations":
            if self.conversations is None:
                raise InputError(
                    'task.conversations is missing: data = "conversations" needs a store or a file of them'
                )
            limits = Limits(self.exchanges, self.exact_exchanges, self.words)
            examples, facts = valid_conversations(self.conversations, self.instruction, limits)
            if not examples:
                reasons = "; ".join(f"{count:,}: {reason}" for reason, count in facts["left_out"].items())
                raise InputError(f"task.conversations {self.conversations}: no conversation is valid: {reasons}")
            return Built({"records": examples}, facts)
        if self.folder is None:
            raise InputError(f'task.folder is missing: data = "{self.data}" needs the folder with its CSV files')
        if self.source == "mts_dialog":
            return Built(*read_sections(self.folder))
        return Built(*read_visits(self.folder, self.instruction, self.max_words))

    def inputs(self) -> list[Path] | None:
        """The file of conversations, if they are in one: the setting may also name a store, which is no path."""
        source = self.conversations
        if self.source == "conversations" and source is not None and "://" not in source and Path(source).is_file():
            return [Path(source)]
        return None

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score a record, a section or a conversation; the metadata of the example say which one it is."""
        facts = example.metadata
        match facts.get("kind"):
            case "record":
                return score_record(parse_record(text, self.strict), facts.get("record"), facts["conversation"])
            case "section":
                return score_section(text, facts["header"], facts["section_text"])
            case "conversation":
                limits = Limits(self.exchanges, self.exact_exchanges, self.words)
                problem = find_problem(parse_turns(text), limits, facts["topic"], facts["exchanges"])
                return {"valid": float(not problem), "exchanges": float(count_exchanges(parse_turns(text)))}
        raise InputError(
            f"example {example.id}: its metadata has no 'kind' of medical_conversation, so it is not one of its "
            "examples; give the [task] that built the examples"
        )

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Metrics of records, of sections, or the share of valid conversations."""
        if "parsed" in scores[0]:
            return record_metrics(scores)
        if "true_header" in scores[0]:
            return section_metrics(scores)
        return {name: sum(score[name] for score in scores) / len(scores) for name in ("valid", "exchanges")}

    def panel(self, example: Example, text: str) -> Panel | None:
        """A conversation beside its record or section."""
        facts = example.metadata
        if facts.get("kind") == "record":
            return page.record_panel(parse_record(text, self.strict), facts.get("record"), facts["conversation"])
        if facts.get("kind") == "section":
            true = (facts["header"], facts["section_text"])
            return page.section_panel(facts["conversation"], true, parse_section(text))
        return None

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """Tables of fields for records, confusion matrices for sections."""
        kinds = {answer["metadata"].get("kind") for given in answers.values() for answer in given}
        if kinds == {"record"}:
            return page.record_charts(answers)
        return page.section_charts(answers) if kinds == {"section"} else []

    def _build_synthetic(self, progress: Progress) -> Built:
        """Training and held-out conversations. No patient of one is a patient of the other, by name."""
        splits: dict[str, list[Example]] = {"heldout": [], "train": []}
        turns, facts, patients, others = [], list[dict[str, Any]](), set[str](), 0
        total = self.heldout_count + self.count
        for split, count, start in (("heldout", self.heldout_count, HELDOUT_START), ("train", self.count, 0)):
            for number in itertools.count(start):
                if len(splits[split]) == count:
                    break
                made = make_conversation(self.topics, self.moods, self.exchanges, self.seed, number)
                if split == "train" and made.name in patients:
                    others += 1
                    continue
                if split == "heldout":
                    patients.add(made.name)
                splits[split].append(_labelled_example(made, self.instruction, f"synthetic-{self.seed}-{number}"))
                turns.append(made.turns)
                facts.append(splits[split][-1].metadata)
                progress(len(turns), total)
        left_out = {"a patient of a held-out conversation": others}
        return Built(splits, {"left_out_of_train": left_out, **statistics(turns, facts)})


def _labelled_example(made: LabelledConversation, instruction: str, name: str) -> Example:
    metadata = {"topic": made.topic, "mood": made.mood, "exchanges": made.exchanges, "synthetic": True}
    metadata["record"] = made.record.model_dump()
    return record_example(write_turns(made.turns), instruction, metadata, made.record.to_json(), name)
