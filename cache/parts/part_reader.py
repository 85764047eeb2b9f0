"""Read one part: any run of its tokens, from the few chunks that contain it. Knows nothing of commits."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.examples.example import Example
from cache.parts import layout
from cache.parts.description import Descriptions
from cache.parts.opened_part import open_part
from cache.parts.part import PartInfo
from cache.parts.zarr_shard import decode_index
from cache.rows.codebook import Codebook
from cache.rows.codec import EncodedRows, decode_logprobs, decode_rows
from cache.rows.record import Window
from cache.rows.shared_kernels import band_totals
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from cache.storage.base import RangeReader

SCRATCH_BYTES = 1 << 22
_EMPTY = np.zeros(0, np.uint16)
# Arrays that say how many entries each row has.
_COUNTS = (layout.EXACT, layout.SAMPLED)


@dataclass(frozen=True, slots=True)
class _LoadedChunks:
    """Bytes of the chunks that a window needs, not decoded.

    data: for each array the first of its chunks, bytes that contain its chunks, and where the first of them starts.
    base: first token of the chunk of tokens with the first requested one. start, stop: the window, tokens of the part.
    first_chunk, last_chunk: chunks of tokens.
    """

    data: dict[str, tuple[int, bytes, int]]
    base: int
    start: int
    stop: int
    first_chunk: int
    last_chunk: int

    @property
    def requested(self) -> slice:
        """The window as a slice of the tokens from `base` on."""
        return slice(self.start - self.base, self.stop - self.base)


class Scratch(threading.local):
    """Buffers of each thread for intermediate results. They are reused, because new pages cost as much as decoding.

    Each array of a part has one buffer, of at most SCRATCH_BYTES.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, length: int, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
        """A buffer that is valid until the next call with the same name. None if it would exceed SCRATCH_BYTES."""
        size = length * dtype.itemsize
        if size > SCRATCH_BYTES:
            return None
        buffer = self._arrays.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._arrays[name] = np.empty(max(size, SCRATCH_BYTES // 8), np.uint8)
        return buffer[:size].view(dtype)


class PartReader:
    """Random access to one part. Caches the positions of all chunks and the starts of examples, but no rows.

    Safe to share between threads. Raises IntegrityError, with the name of the file, for missing or damaged data.
    """

    def __init__(
        self,
        storage: RangeReader,
        info: PartInfo,
        targets: TargetSpec,
        codebook_of: Callable[[str], Codebook],
        scratch: Scratch | None = None,
    ) -> None:
        """Open the part. codebook_of: gives the codebook with a digest; "" means that codes are ids."""
        self._storage = storage
        self._scratch = scratch or Scratch()
        self._path = info.path
        self._targets = targets
        part = open_part(storage, info, targets)
        self._group, self._shards = part.group, part.shards
        self.codebook = part.codebook  # digest, "" if codes are ids
        self._codebook = codebook_of(part.codebook)
        self._chunk_tokens = part.chunk_tokens
        self._token_names = [name for name in part.shards if name.startswith("tokens/")]
        self._texts = Descriptions(
            part.shards[layout.DESCRIPTIONS], part.small[layout.DESCRIPTION_STARTS].tolist(), self._read_bytes
        )
        self._grid = part.small.get(layout.GRID, np.zeros(0, np.float32))
        self._bands = part.bands
        # By the arrays of entries, their starts in each chunk of tokens.
        self._starts_of = _starts_of_arrays(part.bands, targets)
        lists = {name: part.small[name].tolist() for name in set(self._starts_of.values())}
        self._streams: dict[str, list[int]] = {array: lists[name] for array, name in self._starts_of.items()}
        self.token_starts: list[int] = part.small[layout.TOKEN_STARTS].tolist()
        self._check_starts(part.small)
        for name_of in (layout.codes_of_band, layout.gaps_of_band):
            if len({part.shards[name_of(edge)].spec.dtype for edge in part.bands}) > 1:
                raise IntegrityError(f"{storage}/{info.path}: the bands of ranks do not have one type of number")

    @property
    def tokens(self) -> int:
        """Number of tokens of the part."""
        return self.token_starts[-1]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the shard of each array of the file."""
        return {name: size for name, (_, size) in self._group.shards.items()}

    def _check_starts(self, small: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise IntegrityError unless all starts increase from 0 to the length of the arrays that they lead to."""
        leads_to = {layout.TOKEN_STARTS: self._token_names, layout.DESCRIPTION_STARTS: [layout.DESCRIPTIONS]}
        for array, starts_name in self._starts_of.items():
            leads_to.setdefault(starts_name, []).append(array)
        for name, arrays in leads_to.items():
            starts = small[name]
            for array in arrays:
                end = self._shards[array].spec.shape[0]
                if not len(starts) or int(starts[0]) != 0 or int(starts[-1]) != end or (np.diff(starts) < 0).any():
                    raise IntegrityError(f"{self._what(name)}: does not increase from 0 to {end}, the end of {array}")
        chunks = max(1, -(-self.tokens // self._chunk_tokens)) if self._chunk_tokens > 0 else 0
        for name, stream in self._streams.items():
            if len(stream) != chunks + 1:
                what = self._what(self._starts_of[name])
                raise IntegrityError(f"{what}: has {len(stream)} numbers for {chunks} chunks of tokens")

    @property
    def nbytes(self) -> int:
        """Memory of this reader in bytes."""
        numbers = sum(len(shard.bounds) for shard in self._shards.values()) + len(self.token_starts)
        numbers += sum(len(starts) for starts in self._streams.values())
        return 44 * (numbers + len(self.token_starts)) + 60_000  # objects around them

    def window(self, start: int, stop: int) -> Window:
        """Tokens start:stop of the part and their targets."""
        if start == stop:
            return self._empty_window()
        loaded = self._load(start, stop)
        tokens, encoded = self._values(loaded, layout.TOKEN_IDS), self._encoded_rows(loaded)
        targets = decode_rows(encoded, tokens, self._targets, self._codebook, f"{self._storage}/{self._path}")
        if self._targets.entropy or self._targets.temperatures:
            targets = replace(
                targets,
                entropy=self._values(loaded, layout.ENTROPY) if self._targets.entropy else None,
                log_normalizers=self._values(loaded, layout.LOG_NORMALIZERS) if self._targets.temperatures else None,
            )
        segments = self._values(loaded, layout.SEGMENTS, scratch=True).astype(np.uint8)
        token_logprobs = decode_logprobs(self._values(loaded, layout.SURPRISAL, scratch=True))
        return Window(tokens, segments, targets, token_logprobs)

    def _load(self, start: int, stop: int) -> _LoadedChunks:
        """Read all chunks that tokens start:stop need, in one request to the storage."""
        first_chunk, last_chunk = start // self._chunk_tokens, -(-stop // self._chunk_tokens)
        base = first_chunk * self._chunk_tokens
        spans = {}
        for name in self._token_names:
            size = self._shards[name].spec.chunk
            spans[name] = ((base if name in _COUNTS else start) // size, -(-stop // size))
        # Entries of whole chunks of tokens: a little more than needed, but in one round of reading.
        for name, starts in self._streams.items():
            first, last = starts[first_chunk], starts[last_chunk]
            if last > first:
                size = self._shards[name].spec.chunk
                spans[name] = (first // size, -(-last // size))
        return _LoadedChunks(self._read_spans(spans), base, start, stop, first_chunk, last_chunk)

    def _values(self, loaded: _LoadedChunks, name: str, scratch: bool = False) -> npt.NDArray[Any]:
        """Values of an array of tokens, of the requested ones."""
        return self._decode(name, loaded.data[name], loaded.start, loaded.stop, scratch)

    def _counts(self, loaded: _LoadedChunks, name: str) -> npt.NDArray[np.int64]:
        """Entries of each row from the first loaded chunk of tokens on; 0 if the part has none of this kind."""
        if name not in self._shards:
            return np.zeros(loaded.stop - loaded.base, np.int64)
        return self._decode(name, loaded.data[name], loaded.base, loaded.stop, scratch=True).astype(np.int64)

    def _encoded_rows(self, loaded: _LoadedChunks) -> EncodedRows:
        """The requested rows, still encoded."""
        here = loaded.requested
        exact, sampled = self._counts(loaded, layout.EXACT), self._counts(loaded, layout.SAMPLED)
        in_codes, in_gaps = np.zeros((2, 2, len(self._bands)), np.int64)
        band_totals(exact, here.start, np.array(self._bands, np.int64), in_codes, in_gaps)
        codes, code_starts = self._joined(loaded, "code", layout.codes_of_band, in_codes)
        gaps, gap_starts = self._joined(loaded, "gap", layout.gaps_of_band, in_gaps)
        sampled_code: npt.NDArray[Any] = _EMPTY
        sampled_draws = np.zeros(0, np.uint32)
        if self._targets.has_sampled:
            sampled_code = self._stream(loaded, layout.SAMPLED_CODES, sampled)
            sampled_draws = np.ones(len(sampled_code), np.uint32)
        if self._targets.mode == "sampled":
            sampled_draws = self._stream(loaded, layout.SAMPLED_DRAWS, sampled)
        return EncodedRows(
            exact=exact[here],
            sampled=sampled[here],
            tail=self._values(loaded, layout.TAIL, scratch=True),
            edges=self._bands or (0,),
            codes=codes,
            code_starts=code_starts,
            gaps=gaps,
            gap_starts=gap_starts,
            sampled_code=sampled_code,
            sampled_draws=sampled_draws,
            levels=len(self._grid),
        )

    def _range(self, loaded: _LoadedChunks, name: str, before: int, here: int) -> tuple[int, int]:
        """First and last element of a stream that the requested rows have.

        before: elements of the rows from the first loaded one on. here: elements of the requested ones.
        """
        starts = self._streams[name]
        first = starts[loaded.first_chunk] + before
        last = first + here
        if last > starts[loaded.last_chunk]:
            raise IntegrityError(f"{self._what(name)}: rows have more entries than were written")
        return first, last

    def _stream(self, loaded: _LoadedChunks, name: str, counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The elements of a stream that the requested rows have. counts: elements of each loaded row."""
        begin = loaded.requested.start
        first, last = self._range(loaded, name, int(counts[:begin].sum()), int(counts[begin:].sum()))
        if first == last:
            return np.zeros(0, self._shards[name].spec.dtype)
        return self._decode(name, loaded.data[name], first, last, scratch=True)

    def _joined(
        self, loaded: _LoadedChunks, kind: str, name_of: Callable[[int], str], counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The streams of all bands in one array, and where that of each band starts for the requested rows.

        counts: int64 [2, bands], elements before the requested rows and in them. Whole chunks are decoded, one band
        after another.
        """
        wanted, size = [], 0  # (array, chunks, where they begin, where the requested rows begin)
        for edge, before, here in zip(self._bands, *counts.tolist(), strict=True):
            name = name_of(edge)
            first, last = self._range(loaded, name, before, here)
            chunk = self._shards[name].spec.chunk
            chunks = (first // chunk, -(-last // chunk)) if last > first else (0, 0)
            wanted.append((name, chunks, size, size + first - chunks[0] * chunk if last > first else size))
            size += (chunks[1] - chunks[0]) * chunk
        starts = np.array([begin for *_, begin in wanted] or [0], np.int64)
        if not size:
            return _EMPTY, starts
        dtype = self._shards[wanted[0][0]].dtype
        values = self._scratch.array(kind, size, dtype)
        values = np.empty(size, dtype) if values is None else values
        for name, (first, last), begin, _ in wanted:
            if last > first:
                self._decode_chunks(name, loaded.data[name], first, last, values[begin:])
        return values, starts

    def descriptions(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Key, origin and example of each of these examples, in the requested order."""
        return self._texts.read(positions)

    def description(self, i: int) -> dict[str, Any]:
        """Key, origin and example of the i-th example."""
        return self._texts.read([i])[0]

    def examples(self, positions: Sequence[int]) -> list[tuple[str, str, Example]]:
        """Key, origin and texts of each of these examples, in the requested order."""
        return self._texts.examples(positions)

    def example(self, i: int) -> tuple[str, str, Example]:
        """Key, origin and texts of the i-th example."""
        return self._texts.examples([i])[0]

    def all_descriptions(self) -> bytes:
        """The texts of all examples, one after the other."""
        return self._texts.all_bytes()

    def segments(self) -> npt.NDArray[np.uint8]:
        """The segment of every token of the part, uint8 [tokens]. No rows are read."""
        name = layout.SEGMENTS
        data = self._read_spans({name: (0, self._shards[name].spec.chunks)})[name]
        return np.asarray(self._decode(name, data, 0, self.tokens).astype(np.uint8))

    def check_all(self) -> None:
        """Read and decode every chunk of every array. Raises IntegrityError at the first fault."""
        for name, shard in self._shards.items():
            offset, size = self._group.position(name)
            (data,) = self._storage.read_ranges([(self._path, offset, size)])
            bounds = decode_index(shard.spec, data[-shard.spec.index_bytes :], self._what(name))
            if [offset + each for each in bounds] != shard.bounds:
                raise IntegrityError(f"{self._what(name)}: its index is not that of the chunks in {layout.CHUNK_BYTES}")
            shard.decode(data, 0, shard.spec.chunks)
        if self._targets.has_exact and not np.array_equal(self._grid, self._targets.grid[: len(self._grid)]):
            raise IntegrityError(f"{self._what(layout.GRID)}: is not the grid of the store's spec")

    def _read_spans(self, spans: dict[str, tuple[int, int]]) -> dict[str, tuple[int, bytes, int]]:
        """A run of chunks of each array, in one request to the storage, in the form of _LoadedChunks.data."""
        ranges = []
        for name, (first, last) in spans.items():
            bounds = self._shards[name].bounds
            ranges.append((self._path, bounds[first], bounds[last] - bounds[first]))
        data = self._storage.read_ranges(ranges)
        return {name: (spans[name][0], piece, 0) for name, piece in zip(spans, data, strict=True)}

    def _read_bytes(self, start: int, stop: int) -> bytes:
        """Bytes start:stop of the file."""
        return self._storage.read_ranges([(self._path, start, stop - start)])[0]

    def _decode(
        self, name: str, data: tuple[int, bytes, int], start: int, stop: int, scratch: bool = False
    ) -> npt.NDArray[Any]:
        """Elements start:stop of an array, without decoding other chunks. data: as in _LoadedChunks.

        scratch: decode into a buffer that the next window overwrites.
        """
        shard = self._shards[name]
        size = shard.spec.chunk
        first, last = start // size, -(-stop // size)
        out = self._scratch.array(name, (last - first) * shard.chunk_size, shard.dtype) if scratch else None
        values = self._decode_chunks(name, data, first, last, out)
        return values[start - first * size : stop - first * size]

    def _decode_chunks(
        self, name: str, data: tuple[int, bytes, int], first: int, last: int, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """The values of chunks first..last - 1 of an array, written to `out` if that is given."""
        shard = self._shards[name]
        first_chunk, content, skip = data
        if first < first_chunk or last >= len(shard.bounds):
            raise IntegrityError(f"{shard.what}: starts of chunks do not agree with the rows")
        skip += shard.bounds[first] - shard.bounds[first_chunk]
        return shard.decode(content, first, last, skip, out)

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
        return f"{self._storage}/{self._path}/{name}"


def _starts_of_arrays(bands: Sequence[int], targets: TargetSpec) -> dict[str, str]:
    """For each array of entries, the name of its starts in each chunk of tokens."""
    names = {layout.codes_of_band(edge): layout.code_starts_of_band(edge) for edge in bands}
    names |= {
        layout.gaps_of_band(edge): (layout.pair_starts_of_band if edge else layout.code_starts_of_band)(edge)
        for edge in bands
    }
    if targets.has_sampled:
        names[layout.SAMPLED_CODES] = layout.SAMPLED_STARTS
    if targets.mode == "sampled":
        names[layout.SAMPLED_DRAWS] = layout.SAMPLED_STARTS
    return names
