"""Rows for benchmarks of the store: simulated ones, a file's, or a teacher's, and the entropy that they have."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.codec import nearest_levels
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec

MEAN_DOCUMENT = 512


@dataclass(frozen=True, slots=True)
class Rows:
    """N rows of k entries, in documents.

    ids: uint32 [N, k], logprobs: float32 [N, k], falling. tokens: uint32 [N], the token that each row follows.
    token_logprobs: float32 [N]. offsets: int64 [documents + 1].
    """

    ids: npt.NDArray[np.uint32]
    logprobs: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.uint32]
    token_logprobs: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    vocab: int

    def cut(self, tokens: int) -> "Rows":
        """The same rows in documents of so many tokens."""
        n = len(self.tokens)
        return replace(self, offsets=np.unique(np.append(np.arange(0, n, tokens), n)))

    def targets(self, start: int, stop: int) -> SparseTargets:
        """Rows start:stop."""
        logprobs = self.logprobs[start:stop]
        n, k = logprobs.shape
        mass = np.exp(logprobs.astype(np.float64)).sum(axis=1)
        with np.errstate(divide="ignore"):
            log_tail = np.log(np.clip(1 - mass, 0, 1)) if k < self.vocab else np.full(n, -np.inf)
        offsets = np.arange(0, n * k + 1, k)
        return SparseTargets(
            offsets, self.ids[start:stop].ravel(), np.minimum(logprobs, 0).ravel(), log_tail.astype(np.float32)
        )


def simulated_rows(tokens: int, k: int, vocab: int, seed: int = 0) -> Rows:
    """Ids with a log-uniform popularity, each row spread over all of it; log-probabilities of rows from sharp to flat.

    Nothing ties a row to its token, so no table can help: this measures speed, and bytes without context.
    """
    rng = np.random.default_rng(seed)
    ids = np.empty((tokens, k), np.uint32)
    logprobs = np.empty((tokens, k), np.float32)
    for start in range(0, tokens, 1 << 15):
        n = min(1 << 15, tokens - start)
        spread = np.floor(vocab ** ((np.arange(k) + rng.random((n, k))) / k)) - 1
        steps = np.arange(k)
        distinct = (np.maximum.accumulate(spread - steps, axis=1) + steps).astype(np.int64)
        distinct -= np.maximum(distinct[:, -1:] - (vocab - 1), 0)  # pushed over the end of the vocabulary
        ids[start : start + n] = rng.permuted(np.sort(np.abs(distinct), axis=1), axis=1)
        slope = rng.uniform(0.8, 2.5, (n, 1))
        noisy = -slope * np.log1p(steps) - rng.exponential(0.5, (n, k))
        falling = -np.sort(-noisy, axis=1)
        outside = rng.uniform(0.001, 0.2, (n, 1))
        normaliser = np.log(np.exp(falling).sum(axis=1, keepdims=True))
        logprobs[start : start + n] = falling - normaliser + np.log1p(-outside)
    lengths = np.maximum(rng.gamma(2.0, MEAN_DOCUMENT / 2, tokens // 64 + 16), 16).astype(np.int64)
    offsets = np.minimum(np.concatenate([[0], np.cumsum(lengths)]), tokens)
    offsets = np.unique(offsets if offsets[-1] == tokens else np.append(offsets, tokens))
    own = np.floor(vocab ** rng.random(tokens)).astype(np.uint32) - 1
    return Rows(ids, logprobs, own, logprobs[:, 0], offsets, vocab)


def rows_from_npz(path: Path, k: int | None, vocab: int | None) -> Rows:
    """Anyone's rows: `ids` [N, K] and `logprobs` [N, K]; optional `doc_offsets`, `tokens` [N], `vocab`."""
    if not path.is_file():
        raise InputError(f"--npz {path}: no such file")
    with np.load(path, allow_pickle=False) as archive:
        if missing := {"ids", "logprobs"} - set(archive.files):
            raise InputError(f"--npz {path}: no array {' or '.join(sorted(missing))}; it holds {archive.files}")
        ids, logprobs = archive["ids"], archive["logprobs"].astype(np.float32)
        if ids.ndim != 2 or ids.shape != logprobs.shape:
            raise InputError(f"--npz {path}: ids {ids.shape} and logprobs {logprobs.shape} must both be [N, K]")
        n = len(ids)
        offsets = archive["doc_offsets"].astype(np.int64) if "doc_offsets" in archive else None
        tokens = archive["tokens"].astype(np.uint32)[:n] if "tokens" in archive else np.zeros(n, np.uint32)
        vocab = vocab or (int(archive["vocab"]) if "vocab" in archive else None)
        own = archive["token_logprobs"] if "token_logprobs" in archive else np.full(n, np.nan, np.float32)
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    ids, logprobs = np.take_along_axis(ids, order, 1).astype(np.uint32), np.take_along_axis(logprobs, order, 1)
    if offsets is None:
        offsets = np.unique(np.append(np.arange(0, n, MEAN_DOCUMENT), n))
    if offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        raise InputError(f"--npz {path}: doc_offsets must rise from 0 to {n}")
    widest = int(max(ids.max(initial=0), tokens.max(initial=0))) + 1
    return Rows(ids, logprobs, tokens, own.astype(np.float32), offsets, max(vocab or 0, widest))


def entropy_bytes(rows: Rows, spec: TargetSpec) -> tuple[float, float]:
    """Zero-order entropy of the ids, and entropy of a gap given its rank at the grid in use; bytes a token each."""
    n, k = rows.ids.shape
    levels = nearest_levels(rows.targets(0, n), spec.grid).astype(np.int64)
    gaps = np.diff(levels.reshape(n, k), axis=1, prepend=0)
    return k * entropy(rows.ids.ravel()) / 8, sum(entropy(gaps[:, rank]) for rank in range(k)) / 8


def entropy(values: npt.NDArray[np.int64] | npt.NDArray[np.uint32]) -> float:
    """Bits a value, of the values' own frequencies."""
    counts = np.bincount(values)
    shares = counts[counts > 0] / len(values)
    return float(-(shares * np.log2(shares)).sum())
