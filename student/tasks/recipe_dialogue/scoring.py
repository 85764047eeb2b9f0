"""Scores of one answer and metrics of all answers. Knows nothing of retrieval methods and models."""

from collections.abc import Mapping, Sequence
from typing import Any

from student.tasks.recipe_dialogue.retrieval.ranking import recall_at, reciprocal_rank
from student.tasks.text_scores import exact_match, rouge, token_f1

# Depths of recall that an evaluation reports.
DEPTHS = (1, 3, 5, 10)


def answer_scores(answer: str, reference: str, spans: Sequence[str]) -> dict[str, float]:
    """Exact match, token F1 and ROUGE-L against the reference, and exact match and token F1 against the spans.

    spans: texts of the recipe that answer the question together: one of several is a part of the answer.
    """
    evidence = " ".join(spans)
    return {
        "exact_match": exact_match(answer, reference),
        "token_f1": token_f1(answer, reference),
        "rouge_l": rouge(answer, reference)["rougeL"],
        "span_f1": token_f1(answer, evidence) if spans else 0.0,
        "span_exact_match": exact_match(answer, evidence) if spans else 0.0,
        "empty": float(not answer.strip()),
    }


def ranking_scores(ranks: Mapping[str, Any]) -> dict[str, float]:
    """Recall and reciprocal rank of one query. ranks: of the recipe ("documents") and of the evidence ("passages")."""
    scores: dict[str, float] = {}
    for level in ("documents", "passages"):
        name = level[:-1]
        scores |= {f"{name}_recall_at_{k}": recall_at(k, ranks[level]) for k in DEPTHS}
        scores[f"{name}_mrr"] = reciprocal_rank(ranks[level])
    return scores


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over the answers that have it."""
    names = dict.fromkeys(name for score in scores for name in score)
    values = {name: [score[name] for score in scores if name in score] for name in names}
    return {name: sum(value) / len(value) for name, value in values.items()}
