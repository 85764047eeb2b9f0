"""The task: examples from pairs of similar molecules, and scores of generated molecules.

Criteria and thresholds are those of ChatDrug (Liu et al., ICLR 2024).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.example import Example
from cache.json_documents import digest
from cache.progress import Progress
from student.tasks.drug_editing.instructions import INSTRUCTIONS, all_hit
from student.tasks.drug_editing.molecules import (
    Molecule,
    draw,
    is_one_compound,
    nci_molecules,
    parse_molecule,
    read_molecules,
    similar_pairs,
)
from student.tasks.task import Built, Panel, Task

ANSWER_MARKER = "Answer:"


class DrugEditing(Task):
    """Edit molecules by instruction (`[task] name = "drug_editing"`)."""

    build_keys: ClassVar[tuple[str, ...]] = ("molecules", "max_heavy_atoms", "similarity", "heldout_share")

    name: Literal["drug_editing"] = Field("drug_editing", description="selects this task")
    molecules: Path = Field(
        default_factory=nci_molecules, description="SMILES file; by default the NCI set that RDKit ships"
    )
    max_heavy_atoms: int = Field(40, ge=1, description="larger molecules are left out")
    similarity: float = Field(0.45, ge=0, le=1, description="minimum Tanimoto similarity of a pair")
    heldout_share: float = Field(0.06, gt=0, lt=1, description="share of molecules that no training pair contains")

    def build(self, progress: Progress) -> Built:
        """Build examples from pairs of similar molecules whose difference is a strict hit of an instruction.

        Each ordered pair gets one instruction. The source of a held-out example is a molecule that no training pair
        contains, neither as source nor as answer.
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
        # Ordered by hash, so that the first lines of a file are a fair sample of it.
        ordered = {name: sorted(examples, key=lambda e: digest(["order", e.id])) for name, examples in splits.items()}
        return Built(ordered, {"molecules": len(molecules), "heldout_molecules": len(heldout)})

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score an answer, each 1 or 0: valid molecule, loose hit, strict hit, unchanged copy of the source."""
        if not {"source", "task"} <= set(example.metadata):
            raise InputError(
                f"example {example.id}: its metadata has no 'source' and 'task', so it is not an example of "
                "drug_editing; give the [task] that built the examples"
            )
        before = parse_molecule(example.metadata["source"])
        after = answer_molecule(text)
        if before is None or after is None:
            return {"valid": 0.0, "loose": 0.0, "strict": 0.0, "copy": 0.0}
        changes = INSTRUCTIONS[example.metadata["task"]][1]
        return {
            "valid": 1.0,
            "loose": float(all_hit(changes, before, after, strict=False)),
            "strict": float(all_hit(changes, before, after, strict=True)),
            "copy": float(before.smiles == after.smiles),
        }

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Validity, and hit ratios both over valid answers and over all: publications use either denominator."""
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

    def panel(self, example: Example, text: str) -> Panel | None:
        """Draw source and answer. The caption names the instruction and the result."""
        after = answer_molecule(text)
        instruction = INSTRUCTIONS[example.metadata["task"]][0]
        if after is None:
            return Panel(draw(example.metadata["source"]), "", f"{instruction}: no valid molecule")
        scores = self.judge(example, text)
        result = "strict hit" if scores["strict"] else "loose hit" if scores["loose"] else "miss"
        return Panel(draw(example.metadata["source"]), draw(after.smiles), f"{instruction}: {result}")

    def _examples(self, molecules: list[Molecule], progress: Progress) -> Iterator[Example]:
        for i, j, _ in similar_pairs(molecules, self.similarity):
            progress(i + 1, len(molecules))
            for before, after in ((molecules[i], molecules[j]), (molecules[j], molecules[i])):
                numbers = [n for n, (_, changes) in INSTRUCTIONS.items() if all_hit(changes, before, after, True)]
                if numbers:
                    pair = f"{before.smiles}>>{after.smiles}"
                    yield make_example(before, after, numbers[int(_unit_hash(pair) * len(numbers))])


def make_example(before: Molecule, after: Molecule, number: int) -> Example:
    """An instruction as a chat prompt, a rationale that states each change, and the edited molecule as response."""
    instruction, changes = INSTRUCTIONS[number]
    rationale = ", ".join(change.describe(before, after) for change in changes)
    return Example(
        id=digest([number, before.smiles, after.smiles])[:16],
        messages=({"role": "user", "content": f"Make this molecule {instruction}: {before.smiles}"},),
        rationale=f"{rationale}.\n",
        response=f"{ANSWER_MARKER} {after.smiles}",
        metadata={"task": number, "source": before.smiles, "answer": after.smiles},
    )


def answer_molecule(text: str) -> Molecule | None:
    """Parse the molecule after the answer marker, by the parser of captures. None if there is no valid one.

    Words may follow the molecule. A molecule of several fragments, such as a salt, or with dummy atoms is no answer.
    """
    words = parse_answer(text, ANSWER_MARKER).label.split()
    word = words[0].strip("`\"'$,;") if words else ""
    molecule = parse_molecule(word) or parse_molecule(word.rstrip("."))
    return molecule if molecule and is_one_compound(molecule.smiles) else None


def _unit_hash(text: str) -> float:
    """A hash of `text` as a number in [0, 1)."""
    return int(digest(text)[:13], 16) / 16**13
