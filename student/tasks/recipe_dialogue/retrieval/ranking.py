"""Measures of a ranking, from the ranks of the relevant items: 1 for the first place, 0 for an item not found."""

from collections.abc import Iterable, Sequence


def ranks_of(relevant: Iterable[str], ranked: Sequence[str]) -> list[int]:
    """The rank of each relevant item. `ranked` contains no item twice."""
    places = {item: rank for rank, item in enumerate(ranked, start=1)}
    return [places.get(item, 0) for item in relevant]


def recall_at(k: int, ranks: Sequence[int]) -> float:
    """Share of the relevant items that are among the first k. Raises ValueError if nothing is relevant."""
    if not ranks:
        raise ValueError("recall needs at least one relevant item")
    return sum(0 < rank <= k for rank in ranks) / len(ranks)


def reciprocal_rank(ranks: Sequence[int]) -> float:
    """1 / rank of the best relevant item; 0 if none was found. The mean over queries is the MRR."""
    return max((1 / rank for rank in ranks if rank), default=0.0)
