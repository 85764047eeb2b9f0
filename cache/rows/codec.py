"""Encode SparseTargets as small integers and decode them. Pure functions of arrays.

Codes. The context of a row, its token or its first entry, selects a list of the codebook: the code of an id is its
position in that list, or, if the list does not contain it, the length of the list plus its rank in the codebook's
order. A first entry that is the context has its rank as code.
Levels. Log-probabilities become levels of a grid, which increase within a row and are stored as gaps. Entries of one
level are sorted by code, and each code is stored as the distance from the one before minus 1. The first entry does not
take part in this.
Streams. Each band of ranks has its own streams, because its codes and gaps are distributed differently
(cache/rows/rank_bands.py). Sampled entries have no value: they are a set, encoded like entries of one level.

Decoding shifts each row so that its exact entries have the mass that the stored tail leaves.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, IntegrityError
from cache.rows.codebook import Codebook
from cache.rows.decode_kernels import Entries, Grid, IdLists, InputStreams, decode_entries
from cache.rows.encode_kernels import CodeLists, OutputStreams, RowEntries, StreamStarts, encode_entries
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.rank_bands import band_counts, band_edges, gap_counts, gap_dtype, pair_table
from cache.rows.shared_kernels import compare, quantise
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec

# Unit, in nats, of the log odds of the tail and of a token's own log-probability.
RESOLUTION = 1 / 64
ODDS_LIMIT = 32766
NO_TAIL, ALL_TAIL = -32767, 32767
SURPRISAL_LIMIT = 65533
NOT_REQUESTED = 65534
HINTS, HINTS_PER_NAT = 4096, 128.0
# The end of the last band: above all ranks.
NO_EDGE = 1 << 62


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows as integers. In each stream the entries of all rows follow one another.

    exact, sampled: int64 [n], number of entries of each kind. tail: int16 [n]. edges: first rank of each band.
    codes: uint16 or uint32, the streams of the bands, which start at code_starts, int64 [bands]. gaps: uint16 or uint32
    (gap_dtype), likewise, at gap_starts: gaps in the first band, pairs of gaps in the others. sampled_code uint32;
    sampled_draws uint32, all 1 if draws cannot repeat. levels: number of levels of the grid up to the last one used.
    """

    exact: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int16]
    edges: tuple[int, ...]
    codes: npt.NDArray[Any]
    code_starts: npt.NDArray[np.int64]
    gaps: npt.NDArray[Any]
    gap_starts: npt.NDArray[np.int64]
    sampled_code: npt.NDArray[Any]
    sampled_draws: npt.NDArray[np.uint32]
    levels: int


@dataclass(frozen=True, slots=True)
class QuantisationError:
    """Error of rounding in a set of rows: largest |difference| and mean KL(exact || stored), both in nats."""

    max_abs_error: float
    kl: float


def encode_rows(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook
) -> EncodedRows:
    """Encode valid rows. tokens: uint32 [n], the tokens that the rows follow.

    Raises InputError if a log-probability is too low to be stored.
    """
    if len(targets.logprobs) and float(targets.logprobs.min()) < LOWEST_LOGPROB:
        raise InputError(f"log-probability {targets.logprobs.min()} is below {LOWEST_LOGPROB}; leave the entry out")
    levels = nearest_levels(_relative_to_first(targets) if spec.mode == "threshold" else targets, spec.grid)
    used_levels = int(levels.max(initial=0)) + 1
    exact, sampled = targets.exact_counts, targets.counts - targets.exact_counts
    edges = band_edges(int(exact.max(initial=0)))
    codes_of, gaps_of = band_counts(exact, edges), gap_counts(band_counts(exact, edges))
    code_at, gap_at = _starts_of_rows(codes_of), _starts_of_rows(gaps_of)
    streams = OutputStreams(
        codes=np.empty(int(exact.sum()), np.uint32),
        gaps=np.empty(sum(int(each.sum()) for each in gaps_of), gap_dtype(used_levels)),
        sampled_code=np.empty(int(sampled.sum()), np.uint32),
        sampled_draws=np.empty(int(sampled.sum()), np.uint32),
    )
    draws = np.ones(0, np.int64)
    if spec.mode == "sampled":
        draws = np.rint(np.exp(targets.logprobs.astype(np.float64)) * spec.draws).astype(np.int64)
    lists = _lists(targets, tokens, codebook)
    encode_entries(
        np.argsort(lists, kind="stable"),
        RowEntries(targets.offsets, exact, lists, targets.ids, levels, draws),
        CodeLists(codebook.listed, codebook.list_start, codebook.rank_of_id, codebook.by_token),
        StreamStarts(code_at, gap_at, np.cumsum(sampled) - sampled, np.array([*edges, NO_EDGE])),
        streams,
    )
    return EncodedRows(
        exact,
        sampled,
        _encode_tail(targets.log_tail),
        edges,
        streams.codes,
        stream_starts(codes_of),
        streams.gaps,
        stream_starts(gaps_of),
        streams.sampled_code,
        streams.sampled_draws,
        used_levels,
    )


def stream_starts(counts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Where the stream of each band starts, int64 [bands]. counts: elements of each row, [n] a band."""
    totals = np.array([each.sum() for each in counts], np.int64)
    return np.asarray(np.cumsum(totals) - totals)


def _starts_of_rows(counts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Where the elements of each row start, int64 [bands, n]; the streams of the bands follow one another."""
    flat = np.concatenate(counts)
    return (np.cumsum(flat) - flat).reshape(len(counts), -1)


def _relative_to_first(targets: SparseTargets) -> SparseTargets:
    """The rows with each log-probability minus that of the row's first entry, whose level is then 0 and takes no space.

    Nothing is lost, because decoding shifts a row to the mass that its tail leaves. This is used only if all exact
    entries lie in the part of the grid that has equal steps, like those above a threshold. Elsewhere finer levels would
    cost more than this saves.
    """
    first = targets.offsets[:-1][np.repeat(np.arange(len(targets)), targets.counts)]
    return replace(targets, logprobs=targets.logprobs - targets.logprobs[first])


def nearest_levels(targets: SparseTargets, grid: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Nearest level of each exact entry, uint16 [entries]; 0 for sampled entries."""
    middles = (grid[1:] + grid[:-1]) / 2
    # Levels of evenly spaced values, so that the search for the level of a value starts near it.
    hints = np.searchsorted(-middles, np.arange(HINTS) / HINTS_PER_NAT, side="left")
    levels = np.zeros(len(targets.ids), np.uint16)
    quantise(targets.offsets, targets.exact_counts, targets.logprobs, middles, hints, HINTS_PER_NAT, levels)
    return levels


def decode_rows(
    encoded: EncodedRows, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook, what: str
) -> SparseTargets:
    """The rows that were given to encode_rows, rounded. tokens: uint32 [n], the tokens that the rows follow.

    Raises IntegrityError, starting with `what`, if codes or levels are out of range.
    """
    counts = encoded.exact + encoded.sampled
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    entries = Entries(np.empty(int(offsets[-1]), np.uint32), np.empty(int(offsets[-1]), np.float32))
    grid = spec.grid[: encoded.levels]
    log_tail, log_head = _decode_tail(encoded.tail)
    if spec.mode == "sampled":
        sampled_logprobs = np.log(encoded.sampled_draws / np.float64(spec.draws)).astype(np.float32)
    else:
        sampled_logprobs = np.full(len(encoded.sampled_code), np.log(spec.threshold or 1.0), np.float32)
    is_valid = decode_entries(
        encoded.exact,
        encoded.sampled,
        tokens,
        IdLists(codebook.listed, codebook.list_start, codebook.order, codebook.list_of, codebook.by_token),
        InputStreams(
            encoded.codes,
            encoded.gaps,
            encoded.sampled_code,
            np.array([*encoded.edges, NO_EDGE], np.uint64),
            encoded.code_starts.astype(np.uint64),
            encoded.gap_starts.astype(np.uint64),
            pair_table(),
        ),
        Grid(grid, np.exp(grid)),
        log_head,
        sampled_logprobs,
        entries,
    )
    if not is_valid:
        raise IntegrityError(f"{what}: contains codes that its codebook or its grid does not have")
    exact = encoded.exact if spec.has_sampled else None
    return SparseTargets(offsets, entries.ids, entries.logprobs, log_tail, exact)


def measure_error(targets: SparseTargets, decoded: SparseTargets, vocab_size: int, what: str) -> QuantisationError:
    """Compare decoded rows with the exact ones. Raises IntegrityError if their entries are not the same."""
    same = np.array_equal(targets.offsets, decoded.offsets) and np.array_equal(
        targets.exact_counts, decoded.exact_counts
    )
    if same:
        different_rows, max_error, total_kl = compare(
            targets.offsets,
            targets.exact_counts,
            targets.ids,
            targets.logprobs,
            np.exp(targets.logprobs),
            targets.log_tail,
            decoded.ids,
            decoded.logprobs,
            decoded.log_tail,
            np.empty(vocab_size, np.int64),
            np.full(vocab_size, -1, np.int32),
        )
        same = different_rows == 0
    if not same:
        raise IntegrityError(f"{what}: what was read back is not what was written; the disk or its driver is at fault")
    rows = int(np.count_nonzero(targets.exact_counts))
    return QuantisationError(float(max_error), max(float(total_kl) / rows, 0.0) if rows else 0.0)


def encode_logprobs(logprobs: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Surprisals uint16 [n] of tokens' own log-probabilities; NaN for tokens that were not requested."""
    requested = ~np.isnan(logprobs)
    surprisal = np.rint(np.where(requested, -logprobs, 0.0).astype(np.float64) / RESOLUTION)
    return np.where(requested, np.clip(surprisal, 0, SURPRISAL_LIMIT), NOT_REQUESTED).astype(np.uint16)


def decode_logprobs(surprisal: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Log-probabilities float32 [n], with an error of at most RESOLUTION / 2, and at least
    -SURPRISAL_LIMIT * RESOLUTION."""
    values = surprisal.astype(np.float32) * np.float32(-RESOLUTION)
    values[surprisal == NOT_REQUESTED] = np.nan
    return values


def _lists(targets: SparseTargets, tokens: npt.NDArray[np.uint32], codebook: Codebook) -> npt.NDArray[np.int64]:
    """The codebook's list for each row, int64 [n]."""
    if codebook.by_token:
        return codebook.list_of[tokens].astype(np.int64)
    lists = np.zeros(len(targets), np.int64)
    has_first = targets.exact_counts > 0
    lists[has_first] = codebook.list_of[targets.ids[targets.offsets[:-1][has_first]]]
    return lists


def _encode_tail(log_tail: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Log odds int16 [n] of the tail: they keep the relative precision of a small tail and of a small head."""
    tail = log_tail.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.rint((tail - np.log(-np.expm1(tail))) / RESOLUTION)
    odds = np.where(tail == -np.inf, NO_TAIL, np.where(tail == 0, ALL_TAIL, np.clip(odds, -ODDS_LIMIT, ODDS_LIMIT)))
    return odds.astype(np.int16)


def _decode_tail(tail: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logarithms of the tail mass and of the head mass, float32 [n] each."""
    odds = tail.astype(np.float32) * np.float32(RESOLUTION)
    odds[tail == NO_TAIL] = -np.inf
    odds[tail == ALL_TAIL] = np.inf
    # log(1 / (1 + exp(-x))) without overflow at either end.
    small = np.log1p(np.exp(-np.abs(odds)))
    return np.minimum(odds, 0) - small, np.minimum(-odds, 0) - small
