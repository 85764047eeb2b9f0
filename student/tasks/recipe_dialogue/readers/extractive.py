"""Wizard of Tasks Extractive (Fischer et al. 2024): questions of Wizard of Tasks with their recipes and answer spans.

train.json, validation.json and test.json are lists of questions with `question`, `original_answer`, `extracted_answer`
(spans of the recipe, one a line), `history` ("student: ... | teacher: ..."), `document_url`, `data_split`, `domain` and
`task_data`: the recipe, as the text of a Python literal with `title`, `ingredients` and `steps`.
"""

import ast
import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Conversations, Passage, Recipe, Speaker, Turn, Utterance, one_line
from student.tasks.recipe_dialogue.readers.json_files import field_of, read_json_file
from student.tasks.recipe_dialogue.splits import SPLITS

SPEAKERS: dict[str, Speaker] = {"student": "user", "teacher": "assistant"}
ROLE = re.compile(r"(?:^|\s\|\s)(student|teacher): ")


def read_extractive(folder: Path) -> Conversations:
    """Read the cooking questions of the three files. Raises InputError naming file and question.

    A question whose spans are in no line of its recipe has no evidence. Other domains are left out and counted.
    """
    data = Conversations({}, [])
    for split in SPLITS:
        path = folder / f"{split}.json"
        questions = read_json_file(path)
        if not isinstance(questions, list):
            raise InputError(f"{path}: must be a list of questions")
        for i, item in enumerate(questions):
            place = f"{path}, question {i}"
            if (domain := field_of(item, "domain", str, place)) != "cooking":
                data.left_out[f"of the domain {domain}"] += 1
                continue
            recipe = _recipe(item, place)
            data.recipes.setdefault(recipe.id, recipe)
            data.turns.append(_turn(item, data.recipes[recipe.id], f"{split}/{i}", place))
            if data.turns[-1].split != split:
                raise InputError(f"{place}: 'data_split' is {data.turns[-1].split!r} in a file of {split!r}")
    require_distinct(data.turns, folder)
    return data


def require_distinct(turns: list[Turn], folder: Path) -> None:
    """Raise InputError if two questions have the same id."""
    name, count = Counter(turn.id for turn in turns).most_common(1)[0] if turns else ("", 0)
    if count > 1:
        raise InputError(f"{folder}: {count} questions have the id {name!r}")


def _turn(item: Any, recipe: Recipe, name: str, place: str) -> Turn:
    texts = {
        key: one_line(html.unescape(field_of(item, key, str, place)))
        for key in ("question", "original_answer", "data_split", "history")
    }
    if not texts["question"] or not texts["original_answer"]:
        raise InputError(f"{place}: 'question' or 'original_answer' is empty")
    # The files have the two characters \n between spans.
    lines = field_of(item, "extracted_answer", str, place).replace("\\n", "\n").splitlines()
    spans = tuple(span for span in (one_line(html.unescape(line)) for line in lines) if span)
    evidence = [passage.id for passage in recipe.passages if any(_contains(passage.text, span) for span in spans)]
    history = _history(texts["history"], place)
    return Turn(
        name,
        recipe.id,
        history,
        texts["question"],
        texts["original_answer"],
        tuple(evidence),
        spans,
        texts["data_split"],
    )


def _contains(text: str, span: str) -> bool:
    """Whether a text has a span as whole words: "5 minutes" is not in "15 minutes"."""
    return re.search(rf"(?<!\w){re.escape(span)}(?!\w)", text, re.IGNORECASE) is not None


def _history(text: str, place: str) -> tuple[Utterance, ...]:
    """The utterances of "student: ... | teacher: ..."; none for "None"."""
    if text in ("", "None"):
        return ()
    marks = list(ROLE.finditer(text))
    if not marks or marks[0].start():
        raise InputError(f"{place}: 'history' does not begin with 'student: ' or 'teacher: '")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return tuple((SPEAKERS[mark[1]], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True))


def _recipe(item: Any, place: str) -> Recipe:
    address, literal = (field_of(item, key, str, place) for key in ("document_url", "task_data"))
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise InputError(f"{place}: 'task_data' is not the text of a Python literal") from None
    title = one_line(html.unescape(field_of(value, "title", str, f"{place}, task_data")))
    lines = [line for key in ("ingredients", "steps") for line in field_of(value, key, list, f"{place}, task_data")]
    texts = dict.fromkeys([title, *(one_line(html.unescape(str(line))) for line in lines)])
    passages = tuple(Passage(f"{address}/{i}", text) for i, text in enumerate(filter(None, texts)))
    return Recipe(address, title, passages)
