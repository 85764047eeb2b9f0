"""StoreIndex: the facts about every unit and example of a snapshot, as columns. With it no commit has to be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.lazy_value import lazy_value
from cache.parts.part import PartInfo
from cache.store.commits import part_path
from cache.store.segments.columns import Segment, hex_rows, segment_of_commits
from cache.store.segments.keys import KEY_BYTES, Array, Keys

COUNTS = ("examples", "tokens")


@dataclass(frozen=True, eq=False)
class StoreIndex:
    """Columns of U units and of E examples, in the order of the segments of a snapshot.

    Units: unit uint8 [U, 12] and attempt uint8 [U, 16], names as bytes; commit uint8 [U, 32], SHA-256 of its file;
    profile uint8 and codebook int64 [U], the latter a place in codebooks plus 1, 0 for none;
    counts int64 [U, 2]: examples, tokens; tail, root int64 [U] and crc32c uint32 [U], of the part; totals int64
    [U, 3]: bytes, entries, rows; quality float64 [U, 3]: retained mass, largest error, KL of quantisation.
    Examples, each once: key uint8 [E, 16]; unit_of int32 [E], the unit, and position uint32 [E], the number within the
    unit; tokens, rows uint32 [E]; origin int64 [E], a place in origin_names.
    """

    unit: npt.NDArray[np.uint8]
    attempt: npt.NDArray[np.uint8]
    commit: npt.NDArray[np.uint8]
    profile: npt.NDArray[np.uint8]
    codebook: npt.NDArray[np.int64]
    codebooks: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]
    crc32c: npt.NDArray[np.uint32]
    totals: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]
    unit_of: npt.NDArray[np.int32]
    position: npt.NDArray[np.uint32]
    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    origin: npt.NDArray[np.int32]
    origin_names: tuple[str, ...]
    keys: tuple[Keys, ...] = field(repr=False)

    @classmethod
    def of_segments(cls, segments: Sequence[Segment]) -> "StoreIndex":
        """The columns of all segments, one after the other."""
        segments = segments or [segment_of_commits([])]
        books = {name: i for i, name in enumerate(dict.fromkeys(n for each in segments for n in each.codebooks))}
        origins = {name: i for i, name in enumerate(dict.fromkeys(n for each in segments for n in each.origins))}
        codebook, origin, unit_of, before = [], [], [], 0
        for segment in segments:
            new_book = np.array([0, *(books[name] + 1 for name in segment.codebooks)], np.int64)
            codebook.append(new_book[segment.units["codebook"]])
            new_origin = np.array([origins[name] for name in segment.origins], np.int32)
            origin.append(new_origin[segment.examples["origin"]])
            unit_of.append((segment.examples["unit"] + np.uint32(before)).astype(np.int32))
            before += len(segment)

        def units(*names: str, dtype: str = "int64") -> npt.NDArray[Any]:
            columns = [np.concatenate([each.units[name] for each in segments]) for name in names]
            return np.stack(columns, axis=1).astype(dtype) if len(columns) > 1 else columns[0]

        return cls(
            unit=units("name"),
            attempt=units("attempt"),
            commit=units("commit"),
            profile=units("profile"),
            codebook=np.concatenate(codebook),
            codebooks=tuple(books),
            counts=units(*COUNTS),
            tail=units("tail"),
            root=units("root"),
            crc32c=units("crc32c"),
            totals=units("bytes", "entries", "rows"),
            quality=units("retained_mass", "max_abs_error", "kl", dtype="float64"),
            unit_of=np.concatenate(unit_of),
            position=np.concatenate([each.examples["position"] for each in segments]),
            tokens=np.concatenate([each.examples["tokens"] for each in segments]),
            rows=np.concatenate([each.examples["rows"] for each in segments]),
            origin=np.concatenate(origin),
            origin_names=tuple(origins),
            keys=tuple(each.keys for each in segments),
        )

    @lazy_value
    def key(self) -> npt.NDArray[np.uint8]:
        """Key of each example, uint8 [E, 16]."""
        keys = np.concatenate([each.in_order for each in self.keys])
        return np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), KEY_BYTES)

    def __len__(self) -> int:
        return len(self.tokens)

    def contains(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Whether each of these keys is that of an example; bool [keys]. See cache.store.segments.keys.keys_of_hex."""
        present = np.zeros(len(keys), bool)
        for each in self.keys:
            present |= each.contains(keys)
        return present

    def part_info(self, unit: int) -> PartInfo:
        """Where the part of a unit is."""
        return PartInfo(
            path=part_path(self.unit[unit].tobytes().hex(), self.attempt[unit].tobytes().hex()),
            bytes=int(self.totals[unit, 0]),
            tail=int(self.tail[unit]),
            root=int(self.root[unit]),
            crc32c=int(self.crc32c[unit]),
        )

    def commit_hashes(self) -> dict[str, str]:
        """SHA-256 of the commit file of each unit."""
        return dict(zip(hex_rows(self.unit), hex_rows(self.commit), strict=True))
