"""Texts with their classes, in memory: from a teacher's store, or from a file of labelled examples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example
from cache.examples.tokenizers import tokenizer_digest
from cache.progress import Progress, no_progress
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.store.logit_store import LogitStore
from cache.store.reading.selection import has_metadata, select_metadata
from student.classification.labels import class_ids, label_spellings, true_class
from student.classification.probabilities import ClassProbabilities, answer_row, class_log_probs, require_class_targets
from student.classification.settings import ClassSettings
from student.classification.texts import encode_segments, input_segments
from student.data.sources import OTHER_METADATA

NO_CLASS = "a label that is no class"


@dataclass(frozen=True, slots=True)
class ClassSource:
    """N texts and their classes.

    names: the C classes. examples: N, as they were read.
    tokens: N arrays int64 [at most max_tokens], ids of the student's tokenizer. labels: int64 [N], true class or -1.
    teacher: the teacher's probabilities, each row with a class; None without a teacher.
    left_out: number of examples that are not among the N, by reason. unmatched: how often a label is no class, by its
    text, among the N and those left out.
    truncated: number of texts that were longer than max_tokens.
    """

    names: tuple[str, ...]
    examples: tuple[Example, ...]
    tokens: tuple[npt.NDArray[np.int64], ...]
    labels: npt.NDArray[np.int64]
    teacher: ClassProbabilities | None
    left_out: dict[str, int]
    unmatched: dict[str, int]
    truncated: int

    def __len__(self) -> int:
        return len(self.examples)

    @classmethod
    def from_store(
        cls,
        store: LogitStore,
        settings: ClassSettings,
        teacher_tokenizer: PreTrainedTokenizerBase,
        tokenizer: PreTrainedTokenizerBase,
        origins: Sequence[str] = ("scored", "generated"),
        progress: Progress = no_progress,
        where: Mapping[str, Any] | None = None,
    ) -> "ClassSource":
        """Read a snapshot once. teacher_tokenizer: that of the capture; tokenizer: the student's.

        where: values that the metadata of an example must have.
        Each response to a prompt gives one text. Raises StoreError if the store has no probabilities of the classes,
        SpecMismatchError for another tokenizer than the teacher's.
        """
        require_class_targets(store)
        if tokenizer_digest(teacher_tokenizer) != store.spec.tokenizer:
            raise SpecMismatchError(
                f"store {store.storage} was captured with another tokenizer than the one given to read its labels; "
                "give the teacher's"
            )
        ids, spellings = class_ids(settings, teacher_tokenizer), label_spellings(settings)
        examples, rows, left_out, problem = _answer_rows(store, settings, origins, where or {}, progress)
        probabilities = class_log_probs(concatenate(rows), ids)
        is_covered = probabilities.has_class & (probabilities.label_mass >= settings.min_covered)
        has_text = np.array([any(input_segments(example, settings)) for example in examples], bool)
        left_out["no label among the stored ids"] = int((~probabilities.has_class).sum())
        left_out["labels of less mass than min_covered"] = int((probabilities.has_class & ~is_covered).sum())
        left_out["no text"] = int((is_covered & ~has_text).sum())
        usable = np.flatnonzero(is_covered & has_text)
        if not len(usable):
            raise StoreError(f"{store.storage}: no example has a class ({_reasons(left_out)}){problem}")
        selected = [examples[i] for i in usable]
        return _source(selected, settings, spellings, tokenizer, probabilities.take(usable), left_out)

    @classmethod
    def from_examples(
        cls,
        examples: Sequence[Example],
        settings: ClassSettings,
        tokenizer: PreTrainedTokenizerBase,
        where: Mapping[str, Any] | None = None,
    ) -> "ClassSource":
        """Labelled examples without a teacher, for hard labels. Raises InputError if none has a class and a text.

        where: values that the metadata of an example must have.
        """
        spellings = label_spellings(settings)
        usable, left_out, unmatched = [], Counter[str](), Counter[str]()
        if where:
            fits = has_metadata(examples, where, "the examples")
            left_out[OTHER_METADATA] = int(np.count_nonzero(~fits))
            examples = [examples[i] for i in np.flatnonzero(fits)]
        for example in examples:
            if not any(input_segments(example, settings)):
                left_out["no text"] += 1
            elif true_class(example, spellings) >= 0:
                usable.append(example)
            elif example.label.strip():
                left_out[NO_CLASS] += 1
                unmatched[example.label] += 1
            else:
                left_out["no label"] += 1
        if not usable:
            names, others = ", ".join(spellings), f"; their labels: {frequent_labels(unmatched)}" if unmatched else ""
            raise InputError(f"no example has a text and one of the labels {names} ({_reasons(left_out)}{others})")
        source = _source(usable, settings, spellings, tokenizer, None, left_out)
        return replace(source, unmatched=dict(unmatched))

    def save(self, path: Path) -> None:
        """Write an .npz file that `load` reads."""
        facts = {
            "names": self.names,
            "examples": [asdict(example) for example in self.examples],
            "left_out": self.left_out,
            "unmatched": self.unmatched,
            "truncated": self.truncated,
        }
        names = [] if self.teacher is None else [field.name for field in fields(ClassProbabilities)]
        np.savez(
            path,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            tokens=np.concatenate([np.zeros(0, np.int64), *self.tokens]),
            lengths=np.array([len(each) for each in self.tokens], np.int64),
            labels=self.labels,
            **{name: getattr(self.teacher, name) for name in names},
        )

    @classmethod
    def load(cls, path: Path) -> "ClassSource":
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            facts = json.loads(archive["facts"].tobytes())
            names = [field.name for field in fields(ClassProbabilities)]
            return cls(
                tuple(facts["names"]),
                tuple(
                    Example(**{**each, "messages": tuple(each["messages"]), "tools": tuple(each["tools"])})
                    for each in facts["examples"]
                ),
                tuple(np.split(archive["tokens"], np.cumsum(archive["lengths"])[:-1])),
                archive["labels"],
                ClassProbabilities(*(archive[name] for name in names)) if names[0] in archive else None,
                facts["left_out"],
                facts["unmatched"],
                facts["truncated"],
            )


def frequent_labels(unmatched: Mapping[str, int]) -> str:
    """The most frequent labels of `unmatched`, for a message."""
    frequent = [f"{label!r} ({count:,})" for label, count in Counter(unmatched).most_common(5)]
    return ", ".join([*frequent, *(["others"] if len(unmatched) > len(frequent) else [])])


def answer_prompts(
    store: LogitStore, settings: ClassSettings, origins: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """The teacher's token ids before its answer, int64 [n], by the identity of the example.

    Examples without an answer are left out.
    """
    prompts = {}
    for record in chain.from_iterable(store.batches(np.flatnonzero(store.has_origin(origins)))):
        example = record.tokenized.example
        try:
            row = answer_row(record.tokenized.segments, settings.at, example.id)
        except InputError:
            continue
        prompts[example.identity] = record.tokenized.tokens[: row + 1].astype(np.int64)
    return prompts


def _answer_rows(
    store: LogitStore, settings: ClassSettings, origins: Sequence[str], where: Mapping[str, Any], progress: Progress
) -> tuple[list[Example], list[SparseTargets], Counter[str], str]:
    """Examples with an answer and their answer rows, the number of examples without one, and why, for a message."""
    examples, rows, left_out, problem = [], [], Counter[str](), ""
    of_origin = np.flatnonzero(store.has_origin(origins))
    indices = select_metadata(store, of_origin, where, str(store.storage)) if where else of_origin
    left_out[OTHER_METADATA] = len(of_origin) - len(indices)
    for done, record in enumerate(chain.from_iterable(store.batches(indices)), start=1):
        example = record.tokenized.example
        try:
            row = answer_row(record.tokenized.segments, settings.at, example.id)
        except InputError as error:
            left_out[f"no token of the {settings.at}"] += 1
            problem = problem or f"; {error}"
        else:
            examples.append(example)
            rows.append(record.targets.rows(row, row + 1).copy())  # a view would keep its whole batch in memory
        progress(done, len(indices))
    return examples, rows, left_out, problem


def _source(
    examples: Sequence[Example],
    settings: ClassSettings,
    spellings: dict[str, int],
    tokenizer: PreTrainedTokenizerBase,
    teacher: ClassProbabilities | None,
    left_out: Counter[str],
) -> ClassSource:
    labels = np.array([true_class(example, spellings) for example in examples], np.int64)
    texts = [input_segments(example, settings) for example in examples]
    tokens, cut = encode_segments(texts, tokenizer, settings.max_tokens)
    return ClassSource(
        tuple(settings.labels),
        tuple(examples),
        tuple(tokens),
        labels,
        teacher,
        dict(+left_out),
        dict(Counter(e.label for e, c in zip(examples, labels, strict=True) if c < 0 and e.label.strip())),
        cut,
    )


def _reasons(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in (+left_out).items()) or "there are none"
