"""StoreIndex: what a snapshot knows of every unit and example, as columns, so that no commit need be read."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.parts.layout import PART_ARRAYS, PROFILES, PartCounts
from cache.parts.part import PartPlace
from cache.store.commits import Commit

KEY_BYTES = 16
COUNTS = tuple(field.name for field in fields(PartCounts))


@dataclass(frozen=True, slots=True)
class StoreIndex:
    """U units in order of their names, and E examples, each key once, in the order of the units.

    Of units: unit uint8 [U, 12] and attempt uint8 [U, 16], names as bytes; commit uint8 [U, 32], SHA-256 of its file;
    profile uint8 and codebook uint16 [U], the latter a row of codebooks uint8 [C, 16] plus 1, 0 for none;
    counts int64 [U, 8]; sizes int64 (-1 where absent) and seals uint32 [U, arrays]; totals int64 [U, 3]: bytes,
    entries, rows; quality float64 [U, 3]: retained mass, greatest error, KL of quantisation.
    Of examples: key uint8 [E, 16]; unit_of, place int32 [E], where it is; tokens, rows uint32 [E]; origin uint16 [E],
    a place in origins, text joined by line ends.
    """

    unit: npt.NDArray[np.uint8]
    attempt: npt.NDArray[np.uint8]
    commit: npt.NDArray[np.uint8]
    profile: npt.NDArray[np.uint8]
    codebook: npt.NDArray[np.uint16]
    codebooks: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    seals: npt.NDArray[np.uint32]
    totals: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]
    key: npt.NDArray[np.uint8]
    unit_of: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    origin: npt.NDArray[np.uint16]
    origins: npt.NDArray[np.uint8]

    @property
    def origin_names(self) -> list[str]:
        text = self.origins.tobytes().decode()
        return text.split("\n") if text else []

    def part_place(self, unit: int) -> PartPlace:
        """Where the part of a unit is, and what it looks like."""
        name, attempt = self.unit[unit].tobytes().hex(), self.attempt[unit].tobytes().hex()
        codebook = int(self.codebook[unit])
        here = [i for i in range(len(PART_ARRAYS)) if self.sizes[unit, i] >= 0]
        return PartPlace(
            path=f"parts/{name}/{attempt}.zarr",
            profile=PROFILES[int(self.profile[unit])],
            codebook=self.codebooks[codebook - 1].tobytes().hex() if codebook else "",
            counts=PartCounts(**dict(zip(COUNTS, self.counts[unit].tolist(), strict=True))),
            sizes={PART_ARRAYS[i]: int(self.sizes[unit, i]) for i in here},
            seals={PART_ARRAYS[i]: int(self.seals[unit, i]) for i in here},
        )

    def commit_hashes(self) -> dict[str, str]:
        """SHA-256 of the commit file of each unit."""
        return {
            unit.tobytes().hex(): sha256.tobytes().hex() for unit, sha256 in zip(self.unit, self.commit, strict=True)
        }

    def to_bytes(self) -> bytes:
        """A numpy .npz archive; the same index gives the same bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: getattr(self, name) for name in self.__slots__})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "StoreIndex":
        """The index of `to_bytes`; the archive's checksums are checked. Raises IntegrityError naming `name`."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return cls(**{column: archive[column] for column in cls.__slots__})
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
        """From commits and the SHA-256 of their files. Of an example that two units hold, the first counts."""
        commits = sorted(commits, key=lambda pair: pair[0].unit)
        codebooks = sorted({commit.place.codebook for commit, _ in commits} - {""})
        origins: dict[str, int] = {}
        seen: set[str] = set()
        examples: list[tuple[str, int, int, int, int, int]] = []
        for number, (commit, _) in enumerate(commits):
            for place, example in enumerate(commit.examples):
                if example.key not in seen:
                    seen.add(example.key)
                    origin = origins.setdefault(example.origin, len(origins))
                    examples.append((example.key, number, place, example.tokens, example.rows, origin))
        columns: list[Any] = list(zip(*examples, strict=True)) or [[]] * 6

        def hexed(values: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
            return np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(len(values), width)

        places = [commit.place for commit, _ in commits]
        per_unit = len(commits)
        return cls(
            unit=hexed([commit.unit for commit, _ in commits], 12),
            attempt=hexed([place.path.rpartition("/")[2].removesuffix(".zarr") for place in places], 16),
            commit=hexed([sha256 for _, sha256 in commits], 32),
            profile=np.array([PROFILES.index(place.profile) for place in places], np.uint8),
            codebook=np.array([codebooks.index(p.codebook) + 1 if p.codebook else 0 for p in places], np.uint16),
            codebooks=hexed(codebooks, 16),
            counts=np.array([[getattr(p.counts, n) for n in COUNTS] for p in places], np.int64).reshape(
                per_unit, len(COUNTS)
            ),
            sizes=np.array([[p.sizes.get(n, -1) for n in PART_ARRAYS] for p in places], np.int64).reshape(
                per_unit, len(PART_ARRAYS)
            ),
            seals=np.array([[p.seals.get(n, 0) for n in PART_ARRAYS] for p in places], np.uint32).reshape(
                per_unit, len(PART_ARRAYS)
            ),
            totals=np.array([[c.size, c.entries, c.rows] for c, _ in commits], np.int64).reshape(per_unit, 3),
            quality=np.array([[c.retained_mass, c.max_abs_error, c.kl] for c, _ in commits]).reshape(per_unit, 3),
            key=hexed(columns[0], KEY_BYTES),
            unit_of=np.array(columns[1], np.int32),
            place=np.array(columns[2], np.int32),
            tokens=np.array(columns[3], np.uint32),
            rows=np.array(columns[4], np.uint32),
            origin=np.array(columns[5], np.uint16),
            origins=np.frombuffer("\n".join(origins).encode(), np.uint8),
        )
