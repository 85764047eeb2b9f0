"""Synthetic answers of students: made from a grammar of facts, for a machine without data. No figure of them is real.

A fact says which of two things has more of a property, and what follows from it: "ice is less dense than water, so it
floats". Rules make answers of each grade from it: the fact in other words (correct), only what follows
(partially correct), its opposite (contradictory), another fact (irrelevant), a request for help (outside the domain).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from student.tasks.science_scoring.readers import GradedAnswer

# Shares of the grades, about those of Beetle.
GRADE_SHARES = {
    "correct": 0.42,
    "contradictory": 0.25,
    "partially_correct_incomplete": 0.2,
    "irrelevant": 0.08,
    "non_domain": 0.05,
}
HELP = (
    *("i dont know", "idk", "can you help me", "tell me the answer", "what does this mean", "no idea", "skip", "?"),
    *("i do not understand the question", "give me a hint", "this is too hard", "we did not learn this"),
)
OPENINGS = ("", "", "", "because ", "i think ", "it is because ", "well, ", "the reason is that ")


@dataclass(frozen=True, slots=True)
class Topic:
    """A property and what follows from it.

    things: from the least to the most of the property. question: about the pair {a}, {b}, where {a} has less.
    more, less: how to say that one thing has more, or less, of it than another. follows, opposite: what happens to
    {a}, and what does not.
    """

    name: str
    things: tuple[str, ...]
    question: str
    less: tuple[str, ...]
    more: tuple[str, ...]
    follows: tuple[str, ...]
    opposite: tuple[str, ...]


TOPICS = (
    Topic(
        "density",
        ("cork", "oak", "ice", "water", "rubber", "glass", "iron", "lead"),
        "Why does {a} lie above {b} when both settle in a tank?",
        (
            "{a} is less dense than {b}",
            "the density of {a} is lower than that of {b}",
            "{a} has a smaller density than {b}",
        ),
        (
            "{a} is denser than {b}",
            "the density of {a} is higher than that of {b}",
            "{a} has a greater density than {b}",
        ),
        ("{a} ends up on top", "{a} rises above {b}", "{a} is the upper one"),
        ("{a} ends up at the bottom", "{a} goes below {b}", "{a} is the lower one"),
    ),
    Topic(
        "melting point",
        ("oxygen", "mercury", "wax", "tin", "silver", "gold", "steel", "tungsten"),
        "Why does {a} melt before {b} when both are heated slowly?",
        (
            "{a} melts at a lower temperature than {b}",
            "the melting point of {a} is below that of {b}",
            "{a} has a lower melting point than {b}",
        ),
        (
            "{a} melts at a higher temperature than {b}",
            "the melting point of {a} is above that of {b}",
            "{a} has a higher melting point than {b}",
        ),
        ("{a} becomes liquid first", "{a} turns to liquid while {b} is solid", "{a} is the first to melt"),
        ("{a} stays solid longer", "{a} is still solid when {b} is liquid", "{a} is the last to melt"),
    ),
    Topic(
        "conductivity",
        ("wood", "plastic", "pencil lead", "nickel", "brass", "aluminium", "copper"),
        "Why is the lamp dimmer with a rod of {a} in the circuit than with a rod of {b}?",
        (
            "{a} conducts electricity worse than {b}",
            "the current through {a} is smaller than through {b}",
            "{a} has more resistance than {b}",
        ),
        (
            "{a} conducts electricity better than {b}",
            "the current through {a} is larger than through {b}",
            "{a} has less resistance than {b}",
        ),
        ("the lamp glows weakly with {a}", "less light comes with {a}", "with {a} the lamp is dim"),
        ("the lamp glows brightly with {a}", "more light comes with {a}", "with {a} the lamp is bright"),
    ),
    Topic(
        "distance from the sun",
        ("mercury", "venus", "earth", "mars", "jupiter", "saturn", "uranus", "neptune"),
        "Why is a year on {a} shorter than a year on {b}?",
        (
            "{a} is closer to the sun than {b}",
            "the orbit of {a} is smaller than that of {b}",
            "{a} has a shorter way around the sun than {b}",
        ),
        (
            "{a} is farther from the sun than {b}",
            "the orbit of {a} is larger than that of {b}",
            "{a} has a longer way around the sun than {b}",
        ),
        ("{a} goes around the sun in less time", "{a} needs fewer days for one orbit", "a year of {a} takes less time"),
        ("{a} goes around the sun in more time", "{a} needs more days for one orbit", "a year of {a} takes more time"),
    ),
    Topic(
        "acidity",
        ("soap", "sea water", "milk", "coffee", "orange juice", "vinegar", "lemon juice"),
        "Why does {a} change the colour of the indicator less than {b}?",
        ("{a} is less acidic than {b}", "{a} contains less acid than {b}", "the ph of {a} is higher than that of {b}"),
        ("{a} is more acidic than {b}", "{a} contains more acid than {b}", "the ph of {a} is lower than that of {b}"),
        (
            "the paper changes little in {a}",
            "{a} hardly turns the paper red",
            "the colour stays nearly the same in {a}",
        ),
        (
            "the paper changes strongly in {a}",
            "{a} turns the paper deep red",
            "the colour becomes very different in {a}",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about two things of a topic: {a} has less of the property than {b}."""

    topic: Topic
    a: str
    b: str

    @property
    def id(self) -> str:
        return f"{self.topic.name}/{self.a}/{self.b}".replace(" ", "_")

    @property
    def text(self) -> str:
        return self.fill(self.topic.question)

    def fill(self, template: str) -> str:
        return template.format(a=self.a, b=self.b)


def make_questions(rng: random.Random) -> list[Question]:
    """All pairs of neighbours and second neighbours of every topic, in a random order."""
    questions = [
        Question(topic, topic.things[i], topic.things[j])
        for topic in TOPICS
        for i in range(len(topic.things))
        for j in range(i + 1, min(i + 3, len(topic.things)))
    ]
    rng.shuffle(questions)
    return questions


def make_answers(questions: Sequence[Question], count: int, rng: random.Random, split: str) -> list[GradedAnswer]:
    """`count` graded answers to these questions. split: a name that their ids begin with."""
    answers = []
    for number in range(count):
        question = questions[number % len(questions)]
        grade = rng.choices(list(GRADE_SHARES), list(GRADE_SHARES.values()))[0]
        text = _untidy(_answer(question, grade, questions, rng), rng)
        reference = question.fill(question.topic.less[0])
        answers.append(
            GradedAnswer(f"{split}-{number}", question.id, question.text, reference, text, grade, f"{split} {number}")
        )
    return answers


def _answer(question: Question, grade: str, questions: Sequence[Question], rng: random.Random) -> str:
    topic = question.topic
    if grade == "non_domain":
        return rng.choice(HELP)
    if grade == "irrelevant":
        others = [other for other in questions if other.topic is not topic]
        other = rng.choice(others)
        return rng.choice(OPENINGS) + other.fill(rng.choice(other.topic.less))
    if grade == "partially_correct_incomplete":
        return rng.choice(OPENINGS) + question.fill(rng.choice(topic.follows))
    if grade == "contradictory":
        end = rng.choice(("", " so " + question.fill(rng.choice(topic.opposite))))
        return rng.choice(OPENINGS) + question.fill(rng.choice(topic.more)) + end
    end = rng.choice(("", " so " + question.fill(rng.choice(topic.follows))))
    return rng.choice(OPENINGS) + question.fill(rng.choice(topic.less)) + end


def _untidy(text: str, rng: random.Random) -> str:
    """As students write: a letter left out or doubled, no article, a capital letter, a full stop."""
    words = [word for word in text.split() if word != "the" or rng.random() < 0.7]
    for i, word in enumerate(words):
        if len(word) > 4 and rng.random() < 0.06:
            at = rng.randrange(1, len(word))
            words[i] = word[:at] + rng.choice(("", word[at] * 2)) + word[at + 1 :]
    text = " ".join(words) or text
    return (text[:1].upper() + text[1:] if rng.random() < 0.3 else text) + rng.choice(("", "", "."))
