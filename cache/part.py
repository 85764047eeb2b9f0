"""One part: the arrays of a unit of records, encoded and decoded. Knows nothing of commits."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from cache import layout
from cache.codec import QuantisationError, decode_gaps, encode_gaps, quantisation_error
from cache.errors import IntegrityError
from cache.example import Example, TokenizedExample
from cache.record import Record
from cache.targets import SparseTargets, concatenate


@dataclass(frozen=True, slots=True)
class PartData:
    """All arrays of a part, decoded, with the descriptions of its examples."""

    token_offsets: npt.NDArray[np.int64]
    descriptions: list[dict[str, Any]]
    token_ids: npt.NDArray[np.uint32]
    segments: npt.NDArray[np.uint8]
    token_logprobs: npt.NDArray[np.float32]
    targets: SparseTargets

    def __len__(self) -> int:
        return len(self.descriptions)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes, descriptions left out."""
        arrays = (self.token_ids, self.segments, self.token_logprobs, self.targets.ids, self.targets.logprobs)
        return sum(array.nbytes for array in arrays) + self.targets.offsets.nbytes + self.targets.log_tail.nbytes

    def record(self, i: int) -> Record:
        """The i-th record; arrays are views."""
        start, stop = int(self.token_offsets[i]), int(self.token_offsets[i + 1])
        description = self.descriptions[i]
        fields = description["example"]
        example = Example(**{**fields, "messages": tuple(fields["messages"])})
        tokenized = TokenizedExample(
            example, self.token_ids[start:stop], self.segments[start:stop], description["origin"]
        )
        return Record(description["key"], tokenized, self.targets.rows(start, stop), self.token_logprobs[start:stop])


def write_arrays(path: Path, records: Sequence[Record], step: float, attributes: dict[str, Any]) -> QuantisationError:
    """Write the group at `path` (which must not exist) and report what quantisation cost."""
    targets = concatenate([record.targets for record in records])
    gaps = encode_gaps(targets, step)
    error = quantisation_error(targets, decode_gaps(gaps, targets.offsets, targets.log_tail, step))
    descriptions = [_describe(record) for record in records]
    values: dict[layout.ArrayLayout, npt.NDArray[Any]] = {
        layout.TOKEN_OFFSETS: _offsets([len(record.tokenized.tokens) for record in records]),
        layout.DESCRIPTION_OFFSETS: _offsets([len(text) for text in descriptions]),
        layout.DESCRIPTIONS: np.frombuffer(b"".join(descriptions), np.uint8),
        layout.TOKEN_IDS: np.concatenate([record.tokenized.tokens for record in records]),
        layout.SEGMENTS: np.concatenate([record.tokenized.segments for record in records]),
        layout.ENTRY_COUNTS: targets.counts,
        layout.LOG_TAIL: targets.log_tail,
        layout.TOKEN_LOGPROBS: np.concatenate([record.token_logprobs for record in records]),
        layout.ENTRY_IDS: targets.ids,
        layout.ENTRY_GAPS: gaps,
    }
    group = zarr.create_group(
        LocalStore(path),
        attributes={"kind": layout.PART_KIND, "format": 1, "step": step, "quantisation": asdict(error), **attributes},
    )
    for array in layout.ARRAYS:
        layout.create_array(group, array, values[array])
    return error


def read_arrays(path: Path) -> PartData:
    """Decode a part. Raises IntegrityError naming the array where a checksum or a length does not hold."""
    try:
        with layout.numcodecs_allowed():
            group = zarr.open_group(LocalStore(path, read_only=True), mode="r")
            step = float(group.attrs["step"])  # type: ignore[arg-type]
    except Exception as error:
        raise IntegrityError(f"{path}: not a readable Zarr group: {error}") from error
    values = {array: _read_array(group, array, path) for array in layout.ARRAYS}
    counts = values[layout.ENTRY_COUNTS].astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    token_offsets = values[layout.TOKEN_OFFSETS]
    description_offsets = values[layout.DESCRIPTION_OFFSETS]
    log_tail = values[layout.LOG_TAIL]
    ids, gaps = values[layout.ENTRY_IDS], values[layout.ENTRY_GAPS]
    lengths_agree = (
        offsets[-1] == len(ids) == len(gaps)
        and token_offsets[-1] == len(counts) == len(log_tail) == len(values[layout.TOKEN_IDS])
        and description_offsets[-1] == len(values[layout.DESCRIPTIONS])
    )
    if not lengths_agree:
        raise IntegrityError(f"{path}: the lengths of its arrays contradict each other")
    text = values[layout.DESCRIPTIONS].tobytes()
    bounds = pairwise(description_offsets)
    return PartData(
        token_offsets=token_offsets,
        descriptions=[json.loads(text[start:stop]) for start, stop in bounds],
        token_ids=values[layout.TOKEN_IDS],
        segments=values[layout.SEGMENTS],
        token_logprobs=values[layout.TOKEN_LOGPROBS],
        targets=SparseTargets(offsets, ids, decode_gaps(gaps, offsets, log_tail, step), log_tail),
    )


def _read_array(group: zarr.Group, array: layout.ArrayLayout, path: Path) -> npt.NDArray[Any]:
    try:
        with layout.numcodecs_allowed():
            return np.asarray(group[array.name][:])  # type: ignore[index]
    except Exception as error:
        raise IntegrityError(f"{path / array.name}: cannot be decoded: {error}") from error


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def _describe(record: Record) -> bytes:
    fields = {"key": record.key, "origin": record.tokenized.origin, "example": asdict(record.tokenized.example)}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
