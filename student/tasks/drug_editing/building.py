"""Examples of edits from pairs of similar molecules: prompts in words, chats with misses, and the split by molecule."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.examples.example import Example
from cache.json_documents import digest
from cache.progress import Progress, part_of
from student.tasks.drug_editing.feedback import feedback_text
from student.tasks.drug_editing.instructions import INSTRUCTIONS, all_hit
from student.tasks.drug_editing.molecules import Molecule, parse_molecule
from student.tasks.drug_editing.pairs import PairSet
from student.tasks.drug_editing.references import References
from student.tasks.drug_editing.wordings import canonical_prompt, prompt
from student.tasks.task import Built

ANSWER_MARKER = "Answer:"
NO_INSTRUCTION = "no strict hit of any instruction"
HELDOUT_ANSWER = "training source with a held-out answer"


@dataclass(frozen=True, slots=True)
class Options:
    """What is built. limit: training edits at most, a fair sample of all.

    feedback_share: share of the training examples that are chats with one or two misses before the answer.
    """

    heldout_share: float
    limit: int | None = None
    feedback_share: float = 0.0
    balanced: bool = False
    varied: bool = False


@dataclass(frozen=True, slots=True)
class Edit:
    """A molecule, the edited one, and the number of an instruction of which it is a strict hit."""

    before: Molecule
    after: Molecule
    number: int

    @property
    def chance(self) -> float:
        """A number in [0, 1) that depends on the edit alone."""
        return unit_hash(f"{self.number}:{self.before.smiles}>>{self.after.smiles}")

    def example(self, content: str, **metadata: Any) -> Example:
        """A prompt, a rationale that states each change, and the edited molecule as response."""
        rationale = ", ".join(c.describe(self.before, self.after) for c in INSTRUCTIONS[self.number][1]) + ".\n"
        return Example(
            id=digest([self.number, self.before.smiles, self.after.smiles])[:16],
            messages=({"role": "user", "content": content},),
            rationale=rationale,
            response=f"{ANSWER_MARKER} {self.after.smiles}",
            metadata={"task": self.number, "source": self.before.smiles, "answer": self.after.smiles} | metadata,
        )


def build_examples(pairs: PairSet, options: Options, progress: Progress) -> Built:
    """Build one example of each pair whose difference is a strict hit of an instruction.

    The source of a held-out example is a molecule that no training pair contains, neither as source nor as answer.
    Splits: train and heldout. With options.varied also replay, the training edits in several wordings; benchmark, every
    instruction for held-out molecules; and new_words, the same in words that no training example
    has. The last two have no answers. shots: a training edit of each instruction.
    """
    heldout = {m.smiles for m in pairs.molecules if unit_hash(m.smiles) < options.heldout_share}
    left_out = Counter(pairs.left_out)
    edits: dict[str, list[Edit]] = {"train": [], "heldout": []}
    for edit in _edits(pairs, options.balanced, left_out):
        if edit.before.smiles in heldout:
            edits["heldout"].append(edit)
        elif edit.after.smiles not in heldout:
            edits["train"].append(edit)
        else:
            left_out[HELDOUT_ANSWER] += 1
    # Ordered by hash, so that the first lines of a file are a fair sample of it.
    ordered = {name: sorted(each, key=lambda e: digest(["order", e.example("").id])) for name, each in edits.items()}
    if options.limit is not None and (beyond := len(ordered["train"]) - options.limit) > 0:
        ordered["train"], left_out["training edits beyond the limit"] = ordered["train"][: options.limit], beyond
    splits = {name: [e.example(canonical_prompt(e.number, e.before.smiles)) for e in ordered[name]] for name in ordered}
    if options.varied:
        by_task = {example.metadata["task"]: example for example in reversed(splits["train"])}
        splits["shots"] = [by_task[number] for number in INSTRUCTIONS if number in by_task]
        splits["replay"] = [_worded(edit) for edit in ordered["train"]]
        splits |= benchmark_prompts([m for m in pairs.molecules if m.smiles in heldout])
    if options.feedback_share:
        misses = Misses(pairs, References([m for m in pairs.molecules if m.smiles not in heldout]))
        names = [name for name in ("train", "replay") if name in splits]
        for number, name in enumerate(names):
            part = part_of(progress, number, len(names))
            splits[name] = list(_with_misses(splits[name], ordered["train"], misses, options.feedback_share, part))
    tasks = Counter(str(edit.number) for edit in ordered["train"])
    facts = {
        "molecules": len(pairs.molecules),
        "heldout_molecules": len(heldout),
        "pairs": len(pairs.pairs),
        "training_edits_by_task": dict(sorted(tasks.items())),
        "left_out": dict(left_out),
    }
    progress(1, 1)
    return Built(splits, facts)


def benchmark_prompts(molecules: Sequence[Molecule]) -> dict[str, list[Example]]:
    """Every instruction for every molecule, in the canonical wording and in new words.

    The first 14 n prompts are n of each instruction, for different molecules.
    """
    ordered = sorted(molecules, key=lambda molecule: unit_hash(f"benchmark {molecule.smiles}"))
    splits: dict[str, list[Example]] = {"benchmark": [], "new_words": []}
    numbers = list(INSTRUCTIONS)
    for turn in range(len(numbers)):
        for place, molecule in enumerate(ordered):
            number = numbers[(place + turn) % len(numbers)]
            chance = unit_hash(f"words {number} {molecule.smiles}")
            contents = {
                "benchmark": canonical_prompt(number, molecule.smiles),
                "new_words": prompt(number, molecule.smiles, chance, is_new=True),
            }
            for name, content in contents.items():
                splits[name].append(
                    Example(
                        id=digest([number, content])[:16],
                        messages=({"role": "user", "content": content},),
                        metadata={"task": number, "source": molecule.smiles},
                    )
                )
    return splits


class Misses:
    """Wrong answers that a model might give to an edit, and the feedback to them."""

    def __init__(self, pairs: PairSet, references: References) -> None:
        self._references = references
        self._similar: defaultdict[str, list[Molecule]] = defaultdict(list)
        for i, j in pairs.pairs:
            # The references have no held-out molecule, and a chat must not show one as a wrong answer either.
            if pairs.molecules[j].smiles in references.smiles:
                self._similar[pairs.molecules[i].smiles].append(pairs.molecules[j])

    def chat(self, example: Example, edit: Edit, count: int) -> Example:
        """The example with up to `count` different misses before its answer. Feedback never names the answer."""
        turns = list(example.messages)
        changes = INSTRUCTIONS[edit.number][1]
        wrong_answers = self._wrong_answers(edit)[:count]
        for smiles in wrong_answers:
            molecule = parse_molecule(smiles)
            text = feedback_text(edit.before, molecule, changes, self._references, [edit.after.smiles])
            wrong = f"{example.rationale}{ANSWER_MARKER} {smiles}"
            turns += [{"role": "assistant", "content": wrong}, {"role": "user", "content": text}]
        return replace(
            example,
            id=digest([example.id, "misses", count])[:16],
            messages=tuple(turns),
            metadata=example.metadata | {"misses": len(wrong_answers)},
        )

    def _wrong_answers(self, edit: Edit) -> list[str]:
        """One to three wrong answers in an order that depends on the edit.

        A similar molecule that misses, and a text that is no molecule, where the edit has them; and the same molecule.
        """
        changes = INSTRUCTIONS[edit.number][1]
        similar = self._similar[edit.before.smiles]
        near = [m.smiles for m in similar if not all_hit(changes, edit.before, m, strict=True)]
        chance = unit_hash(f"miss {edit.chance}")
        wrong = [near[int(chance * len(near))]] if near else []
        broken = edit.after.smiles[:-1]
        others = [edit.before.smiles, *([broken] if broken and parse_molecule(broken) is None else [])]
        wrong += others if chance < 0.5 else others[::-1]
        return wrong[-1:] + wrong[:-1] if chance > 0.7 else wrong


def _edits(pairs: PairSet, balanced: bool, left_out: Counter[str]) -> Iterator[Edit]:
    """An edit of each pair, with one of the instructions of which it is a strict hit.

    balanced: rare instructions are chosen before frequent ones, in proportion to how rare they are.
    """
    hits = []
    for i, j in pairs.pairs:
        before, after = pairs.molecules[i], pairs.molecules[j]
        numbers = [n for n, (_, changes) in INSTRUCTIONS.items() if all_hit(changes, before, after, True)]
        if numbers:
            hits.append((before, after, numbers))
        else:
            left_out[NO_INSTRUCTION] += 1
    frequency = Counter(number for _, _, numbers in hits for number in numbers)
    for before, after, numbers in hits:
        weights = [1 / frequency[number] if balanced else 1.0 for number in numbers]
        chance = unit_hash(f"{before.smiles}>>{after.smiles}") * sum(weights)
        chosen = int(np.searchsorted(np.cumsum(weights), chance, side="right"))
        yield Edit(before, after, numbers[min(chosen, len(numbers) - 1)])


def _worded(edit: Edit) -> Example:
    content = prompt(edit.number, edit.before.smiles, unit_hash(f"wording {edit.chance}"), is_new=False)
    example = edit.example(content, wording="varied")
    return replace(example, id=digest([example.id, content])[:16])


def _with_misses(
    examples: list[Example], edits: list[Edit], misses: Misses, share: float, progress: Progress
) -> Iterator[Example]:
    """Each example, or in its place a chat with misses: one in three of these has two misses."""
    for number, (example, edit) in enumerate(zip(examples, edits, strict=True), start=1):
        progress(number, len(examples))
        chance = unit_hash(f"feedback {example.id}") / share
        yield example if chance >= 1 else misses.chat(example, edit, 2 if chance < 1 / 3 else 1)


def unit_hash(text: str) -> float:
    """A hash of `text` as a number in [0, 1)."""
    return int(digest(text)[:13], 16) / 16**13
