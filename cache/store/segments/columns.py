"""Segment: the facts about some units and their examples, as columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.parts.layout import PROFILES
from cache.store.commits import Commit
from cache.store.segments.keys import Keys, bytes_of_hex, keys_of_hex

Columns = dict[str, npt.NDArray[Any]]
# Type of each column, and numbers a unit if there are several. cache/README.md says what they are.
UNIT_COLUMNS: dict[str, tuple[str, int]] = {
    "name": ("uint8", 12),
    "attempt": ("uint8", 16),
    "commit": ("uint8", 32),
    "profile": ("uint8", 1),
    "codebook": ("uint16", 1),
    "examples": ("uint32", 1),
    "tokens": ("int64", 1),
    "rows": ("int64", 1),
    "entries": ("int64", 1),
    "bytes": ("int64", 1),
    "tail": ("int64", 1),
    "root": ("int64", 1),
    "crc32c": ("uint32", 1),
    "retained_mass": ("float64", 1),
    "max_abs_error": ("float64", 1),
    "kl": ("float64", 1),
}
EXAMPLE_COLUMNS = {"unit": "uint32", "position": "uint32", "tokens": "uint32", "rows": "uint32", "origin": "uint32"}


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """Columns of U units and of E examples, in the order of the units.

    units: see UNIT_COLUMNS; codebook is a place in codebooks, plus 1, or 0 for none. examples: see EXAMPLE_COLUMNS;
    unit is a unit of this segment, position the number in it, origin a place in origins. keys: of the examples. An
    example of a unit that is not in the segment is left out: an earlier unit has it, or it is forgotten.
    """

    units: Columns
    examples: Columns
    keys: Keys
    codebooks: tuple[str, ...]
    origins: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.units["name"])

    @property
    def names(self) -> list[str]:
        """Names of the units."""
        return hex_rows(self.units["name"])

    def commits(self) -> list[tuple[str, str]]:
        """Name of each unit and the SHA-256 of its commit."""
        hashes = hex_rows(self.units["commit"])
        return list(zip(self.names, hashes, strict=True))

    def left_out(self) -> dict[str, list[int]]:
        """Positions of the examples that are left out, by unit; units that are complete have no entry."""
        present = np.bincount(self.examples["unit"], minlength=len(self))
        starts = np.concatenate([[0], np.cumsum(present)])
        missing: dict[str, list[int]] = {}
        for unit in np.flatnonzero(present != self.units["examples"]).tolist():
            positions = self.examples["position"][starts[unit] : starts[unit + 1]]
            absent = np.setdiff1d(np.arange(self.units["examples"][unit]), positions)
            missing[self.units["name"][unit].tobytes().hex()] = absent.tolist()
        return missing

    def with_examples(self, kept: npt.NDArray[np.bool_]) -> "Segment":
        """The segment with some of its examples only; bool [E]."""
        if kept.all():
            return self
        examples = {name: column[kept] for name, column in self.examples.items()}
        return Segment(self.units, examples, Keys(self.keys.in_order[kept]), self.codebooks, self.origins)

    def with_units(self, kept: npt.NDArray[np.bool_]) -> "Segment":
        """The segment with some of its units only; bool [U]."""
        if kept.all():
            return self
        here = kept[self.examples["unit"]]
        examples = {name: column[here] for name, column in self.examples.items()}
        examples["unit"] = (np.cumsum(kept) - 1).astype(np.uint32)[examples["unit"]]
        units = {name: column[kept] for name, column in self.units.items()}
        return Segment(units, examples, Keys(self.keys.in_order[here]), self.codebooks, self.origins)

    def without_positions(self, left_out: dict[str, list[int]]) -> "Segment":
        """The segment without these examples of its units."""
        kept = np.ones(len(self.keys), bool)
        for number, name in enumerate(self.names) if left_out else ():
            if name in left_out:
                kept &= (self.examples["unit"] != number) | ~np.isin(self.examples["position"], left_out[name])
        return self.with_examples(kept)

    def normal(self) -> "Segment":
        """The same with sorted codebooks and origins, and only those that it has: equal contents are equal files."""
        books, codebook = _used(self.codebooks, self.units["codebook"].astype(np.int64) - 1)
        origins, origin = _used(self.origins, self.examples["origin"].astype(np.int64))
        units = {**self.units, "codebook": (codebook + 1).astype(np.uint16)}
        examples = {**self.examples, "origin": origin.astype(np.uint32)}
        return Segment(units, examples, self.keys, books, origins)


def segment_of_commits(commits: Sequence[tuple[Commit, str]]) -> Segment:
    """The segment of these commits, with the SHA-256 of their files, in this order, with all their examples."""
    count = len(commits)
    books = {book: i for i, book in enumerate(sorted({commit.codebook for commit, _ in commits} - {""}), start=1)}
    origins: dict[str, int] = {}
    values: dict[str, Any] = {
        "name": bytes_of_hex([commit.unit for commit, _ in commits], 12),
        "attempt": bytes_of_hex([commit.part.path.rpartition("/")[2].partition(".")[0] for commit, _ in commits], 16),
        "commit": bytes_of_hex([sha256 for _, sha256 in commits], 32),
        "profile": [PROFILES.index(commit.profile) for commit, _ in commits],
        "codebook": [books.get(commit.codebook, 0) for commit, _ in commits],
        "examples": [len(commit.examples) for commit, _ in commits],
        "entries": [commit.entries for commit, _ in commits],
        "retained_mass": [commit.retained_mass for commit, _ in commits],
        "max_abs_error": [commit.max_abs_error for commit, _ in commits],
        "kl": [commit.kl for commit, _ in commits],
    }
    for name in ("bytes", "tail", "root", "crc32c"):
        values[name] = [getattr(commit.part, name) for commit, _ in commits]
    sizes = np.asarray(values["examples"], np.int64)
    flat = [example for commit, _ in commits for example in commit.examples]
    unit = np.repeat(np.arange(count), sizes)
    examples: Columns = {
        "unit": unit.astype(np.uint32),
        "position": (np.arange(len(flat)) - np.repeat(np.cumsum(sizes) - sizes, sizes)).astype(np.uint32),
        "tokens": np.array([example.tokens for example in flat], np.uint32),
        "rows": np.array([example.rows for example in flat], np.uint32),
        "origin": np.array([origins.setdefault(example.origin, len(origins)) for example in flat], np.uint32),
    }
    for name in ("tokens", "rows"):
        values[name] = np.bincount(unit, weights=examples[name], minlength=count)
    units = {
        name: np.asarray(values[name]).astype(dtype).reshape(count, *([width] if width > 1 else []))
        for name, (dtype, width) in UNIT_COLUMNS.items()
    }
    keys = Keys(keys_of_hex(example.key for example in flat))
    return Segment(units, examples, keys, tuple(books), tuple(origins))


def concatenate_segments(segments: Sequence[Segment]) -> Segment:
    """Several segments as one, in this order."""
    books = _places(book for segment in segments for book in segment.codebooks)
    origins = _places(origin for segment in segments for origin in segment.origins)
    units: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in UNIT_COLUMNS}
    examples: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in EXAMPLE_COLUMNS}
    before = 0
    for segment in segments:
        new_book = np.array([0, *(books[book] + 1 for book in segment.codebooks)], np.uint16)
        new_origin = np.array([origins[origin] for origin in segment.origins], np.uint32)
        for name in UNIT_COLUMNS:
            column = segment.units[name]
            units[name].append(new_book[column] if name == "codebook" else column)
        for name in EXAMPLE_COLUMNS:
            column = segment.examples[name]
            if name == "unit":
                column = column + np.uint32(before)
            examples[name].append(new_origin[column] if name == "origin" else column)
        before += len(segment)
    empty = segment_of_commits([])
    return Segment(
        {name: np.concatenate([empty.units[name], *columns]) for name, columns in units.items()},
        {name: np.concatenate([empty.examples[name], *columns]) for name, columns in examples.items()},
        Keys(np.concatenate([empty.keys.in_order, *(segment.keys.in_order for segment in segments)])),
        tuple(books),
        tuple(origins),
    )


def hex_rows(column: npt.NDArray[np.uint8]) -> list[str]:
    """Each row of bytes, uint8 [n, width], as hexadecimal digits."""
    text, digits = column.tobytes().hex(), 2 * column.shape[1]
    return [text[start : start + digits] for start in range(0, len(text), digits)]


def require_columns(columns: Columns, what: str) -> None:
    """Raise IntegrityError, starting with `what`, unless all columns of one table have one length."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise IntegrityError(f"{what}: its columns differ in length: {lengths}")


def _places(names: Iterable[str]) -> dict[str, int]:
    """Each name once, with its place."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _used(names: tuple[str, ...], places: npt.NDArray[np.int64]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The names that some place refers to, sorted, and the places among them. Place -1 stays."""
    used = sorted({names[place] for place in np.unique(places).tolist() if place >= 0})
    new_place = {name: place for place, name in enumerate(used)}
    return tuple(used), np.array([*(new_place.get(name, -1) for name in names), -1], np.int64)[places]
