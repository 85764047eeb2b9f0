"""Scores of one edited molecule, and metrics over many."""

from collections.abc import Mapping, Sequence

from cache.json_documents import digest
from student.tasks.drug_editing.instructions import INSTRUCTIONS, all_hit
from student.tasks.drug_editing.molecules import Molecule, similarity


def score_edit(
    before: Molecule | None, after: Molecule | None, number: int, known: frozenset[str] | None
) -> dict[str, float]:
    """Scores of one answer. after: None if it is no valid molecule. known: molecules of training, before and
    after their edits, if given.

    valid, loose, strict, copy, novel: 1 or 0. similarity: Tanimoto similarity to the molecule before. molecule: a
    number for each different molecule, exact in float64. task: the number of the instruction.
    """
    scores = dict.fromkeys(("valid", "loose", "strict", "copy", "similarity", "molecule"), 0.0)
    scores["task"] = float(number)
    if known is not None:
        scores["novel"] = 0.0
    if before is None or after is None:
        return scores
    changes = INSTRUCTIONS[number][1]
    scores |= {
        "valid": 1.0,
        "loose": float(all_hit(changes, before, after, strict=False)),
        "strict": float(all_hit(changes, before, after, strict=True)),
        "copy": float(before.smiles == after.smiles),
        "similarity": similarity(before, after),
        "molecule": float(int(digest(after.smiles)[:13], 16)),
    }
    if known is not None:
        scores["novel"] = float(after.smiles not in known and after.smiles != before.smiles)
    return scores


def summarise_edits(scores: list[dict[str, float]]) -> dict[str, float]:
    """Metrics over answers. Hit ratios are given over valid answers and over all: publications use either denominator.
    After feedback, hit_ratio_valid is over the chats without an invalid answer, as in ChatDrug's code.

    uniqueness: different molecules by valid answers. novelty: share of valid answers that are in no training example,
    neither before nor after its edit, and not the molecule before. hit_similarity: mean Tanimoto similarity of loose
    hits to the molecule before. copies: share of answers that are the molecule before.
    """
    count = len(scores)
    valid = [score for score in scores if score["valid"]]
    # ChatDrug ends a chat at an invalid answer, and leaves it out.
    unbroken = [score for score in scores if score.get("unbroken", score["valid"])]
    hits = [score for score in valid if score["loose"]]
    totals = {name: sum(score[name] for score in scores) for name in ("loose", "strict", "copy")}
    metrics = {
        "validity": ratio(len(valid), count),
        "hit_ratio_all": ratio(totals["loose"], count),
        "hit_ratio_all_strict": ratio(totals["strict"], count),
        "hit_ratio_valid": ratio(sum(score["loose"] for score in unbroken), len(unbroken)),
        "hit_ratio_valid_strict": ratio(sum(score["strict"] for score in unbroken), len(unbroken)),
        "copies": ratio(totals["copy"], count),
        "uniqueness": ratio(len({score["molecule"] for score in valid}), len(valid)),
        "hit_similarity": ratio(sum(score["similarity"] for score in hits), len(hits)),
    }
    if scores and "novel" in scores[0]:
        metrics["novelty"] = ratio(sum(score["novel"] for score in valid), len(valid))
    return metrics


def scores_after_feedback(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The scores that count after rounds of feedback: those of the last answer, and the loose hit of any of them.

    ChatDrug ends a chat at its first hit, by loose or by strict thresholds. Here one chat serves both: it goes on after
    a hit that is only loose, and a worse answer after it takes nothing back. unbroken: 1 if every answer was valid.
    """
    return {
        **scores[-1],
        "loose": max(score["loose"] for score in scores),
        "unbroken": min(score["valid"] for score in scores),
    }


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 if there is nothing to divide by."""
    return part / whole if whole else 0.0
