"""A reference set of molecules, and the nearest one that an instruction accepts."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from cache.errors import InputError
from cache.examples.files.jsonl import read_examples
from student.tasks.drug_editing.instructions import Change
from student.tasks.drug_editing.molecules import DECIMALS, Molecule, fingerprint, parse_molecule


class References:
    """Molecules that feedback may name. Searching one takes a few milliseconds for each 10,000 of them."""

    def __init__(self, molecules: Sequence[Molecule]) -> None:
        self.molecules = tuple(molecules)
        self.smiles = frozenset(molecule.smiles for molecule in molecules)
        self._fingerprints = [fingerprint(molecule) for molecule in molecules]
        names = self.molecules[0].properties if molecules else {}
        self._values = {name: np.array([m.properties[name] for m in self.molecules]) for name in names}

    def nearest(
        self, query: Molecule, before: Molecule, changes: Sequence[Change], excluded: Collection[str] = ()
    ) -> Molecule | None:
        """The molecule most similar to `query` that is a strict hit for an edit of `before`; None if there is none.

        Similarity is Tanimoto of count Morgan fingerprints of radius 2. excluded: SMILES that may not be returned.
        """
        from rdkit import DataStructs

        is_right = np.ones(len(self.molecules), np.bool_)
        for change in changes:
            difference = change.direction * (self._values[change.name] - before.properties[change.name])
            is_right &= np.round(difference, DECIMALS) > change.strict
        candidates = [i for i in np.flatnonzero(is_right).tolist() if self.molecules[i].smiles not in excluded]
        if not candidates:
            return None
        prints = [self._fingerprints[i] for i in candidates]
        similarities = DataStructs.BulkTanimotoSimilarity(fingerprint(query), prints)
        nearest: Molecule = self.molecules[candidates[int(np.argmax(similarities))]]
        return nearest


@lru_cache(maxsize=2)
def read_references(path: Path) -> References:
    """The molecules before and after the edits of an examples file of this task.

    Raises InputError, with the id of the example, if the examples are not of this task.
    """
    molecules: dict[str, Molecule] = {}
    for example in read_examples(path):
        for name in ("source", "answer"):
            smiles = example.metadata.get(name)
            if smiles in molecules:
                continue
            molecule = parse_molecule(smiles) if isinstance(smiles, str) else None
            if molecule is None:
                raise InputError(
                    f"task.references {path}: example {example.id} has no molecule {name!r} in its metadata; give the "
                    "training examples of drug_editing"
                )
            molecules[molecule.smiles] = molecule
    return References(list(molecules.values()))
