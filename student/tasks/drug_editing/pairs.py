"""Pairs of molecules to learn edits from: similar ones of a set, or those of a file.

A file of pairs has two SMILES a line, the molecule before and after, as the training pairs of hgraph2graph (Jin et al.,
ICML 2020).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.errors import InputError
from cache.progress import Progress
from student.tasks.drug_editing.molecules import Molecule, reasons, require_file, similar_pairs, usable_molecule


@dataclass(frozen=True, slots=True)
class PairSet:
    """Molecules, pairs of them as (before, after) indices, and what was left out by reason."""

    molecules: list[Molecule]
    pairs: list[tuple[int, int]]
    left_out: Counter[str]


def pairs_of_molecules(
    molecules: list[Molecule], left_out: Counter[str], threshold: float, progress: Progress
) -> PairSet:
    """All ordered pairs of molecules whose Tanimoto similarity is at least `threshold`."""
    return PairSet(molecules, list(_both_ways(molecules, threshold, progress)), left_out)


def read_pairs(path: Path, max_heavy_atoms: int, progress: Progress) -> PairSet:
    """Read a file of pairs. Pairs of a molecule that is not usable, or of one molecule twice, are left out and counted.

    Raises InputError, naming the line, for a line that has not two columns, and for a file without a usable pair.
    """
    require_file(path, "pairs file", "with two SMILES a line")
    known: dict[str, Molecule | str] = {}
    numbers: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    left_out: Counter[str] = Counter()
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for line_number, line in enumerate(lines, start=1):
        progress(line_number, len(lines))
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise InputError(f"pairs file {path}, line {line_number}: {len(words)} columns; give two SMILES a line")
        ends = []
        for word in words:
            if word not in known:
                known[word] = usable_molecule(word, max_heavy_atoms)
            ends.append(known[word])
        bad = [end for end in ends if isinstance(end, str)]
        good = [end for end in ends if isinstance(end, Molecule)]
        if bad:
            left_out[bad[0]] += 1
        elif good[0].smiles == good[1].smiles:
            left_out["both molecules are the same"] += 1
        else:
            before, after = (numbers.setdefault(end.smiles, len(numbers)) for end in good)
            left_out["same pair as an earlier line"] += (before, after) in pairs
            pairs[before, after] = None
    if not pairs:
        raise InputError(
            f"pairs file {path}: no usable pair ({reasons(left_out)}); give two different molecules a line"
        )
    by_smiles = {molecule.smiles: molecule for molecule in known.values() if isinstance(molecule, Molecule)}
    return PairSet([by_smiles[smiles] for smiles in numbers], list(pairs), +left_out)


def _both_ways(molecules: list[Molecule], threshold: float, progress: Progress) -> Iterator[tuple[int, int]]:
    for i, j in similar_pairs(molecules, threshold):
        progress(i + 1, len(molecules))
        yield i, j
        yield j, i
