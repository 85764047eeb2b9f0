"""Drug editing: change a molecule so that a property moves in a named direction, and stay close to it.

Criteria and thresholds are those of ChatDrug (Liu et al., ICLR 2024). A hit is strict inequality past the threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from cache.documents import digest
from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import Progress
from cache.settings import Settings
from student.tasks.drug_editing.molecules import (
    NCI_MOLECULES,
    Molecule,
    draw,
    parse_molecule,
    read_molecules,
    similar_pairs,
)
from student.tasks.protocol import Pictures

ANSWER = "Answer:"


@dataclass(frozen=True, slots=True)
class Change:
    """A property, the direction it shall move in (+1, -1), and the least move for a loose and a strict hit."""

    name: str
    direction: int
    loose: float
    strict: float

    def holds(self, before: Molecule, after: Molecule, strict: bool) -> bool:
        moved = self.direction * (after.properties[self.name] - before.properties[self.name])
        return moved > (self.strict if strict else self.loose)


LOGP_FALLS = Change("LogP", -1, 0, 0.5)
LOGP_RISES = Change("LogP", +1, 0, 0.5)
QED_RISES = Change("QED", +1, 0, 0.1)
QED_FALLS = Change("QED", -1, 0, 0.1)
TPSA_FALLS = Change("TPSA", -1, 0, 10)
TPSA_RISES = Change("TPSA", +1, 0, 10)
ACCEPTORS_RISE = Change("acceptors", +1, 0, 1)
DONORS_RISE = Change("donors", +1, 0, 1)

# ChatDrug's number of the task: what is asked for, and what must change.
INSTRUCTIONS: dict[int, tuple[str, tuple[Change, ...]]] = {
    101: ("more soluble in water", (LOGP_FALLS,)),
    102: ("less soluble in water", (LOGP_RISES,)),
    103: ("more like a drug", (QED_RISES,)),
    104: ("less like a drug", (QED_FALLS,)),
    105: ("more permeable", (TPSA_FALLS,)),
    106: ("less permeable", (TPSA_RISES,)),
    107: ("with more hydrogen bond acceptors", (ACCEPTORS_RISE,)),
    108: ("with more hydrogen bond donors", (DONORS_RISE,)),
    201: ("more soluble in water and with more hydrogen bond acceptors", (LOGP_FALLS, ACCEPTORS_RISE)),
    202: ("less soluble in water and with more hydrogen bond acceptors", (LOGP_RISES, ACCEPTORS_RISE)),
    203: ("more soluble in water and with more hydrogen bond donors", (LOGP_FALLS, DONORS_RISE)),
    204: ("less soluble in water and with more hydrogen bond donors", (LOGP_RISES, DONORS_RISE)),
    205: ("more soluble in water and more permeable", (LOGP_FALLS, TPSA_FALLS)),
    206: ("more soluble in water and less permeable", (LOGP_FALLS, TPSA_RISES)),
}


class DrugEditing(Settings):
    """Settings of the task, and the task."""

    name: Literal["drug_editing"] = "drug_editing"
    molecules: Path = Field(NCI_MOLECULES, description="SMILES file; by default the NCI set that RDKit ships")
    max_heavy_atoms: int = Field(40, ge=1)
    similarity: float = Field(0.45, ge=0, le=1, description="least Tanimoto similarity of a pair")
    heldout_share: float = Field(0.06, gt=0, lt=1, description="share of molecules that no training pair contains")

    def build(self, progress: Progress) -> dict[str, list[Example]]:
        """Pairs of similar molecules whose properties really differ as the instruction asks, past the strict threshold.

        Each ordered pair serves one instruction. A held-out example starts from a molecule that is in no training pair,
        as source or as answer.
        """
        molecules = read_molecules(self.molecules, self.max_heavy_atoms)
        heldout = {molecule.smiles for molecule in molecules if _unit_hash(molecule.smiles) < self.heldout_share}
        splits: dict[str, list[Example]] = {"train": [], "heldout": []}
        for example in self._examples(molecules, progress):
            source, answer = example.metadata["source"], example.metadata["answer"]
            if source in heldout:
                splits["heldout"].append(example)
            elif answer not in heldout:
                splits["train"].append(example)
        # By hash: a prefix of a file is then a fair sample of it.
        return {name: sorted(examples, key=lambda e: digest(["order", e.id])) for name, examples in splits.items()}

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """1 or 0 for: valid, loose and strict hit, unchanged copy."""
        if not {"source", "task"} <= set(example.metadata):
            raise InputError(f"example {example.id}: no 'source' and 'task' in its metadata; not one of drug editing")
        before = parse_molecule(example.metadata["source"])
        after = answer_molecule(text)
        if before is None or after is None:
            return {"valid": 0.0, "loose": 0.0, "strict": 0.0, "copy": 0.0}
        changes = INSTRUCTIONS[example.metadata["task"]][1]
        return {
            "valid": 1.0,
            "loose": float(all(change.holds(before, after, strict=False) for change in changes)),
            "strict": float(all(change.holds(before, after, strict=True) for change in changes)),
            "copy": float(before.smiles == after.smiles),
        }

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Validity, and hit ratios over valid and over all answers: published work divides by either."""
        valid = sum(score["valid"] for score in scores)
        totals = {name: sum(score[name] for score in scores) for name in ("loose", "strict", "copy")}
        return {
            "validity": valid / len(scores),
            "hit_ratio_all": totals["loose"] / len(scores),
            "hit_ratio_all_strict": totals["strict"] / len(scores),
            "hit_ratio_valid": totals["loose"] / valid if valid else 0.0,
            "hit_ratio_valid_strict": totals["strict"] / valid if valid else 0.0,
            "copies": totals["copy"] / len(scores),
        }

    def picture(self, example: Example, text: str) -> Pictures | None:
        after = answer_molecule(text)
        wanted = INSTRUCTIONS[example.metadata["task"]][0]
        if after is None:
            return Pictures(draw(example.metadata["source"]), "", f"{wanted}: no valid molecule")
        hit = self.judge(example, text)
        verdict = "strict hit" if hit["strict"] else "loose hit" if hit["loose"] else "miss"
        return Pictures(draw(example.metadata["source"]), draw(after.smiles), f"{wanted}: {verdict}")

    def _examples(self, molecules: list[Molecule], progress: Progress) -> Iterator[Example]:
        for i, j, _ in similar_pairs(molecules, self.similarity):
            progress(i + 1, len(molecules))
            for before, after in ((molecules[i], molecules[j]), (molecules[j], molecules[i])):
                tasks = [n for n, (_, changes) in INSTRUCTIONS.items() if _all_strict(changes, before, after)]
                if tasks:
                    pair = f"{before.smiles}>>{after.smiles}"
                    yield make_example(before, after, tasks[int(_unit_hash(pair) * len(tasks))])


def make_example(before: Molecule, after: Molecule, task: int) -> Example:
    """Chat-style prompt, a rationale that names each property and its change, and the edited molecule."""
    wanted, changes = INSTRUCTIONS[task]
    moves = ", ".join(_describe(change, before, after) for change in changes)
    return Example(
        id=digest([task, before.smiles, after.smiles])[:16],
        messages=({"role": "user", "content": f"Make this molecule {wanted}: {before.smiles}"},),
        rationale=f"{moves}.\n",
        response=f"{ANSWER} {after.smiles}",
        metadata={"task": task, "source": before.smiles, "answer": after.smiles},
    )


def answer_molecule(text: str) -> Molecule | None:
    """The molecule after the answer marker, or None where there is none that is valid."""
    words = text.partition(ANSWER)[2].split()
    return parse_molecule(words[0]) if words else None


def _all_strict(changes: tuple[Change, ...], before: Molecule, after: Molecule) -> bool:
    return all(change.holds(before, after, strict=True) for change in changes)


def _describe(change: Change, before: Molecule, after: Molecule) -> str:
    moved = abs(after.properties[change.name] - before.properties[change.name])
    counted = change.name in ("acceptors", "donors")
    verb = ("rise" if counted else "rises") if change.direction > 0 else ("fall" if counted else "falls")
    return f"{change.name} {verb} by {moved:.{0 if counted else 2 if change.name == 'QED' else 1}f}"


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone."""
    return int(digest(text)[:13], 16) / 16**13
