"""Texts with their classes, in memory: what a teacher's store, or a file of labelled examples, has for a classifier."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example
from cache.examples.tokenizers import tokenizer_digest
from cache.progress import Progress, no_progress
from cache.rows.sparse_targets import concatenate
from cache.store.logit_store import LogitStore
from student.classes.class_targets import (
    ClassRows,
    ClassSettings,
    answer_row,
    class_ids,
    class_log_probs,
    label_spellings,
    require_class_targets,
    true_class,
)
from student.tokenizers.bpe import learn_tokenizer


@dataclass(frozen=True, slots=True)
class ClassSource:
    """N texts, and what is known of their classes.

    names: the C classes. examples: N, as they were read.
    tokens: N arrays int64 [at most max_tokens], ids of the student. labels: int64 [N], true class or -1.
    teacher: what the teacher says, all of it known; None without one.
    left_out: examples that are not among the N, by reason. unmatched: labels that are no class, by text.
    truncated: texts that were longer than max_tokens.
    """

    names: tuple[str, ...]
    examples: tuple[Example, ...]
    tokens: tuple[npt.NDArray[np.int64], ...]
    labels: npt.NDArray[np.int64]
    teacher: ClassRows | None
    left_out: dict[str, int]
    unmatched: dict[str, int]
    truncated: int

    def __len__(self) -> int:
        return len(self.examples)

    def save(self, path: Path) -> None:
        """Write an .npz file that `load` reads."""
        facts = {
            "names": self.names,
            "examples": [asdict(example) for example in self.examples],
            "left_out": self.left_out,
            "unmatched": self.unmatched,
            "truncated": self.truncated,
        }
        arrays = {} if self.teacher is None else {f.name: getattr(self.teacher, f.name) for f in fields(ClassRows)}
        np.savez(
            path,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            tokens=np.concatenate([np.zeros(0, np.int64), *self.tokens]),
            lengths=np.array([len(each) for each in self.tokens], np.int64),
            labels=self.labels,
            **arrays,
        )

    @classmethod
    def load(cls, path: Path) -> "ClassSource":
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            facts = json.loads(archive["facts"].tobytes())
            names = [f.name for f in fields(ClassRows)]
            return cls(
                tuple(facts["names"]),
                tuple(
                    Example(**{**each, "messages": tuple(each["messages"]), "tools": tuple(each["tools"])})
                    for each in facts["examples"]
                ),
                tuple(np.split(archive["tokens"], np.cumsum(archive["lengths"])[:-1])),
                archive["labels"],
                ClassRows(*(archive[name] for name in names)) if names[0] in archive else None,
                facts["left_out"],
                facts["unmatched"],
                facts["truncated"],
            )

    @classmethod
    def from_store(
        cls,
        store: LogitStore,
        settings: ClassSettings,
        teacher_tokenizer: PreTrainedTokenizerBase,
        tokenizer: PreTrainedTokenizerBase,
        origins: Sequence[str] = ("scored", "generated"),
        progress: Progress = no_progress,
    ) -> "ClassSource":
        """Read a snapshot once. teacher_tokenizer: the one it was captured with; tokenizer: the student's own.

        Several responses to one prompt are as many texts. Raises StoreError where the store cannot say anything of the
        classes, SpecMismatchError for another teacher's tokenizer.
        """
        require_class_targets(store)
        if tokenizer_digest(teacher_tokenizer) != store.spec.tokenizer:
            raise SpecMismatchError(
                f"store {store.storage} was captured with another tokenizer than the one given to read its labels; "
                "give the teacher's"
            )
        ids, spellings = class_ids(settings, teacher_tokenizer), label_spellings(settings)
        wanted = np.flatnonzero(store.has_origin(origins))
        examples, rows, left_out, problem = [], [], Counter[str](), ""
        for done, i in enumerate(wanted, start=1):
            record = store[int(i)]
            example = record.tokenized.example
            try:
                row = answer_row(record.tokenized.segments, settings.at, example.id)
            except InputError as error:
                left_out[f"no token of the {settings.at}"] += 1
                problem = problem or f"; {error}"
            else:
                examples.append(example)
                rows.append(record.targets.rows(row, row + 1))
            progress(done, len(wanted))
        said = class_log_probs(concatenate(rows), ids)
        covered = said.known & (said.covered >= settings.min_covered)
        has_text = np.array([bool(input_text(example, settings.input)) for example in examples], bool)
        left_out["no label among the stored ids"] = int((~said.known).sum())
        left_out["labels of less mass than min_covered"] = int((said.known & ~covered).sum())
        left_out["no text"] = int((covered & ~has_text).sum())
        kept = np.flatnonzero(covered & has_text)
        if not len(kept):
            raise StoreError(f"{store.storage}: no example tells a class ({_told(left_out)}){problem}")
        return _source([examples[i] for i in kept], settings, spellings, tokenizer, said.take(kept), left_out)

    @classmethod
    def from_examples(
        cls, examples: Iterable[Example], settings: ClassSettings, tokenizer: PreTrainedTokenizerBase
    ) -> "ClassSource":
        """Labelled examples without a teacher, for hard labels. Raises InputError where none has a class and a text."""
        spellings = label_spellings(settings)
        kept, left_out = [], Counter[str]()
        for example in examples:
            if not input_text(example, settings.input):
                left_out["no text"] += 1
            elif true_class(example, spellings) < 0:
                left_out["a label that is no class" if example.label.strip() else "no label"] += 1
            else:
                kept.append(example)
        if not kept:
            raise InputError(f"no example has a text and one of the labels {', '.join(spellings)} ({_told(left_out)})")
        return _source(kept, settings, spellings, tokenizer, None, left_out)


def _source(
    examples: Sequence[Example],
    settings: ClassSettings,
    spellings: dict[str, int],
    tokenizer: PreTrainedTokenizerBase,
    teacher: ClassRows | None,
    left_out: Counter[str],
) -> ClassSource:
    labels = np.array([true_class(example, spellings) for example in examples], np.int64)
    texts = [input_text(example, settings.input) for example in examples]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ClassSource(
        tuple(settings.labels),
        tuple(examples),
        # Cut here: a tokenizer that is asked to cut would be saved as one that always does.
        tuple(np.array(each[: settings.max_tokens], np.int64) for each in ids),
        labels,
        teacher,
        dict(+left_out),
        dict(Counter(e.label for e, c in zip(examples, labels, strict=True) if c < 0 and e.label.strip())),
        sum(len(each) > settings.max_tokens for each in ids),
    )


def _told(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in (+left_out).items()) or "there are none"


def input_text(example: Example, which: Literal["last_turn", "all_turns"]) -> str:
    """What a classifier reads: of the prompt the last turn, or all turns joined by line breaks.

    The last turn of a trace is the answer itself, and never among them.
    """
    turns = example.messages[:-1] if example.is_trace else example.messages
    texts = [turn.get("content") or "" for turn in turns]
    return "\n".join(filter(None, texts)) if which == "all_turns" else "".join(texts[-1:])


def learn_input_tokenizer(
    examples: Iterable[Example], settings: ClassSettings, vocab_size: int
) -> PreTrainedTokenizerBase:
    """A byte-level BPE of at most `vocab_size` ids over what a student reads: give what it trains on, and no more."""
    texts = (input_text(example, settings.input) for example in examples)
    return learn_tokenizer((Example("", ({"role": "user", "content": text},)) for text in texts), vocab_size)


def pad_texts(tokens: Sequence[npt.NDArray[np.int64]], pad_id: int) -> tuple[Tensor, Tensor]:
    """input_ids and attention_mask, int64 [B, L], padded on the right to the longest (at least one token)."""
    lengths = np.array([len(each) for each in tokens])
    mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, np.int64)
    input_ids[mask] = np.concatenate([np.zeros(0, np.int64), *tokens])
    return torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64))
