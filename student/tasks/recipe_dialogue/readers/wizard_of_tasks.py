"""Wizard of Tasks (Choi et al., COLING 2022): conversations of a student and a teacher about a recipe.

The public file wizard_of_tasks_cooking_v1.0.json is an object of conversations by id, each with `document_url`,
`data_split` and `turns` (`role`, `text`, `intent`, `relevant`, `useful`, `shared_data`: the texts of the recipe that
the teacher showed with the answer). It has the addresses of the recipes, not the recipes. A second file may give them:
an object of {"title": ..., "ingredients": [...], "steps": [...]} by address. A recipe without one consists of what its
teachers showed.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Conversations, Passage, Recipe, Speaker, Turn, Utterance, one_line
from student.tasks.recipe_dialogue.readers.extractive import read_extractive
from student.tasks.recipe_dialogue.readers.json_files import field_of, read_json_file
from student.tasks.recipe_dialogue.splits import SPLITS

SPEAKERS: dict[str, Speaker] = {"student": "user", "teacher": "assistant"}


def read_wizard_of_tasks(path: Path, recipes: Path | None = None) -> Conversations:
    """Read the conversations, and the recipes if they are given. Raises InputError naming file, conversation and turn.

    A folder has the extractive form of the data set (extractive.py), which contains its recipes.

    Turns without a text are left out and counted, and answers that workers marked as not relevant.
    """
    if path.is_dir():
        return read_extractive(path)
    document = read_json_file(path)
    if not isinstance(document, dict) or not document:
        raise InputError(
            f"{path}: must be an object of conversations by their id, as wizard_of_tasks_cooking_v1.0.json"
        )
    given = _given_recipes(recipes) if recipes else {}
    by_address: dict[str, list[tuple[str, Any]]] = {}
    for name, conversation in document.items():
        place = f"{path}, conversation {name!r}"
        by_address.setdefault(field_of(conversation, "document_url", str, place), []).append((name, conversation))
    data = Conversations({}, [])
    for address, conversations in by_address.items():
        recipe = given.get(address) or _shown_recipe(address, conversations, path)
        data.recipes[recipe.id] = recipe
        for name, conversation in conversations:
            place = f"{path}, conversation {name!r}"
            data.turns += _turns(name, conversation, recipe, place, data.left_out)
    if unused := len(given.keys() - by_address.keys()):
        data.left_out["recipe without a conversation"] = unused
    return data


def _turns(name: str, conversation: Any, recipe: Recipe, place: str, left_out: Counter[str]) -> Iterator[Turn]:
    split = field_of(conversation, "data_split", str, place)
    if split not in SPLITS:
        raise InputError(f"{place}: 'data_split' is {split!r}; known splits: {', '.join(SPLITS)}")
    history: list[Utterance] = []
    for i, turn in enumerate(field_of(conversation, "turns", list, place)):
        where = f"{place}, turn {i}"
        role = field_of(turn, "role", str, where)
        if role not in SPEAKERS:
            raise InputError(f"{where}: 'role' is {role!r}; known roles: {', '.join(SPEAKERS)}")
        text = one_line(turn["text"]) if isinstance(turn.get("text"), str) else ""
        if not text:
            left_out["turn without a text"] += 1
            continue
        follows_question = bool(history) and history[-1][0] == "user"
        if SPEAKERS[role] == "assistant" and not follows_question:
            left_out["utterance of the teacher without a question before it"] += 1
        elif SPEAKERS[role] == "assistant" and turn.get("relevant") == "no":
            left_out["answer that is marked as not relevant"] += 1
        elif SPEAKERS[role] == "assistant":
            spans = tuple(map(one_line, _shared(turn, where)))
            ids = {passage.text: passage.id for passage in reversed(recipe.passages)}
            evidence = tuple(ids[span] for span in spans if span in ids)
            before = tuple(history[:-1])
            yield Turn(f"{name}/{i}", recipe.id, before, history[-1][1], text, evidence, spans, split)
        history.append((SPEAKERS[role], text))


def _shared(turn: Any, place: str) -> list[str]:
    """The texts that the teacher showed. The field may be absent or null."""
    shared = turn.get("shared_data") or []
    if not isinstance(shared, list) or not all(isinstance(text, str) for text in shared):
        raise InputError(f"{place}: 'shared_data' must be a list of texts")
    return [text for text in shared if text.strip()]


def _shown_recipe(address: str, conversations: list[tuple[str, Any]], path: Path) -> Recipe:
    """A recipe of the texts that teachers showed in its conversations, in order, each once."""
    texts: dict[str, None] = {}
    for name, conversation in conversations:
        place = f"{path}, conversation {name!r}"
        for i, turn in enumerate(field_of(conversation, "turns", list, place)):
            if not isinstance(turn, dict):
                raise InputError(f"{place}, turn {i}: must be an object, not {type(turn).__name__}")
            texts |= dict.fromkeys(map(one_line, _shared(turn, f"{place}, turn {i}")))
    return _recipe(address, _title_of(address), list(texts))


def _given_recipes(path: Path) -> dict[str, Recipe]:
    document = read_json_file(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: must be an object of recipes by their address")
    recipes = {}
    for address, item in document.items():
        place = f"{path}, recipe {address!r}"
        lines = [line for name in ("ingredients", "steps") for line in field_of(item, name, list, place)]
        if not all(isinstance(line, str) for line in lines):
            raise InputError(f"{place}: 'ingredients' and 'steps' must be lists of texts")
        texts = dict.fromkeys(text for text in map(one_line, lines) if text)
        recipes[address] = _recipe(address, one_line(field_of(item, "title", str, place)), list(texts))
    return recipes


def _recipe(address: str, title: str, texts: list[str]) -> Recipe:
    lines = [title, *(text for text in texts if text != title)]
    return Recipe(address, title, tuple(Passage(f"{address}/{i}", text) for i, text in enumerate(lines)))


def _title_of(address: str) -> str:
    """The last part of an address as words: https://.../recipes/pasta-alla-norma is "pasta alla norma"."""
    return one_line(address.rstrip("/").rpartition("/")[2].replace("-", " ")) or address
