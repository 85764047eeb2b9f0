"""SparseTargets to small integers and back. Pure functions of arrays.

The first entry of a row has its place in the codebook's order as code. It chooses the list of the row: the code of
another id is its place in that list, or, outside it, the list's length plus its place in the order. Log-probabilities
become levels of a grid, which rise within a row, and are stored as gaps. Entries of one level go in the order of their
codes, each code as the distance from the one before it less 1; the first entry stands apart from this. The first FIRST
entries of a row have streams of their own: their codes and gaps are distributed differently. The gaps of the rest go
in pairs, two in a number, which halves what is to be decoded. Sampled entries have no
value: a set, coded like entries of one level.

Decoding shifts each row so that its exact entries hold the mass that the stored tail leaves.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, IntegrityError
from cache.rows.codebook import Codebook
from cache.rows.kernels import FIRST, compare, pack, quantise, unpack
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec

# Tail mass is stored as log odds and a token's own log-probability as it is, both in units of this many nats.
RESOLUTION = 1 / 64
ODDS_LIMIT = 32766
NO_TAIL, ALL_TAIL = -32767, 32767
SURPRISAL_LIMIT = 65533
NOT_ASKED = 65534
HINTS, HINTS_A_NAT = 4096, 128.0


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as integers. Entries of all rows follow one another in each of the streams.

    exact, sampled: int64 [n], entries of each kind. tail: int16 [n]. Streams: first_code, rest_code, sampled_code
    uint32; first_gap uint16; rest_gap uint16 or uint32 (pair_dtype), the gaps of two entries of a row, the first in the
    low half; sampled_draws uint32, all 1 where a draw cannot be repeated. levels: how many of the grid's are used.
    """

    exact: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int16]
    first_code: npt.NDArray[np.uint32]
    first_gap: npt.NDArray[np.uint16]
    rest_code: npt.NDArray[np.uint32]
    rest_gap: npt.NDArray[Any]
    sampled_code: npt.NDArray[np.uint32]
    sampled_draws: npt.NDArray[np.uint32]
    levels: int


def pair_dtype(levels: int) -> np.dtype[Any]:
    """Type of a number that holds two gaps of at most `levels` - 1."""
    return np.dtype(np.uint16 if levels <= 256 else np.uint32)


@dataclass(frozen=True, slots=True)
class QuantisationError:
    """What rounding did to a set of rows: greatest |difference| and mean KL(exact || stored), both in nats."""

    max_abs_error: float
    kl: float


def encode_rows(targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook) -> Packed:
    """Integers of valid rows; tokens uint32 [n] are those that the rows follow.

    Raises InputError where a log-probability is too low to be stored.
    """
    exact = targets.exact_counts
    sampled = targets.counts - exact
    grid = spec.grid
    if len(targets.logprobs) and float(targets.logprobs.min()) < LOWEST_LOGPROB:
        raise InputError(f"log-probability {targets.logprobs.min()} is below {LOWEST_LOGPROB}; leave the entry out")
    levels = nearest_levels(_from_first(targets) if spec.mode == "threshold" else targets, grid)
    first, rest = np.minimum(exact, FIRST), np.maximum(exact - FIRST, 0)
    streams = (first, rest, (rest + 1) // 2, sampled)
    starts = [np.cumsum(counts) - counts for counts in streams]
    totals = [int(counts.sum()) for counts in streams]
    used = int(levels.max(initial=0)) + 1
    packed = Packed(
        exact=exact,
        sampled=sampled,
        tail=_encode_tail(targets.log_tail),
        first_code=np.empty(totals[0], np.uint32),
        first_gap=np.empty(totals[0], np.uint16),
        rest_code=np.empty(totals[1], np.uint32),
        rest_gap=np.zeros(totals[2], pair_dtype(used)),
        sampled_code=np.empty(totals[3], np.uint32),
        sampled_draws=np.empty(totals[3], np.uint32),
        levels=used,
    )
    draws = np.ones(0, np.int64)
    if spec.mode == "sampled":
        draws = np.rint(np.exp(targets.logprobs.astype(np.float64)) * spec.draws).astype(np.int64)
    lists = _lists(targets, tokens, codebook)
    pack(
        np.argsort(lists, kind="stable"),
        lists,
        targets.offsets,
        exact,
        targets.ids,
        levels,
        draws,
        codebook.table,
        codebook.place,
        codebook.is_plain,
        *starts,
        packed.first_code,
        packed.first_gap,
        packed.rest_code,
        packed.rest_gap,
        packed.sampled_code,
        packed.sampled_draws,
    )
    return packed


def _from_first(targets: SparseTargets) -> SparseTargets:
    """The rows with each exact entry against the first of its row, whose level is then 0 and takes no space.

    Decoding shifts a row to the mass that its tail leaves, so nothing is lost. Only where all exact entries lie in the
    grid's even part, as those above a threshold do: elsewhere finer levels would cost more than this saves.
    """
    first = targets.offsets[:-1][np.repeat(np.arange(len(targets)), targets.counts)]
    return replace(targets, logprobs=targets.logprobs - targets.logprobs[first])


def nearest_levels(targets: SparseTargets, grid: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Level of each exact entry, uint16 [entries]; 0 for sampled ones."""
    middles = (grid[1:] + grid[:-1]) / 2
    # Levels at even distances, so that the search for a value's level starts next to it.
    hints = np.searchsorted(-middles, np.arange(HINTS) / HINTS_A_NAT, side="left")
    levels = np.zeros(len(targets.ids), np.uint16)
    quantise(targets.offsets, targets.exact_counts, targets.logprobs, middles, hints, HINTS_A_NAT, levels)
    return levels


def decode_rows(
    packed: Packed, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook, what: str
) -> SparseTargets:
    """The rows that encode_rows was given, rounded. Raises IntegrityError naming `what` where they are impossible."""
    counts = packed.exact + packed.sampled
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    ids = np.empty(int(offsets[-1]), np.uint32)
    logprobs = np.empty(len(ids), np.float32)
    grid = spec.grid[: packed.levels]
    log_tail, log_head = _decode_tail(packed.tail)
    if spec.mode == "sampled":
        sampled_logprobs = np.log(packed.sampled_draws / np.float64(spec.draws)).astype(np.float32)
    else:
        sampled_logprobs = np.full(len(packed.sampled_code), np.log(spec.threshold or 1.0), np.float32)
    possible = unpack(
        packed.exact,
        packed.sampled,
        tokens,
        codebook.table,
        codebook.order,
        codebook.list_of,
        codebook.by_token,
        codebook.is_plain,
        packed.first_code,
        packed.first_gap,
        packed.rest_code,
        packed.rest_gap,
        packed.sampled_code,
        grid,
        np.exp(grid),
        log_head,
        sampled_logprobs,
        ids,
        logprobs,
    )
    if not possible:
        raise IntegrityError(f"{what}: holds codes that its codebook or its grid does not have")
    return SparseTargets(offsets, ids, logprobs, log_tail, packed.exact if spec.has_sampled else None)


def measure_error(targets: SparseTargets, decoded: SparseTargets, vocab_size: int, what: str) -> QuantisationError:
    """Hold decoded rows against the exact ones. Raises IntegrityError where they do not have the same entries."""
    same = np.array_equal(targets.offsets, decoded.offsets) and np.array_equal(
        targets.exact_counts, decoded.exact_counts
    )
    if same:
        wrong, greatest, total = compare(
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
        same = wrong == 0
    if not same:
        raise IntegrityError(f"{what}: what was read back is not what was written; the disk or its driver is at fault")
    rows = int(np.count_nonzero(targets.exact_counts))
    return QuantisationError(float(greatest), max(float(total) / rows, 0.0) if rows else 0.0)


def encode_logprobs(logprobs: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Surprisals uint16 [n] of tokens' own log-probabilities, NaN where not asked."""
    asked = ~np.isnan(logprobs)
    surprisal = np.rint(np.where(asked, -logprobs, 0.0).astype(np.float64) / RESOLUTION)
    return np.where(asked, np.clip(surprisal, 0, SURPRISAL_LIMIT), NOT_ASKED).astype(np.uint16)


def decode_logprobs(surprisal: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Log-probabilities float32 [n], within RESOLUTION / 2; those below -SURPRISAL_LIMIT * RESOLUTION read as that."""
    values = surprisal.astype(np.float32) * np.float32(-RESOLUTION)
    values[surprisal == NOT_ASKED] = np.nan
    return values


def _lists(targets: SparseTargets, tokens: npt.NDArray[np.uint32], codebook: Codebook) -> npt.NDArray[np.int64]:
    """The codebook's list for each row, int64 [n]."""
    if codebook.by_token:
        return codebook.list_of[tokens].astype(np.int64)
    lists = np.zeros(len(targets), np.int64)
    led = targets.exact_counts > 0
    lists[led] = codebook.list_of[targets.ids[targets.offsets[:-1][led]]]
    return lists


def _encode_tail(log_tail: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Log odds keep the relative precision of a small tail and of a small head alike."""
    tail = log_tail.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.rint((tail - np.log(-np.expm1(tail))) / RESOLUTION)
    odds = np.where(tail == -np.inf, NO_TAIL, np.where(tail == 0, ALL_TAIL, np.clip(odds, -ODDS_LIMIT, ODDS_LIMIT)))
    return odds.astype(np.int16)


def _decode_tail(tail: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """log tail and log head mass, float32 [n] each."""
    odds = tail.astype(np.float32) * np.float32(RESOLUTION)
    odds[tail == NO_TAIL] = -np.inf
    odds[tail == ALL_TAIL] = np.inf
    # log(1 / (1 + exp(-x))) without overflow at either end.
    small = np.log1p(np.exp(-np.abs(odds)))
    return np.minimum(odds, 0) - small, np.minimum(-odds, 0) - small
