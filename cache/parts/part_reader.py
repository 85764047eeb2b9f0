"""Reading of one part: any run of its tokens, from the few chunks that hold it. Knows nothing of commits."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.examples.example import Example, TokenizedExample
from cache.parts import layout
from cache.parts.part import PartPlace, seal_of
from cache.parts.zarr_shard import CHECKSUM_BYTES, ArraySpec, decode_chunks, decode_index
from cache.rows.codebook import Codebook
from cache.rows.codec import Packed, decode_logprobs, decode_rows
from cache.rows.kernels import FIRST
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from cache.storage.base import Range, Storage

SCRATCH_BYTES = 1 << 22
# The arrays that start where a row's first, other or sampled entries do.
_STREAMS = {
    "first": (layout.FIRST_CODES, layout.FIRST_GAPS),
    "rest": (layout.REST_CODES,),
    "pair": (layout.REST_GAPS,),
    "sampled": (layout.SAMPLED_CODES, layout.SAMPLED_DRAWS),
}
_NO_NUMBERS = np.zeros(0, np.uint16)


@dataclass(frozen=True, slots=True)
class _Shard:
    """An array of a part; its chunks are bytes bounds[i]:bounds[i + 1]; checksums: those that they must have."""

    spec: ArraySpec
    bounds: list[int]
    checksums: bytes | None


class Scratch(threading.local):
    """Memory of each thread for what is decoded on the way, used again and again: fresh pages cost as much as decoding.

    Holds at most SCRATCH_BYTES an array of a part.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, length: int, dtype: str) -> npt.NDArray[Any] | None:
        """An array of that name, until the next call with it; None where it would be too long to keep."""
        size = length * np.dtype(dtype).itemsize
        if size > SCRATCH_BYTES:
            return None
        held = self._arrays.get(name)
        if held is None or len(held) < size:
            held = self._arrays[name] = np.empty(max(size, SCRATCH_BYTES // 8), np.uint8)
        return held[:size].view(dtype)


class PartReader:
    """Random access to one part. Holds the shards' indexes and the starts of examples and chunks, nothing decoded.

    Safe to share between threads. Raises IntegrityError naming the file for anything that is not as it was written.
    """

    def __init__(
        self,
        storage: Storage,
        place: PartPlace,
        targets: TargetSpec,
        codebook: Codebook,
        scratch: Scratch | None = None,
    ) -> None:
        self._storage = storage
        self._scratch = scratch or Scratch()
        self._place = place
        self._targets = targets
        self._codebook = codebook
        arrays = layout.part_arrays(place.counts, targets, codebook, place.profile)
        if set(arrays) != set(place.sizes):
            raise IntegrityError(f"{storage}/{place.path}: its commit does not list the arrays of its spec")
        self._files = {name: f"{place.path}/{name}/{array.path}" for name, array in arrays.items()}
        self._shards = self._open_shards(arrays)
        self._token_names = [name for name in arrays if name.startswith("tokens/")]
        self._starts = self._read_whole([name for name in arrays if name.endswith("_start")])
        self._chunk_starts = {
            name: (self._starts[f"chunks/{name}_start"].tolist(), [each for each in each_stream if each in arrays])
            for name, each_stream in _STREAMS.items()
            if each_stream[0] in arrays
        }
        self.token_starts: list[int] = self._starts[layout.TOKEN_STARTS].tolist()
        ends = {layout.TOKEN_STARTS: place.counts.tokens, layout.DESCRIPTION_STARTS: place.counts.description_bytes}
        ends |= {f"chunks/{name}_start": place.counts.of_stream(name) for name in self._chunk_starts}
        for name, end in ends.items():
            starts = self._starts[name]
            if int(starts[0]) != 0 or int(starts[-1]) != end or (np.diff(starts) < 0).any():
                raise IntegrityError(f"{self._what(name)}: does not rise from 0 to {end}: not the file of this part")

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        numbers = sum(len(shard.bounds) for shard in self._shards.values()) + len(self.token_starts)
        return 40 * numbers + sum(array.nbytes for array in self._starts.values()) + 20_000  # objects around them

    def window(self, start: int, stop: int) -> Window:
        """Tokens start:stop of the part."""
        if start == stop:
            return self._empty_window()
        chunk = layout.TOKEN_CHUNK
        c0, c1 = start // chunk, -(-stop // chunk)
        spans = dict.fromkeys(self._token_names, (c0, c1))
        # Entries of the whole token chunks: a little more than is needed, but no second round of reading.
        for starts, names in self._chunk_starts.values():
            first, last = starts[c0], starts[c1]
            if last > first:
                for name in names:
                    size = self._shards[name].spec.chunk
                    spans[name] = (first // size, -(-last // size))
        data = self._read_spans(spans)
        lead, base = start - c0 * chunk, c0 * chunk
        here = slice(lead, lead + stop - start)

        def tokens(name: str) -> npt.NDArray[Any]:
            return self._decode(name, data[name], c0, base, stop)

        ids = tokens(layout.TOKEN_IDS)
        none = np.zeros(len(ids), np.int64)
        exact = tokens(layout.EXACT).astype(np.int64) if layout.EXACT in spans else none
        sampled = tokens(layout.SAMPLED).astype(np.int64) if layout.SAMPLED in spans else none

        def stream(folder: str, counts: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
            """The arrays of a stream, for the rows of the window."""
            if folder not in self._chunk_starts:
                return [_NO_NUMBERS, _NO_NUMBERS]
            starts, names = self._chunk_starts[folder]
            first = starts[c0] + int(counts[:lead].sum())
            last = first + int(counts[here].sum())
            if last > starts[c1]:
                raise IntegrityError(f"{self._what(names[0])}: rows have more entries than were written")
            if first == last:
                return [np.zeros(0, self._shards[name].spec.dtype) for name in names]
            return [self._decode(name, data[name], spans[name][0], first, last, scratch=True) for name in names]

        in_first = np.minimum(exact, FIRST)
        first_code, first_gap = stream("first", in_first)
        rest_code, *_ = stream("rest", exact - in_first)
        rest_gap, *_ = stream("pair", (exact - in_first + 1) // 2)
        sampled_code, *draws = stream("sampled", sampled)
        packed = Packed(
            exact=exact[here],
            sampled=sampled[here],
            tail=tokens(layout.TAIL)[here],
            first_code=first_code,
            first_gap=first_gap,
            rest_code=rest_code,
            rest_gap=rest_gap,
            sampled_code=sampled_code,
            sampled_draws=draws[0] if layout.SAMPLED_DRAWS in spans else np.ones(len(sampled_code), np.uint32),
            levels=self._place.counts.levels,
        )
        targets = decode_rows(packed, ids[here], self._targets, self._codebook, f"{self._storage}/{self._place.path}")
        if layout.ENTROPY in spans or layout.LOG_NORMALIZERS in spans:
            targets = replace(
                targets,
                entropy=tokens(layout.ENTROPY)[here] if layout.ENTROPY in spans else None,
                log_normalizers=tokens(layout.LOG_NORMALIZERS)[here] if layout.LOG_NORMALIZERS in spans else None,
            )
        segments = tokens(layout.SEGMENTS)[here].astype(np.uint8)
        return Window(ids[here], segments, targets, decode_logprobs(tokens(layout.SURPRISAL)[here]))

    def description(self, i: int) -> dict[str, Any]:
        """Key, origin and example of the i-th example."""
        name = layout.DESCRIPTIONS
        starts = self._starts[layout.DESCRIPTION_STARTS]
        start, stop = int(starts[i]), int(starts[i + 1])
        chunk = self._shards[name].spec.chunk
        first, last = start // chunk, -(-stop // chunk)
        data = self._read_spans({name: (first, last)})[name]
        return dict(json.loads(self._decode(name, data, first, start, stop).tobytes()))

    def record(self, i: int) -> Record:
        """The i-th example with its texts."""
        window = self.window(self.token_starts[i], self.token_starts[i + 1])
        description = self.description(i)
        example = Example.from_document(description["example"])
        tokenized = TokenizedExample(example, window.tokens, window.segments, description["origin"])
        return Record(description["key"], tokenized, window.targets, window.token_logprobs)

    def check_all(self) -> None:
        """Read and decode every chunk of every array."""
        for name, shard in self._shards.items():
            data = self._read_spans({name: (0, shard.spec.chunks)})[name]
            decode_chunks(shard.spec, shard.bounds, data, 0, shard.spec.chunks, self._what(name), shard.checksums)
        if layout.GRID in self._shards:
            grid = self._read_whole([layout.GRID])[layout.GRID]
            if not np.array_equal(grid, self._targets.grid[: len(grid)]):
                raise IntegrityError(f"{self._what(layout.GRID)}: is not the grid of the store's spec")

    def _open_shards(self, arrays: dict[str, ArraySpec]) -> dict[str, _Shard]:
        """Read the index at the end of every shard, and the checksums that all chunks must have."""
        ranges: list[Range] = []
        for name, array in arrays.items():
            size = self._place.sizes[name]
            wanted = size if name == layout.CHECKSUMS else array.index_bytes
            if size < array.index_bytes:
                raise IntegrityError(f"{self._what(name)}: shorter than its own index")
            ranges.append((self._files[name], size - wanted, wanted))
        found = dict(zip(arrays, self._storage.read_ranges(ranges), strict=True))
        bounds = {name: decode_index(a, found[name][-a.index_bytes :], self._what(name)) for name, a in arrays.items()}
        name = layout.CHECKSUMS
        checksums = decode_chunks(arrays[name], bounds[name], found[name], 0, 1, self._what(name)).tobytes()
        for name, array in arrays.items():
            body = checksums if name == layout.CHECKSUMS else found[name][-array.index_bytes : -CHECKSUM_BYTES]
            if seal_of(body) != self._place.seals[name]:
                raise IntegrityError(f"{self._what(name)}: is not the file that was committed")
        shards, at = {}, 0
        for name, array in arrays.items():
            own = None if name == layout.CHECKSUMS else checksums[at : at + CHECKSUM_BYTES * array.chunks]
            shards[name] = _Shard(array, bounds[name], own)
            at += CHECKSUM_BYTES * array.chunks
        return shards

    def _read_whole(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        shards = self._shards
        data = self._read_spans({name: (0, shards[name].spec.chunks) for name in names})
        return {name: self._decode(name, data[name], 0, 0, shards[name].spec.shape[0]) for name in names}

    def _read_spans(self, spans: dict[str, tuple[int, int]]) -> dict[str, bytes]:
        """The bytes of a run of inner chunks of each array, in one request to the storage."""
        ranges = []
        for name, (first, last) in spans.items():
            bounds = self._shards[name].bounds
            ranges.append((self._files[name], bounds[first], bounds[last] - bounds[first]))
        return dict(zip(spans, self._storage.read_ranges(ranges), strict=True))

    def _decode(
        self, name: str, data: bytes, first_chunk: int, start: int, stop: int, scratch: bool = False
    ) -> npt.NDArray[Any]:
        """Elements start:stop of an array, from bytes that begin with `first_chunk`; only their chunks are decoded.

        scratch: into memory that the next window uses again.
        """
        shard = self._shards[name]
        size = shard.spec.chunk
        first, last = start // size, -(-stop // size)
        if first < first_chunk or last > shard.spec.chunks:
            raise IntegrityError(f"{self._what(name)}: starts of chunks do not agree with the rows")
        skip = shard.bounds[first] - shard.bounds[first_chunk]
        out = self._scratch.array(name, (last - first) * size, shard.spec.dtype) if scratch else None
        values = decode_chunks(
            shard.spec,
            shard.bounds,
            data[skip:] if skip else data,
            first,
            last,
            self._what(name),
            shard.checksums,
            out,
        )
        return values[start - first * size : stop - first * size]

    def _empty_window(self) -> Window:
        none = np.zeros(0, np.float32)
        rows = SparseTargets(
            np.zeros(1, np.int64),
            np.zeros(0, np.uint32),
            none,
            none,
            np.zeros(0, np.int64) if self._targets.has_sampled else None,
            none if self._targets.entropy else None,
            np.zeros((0, len(self._targets.temperatures)), np.float32) if self._targets.temperatures else None,
        )
        return Window(np.zeros(0, np.uint32), np.zeros(0, np.uint8), rows, none)

    def _what(self, name: str) -> str:
        return f"{self._storage}/{self._place.path}/{name}"
