"""Scores of one text against one reference, as tasks share them. All are in 0..1."""

import re
import string
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, English articles and repeated spaces, as SQuAD's evaluation compares answers.

    Rajpurkar et al., 2016, arXiv 1606.05250.
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(text: str, reference: str) -> float:
    """1 if both texts are the same after `normalise`, else 0."""
    return float(normalise(text) == normalise(reference))


def token_f1(text: str, reference: str) -> float:
    """F1 of the words that both have after `normalise`, with their number. Two empty texts agree."""
    words, expected = normalise(text).split(), normalise(reference).split()
    if not words or not expected:
        return float(words == expected)
    common = sum((Counter(words) & Counter(expected)).values())
    return 2 * common / (len(words) + len(expected))


def rouge(text: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L with stemmed words (Lin, 2004), by the rouge-score package."""
    scores = _rouge_scorer().score(reference, text)
    return {name: float(score.fmeasure) for name, score in scores.items()}


def set_counts(values: Iterable[str], expected: Iterable[str]) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of a set of texts, compared after `normalise`."""
    given, true = {normalise(value) for value in values}, {normalise(value) for value in expected}
    return len(given & true), len(given - true), len(true - given)


def f1(true_positives: float, false_positives: float, false_negatives: float) -> float:
    """2 TP / (2 TP + FP + FN); 1 if there is nothing to find and nothing was given."""
    total = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / total if total else 1.0


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
