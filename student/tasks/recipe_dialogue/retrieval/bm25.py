"""Okapi BM25 (Robertson and Zaragoza 2009, https://doi.org/10.1561/1500000019), with k1 = 1.5 and b = 0.75."""

import math
import re
from collections import Counter
from collections.abc import Sequence

K1, B = 1.5, 0.75
WORD = re.compile(r"\w+")


class Bm25:
    """Scores of texts for a query: sum over its words of idf x tf (k1 + 1) / (tf + k1 (1 - b + b length / mean)).

    idf = ln(1 + (N - n + 1/2) / (n + 1/2)) for a word that n of N texts contain.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        lengths = [count.total() for count in counts]
        mean = sum(lengths) / max(len(lengths), 1) or 1.0
        frequency = Counter(word for count in counts for word in count)
        self._size = len(texts)
        # By word: the texts that contain it, with the word's share of their score.
        self._postings: dict[str, list[tuple[int, float]]] = {word: [] for word in frequency}
        for i, count in enumerate(counts):
            norm = K1 * (1 - B + B * lengths[i] / mean)
            for word, times in count.items():
                idf = math.log(1 + (len(texts) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                self._postings[word].append((i, idf * times * (K1 + 1) / (times + norm)))

    def scores(self, query: str) -> list[float]:
        """One score a text; 0 for a text without a word of the query."""
        scores = [0.0] * self._size
        for word in words(query):
            for i, weight in self._postings.get(word, ()):
                scores[i] += weight
        return scores


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return WORD.findall(text.lower())
