"""Read one part: any run of its tokens, from the few chunks that contain it. Knows nothing of commits."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.examples.example import Example
from cache.json_documents import require_fields, require_readable
from cache.parts import layout
from cache.parts.part import PartInfo, crc32c_of
from cache.parts.zarr_shard import CHECKSUM_BYTES, ArraySpec, decode_chunks, decode_index
from cache.rows.codebook import Codebook
from cache.rows.codec import EncodedRows, decode_logprobs, decode_rows
from cache.rows.record import Window
from cache.rows.shared_kernels import FIRST
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from cache.storage.base import Range, Storage

SCRATCH_BYTES = 1 << 22
# Arrays of entries, by the name of the starts that lead to them.
_STREAMS = {
    "first": (layout.FIRST_CODES, layout.FIRST_GAPS),
    "rest": (layout.REST_CODES,),
    "pair": (layout.REST_GAPS,),
    "sampled": (layout.SAMPLED_CODES, layout.SAMPLED_DRAWS),
}
_EMPTY = np.zeros(0, np.uint16)
_DESCRIPTION_FIELDS = {"key", "origin", "example"}


@dataclass(frozen=True, slots=True)
class _Shard:
    """The shard of an array. Chunk i is bytes bounds[i]:bounds[i + 1]. checksums: crc32c that each chunk must have."""

    spec: ArraySpec
    bounds: list[int]
    checksums: bytes | None


@dataclass(frozen=True, slots=True)
class _LoadedChunks:
    """Bytes of the chunks that a window needs, not decoded.

    spans: first and last chunk (exclusive) of each array. data: their bytes. first_chunk, last_chunk: chunks of tokens.
    stop: end of the window, a token of the part. requested: the window as a slice of the loaded tokens.
    """

    spans: dict[str, tuple[int, int]]
    data: dict[str, bytes]
    first_chunk: int
    last_chunk: int
    stop: int
    requested: slice


class Scratch(threading.local):
    """Buffers of each thread for intermediate results. They are reused, because new pages cost as much as decoding.

    Each array of a part has one buffer, of at most SCRATCH_BYTES.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, length: int, dtype: str) -> npt.NDArray[Any] | None:
        """A buffer that is valid until the next call with the same name. None if it would exceed SCRATCH_BYTES."""
        size = length * np.dtype(dtype).itemsize
        if size > SCRATCH_BYTES:
            return None
        buffer = self._arrays.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._arrays[name] = np.empty(max(size, SCRATCH_BYTES // 8), np.uint8)
        return buffer[:size].view(dtype)


class PartReader:
    """Random access to one part. Caches the indexes of the shards and the starts of examples and chunks, but no rows.

    Safe to share between threads. Raises IntegrityError, with the name of the file, for missing or damaged data.
    """

    def __init__(
        self,
        storage: Storage,
        info: PartInfo,
        targets: TargetSpec,
        codebook: Codebook,
        scratch: Scratch | None = None,
    ) -> None:
        self._storage = storage
        self._scratch = scratch or Scratch()
        self._info = info
        self._targets = targets
        self._codebook = codebook
        arrays = layout.part_arrays(info.counts, targets, codebook, info.profile)
        if set(arrays) != set(info.sizes):
            raise IntegrityError(f"{storage}/{info.path}: its commit does not list the arrays of its spec")
        self._files = {name: f"{info.path}/{name}/{array.path}" for name, array in arrays.items()}
        self._shards = self._open_shards(arrays)
        self._token_names = [name for name in arrays if name.startswith("tokens/")]
        self._starts = self._read_arrays([name for name in arrays if name.endswith("_start")])
        self._chunk_starts = {
            stream: (self._starts[f"chunks/{stream}_start"].tolist(), [name for name in names if name in arrays])
            for stream, names in _STREAMS.items()
            if names[0] in arrays
        }
        self.token_starts: list[int] = self._starts[layout.TOKEN_STARTS].tolist()
        self._check_starts()

    def _check_starts(self) -> None:
        """Raise IntegrityError unless all starts increase from 0 to the number that the commit says."""
        counts = self._info.counts
        ends = {layout.TOKEN_STARTS: counts.tokens, layout.DESCRIPTION_STARTS: counts.description_bytes}
        ends |= {f"chunks/{name}_start": counts.of_stream(name) for name in self._chunk_starts}
        for name, end in ends.items():
            starts = self._starts[name]
            if int(starts[0]) != 0 or int(starts[-1]) != end or (np.diff(starts) < 0).any():
                raise IntegrityError(
                    f"{self._what(name)}: does not increase from 0 to {end}: not the file of this part"
                )

    @property
    def nbytes(self) -> int:
        """Memory of this reader in bytes."""
        numbers = sum(len(shard.bounds) for shard in self._shards.values()) + len(self.token_starts)
        return 40 * numbers + sum(array.nbytes for array in self._starts.values()) + 20_000  # objects around them

    def window(self, start: int, stop: int) -> Window:
        """Tokens start:stop of the part and their targets."""
        if start == stop:
            return self._empty_window()
        loaded = self._load(start, stop)
        here = loaded.requested
        tokens, encoded = self._tokens(loaded, layout.TOKEN_IDS)[here], self._encoded_rows(loaded)
        targets = decode_rows(encoded, tokens, self._targets, self._codebook, f"{self._storage}/{self._info.path}")
        if self._targets.entropy or self._targets.temperatures:
            has_normalizers = bool(self._targets.temperatures)
            targets = replace(
                targets,
                entropy=self._tokens(loaded, layout.ENTROPY)[here] if self._targets.entropy else None,
                log_normalizers=self._tokens(loaded, layout.LOG_NORMALIZERS)[here] if has_normalizers else None,
            )
        segments = self._tokens(loaded, layout.SEGMENTS)[here].astype(np.uint8)
        return Window(tokens, segments, targets, decode_logprobs(self._tokens(loaded, layout.SURPRISAL)[here]))

    def _load(self, start: int, stop: int) -> _LoadedChunks:
        """Read all chunks that tokens start:stop need, in one request to the storage."""
        size = layout.TOKEN_CHUNK
        first_chunk, last_chunk = start // size, -(-stop // size)
        spans = dict.fromkeys(self._token_names, (first_chunk, last_chunk))
        # Entries of whole chunks of tokens: a little more than needed, but in one round of reading.
        for starts, names in self._chunk_starts.values():
            first, last = starts[first_chunk], starts[last_chunk]
            if last > first:
                for name in names:
                    entries = self._shards[name].spec.chunk
                    spans[name] = (first // entries, -(-last // entries))
        lead = start - first_chunk * size
        requested = slice(lead, lead + stop - start)
        return _LoadedChunks(spans, self._read_spans(spans), first_chunk, last_chunk, stop, requested)

    def _tokens(self, loaded: _LoadedChunks, name: str) -> npt.NDArray[Any]:
        """Values of an array of tokens, from the first loaded chunk to the last requested token."""
        first = loaded.first_chunk
        return self._decode(name, loaded.data[name], first, first * layout.TOKEN_CHUNK, loaded.stop)

    def _encoded_rows(self, loaded: _LoadedChunks) -> EncodedRows:
        """The requested rows, still encoded."""
        here = loaded.requested
        zeros = np.zeros(here.stop, np.int64)
        exact = self._tokens(loaded, layout.EXACT).astype(np.int64) if self._targets.has_exact else zeros
        sampled = self._tokens(loaded, layout.SAMPLED).astype(np.int64) if self._targets.has_sampled else zeros
        in_first = np.minimum(exact, FIRST)
        first_code, first_gap = self._stream(loaded, "first", in_first)
        rest_code, *_ = self._stream(loaded, "rest", exact - in_first)
        rest_gap, *_ = self._stream(loaded, "pair", (exact - in_first + 1) // 2)
        sampled_code, *draws = self._stream(loaded, "sampled", sampled)
        has_draws = self._targets.mode == "sampled"
        return EncodedRows(
            exact=exact[here],
            sampled=sampled[here],
            tail=self._tokens(loaded, layout.TAIL)[here],
            first_code=first_code,
            first_gap=first_gap,
            rest_code=rest_code,
            rest_gap=rest_gap,
            sampled_code=sampled_code,
            sampled_draws=draws[0] if has_draws else np.ones(len(sampled_code), np.uint32),
            levels=self._info.counts.levels,
        )

    def _stream(self, loaded: _LoadedChunks, name: str, counts: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """The arrays of a stream, for the requested rows. counts: elements of each loaded row."""
        if name not in self._chunk_starts:
            return [_EMPTY, _EMPTY]
        starts, names = self._chunk_starts[name]
        first = starts[loaded.first_chunk] + int(counts[: loaded.requested.start].sum())
        last = first + int(counts[loaded.requested].sum())
        if last > starts[loaded.last_chunk]:
            raise IntegrityError(f"{self._what(names[0])}: rows have more entries than were written")
        if first == last:
            return [np.zeros(0, self._shards[array].spec.dtype) for array in names]
        return [
            self._decode(array, loaded.data[array], loaded.spans[array][0], first, last, scratch=True)
            for array in names
        ]

    def descriptions(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Key, origin and example of each of these examples, in the requested order.

        A chunk of texts is decoded once, however many of the examples it contains.
        """
        name, starts = layout.DESCRIPTIONS, self._starts[layout.DESCRIPTION_STARTS].tolist()
        chunk = self._shards[name].spec.chunk
        results: list[dict[str, Any]] = [{}] * len(positions)
        order = sorted(range(len(positions)), key=positions.__getitem__)
        begin = 0
        while begin < len(order):
            end = begin + 1
            start, stop = starts[positions[order[begin]]], starts[positions[order[begin]] + 1]
            first, last = start // chunk, -(-stop // chunk)
            while end < len(order) and starts[positions[order[end]]] // chunk < last:
                stop = starts[positions[order[end]] + 1]
                last = -(-stop // chunk)
                end += 1
            data = self._read_spans({name: (first, last)})[name]
            text = self._decode(name, data, first, start, stop).tobytes()
            for number in order[begin:end]:
                i = positions[number]
                results[number] = self._parse_description(i, text[starts[i] - start : starts[i + 1] - start])
            begin = end
        return results

    def _parse_description(self, i: int, text: bytes) -> dict[str, Any]:
        try:
            description = dict(json.loads(text.decode()))
        except (ValueError, TypeError, RecursionError) as error:
            raise IntegrityError(f"{self._what_describes(i)} is not described by JSON") from error
        if description.keys() != _DESCRIPTION_FIELDS:  # the names in messages take as long as the rest
            require_readable(description, self._what_describes(i))
            require_fields(description, sorted(_DESCRIPTION_FIELDS), self._what_describes(i))
        return description

    def _what_describes(self, i: int) -> str:
        return f"{self._what(layout.DESCRIPTIONS)}: example {i} of the part"

    def description(self, i: int) -> dict[str, Any]:
        """Key, origin and example of the i-th example."""
        return self.descriptions([i])[0]

    def examples(self, positions: Sequence[int]) -> list[tuple[str, str, Example]]:
        """Key, origin and texts of each of these examples, in the requested order."""
        found = []
        for i, fields in zip(positions, self.descriptions(positions), strict=True):
            try:
                found.append((fields["key"], fields["origin"], Example.from_document(fields["example"])))
            except KeyError as error:
                raise IntegrityError(f"{self._what_describes(i)} has no {error}") from None
        return found

    def example(self, i: int) -> tuple[str, str, Example]:
        """Key, origin and texts of the i-th example."""
        return self.examples([i])[0]

    def segments(self) -> npt.NDArray[np.uint8]:
        """The segment of every token of the part, uint8 [tokens]. No rows are read."""
        return self._read_arrays([layout.SEGMENTS])[layout.SEGMENTS].astype(np.uint8)

    def check_all(self) -> None:
        """Read and decode every chunk of every array. Raises IntegrityError at the first fault."""
        for name, shard in self._shards.items():
            data = self._read_spans({name: (0, shard.spec.chunks)})[name]
            decode_chunks(shard.spec, shard.bounds, data, 0, shard.spec.chunks, self._what(name), shard.checksums)
        if layout.GRID in self._shards:
            grid = self._read_arrays([layout.GRID])[layout.GRID]
            if not np.array_equal(grid, self._targets.grid[: len(grid)]):
                raise IntegrityError(f"{self._what(layout.GRID)}: is not the grid of the store's spec")

    def _open_shards(self, arrays: dict[str, ArraySpec]) -> dict[str, _Shard]:
        """Read the index of every shard and the checksums of all chunks. Compares both with the commit."""
        ranges: list[Range] = []
        for name, array in arrays.items():
            size = self._info.sizes[name]
            length = size if name == layout.CHECKSUMS else array.index_bytes
            if size < array.index_bytes:
                raise IntegrityError(f"{self._what(name)}: shorter than its own index")
            ranges.append((self._files[name], size - length, length))
        tails = dict(zip(arrays, self._storage.read_ranges(ranges), strict=True))
        bounds = {name: decode_index(a, tails[name][-a.index_bytes :], self._what(name)) for name, a in arrays.items()}
        name = layout.CHECKSUMS
        checksums = decode_chunks(arrays[name], bounds[name], tails[name], 0, 1, self._what(name)).tobytes()
        for name, array in arrays.items():
            body = checksums if name == layout.CHECKSUMS else tails[name][-array.index_bytes : -CHECKSUM_BYTES]
            if crc32c_of(body) != self._info.checksums[name]:
                raise IntegrityError(f"{self._what(name)}: is not the file that was committed")
        shards, offset = {}, 0
        for name, array in arrays.items():
            expected = None if name == layout.CHECKSUMS else checksums[offset : offset + CHECKSUM_BYTES * array.chunks]
            shards[name] = _Shard(array, bounds[name], expected)
            offset += CHECKSUM_BYTES * array.chunks
        return shards

    def _read_arrays(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
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
        """Elements start:stop of an array, without decoding other chunks. data: the shard from `first_chunk` on.

        scratch: decode into a buffer that the next window overwrites.
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
        return f"{self._storage}/{self._info.path}/{name}"
