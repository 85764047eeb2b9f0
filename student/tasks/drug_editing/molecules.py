"""Molecules and their properties, computed by RDKit. Knows nothing of prompts or models."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Molecule:
    """A canonical SMILES and its properties: LogP, QED, TPSA, acceptors, donors."""

    smiles: str
    properties: dict[str, float]


def nci_molecules() -> Path:
    """The 5,000 public structures of the National Cancer Institute that RDKit ships. Does not import RDKit."""
    package = find_spec("rdkit")
    if package is None or not package.submodule_search_locations:
        raise InputError("RDKit is not installed; run `pip install rdkit`, or give task.molecules")
    return Path(package.submodule_search_locations[0]) / "Data" / "NCI" / "first_5K.smi"


def parse_molecule(smiles: str) -> Molecule | None:
    """Parse a SMILES. None unless RDKit can parse, sanitise and kekulise it."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        if mol is None or mol.GetNumAtoms() == 0:
            return None
        return Molecule(Chem.MolToSmiles(mol), _properties(mol))


def is_one_compound(smiles: str) -> bool:
    """Whether a valid SMILES is one fragment without dummy atoms."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(smiles)
    return "." not in smiles and all(atom.GetAtomicNum() for atom in mol.GetAtoms())


def read_molecules(path: Path, max_heavy_atoms: int) -> list[Molecule]:
    """Read the distinct one-fragment molecules of a SMILES file, in order. Lines that RDKit cannot parse are skipped.

    Raises InputError if there is no such file, or fewer than two usable molecules in it.
    """
    from rdkit import Chem

    if not path.is_file():
        raise InputError(f"molecules file {path}: no such file; give a file with a SMILES at the start of each line")
    molecules: dict[str, Molecule] = {}
    for line in path.read_text(errors="replace").splitlines():
        smiles = line.split(maxsplit=1)[0] if line.strip() else ""
        molecule = parse_molecule(smiles)
        if (
            molecule
            and is_one_compound(molecule.smiles)
            and Chem.MolFromSmiles(molecule.smiles).GetNumHeavyAtoms() <= max_heavy_atoms
        ):
            molecules.setdefault(molecule.smiles, molecule)
    if len(molecules) < 2:
        raise InputError(f"molecules file {path}: {len(molecules)} usable molecules; at least 2 are needed")
    return list(molecules.values())


def similar_pairs(molecules: list[Molecule], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, similarity) with i < j where the similarity is at least `threshold`.

    Similarity is the Tanimoto similarity of count Morgan fingerprints of radius 2.
    """
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    fingerprints = [generator.GetCountFingerprint(Chem.MolFromSmiles(molecule.smiles)) for molecule in molecules]
    for i, fingerprint in enumerate(fingerprints):
        similarities = DataStructs.BulkTanimotoSimilarity(fingerprint, fingerprints[i + 1 :])
        for offset, similarity in enumerate(similarities):
            if similarity >= threshold:
                yield i, i + 1 + offset, similarity


def draw(smiles: str, width: int = 260, height: int = 180) -> str:
    """Draw the molecule as SVG. Sizes are in pixels."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawing = rdMolDraw2D.MolDraw2DSVG(width, height)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    return str(drawing.GetDrawingText()).partition("?>")[2]


def _properties(mol: Any) -> dict[str, float]:
    from rdkit.Chem import QED, rdMolDescriptors

    values = {
        "LogP": rdMolDescriptors.CalcCrippenDescriptors(mol)[0],
        "QED": QED.qed(mol),  # type: ignore[no-untyped-call]
        "TPSA": rdMolDescriptors.CalcTPSA(mol),
        "acceptors": rdMolDescriptors.CalcNumHBA(mol),
        "donors": rdMolDescriptors.CalcNumHBD(mol),
    }
    return {name: round(float(value), 4) for name, value in values.items()}
