"""The task: examples from pairs of similar molecules, scores of generated molecules, and feedback after a miss.

Criteria and thresholds are those of ChatDrug (Liu et al., ICLR 2024); docs/tasks/drug_editing.md has what differs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import Progress, part_of
from student.tasks.drug_editing.building import ANSWER_MARKER, Options, build_examples
from student.tasks.drug_editing.charts import round_chart, task_table
from student.tasks.drug_editing.feedback import feedback_text
from student.tasks.drug_editing.instructions import INSTRUCTIONS
from student.tasks.drug_editing.metrics import score_edit, scores_after_feedback, summarise_edits
from student.tasks.drug_editing.molecules import (
    Molecule,
    draw,
    is_one_compound,
    nci_molecules,
    parse_molecule,
    read_molecules,
)
from student.tasks.drug_editing.pairs import pairs_of_molecules, read_pairs
from student.tasks.drug_editing.references import read_references
from student.tasks.task import Answer, Built, Chart, Panel, Task


class DrugEditing(Task):
    """Edit molecules by instruction (`[task] name = "drug_editing"`).

    Evaluations read `references`: the answers in it are not novel, and feedback names the nearest right molecule of it.
    """

    build_keys: ClassVar[tuple[str, ...]] = (
        "molecules",
        "pairs",
        "max_heavy_atoms",
        "similarity",
        "heldout_share",
        "limit",
        "feedback_share",
        "balanced",
        "varied",
    )
    judge_keys: ClassVar[tuple[str, ...]] = ("references",)
    round_metrics: ClassVar[tuple[str, ...]] = (
        *("hit_ratio_all", "hit_ratio_all_strict", "hit_ratio_valid", "hit_ratio_valid_strict"),
        *("validity", "novelty"),
    )

    name: Literal["drug_editing"] = Field("drug_editing", description="selects this task")
    molecules: Path = Field(
        default_factory=nci_molecules, description="SMILES file; by default the NCI set that RDKit ships"
    )
    pairs: Path | None = Field(None, description="file with two SMILES a line, in place of similar pairs of molecules")
    max_heavy_atoms: int = Field(40, ge=1, description="larger molecules are left out")
    similarity: float = Field(0.45, ge=0, le=1, description="minimum Tanimoto similarity of a pair")
    heldout_share: float = Field(0.06, gt=0, lt=1, description="share of molecules that no training pair contains")
    limit: int | None = Field(None, ge=1, description="training examples at most; all if not given")
    feedback_share: float = Field(
        0.0, ge=0, le=1, description="share of training examples that have misses and feedback before the answer"
    )
    balanced: bool = Field(
        False,
        description="prefer rare instructions, where a pair is a hit of several; otherwise all are equally likely",
    )
    varied: bool = Field(
        False,
        description="also write replay.jsonl (several wordings), benchmark.jsonl (every instruction for held-out "
        "molecules) and new_words.jsonl (the same in words that no training example has)",
    )
    references: Path | None = Field(None, description="training examples of this task, for novelty and feedback")

    def unused_keys(self) -> dict[str, str]:
        by_file = "'pairs' names a file of pairs"
        return {} if self.pairs is None else {"molecules": by_file, "similarity": by_file}

    def build(self, progress: Progress) -> Built:
        """Build one example of each pair whose difference is a strict hit of an instruction, split by molecule.

        The splits and what they contain are described in student.tasks.drug_editing.building.
        """
        search = part_of(progress, 0, 2)
        if self.pairs is not None:
            pairs = read_pairs(self.pairs, self.max_heavy_atoms, search)
        else:
            molecules, left_out = read_molecules(self.molecules, self.max_heavy_atoms)
            pairs = pairs_of_molecules(molecules, left_out, self.similarity, search)
        options = Options(self.heldout_share, self.limit, self.feedback_share, self.balanced, self.varied)
        return build_examples(pairs, options, part_of(progress, 1, 2))

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score an answer (student.tasks.drug_editing.metrics.score_edit)."""
        before, number = _edit_of(example)
        known = read_references(self.references).smiles if self.references is not None else None
        return score_edit(before, answer_molecule(text), number, known)

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Validity, hit ratios, copies, uniqueness, similarity and novelty."""
        return summarise_edits(scores)

    def scores_after(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Those of the last answer, and the loose hit of any answer."""
        return scores_after_feedback(scores)

    def feedback(self, example: Example, text: str, number: int) -> list[dict[str, str]] | None:
        """After an answer that is no strict hit: what was wrong, and the nearest right molecule of the references."""
        before, task = _edit_of(example)
        after = answer_molecule(text)
        if before is None or score_edit(before, after, task, None)["strict"]:
            return None
        references = read_references(self.references) if self.references is not None else None
        content = feedback_text(before, after, INSTRUCTIONS[task][1], references)
        return [{"role": "user", "content": content}]

    def panel(self, example: Example, text: str) -> Panel | None:
        """Draw source and answer. The caption names the instruction and the result."""
        after = answer_molecule(text)
        instruction = INSTRUCTIONS[example.metadata["task"]][0]
        if after is None:
            return Panel(draw(example.metadata["source"]), "", f"{instruction}: no valid molecule")
        scores = self.judge(example, text)
        result = "strict hit" if scores["strict"] else "loose hit" if scores["loose"] else "miss"
        return Panel(draw(example.metadata["source"]), draw(after.smiles), f"{instruction}: {result}")

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """Hit ratios by task, and by round of feedback if there was any."""
        return [task_table(answers), *filter(None, [round_chart(answers)])]


def _edit_of(example: Example) -> tuple[Molecule | None, int]:
    """The molecule before, None if it is not valid, and the number of the instruction."""
    source, number = example.metadata.get("source"), example.metadata.get("task")
    if not isinstance(source, str) or number not in INSTRUCTIONS:
        raise InputError(
            f"example {example.id}: its metadata has no 'source' and 'task' of ChatDrug, so it is not an example of "
            "drug_editing; give the [task] that built the examples"
        )
    return parse_molecule(source), number


def answer_molecule(text: str) -> Molecule | None:
    """Parse the molecule after the answer marker, by the parser of captures. None if there is no valid one.

    Words may follow the molecule, but "I" before words is the pronoun and not hydrogen iodide. A molecule of several
    fragments, such as a salt, or with dummy atoms is no answer.
    """
    words = parse_answer(text, ANSWER_MARKER).label.split()
    word = words[0].strip("`\"'$,;") if words and (words[0] != "I" or len(words) == 1) else ""
    molecule = parse_molecule(word) or parse_molecule(word.rstrip("."))
    return molecule if molecule and is_one_compound(molecule.smiles) else None
