"""A teacher whose distributions are known exactly, and what an alignment of its rows gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from cache.examples.example import Segment
from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from student.tokenizers.alignment import Aligned, Alignment, align
from student.tokenizers.vocabulary_map import VocabularyMap

PROMPT = 0


def vocabulary(*texts: str | bytes) -> list[bytes | None]:
    """Ids from 1 on; 0 is the prompt, which has no text."""
    return [None, *(text.encode() if isinstance(text, str) else text for text in texts)]


def row(entries: Mapping[int, float]) -> SparseTargets:
    """One row; what the entries leave of 1 is its tail."""
    ids = sorted(entries, key=lambda id_: -entries[id_])
    tail = 1 - sum(entries.values())
    return SparseTargets(
        np.array([0, len(ids)]),
        np.array(ids, np.uint32),
        np.log([entries[id_] for id_ in ids]).astype(np.float32),
        np.array([np.log(tail) if tail > 1e-9 else -np.inf], np.float32),
    )


def window(tokens: Sequence[int], rows: Sequence[Mapping[int, float]], has_logprobs: bool = True) -> Window:
    """A prompt of one token, and the tokens after it; rows[i] is the distribution of tokens[i]."""
    n = len(tokens)
    logprobs = np.full(n + 1, np.nan, np.float32)
    if has_logprobs:
        logprobs[1:] = np.log(
            [max(distribution.get(token, 1e-9), 1e-9) for token, distribution in zip(tokens, rows, strict=True)]
        )
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * n, np.uint8)
    targets = concatenate([*(row(distribution) for distribution in rows), empty_targets(1)])
    return Window(np.array([PROMPT, *tokens], np.uint32), segments, targets, logprobs)


def greedy(text: bytes, student: Sequence[bytes | None]) -> list[int]:
    """Ids of a text, the longest that fits first."""
    ids = {data: id_ for id_, data in enumerate(student) if data}
    tokens = []
    while text:
        length = next(n for n in range(len(text), 0, -1) if text[:n] in ids)
        tokens.append(ids[text[:length]])
        text = text[length:]
    return tokens


def aligned(teacher: Window, tokens: Sequence[int], mapping: VocabularyMap) -> Aligned:
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * len(tokens), np.uint8)
    result = align(teacher, np.array([PROMPT, *tokens], np.uint32), segments, mapping)
    result.window.targets.validate(len(mapping.student_bytes), "aligned")
    assert result.window.targets.counts[-1] == 0, "nothing follows the last token"
    return result


def distributions(result: Aligned) -> list[tuple[dict[int, float], float]]:
    """Masses by id, and the tail, for each spoken token."""
    targets = result.window.targets
    rows = []
    for i in range(len(targets) - 1):
        one = targets.rows(i, i + 1)
        masses = np.exp(one.logprobs.astype(np.float64))
        rows.append((dict(zip(one.ids.tolist(), masses.tolist(), strict=True)), float(np.exp(one.log_tail[0]))))
    return rows


def kinds(result: Aligned) -> list[Alignment]:
    return [Alignment(kind) for kind in result.kinds[1:]]


@dataclass(frozen=True)
class Process:
    """A teacher whose tokens form a Markov chain. distribution[i, j]: probability of j after i; 0 is the prompt."""

    texts: list[bytes | None]
    distribution: npt.NDArray[np.float64]

    @classmethod
    def random(cls, texts: list[bytes | None], seed: int) -> "Process":
        distribution = np.random.default_rng(seed).dirichlet(
            np.full(len(texts) - 1, 0.7), len(texts)
        ) * 0.9 + 0.1 / len(texts[1:])
        return cls(texts, np.pad(distribution, ((0, 0), (1, 0))))

    def sample(self, n: int, seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        tokens = [PROMPT]
        for _ in range(n):
            tokens.append(int(rng.choice(len(self.texts), p=self.distribution[tokens[-1]])))
        return tokens[1:]

    def window(self, tokens: Sequence[int]) -> Window:
        rows = [
            {id_: float(p) for id_, p in enumerate(self.distribution[before]) if p} for before in [PROMPT, *tokens[:-1]]
        ]
        return window(tokens, rows)

    def continuations(self, before: int, length: int) -> list[tuple[bytes, float]]:
        """Every text of at least `length` bytes that may follow, and its probability."""
        if length <= 0:
            return [(b"", 1.0)]
        return [
            ((self.texts[id_] or b"") + text, float(p) * mass)
            for id_, p in enumerate(self.distribution[before])
            if p
            for text, mass in self.continuations(id_, length - len(self.texts[id_] or b""))
        ]


def enumerated_distribution(
    process: Process, teacher_tokens: Sequence[int], student: Sequence[bytes | None], position: int
) -> dict[int, float]:
    """The distribution of the student's token at `position`, by enumeration of the teacher's continuations.

    It depends on the complete teacher tokens before this position, and on the student's tokens before it.
    """
    texts = [process.texts[id_] or b"" for id_ in teacher_tokens]
    student_tokens = greedy(b"".join(texts), student)
    start = sum(len(student[id_] or b"") for id_ in student_tokens[:position])
    edges = np.cumsum([0, *map(len, texts)])
    i = int(np.searchsorted(edges, start, side="right")) - 1
    past, consumed = b"".join(texts[:i]), b"".join(texts)[edges[i] : start]
    longest = max(len(data) for data in student if data)
    distribution: dict[int, float] = {}
    for text, mass in process.continuations([PROMPT, *teacher_tokens][i], len(consumed) + longest):
        if text.startswith(consumed):
            cut = greedy(past + text, student)
            if cut[:position] == student_tokens[:position]:
                distribution[cut[position]] = distribution.get(cut[position], 0.0) + mass
    total = sum(distribution.values())
    return {id_: mass / total for id_, mass in distribution.items()}


def assert_same_distribution(actual: Mapping[int, float], expected: Mapping[int, float]) -> None:
    assert {id_: round(mass, 5) for id_, mass in actual.items()} == pytest.approx(
        {id_: mass for id_, mass in expected.items() if mass > 1e-6}, abs=2e-5
    )
