"""CookDial (Jiang et al., Applied Intelligence 2022; MIT licence): 260 dialogues, each about one recipe.

A dialogue NNN.*.json belongs to the recipe NNN_*.json. Every utterance of the agent has an action frame, such as
`inform_ingredient(ing-2);`, whose arguments name the lines of the recipe that the answer comes from.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Conversations, Passage, Recipe, Turn, Utterance, one_line
from student.tasks.recipe_dialogue.readers.json_files import field_of, read_json_file

TITLE = "title"
ACTION = re.compile(r"\s*([a-z_]+)\s*\((.*)\)\s*", re.DOTALL)
# A line of the recipe, or a part of a step: ac-7-1 is the second action of inst-7.
ARGUMENT = re.compile(r"(title|ing|inst|ac|tool|cond|dur|temp|purp)(?:-(\d+))?(?:-\d+)?")
LINES = ("ing", "inst")


def read_cookdial(folder: Path) -> Conversations:
    """Read all dialogues and recipes. Raises InputError naming file and message if anything has another form."""
    for part in ("dialog", "recipe"):
        if not (folder / part).is_dir():
            raise InputError(
                f"CookDial folder {folder}: has no folder {part!r}; give the folder 'data' of the data set"
            )
    recipes: dict[str, Recipe] = {}
    files: dict[str, Path] = {}
    for path in sorted((folder / "recipe").glob("*.json")):
        recipe = _read_recipe(path)
        if recipe.id in files:
            raise InputError(f"{path}: the recipe id {recipe.id!r} is that of {files[recipe.id]} too; keep one of them")
        recipes[recipe.id], files[recipe.id] = recipe, path
    conversations = Conversations(recipes, [])
    described: set[str] = set()
    for path in sorted((folder / "dialog").glob("*.json")):
        number = path.name.partition(".")[0]
        if number not in recipes:
            raise InputError(f"{path}: no recipe {number}_*.json in {folder / 'recipe'}")
        described.add(number)
        conversations.turns += _read_dialogue(path, recipes[number], conversations.left_out)
    if unused := len(recipes.keys() - described):
        conversations.left_out["recipe without a dialogue"] = unused
    if not conversations.turns:
        raise InputError(f"CookDial folder {folder}: contains no dialogue")
    return conversations


def _read_recipe(path: Path) -> Recipe:
    document = read_json_file(path)
    number, title = (field_of(document, name, str, str(path)) for name in ("id", "title"))
    passages = [Passage(f"{number}/{TITLE}", one_line(title))]
    for i, line in enumerate(field_of(document, "content", list, str(path))):
        place = f"{path}, content {i}"
        passages.append(
            Passage(f"{number}/{field_of(line, 'id', str, place)}", one_line(field_of(line, "text", str, place)))
        )
    if len({passage.id for passage in passages}) < len(passages):
        raise InputError(f"{path}: two lines of the recipe have the same id")
    return Recipe(number, one_line(title), tuple(passages))


def _read_dialogue(path: Path, recipe: Recipe, left_out: Counter[str]) -> Iterable[Turn]:
    history: list[Utterance] = []
    messages = field_of(read_json_file(path), "messages", list, str(path))
    if not messages:
        raise InputError(f"{path}: 'messages' is empty; give the dialogue, or remove the file")
    known = {passage.id for passage in recipe.passages}
    for i, message in enumerate(messages):
        place = f"{path}, message {i}"
        text = one_line(field_of(message, "utterance", str, place))
        is_agent = field_of(message, "bot", bool, place)
        frame = field_of(message, "annotations", str, place)
        if not text:
            raise InputError(f"{place}: 'utterance' is empty")
        if is_agent and history and history[-1][0] == "user":
            evidence = tuple(dict.fromkeys(f"{recipe.id}/{line}" for line in evidence_lines(frame, place)))
            if unknown := [line for line in evidence if line not in known]:
                raise InputError(f"{place}: the action frame names {unknown[0]!r}, which the recipe does not have")
            yield Turn(
                f"{path.stem}/{i}", recipe.id, tuple(history[:-1]), question=history[-1][1], answer=text,
                evidence=evidence,
            )  # fmt: skip
        elif is_agent:
            left_out["utterance of the agent without a question before it"] += 1
        history.append(("assistant" if is_agent else "user", text))
    if history and history[-1][0] == "user":
        left_out["question without an answer"] += 1


def evidence_lines(frame: str, place: str) -> list[str]:
    """The lines of the recipe that an action frame names, such as ["inst-3"]. Raises InputError, starting with `place`.

    A part of a step stands for its step: ac-7-1, tool-7-0 and the like for inst-7.
    """
    lines = []
    for action in filter(str.strip, frame.split(";")):
        match = ACTION.fullmatch(action)
        if match is None:
            raise InputError(f"{place}: {action.strip()!r} is no action of the form name(arguments)")
        for argument in filter(None, re.split(r"[\s,\[\]]+", match[2])):
            part = ARGUMENT.fullmatch(argument)
            if part is None or (part[2] is None) != (part[1] == TITLE):
                raise InputError(f"{place}: {argument!r} in {action.strip()!r} is no part of a recipe")
            lines.append(TITLE if part[1] == TITLE else f"{part[1] if part[1] in LINES else 'inst'}-{part[2]}")
    return lines
