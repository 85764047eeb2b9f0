"""A teacher and a student tokenizer, and records of a teacher that judges answers as correct, wrong or partly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.answers.parsing import parse_answer
from cache.examples.example import Example, TokenizedExample
from cache.examples.tokenizers import tokenizer_digest
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.classification.labels import ClassIds
from student.classification.settings import ClassSettings
from student.tokenizers.bpe import learn_tokenizer
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.asking.rationales import Response, build_record
from teacher_serving.asking.selection import compare_label
from teacher_serving.teacher import Generated
from tests.cache.rows.rows import log_softmax, sparse, store_spec

WORDS = ["correct", "wrong", "partly", "Correct", "Wrong", "Partly", "Answer", "heat", "flows", "because", "ice"]
CORPUS = [
    Example("", ({"role": "user", "content": " ".join([word, *WORDS, f"{word}\n{word}"])},)) for word in WORDS * 3
]
TEACHER = learn_tokenizer(CORPUS, 400)
VOCAB = 420
SETTINGS = ClassSettings(labels=["correct", "wrong", "partly"])  # type: ignore[arg-type]  # a list is expanded


def token(text: str) -> int:
    (found,) = TEACHER(text, add_special_tokens=False)["input_ids"]
    return int(found)


def given_ids(*classes: tuple[int, ...]) -> ClassIds:
    pairs = sorted((i, c) for c, ids in enumerate(classes) for i in ids)
    names = tuple("abcdef"[: len(classes)])
    return ClassIds(names, np.array([i for i, _ in pairs]), np.array([c for _, c in pairs]))


def row(entries: dict[int, float], exact: int | None = None) -> SparseTargets:
    """One row of given probabilities, the exact ones first."""
    p = np.array(list(entries.values()))
    exact = len(p) if exact is None else exact
    with np.errstate(divide="ignore"):
        tail = np.log([max(0.0, 1 - p[:exact].sum())] if exact else [1.0])
    return SparseTargets(
        np.array([0, len(p)]),
        np.array(list(entries), np.uint32),
        np.log(p).astype(np.float32),
        tail.astype(np.float32),
        np.array([exact]),
    )


def teacher_record(
    text: str, number: int, seed: int, targets: TargetSpec
) -> tuple[Record, npt.NDArray[np.float64], npt.NDArray[np.uint32]]:
    """What the capture makes of a response with an answer marker, its whole distributions, and its tokens."""
    rng = np.random.default_rng(seed)
    question = f"ice {number}"
    prompt = np.asarray(TEACHER(question)["input_ids"], np.uint32)
    written = np.append(np.asarray(TEACHER(text)["input_ids"], np.uint32), np.uint32(TEACHER.eos_token_id))
    log_p = log_softmax(rng.normal(size=(len(written), VOCAB)))
    example = Example(f"e{number}", ({"role": "user", "content": question},), label=("correct", "Wrong ")[number % 2])
    tokenized = TokenizedExample(example, prompt, np.zeros(len(prompt), np.uint8), "generated/0")
    rows = sparse(rng, log_p, targets)
    said = Generated(written, rows, np.full(len(written), -1.0, np.float32), True)
    parsed = parse_answer(text, "Answer:")
    response = Response(PlannedExample(tokenized), said, text, parsed, compare_label(parsed, example.label))
    return build_record(response, TEACHER, "Answer:", False), log_p, written


def open_store(folder: Path, records: list[Record], targets: TargetSpec, tokenizer: Any = TEACHER) -> LogitStore:
    storage = LocalStorage(folder / "store")
    spec: StoreSpec = replace(store_spec(targets, VOCAB), tokenizer=tokenizer_digest(tokenizer))
    create_store(storage, spec)
    write_unit(storage, spec, records)
    take_snapshot(storage)
    return LogitStore.open(str(storage))


STUDENT = learn_tokenizer(CORPUS[:3], 300)
TOPK = TargetSpec("topk", VOCAB, step=0.01, tail_step=0.02)
AT_LABEL = ClassSettings(labels=["correct", "wrong", "partly"], at="label")  # type: ignore[arg-type]
