"""No recipe is in two splits, whether the data set has splits or not, and nothing disappears without a count."""

from collections import Counter

from student.tasks.recipe_dialogue.dialogue import Turn
from student.tasks.recipe_dialogue.splits import split_turns


def turns(count: int, splits: tuple[str, ...] = ("",)) -> list[Turn]:
    return [Turn(f"{i}", f"recipe {i // 3}", (), "?", "!", ("x",), split=splits[i % len(splits)]) for i in range(count)]


def test_recipes_are_divided_by_hash() -> None:
    splits = split_turns(turns(600), 0.1, 0.2, {}, Counter())
    recipes = {name: {turn.recipe for turn in part} for name, part in splits.items()}
    assert not recipes["train"] & recipes["test"] and not recipes["validation"] & (recipes["train"] | recipes["test"])
    assert sum(map(len, splits.values())) == 600
    assert 20 < len(recipes["test"]) < 60 and 8 < len(recipes["validation"]) < 35


def test_a_recipe_of_several_splits_goes_to_the_last_and_the_moves_are_counted() -> None:
    left_out: Counter[str] = Counter()
    splits = split_turns(turns(6, ("train", "test", "train", "train", "train", "validation")), 0.1, 0.2, {}, left_out)
    assert {turn.recipe for turn in splits["test"]} == {"recipe 0"}
    assert {turn.recipe for turn in splits["validation"]} == {"recipe 1"}
    assert left_out == {
        "moved from train to test, where the recipe is": 2,
        "moved from train to validation, where the recipe is": 2,
    }


def test_a_limit_keeps_the_first_by_hash_and_counts_the_others() -> None:
    left_out: Counter[str] = Counter()
    all_turns = split_turns(turns(300), 0.1, 0.2, {}, Counter())["train"]
    limited = split_turns(turns(300), 0.1, 0.2, {"train": 10}, left_out)["train"]
    assert limited == all_turns[:10]
    assert left_out == {"over the limit of 10 turns of train": len(all_turns) - 10}
