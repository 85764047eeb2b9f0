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
    """Ids from 1 on; 0 is the prompt, which says nothing."""
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


def window(tokens: Sequence[int], rows: Sequence[Mapping[int, float]], own: bool = True) -> Window:
    """A prompt of one token, and what is said after it; rows[i] is the law of tokens[i]."""
    n = len(tokens)
    logprobs = np.full(n + 1, np.nan, np.float32)
    if own:
        logprobs[1:] = np.log([max(law.get(token, 1e-9), 1e-9) for token, law in zip(tokens, rows, strict=True)])
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * n, np.uint8)
    targets = concatenate([*(row(law) for law in rows), empty_targets(1)])
    return Window(np.array([PROMPT, *tokens], np.uint32), segments, targets, logprobs)


def greedy(text: bytes, student: Sequence[bytes | None]) -> list[int]:
    """Ids of a text, the longest that fits first."""
    ids = {data: id_ for id_, data in enumerate(student) if data}
    found = []
    while text:
        length = next(n for n in range(len(text), 0, -1) if text[:n] in ids)
        found.append(ids[text[:length]])
        text = text[length:]
    return found


def aligned(teacher: Window, tokens: Sequence[int], mapping: VocabularyMap) -> Aligned:
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * len(tokens), np.uint8)
    result = align(teacher, np.array([PROMPT, *tokens], np.uint32), segments, mapping)
    result.window.targets.validate(len(mapping.student), "aligned")
    assert result.window.targets.counts[-1] == 0, "nothing follows the last token"
    return result


def laws(result: Aligned) -> list[tuple[dict[int, float], float]]:
    """Masses by id, and the tail, for each spoken token."""
    targets = result.window.targets
    found = []
    for i in range(len(targets) - 1):
        one = targets.rows(i, i + 1)
        masses = np.exp(one.logprobs.astype(np.float64))
        found.append((dict(zip(one.ids.tolist(), masses.tolist(), strict=True)), float(np.exp(one.log_tail[0]))))
    return found


def kinds(result: Aligned) -> list[Alignment]:
    return [Alignment(kind) for kind in result.kinds[1:]]


@dataclass(frozen=True)
class Process:
    """A teacher whose tokens form a Markov chain: law[i, j] is the probability of j after i; 0 is the prompt."""

    texts: list[bytes | None]
    law: npt.NDArray[np.float64]

    @classmethod
    def random(cls, texts: list[bytes | None], seed: int) -> "Process":
        law = np.random.default_rng(seed).dirichlet(np.full(len(texts) - 1, 0.7), len(texts)) * 0.9 + 0.1 / len(
            texts[1:]
        )
        return cls(texts, np.pad(law, ((0, 0), (1, 0))))

    def sample(self, n: int, seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        tokens = [PROMPT]
        for _ in range(n):
            tokens.append(int(rng.choice(len(self.texts), p=self.law[tokens[-1]])))
        return tokens[1:]

    def window(self, tokens: Sequence[int]) -> Window:
        rows = [{id_: float(p) for id_, p in enumerate(self.law[before]) if p} for before in [PROMPT, *tokens[:-1]]]
        return window(tokens, rows)

    def continuations(self, before: int, length: int) -> list[tuple[bytes, float]]:
        """Every text of at least `length` bytes that may follow, and its probability."""
        if length <= 0:
            return [(b"", 1.0)]
        return [
            ((self.texts[id_] or b"") + text, float(p) * mass)
            for id_, p in enumerate(self.law[before])
            if p
            for text, mass in self.continuations(id_, length - len(self.texts[id_] or b""))
        ]


def truth(process: Process, said: Sequence[int], student: Sequence[bytes | None], place: int) -> dict[int, float]:
    """The law of the student's token at `place`, by enumeration of what the teacher may write from there.

    Given what is known there: the teacher's whole tokens before, and the student's.
    """
    texts = [process.texts[id_] or b"" for id_ in said]
    heard = greedy(b"".join(texts), student)
    start = sum(len(student[id_] or b"") for id_ in heard[:place])
    edges = np.cumsum([0, *map(len, texts)])
    i = int(np.searchsorted(edges, start, side="right")) - 1
    past, consumed = b"".join(texts[:i]), b"".join(texts)[edges[i] : start]
    longest = max(len(data) for data in student if data)
    law: dict[int, float] = {}
    for text, mass in process.continuations([PROMPT, *said][i], len(consumed) + longest):
        if text.startswith(consumed):
            cut = greedy(past + text, student)
            if cut[:place] == heard[:place]:
                law[cut[place]] = law.get(cut[place], 0.0) + mass
    total = sum(law.values())
    return {id_: mass / total for id_, mass in law.items()}


def assert_same_law(found: Mapping[int, float], wanted: Mapping[int, float]) -> None:
    assert {id_: round(mass, 5) for id_, mass in found.items()} == pytest.approx(
        {id_: mass for id_, mass in wanted.items() if mass > 1e-6}, abs=2e-5
    )
