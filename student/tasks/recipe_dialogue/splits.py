"""Splits of turns by recipe: no recipe is in two of them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cache.json_documents import digest
from student.tasks.recipe_dialogue.dialogue import Turn

# In the order in which a recipe with conversations of several splits is assigned: to the last of them.
SPLITS = ("train", "validation", "test")


def split_turns(
    turns: Sequence[Turn], validation_share: float, test_share: float, limits: Mapping[str, int], left_out: Counter[str]
) -> dict[str, list[Turn]]:
    """The turns of each split, ordered by hash, so that the first of them are a fair sample.

    A data set that has splits keeps them, but all turns of a recipe go to the last of its splits (SPLITS).
    Otherwise recipes are divided by the hash of their id. limits: turns of a split at most; the others are counted in
    left_out.
    """
    given: dict[str, str] = {}
    for turn in turns:
        if turn.split:
            given[turn.recipe] = max(given.get(turn.recipe, "train"), turn.split, key=SPLITS.index)
    splits: dict[str, list[Turn]] = {name: [] for name in SPLITS}
    for turn in sorted(turns, key=lambda turn: digest(["order", turn.id])):
        name = given.get(turn.recipe) or _by_hash(turn.recipe, validation_share, test_share)
        if turn.split not in ("", name):
            left_out[f"moved from {turn.split} to {name}, where the recipe is"] += 1
        splits[name].append(turn)
    for name, limit in limits.items():
        if len(splits[name]) > limit:
            left_out[f"over the limit of {limit:,} turns of {name}"] += len(splits[name]) - limit
            splits[name] = splits[name][:limit]
    return splits


def _by_hash(recipe: str, validation_share: float, test_share: float) -> str:
    share = int(digest(["split", recipe])[:13], 16) / 16**13
    if share < test_share:
        return "test"
    return "validation" if share < test_share + validation_share else "train"
