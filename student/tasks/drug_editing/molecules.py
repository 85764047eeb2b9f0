"""Molecules and their properties, computed by RDKit. Knows nothing of prompts or models."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.errors import InputError

# Decimals of properties and of their differences. Those of LogP and TPSA are sums of numbers with four and two, so that
# a difference may be exactly a threshold; binary fractions would lie beside it.
DECIMALS = 8


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


def usable_molecule(smiles: str, max_heavy_atoms: int) -> Molecule | str:
    """Parse a SMILES as a molecule of the data, or return the reason why it is left out."""
    from rdkit import Chem

    molecule = parse_molecule(smiles)
    if molecule is None:
        return "not a valid molecule"
    if not is_one_compound(molecule.smiles):
        return "several fragments or dummy atoms"
    if Chem.MolFromSmiles(molecule.smiles).GetNumHeavyAtoms() > max_heavy_atoms:
        return "more than max_heavy_atoms"
    return molecule


def read_molecules(path: Path, max_heavy_atoms: int) -> tuple[list[Molecule], Counter[str]]:
    """Read the distinct one-fragment molecules of a SMILES file, in order, and count the lines left out by reason.

    Raises InputError if there is no such file, or fewer than two usable molecules in it.
    """
    require_file(path, "molecules file", "with a SMILES at the start of each line")
    molecules: dict[str, Molecule] = {}
    left_out: Counter[str] = Counter()
    two = 0
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if not line.strip():
            continue
        words = line.split()
        two += len(words) == 2 and not words[1].isalnum() and parse_molecule(words[1]) is not None
        molecule = usable_molecule(words[0], max_heavy_atoms)
        if isinstance(molecule, str):
            left_out[molecule] += 1
        elif molecule.smiles in molecules:
            left_out["same molecule as an earlier line"] += 1
        else:
            molecules[molecule.smiles] = molecule
    if two > (len(molecules) + left_out.total()) / 2:
        raise InputError(f"molecules file {path}: {two:,} lines have two SMILES; give the file as task.pairs")
    if len(molecules) < 2:
        raise InputError(
            f"molecules file {path}: {len(molecules)} usable molecules; at least 2 are needed ({reasons(left_out)})"
        )
    return list(molecules.values()), left_out


def require_file(path: Path, what: str, contents: str) -> None:
    """Raise InputError if there is no such file, or a folder in its place."""
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{what} {path}: {reason}; give a file {contents}")


def reasons(left_out: Counter[str]) -> str:
    """What was left out, in words."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return f"left out: {counts}" if counts else "the file is empty"


def fingerprint(molecule: Molecule) -> Any:
    """The count Morgan fingerprint of radius 2, for Tanimoto similarities."""
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=2).GetCountFingerprint(Chem.MolFromSmiles(molecule.smiles))


def similarity(one: Molecule, other: Molecule) -> float:
    """Tanimoto similarity of count Morgan fingerprints of radius 2."""
    from rdkit import DataStructs

    return float(DataStructs.TanimotoSimilarity(fingerprint(one), fingerprint(other)))


def similar_pairs(molecules: list[Molecule], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield (i, j) with i < j where the Tanimoto similarity (`similarity`) is at least `threshold`."""
    from rdkit import DataStructs

    fingerprints = [fingerprint(molecule) for molecule in molecules]
    for i, own in enumerate(fingerprints):
        similarities = DataStructs.BulkTanimotoSimilarity(own, fingerprints[i + 1 :])
        yield from ((i, i + 1 + offset) for offset, value in enumerate(similarities) if value >= threshold)


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
    return {name: round(float(value), DECIMALS) for name, value in values.items()}
