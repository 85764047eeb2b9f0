"""Other readers of Zarr beside ours: the same files through zarr-python, the portable profile through tensorstore."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common.rows import Rows
from benchmarks.store.peer_protocol import Rates, imported
from cache.parts import layout
from cache.parts.zarr_zip import root_of_tail
from cache.rows.codebook import Codebook
from cache.rows.codec import EncodedRows, decode_rows, stream_starts
from cache.rows.rank_bands import band_counts, gap_counts
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import open_codebook
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

# Of tensorstore: room for the indexes of shards and little more, so that reads are not from memory.
CACHE_BYTES = 4 << 20


TOKEN_ARRAYS = (layout.TOKEN_IDS, layout.SEGMENTS, layout.EXACT, layout.TAIL, layout.SURPRISAL)


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part whose arrays a library has opened. Starts: of examples in tokens; of tokens in each stream of entries."""

    arrays: dict[str, Any]
    token_starts: npt.NDArray[np.int64]
    starts: dict[str, npt.NDArray[np.int64]]
    bands: tuple[int, ...]
    levels: int
    codebook: Codebook
    path: Path

    def spans(self, example: int) -> dict[str, slice]:
        """Which elements of each array belong to an example."""
        start, stop = int(self.token_starts[example]), int(self.token_starts[example + 1])
        spans = dict.fromkeys(TOKEN_ARRAYS, slice(start, stop))
        for name, starts in self.starts.items():
            spans[name] = slice(int(starts[start]), int(starts[stop]))
        return spans


class ZarrPeer:
    """A store of top-k targets through another reader of Zarr; what it reads, our codec decodes."""

    share: float
    rates: Rates = None

    def __init__(self, rows: Rows, store: LogitStore) -> None:
        from benchmarks.store.records import as_records

        place = {store.key(i): i for i in range(len(store))}
        self._order = [place[record.key] for record in as_records(rows)]
        self._store = store
        self._parts = [self._open_part(unit) for unit in range(len(store.index.unit))]

    def _open_array(self, part: Path, name: str) -> Any:
        """The array of a part, open."""
        raise NotImplementedError

    def _fetch(self, arrays: dict[str, Any], spans: dict[str, slice]) -> dict[str, npt.NDArray[Any]]:
        """The requested elements of each array."""
        raise NotImplementedError

    def read(self, documents: list[int]) -> Any:
        index = self._store.index
        found = []
        for d in documents:
            i = self._order[d]
            part = self._parts[int(index.unit_of[i])]
            values = self._fetch(part.arrays, part.spans(int(index.position[i])))
            targets = self._decode(part, values)
            found.append((targets.ids, targets.logprobs))
        return found

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None  # as the store's

    def _open_part(self, unit: int) -> OpenPart:
        store = self._store
        place = store.index.part_info(unit)
        assert isinstance(store.storage, LocalStorage)
        path = store.storage.path(place.path)
        group = root_of_tail(store.storage.read(place.path)[place.tail :], place.root - place.tail, str(path))
        counts, bands = group.attributes["counts"], tuple(group.attributes["bands"])
        entries = [name(edge) for edge in bands for name in (layout.codes_of_band, layout.gaps_of_band)]
        arrays = {name: self._open_array(path, name) for name in (*TOKEN_ARRAYS, *entries)}
        whole = self._fetch(
            {"starts": self._open_array(path, layout.TOKEN_STARTS), "exact": arrays[layout.EXACT]},
            {"starts": slice(0, counts["examples"] + 1), "exact": slice(0, counts["tokens"])},
        )
        in_bands = band_counts(whole["exact"].astype(np.int64), bands)
        streams = [each for pair in zip(in_bands, gap_counts(in_bands), strict=True) for each in pair]
        starts = {n: np.concatenate([[0], np.cumsum(each)]) for n, each in zip(entries, streams, strict=True)}
        codebook = open_codebook(store.storage, group.attributes["codebook"], store.spec.vocab_size)
        return OpenPart(arrays, whole["starts"], starts, bands, counts["levels"], codebook, path)

    def _decode(self, part: OpenPart, values: dict[str, npt.NDArray[Any]]) -> SparseTargets:
        exact = values[layout.EXACT].astype(np.int64)
        in_bands = band_counts(exact, part.bands)
        packed = EncodedRows(
            exact=exact,
            sampled=np.zeros_like(exact),
            tail=values[layout.TAIL],
            edges=part.bands,
            codes=np.concatenate([values[layout.codes_of_band(edge)] for edge in part.bands]),
            code_starts=stream_starts(in_bands),
            gaps=np.concatenate([values[layout.gaps_of_band(edge)] for edge in part.bands]),
            gap_starts=stream_starts(gap_counts(in_bands)),
            sampled_code=np.zeros(0, np.uint32),
            sampled_draws=np.zeros(0, np.uint32),
            levels=part.levels,
        )
        return decode_rows(packed, values[layout.TOKEN_IDS], self._store.spec.targets, part.codebook, str(part.path))


class ZarrPython(ZarrPeer):
    """The store's own files through zarr-python's public interface, document by document."""

    share = 0.05
    # The store wrote these files; its own entry has their size.
    write_seconds = None
    size = None

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        self._zarr = imported("zarr", "zarr: pip install zarr")
        # Its import registers the codec.
        imported("zarr.codecs.numcodecs", "numcodecs with pcodec: pip install numcodecs pcodec")
        self._groups: dict[Path, Any] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3 specification")
            super().__init__(rows, store)

    def _open_array(self, part: Path, name: str) -> Any:
        if part not in self._groups:
            place = self._zarr.storage.ZipStore(part, read_only=True)
            self._groups[part] = self._zarr.open_group(place, mode="r")
        return self._groups[part][name]

    def _fetch(self, arrays: dict[str, Any], spans: dict[str, slice]) -> dict[str, npt.NDArray[Any]]:
        return {name: arrays[name][span] for name, span in spans.items()}


class TensorStore(ZarrPeer):
    """The portable profile, written by us and read by tensorstore; the arrays of a document in one go."""

    share = 0.2

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        self._tensorstore = imported("tensorstore", "tensorstore: pip install tensorstore")
        # The default keeps nothing, and would read the index of a shard again for each read of it.
        self._context = self._tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
        self.write_seconds = write_portable(folder, rows, store)
        super().__init__(rows, LogitStore.open(str(folder)))
        self.size = self._store.info().part_bytes

    def _open_array(self, part: Path, name: str) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "zip", "base": {"driver": "file", "path": str(part)}, "path": f"{name}/"},
            "recheck_cached_data": "open",
        }
        return self._tensorstore.open(spec, open=True, read=True, context=self._context).result()

    def _fetch(self, arrays: dict[str, Any], spans: dict[str, slice]) -> dict[str, npt.NDArray[Any]]:
        pending = {name: arrays[name][span].read() for name, span in spans.items()}
        return {name: future.result() for name, future in pending.items()}


def write_portable(folder: Path, rows: Rows, store: LogitStore) -> float:
    """Write the rows in the store's units as a store without codecs of its own. Returns CPU seconds."""
    from benchmarks.store.records import as_records

    storage = LocalStorage(folder)
    create_store(storage, store.spec)
    unit_of = {store.key(i): int(unit) for i, unit in enumerate(store.index.unit_of)}
    units: dict[int, list[Record]] = {}
    for record in as_records(rows):
        units.setdefault(unit_of[record.key], []).append(record)
    started = time.process_time()
    for records in units.values():
        write_unit(storage, store.spec, records, "portable")
    seconds = time.process_time() - started
    take_snapshot(storage)
    return seconds
