"""StoreIndex: the facts about every unit and example of a snapshot, as columns. With it no commit has to be read."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.parts.layout import PROFILES
from cache.parts.part import PartInfo
from cache.store.commits import Commit, part_path

KEY_BYTES = 16
COUNTS = ("examples", "tokens")
# Names in the file where they differ from the names of the fields.
STORED_NAMES = {"position": "place"}


@dataclass(frozen=True, slots=True)
class StoreIndex:
    """Columns of U units, sorted by name, and of E examples, each key once, in the order of the units.

    Units: unit uint8 [U, 12] and attempt uint8 [U, 16], names as bytes; commit uint8 [U, 32], SHA-256 of its file;
    profile uint8 and codebook uint16 [U], the latter a row of codebooks uint8 [C, 16] plus 1, 0 for none;
    counts int64 [U, 2]: examples, tokens; tail, root int64 [U] and crc32c uint32 [U], of the part; totals int64
    [U, 3]: bytes, entries, rows; quality float64 [U, 3]: retained mass, largest error, KL of quantisation.
    Examples: key uint8 [E, 16]; unit_of int32 [E], the unit, and position int32 [E], the number within the unit;
    tokens, rows uint32 [E]; origin uint16 [E], or uint32 if there are more than 65,536, a line number in origins, which
    is text with a line per origin.
    """

    unit: npt.NDArray[np.uint8]
    attempt: npt.NDArray[np.uint8]
    commit: npt.NDArray[np.uint8]
    profile: npt.NDArray[np.uint8]
    codebook: npt.NDArray[np.uint16]
    codebooks: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]
    crc32c: npt.NDArray[np.uint32]
    totals: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]
    key: npt.NDArray[np.uint8]
    unit_of: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    origin: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    origins: npt.NDArray[np.uint8]

    @property
    def origin_names(self) -> list[str]:
        """The lines of `origins`."""
        text = self.origins.tobytes().decode()
        return text.split("\n") if text else []

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
        return {
            unit.tobytes().hex(): sha256.tobytes().hex() for unit, sha256 in zip(self.unit, self.commit, strict=True)
        }

    def to_bytes(self) -> bytes:
        """A numpy .npz archive. Equal indexes give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **{STORED_NAMES.get(name, name): getattr(self, name) for name in self.__slots__})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "StoreIndex":
        """Read what to_bytes wrote. The archive has checksums. Raises IntegrityError with `name` if one is wrong."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return cls(**{column: archive[STORED_NAMES.get(column, column)] for column in cls.__slots__})
        except (
            ValueError,
            KeyError,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zipfile.BadZipFile,
        ) as error:
            raise IntegrityError(f"{name}: altered or truncated: {error}") from error

    @classmethod
    def from_commits(cls, commits: Sequence[tuple[Commit, str]]) -> "StoreIndex":
        """Build the index from commits and the SHA-256 of their files.

        If several units contain an example, the first unit counts.
        """
        commits = sorted(commits, key=lambda pair: pair[0].unit)
        return cls(**_unit_columns(commits), **_example_columns([commit for commit, _ in commits]))


def _unit_columns(commits: Sequence[tuple[Commit, str]]) -> dict[str, Any]:
    """The columns of units."""
    parts = [commit.part for commit, _ in commits]
    books = [commit.codebook for commit, _ in commits]
    codebooks = sorted({*books} - {""})
    units = len(commits)
    counts = [[len(commit.examples), commit.tokens] for commit, _ in commits]
    totals = [[commit.part.bytes, commit.entries, commit.rows] for commit, _ in commits]
    quality = [[commit.retained_mass, commit.max_abs_error, commit.kl] for commit, _ in commits]
    return {
        "unit": _bytes_of_hex([commit.unit for commit, _ in commits], 12),
        "attempt": _bytes_of_hex([part.path.rpartition("/")[2].partition(".")[0] for part in parts], 16),
        "commit": _bytes_of_hex([sha256 for _, sha256 in commits], 32),
        "profile": np.array([PROFILES.index(commit.profile) for commit, _ in commits], np.uint8),
        "codebook": np.array([codebooks.index(book) + 1 if book else 0 for book in books], np.uint16),
        "codebooks": _bytes_of_hex(codebooks, 16),
        "counts": np.array(counts, np.int64).reshape(units, len(COUNTS)),
        "tail": np.array([part.tail for part in parts], np.int64),
        "root": np.array([part.root for part in parts], np.int64),
        "crc32c": np.array([part.crc32c for part in parts], np.uint32),
        "totals": np.array(totals, np.int64).reshape(units, 3),
        "quality": np.array(quality).reshape(units, 3),
    }


def _example_columns(commits: Sequence[Commit]) -> dict[str, Any]:
    """The columns of examples, each key once."""
    origins: dict[str, int] = {}
    seen: set[str] = set()
    examples: list[tuple[str, int, int, int, int, int]] = []
    for unit, commit in enumerate(commits):
        for position, example in enumerate(commit.examples):
            if example.key not in seen:
                seen.add(example.key)
                origin = origins.setdefault(example.origin, len(origins))
                examples.append((example.key, unit, position, example.tokens, example.rows, origin))
    columns: list[Any] = list(zip(*examples, strict=True)) or [[]] * 6
    return {
        "key": _bytes_of_hex(columns[0], KEY_BYTES),
        "unit_of": np.array(columns[1], np.int32),
        "position": np.array(columns[2], np.int32),
        "tokens": np.array(columns[3], np.uint32),
        "rows": np.array(columns[4], np.uint32),
        "origin": np.array(columns[5], np.uint16 if len(origins) <= 1 << 16 else np.uint32),
        "origins": np.frombuffer("\n".join(origins).encode(), np.uint8),
    }


def _bytes_of_hex(values: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    """Hexadecimal strings as bytes, uint8 [values, width]."""
    return np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(len(values), width)
