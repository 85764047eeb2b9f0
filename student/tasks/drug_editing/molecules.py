"""Molecules and their measured properties, through RDKit. Knows nothing of prompts or models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rdkit import Chem, DataStructs, RDConfig, rdBase
from rdkit.Chem import QED, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Draw import rdMolDraw2D

from cache.errors import InputError

# 5,000 public structures of the National Cancer Institute, shipped inside RDKit.
NCI_MOLECULES = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"

PROPERTIES = {
    "LogP": lambda mol: rdMolDescriptors.CalcCrippenDescriptors(mol)[0],
    "QED": QED.qed,
    "TPSA": rdMolDescriptors.CalcTPSA,
    "acceptors": rdMolDescriptors.CalcNumHBA,
    "donors": rdMolDescriptors.CalcNumHBD,
}


@dataclass(frozen=True, slots=True)
class Molecule:
    """A canonical SMILES and its properties, keyed as PROPERTIES."""

    smiles: str
    properties: dict[str, float]


def parse_molecule(smiles: str) -> Molecule | None:
    """The molecule, or None unless `smiles` parses, sanitises and kekulises."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        if mol is None or mol.GetNumAtoms() == 0:
            return None
        values = {name: round(float(measure(mol)), 4) for name, measure in PROPERTIES.items()}
        return Molecule(Chem.MolToSmiles(mol), values)


def read_molecules(path: Path, max_heavy_atoms: int) -> list[Molecule]:
    """Distinct one-fragment molecules of a SMILES file, in order; lines that RDKit refuses are left out."""
    if not path.is_file():
        raise InputError(f"molecules file {path}: no such file; give a file with a SMILES at the start of each line")
    molecules: dict[str, Molecule] = {}
    for line in path.read_text(errors="replace").splitlines():
        smiles = line.split(maxsplit=1)[0] if line.strip() else ""
        molecule = parse_molecule(smiles) if "." not in smiles else None
        if molecule and Chem.MolFromSmiles(molecule.smiles).GetNumHeavyAtoms() <= max_heavy_atoms:
            molecules.setdefault(molecule.smiles, molecule)
    if len(molecules) < 2:
        raise InputError(f"molecules file {path}: {len(molecules)} usable molecules; at least 2 are needed")
    return list(molecules.values())


def similar_pairs(molecules: list[Molecule], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Index pairs i < j with a Tanimoto similarity of count Morgan fingerprints (radius 2) at or above `threshold`."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    prints = [generator.GetCountFingerprint(Chem.MolFromSmiles(molecule.smiles)) for molecule in molecules]
    for i, fingerprint in enumerate(prints):
        similarities = DataStructs.BulkTanimotoSimilarity(fingerprint, prints[i + 1 :])
        for offset, similarity in enumerate(similarities):
            if similarity >= threshold:
                yield i, i + 1 + offset, similarity


def draw(smiles: str, width: int = 260, height: int = 180) -> str:
    """An SVG picture of the molecule."""
    drawing = rdMolDraw2D.MolDraw2DSVG(width, height)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    return str(drawing.GetDrawingText()).partition("?>")[2]
