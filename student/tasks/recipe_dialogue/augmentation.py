"""Augmentation of a turn: the prompt that asks a teacher for it, and the parser of what the teacher wrote.

Accepted are labelled lines, as the prompt asks for, and JSON with the keys Question, Answer and Followup.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from student.tasks.recipe_dialogue.dialogue import Turn, one_line
from student.tasks.text_scores import normalise

FEWEST, MOST = 5, 10
INSTRUCTION = """Here is a recipe, with a question about it and its answer.

{context}

Question: {question}
Answer: {answer}

Write a better question, that can be understood without the conversation. Write a better answer to it, with all that \
the recipe says. Then write {fewest} to {most} more questions that a cook could ask about this recipe. Use this form:
Question: the better question
Answer: the better answer
Follow-ups:
1. the first further question
2. the second further question"""

LABEL = re.compile(
    r"^[ \t#*_>]*(?P<name>(?:(?:better|improved|new)\s+)?(?:question|answer)|follow[\s-]?ups?(?:\s+questions?)?)"
    r"[\s*_]*:[\s*_]*",
    re.IGNORECASE | re.MULTILINE,
)
ITEM = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*(?:question\s*:\s*)?(.*\S)\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Augmented:
    """What a teacher made of a turn. follow_ups: FEWEST to MOST different questions."""

    question: str
    answer: str
    follow_ups: tuple[str, ...]


# A worked example: a small teacher does not keep the form without one.
SHOWN = Turn("", "", (), "And how long?", "20 minutes.")
SHOWN_CONTEXT = """Lemon Rice
- 1 cup rice
- 2 cups water
- 1 lemon
- 1) Boil the water.
- 2) Add the rice, cover, and cook for 20 minutes over low heat.
- 3) Stir in the juice of the lemon."""
SHOWN_ANSWER = """Question: How long does the rice have to cook for the lemon rice?
Answer: Cook the rice for 20 minutes. Keep the pot covered and the heat low.
Follow-ups:
1. How much water do I need for one cup of rice?
2. Do I have to cover the pot?
3. How high should the heat be?
4. When do I add the juice of the lemon?
5. How many lemons do I need?
6. What do I do first?"""


def augmentation_chat(turn: Turn, context: str) -> tuple[dict[str, Any], ...]:
    """The chat that asks for the augmentation of one turn, after a worked example. context: passages of its recipe."""
    return (
        {"role": "user", "content": _request(SHOWN, SHOWN_CONTEXT)},
        {"role": "assistant", "content": SHOWN_ANSWER},
        {"role": "user", "content": _request(turn, context)},
    )


def _request(turn: Turn, context: str) -> str:
    return INSTRUCTION.format(context=context, question=turn.question, answer=turn.answer, fewest=FEWEST, most=MOST)


def parse_augmentation(text: str) -> Augmented | str:
    """The augmentation that a text contains, or the reason why there is none.

    Follow-ups are made one line each and compared after `normalise`; repeated ones count once, and of more than MOST
    the first are kept.
    """
    found = _from_json(text) or _from_lines(text)
    question, answer = one_line(found.get("question", "")), one_line(found.get("answer", ""))
    different: dict[str, str] = {}
    for item in filter(normalise, found.get("follow_ups", [])):
        different.setdefault(normalise(item), one_line(item))
    follow_ups = tuple(different.values())[:MOST]
    if not normalise(question):
        return "no improved question"
    if not normalise(answer):
        return "no improved answer"
    if len(follow_ups) < FEWEST:
        return f"{len(follow_ups)} different follow-ups, fewer than {FEWEST}"
    return Augmented(question, answer, follow_ups)


def augmented_turns(texts: Iterable[tuple[str, str]], turns: Mapping[str, Turn]) -> tuple[list[Turn], dict[str, int]]:
    """New turns, and counts: texts that were used, and those that were not, by reason.

    texts: id of the turn and what the teacher wrote for it. turns: training turns by id. The better question has the
    better answer and the evidence of its turn; a follow-up has neither, so that a teacher answers it at capture.
    """
    counts: Counter[str] = Counter()
    new = []
    for name, text in texts:
        turn, parsed = turns.get(name), parse_augmentation(text)
        if turn is None:
            counts["of a turn that is not in train"] += 1
        elif isinstance(parsed, str):
            counts[f"refused: {parsed}"] += 1
        else:
            counts["used"] += 1
            better = replace(turn, id=f"{name}/improved", question=parsed.question, answer=parsed.answer, history=())
            new.append(better)
            new += [
                replace(better, id=f"{name}/follow-up-{i}", question=question, answer="", evidence=(), spans=())
                for i, question in enumerate(parsed.follow_ups, start=1)
            ]
    return new, dict(counts)


def _from_lines(text: str) -> dict[str, Any]:
    """The first question, the first answer and all follow-ups of labelled lines."""
    marks = list(LABEL.finditer(text))
    found: dict[str, Any] = {}
    for mark, after in zip(marks, [*marks[1:], None], strict=False):
        name = mark["name"].lower().split()[-1]
        body = text[mark.end() : after.start() if after else len(text)]
        if name in ("question", "answer") and mark["name"].lower()[:6] != "follow":
            if "follow_ups" not in found:
                found.setdefault(name, body)
        else:
            found.setdefault("follow_ups", [])
            found["follow_ups"] += [item[1] for item in map(ITEM.match, body.splitlines()) if item]
    return found


def _from_json(text: str) -> dict[str, Any] | None:
    """The object of a text that contains one, with or without words and a block of code around it."""
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        return None
    try:
        value = json.loads(text[start : stop + 1])
    except ValueError:
        return None
    keys: dict[str, Any] = {re.sub(r"[^a-z]", "", key.lower()): item for key, item in value.items()}
    items: Any = next((keys[key] for key in ("followups", "followup", "followupquestions") if key in keys), [])
    items = items if isinstance(items, list) else []
    follow_ups = [item.get("Question", item.get("question", "")) if isinstance(item, dict) else item for item in items]
    texts = {name: keys[name] for name in ("question", "answer") if isinstance(keys.get(name), str)}
    return {**texts, "follow_ups": [item for item in follow_ups if isinstance(item, str)]}
