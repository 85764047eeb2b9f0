"""What a model is told after a miss: what was wrong, and a molecule of the reference set that is right.

It follows ChatDrug (Liu et al., ICLR 2024): the nearest right molecule, and another try. What differs from its code is
listed in docs/tasks/drug_editing.md.
"""

from collections.abc import Sequence

from student.tasks.drug_editing.instructions import Change
from student.tasks.drug_editing.molecules import Molecule
from student.tasks.drug_editing.references import References


def explain_miss(before: Molecule, after: Molecule | None, changes: Sequence[Change]) -> str:
    """What is wrong with an answer that is no strict hit. after: None if it is no valid molecule."""
    if after is None:
        return "That is not a valid molecule."
    if after.smiles == before.smiles:
        return "That is the same molecule."
    return " ".join(_wrong(change, before, after) for change in changes if not change.is_hit(before, after, True))


def feedback_text(
    before: Molecule,
    after: Molecule | None,
    changes: Sequence[Change],
    references: References | None,
    excluded: Sequence[str] = (),
) -> str:
    """The turn that follows a miss. excluded: SMILES that it may not name, beside the two molecules."""
    parts = [explain_miss(before, after, changes)]
    if references is not None:
        query = after or before
        nearest = references.nearest(query, before, changes, {before.smiles, query.smiles, *excluded})
        if nearest is not None:
            parts.append(f"A right one is {nearest.smiles}")
    return "\n".join([*parts, "Try again."])


def _wrong(change: Change, before: Molecule, after: Molecule) -> str:
    difference = after.properties[change.name] - before.properties[change.name]
    ending = "" if change.is_count else "s"
    must = "rise" if change.direction > 0 else "fall"
    if difference == 0:
        return f"{change.name} stay{ending} the same, but must {must}."
    verb = ("rise" if difference > 0 else "fall") + ending
    result = "which is too little" if change.is_hit(before, after, False) else f"but must {must}"
    return f"{change.name} {verb} by {change.format(abs(difference))}, {result}."
