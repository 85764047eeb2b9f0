"""A teacher's rows over its own tokens, made into rows over a student's. Pure functions; knows no tokenizer.

What both tokenisations share is the bytes. The target before a student token is the law of the student's next token
when the teacher writes on from the same bytes and the student's tokenizer cuts what it writes. How much of that law
the stored rows tell depends on where the student's token starts:

EXACT: where a teacher token t starts too. The row before t is the law of what comes. Each entry x gives its probability
    to the student's first token of x, or to the tail where x has no bytes. Whether x goes on to a longer token of the
    student is not known, and taken for no. Of x = t it is known:
CHAINED: the same, and the student's token is longer than t. Its probability is that of t times what the next row gives
    to the rest of it, and so on through as many teacher tokens as it covers. This mass is taken from t, or where t is
    no entry, from the tail. What is left of t goes where all of t would, not into the tail: that says of mass that it
    is on none of the row's other ids. So that a target depends on what came next as little as can be, t is taken apart
    in this way wherever the student has tokens beginning with t that the teacher lacks, also where none of them came.
INSIDE: within a teacher token t. Of the row before t only the entries count that begin with the bytes c consumed of t;
    c is taken off, and what remains has their masses divided by the sum. Of the tail, and of entries that are c or its
    beginning, it is not known how they go on. All of their mass is the target's tail, an upper bound of what it should
    be; the row is kept only if that is at most MOST_UNKNOWN.
MASKED: everything else. No row there, no entry with bytes, another text before, another number of turns.

In all of them, entries that the student's tokenizer would have joined to its token before cannot come. They are left
out and what remains is divided by its sum, unless that adds more than MOST_UNKNOWN to the tail, of which nobody knows
what would have been left out. Entries and tail hold the mass that the teacher's row holds, 1. Equal vocabularies give
equal rows.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cache.examples.example import Segment
from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets
from student.tokenizers.teacher_span import Entries, TeacherSpan, edges, spell
from student.tokenizers.vocabulary_map import NONE, VocabularyMap

# Entries that hold no more than this are no law.
LEAST_MASS = 1e-6


class Alignment(IntEnum):
    """How a student token stands to the teacher's. PROMPT: nobody asks."""

    PROMPT = 0
    EXACT = 1
    CHAINED = 2
    INSIDE = 3
    MASKED = 4


@dataclass(frozen=True, slots=True)
class Aligned:
    """A student's window, and the Alignment of each of its tokens, uint8 [n]. Row j is the target of token j + 1."""

    window: Window
    kinds: npt.NDArray[np.uint8]


def align(
    teacher: Window, tokens: npt.NDArray[np.uint32], segments: npt.NDArray[np.uint8], vocabulary: VocabularyMap
) -> Aligned:
    """The window of a student's tokens, uint32 [n], and their segments, uint8 [n], with targets from the teacher's.

    Both windows are of one example, prompts included, and the assistant's runs of tokens in the one belong to those in
    the other, in order. The teacher's targets must be exact ones (topk, nucleus). Tokens of the student within the
    teacher's LABEL become LABEL. token_logprobs are NaN; entropy and log-normalisers do not survive.
    """
    n = len(tokens)
    kinds = np.where(segments == Segment.PROMPT, Alignment.PROMPT, Alignment.MASKED).astype(np.uint8)
    segments = segments.copy()
    found: list[Entries] = []
    said, heard = _runs(teacher.segments), _runs(segments)
    if len(said) == len(heard):
        for (first, last), (start, end) in zip(said, heard, strict=True):
            kinds[start:end], covering, entries = _align_run(teacher, first, last, tokens[start:end], vocabulary)
            labels = np.flatnonzero((covering >= 0) & (teacher.segments[covering] == Segment.LABEL))
            segments[start + labels] = Segment.LABEL
            found += [(start + places, ids, masses) for places, ids, masses in entries]
    targets = _sparse(n, found)
    without = np.append(True, targets.counts[:-1] == 0)
    kinds[without & (kinds != Alignment.PROMPT)] = Alignment.MASKED
    return Aligned(Window(tokens, segments, targets, np.full(n, np.nan, np.float32)), kinds)


def _align_run(
    teacher: Window, first: int, last: int, tokens: npt.NDArray[np.uint32], vocabulary: VocabularyMap
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[Entries]]:
    """One run of the assistant's tokens, first:last of the teacher's window, beside the student's [m].

    Returns the Alignment of each of the student's, uint8 [m], the teacher's token that it starts in, int64 [m], -1
    where none does, and the entries of their laws.
    """
    kinds, covering = np.full(len(tokens), Alignment.MASKED, np.uint8), np.full(len(tokens), -1, np.int64)
    said, heard = spell(teacher.tokens[first:last], vocabulary.teacher), spell(tokens, vocabulary.student)
    # Some tokenizers begin every text with a space of their own, and what comes first is then not the same.
    spaced = [bool(texts) and texts[0].startswith(b" ") for texts in (said, heard)]
    if spaced[0] != spaced[1]:
        texts = said if spaced[0] else heard
        texts[0] = texts[0][1:]
    span, starts = TeacherSpan(teacher, first, said, vocabulary), edges(heard)
    shared = _common_prefix(span.text, b"".join(heard))
    if first == 0 and shared < len(span.text):
        return kinds, covering, []  # cut on the left: even where texts agree, what precedes them does not
    within = np.searchsorted(span.starts, starts[:-1], side="right") - 1
    reached = (starts[:-1] <= shared) & (within < len(said))
    covering[: len(heard)][reached] = first + within[reached]
    if spaced[0] and not spaced[1]:
        reached &= within > 0
    elif spaced[1] and not spaced[0]:
        reached[0] = False
    reached[reached] = span.told[within[reached]]
    places = np.flatnonzero(reached)
    within = within[places]
    exact = span.starts[within] == starts[places]
    longer = starts[places + 1] > span.starts[within + 1]
    kinds[places] = np.where(exact, np.where(longer, Alignment.CHAINED, Alignment.EXACT), Alignment.INSIDE)
    before = np.where(places > 0, tokens[places - 1].astype(np.int64), NONE)
    apart = ~exact | longer | span.goes_on[within]
    row_of, ids, masses = span.whole_laws(within[~apart], before[~apart])
    found = [(places[~apart][row_of], ids, masses)]
    for k in np.flatnonzero(apart):
        law = span.law(int(within[k]), int(starts[places[k]]), int(starts[places[k] + 1]), int(before[k]))
        if law is not None:
            found.append((np.full(len(law[0]), places[k]), *law))
    return kinds, covering, found


def _sparse(n: int, found: list[Entries]) -> SparseTargets:
    """n rows from the entries of laws: masses of one id added, those of NONE the tail. The law of token j is row j - 1.

    Entries of equal mass stay in their order. Laws of which almost nothing is told are left out.
    """
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    places, ids, masses = (np.concatenate(parts) for parts in zip(nothing, *found, strict=True))
    preceded = places > 0
    rows, ids, masses = places[preceded] - 1, ids[preceded], masses[preceded]
    order = np.lexsort((ids, rows))
    fresh = np.append(True, (np.diff(rows[order]) != 0) | (np.diff(ids[order]) != 0))[: len(order)]
    groups = np.flatnonzero(fresh)
    masses = np.add.reduceat(masses[order], groups) if len(groups) else masses
    earliest = order[groups]
    rows, ids = rows[earliest], ids[earliest]
    entry = (ids != NONE) & (masses > 0)
    held = np.bincount(rows[entry], masses[entry], n)
    tails = np.bincount(rows[~entry], masses[~entry], n)
    kept = np.flatnonzero(entry & (held[rows] > LEAST_MASS))
    kept = kept[np.lexsort((earliest[kept], -masses[kept], rows[kept]))]
    counts = np.bincount(rows[kept], minlength=n)
    with np.errstate(divide="ignore"):
        log_tail = np.minimum(np.log(tails), -LEAST_MASS / 2)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        ids[kept].astype(np.uint32),
        np.minimum(np.log(masses[kept]), 0.0).astype(np.float32),
        np.where(counts > 0, log_tail, 0.0).astype(np.float32),
    )


def _runs(segments: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Where the assistant's runs of tokens start and end."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], segments != Segment.PROMPT, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edge.reshape(-1, 2)]


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes two texts begin with alike."""
    if one == other:
        return len(one)
    length = min(len(one), len(other))
    differ = np.frombuffer(one[:length], np.uint8) != np.frombuffer(other[:length], np.uint8)
    return int(np.argmax(differ)) if differ.any() else length
