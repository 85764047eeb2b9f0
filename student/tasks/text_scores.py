"""Scores of one text against one reference, as tasks share them. All are in 0..1."""

import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b")
# A comma between thousands is no part of a number.
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
# Punctuation that does not belong to a number, such as 2.5, .5, 120/80 or 10-20.
_MARKS = re.escape(string.punctuation.replace(".", ""))
PUNCTUATION = re.compile(rf"\.(?![0-9])|(?<=[^\W0-9])\.|(?<![0-9])[{_MARKS}]|[{_MARKS}](?![0-9])")
# 500mg is 500 mg.
UNIT = re.compile(r"(?<=[0-9])(?=[^\W0-9_])")
# Signs that say something: blood group O-, below and above a bound, a share, a negative number. They become words.
SIGNS = (
    (re.compile(r"(?<=[^\W\d_])\+(?!\w)"), " plus "),
    (re.compile(r"(?<=[^\W\d_])-(?=[\s.,;:)]|$)"), " minus "),
    (re.compile(r"(?<![\w.)])[-\u2212](?=\.?[0-9])"), " minus "),
    (re.compile(r"(?:<=|\u2264)(?=\s*\.?[0-9])"), " atmost "),
    (re.compile(r"(?:>=|\u2265)(?=\s*\.?[0-9])"), " atleast "),
    (re.compile(r"<(?=\s*\.?[0-9])"), " below "),
    (re.compile(r">(?=\s*\.?[0-9])"), " above "),
    (re.compile(r"(?<=[0-9])\s?%"), " percent "),
)
# .5 is 0.5, and 1.50 is 1.5.
LEADING_ZERO = re.compile(r"(?<![\w.])(?=\.[0-9])")
TRAILING_ZEROS = re.compile(r"(?<![\w.])([0-9]+)(?:\.0+|(\.[0-9]*[1-9])0+)(?![\w.]|\.[0-9])")
# An article stands before a word. A capital A is one where a sentence begins; "blood group A positive" has none.
ARTICLE = re.compile(r"\b(?:a|[Aa]n|AN|[Tt]he|THE)\b(?=\s+\w)")
FIRST_A = re.compile(r"(?:^|(?<=[.!?\n]))\s*A(?=\s+\w)")


def normalise(text: str) -> str:
    """Lower case, without articles, repeated spaces and punctuation. Numbers keep their decimal point and strokes, and
    signs that change what is said become words: O+ and O-, <5 and >5, -5 and 5, 50% and 50 are different.

    As SQuAD's evaluation compares answers (Rajpurkar et al., 2016, arXiv 1606.05250), but for numbers: there, 2.5 mg
    equals 25 mg. A number and its unit are two words.
    """
    signed = THOUSANDS.sub("", FIRST_A.sub(" ", text))
    for sign, words in SIGNS:
        signed = sign.sub(words, signed)
    numbers = TRAILING_ZEROS.sub(r"\1\2", LEADING_ZERO.sub("0", signed))
    plain = UNIT.sub(" ", PUNCTUATION.sub("", numbers))
    return " ".join(ARTICLE.sub(" ", plain).lower().split())


def words_of(text: str) -> frozenset[str]:
    """The words of a text as `normalise` writes them, with articles; and the parts of words with hyphens or strokes."""
    parts = re.sub(r"[-/]", " ", text)
    return frozenset([*normalise(text).split(), *normalise(parts).split()]) | frozenset(ARTICLES.findall(text.lower()))


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


def rouge(text: str, reference: str, stemmed: bool = True) -> dict[str, float]:
    """F1 of ROUGE-1, -2 and -L (Lin, 2004), by the rouge-score package. stemmed: compare Porter stems of words."""
    scores = _rouge_scorer(stemmed).score(reference, text)
    return {name: float(score.fmeasure) for name, score in scores.items()}


def f1(true_positives: float, false_positives: float, false_negatives: float) -> float:
    """2 TP / (2 TP + FP + FN); 1 if there is nothing to find and nothing was given."""
    total = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / total if total else 1.0


@lru_cache(maxsize=2)
def _rouge_scorer(stemmed: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmed)
