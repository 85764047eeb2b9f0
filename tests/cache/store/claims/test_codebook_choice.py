"""A store begins with the codebook of its first unit, and gets better ones as more rows are seen."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache.parts.codebook_learning import code_bytes
from cache.rows.codebook import plain_codebook
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims import codebook_choice
from cache.store.claims.codebook_choice import GROWTH, CodebookChoice
from cache.store.claims.codebook_claim import newest_generation, read_claim

VOCAB, K = 4000, 16
SPEC = StoreSpec("t", "w", "t", "c", VOCAB, VOCAB, "float32", TargetSpec("topk", K), None)


class Teacher:
    """Its rows follow from the token before, so the more rows are seen, the more contexts are known."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._likely = self._rng.integers(0, VOCAB, (300, 3 * K))

    def unit(self, rows: int) -> tuple[SparseTargets, npt.NDArray[np.uint32]]:
        tokens = self._rng.integers(0, 300, rows)
        ids = np.stack([self._rng.permutation(np.unique(self._likely[token]))[:K] for token in tokens])
        logprobs = -np.sort(-self._rng.uniform(-8, -3.5, (rows, K)).astype(np.float32), axis=1)
        log_tail = np.log(1 - np.exp(logprobs.astype(np.float64)).sum(axis=1)).astype(np.float32)
        targets = SparseTargets(
            np.arange(0, rows * K + 1, K), ids.ravel().astype(np.uint32), logprobs.ravel(), log_tail
        )
        return targets, tokens.astype(np.uint32)


def bytes_of(choice: CodebookChoice, unit: tuple[SparseTargets, npt.NDArray[np.uint32]]) -> int:
    return code_bytes(*unit, SPEC.targets, choice.of_unit(*unit))


def test_a_better_codebook_is_learned_when_enough_was_seen(tmp_path: Path) -> None:
    storage, teacher = LocalStorage(tmp_path), Teacher()
    choice, first = CodebookChoice(storage, SPEC), teacher.unit(100)
    choice.of_unit(*first)
    assert newest_generation(storage) == 1 and read_claim(storage, 1)["rows"] == 100
    unseen = teacher.unit(400)
    before = bytes_of(CodebookChoice(storage, SPEC), unseen)
    for _ in range(4 * GROWTH):
        choice.of_unit(*teacher.unit(100))
    assert newest_generation(storage) >= 2 and read_claim(storage, 2)["rows"] >= GROWTH * 100
    after = bytes_of(CodebookChoice(storage, SPEC), unseen)
    assert after < 0.95 * before < code_bytes(*unseen, SPEC.targets, plain_codebook(VOCAB))


def test_another_writer_takes_the_newest_within_a_few_units(tmp_path: Path) -> None:
    storage, teacher = LocalStorage(tmp_path), Teacher()
    one, other = CodebookChoice(storage, SPEC), CodebookChoice(storage, SPEC)
    first = one.of_unit(*teacher.unit(100))
    assert other.of_unit(*teacher.unit(5)).digest == first.digest
    for _ in range(2 * GROWTH):
        newest = one.of_unit(*teacher.unit(100))
    assert newest.digest != first.digest
    seen = [other.of_unit(*teacher.unit(5)).digest for _ in range(codebook_choice.UNITS_PER_LOOK)]
    assert seen[0] == first.digest and seen[-1] == newest.digest


def test_threads_of_a_writer_learn_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch two codebooks of one generation, and rows that are learned from while others are added."""
    storage, teacher, learning = LocalStorage(tmp_path), Teacher(), []
    units = [teacher.unit(100) for _ in range(4 * GROWTH)]
    learn = codebook_choice.learn_codebook

    def alone(*arguments: Any) -> Any:
        learning.append(1)
        assert sum(learning) == 1
        try:
            time.sleep(0.02)
            return learn(*arguments)
        finally:
            learning.pop()

    monkeypatch.setattr(codebook_choice, "learn_codebook", alone)
    choice = CodebookChoice(storage, SPEC)
    with ThreadPoolExecutor(4) as pool:
        books = list(pool.map(lambda unit: choice.of_unit(*unit), units))
    known = {read_claim(storage, number + 1)["digest"] for number in range(newest_generation(storage))}
    assert {book.digest for book in books} <= known and len(known) >= 2


def test_the_sample_of_a_writer_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is full, a codebook of twice the rows is worth a try, and after that none."""
    monkeypatch.setattr(codebook_choice, "SAMPLE_ENTRIES", 300 * K)
    storage, teacher = LocalStorage(tmp_path), Teacher()
    choice = CodebookChoice(storage, SPEC)
    for _ in range(30):
        choice.of_unit(*teacher.unit(100))
    assert newest_generation(storage) == 2 and read_claim(storage, 2)["rows"] == 300


def test_rows_that_teach_nothing_new_make_no_generation(tmp_path: Path) -> None:
    storage, rng = LocalStorage(tmp_path), np.random.default_rng(1)
    choice = CodebookChoice(storage, SPEC)

    def unit() -> tuple[SparseTargets, npt.NDArray[np.uint32]]:
        ids = np.stack([rng.permutation(VOCAB)[:K] for _ in range(50)]).ravel().astype(np.uint32)
        logprobs = np.full(50 * K, -4.0, np.float32)
        log_tail = np.full(50, np.log(1 - K * np.exp(-4.0)), np.float32)
        return SparseTargets(np.arange(0, 50 * K + 1, K), ids, logprobs, log_tail), rng.integers(0, VOCAB, 50).astype(
            np.uint32
        )

    for _ in range(3 * GROWTH):
        choice.of_unit(*unit())
    assert newest_generation(storage) == 1


def test_units_without_rows_are_no_obstacle(tmp_path: Path) -> None:
    storage, teacher = LocalStorage(tmp_path), Teacher()
    choice = CodebookChoice(storage, SPEC)
    for rows in (0, 0, 100, 0, *([200] * 10)):
        choice.of_unit(*teacher.unit(rows)) if rows else choice.of_unit(*_none())
    assert newest_generation(storage) >= 2


def _none() -> tuple[SparseTargets, npt.NDArray[np.uint32]]:
    none = np.zeros(0, np.float32)
    return SparseTargets(np.zeros(1, np.int64), np.zeros(0, np.uint32), none, none), np.zeros(0, np.uint32)
