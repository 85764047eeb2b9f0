"""What the store is measured beside: a raw memory map, Parquet, MDS, DistillKit, and the two of zarr_peers."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common.rows import Rows
from benchmarks.store.peer_protocol import Peer, Rates, folder_size, imported
from benchmarks.store.zarr_peers import TensorStore, ZarrPython
from cache.store.logit_store import LogitStore

GROUP_DOCUMENTS = 8  # of a Parquet row group


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
        result = []
        for d in documents:
            rows = slice(int(self._offsets[d]), int(self._offsets[d + 1]))
            result.append((np.array(self._ids[rows]), np.array(self._logprobs[rows])))
        return result

    def accuracy(self) -> tuple[float | None, float | None]:
        return None, None


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
        result: list[Any] = [None] * len(documents)
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
                result[position] = ids[here].reshape(-1, self._k), logprobs[here].reshape(-1, self._k)
        return result

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
        from benchmarks.store.records import WINDOW

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
            message = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            kind = ImportError if message.startswith("ModuleNotFoundError") else RuntimeError
            raise kind(f"{options.mds_python}: {message}")
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
        result = []
        for d in documents:
            ids, logprobs = self._codec.decompress_to_sparse(self._packed[d])
            result.append((ids.numpy(), logprobs.float().numpy()))  # numpy has no bfloat16
        return result

    def accuracy(self) -> tuple[float | None, float | None]:
        total = max_error = 0.0
        for d, (start, stop) in enumerate(zip(self._rows.offsets[:-1], self._rows.offsets[1:], strict=True)):
            [(ids, logprobs)] = self.read([d])
            given = by_id(self._rows.ids[start:stop], self._rows.logprobs[start:stop])
            stored = by_id(ids, logprobs)
            max_error = max(max_error, float(np.abs(stored - given).max(initial=0)))
            p, q = normalised(given), normalised(stored)
            total += float((np.exp(p) * (p - q)).sum())
        return total / len(self._rows.ids), max_error

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
