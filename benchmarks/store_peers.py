"""What the store is measured beside: the same rows, written and read by others, as ids and log-probabilities."""

import importlib
import json
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Rows
from cache import layout
from cache.codebook import Codebook
from cache.codebooks import open_codebook
from cache.codec import Packed, decode_rows
from cache.commits import create_store
from cache.kernels import FIRST
from cache.reader import LogitStore
from cache.record import Record
from cache.snapshots import take_snapshot
from cache.storage import LocalStorage
from cache.targets import SparseTargets
from cache.writer import write_unit

Rates = tuple[list[float], list[float]] | None


class Peer(Protocol):
    """A way to keep rows. Its constructor writes them, or raises ImportError where its library is not installed.

    share: part of the documents that a measurement reads, for slow readers.
    rates: tokens a CPU second of each repeat, random and windowed, where the peer measures them itself; `read` then
        cannot be called.
    """

    size: int | None
    write_seconds: float | None
    share: float
    rates: Rates

    def read(self, documents: list[int]) -> Any:
        """Ids and log-probabilities of each of the documents, as arrays."""
        ...

    def accuracy(self) -> tuple[float | None, float | None]:
        """Mean KL(given || stored) and greatest error in nats, None where nothing is lost or it was not measured."""
        ...


GROUP_DOCUMENTS = 8  # of a Parquet row group
# Of tensorstore: room for the indexes of shards and little more, so that reads are not from memory.
CACHE_BYTES = 4 << 20


class Memmap:
    """The limit: fixed records of ids and half-precision log-probabilities in a memory map, copied out."""

    share = 1.0
    rates: Rates = None

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        self._offsets = rows.offsets
        self._shape = rows.ids.shape
        folder.mkdir()
        started = time.process_time()
        rows.ids.tofile(folder / "ids")
        rows.logprobs.astype(np.float16).tofile(folder / "logprobs")
        self.write_seconds = time.process_time() - started
        self.size = folder_size(folder)
        self._ids = np.memmap(folder / "ids", np.uint32, "r", shape=self._shape)
        self._logprobs = np.memmap(folder / "logprobs", np.float16, "r", shape=self._shape)

    def read(self, documents: list[int]) -> Any:
        found = []
        for d in documents:
            rows = slice(int(self._offsets[d]), int(self._offsets[d + 1]))
            found.append((np.array(self._ids[rows]), np.array(self._logprobs[rows])))
        return found

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None


TOKEN_ARRAYS = (layout.TOKEN_IDS, layout.SEGMENTS, layout.EXACT, layout.TAIL, layout.SURPRISAL)
ENTRY_ARRAYS = (layout.FIRST_CODES, layout.FIRST_GAPS, layout.REST_CODES, layout.REST_GAPS)


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part whose arrays a library has opened. Starts: of examples in tokens, of tokens in the streams of entries."""

    arrays: dict[str, Any]
    token_starts: npt.NDArray[np.int64]
    first_starts: npt.NDArray[np.int64]
    rest_starts: npt.NDArray[np.int64]
    pair_starts: npt.NDArray[np.int64]
    levels: int
    codebook: Codebook
    path: Path

    def spans(self, example: int) -> dict[str, slice]:
        """Which elements of each array belong to an example."""
        start, stop = int(self.token_starts[example]), int(self.token_starts[example + 1])
        spans = dict.fromkeys(TOKEN_ARRAYS, slice(start, stop))
        starts_of = (self.first_starts, self.first_starts, self.rest_starts, self.pair_starts)
        for name, starts in zip(ENTRY_ARRAYS, starts_of, strict=True):
            spans[name] = slice(int(starts[start]), int(starts[stop]))
        return spans


class ZarrPeer:
    """A store of top-k targets through another reader of Zarr; what it reads, our codec decodes."""

    share: float
    rates: Rates = None

    def __init__(self, rows: Rows, store: LogitStore) -> None:
        from benchmarks.store import as_records  # that module imports this one

        place = {store.key(i): i for i in range(len(store))}
        self._order = [place[record.key] for record in as_records(rows)]
        self._store = store
        self._parts = [self._open_part(unit) for unit in range(len(store.index.unit))]

    def _open_array(self, part: Path, name: str) -> Any:
        """The array of a part, open."""
        raise NotImplementedError

    def _fetch(self, arrays: dict[str, Any], spans: dict[str, slice]) -> dict[str, npt.NDArray[Any]]:
        """The elements asked for of each array."""
        raise NotImplementedError

    def read(self, documents: list[int]) -> Any:
        index = self._store.index
        found = []
        for d in documents:
            i = self._order[d]
            part = self._parts[int(index.unit_of[i])]
            values = self._fetch(part.arrays, part.spans(int(index.place[i])))
            targets = self._decode(part, values)
            found.append((targets.ids, targets.logprobs))
        return found

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None  # as the store's

    def _open_part(self, unit: int) -> OpenPart:
        store = self._store
        place = store.index.part_place(unit)
        assert isinstance(store.storage, LocalStorage)
        path = store.storage.path(place.path)
        arrays = {name: self._open_array(path, name) for name in (*TOKEN_ARRAYS, *ENTRY_ARRAYS)}
        starts = self._open_array(path, layout.TOKEN_STARTS)
        whole = self._fetch(
            {"starts": starts, "exact": arrays[layout.EXACT]},
            {"starts": slice(0, place.counts.examples + 1), "exact": slice(0, place.counts.tokens)},
        )
        exact = whole["exact"].astype(np.int64)
        rest = np.maximum(exact - FIRST, 0)
        streams = (np.minimum(exact, FIRST), rest, (rest + 1) // 2)
        return OpenPart(
            arrays,
            whole["starts"],
            *(np.concatenate([[0], np.cumsum(counts)]) for counts in streams),
            place.counts.levels,
            open_codebook(store.storage, place.codebook, store.spec.vocab_size),
            path,
        )

    def _decode(self, part: OpenPart, values: dict[str, npt.NDArray[Any]]) -> SparseTargets:
        exact = values[layout.EXACT].astype(np.int64)
        packed = Packed(
            exact=exact,
            sampled=np.zeros_like(exact),
            tail=values[layout.TAIL],
            first_code=values[layout.FIRST_CODES],
            first_gap=values[layout.FIRST_GAPS],
            rest_code=values[layout.REST_CODES],
            rest_gap=values[layout.REST_GAPS],
            sampled_code=np.zeros(0, np.uint32),
            sampled_draws=np.zeros(0, np.uint32),
            levels=part.levels,
        )
        return decode_rows(packed, values[layout.TOKEN_IDS], self._store.spec.targets, part.codebook, str(part.path))


class ZarrPython(ZarrPeer):
    """The store's own files through zarr-python's public interface, document by document."""

    share = 0.05
    # The store wrote them, and its size is told with it.
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
            place = self._zarr.storage.LocalStore(part, read_only=True)
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
        self.size = self._store.info().bytes

    def _open_array(self, part: Path, name: str) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(part / name)},
            "recheck_cached_data": "open",
        }
        return self._tensorstore.open(spec, open=True, read=True, context=self._context).result()

    def _fetch(self, arrays: dict[str, Any], spans: dict[str, slice]) -> dict[str, npt.NDArray[Any]]:
        pending = {name: arrays[name][span].read() for name, span in spans.items()}
        return {name: future.result() for name, future in pending.items()}


def write_portable(folder: Path, rows: Rows, store: LogitStore) -> float:
    """Write the rows in the store's units as a store without codecs of its own. Returns CPU seconds."""
    from benchmarks.store import as_records  # that module imports this one

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


class Parquet:
    """One Parquet row a document, its ids and half-precision log-probabilities as lists; bytes split, zstd."""

    share = 0.1
    rates: Rates = None

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        pyarrow = imported("pyarrow", "pyarrow: pip install pyarrow")
        parquet = imported("pyarrow.parquet", "pyarrow: pip install pyarrow")
        self._k = rows.ids.shape[1]
        folder.mkdir()
        path = folder / "rows.parquet"
        schema = pyarrow.schema(
            [("ids", pyarrow.list_(pyarrow.uint32())), ("logprobs", pyarrow.list_(pyarrow.float16()))]
        )
        # Three quarters of the size and twice the speed of the default, a dictionary of ids.
        encoding = {"use_dictionary": False, "use_byte_stream_split": True}
        started = time.process_time()
        with parquet.ParquetWriter(path, schema, compression="zstd", **encoding) as writer:
            for first in range(0, len(rows.offsets) - 1, GROUP_DOCUMENTS):
                edges = rows.offsets[first : first + GROUP_DOCUMENTS + 1]
                here = slice(int(edges[0]), int(edges[-1]))
                starts = pyarrow.array(((edges - edges[0]) * self._k).astype(np.int32))
                values = rows.ids[here].ravel(), rows.logprobs[here].astype(np.float16).ravel()
                lists = [pyarrow.ListArray.from_arrays(starts, pyarrow.array(each)) for each in values]
                writer.write_table(pyarrow.Table.from_arrays(lists, schema=schema), row_group_size=GROUP_DOCUMENTS)
        self.write_seconds = time.process_time() - started
        self.size = folder_size(folder)
        self._file = parquet.ParquetFile(path, memory_map=True)

    def read(self, documents: list[int]) -> Any:
        found: list[Any] = [None] * len(documents)
        by_group: dict[int, list[int]] = {}
        for position, d in enumerate(documents):
            by_group.setdefault(d // GROUP_DOCUMENTS, []).append(position)
        for group, positions in by_group.items():
            table = self._file.read_row_group(group, use_threads=False)
            columns = [one_chunk(table.column(name)) for name in ("ids", "logprobs")]
            starts = columns[0].offsets.to_numpy()
            ids, logprobs = (column.values.to_numpy() for column in columns)
            for position in positions:
                row = documents[position] % GROUP_DOCUMENTS
                here = slice(int(starts[row]), int(starts[row + 1]))
                found[position] = ids[here].reshape(-1, self._k), logprobs[here].reshape(-1, self._k)
        return found

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None

    def close(self) -> None:
        self._file.close()


class Mds:
    """MDS shards of mosaicml-streaming, zstd, a sample a document, in an environment of its own (--mds-python).

    Installing the library replaces torch and numpy. The environment, with a CPU build of torch at hand:

        python3.11 -m venv /tmp/mds-venv
        /tmp/mds-venv/bin/pip install torch==2.13.0
        /tmp/mds-venv/bin/pip install --no-deps mosaicml-streaming==0.13.0
        /tmp/mds-venv/bin/pip install 'numpy<2.2' catalogue brotli python-snappy zstd 'xxhash<4' tqdm \\
            'transformers<5' pillow
    """

    # Size is that of the compressed shards. Rates are of the shards as the library unpacks them beside those, at the
    # first touch of each and outside what is measured: raw files as large as the memory map's.
    share = 1.0

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        from benchmarks.store import WINDOW  # that module imports this one

        if options.mds_python is None:
            raise ImportError("needs --mds-python, the Python of an environment with mosaicml-streaming")
        folder.mkdir()
        given = folder / "rows.npz"
        np.savez(given, ids=rows.ids, logprobs=rows.logprobs.astype(np.float16), offsets=rows.offsets)
        script = Path(__file__).with_name("mds_peer.py")
        # Isolated: a PYTHONPATH of this process would mix two environments.
        command = [options.mds_python, "-I", script, given, folder / "shards", "--repeats", options.repeats]
        command += ["--share", self.share, "--window", WINDOW]
        try:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        except OSError as error:
            raise ImportError(f"--mds-python {options.mds_python}: {error.strerror}") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            kind = ImportError if said.startswith("ModuleNotFoundError") else RuntimeError
            raise kind(f"{options.mds_python}: {said}")
        measured = json.loads(done.stdout.splitlines()[-1])
        self.size = int(measured["bytes"])
        self.write_seconds = float(measured["write_seconds"])
        self.rates: Rates = (measured["random"], measured["windowed"])

    def read(self, documents: list[int]) -> Any:
        raise NotImplementedError("read, and measured, by a process of its own: see `rates`")

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None


class DistillKit:
    """DistillKit's codec at its recommended setting: 16 exact values, a polynomial for the rest. In memory.

    Needs a checkout of github.com/arcee-ai/DistillKit on PYTHONPATH, or installed.
    """

    share = 0.05
    rates: Rates = None

    def __init__(self, folder: Path, rows: Rows, store: LogitStore, options: Any) -> None:
        codec = imported("distillkit.compression", "a checkout of github.com/arcee-ai/DistillKit on PYTHONPATH")
        self._torch = imported("torch", "torch: pip install torch")
        self._rows = rows
        k = rows.ids.shape[1]
        config = codec.DistributionQuantizationConfig(
            d=rows.vocab,
            k=k,
            exact_dtype="bfloat16",
            term_dtype="float32",
            residual_bins=[],
            delta_encoding=False,
            error_diffusion=False,
            **self._settings(k),
        )
        self._codec = codec.LogprobCompressor(config=config)
        self._threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        started = time.process_time()
        self._packed = []
        for start, stop in zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True):
            ids = self._torch.from_numpy(rows.ids[start:stop].astype(np.int64))
            logprobs = self._torch.from_numpy(rows.logprobs[start:stop])
            self._packed.append(self._codec.compress_from_sparse(ids, logprobs))
        self.write_seconds = time.process_time() - started
        # Its best case: bare tensors. Parquet around them costs bytes and time.
        self.size = sum(tensor.nbytes for document in self._packed for tensor in document.values())

    def _settings(self, k: int) -> dict[str, Any]:
        if k <= 24:  # nothing is gained from 6 coefficients for at most 8 values; the benchmark skips on this error
            raise ImportError(f"its recommended setting is for k above 24, not {k}")
        return {"exact_k": 16, "polynomial_terms": [0, 1, 2, 3, 4, "sqrt"], "normalize_t": True}

    def read(self, documents: list[int]) -> Any:
        found = []
        for d in documents:
            ids, logprobs = self._codec.decompress_to_sparse(self._packed[d])
            found.append((ids.numpy(), logprobs.float().numpy()))  # numpy has no bfloat16
        return found

    def accuracy(self) -> tuple[float | None, float | None]:
        total = greatest = 0.0
        for d, (start, stop) in enumerate(zip(self._rows.offsets[:-1], self._rows.offsets[1:], strict=True)):
            [(ids, logprobs)] = self.read([d])
            given = by_id(self._rows.ids[start:stop], self._rows.logprobs[start:stop])
            stored = by_id(ids, logprobs)
            greatest = max(greatest, float(np.abs(stored - given).max(initial=0)))
            p, q = normalised(given), normalised(stored)
            total += float((np.exp(p) * (p - q)).sum())
        return total / len(self._rows.ids), greatest

    def close(self) -> None:
        self._torch.set_num_threads(self._threads)


class DistillKitBf16(DistillKit):
    """DistillKit's codec with all values exact to bfloat16."""

    def _settings(self, k: int) -> dict[str, Any]:
        return {"exact_k": k, "polynomial_terms": None, "normalize_t": False}


def by_id(ids: npt.NDArray[Any], logprobs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Log-probabilities of each row in the order of its ids: codecs may exchange entries of one value."""
    return np.take_along_axis(logprobs, np.argsort(ids, axis=1), 1).astype(np.float64)


def normalised(logprobs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log-probabilities given that the outcome is an entry of the row."""
    return np.asarray(logprobs - np.log(np.exp(logprobs).sum(axis=1, keepdims=True)))


def one_chunk(column: Any) -> Any:
    """The values of a column of Arrow; a row group is one chunk, and combining a single one would copy it."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def imported(module: str, remedy: str) -> Any:
    """The module. Raises ImportError with the remedy where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"needs {remedy} ({error})") from error


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


PEERS: dict[str, Callable[[Path, Rows, LogitStore, Any], Peer]] = {
    "memmap": Memmap,
    "zarr_python": ZarrPython,
    "tensorstore": TensorStore,
    "parquet": Parquet,
    "mds": Mds,
    "distillkit": DistillKit,
    "distillkit_bf16": DistillKitBf16,
}


@contextmanager
def open_peer(name: str, folder: Path, rows: Rows, store: LogitStore, options: Any) -> Iterator[Peer]:
    """A peer that has written the rows below `folder`. Raises ImportError where it is not installed."""
    peer = PEERS[name](folder, rows, store, options)
    try:
        yield peer
    finally:
        close = getattr(peer, "close", None)
        if close:
            close()
