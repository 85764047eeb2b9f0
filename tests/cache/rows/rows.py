"""Random rows of every mode and sharpness, records of them, and exact comparison of what is read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetMode, TargetSpec

VOCAB = 500
MODES: tuple[TargetMode, ...] = ("topk", "nucleus", "threshold", "sampled")
TARGETS = {
    "topk": TargetSpec("topk", 20, entropy=True, temperatures=(2.0, 4.0)),
    "nucleus": TargetSpec("nucleus", 40, mass=0.9),
    "threshold": TargetSpec("threshold", threshold=0.01, entropy=True),
    "sampled": TargetSpec("sampled", draws=50, temperatures=(0.5,)),
}


def store_spec(targets: TargetSpec, vocab: int = VOCAB) -> StoreSpec:
    return StoreSpec("teacher", "weights", "tokenizer", "template", vocab, vocab, "float32", targets, None)


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def sparse(
    rng: np.random.Generator, log_p: npt.NDArray[np.float64], spec: TargetSpec, counts: Sequence[int] | None = None
) -> SparseTargets:
    """Whole distributions float64 [rows, vocabulary] made sparse as `spec` says. counts: entries instead of k."""
    rows = []
    for i, row in enumerate(log_p):
        k = spec.k if counts is None else counts[i]
        rows.append(_sparse_row(rng, row, spec, k))
    if not rows:
        return _declared(empty_targets(0), log_p, spec)
    return _declared(concatenate(rows), log_p, spec)


def _sparse_row(rng: np.random.Generator, log_p: npt.NDArray[np.float64], spec: TargetSpec, k: int) -> SparseTargets:
    p = np.exp(log_p)
    order = np.argsort(-log_p, kind="stable")
    drawn, weights = np.zeros(0, np.int64), np.zeros(0)
    if spec.mode == "sampled":
        exact = order[:0]
        draws = rng.multinomial(spec.draws, p / p.sum())
        drawn = np.flatnonzero(draws)
        weights = np.log(draws[drawn] / spec.draws)
    elif spec.mode == "threshold":
        exact = order[: int((p >= spec.threshold).sum())]
        below = np.sort(order[len(exact) :])
        edges = np.floor(np.cumsum(p[below]) / spec.threshold + rng.uniform())
        drawn = below[np.diff(edges, prepend=0.0) > 0]
        weights = np.full(len(drawn), np.log(spec.threshold))
    elif spec.mode == "nucleus":
        enough = int(np.searchsorted(np.cumsum(p[order]), spec.mass)) + 1
        exact = order[: min(k, enough)]
    else:
        exact = order[:k]
    exact = exact[log_p[exact] >= LOWEST_LOGPROB]
    left = np.delete(log_p, exact)
    with np.errstate(divide="ignore"):
        tail = np.log(np.exp(left).sum()) if len(exact) else 0.0
    values = np.minimum(np.concatenate([log_p[exact], weights]), 0.0).astype(np.float32)
    return SparseTargets(
        np.array([0, len(values)]),
        np.concatenate([exact, drawn]).astype(np.uint32),
        values,
        np.array([min(tail, -1e-30) if len(exact) else 0.0], np.float32),
        np.array([len(exact)]) if spec.has_sampled else None,
    )


def _declared(targets: SparseTargets, log_p: npt.NDArray[np.float64], spec: TargetSpec) -> SparseTargets:
    """With the entropy and log-normalisers that the spec declares."""
    p = np.exp(log_p)
    entropy = -(p * np.maximum(log_p, -1e4)).sum(axis=1)
    powers = [np.log(np.exp(log_p / t).sum(axis=1)) for t in spec.temperatures]
    return replace(
        targets,
        entropy=entropy.astype(np.float32) if spec.entropy else None,
        log_normalizers=np.stack(powers, axis=1).astype(np.float32) if powers else None,
    )


def random_rows(
    rng: np.random.Generator, rows: int, spec: TargetSpec, vocab: int = VOCAB, sharpness: float = 3.0
) -> SparseTargets:
    return sparse(rng, log_softmax(rng.normal(size=(rows, vocab)) * sharpness), spec)


def random_record(
    rng: np.random.Generator,
    name: str,
    prompt: int,
    response: int,
    spec: TargetSpec,
    vocab: int = VOCAB,
    sharpness: float = 3.0,
) -> Record:
    """A document of prompt + response tokens, with a target before each token of the response."""
    n = prompt + response
    segments = np.array([Segment.PROMPT] * prompt + [Segment.RESPONSE] * response, np.uint8)
    tokens = rng.integers(0, vocab, n).astype(np.uint32)
    targets = empty_targets(n)
    if response and prompt:
        targets = concatenate(
            [empty_targets(prompt - 1), random_rows(rng, response, spec, vocab, sharpness), empty_targets(1)]
        )
    token_logprobs = np.full(n, np.nan, np.float32)
    token_logprobs[prompt:] = -rng.integers(0, 2000, n - prompt) / 64
    example = Example(name, ({"role": "user", "content": f"text of {name} ü"},), "", "said", {"n": n})
    tokenized = TokenizedExample(example, tokens, segments)
    return Record(tokenized.key, tokenized, targets, token_logprobs)


def columns(window: Window) -> dict[str, npt.NDArray[Any] | None]:
    """All arrays of a window by name."""
    targets = window.targets
    return {
        "tokens": window.tokens,
        "segments": window.segments,
        "token_logprobs": window.token_logprobs,
        "offsets": targets.offsets,
        "ids": targets.ids,
        "logprobs": targets.logprobs,
        "log_tail": targets.log_tail,
        "exact": targets.exact,
        "entropy": targets.entropy,
        "log_normalizers": targets.log_normalizers,
    }


def assert_same_window(found: Window, expected: Window) -> None:
    """Bit for bit, in types too."""
    wanted = columns(expected)
    for name, array in columns(found).items():
        other = wanted[name]
        assert (array is None) == (other is None), name
        if array is not None and other is not None:
            assert array.dtype == other.dtype and array.shape == other.shape, name
            assert np.array_equal(array, other, equal_nan=array.dtype.kind == "f"), name


def assert_same_record(found: Record, expected: Record) -> None:
    assert found.key == expected.key
    assert found.tokenized.example == expected.tokenized.example
    assert found.tokenized.origin == expected.tokenized.origin
    assert_same_window(found.window, expected.window)


def id_sets(targets: SparseTargets) -> list[tuple[frozenset[int], frozenset[int]]]:
    """Exact and sampled ids of each row."""
    rows = []
    for start, count, exact in zip(targets.offsets, targets.counts, targets.exact_counts, strict=False):
        ids = targets.ids[start : start + count].tolist()
        rows.append((frozenset(ids[:exact]), frozenset(ids[exact:])))
    return rows


def assert_stored(found: Window, written: Window, spec: TargetSpec) -> None:
    """`found` is what was written, up to the rounding that the spec allows."""
    a, b = found.targets, written.targets
    assert np.array_equal(found.tokens, written.tokens)
    assert np.array_equal(found.segments, written.segments)
    assert np.array_equal(found.token_logprobs, written.token_logprobs, equal_nan=True)
    assert np.array_equal(a.counts, b.counts) and np.array_equal(a.exact_counts, b.exact_counts)
    assert id_sets(a) == id_sets(b)
    for name in ("entropy", "log_normalizers"):
        mine, theirs = getattr(a, name), getattr(b, name)
        with_target = b.counts > 0
        assert (mine is None) == (theirs is None) or not with_target.any(), name
        if mine is not None and theirs is not None:
            assert np.array_equal(mine[with_target], theirs[with_target]), name
    before, after = dense(b), dense(a)
    assert before.keys() == after.keys()
    allowed = max(spec.step, spec.tail_step) / 2 + 0.12
    assert all(abs(after[entry] - value) < allowed for entry, value in before.items())


def dense(targets: SparseTargets) -> dict[tuple[int, int], float]:
    """Log-probability by row and id."""
    return dict(
        zip(
            zip(targets.row_of_entry.tolist(), targets.ids.tolist(), strict=True),
            targets.logprobs.tolist(),
            strict=True,
        )
    )
